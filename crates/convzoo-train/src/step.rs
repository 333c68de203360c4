use burn::module::{Module, ModuleDisplay};
use burn::nn::loss::{CrossEntropyLoss, CrossEntropyLossConfig};
use burn::tensor::{Device, Int, Tensor};
use burn::train::{ClassificationOutput, InferenceStep, TrainOutput, TrainStep};
use convzoo_models::Classifier;

use crate::loader::Partners;
use crate::{Batch, Recipe};

/// A network and the loss it is trained by.
#[derive(Module, Debug)]
pub(crate) struct Trainee<N: Module + ModuleDisplay> {
    pub network: N,
    loss: CrossEntropyLoss,
    auxiliary_weight: f64,
}

impl<N: Classifier + ModuleDisplay> Trainee<N> {
    pub fn new(network: N, recipe: &Recipe, device: &Device) -> Self {
        let smoothing = (recipe.label_smoothing > 0.0).then_some(recipe.label_smoothing as f32);
        let loss = CrossEntropyLossConfig::new().with_smoothing(smoothing).init(device);
        Self { network, loss, auxiliary_weight: recipe.auxiliary_weight }
    }

    fn loss(
        &self,
        logits: &Tensor<2>,
        auxiliary: Vec<Tensor<2>>,
        targets: &Tensor<1, Int>,
        mixed: Option<&Partners>,
    ) -> Tensor<1> {
        // Cross entropy is linear in its target: that of a mixed one is the mixed cross entropy.
        let entropy = |logits: Tensor<2>| match mixed {
            None => self.loss.forward(logits, targets.clone()),
            Some(Partners { targets: partners, own_share }) => {
                let own = self.loss.forward(logits.clone(), targets.clone()).mul_scalar(*own_share);
                own + self.loss.forward(logits, partners.clone()).mul_scalar(1.0 - own_share)
            }
        };
        let main = entropy(logits.clone());
        auxiliary.into_iter().fold(main, |loss, logits| loss + entropy(logits).mul_scalar(self.auxiliary_weight))
    }
}

/// For the metrics. They weigh a loss by its length: one value an image makes the mean over an epoch that over its
/// images, also when the last batch is smaller.
fn output(loss: Tensor<1>, logits: Tensor<2>, targets: Tensor<1, Int>) -> ClassificationOutput {
    let [images] = targets.dims();
    ClassificationOutput::new(loss.expand([images]), logits, targets)
}

impl<N: Classifier + ModuleDisplay> TrainStep for Trainee<N> {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> TrainOutput<ClassificationOutput> {
        let outputs = self.network.forward_train(batch.images);
        let loss = self.loss(&outputs.logits, outputs.auxiliary, &batch.targets, batch.mixed.as_ref());
        // Burn adds up the gradients of several devices.
        let gradients = loss.clone().mul_scalar(batch.share).backward();
        TrainOutput::new(self, gradients, output(loss, outputs.logits, batch.targets))
    }
}

impl<N: Classifier + ModuleDisplay> InferenceStep for Trainee<N> {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> ClassificationOutput {
        let logits = self.network.forward(batch.images);
        output(self.loss(&logits, Vec::new(), &batch.targets, None), logits, batch.targets)
    }
}
