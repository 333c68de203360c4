//! The operations of networks on Burn's tensors: on a CPU, by Burn's backend Flex, with this crate's kernels; on every
//! other backend, and for other numbers than `f32`, with Burn's own operations. On GPUs, batch normalizations in
//! training and sums with a ReLU are kernels in CubeCL, in `f32`, `f16` and `bf16`. On libtorch, convolutions and batch
//! normalizations in training are differentiated by libtorch itself.
//!
//! `CONVZOO_KERNELS=off` in the environment, or [`choose`]`(`[`Kernels::Burn`]`)` before the first operation, gives Burn's own
//! path everywhere.
//!
//! Mixed precision: where activations are bfloat16 or `f16` numbers, parameters stay `f32`. The kernels multiply such
//! activations with the nearest bfloat16 numbers to the parameters, and add up in `f32`, in which all statistics and the
//! parameters' gradients are; Burn's own operations are given parameters of the activations' numbers, and normalizations
//! run in `f32`.
//!
//! The path of an operation: a function of this module → `kernel_ops` or, for what GPUs have too, `fused_ops` (traits that
//! Burn's dispatch knows) → `autodiff` or `fused_autodiff`, where it is differentiated → `flex`, which calls
//! [`planar`](crate::planar), or `cube`. Whatever the kernels do not take goes to `burn_ops`, the same of Burn's own
//! operations for every backend.

#[cfg(feature = "flex")]
mod autodiff;
mod burn_ops;
mod choice;
#[cfg(feature = "cube")]
mod cube;
#[cfg(feature = "flex")]
mod flex;
#[cfg(any(feature = "flex", feature = "cube"))]
mod fused_autodiff;
#[cfg(any(feature = "flex", feature = "cube"))]
mod fused_ops;
#[cfg(feature = "flex")]
mod kernel_ops;
#[cfg(feature = "tch")]
mod libtorch;
pub mod trace;

use burn::backend::Dispatch;
#[cfg(any(feature = "cube", feature = "tch"))]
use burn::backend::DispatchDevice;
use burn::tensor::ops::{AvgPoolOptions, ConvOptions, MaxPoolOptions};
use burn::tensor::{Device, Tensor, TensorReadError, activation, module};

use self::burn_ops::{BatchNorm, BurnOps};
pub use self::choice::{Kernels, choose, chosen};
#[cfg(any(feature = "flex", feature = "cube"))]
use self::fused_ops::FusedOps;
#[cfg(feature = "tch")]
use self::libtorch::LibtorchOps;
use crate::Values;
use crate::elementwise::Activation;
use crate::planar::SgdStep;
#[cfg(feature = "flex")]
use {
    self::kernel_ops::KernelOps,
    crate::pool::{PoolKind, PoolShape},
    burn::tensor::DType,
};

