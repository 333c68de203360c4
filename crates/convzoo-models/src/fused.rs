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
