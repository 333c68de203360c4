use std::sync::Arc;
use std::time::Instant;

use burn::data::dataloader::DataLoader;
use burn::tensor::Device;
use burn::tensor::activation::{log_softmax, softmax};
use convzoo_data::{Dataset, Preprocess};
use convzoo_models::Predict;
use convzoo_report::Matrix;

use crate::{Loader, TrainError};

/// How a network does on a data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Images evaluated.
    pub images: usize,
    /// Images whose most probable class is theirs.
    pub correct: usize,
    /// Images whose class is among the five most probable.
    pub correct_top5: usize,
    /// Mean cross entropy.
    pub loss: f64,
    /// Images by class (row) and predicted class (column): the confusion matrix.
    pub confusion: Vec<Vec<usize>>,
    /// The images whose most probable class is not theirs.
    pub mistakes: Vec<Mistake>,
    /// Time of the whole pass, loading included.
    pub seconds: f64,
}

/// An image that is classified wrongly.
#[derive(Debug, Clone, PartialEq)]
pub struct Mistake {
    /// Its index in the data set.
    pub image: usize,
    /// Its class.
    pub class: usize,
    /// Its most probable class.
    pub predicted: usize,
    /// That class's probability, 0 to 1.
    pub probability: f32,
}

impl Evaluation {
    /// Top-1 accuracy: the share of images whose most probable class is theirs.
    pub fn top1(&self) -> f64 {
        self.correct as f64 / self.images as f64
    }

    /// Top-5 accuracy: the share of images whose class is among the five most probable.
    pub fn top5(&self) -> f64 {
        self.correct_top5 as f64 / self.images as f64
    }

    /// Accuracy of each class: the share of its images that are classified correctly; `None` where it has no image.
    pub fn class_accuracy(&self) -> Vec<Option<f64>> {
        let accuracy = |(class, row): (usize, &Vec<usize>)| {
            let images: usize = row.iter().sum();
            (images > 0).then(|| row[class] as f64 / images as f64)
        };
        self.confusion.iter().enumerate().map(accuracy).collect()
    }

    /// The confusion matrix, to be drawn.
    pub fn matrix(&self, title: impl Into<String>, classes: &[String]) -> Matrix {
        let values = self.confusion.iter().map(|row| row.iter().map(|&images| images as f64).collect());
        Matrix::new(title, "class", "predicted class", classes, values.collect())
    }
}

/// What a network is shown of each image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Views {
    /// What [`Preprocess`] makes of it: the centre, for networks of large images.
    #[default]
    Centre,
    /// Corners and centre, and their mirror images; the mean of the ten probabilities counts.
    TenCrops,
}

/// Runs `network`, in evaluation mode on `device`, over all of `data`. `progress` is told the images done.
pub fn evaluate<N: Predict>(
    network: &N,
    data: Arc<dyn Dataset>,
    preprocess: &Preprocess,
    views: Views,
    batch_size: usize,
    device: &Device,
    mut progress: impl FnMut(usize),
) -> Result<Evaluation, TrainError> {
    let start = Instant::now();
    let classes = data.classes().len();
    let loader = Loader::new(data, preprocess.clone(), batch_size, device);
    let loader = if views == Views::TenCrops { loader.ten_crops() } else { loader };
    let mut evaluation = Evaluation {
        images: 0,
        correct: 0,
        correct_top5: 0,
        loss: 0.0,
        confusion: vec![vec![0; classes]; classes],
        mistakes: Vec::new(),
        seconds: 0.0,
    };
    for batch in loader.iter() {
        let batch = batch.map_err(|error| TrainError::Unread(error.to_string()))?;
        let [images] = batch.targets.dims();
        let logits = network.predict(batch.images)?;
        let [rows, outputs] = logits.dims();
        if outputs != classes {
            return Err(TrainError::Classes { network: outputs, data: classes });
        }
        let log_probabilities = match views {
            Views::Centre => log_softmax(logits, 1),
            Views::TenCrops => {
                let probabilities = softmax(logits, 1).reshape([images, rows / images, classes]);
                probabilities.mean_dim(1).squeeze_dim::<2>(1).log()
            }
        };
        let read = |error: burn::tensor::TensorReadError| TrainError::Stopped(error.to_string());
        let rows = log_probabilities.try_into_vec_as::<f32>().map_err(read)?;
        let targets = batch.targets.try_into_vec_as::<i64>().map_err(read)?;
        for (row, target) in rows.chunks_exact(classes).zip(targets) {
            let target = target as usize;
            // NaN is stronger than nothing: a network that returns it is right about nothing.
            let stronger = row.iter().filter(|&&other| other > row[target]).count();
            let first = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(class, _)| class);
            let valid = !row[target].is_nan();
            evaluation.correct += usize::from(first == target && valid);
            evaluation.correct_top5 += usize::from(stronger < 5 && valid);
            evaluation.loss -= f64::from(row[target]);
            evaluation.confusion[target][first] += 1;
            if first != target {
                let (image, probability) = (evaluation.images, row[first].exp());
                evaluation.mistakes.push(Mistake { image, class: target, predicted: first, probability });
            }
            evaluation.images += 1;
        }
        progress(evaluation.images);
    }
    evaluation.loss /= evaluation.images.max(1) as f64;
    evaluation.seconds = start.elapsed().as_secs_f64();
    Ok(evaluation)
}