/// Convolves `[batch, inputs, height, width]` with a weight `[outputs, inputs / groups, height, width]` and a bias
/// `[outputs]`.
pub fn conv2d(input: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>, options: ConvOptions<2>) -> Tensor<4> {
    let (weight, bias) = (for_input(weight, &input), bias.map(|bias| for_input(bias, &input)));
    #[cfg(feature = "flex")]
    if on_kernels(&input) {
        let (input, weight) = (input.into_dispatch(), weight.into_dispatch());
        return Tensor::from_dispatch(match bias {
            Some(bias) => Dispatch::kernel_conv2d_bias(input, weight, bias.into_dispatch(), options),
            None => Dispatch::kernel_conv2d(input, weight, options),
        });
    }
    #[cfg(feature = "tch")]
    if on_training_libtorch(&input) && options.padding.iter().all(|(begin, end)| begin == end) {
        let (input, weight) = (input.into_dispatch(), weight.into_dispatch());
        return Tensor::from_dispatch(match bias {
            Some(bias) => Dispatch::libtorch_conv2d_bias(input, weight, bias.into_dispatch(), options),
            None => Dispatch::libtorch_conv2d(input, weight, options),
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
    let (weight, scale, shift) = (for_input(weight, &input), for_input(scale, &input), for_input(shift, &input));
    #[cfg(feature = "flex")]
    if on_kernels(&input) {
        let (input, weight) = (input.into_dispatch(), weight.into_dispatch());
        let (scale, shift) = (scale.into_dispatch(), shift.into_dispatch());
        return Tensor::from_dispatch(Dispatch::kernel_conv2d_affine(input, weight, scale, shift, relu, options));
    }
    let output = module::conv2d(input, weight, None, options).into_dispatch();
    Tensor::from_dispatch(Dispatch::burn_affine(output, scale.into_dispatch(), shift.into_dispatch(), relu))
}

/// The output of a batch normalization in training, and the statistics of the batch.
#[derive(Clone, Debug)]
pub struct BatchNormTrain {
    /// `[batch, channels, height, width]`.
    pub output: Tensor<4>,
    /// `[channels]`.
    pub mean: Tensor<1>,
    /// Biased, `[channels]`.
    pub variance: Tensor<1>,
}

/// Normalizes `[batch, channels, height, width]` by the batch's statistics, then scales and shifts by `[channels]`; an
/// activation follows.
pub fn batch_norm_train(
    input: Tensor<4>,
    scale: Tensor<1>,
    shift: Tensor<1>,
    epsilon: f64,
    function: Activation,
) -> BatchNormTrain {
    let (numbers, wide) = (input.dtype(), scale.dtype());
    #[cfg(feature = "cube")]
    let on_gpu = on_gpu(&input) && [scale.dtype(), shift.dtype()].into_iter().all(cube::takes);
    #[cfg(not(feature = "cube"))]
    let on_gpu = false;
    if numbers != wide && !mixes(&input) && !on_gpu {
        let normalized = batch_norm_train(input.cast(wide), scale, shift, epsilon, function);
        return BatchNormTrain { output: normalized.output.cast(numbers), ..normalized };
    }
    #[cfg(feature = "flex")]
    let (on_kernels, fused) = (on_kernels(&input), has_kernels(numbers));
    #[cfg(feature = "tch")]
    let on_libtorch = on_training_libtorch(&input);
    let (input, scale, shift) = (input.into_dispatch(), scale.into_dispatch(), shift.into_dispatch());
    let (left, (output, mean, variance)) = match () {
        #[cfg(feature = "cube")]
        () if on_gpu => {
            let fused = if function == Activation::Relu { function } else { Activation::Identity };
            let left = if fused == function { Activation::Identity } else { function };
            (left, Dispatch::kernel_batch_norm_train(input, scale, shift, epsilon, fused))
        }
        #[cfg(feature = "flex")]
        () if on_kernels => {
            let (fused, left) = if fused { (function, Activation::Identity) } else { (Activation::Identity, function) };
            (left, Dispatch::kernel_batch_norm_train(input, scale, shift, epsilon, fused))
        }
        #[cfg(feature = "tch")]
        () if on_libtorch => (function, Dispatch::libtorch_batch_norm_train(input, scale, shift, epsilon)),
        () => (function, Dispatch::burn_batch_norm_train(input, scale, shift, epsilon)),
    };
    let [mean, variance] = [mean, variance].map(|values| Tensor::<1>::from_dispatch(values).cast(wide));
    BatchNormTrain { output: activation(Tensor::from_dispatch(output), left), mean, variance }
}

/// Normalizes `[batch, channels, height, width]` by given statistics, `[channels]`, then scales and shifts; an
/// activation follows.
pub fn batch_norm(
    input: Tensor<4>,
    [scale, shift]: [Tensor<1>; 2],
    [mean, variance]: [Tensor<1>; 2],
    epsilon: f64,
    function: Activation,
) -> Tensor<4> {
    let (numbers, wide) = (input.dtype(), scale.dtype());
    if numbers != wide && !mixes(&input) {
        let parameters = ([scale, shift], [mean, variance]);
        return batch_norm(input.cast(wide), parameters.0, parameters.1, epsilon, function).cast(numbers);
    }
    #[cfg(feature = "flex")]
    let (on_kernels, fused) = (on_kernels(&input), has_kernels(numbers));
    let [scale, shift, mean, variance] = [scale, shift, mean, variance].map(Tensor::into_dispatch);
    let input = input.into_dispatch();
    let (left, output) = match () {
        #[cfg(feature = "flex")]
        () if on_kernels => {
            let (fused, left) = if fused { (function, Activation::Identity) } else { (Activation::Identity, function) };
            (left, Dispatch::kernel_batch_norm(input, scale, shift, mean, variance, epsilon, fused))
        }
        () => (function, Dispatch::burn_batch_norm(input, BatchNorm { scale, shift, mean, variance, epsilon })),
    };
    activation(Tensor::from_dispatch(output), left)
}

/// a + b, of one shape.
pub fn add(a: Tensor<4>, b: Tensor<4>) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if mixes(&a) && a.dims() == b.dims() {
        return Tensor::from_dispatch(Dispatch::kernel_add(a.into_dispatch(), b.into_dispatch()));
    }
    a + b
}

/// The concatenation along channels of `[batch, channels, height, width]`.
pub fn concat(maps: Vec<Tensor<4>>) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if maps.iter().all(|map| mixes(map) && map.dtype() == maps[0].dtype()) && (2..=4).contains(&maps.len()) {
        let mut maps = maps.into_iter().map(Tensor::into_dispatch);
        let (Some(a), Some(b)) = (maps.next(), maps.next()) else { unreachable!("two feature maps or more") };
        return Tensor::from_dispatch(match (maps.next(), maps.next()) {
            (Some(c), Some(d)) => Dispatch::kernel_concat4(a, b, c, d),
            (Some(c), None) => Dispatch::kernel_concat3(a, b, c),
            _ => Dispatch::kernel_concat2(a, b),
        });
    }
    Tensor::cat(maps, 1)
}

/// The tensor for two readers. Their gradients are added by a kernel, where Burn would add them.
pub fn fork(input: Tensor<4>) -> [Tensor<4>; 2] {
    #[cfg(feature = "flex")]
    if mixes(&input) && input.device().is_autodiff() {
        let (one, other) = Dispatch::kernel_fork(input.into_dispatch());
        return [one, other].map(Tensor::from_dispatch);
    }
    [input.clone(), input]
}

/// max(0, a + b).
pub fn add_relu(a: Tensor<4>, b: Tensor<4>) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if on_kernels(&a) && a.dims() == b.dims() {
        return Tensor::from_dispatch(Dispatch::kernel_add_relu(a.into_dispatch(), b.into_dispatch()));
    }
    #[cfg(feature = "cube")]
    if on_gpu(&a) && (a.dims(), a.dtype()) == (b.dims(), b.dtype()) {
        return Tensor::from_dispatch(Dispatch::kernel_add_relu(a.into_dispatch(), b.into_dispatch()));
    }
    Tensor::from_dispatch(Dispatch::burn_add_relu(a.into_dispatch(), b.into_dispatch()))
}

