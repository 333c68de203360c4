use std::sync::Arc;
use std::time::Instant;

use burn::data::dataloader::DataLoader;
use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Device, Tensor, TensorReadError};
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

    /// The figures of each class, in label order.
    pub fn by_class(&self) -> Vec<ClassFigures> {
        let share = |part: usize, whole: usize| (whole > 0).then(|| part as f64 / whole as f64);
        let figures = |(class, row): (usize, &Vec<usize>)| {
            let (images, right) = (row.iter().sum::<usize>(), row[class]);
            let predicted: usize = self.confusion.iter().map(|row| row[class]).sum();
            ClassFigures {
                images,
                precision: share(right, predicted),
                recall: share(right, images),
                f1: share(2 * right, images + predicted),
            }
        };
        self.confusion.iter().enumerate().map(figures).collect()
    }

    /// The confusion matrix, to be drawn.
    pub fn matrix(&self, title: impl Into<String>, classes: &[String]) -> Matrix {
        let values = self.confusion.iter().map(|row| row.iter().map(|&images| images as f64).collect());
        Matrix::new(title, "class", "predicted class", classes, values.collect())
    }
}

/// How a network does on one class.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassFigures {
    /// Images of the class.
    pub images: usize,
    /// The share of those classified as it that are of it; `None` where none is.
    pub precision: Option<f64>,
    /// The share of its images that are classified as it, which is the class's accuracy; `None` where it has no image.
    pub recall: Option<f64>,
    /// The harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN); `None` where there is neither.
    pub f1: Option<f64>,
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

/// One of the networks that are evaluated together.
#[derive(Debug, Clone)]
pub struct Member<'a, N> {
    /// The network, in evaluation mode.
    pub network: &'a N,
    /// How images become its input.
    pub preprocess: &'a Preprocess,
    /// Its output for each class of the data, where that is not the output of the same number.
    pub outputs: Option<Vec<usize>>,
}

/// How networks do on a data set together, and each alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Ensemble {
    /// By the mean of their probabilities.
    pub together: Evaluation,
    /// By its own, in the order of the members.
    pub alone: Vec<Evaluation>,
}

/// Runs `network`, in evaluation mode on `device`, over all of `data`. `progress` is told the images done.
pub fn evaluate<N: Predict>(
    network: &N,
    data: Arc<dyn Dataset>,
    preprocess: &Preprocess,
    views: Views,
    batch_size: usize,
    device: &Device,
    progress: impl FnMut(usize),
) -> Result<Evaluation, TrainError> {
    let member = Member { network, preprocess, outputs: None };
    Ok(evaluate_ensemble(&[member], data, views, batch_size, device, progress)?.together)
}

/// [`evaluate`] for several networks and the arithmetic mean of their softmax probabilities: the prediction of their
/// mixture, which one network that is wrong and sure of it cannot veto as it could a geometric mean.
pub fn evaluate_ensemble<N: Predict>(
    members: &[Member<N>],
    data: Arc<dyn Dataset>,
    views: Views,
    batch_size: usize,
    device: &Device,
    mut progress: impl FnMut(usize),
) -> Result<Ensemble, TrainError> {
    let start = Instant::now();
    let classes = data.classes().len();
    let loader = |member: &Member<N>| {
        let loader = Loader::new(Arc::clone(&data), member.preprocess.clone(), batch_size, device);
        if views == Views::TenCrops { loader.ten_crops() } else { loader }
    };
    let loaders: Vec<_> = members.iter().map(loader).collect();
    let mut batches: Vec<_> = loaders.iter().map(|loader| loader.iter()).collect();
    let mut together = Evaluation::none(classes);
    let mut alone = vec![together.clone(); members.len()];
    while together.images < data.len() {
        let (mut rows, mut targets) = (Vec::new(), Vec::new());
        for (member, batches) in members.iter().zip(&mut batches) {
            let Some(batch) = batches.next() else { break };
            let batch = batch.map_err(|error| TrainError::Unread(error.to_string()))?;
            let images = batch.targets.dims()[0];
            targets = batch.targets.try_into_vec_as::<i64>().map_err(stopped)?;
            rows.push(log_probabilities(member, batch.images, images, classes)?);
        }
        if targets.is_empty() {
            break;
        }
        for (image, target) in targets.into_iter().enumerate() {
            let target = target as usize;
            let own: Vec<_> = rows.iter().map(|rows| &rows[image * classes..][..classes]).collect();
            own.iter().zip(&mut alone).for_each(|(row, evaluation)| evaluation.count(row, target));
            together.count(&mean(&own), target);
        }
        progress(together.images);
    }
    for evaluation in alone.iter_mut().chain([&mut together]) {
        evaluation.loss /= evaluation.images.max(1) as f64;
        evaluation.seconds = start.elapsed().as_secs_f64();
    }
    Ok(Ensemble { together, alone })
}

