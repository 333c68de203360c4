use burn::module::{Module, ModuleDisplay};
use burn::nn::loss::{CrossEntropyLoss, CrossEntropyLossConfig};
use burn::tensor::{Device, Int, Tensor, TensorReadError};
use burn::train::{ClassificationOutput, InferenceStep, TrainOutput, TrainStep};
use convzoo_models::{Classifier, Outputs};
use serde::{Deserialize, Serialize};

use crate::{Batch, Measures, Partners, Recipe, TrainError};

/// A network and the loss it is trained by.
#[derive(Module, Debug)]
pub(crate) struct Trainee<N: Module + ModuleDisplay> {
    pub network: N,
    loss: CrossEntropyLoss,
    /// Without smoothing: what tests are measured by.
    cross_entropy: CrossEntropyLoss,
    auxiliary_weight: f64,
    /// Whether batches hold what the backbone has answered to images, rather than images.
    from_features: bool,
}

impl<N: Module + ModuleDisplay> Trainee<N> {
    pub fn new(network: N, recipe: &Recipe, device: &Device) -> Self {
        let smoothing = (recipe.label_smoothing > 0.0).then_some(recipe.label_smoothing as f32);
        let loss = CrossEntropyLossConfig::new().with_smoothing(smoothing).init(device);
        let cross_entropy = CrossEntropyLossConfig::new().init(device);
        Self { network, loss, cross_entropy, auxiliary_weight: recipe.auxiliary_weight, from_features: false }
    }

    /// The same for what the network's backbone has answered.
    pub fn of_features(self) -> Self {
        Self { from_features: true, ..self }
    }
}

/// For the dashboard's metrics. They weigh a loss by its length: one value an image makes the mean over an epoch that
/// over its images, also when the last batch is smaller.
fn output(loss: Tensor<1>, logits: Tensor<2>, targets: Tensor<1, Int>) -> ClassificationOutput {
    let [images] = targets.dims();
    ClassificationOutput::new(loss.expand([images]), logits, targets)
}

impl<N: Classifier + ModuleDisplay> TrainStep for Trainee<N> {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> TrainOutput<ClassificationOutput> {
        let outputs = match self.from_features {
            true => Outputs { logits: self.network.forward_head(batch.images), auxiliary: Vec::new() },
            false => self.network.forward_train(batch.images),
        };
        // Cross entropy is linear in its target: that of a mixed one is the mixed cross entropy.
        let entropy = |logits: Tensor<2>| match &batch.mixed {
            None => self.loss.forward(logits, batch.targets.clone()),
            Some(Partners { targets, own_share }) => {
                let own = self.loss.forward(logits.clone(), batch.targets.clone()).mul_scalar(*own_share);
                own + self.loss.forward(logits, targets.clone()).mul_scalar(1.0 - own_share)
            }
        };
        let main = entropy(outputs.logits.clone());
        let auxiliary = outputs.auxiliary.into_iter();
        let loss = auxiliary.fold(main, |loss, logits| loss + entropy(logits).mul_scalar(self.auxiliary_weight));
        let gradients = loss.backward();
        TrainOutput::new(self, gradients, output(loss, outputs.logits, batch.targets))
    }
}

impl<N: Classifier + ModuleDisplay> InferenceStep for Trainee<N> {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> ClassificationOutput {
        let logits = match self.from_features {
            true => self.network.forward_head(batch.images),
            false => self.network.forward(batch.images),
        };
        output(self.cross_entropy.forward(logits.clone(), batch.targets.clone()), logits, batch.targets)
    }
}

/// Loss and right answers of the images so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Sum of the images' losses.
    loss: f64,
    correct: usize,
    pub images: usize,
}

impl Tally {
    pub fn measures(&self) -> Measures {
        let images = self.images.max(1) as f64;
        Measures { loss: self.loss / images, accuracy: self.correct as f64 / images }
    }
}

/// A batch's loss and right answers, still on the device: reading them makes the host wait for it.
pub(crate) struct Answers {
    loss: Tensor<1>,
    correct: Tensor<1, Int>,
    images: usize,
}

impl Answers {
    pub fn of(output: &ClassificationOutput) -> Self {
        let targets = output.targets.clone();
        let [images] = targets.dims();
        let answers = output.output.clone().without_autodiff().argmax(1).flatten::<1>(0, 1);
        Self {
            loss: output.loss.clone().without_autodiff().slice(0..1),
            correct: answers.equal(targets.without_autodiff()).int().sum(),
            images,
        }
    }

    /// Adds them to `tally`, and answers the batch's mean loss.
    pub fn add_to(self, tally: &mut Tally) -> Result<f64, TrainError> {
        let read = |error: TensorReadError| TrainError::Stopped(error.to_string());
        let loss = f64::from(self.loss.try_into_scalar::<f32>().map_err(read)?);
        tally.loss += loss * self.images as f64;
        tally.correct += self.correct.try_into_scalar::<i64>().map_err(read)? as usize;
        tally.images += self.images;
        Ok(loss)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `crates/convzoo-train/tests/torch.py` printed them, with PyTorch 2.9.0.
    #[test]
    fn cross_entropy_is_smoothed_as_pytorchs_is() {
        let device = Device::flex();
        let logits = Tensor::from_floats([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]], &device);
        for (smoothing, expected) in [(None, 2.285_240_4), (Some(0.1), 2.260_240_3)] {
            let loss = CrossEntropyLossConfig::new().with_smoothing(smoothing).init(&device);
            let loss: f32 = loss.forward(logits.clone(), Tensor::from_ints([0, 2], &device)).into_scalar();
            assert!((loss - expected).abs() < 1e-6, "smoothing {smoothing:?}: {loss}, in PyTorch {expected}");
        }
    }
}