/// Max pooling of `[batch, channels, height, width]`.
pub fn max_pool2d(input: Tensor<4>, options: MaxPoolOptions<2>) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if on_kernels(&input) && options.dilation == [1, 1] && options.padding.iter().all(|(begin, end)| begin == end) {
        return Tensor::from_dispatch(Dispatch::kernel_max_pool2d(input.into_dispatch(), options));
    }
    module::max_pool2d(input, options)
}

/// Average pooling of `[batch, channels, height, width]`.
pub fn average_pool2d(input: Tensor<4>, options: AvgPoolOptions<2>) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if on_kernels(&input) && options.padding.iter().all(|(begin, end)| begin == end) {
        let shape = PoolShape::Sliding {
            kind: PoolKind::Average { count_include_pad: options.count_include_pad },
            kernel: options.kernel_size,
            stride: options.stride,
            padding: options.padding.map(|(begin, _)| begin),
            ceil: options.ceil_mode,
        };
        return Tensor::from_dispatch(Dispatch::kernel_average_pool2d(input.into_dispatch(), shape));
    }
    module::avg_pool2d(input, options)
}

/// Adaptive average pooling to `output`, `[height, width]`.
pub fn adaptive_average_pool2d(input: Tensor<4>, output: [usize; 2]) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if on_kernels(&input) {
        return Tensor::from_dispatch(Dispatch::kernel_average_pool2d(
            input.into_dispatch(),
            PoolShape::adaptive_average(output),
        ));
    }
    module::adaptive_avg_pool2d(input, output)
}