fn stopped(error: TensorReadError) -> TrainError {
    TrainError::Stopped(error.to_string())
}

/// Logarithms of a network's probabilities, `images` rows of `classes`, from one or more views of each image.
fn log_probabilities<N: Predict>(
    member: &Member<N>,
    views: Tensor<4>,
    images: usize,
    classes: usize,
) -> Result<Vec<f32>, TrainError> {
    let logits = member.network.predict(views)?;
    let [rows, outputs] = logits.dims();
    if outputs != classes {
        return Err(TrainError::Classes { network: outputs, data: classes });
    }
    let log_probabilities = match rows == images {
        true => log_softmax(logits, 1),
        false => {
            let probabilities = softmax(logits, 1).reshape([images, rows / images, classes]);
            probabilities.mean_dim(1).squeeze_dim::<2>(1).log()
        }
    };
    let rows = log_probabilities.try_into_vec_as::<f32>().map_err(stopped)?;
    Ok(match &member.outputs {
        None => rows,
        Some(outputs) => rows.chunks_exact(classes).flat_map(|row| outputs.iter().map(|&output| row[output])).collect(),
    })
}

/// Logarithms of the mean of probabilities whose logarithms these are, a row for each network.
fn mean(rows: &[&[f32]]) -> Vec<f32> {
    if let [row] = rows {
        return row.to_vec();
    }
    let of_class = |class: usize| {
        let logarithms = || rows.iter().map(|row| row[class]);
        // The largest is taken out, so that the sum does not vanish.
        let largest = logarithms().fold(f32::MIN, f32::max);
        let sum: f32 = logarithms().map(|logarithm| (logarithm - largest).exp()).sum();
        largest + (sum / rows.len() as f32).ln()
    };
    (0..rows.first().map_or(0, |row| row.len())).map(of_class).collect()
}

impl Evaluation {
    fn none(classes: usize) -> Self {
        Self {
            images: 0,
            correct: 0,
            correct_top5: 0,
            loss: 0.0,
            confusion: vec![vec![0; classes]; classes],
            mistakes: Vec::new(),
            seconds: 0.0,
        }
    }

    /// Counts the next image: the logarithms of its classes' probabilities, and its class.
    fn count(&mut self, row: &[f32], target: usize) {
        // NaN is stronger than nothing: a network that returns it is right about nothing.
        let stronger = row.iter().filter(|&&other| other > row[target]).count();
        let first = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(class, _)| class);
        let valid = !row[target].is_nan();
        self.correct += usize::from(first == target && valid);
        self.correct_top5 += usize::from(stronger < 5 && valid);
        self.loss -= f64::from(row[target]);
        self.confusion[target][first] += 1;
        if first != target {
            let (image, probability) = (self.images, row[first].exp());
            self.mistakes.push(Mistake { image, class: target, predicted: first, probability });
        }
        self.images += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precision_and_recall_are_of_columns_and_rows() {
        let confusion = vec![vec![3, 1, 0], vec![2, 4, 0], vec![0, 0, 0]];
        let figures = Evaluation { confusion, ..Evaluation::none(3) }.by_class();
        let of = |class: usize| (figures[class].images, figures[class].precision, figures[class].recall);
        assert_eq!(of(0), (4, Some(0.6), Some(0.75)));
        assert_eq!(of(1), (6, Some(0.8), Some(4.0 / 6.0)));
        assert_eq!(of(2), (0, None, None));
        let harmonic = 2.0 * 0.6 * 0.75 / (0.6 + 0.75);
        assert!((figures[0].f1.unwrap() - harmonic).abs() < 1e-12 && figures[2].f1.is_none(), "{figures:?}");
    }

    #[test]
    fn the_mean_is_of_probabilities_and_not_of_their_logarithms() {
        let rows = [[0.9_f32, 0.1], [0.2, 0.8]].map(|row| row.map(f32::ln));
        let mean: Vec<f32> = mean(&[&rows[0], &rows[1]]).into_iter().map(f32::exp).collect();
        assert!((mean[0] - 0.55).abs() < 1e-6 && (mean[1] - 0.45).abs() < 1e-6, "{mean:?}");
    }

    #[test]
    fn the_mean_of_what_is_hardly_probable_is_finite_and_of_what_is_no_number_none() {
        let mean = mean(&[&[-200.0, f32::NAN], &[-201.0, -1.0]]);
        assert!((mean[0] + 200.38).abs() < 0.01 && mean[1].is_nan(), "{mean:?}");
    }
}
