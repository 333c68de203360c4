//! The operations of networks on Burn's tensors: on a CPU, by Burn's backend Flex, with this crate's kernels; on every
//! other backend, and for other numbers than `f32`, with Burn's own operations. On libtorch, convolutions and batch
//! normalisations in training are differentiated by libtorch itself.
//!
//! `CONVZOO_KERNELS=off` in the environment, or [`enable`]`(false)`, gives Burn's own path everywhere.

#[cfg(feature = "flex")]
mod autodiff;
#[cfg(feature = "flex")]
mod flex;
#[cfg(feature = "tch")]
mod libtorch;
#[cfg(feature = "flex")]
mod operations;

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch};
use burn::tensor::ops::{AvgPoolOptions, ConvOptions, MaxPoolOptions};
use burn::tensor::{Device, Tensor, TensorReadError, activation, module};

use crate::train::Descent;
use crate::{KernelError, Values};

#[cfg(feature = "flex")]
use {
    crate::elementwise::Activation,
    crate::pool::{PoolKind, PoolShape},
    operations::Operations,
};

#[cfg(feature = "tch")]
use libtorch::Whole;

static ENABLED: LazyLock<AtomicBool> = LazyLock::new(|| AtomicBool::new(from_environment().unwrap_or(true)));

/// Whether `CONVZOO_KERNELS` leaves this crate's kernels on.
///
/// # Errors
/// It says neither `on` nor `off`. A program that does not ask goes on with the kernels.
pub fn from_environment() -> Result<bool, KernelError> {
    match std::env::var("CONVZOO_KERNELS").unwrap_or_default().as_str() {
        "" | "on" => Ok(true),
        "off" => Ok(false),
        other => Err(KernelError::Switch(other.to_owned())),
    }
}

/// Switches this crate's kernels on or off, whatever the environment says.
pub fn enable(on: bool) {
    ENABLED.store(on, Ordering::Relaxed);
}

/// Whether this crate's kernels are switched on.
pub fn is_enabled() -> bool {
    ENABLED.load(Ordering::Relaxed)
}

/// Convolves `[batch, inputs, height, width]` with a weight `[outputs, inputs / groups, height, width]` and a bias
/// `[outputs]`.
pub fn conv2d(input: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>, options: ConvOptions<2>) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if is_fast(&input) {
        let (input, weight) = (input.into_dispatch(), weight.into_dispatch());
        return Tensor::from_dispatch(match bias {
            Some(bias) => Dispatch::convolve_biased(input, weight, bias.into_dispatch(), options),
            None => Dispatch::convolve(input, weight, options),
        });
    }
    #[cfg(feature = "tch")]
    if is_whole(&input) && options.padding.iter().all(|(begin, end)| begin == end) {
        let (input, weight) = (input.into_dispatch(), weight.into_dispatch());
        return Tensor::from_dispatch(match bias {
            Some(bias) => Dispatch::whole_biased_convolution(input, weight, bias.into_dispatch(), options),
            None => Dispatch::whole_convolution(input, weight, options),
        });
    }
    module::conv2d(input, weight, bias, options)
}

/// What follows a convolution outside training: each channel times a scale, plus a shift, `[outputs]`, perhaps a ReLU.
#[derive(Clone, Debug)]
pub struct Affine {
    /// Multiplies each channel.
    pub scale: Tensor<1>,
    /// Added to each channel.
    pub shift: Tensor<1>,
    /// Whether a ReLU comes last.
    pub relu: bool,
}

/// [`conv2d`] and what follows it, in one pass.
pub fn conv2d_affine(input: Tensor<4>, weight: Tensor<4>, affine: Affine, options: ConvOptions<2>) -> Tensor<4> {
    let Affine { scale, shift, relu } = affine;
    #[cfg(feature = "flex")]
    if is_fast(&input) {
        let (input, weight) = (input.into_dispatch(), weight.into_dispatch());
        let (scale, shift) = (scale.into_dispatch(), shift.into_dispatch());
        return Tensor::from_dispatch(Dispatch::convolve_affine(input, weight, scale, shift, relu, options));
    }
    let channels = scale.dims()[0];
    let output = module::conv2d(input, weight, None, options);
    let output = output * scale.reshape([1, channels, 1, 1]) + shift.reshape([1, channels, 1, 1]);
    if relu { activation::relu(output) } else { output }
}