/// Normalizes each pixel of `[batch, channels, height, width]` over its channels, then scales and shifts by `[channels]`.
pub fn layer_norm2d(input: Tensor<4>, scale: Tensor<1>, shift: Tensor<1>, epsilon: f64) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if on_kernels(&input) && has_kernels(input.dtype()) && [scale.dtype(), shift.dtype()] == [DType::F32; 2] {
        let (input, scale, shift) = (input.into_dispatch(), scale.into_dispatch(), shift.into_dispatch());
        return Tensor::from_dispatch(Dispatch::kernel_layer_norm(input, scale, shift, epsilon));
    }
    let (numbers, wide) = (input.dtype(), scale.dtype());
    if numbers != wide {
        return layer_norm2d(input.cast(wide), scale, shift, epsilon).cast(numbers);
    }
    let of_channels = |values: Tensor<1>| values.unsqueeze_dims(&[0, 2, 3]);
    let distance = input.clone() - input.mean_dim(1);
    let deviation = distance.clone().square().mean_dim(1).add_scalar(epsilon).sqrt();
    distance / deviation * of_channels(scale) + of_channels(shift)
}

/// Multiplies each channel of `[batch, channels, height, width]` by a gate, `[batch, channels, 1, 1]`.
pub fn gate(input: Tensor<4>, gate: Tensor<4>) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if on_kernels(&input) && has_kernels(input.dtype()) && input.dtype() == gate.dtype() {
        let [batch, channels, ..] = input.dims();
        if gate.dims() == [batch, channels, 1, 1] {
            return Tensor::from_dispatch(Dispatch::kernel_scale(input.into_dispatch(), gate.into_dispatch()));
        }
    }
    input * gate
}

/// Multiplies each channel of `[batch, channels, height, width]` by a factor, `[channels, 1, 1]`.
pub fn channel_scale(input: Tensor<4>, factors: Tensor<3>) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if on_kernels(&input) && has_kernels(input.dtype()) && factors.dtype() == DType::F32 {
        let [_, channels, ..] = input.dims();
        if factors.dims() == [channels, 1, 1] {
            return Tensor::from_dispatch(Dispatch::kernel_scale(input.into_dispatch(), factors.into_dispatch()));
        }
    }
    let factors = factors.cast(input.dtype());
    input * factors.unsqueeze::<4>()
}

/// A function of each element.
pub fn activation<const D: usize>(input: Tensor<D>, function: Activation) -> Tensor<D> {
    if function == Activation::Identity {
        return input;
    }
    #[cfg(feature = "flex")]
    if mixes(&input) {
        return Tensor::from_dispatch(Dispatch::kernel_activation(input.into_dispatch(), function));
    }
    let hardsigmoid = |x: Tensor<D>| x.add_scalar(3.0).clamp(0.0, 6.0).mul_scalar(1.0 / 6.0);
    match function {
        Activation::Identity => input,
        Activation::Relu => activation::relu(input),
        Activation::Relu6 => input.clamp(0.0, 6.0),
        Activation::Tanh => activation::tanh(input),
        Activation::Sigmoid => activation::sigmoid(input),
        // Burn's own computes in 32 bits, as does the gradient of its division by a number.
        Activation::Hardsigmoid => hardsigmoid(input),
        Activation::Silu => activation::silu(input),
        Activation::Hardswish => input.clone() * hardsigmoid(input),
        // The gradient of Burn's own is that of an approximation.
        Activation::Gelu => {
            let below = input.clone().mul_scalar(std::f64::consts::FRAC_1_SQRT_2).erf().add_scalar(1.0).mul_scalar(0.5);
            input * below
        }
    }
}

