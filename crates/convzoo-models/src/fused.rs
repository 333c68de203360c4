use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use convzoo_blocks::trace::{TraceError, trace};
use convzoo_kernels::KernelError;
use convzoo_kernels::engine::Network as Engine;
pub use convzoo_kernels::linear::Precision;
use thiserror::Error;

use crate::Classifier;

/// A network's inference on the CPU as one computation: batch norms folded into convolutions, activations and sums
/// computed with them, memory shared between layers.
///
/// It keeps the weights that the network had when it was fused. Its logits are the network's but for rounding.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use convzoo_models::{Fused, Options, Precision, create};
///
/// let device = Device::flex();
/// let network = create("lenet5", &Options::default(), &device)?;
/// let fused = Fused::new(&network, network.input(), Precision::Single)?;
/// let logits = fused.forward(Tensor::zeros([1, 1, 32, 32], &device))?;
/// assert_eq!(logits.dims(), [1, 10]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Fused(Engine);

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
    pub fn new(network: &impl Classifier, image: [usize; 3], precision: Precision) -> Result<Self, TraceError> {
        let device = Module::devices(network).into_iter().next().unwrap_or_default();
        trace(image, precision, &device, |images| network.forward(images)).map(Self)
    }

    /// Images `[batch, channels, height, width]` to logits `[batch, classes]`, on the images' device.
    ///
    /// # Errors
    /// The network does not take such images.
    pub fn forward(&self, images: Tensor<4>) -> Result<Tensor<2>, FusedError> {
        let (shape, device) = (images.dims(), images.device());
        let values = images.try_into_vec_as::<f32>().map_err(|error| FusedError::Images(error.to_string()))?;
        let output = self.0.run(shape, &values)?;
        let [batch, classes, ..] = output.shape;
        Ok(Tensor::from_data(TensorData::new(output.values, [batch, classes]), &device))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;
    use crate::{Options, create};

    /// ‖a − b‖ / ‖b‖ of a network's logits, fused and not, for two images of `side`×`side`.
    fn distance(name: &str, side: usize) -> f32 {
        let device = Device::flex();
        let network = create(name, &Options::default().with_classes(10), &device).unwrap();
        let [channels, ..] = network.input();
        let fused = Fused::new(&network, [channels, side, side], Precision::Single).unwrap();
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
            let error = distance(name, side);
            assert!(error < 1e-4, "{name}: fused logits differ by {error:.1e} relative");
        }
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
            Fused::new(&Doubled { network }, [1, 32, 32], Precision::Single).err()
        };
        assert_eq!(fuse(&Device::flex()), Some(TraceError::Unknown("Linear")));
        assert_eq!(fuse(&Device::flex().autodiff()), Some(TraceError::Training));
    }

    #[test]
    fn images_of_another_kind_are_an_error() {
        let device = Device::flex();
        let network = create("lenet5", &Options::default(), &device).unwrap();
        let fused = Fused::new(&network, network.input(), Precision::Half).unwrap();
        let error = fused.forward(Tensor::zeros([1, 3, 32, 32], &device)).err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), Some("the network takes 1 channels and is given 3"));
    }
}