/// The output of a batch normalisation in training, and the statistics of the batch.
#[derive(Clone, Debug)]
pub struct BatchNormTrain {
    /// `[batch, channels, height, width]`.
    pub output: Tensor<4>,
    /// `[channels]`.
    pub mean: Tensor<1>,
    /// Biased, `[channels]`.
    pub variance: Tensor<1>,
}

/// Normalises `[batch, channels, height, width]` by the batch, then scales and shifts by `[channels]`, perhaps with a
/// ReLU behind it.
pub fn batch_norm_train(
    input: Tensor<4>,
    scale: Tensor<1>,
    shift: Tensor<1>,
    epsilon: f64,
    relu: bool,
) -> BatchNormTrain {
    #[cfg(feature = "flex")]
    if is_fast(&input) {
        let (input, scale, shift) = (input.into_dispatch(), scale.into_dispatch(), shift.into_dispatch());
        let (output, mean, variance) = Dispatch::normalise(input, scale, shift, epsilon, relu);
        return BatchNormTrain {
            output: Tensor::from_dispatch(output),
            mean: Tensor::from_dispatch(mean),
            variance: Tensor::from_dispatch(variance),
        };
    }
    #[cfg(feature = "tch")]
    if is_whole(&input) {
        let (input, scale, shift) = (input.into_dispatch(), scale.into_dispatch(), shift.into_dispatch());
        let (output, mean, variance) = Dispatch::whole_normalisation(input, scale, shift, epsilon);
        let output = Tensor::from_dispatch(output);
        return BatchNormTrain {
            output: if relu { activation::relu(output) } else { output },
            mean: Tensor::from_dispatch(mean),
            variance: Tensor::from_dispatch(variance),
        };
    }
    let result = module::batch_norm_train(input, scale, shift, epsilon);
    let output = if relu { activation::relu(result.output) } else { result.output };
    BatchNormTrain { output, mean: result.mean, variance: result.variance }
}

/// Normalises `[batch, channels, height, width]` by given statistics, `[channels]`, then scales and shifts, perhaps with a
/// ReLU behind it.
pub fn batch_norm(
    input: Tensor<4>,
    [scale, shift]: [Tensor<1>; 2],
    [mean, variance]: [Tensor<1>; 2],
    epsilon: f64,
    relu: bool,
) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if is_fast(&input) {
        let [scale, shift, mean, variance] = [scale, shift, mean, variance].map(Tensor::into_dispatch);
        let input = input.into_dispatch();
        return Tensor::from_dispatch(Dispatch::normalise_by(input, scale, shift, mean, variance, epsilon, relu));
    }
    let output = module::batch_norm(input, scale, shift, mean, variance, epsilon);
    if relu { activation::relu(output) } else { output }
}

/// max(0, a + b).
pub fn add_relu(a: Tensor<4>, b: Tensor<4>) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if is_fast(&a) && a.dims() == b.dims() {
        return Tensor::from_dispatch(Dispatch::add_rectified(a.into_dispatch(), b.into_dispatch()));
    }
    activation::relu(a + b)
}

/// The largest pixel of each window of `[batch, channels, height, width]`.
pub fn max_pool2d(input: Tensor<4>, options: MaxPoolOptions<2>) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if is_fast(&input) && options.dilation == [1, 1] && options.padding.iter().all(|(begin, end)| begin == end) {
        return Tensor::from_dispatch(Dispatch::largest(input.into_dispatch(), options));
    }
    module::max_pool2d(input, options)
}

/// The mean of each window of `[batch, channels, height, width]`.
pub fn average_pool2d(input: Tensor<4>, options: AvgPoolOptions<2>) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if is_fast(&input) && options.padding.iter().all(|(begin, end)| begin == end) {
        let shape = PoolShape::Sliding {
            kind: PoolKind::Average { count_include_pad: options.count_include_pad },
            kernel: options.kernel_size,
            stride: options.stride,
            padding: options.padding.map(|(begin, _)| begin),
            ceil: options.ceil_mode,
        };
        return Tensor::from_dispatch(Dispatch::averaged(input.into_dispatch(), shape));
    }
    module::avg_pool2d(input, options)
}

/// The means of as many windows as `output` has cells, as equal as can be.
pub fn adaptive_average_pool2d(input: Tensor<4>, output: [usize; 2]) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if is_fast(&input) {
        return Tensor::from_dispatch(Dispatch::averaged(input.into_dispatch(), PoolShape::Adaptive(output)));
    }
    module::adaptive_avg_pool2d(input, output)
}