/// `[batch, inputs]` times a weight `[outputs, inputs]`, plus a bias `[outputs]`.
pub fn linear(input: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    let (weight, bias) = (for_input(weight, &input), for_input(bias, &input));
    #[cfg(feature = "flex")]
    let on_kernels = on_kernels(&input);
    let (input, weight, bias) = (input.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(match () {
        #[cfg(feature = "flex")]
        () if on_kernels => Dispatch::kernel_linear(input, weight, bias),
        () => Dispatch::burn_linear(input, weight, bias),
    })
}

/// A step of SGD: the parameter and the momentum buffer after it.
pub fn sgd_step<const D: usize>(
    param: Tensor<D>,
    velocity: Tensor<D>,
    gradient: Tensor<D>,
    rule: SgdStep,
) -> (Tensor<D>, Tensor<D>) {
    #[cfg(feature = "flex")]
    let on_kernels = on_kernels(&param);
    let (param, velocity, gradient) = (param.into_dispatch(), velocity.into_dispatch(), gradient.into_dispatch());
    let (param, velocity) = match () {
        #[cfg(feature = "flex")]
        () if on_kernels => Dispatch::kernel_sgd_step(param, velocity, gradient, rule),
        () => Dispatch::burn_sgd_step(param, velocity, gradient, rule),
    };
    (Tensor::from_dispatch(param), Tensor::from_dispatch(velocity))
}

/// The values of a tensor, contiguous: on Flex shared with the tensor.
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

/// Where a tensor's values lie, if on Flex: as long as it lives, what tells it apart in a [`trace`].
pub fn address<const D: usize>(tensor: Tensor<D>) -> Option<usize> {
    #[cfg(feature = "flex")]
    {
        let tensor = tensor.try_into_primitive::<burn::backend::Flex>().ok()?;
        Some(tensor.bytes().as_ptr().addr())
    }
    #[cfg(not(feature = "flex"))]
    {
        let _ = tensor;
        None
    }
}

/// A parameter in the numbers of what it is applied to, unless the kernels take it as it is.
fn for_input<const D: usize, const N: usize>(parameter: Tensor<D>, input: &Tensor<N>) -> Tensor<D> {
    let numbers = input.dtype();
    if parameter.dtype() == numbers || mixes(input) { parameter } else { parameter.cast(numbers) }
}

/// Whether the kernels compute with such an input and with parameters of `f32`.
fn mixes<const D: usize>(input: &Tensor<D>) -> bool {
    #[cfg(feature = "flex")]
    {
        on_kernels(input) && has_kernels(input.dtype())
    }
    #[cfg(not(feature = "flex"))]
    {
        let _ = input;
        false
    }
}

/// Whether there are kernels for activations of such numbers.
#[cfg(feature = "flex")]
fn has_kernels(numbers: DType) -> bool {
    matches!(numbers, DType::F32 | DType::BF16)
}

/// Whether this crate's kernels compute with the tensor.
#[cfg(feature = "flex")]
fn on_kernels<const D: usize>(tensor: &Tensor<D>) -> bool {
    serves(&tensor.device())
}

/// Whether this crate's kernels for GPUs compute with the tensor, whose values they count in 32 bits.
#[cfg(feature = "cube")]
fn on_gpu(tensor: &Tensor<4>) -> bool {
    let device = tensor.device();
    let on_cube = match device.as_dispatch() {
        DispatchDevice::Cube(_) => true,
        DispatchDevice::Autodiff(device) => matches!(**device, DispatchDevice::Cube(_)),
        #[allow(unreachable_patterns)] // which are left depends on Burn's features
        _ => false,
    };
    let [_, channels, ..] = tensor.dims();
    let countable = (1..1 << 31).contains(&tensor.shape().num_elements()) && channels <= usize::from(u16::MAX);
    on_cube && countable && cube::takes(tensor.dtype()) && chosen() == Kernels::Convzoo
}

/// Whether libtorch differentiates the operations on the tensor that it has whole.
#[cfg(feature = "tch")]
fn on_training_libtorch(tensor: &Tensor<4>) -> bool {
    let device = tensor.device();
    let tracked = match device.as_dispatch() {
        DispatchDevice::Autodiff(device) => matches!(**device, DispatchDevice::LibTorch(_)),
        _ => false,
    };
    tracked && chosen() == Kernels::Convzoo
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
        chosen() == Kernels::Convzoo && on_flex(device.as_dispatch())
    }
    #[cfg(not(feature = "flex"))]
    {
        let _ = device;
        false
    }
}
