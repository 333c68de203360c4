use std::sync::Arc;

use burn::module::{Module, ModuleDisplay};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::{Int, Tensor, TensorReadError};
use burn::train::{ClassificationOutput, InferenceStep, TrainOutput, TrainStep};
use convzoo_models::blocks::Checkpointed;
use convzoo_models::quantize::Simulation;
use convzoo_models::{Classifier, Outputs};
use serde::{Deserialize, Serialize};

use crate::precision::{LossScale, widened};
use crate::{Batch, Measures, Partners, Precision, Recipe, TrainError};

/// What training minimizes. Any function of logits and targets is one, and [`CrossEntropy`] the usual one.
///
/// ```
/// use burn::tensor::{Int, Tensor, activation::softmax};
/// use convzoo_train::Loss;
///
/// /// Mean squared difference between probabilities and targets.
/// fn brier(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
///     let [_, classes] = logits.dims();
///     (softmax(logits, 1) - targets.one_hot::<2>(classes).float()).square().sum_dim(1).mean()
/// }
///
/// fn takes(_: impl Loss) {}
/// takes(brier);
/// ```
pub trait Loss: Send + Sync {
    /// The mean loss `[1]` of logits `[batch, classes]` where the classes are `targets`, `[batch]`. Tensors of its own
    /// have to be on the device of the logits, of which there may be several.
    fn forward(&self, logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1>;
}

impl<F: Fn(Tensor<2>, Tensor<1, Int>) -> Tensor<1> + Send + Sync> Loss for F {
    fn forward(&self, logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
        self(logits, targets)
    }
}

/// Cross entropy, with a share of each target spread over all classes where it is smoothed, and images weighted by their
/// class where it has weights.
#[derive(Debug, Clone)]
pub struct CrossEntropy(CrossEntropyLossConfig);

impl CrossEntropy {
    /// With `smoothing`, a share from 0 to below 1, of the target spread over all classes.
    pub fn new(smoothing: f64) -> Self {
        Self(CrossEntropyLossConfig::new().with_smoothing((smoothing > 0.0).then_some(smoothing as f32)))
    }

    /// With the weight of each class, above zero: the mean over a batch is weighted by them.
    pub fn with_weights(self, weights: Vec<f32>) -> Self {
        Self(self.0.with_weights(Some(weights)))
    }
}

impl Loss for CrossEntropy {
    fn forward(&self, logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
        self.0.init(&logits.device()).forward(logits, targets)
    }
}

/// A loss, as a field of a module.
#[derive(Clone)]
struct Objective(Arc<dyn Loss>);

impl std::fmt::Debug for Objective {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Loss")
    }
}

/// A network and the loss it is trained by: what burn-train's `Learner` trains, on the batches of a [`Loader`].
///
/// Mixed images have their mixed loss, auxiliary classifiers theirs, times a weight. In validation the loss is cross
/// entropy alone, whatever is trained by.
///
/// [`Loader`]: crate::Loader
#[derive(Module, Debug)]
pub struct TrainableClassifier<N: Module + ModuleDisplay> {
    /// The network.
    pub network: N,
    #[module(skip)]
    loss: Objective,
    auxiliary_weight: f64,
    /// Whether the backward pass computes segments again.
    checkpointing: bool,
    /// Whether batches hold the backbone's features of images, rather than images.
    from_features: bool,
    /// How passes are rounded to bytes, if they are.
    #[module(skip)]
    simulation: Option<Arc<Simulation>>,
    /// Of a training step.
    #[module(skip)]
    precision: Precision,
    /// What the loss is multiplied by before the backward pass.
    loss_scale: f64,
}

impl<N: Module + ModuleDisplay> TrainableClassifier<N> {
    /// `network`, trained by cross entropy, and by that of its auxiliary classifiers with [`Recipe`]'s default weight.
    pub fn new(network: N) -> Self {
        Self::by(network, &Recipe::default())
    }

    /// `network`, trained by the loss that `recipe` describes, but for its class weights, which only the data tells, in its
    /// precision.
    pub fn by(network: N, recipe: &Recipe) -> Self {
        let loss = Objective(Arc::new(CrossEntropy::new(recipe.label_smoothing)));
        let &Recipe { auxiliary_weight, checkpointing, precision, .. } = recipe;
        let (from_features, simulation, loss_scale) = (false, None, 1.0);
        Self { network, loss, auxiliary_weight, checkpointing, from_features, simulation, precision, loss_scale }
    }

    /// Trained by another loss.
    pub fn with_loss(self, loss: impl Loss + 'static) -> Self {
        self.with_shared_loss(Arc::new(loss))
    }

    pub(crate) fn with_shared_loss(self, loss: Arc<dyn Loss>) -> Self {
        Self { loss: Objective(loss), ..self }
    }

    /// With another weight of each auxiliary classifier's loss.
    pub fn with_auxiliary_weight(self, auxiliary_weight: f64) -> Self {
        Self { auxiliary_weight, ..self }
    }

    /// With gradient checkpointing or without: whether the backward pass computes the network's segments again, of which the
    /// forward pass then keeps the inputs alone.
    pub fn with_checkpointing(self, checkpointing: bool) -> Self {
        Self { checkpointing, ..self }
    }

    /// The same on batches of the backbone's features.
    pub(crate) fn of_features(self) -> Self {
        Self { from_features: true, ..self }
    }

    /// The same with its passes rounded to bytes.
    pub(crate) fn in_bytes(self, simulation: &Arc<Simulation>) -> Self {
        Self { simulation: Some(Arc::clone(simulation)), ..self }
    }

