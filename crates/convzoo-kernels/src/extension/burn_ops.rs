//! The operations composed of Burn's own, for every backend: what runs where this crate's kernels do not.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, ExtensionType, TensorMetadata};
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{IntDType, Shape};

use crate::planar::SgdStep;
use crate::pool::PoolShape;

/// A batch normalization by given statistics.
#[derive(Clone, Debug, ExtensionType)]
#[extension_type(fusion: cfg(feature = "cube"))]
pub struct BatchNorm<B: Backend> {
    pub scale: FloatTensor<B>,
    pub shift: FloatTensor<B>,
    pub mean: FloatTensor<B>,
    pub variance: FloatTensor<B>,
    pub epsilon: f64,
}

/// The output of a batch normalization in training, the mean and the biased variance.
pub type BatchNormTrained<B> = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>);

#[cfg_attr(not(feature = "flex"), allow(dead_code))] // gradients are of the kernels' operations
/// Compositions of a backend's own operations. The functions of [`extension`](super) document what they compute.
pub trait BurnOps: Backend {
    /// What follows a convolution: a scale and a shift of each channel, `[channels]`, perhaps a ReLU.
    fn burn_affine(
        output: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        relu: bool,
    ) -> FloatTensor<Self> {
        let shape = Shape::new([1, scale.shape().num_elements(), 1, 1]);
        let output = Self::float_mul(output, Self::float_reshape(scale, shape.clone()));
        let output = Self::float_add(output, Self::float_reshape(shift, shape));
        if relu { Self::relu(output) } else { output }
    }

    fn burn_batch_norm_train(
        input: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        epsilon: f64,
    ) -> BatchNormTrained<Self> {
        let result = Self::batch_norm_train(input, scale, shift, epsilon);
        (result.output, result.mean, result.variance)
    }

    fn burn_batch_norm(input: FloatTensor<Self>, norm: BatchNorm<Self>) -> FloatTensor<Self> {
        let BatchNorm { scale, shift, mean, variance, epsilon } = norm;
        Self::batch_norm(input, scale, shift, mean, variance, epsilon)
    }

    /// Gradients of input, scale and shift.
    fn burn_batch_norm_backward(
        input: FloatTensor<Self>,
        norm: BatchNorm<Self>,
        gradient: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 3] {
        let BatchNorm { scale, mean, variance, epsilon, .. } = norm;
        let result = Self::batch_norm_train_backward(input, scale, mean, variance, epsilon, gradient);
        [result.x_grad, result.gamma_grad, result.beta_grad]
    }

    fn burn_add_relu(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::relu(Self::float_add(a, b))
    }

    /// The gradient of either summand.
    fn burn_add_relu_backward(output: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::relu_backward(output, gradient)
    }

    /// The output and where in the input's planes it was found, for even padding and no dilation.
    fn burn_max_pool2d_with_indices(
        input: FloatTensor<Self>,
        options: MaxPoolOptions<2>,
    ) -> (FloatTensor<Self>, IntTensor<Self>) {
        let MaxPoolOptions { kernel_size, stride, dilation, ceil_mode, .. } = options;
        let padding = options.padding.map(|(begin, _)| begin);
        let int = IntDType::I32;
        let result = Self::max_pool2d_with_indices(input, kernel_size, stride, padding, dilation, ceil_mode, int);
        (result.output, result.indices)
    }

    fn burn_max_pool2d_backward(
        input: FloatTensor<Self>,
        options: MaxPoolOptions<2>,
        indices: IntTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let MaxPoolOptions { kernel_size: kernel, stride, dilation, ceil_mode: ceil, .. } = options;
        let padding = options.padding.map(|(begin, _)| begin);
        Self::max_pool2d_with_indices_backward(input, kernel, stride, padding, dilation, ceil, gradient, indices).x_grad
    }

    /// Average pooling, not max pooling.
    fn burn_average_pool2d(input: FloatTensor<Self>, shape: PoolShape) -> FloatTensor<Self> {
        match shape {
            PoolShape::Adaptive { output, .. } => Self::adaptive_avg_pool2d(input, output),
            PoolShape::Sliding { kind, kernel, stride, padding, ceil } => {
                Self::avg_pool2d(input, kernel, stride, padding, kind.counts_padding(), ceil)
            }
        }
    }

    fn burn_average_pool2d_backward(input: Shape, shape: PoolShape, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        // Its values do not matter.
        let x = Self::float_zeros(input, &gradient.device(), gradient.dtype().into());
        match shape {
            PoolShape::Adaptive { .. } => Self::adaptive_avg_pool2d_backward(x, gradient),
            PoolShape::Sliding { kind, kernel, stride, padding, ceil } => {
                Self::avg_pool2d_backward(x, gradient, kernel, stride, padding, kind.counts_padding(), ceil)
            }
        }
    }

    /// With a weight `[outputs, inputs]`; so below.
    fn burn_linear(input: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::linear(input, Self::float_swap_dims(weight, 0, 1), Some(bias))
    }

    fn burn_linear_x_backward(weight: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_matmul(gradient, weight)
    }

    /// In the weight's own order, which the optimizer goes through in step with it.
    fn burn_linear_weight_backward(input: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_matmul(Self::float_swap_dims(gradient, 0, 1), input)
    }

    /// The parameter and the momentum buffer after a step.
    fn burn_sgd_step(
        param: FloatTensor<Self>,
        velocity: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        rule: SgdStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let scaled = |tensor, factor: f32| Self::float_mul_scalar(tensor, factor.into());
        let gradient = match rule.decay {
            0.0 => gradient,
            decay => Self::float_add(gradient, scaled(param.clone(), decay)),
        };
        let velocity = Self::float_add(gradient.clone(), scaled(velocity, rule.momentum));
        let step = match rule.nesterov {
            true => Self::float_add(gradient, scaled(velocity.clone(), rule.momentum)),
            false => velocity.clone(),
        };
        (Self::float_sub(param, scaled(step, rule.rate)), velocity)
    }
}

impl<B: Backend> BurnOps for B {}
