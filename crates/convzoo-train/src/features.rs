use std::sync::Arc;

use burn::data::dataloader::DataLoader;
use burn::tensor::TensorReadError;
use convzoo_models::Classifier;

use crate::{Loader, Precision, TrainError};

/// The features of each image of a data set, computed once by the layers before a network's head: all that training the
/// head alone needs.
pub(crate) struct Features {
    /// Channels, height and width.
    pub shape: [usize; 3],
    values: Vec<f32>,
    labels: Vec<i64>,
}

impl Features {
    /// Those of the images of two loaders, which do not shuffle, to train on, in `precision`, and to test on; nothing where
    /// together they are more than `bytes`, or where `continues`, which is told the images done, says no.
    pub fn of_both<N: Classifier>(
        network: &N,
        loaders: [&Loader; 2],
        precision: Precision,
        bytes: usize,
        mut continues: impl FnMut(usize) -> bool,
    ) -> Result<Option<[Arc<Self>; 2]>, TrainError> {
        let images: usize = loaders.iter().map(|loader| loader.num_items()).sum();
        let mut both = [0; 2].map(|_| Self { shape: [0; 3], values: Vec::new(), labels: Vec::new() });
        let mut done = 0;
        for ((features, loader), precision) in both.iter_mut().zip(loaders).zip([precision, Precision::F32]) {
            for batch in loader.iter() {
                let batch = batch.map_err(|error| TrainError::Unread(error.to_string()))?;
                let maps = network.forward_features(precision.of(batch.images));
                let [count, shape @ ..] = maps.dims();
                features.shape = shape;
                if features.len().saturating_mul(images) > bytes / size_of::<f32>() {
                    return Ok(None);
                }
                if features.values.is_empty() {
                    features.values.reserve_exact(features.len() * loader.num_items());
                }
                let read = |error: TensorReadError| TrainError::Stopped(error.to_string());
                features.values.extend(maps.try_into_vec_as::<f32>().map_err(read)?);
                features.labels.extend(batch.targets.try_into_vec_as::<i64>().map_err(read)?);
                done += count;
                if !continues(done) {
                    return Ok(None);
                }
            }
        }
        Ok(Some(both.map(Arc::new)))
    }

    /// Those of one image, and its class.
    pub fn get(&self, index: usize) -> (&[f32], i64) {
        (&self.values[index * self.len()..][..self.len()], self.labels[index])
    }

    fn len(&self) -> usize {
        self.shape.iter().product()
    }
}
