//! From images to labels.

use std::path::Path;

use burn::module::Module;
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor, TensorData, TensorReadError};
use convzoo_data::{DataError, Image, load_image};
use convzoo_models::{Classifier, InferenceError, ModelError, Network, Predict};
use serde::Serialize;
use thiserror::Error;

use crate::preprocess;

/// A class and its probability.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// The class, counted from 0.
    pub class: usize,
    /// Its name, where the network knows its classes' names.
    pub label: Option<String>,
    /// Its probability, 0 to 1.
    pub probability: f32,
}

impl Prediction {
    /// The class as people read it: its label, or its number where the network knows no labels.
    pub fn name(&self) -> String {
        self.label.clone().unwrap_or_else(|| format!("class {}", self.class))
    }
}

/// Why an image cannot be classified.
#[derive(Debug, Error)]
pub enum ClassifyError {
    /// The image cannot be read.
    #[error(transparent)]
    Image(#[from] DataError),
    /// The network does not take such images.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The network returns no logits for the image.
    #[error(transparent)]
    Inference(#[from] InferenceError),
    /// The device failed.
    #[error("the device did not answer: {0}")]
    Device(String),
    /// The network's logits are no numbers.
    #[error("the network's logits are not finite numbers: its weights are too large for its precision")]
    NotFinite,
}

/// The `top` most probable classes of an image, the most probable first. `network` is a [`Network`] or an
/// [`Inference`](crate::Inference).
pub fn classify<N: Predict + AsRef<Network>>(
    network: &N,
    image: &Image,
    top: usize,
) -> Result<Vec<Prediction>, ClassifyError> {
    Ok(classify_batch(network, std::slice::from_ref(image), top)?.pop().unwrap_or_default())
}

/// The `top` most probable classes of the image in a file.
pub fn classify_file<N: Predict + AsRef<Network>>(
    network: &N,
    path: impl AsRef<Path>,
    top: usize,
) -> Result<Vec<Prediction>, ClassifyError> {
    classify(network, &load_image(path.as_ref())?, top)
}

/// [`classify`] for several images in one pass.
pub fn classify_batch<N: Predict + AsRef<Network>>(
    network: &N,
    images: &[Image],
    top: usize,
) -> Result<Vec<Vec<Prediction>>, ClassifyError> {
    let inputs: Vec<_> = images.iter().map(|image| prepare(network.as_ref(), image)).collect();
    classify_prepared(network, &inputs, top)
}

/// The input that the network's own preprocessing makes of an image, `[channels, height, width]`: of the same size
/// whatever the image's, so that many can wait for their pass.
pub fn prepare(network: &Network, image: &Image) -> Vec<f32> {
    own_preprocess(network, image).apply(image)
}

/// [`classify`] for the inputs of several images, as [`prepare`] makes them, in one pass.
pub fn classify_prepared<N: Predict + AsRef<Network>>(
    network: &N,
    inputs: &[Vec<f32>],
    top: usize,
) -> Result<Vec<Vec<Prediction>>, ClassifyError> {
    if inputs.is_empty() {
        return Ok(Vec::new());
    }
    let probabilities = probabilities(network, inputs)?;
    Ok(probabilities.iter().map(|row| strongest(network.as_ref(), row, top)).collect())
}

/// [`classify`] by the mean over ten crops: corners and centre, and their mirror images.
pub fn classify_ten_crops<N: Predict + AsRef<Network>>(
    network: &N,
    image: &Image,
    top: usize,
) -> Result<Vec<Prediction>, ClassifyError> {
    let views = own_preprocess(network.as_ref(), image).ten_crops(image);
    let rows = probabilities(network, &views)?;
    let mean: Vec<f32> = (0..network.as_ref().classes())
        .map(|class| rows.iter().map(|row| row[class]).sum::<f32>() / rows.len() as f32)
        .collect();
    Ok(strongest(network.as_ref(), &mean, top))
}

/// How `image` becomes the network's input.
pub(crate) fn own_preprocess(network: &Network, image: &Image) -> convzoo_data::Preprocess {
    preprocess(&network.preprocessing(), network.input(), image)
}

/// Where the network's weights are.
pub(crate) fn device_of<N: Module>(network: &N) -> Device {
    network.devices().into_iter().next().unwrap_or_default()
}

/// Class probabilities of preprocessed images, a row each.
fn probabilities<N: Predict + AsRef<Network>>(network: &N, views: &[Vec<f32>]) -> Result<Vec<Vec<f32>>, ClassifyError> {
    let known = network.as_ref();
    let input @ [channels, height, width] = known.input();
    known.check_input(input)?;
    let data = TensorData::new(views.concat(), [views.len(), channels, height, width]);
    let logits = network.predict(Tensor::from_data(data, &device_of(known)))?;
    let read = |error: TensorReadError| ClassifyError::Device(error.to_string());
    let rows = softmax(logits, 1).try_into_vec_as::<f32>().map_err(read)?;
    if rows.iter().any(|probability| probability.is_nan()) {
        return Err(ClassifyError::NotFinite);
    }
    Ok(rows.chunks_exact(known.classes()).map(<[f32]>::to_vec).collect())
}

fn strongest(network: &Network, probabilities: &[f32], top: usize) -> Vec<Prediction> {
    let mut classes: Vec<usize> = (0..probabilities.len()).collect();
    classes.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
    let prediction = |class: usize| Prediction {
        class,
        label: network.labels().get(class).cloned(),
        probability: probabilities[class],
    };
    classes.into_iter().take(top).map(prediction).collect()
}
