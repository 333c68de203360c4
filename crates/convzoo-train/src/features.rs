use burn::data::dataloader::DataLoader;
use burn::tensor::TensorReadError;
use convzoo_models::Classifier;

use crate::{Loader, TrainError};

/// What the layers in front of a network's head answer to each image of a data set, computed once: all that training
/// the head alone needs.
pub(crate) struct Features {
    /// Channels, height and width.
    pub shape: [usize; 3],
    values: Vec<f32>,
    labels: Vec<i64>,
}

impl Features {
    /// Those of all images of `loader`, which does not shuffle; nothing where they are more than `bytes`.
    pub fn compute<N: Classifier>(network: &N, loader: &Loader, bytes: usize) -> Result<Option<Self>, TrainError> {
        let mut features = Self { shape: [0; 3], values: Vec::new(), labels: Vec::new() };
        for batch in loader.iter() {
            let batch = batch.map_err(|error| TrainError::Stopped(error.to_string()))?;
            let maps = network.forward_features(batch.images);
            let [_, shape @ ..] = maps.dims();
            features.shape = shape;
            if features.len().saturating_mul(loader.num_items()) > bytes / size_of::<f32>() {
                return Ok(None);
            }
            let read = |error: TensorReadError| TrainError::Stopped(error.to_string());
            features.values.extend(maps.try_into_vec_as::<f32>().map_err(read)?);
            features.labels.extend(batch.targets.try_into_vec_as::<i64>().map_err(read)?);
        }
        Ok(Some(features))
    }

    /// Those of one image, and its class.
    pub fn get(&self, index: usize) -> (&[f32], i64) {
        (&self.values[index * self.len()..][..self.len()], self.labels[index])
    }

    fn len(&self) -> usize {
        self.shape.iter().product()
    }
}
