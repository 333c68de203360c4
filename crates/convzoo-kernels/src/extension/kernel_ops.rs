//! The operations that this crate's kernels compute, as traits of backends.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, backend_extension};
use burn::tensor::Shape;
use burn::tensor::ops::{ConvOptions, MaxPoolOptions};

use super::burn_ops::{BatchNorm, BurnOps};
use crate::elementwise::Activation;
use crate::planar::SgdStep;
use crate::pool::PoolShape;

/// What networks compute, forward. The functions of [`extension`](super) document the operations.
#[backend_extension(Autodiff, Flex)]
pub trait KernelOps: Backend {
    fn kernel_conv2d(input: FloatTensor<Self>, weight: FloatTensor<Self>, options: ConvOptions<2>)
    -> FloatTensor<Self>;

    fn kernel_conv2d_bias(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self>;

    fn kernel_conv2d_affine(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        relu: bool,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        Self::burn_affine(Self::kernel_conv2d(input, weight, options), scale, shift, relu)
    }

    fn kernel_batch_norm(
        input: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        epsilon: f64,
        activation: Activation,
    ) -> FloatTensor<Self> {
        let output = Self::burn_batch_norm(input, BatchNorm { scale, shift, mean, variance, epsilon });
        Self::kernel_activated(output, activation)
    }

    fn kernel_add(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self>;

    /// The concatenation along channels, of `f32` or bfloat16. Burn's dispatch knows no lists of tensors.
    fn kernel_concat2(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self>;

    fn kernel_concat3(a: FloatTensor<Self>, b: FloatTensor<Self>, c: FloatTensor<Self>) -> FloatTensor<Self>;

    fn kernel_concat4(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        d: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// The same tensor twice.
    fn kernel_fork(input: FloatTensor<Self>) -> (FloatTensor<Self>, FloatTensor<Self>) {
        (input.clone(), input)
    }

    fn kernel_max_pool2d(input: FloatTensor<Self>, options: MaxPoolOptions<2>) -> FloatTensor<Self>;

    /// Average pooling, not max pooling.
    fn kernel_average_pool2d(input: FloatTensor<Self>, shape: PoolShape) -> FloatTensor<Self>;

    /// [`kernel_activation`](Self::kernel_activation), where there is one.
    fn kernel_activated(input: FloatTensor<Self>, function: Activation) -> FloatTensor<Self> {
        if function == Activation::Identity { input } else { Self::kernel_activation(input, function) }
    }

    /// Each plane of `[batch, channels, height, width]` multiplied by a factor, of `f32`; as many factors as planes, or as
    /// channels.
    fn kernel_scale(input: FloatTensor<Self>, factors: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Of `f32`.
    fn kernel_layer_norm(
        input: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self>;

    /// Of `f32`.
    fn kernel_activation(input: FloatTensor<Self>, function: Activation) -> FloatTensor<Self>;

    fn kernel_linear(input: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>)
    -> FloatTensor<Self>;

    /// The parameter and the momentum buffer after a step.
    fn kernel_sgd_step(
        param: FloatTensor<Self>,
        velocity: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        rule: SgdStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        Self::burn_sgd_step(param, velocity, gradient, rule)
    }
}

/// What the backward pass needs of a backend whose [`KernelOps`] are differentiated.
pub trait KernelGradients: KernelOps {
    fn kernel_conv2d_x_backward(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self>;

    fn kernel_conv2d_weight_backward(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self>;

    fn kernel_conv2d_bias_backward(
        input: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// The gradient of a fully-connected layer's input.
    fn kernel_linear_x_backward(weight: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self>;

    fn kernel_linear_weight_backward(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// The gradient of planes that are multiplied by factors.
    fn kernel_scale_x_backward(factors: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self>;

    /// The gradient of the factors that planes are multiplied by.
    fn kernel_scale_factors_backward(
        input: FloatTensor<Self>,
        factors: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// Gradients of input, scale and shift.
    fn kernel_layer_norm_backward(
        input: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        epsilon: f64,
        gradient: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 3];

    /// The concatenation of any number along channels.
    fn kernel_concat(maps: Vec<FloatTensor<Self>>) -> FloatTensor<Self>;

    /// The gradient of a part of `channels` channels after `before` others.
    fn kernel_concat_backward(gradient: FloatTensor<Self>, before: usize, channels: usize) -> FloatTensor<Self>;

    /// The output and where in the input's planes it was found.
    fn kernel_max_pool2d_with_indices(
        input: FloatTensor<Self>,
        options: MaxPoolOptions<2>,
    ) -> (FloatTensor<Self>, IntTensor<Self>);

    fn kernel_max_pool2d_backward(
        input: FloatTensor<Self>,
        options: MaxPoolOptions<2>,
        indices: IntTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    fn kernel_average_pool2d_backward(input: Shape, shape: PoolShape, gradient: FloatTensor<Self>)
    -> FloatTensor<Self>;

    /// From the output where the function's backward pass starts there, else from the input.
    fn kernel_activation_backward(
        kept: FloatTensor<Self>,
        function: Activation,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}
