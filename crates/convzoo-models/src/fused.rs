use std::collections::HashMap;
use std::time::Duration;

use burn::module::{Module, ParamId};
use burn::tensor::{Tensor, TensorData};
use convzoo_blocks::trace::{TraceError, trace};
use convzoo_kernels::elementwise::Activation;
use convzoo_kernels::engine::{CompiledNetwork, Profile, ProfiledStep};
pub use convzoo_kernels::linear::LinearPrecision;
use convzoo_kernels::{KernelError, Values, extension};
use thiserror::Error;

use crate::{Classifier, layer_names};

/// A network's inference on the CPU as one computation: batch norms folded into convolutions, activations and sums
/// computed with them, memory shared between layers.
///
/// It keeps the weights that the network had when it was fused. Its logits are the network's but for rounding.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use convzoo_models::{Fused, Options, LinearPrecision, create};
///
/// let device = Device::flex();
/// let network = create("lenet5", &Options::default(), &device)?;
/// let fused = Fused::new(&network, network.input(), LinearPrecision::Single)?;
/// let logits = fused.forward(Tensor::zeros([1, 1, 32, 32], &device))?;
/// assert_eq!(logits.dims(), [1, 10]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Fused {
    engine: CompiledNetwork,
    /// The layers by the labels of the engine's stages.
    names: HashMap<u64, String>,
}

/// Where a pass of a [`Fused`] network spends its time.
#[derive(Clone, Debug)]
pub struct FusedProfile {
    /// In the order of their computation.
    pub stages: Vec<FusedStage>,
    /// From the end of the last stage until the answer lies in the usual order.
    pub answer: Duration,
    /// Bytes of memory that all activations share.
    pub value_bytes: usize,
}

/// A stage of a [`FusedProfile`].
#[derive(Clone, Debug)]
pub struct FusedStage {
    /// The layer that it computes, as [`Summary`](crate::Summary) names it; empty where it computes none.
    pub name: String,
    /// What it computes with it: other layers, a `sum`, an activation.
    pub with: Vec<String>,
    /// How it does, what that takes, and how long.
    pub stage: ProfiledStep,
}

impl FusedStage {
    fn new(stage: ProfiledStep, names: &HashMap<u64, String>) -> Self {
        let mut layers = stage.layers.iter().filter_map(|layer| names.get(layer).cloned());
        let name = layers.next().unwrap_or_default();
        let activation = match stage.activation {
            Activation::Identity => None,
            Activation::Relu => Some("relu"),
            Activation::Tanh => Some("tanh"),
            Activation::Sigmoid => Some("sigmoid"),
        };
        let more = stage.sum.then_some("sum").into_iter().chain(activation).map(str::to_owned);
        Self { name, with: layers.chain(more).collect(), stage }
    }
}

/// Why a fused network gives no answer.
#[derive(Debug, Error)]
pub enum FusedError {
    /// It does not take such images.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The images cannot be read from their device.
    #[error("the images cannot be read: {0}")]
    Images(String),
}

impl Fused {
    /// Fuses a network for images of `[channels, height, width]`; it then takes others that the network takes, too.
    /// Fully-connected layers keep their weights in `precision`.
    ///
    /// # Errors
    /// The network computes something that is not known to the blocks' trace, or its device records gradients.
    pub fn new(network: &impl Classifier, image: [usize; 3], precision: LinearPrecision) -> Result<Self, TraceError> {
        let device = Module::devices(network).into_iter().next().unwrap_or_default();
        let engine = trace(image, precision, &device, |images| network.forward(images))?;
        let names = layer_names(network).into_iter().map(|(id, name): (ParamId, _)| (id.val(), name)).collect();
        Ok(Self { engine, names })
    }

    /// Images `[batch, channels, height, width]` to logits `[batch, classes]`, on the images' device.
    ///
    /// # Errors
    /// The network does not take such images.
    pub fn forward(&self, images: Tensor<4>) -> Result<Tensor<2>, FusedError> {
        let (shape, device) = (images.dims(), images.device());
        let output = self.engine.run(shape, &values(images)?)?;
        let [batch, classes, ..] = output.shape;
        Ok(Tensor::from_data(TensorData::new(output.values, [batch, classes]), &device))
    }

    /// The stages of the network for images `[batch, channels, height, width]`, each with its median time over some
    /// passes, one at least.
    ///
    /// # Errors
    /// The network does not take such images.
    pub fn profile(&self, images: Tensor<4>, passes: usize) -> Result<FusedProfile, FusedError> {
        let plan = self.engine.plan(images.dims())?;
        let Profile { steps: stages, answer } = plan.profile(&values(images)?, passes)?;
        let stages = stages.into_iter().map(|stage| FusedStage::new(stage, &self.names)).collect();
        Ok(FusedProfile { stages, answer, value_bytes: plan.memory() * size_of::<f32>() })
    }
}

