use burn::module::{Module, ModuleDisplay};
use burn::nn::loss::{CrossEntropyLoss, CrossEntropyLossConfig};
use burn::tensor::{Device, Int, Tensor};
use burn::train::{ClassificationOutput, InferenceStep, TrainOutput, TrainStep};
use convzoo_models::Classifier;

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

    fn output(&self, logits: Tensor<2>, auxiliary: Vec<Tensor<2>>, targets: Tensor<1, Int>) -> ClassificationOutput {
        let main = self.loss.forward(logits.clone(), targets.clone());
        let loss = auxiliary.into_iter().fold(main, |loss, logits| {
            loss + self.loss.forward(logits, targets.clone()).mul_scalar(self.auxiliary_weight)
        });
        ClassificationOutput::new(loss, logits, targets)
    }
}

impl<N: Classifier + ModuleDisplay> TrainStep for Trainee<N> {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> TrainOutput<ClassificationOutput> {
        let outputs = self.network.forward_train(batch.images);
        let output = self.output(outputs.logits, outputs.auxiliary, batch.targets);
        TrainOutput::new(self, output.loss.backward(), output)
    }
}

impl<N: Classifier + ModuleDisplay> InferenceStep for Trainee<N> {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> ClassificationOutput {
        self.output(self.network.forward(batch.images), Vec::new(), batch.targets)
    }
}
