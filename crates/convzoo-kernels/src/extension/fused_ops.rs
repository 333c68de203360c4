//! The operations between convolutions of which this crate makes one where Burn has several, as traits of backends: on
//! the CPU's flex, and on GPUs.

#[cfg(feature = "cube")]
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};
#[cfg(feature = "cube")]
use burn::tensor::{DType, Shape};

use super::burn_ops::BatchNorm;
use crate::elementwise::Activation;

/// What networks compute, forward. The functions of [`extension`](super) document the operations.
#[backend_extension(
    Autodiff,
    Flex: cfg(feature = "flex"),
    Cube: cfg(feature = "cube"),
    Fusion: cfg(feature = "cube")
)]
pub trait FusedOps: Backend {
    /// Output, mean and biased variance; on GPUs, these two are of `f32`. There, activations are the identity and ReLU.
    #[fusion(meta = batch_norm_train_outputs)]
    fn kernel_batch_norm_train(
        input: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        epsilon: f64,
        activation: Activation,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    #[fusion(dtype = a, shape = a)]
    fn kernel_add_relu(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// What the backward pass needs of a backend whose [`FusedOps`] are differentiated.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    Cube: cfg(feature = "cube"),
    Fusion: cfg(feature = "cube")
)]
pub trait FusedGradients: FusedOps {
    /// The output of a batch normalization in training once more, from its statistics.
    #[fusion(meta = |input, _norm, _activation| input.clone())]
    fn kernel_batch_norm_again(
        input: FloatTensor<Self>,
        #[extension_type] norm: BatchNorm<Self>,
        activation: Activation,
    ) -> FloatTensor<Self>;

    /// Gradients of input, scale and shift from that of the activation after the normalization.
    #[fusion(meta = |input, norm, _activation, _gradient| (input.clone(), norm.scale.clone(), norm.shift.clone()))]
    fn kernel_batch_norm_backward(
        input: FloatTensor<Self>,
        #[extension_type] norm: BatchNorm<Self>,
        activation: Activation,
        gradient: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// The gradient of either summand.
    #[fusion(dtype = output, shape = output)]
    fn kernel_add_relu_backward(output: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self>;
}

#[cfg(feature = "cube")]
fn batch_norm_train_outputs(
    input: &TensorSpec,
    scale: &TensorSpec,
    _shift: &TensorSpec,
    _epsilon: &f64,
    _activation: &Activation,
) -> (TensorSpec, TensorSpec, TensorSpec) {
    let statistic = TensorSpec::new(Shape::new([scale.shape.num_elements()]), DType::F32);
    (input.clone(), statistic.clone(), statistic)
}