fn values(images: Tensor<4>) -> Result<Values, FusedError> {
    extension::values(images).map_err(|error| FusedError::Images(error.to_string()))
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;
    use crate::{Options, create};

    /// ‖a − b‖ / ‖b‖ of a network's logits, fused and not, for two images of `side`×`side`.
    fn distance(name: &str, side: usize, precision: LinearPrecision) -> f32 {
        let device = Device::flex();
        let network = create(name, &Options::default().with_classes(10), &device).unwrap();
        let [channels, ..] = network.input();
        let fused = Fused::new(&network, [channels, side, side], precision).unwrap();
        let images = Tensor::random([2, channels, side, side], Distribution::Normal(0.0, 1.0), &device);
        let expected = network.forward(images.clone());
        let found = fused.forward(images).unwrap();
        let square = |tensor: Tensor<2>| tensor.square().sum().into_scalar::<f32>();
        (square(found - expected.clone()) / square(expected)).sqrt()
    }

    #[test]
    fn fused_networks_answer_as_they_did() {
        // Every kind of block, join and head.
        for (name, side) in [
            ("lenet5", 32),
            ("nin_cifar", 32),
            ("resnet20_cifar", 32),
            ("densenet40_k12", 32),
            ("fractalnet20", 32),
            ("squeezenet1_1", 64),
            ("googlenet", 64),
            ("bn_inception", 64),
            ("resnext50_32x4d", 64),
            ("resnetv2_50", 64),
            ("inception_resnet_v2", 96),
        ] {
            let error = distance(name, side, LinearPrecision::Single);
            assert!(error < 1e-4, "{name}: fused logits differ by {error:.1e} relative");
        }
    }

    #[test]
    fn half_precision_moves_logits_by_less_than_its_rounding() {
        for (name, side) in [("alexnet", 64), ("lenet5", 32)] {
            let error = distance(name, side, LinearPrecision::Half);
            // A weight is rounded by up to one part in 2048, some up and some down.
            assert!((1e-6..5e-4).contains(&error), "{name}: logits in half precision differ by {error:.1e} relative");
            println!("{name}: logits in half precision within {error:.1e} relative");
        }
    }

    #[test]
    fn a_profile_has_the_layers_of_the_summary() {
        for (name, side) in [("lenet5", 32), ("resnet20_cifar", 32), ("googlenet", 64), ("densenet40_k12", 32)] {
            let device = Device::flex();
            let network = create(name, &Options::default(), &device).unwrap();
            let [channels, ..] = network.input();
            let summary = network.summary([channels, side, side]).unwrap();
            let fused = Fused::new(&network, [channels, side, side], LinearPrecision::Single).unwrap();
            let stages = fused.profile(Tensor::zeros([2, channels, side, side], &device), 1).unwrap().stages;

            let macs: usize = stages.iter().map(|stage| stage.stage.macs).sum();
            // A shortcut without weights is computed as a convolution, which is no layer of the network.
            let shortcuts: usize =
                stages.iter().filter(|stage| stage.name.is_empty()).map(|stage| stage.stage.macs).sum();
            assert_eq!(macs - shortcuts, 2 * summary.macs, "multiply-adds of two images in {name}");
            for layer in &summary.layers {
                let has = |stage: &&FusedStage| stage.name == layer.name || stage.with.contains(&layer.name);
                let found: Vec<_> = stages.iter().filter(has).collect();
                let [stage] = found[..] else { panic!("{name}: {} is in stages {found:?}", layer.name) };
                let shape = &stage.stage.output[1..=layer.output.len()];
                assert_eq!(shape, layer.output, "{name}: the output of {}", layer.name);
            }
        }
    }

    #[test]
    fn a_stage_tells_what_was_folded_into_it() {
        let device = Device::flex();
        let network = create("resnet18", &Options::default(), &device).unwrap();
        let fused = Fused::new(&network, [3, 64, 64], LinearPrecision::Single).unwrap();
        let stages = fused.profile(Tensor::zeros([1, 3, 64, 64], &device), 1).unwrap().stages;
        let with = |name: &str| stages.iter().find(|stage| stage.name == name).map(|stage| stage.with.join(" "));
        assert_eq!(with("conv1").as_deref(), Some("bn1 relu"));
        assert_eq!(with("layer1.0.conv2").as_deref(), Some("layer1.0.bn2 sum relu"));
        assert_eq!(with("fc").as_deref(), Some(""));
    }

    #[test]
    fn what_the_trace_cannot_see_is_an_error() {
        #[derive(Module, Debug)]
        struct Doubled {
            network: crate::Network,
        }
        impl Classifier for Doubled {
            fn forward_features(&self, images: Tensor<4>) -> Tensor<4> {
                self.network.forward_features(images) * 2.0
            }
            fn forward_head(&self, features: Tensor<4>) -> Tensor<2> {
                self.network.forward_head(features)
            }
            fn replace_head(self, classes: usize) -> Self {
                Self { network: self.network.replace_head(classes) }
            }
        }
        let fuse = |device: &Device| {
            let network = create("lenet5", &Options::default(), device).unwrap();
            Fused::new(&Doubled { network }, [1, 32, 32], LinearPrecision::Single).err()
        };
        assert_eq!(fuse(&Device::flex()), Some(TraceError::Unknown("Linear")));
        assert_eq!(fuse(&Device::flex().autodiff()), Some(TraceError::Training));
    }

    #[test]
    fn images_of_another_kind_are_an_error() {
        let device = Device::flex();
        let network = create("lenet5", &Options::default(), &device).unwrap();
        let fused = Fused::new(&network, network.input(), LinearPrecision::Half).unwrap();
        let error = fused.forward(Tensor::zeros([1, 3, 32, 32], &device)).err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), Some("the network takes 1 channels and is given 3"));
    }
}