    /// Has the next steps' gradients multiplied by a factor, or by none.
    pub(crate) fn scale_loss(&mut self, scale: Option<LossScale>) {
        self.loss_scale = scale.map_or(1.0, |scale| scale.factor);
    }

    /// How its passes are rounded to bytes, if they are.
    pub(crate) fn simulation(&self) -> Option<&Arc<Simulation>> {
        self.simulation.as_ref()
    }
}

/// For burn-train's metrics. They weigh a loss by its length: one value an image makes the mean over an epoch that
/// over its images, also when the last batch is smaller.
fn output(loss: Tensor<1>, logits: Tensor<2>, targets: Tensor<1, Int>) -> ClassificationOutput {
    let [images] = targets.dims();
    ClassificationOutput::new(loss.expand([images]), logits, targets)
}

impl<N: Classifier + ModuleDisplay> TrainStep for TrainableClassifier<N> {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> TrainOutput<ClassificationOutput> {
        let images = self.precision.of(batch.images);
        let Outputs { logits, auxiliary } = match &self.simulation {
            _ if self.from_features => Outputs { logits: self.network.forward_head(images), auxiliary: Vec::new() },
            Some(simulation) => simulation.forward_train(&self.network, images),
            None if self.checkpointing => self.network.forward_train(Checkpointed::new(images)),
            None => self.network.forward_train(images),
        };
        let (logits, auxiliary) = (widened(logits), auxiliary.into_iter().map(widened));
        let Objective(loss) = &self.loss;
        let mixed = |logits: Tensor<2>| match &batch.mixed {
            None => loss.forward(logits, batch.targets.clone()),
            Some(Partners { targets, own_share }) => {
                let own = loss.forward(logits.clone(), batch.targets.clone()).mul_scalar(*own_share);
                own + loss.forward(logits, targets.clone()).mul_scalar(1.0 - own_share)
            }
        };
        let main = mixed(logits.clone());
        let loss = auxiliary.fold(main, |loss, logits| loss + mixed(logits).mul_scalar(self.auxiliary_weight));
        let gradients = match self.loss_scale {
            1.0 => loss.backward(),
            scale => loss.clone().mul_scalar(scale).backward(),
        };
        TrainOutput::new(self, gradients, output(loss, logits, batch.targets))
    }
}

impl<N: Classifier + ModuleDisplay> InferenceStep for TrainableClassifier<N> {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> ClassificationOutput {
        let logits = match &self.simulation {
            _ if self.from_features => self.network.forward_head(batch.images),
            Some(simulation) => simulation.forward(&self.network, batch.images),
            None => self.network.forward(batch.images),
        };
        output(CrossEntropy::new(0.0).forward(logits.clone(), batch.targets.clone()), logits, batch.targets)
    }
}

/// Loss and correct predictions of the images so far.
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

    /// Adds a batch of so many images with these means.
    pub fn add(&mut self, batch: &BatchFigures) {
        self.loss += batch.loss * batch.images as f64;
        self.correct += batch.correct;
        self.images += batch.images;
    }
}

/// A batch's mean loss and its correct predictions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct BatchFigures {
    pub loss: f64,
    pub correct: usize,
    pub images: usize,
}

/// A batch's figures while they are still on the device: reading them makes the host wait for it.
pub(crate) struct Pending {
    loss: Tensor<1>,
    correct: Tensor<1, Int>,
    images: usize,
}

impl Pending {
    pub fn of(output: &ClassificationOutput) -> Self {
        let targets = output.targets.clone();
        let [images] = targets.dims();
        let predictions = output.output.clone().without_autodiff().argmax(1).flatten::<1>(0, 1);
        Self {
            loss: output.loss.clone().without_autodiff().slice(0..1),
            correct: predictions.equal(targets.without_autodiff()).int().sum(),
            images,
        }
    }

    /// Waits for them.
    pub fn read(self) -> Result<BatchFigures, TrainError> {
        let stopped = |error: TensorReadError| TrainError::Stopped(error.to_string());
        Ok(BatchFigures {
            loss: f64::from(self.loss.try_into_scalar::<f32>().map_err(stopped)?),
            correct: self.correct.try_into_scalar::<i64>().map_err(stopped)? as usize,
            images: self.images,
        })
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    /// `crates/convzoo-train/tests/torch.py` printed them, with PyTorch 2.9.0.
    #[test]
    fn cross_entropy_is_smoothed_and_weighted_as_pytorchs_is() {
        let device = Device::flex();
        let logits = Tensor::from_floats([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]], &device);
        for (smoothing, expected) in [(0.0, 2.285_240_4), (0.1, 2.260_240_3)] {
            let loss = CrossEntropy::new(smoothing);
            let loss: f32 = loss.forward(logits.clone(), Tensor::from_ints([0, 2], &device)).into_scalar();
            assert!((loss - expected).abs() < 1e-6, "smoothing {smoothing}: {loss}, in PyTorch {expected}");
        }
        for (smoothing, expected) in [(0.0, 1.216_854_3), (0.1, 1.271_791_2)] {
            let loss = CrossEntropy::new(smoothing).with_weights(vec![2.0, 1.0, 0.5]);
            let loss: f32 = loss.forward(logits.clone(), Tensor::from_ints([0, 2], &device)).into_scalar();
            assert!((loss - expected).abs() < 1e-6, "weighted, smoothing {smoothing}: {loss}, in PyTorch {expected}");
        }
    }
}