/// The hyperbolic tangent of each element.
pub fn tanh<const D: usize>(input: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if is_fast(&input) {
        return Tensor::from_dispatch(Dispatch::squashed(input.into_dispatch(), Activation::Tanh));
    }
    activation::tanh(input)
}

/// 1 / (1 + e⁻ˣ) of each element.
pub fn sigmoid<const D: usize>(input: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if is_fast(&input) {
        return Tensor::from_dispatch(Dispatch::squashed(input.into_dispatch(), Activation::Sigmoid));
    }
    activation::sigmoid(input)
}

/// `[batch, inputs]` times a weight `[outputs, inputs]`, plus a bias `[outputs]`.
pub fn linear(input: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if is_fast(&input) {
        let (input, weight, bias) = (input.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
        return Tensor::from_dispatch(Dispatch::connect(input, weight, bias));
    }
    module::linear(input, weight.transpose(), Some(bias))
}

/// A step of stochastic gradient descent: the parameter and the velocity after it.
pub fn descend<const D: usize>(
    param: Tensor<D>,
    velocity: Tensor<D>,
    gradient: Tensor<D>,
    rule: Descent,
) -> (Tensor<D>, Tensor<D>) {
    #[cfg(feature = "flex")]
    let fast = is_fast(&param);
    let (param, velocity, gradient) = (param.into_dispatch(), velocity.into_dispatch(), gradient.into_dispatch());
    let (param, velocity) = match () {
        #[cfg(feature = "flex")]
        () if fast => Dispatch::descend(param, velocity, gradient, rule),
        () => compose::<Dispatch>(param, velocity, gradient, rule),
    };
    (Tensor::from_dispatch(param), Tensor::from_dispatch(velocity))
}

/// [`descend`] of Burn's own operations.
fn compose<B: Backend>(
    param: FloatTensor<B>,
    velocity: FloatTensor<B>,
    gradient: FloatTensor<B>,
    rule: Descent,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let scaled = |tensor, factor: f32| B::float_mul_scalar(tensor, factor.into());
    let gradient = match rule.decay {
        0.0 => gradient,
        decay => B::float_add(gradient, scaled(param.clone(), decay)),
    };
    let velocity = B::float_add(gradient.clone(), scaled(velocity, rule.momentum));
    let step = match rule.nesterov {
        true => B::float_add(gradient, scaled(velocity.clone(), rule.momentum)),
        false => velocity.clone(),
    };
    (B::float_sub(param, scaled(step, rule.rate)), velocity)
}

/// The values of a tensor, in their usual order: on Flex those that the tensor has, which both then share.
///
/// # Errors
/// They are no `f32` and cannot become such, or the device does not give them.
pub fn values<const D: usize>(tensor: Tensor<D>) -> Result<Values, TensorReadError> {
    #[cfg(feature = "flex")]
    if let Ok(tensor) = tensor.clone().try_into_primitive::<burn::backend::Flex>()
        && let Some(values) = flex::Values::new(&tensor)
    {
        return Ok(Values::shared(values));
    }
    tensor.try_into_vec_as::<f32>().map(Values::from)
}

/// Whether this crate's kernels compute with the tensor.
#[cfg(feature = "flex")]
fn is_fast<const D: usize>(tensor: &Tensor<D>) -> bool {
    serves(&tensor.device())
}

/// Whether libtorch differentiates the operations on the tensor that it has whole.
#[cfg(feature = "tch")]
fn is_whole(tensor: &Tensor<4>) -> bool {
    use burn::backend::DispatchDevice;
    let device = tensor.device();
    let tracked = match device.as_dispatch() {
        DispatchDevice::Autodiff(device) => matches!(**device, DispatchDevice::LibTorch(_)),
        _ => false,
    };
    tracked && is_enabled()
}

/// Whether this crate's kernels compute on the device.
pub fn serves(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    {
        use burn::backend::DispatchDevice;
        let on_flex = |device: &DispatchDevice| match device {
            DispatchDevice::Flex(_) => true,
            DispatchDevice::Autodiff(device) => matches!(**device, DispatchDevice::Flex(_)),
            #[allow(unreachable_patterns)] // which are left depends on Burn's features
            _ => false,
        };
        is_enabled() && on_flex(device.as_dispatch())
    }
    #[cfg(not(feature = "flex"))]
    {
        let _ = device;
        false
    }
}
