//! The kernels' operations on Flex's tensors: where parameters are `f32`, activations that or bfloat16 numbers, and the
//! kernels take the shapes; else Burn's own.

use std::marker::PhantomData;

use burn::backend::ops::{FloatTensorOps, ModuleOps};
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::ops::{ConvOptions, MaxPoolOptions};
use burn::tensor::{Bytes, DType, Element, FloatDType, Shape, Slice};
use burn_flex::{FlexTensor, Layout};
use half::bf16;

use super::burn_ops::{BatchNorm, BurnOps};
use super::fused_ops::{FusedGradients, FusedOps};
use super::kernel_ops::{KernelGradients, KernelOps};
use super::trace::{Part, timer};
use crate::Isa;
use crate::conv::ConvShape;
use crate::elementwise::Activation;
use crate::number::Number;
use crate::planar::{
    AveragePoolPass, BatchNormParams, BatchNormPass, ChannelAffine, ConvPass, LayerNormPass, LinearPass, MaxPoolPass,
    ScalePass, SgdStep, activation, activation_backward, activation_keeps_output, add, add_relu, add_relu_backward,
    channel_sums, concat, split,
};
use crate::pool::{PoolKind, PoolShape};

/// A number that activations are kept in, as an element of Burn's tensors.
pub(super) trait Activations: Number + Element {
    /// Those of a contiguous tensor.
    fn slice(tensor: &FlexTensor) -> &[Self];
    /// The same to write: copied if another tensor holds them, too.
    fn slice_mut(tensor: &mut FlexTensor) -> &mut [Self];
}

macro_rules! activations {
    ($($number:ty)*) => {
        $(impl Activations for $number {
            fn slice(tensor: &FlexTensor) -> &[Self] {
                tensor.as_slice().unwrap_or_default()
            }

            fn slice_mut(tensor: &mut FlexTensor) -> &mut [Self] {
                let len = tensor.shape().num_elements();
                &mut tensor.storage_mut()[..len]
            }
        })*
    };
}

activations!(f32 bf16);

/// Computes with the numbers of a tensor; nothing where they are others.
macro_rules! with_numbers {
    ($tensor:expr, |$N:ident| $compute:expr) => {
        match $tensor.dtype() {
            DType::F32 => {
                type $N = f32;
                $compute
            }
            DType::BF16 => {
                type $N = bf16;
                $compute
            }
            _ => None,
        }
    };
}

/// A tensor's numbers, contiguous.
pub(super) struct Values<N = f32>(FlexTensor, PhantomData<N>);

impl<N: Activations> Values<N> {
    /// None unless they are of this kind.
    pub fn new(tensor: &FlexTensor) -> Option<Self> {
        (tensor.dtype() == N::dtype()).then(|| Self(tensor.to_contiguous(), PhantomData))
    }

    fn get(&self) -> &[N] {
        N::slice(&self.0)
    }
}

impl Values {
    /// Others are brought to `f32`.
    pub fn single(tensor: &FlexTensor) -> Self {
        if let Some(numbers) = Values::<bf16>::new(tensor) {
            let values = bf16::widened(isa(), numbers.get()).into_owned();
            return Self(self::tensor(values, tensor.shape()), PhantomData);
        }
        Self::new(tensor).unwrap_or_else(|| Self(cast(tensor.clone(), DType::F32).to_contiguous(), PhantomData))
    }
}

impl AsRef<[f32]> for Values {
    fn as_ref(&self) -> &[f32] {
        self.get()
    }
}

/// The tensor in other numbers, where they are others.
fn cast(tensor: FlexTensor, dtype: DType) -> FlexTensor {
    if tensor.dtype() == dtype { tensor } else { Flex::float_cast(tensor, FloatDType::from(dtype)) }
}

/// The tensor, contiguous.
fn whole(tensor: FlexTensor) -> FlexTensor {
    match tensor.layout().contiguous_offsets() {
        Some((0, _)) => tensor,
        _ => tensor.to_contiguous(),
    }
}

fn tensor<N: Element>(values: Vec<N>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape.into()), N::dtype())
}

/// Values in the numbers of another tensor.
fn tensor_like(values: Vec<f32>, shape: impl Into<Shape>, other: &FlexTensor) -> FlexTensor {
    match other.dtype() {
        DType::BF16 => tensor(bf16::rounded(isa(), values), shape),
        _ => tensor(values, shape),
    }
}

/// Whether the kernels have such numbers.
fn has_numbers(tensor: &FlexTensor) -> bool {
    matches!(tensor.dtype(), DType::F32 | DType::BF16)
}

/// What `CONVZOO_ISA` asks for, or else the fastest. A program that wants to complain of a wrong name asks
/// [`Isa::detect`] before.
fn isa() -> Isa {
    Isa::detect().unwrap_or(Isa::Portable)
}

/// The convolution as the kernels take it, unless it pads unevenly or its window does not fit.
fn conv_pass(input: &FlexTensor, weight: &FlexTensor, options: &ConvOptions<2>) -> Option<ConvPass> {
    let ([batch, inputs, height, width], [outputs, _, rows, columns]) =
        (input.shape().dims::<4>(), weight.shape().dims::<4>());
    if options.padding.iter().any(|(begin, end)| begin != end) {
        return None;
    }
    let shape = ConvShape {
        channels: [inputs, outputs],
        kernel: [rows, columns],
        stride: options.stride,
        padding: options.padding.map(|(begin, _)| begin),
        dilation: options.dilation,
        groups: options.groups,
    };
    let fits = weight.shape().num_elements() == shape.weights();
    if fits { ConvPass::new(isa(), shape, batch, [height, width]).ok() } else { None }
}

fn norm_pass(input: &FlexTensor, epsilon: f64, activation: Activation) -> BatchNormPass {
    let [batch, channels, height, width] = input.shape().dims();
    BatchNormPass { isa: isa(), batch, channels, plane: height * width, epsilon, activation }
}

fn scale_pass(input: &FlexTensor) -> ScalePass {
    let [batch, channels, height, width] = input.shape().dims();
    ScalePass { isa: isa(), planes: batch * channels, plane: height * width }
}

fn layer_norm_pass(input: &FlexTensor, epsilon: f64) -> LayerNormPass {
    let [batch, channels, height, width] = input.shape().dims();
    LayerNormPass { isa: isa(), batch, channels, plane: height * width, epsilon }
}

/// Max pooling as the kernels take it, unless its window does not fit.
fn max_pool_pass(input: &FlexTensor, options: &MaxPoolOptions<2>) -> Option<MaxPoolPass> {
    let [batch, channels, height, width] = input.shape().dims();
    let shape = PoolShape::Sliding {
        kind: PoolKind::Max,
        kernel: options.kernel_size,
        stride: options.stride,
        padding: options.padding.map(|(begin, _)| begin),
        ceil: options.ceil_mode,
    };
    MaxPoolPass::new(isa(), &shape, batch * channels, [height, width]).ok()
}

/// The same of average pooling.
fn average_pool_pass(input: &Shape, shape: &PoolShape) -> Option<AveragePoolPass> {
    let [batch, channels, height, width] = input.dims();
    AveragePoolPass::new(isa(), shape, batch * channels, [height, width]).ok()
}

/// A convolution with the kernels, where they take it.
fn conv(
    input: &FlexTensor,
    weight: &FlexTensor,
    options: &ConvOptions<2>,
    affine: ChannelAffine,
) -> Option<FlexTensor> {
    let (w, pass) = (Values::<f32>::new(weight)?, conv_pass(input, weight, options)?);
    with_numbers!(input, |N| {
        let x = Values::<N>::new(input)?;
        Some(tensor(pass.forward(x.get(), w.get(), affine), pass.output_shape()))
    })
}

impl KernelOps for Flex {
    fn kernel_conv2d(input: FlexTensor, weight: FlexTensor, options: ConvOptions<2>) -> FlexTensor {
        let _timer = timer(Part::Forward, "Conv2d", Some(&weight));
        conv(&input, &weight, &options, ChannelAffine::default()).unwrap_or_else(|| {
            let numbers = input.dtype();
            Self::conv2d(input, cast(weight, numbers), None, options)
        })
    }

    fn kernel_conv2d_bias(
        input: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        options: ConvOptions<2>,
    ) -> FlexTensor {
        let _timer = timer(Part::Forward, "Conv2d", Some(&weight));
        let shift = Values::new(&bias);
        let affine = shift.as_ref().map(|b| ChannelAffine { shift: Some(b.get()), ..ChannelAffine::default() });
        affine.and_then(|affine| conv(&input, &weight, &options, affine)).unwrap_or_else(|| {
            let numbers = input.dtype();
            Self::conv2d(input, cast(weight, numbers), Some(cast(bias, numbers)), options)
        })
    }

    fn kernel_conv2d_affine(
        input: FlexTensor,
        weight: FlexTensor,
        scale: FlexTensor,
        shift: FlexTensor,
        relu: bool,
        options: ConvOptions<2>,
    ) -> FlexTensor {
        let _timer = timer(Part::Forward, "Conv2d", Some(&weight));
        let values = [&scale, &shift].map(Values::new);
        let affine = match &values {
            [Some(scale), Some(shift)] => {
                Some(ChannelAffine { scale: Some(scale.get()), shift: Some(shift.get()), relu })
            }
            _ => None,
        };
        affine.and_then(|affine| conv(&input, &weight, &options, affine)).unwrap_or_else(|| {
            let numbers = input.dtype();
            let output = Self::conv2d(input, cast(weight, numbers), None, options);
            Self::burn_affine(output, cast(scale, numbers), cast(shift, numbers), relu)
        })
    }

    fn kernel_batch_norm(
        input: FlexTensor,
        scale: FlexTensor,
        shift: FlexTensor,
        mean: FlexTensor,
        variance: FlexTensor,
        epsilon: f64,
        activation: Activation,
    ) -> FlexTensor {
        let _timer = timer(Part::Forward, "BatchNorm2d", Some(&scale));
        let pass = norm_pass(&input, epsilon, activation);
        let values = [&scale, &shift, &mean, &variance].map(Values::new);
        let normalized = match &values {
            [Some(a), Some(b), Some(m), Some(v)] => with_numbers!(input, |N| Values::<N>::new(&input).map(|x| {
                let params = BatchNormParams { scale: a.get(), shift: b.get(), mean: m.get(), variance: v.get() };
                tensor(pass.apply(x.get(), params), input.shape())
            })),
            _ => None,
        };
        normalized.unwrap_or_else(|| {
            let output = Self::burn_batch_norm(input, BatchNorm { scale, shift, mean, variance, epsilon });
            Self::kernel_activated(output, activation)
        })
    }

    fn kernel_add(a: FlexTensor, b: FlexTensor) -> FlexTensor {
        let _timer = timer(Part::Forward, "sum", None);
        let sum = with_numbers!(a, |N| match (Values::<N>::new(&a), Values::<N>::new(&b)) {
            (Some(x), Some(y)) if a.shape() == b.shape() => Some(tensor(add(isa(), x.get(), y.get()), a.shape())),
            _ => None,
        });
        sum.unwrap_or_else(|| Self::float_add(a, b))
    }

    fn kernel_concat2(a: FlexTensor, b: FlexTensor) -> FlexTensor {
        Self::kernel_concat(vec![a, b])
    }

    fn kernel_concat3(a: FlexTensor, b: FlexTensor, c: FlexTensor) -> FlexTensor {
        Self::kernel_concat(vec![a, b, c])
    }

    fn kernel_concat4(a: FlexTensor, b: FlexTensor, c: FlexTensor, d: FlexTensor) -> FlexTensor {
        Self::kernel_concat(vec![a, b, c, d])
    }

    fn kernel_max_pool2d(input: FlexTensor, options: MaxPoolOptions<2>) -> FlexTensor {
        Self::kernel_max_pool2d_with_indices(input, options).0
    }

    fn kernel_average_pool2d(input: FlexTensor, shape: PoolShape) -> FlexTensor {
        let _timer = timer(Part::Forward, "AvgPool2d", None);
        match average_pool_pass(&input.shape(), &shape).filter(|_| has_numbers(&input)) {
            Some(pass) => {
                let ([batch, channels, ..], [height, width]) = (input.shape().dims::<4>(), pass.output());
                let output = pass.forward(Values::single(&input).get());
                tensor_like(output, [batch, channels, height, width], &input)
            }
            None => Self::burn_average_pool2d(input, shape),
        }
    }

    fn kernel_scale(input: FlexTensor, factors: FlexTensor) -> FlexTensor {
        let _timer = timer(Part::Forward, "scale", Some(&factors));
        let (x, f) = (Values::single(&input), Values::single(&factors));
        tensor_like(scale_pass(&input).forward(x.get(), f.get()), input.shape(), &input)
    }

    fn kernel_layer_norm(input: FlexTensor, scale: FlexTensor, shift: FlexTensor, epsilon: f64) -> FlexTensor {
        let _timer = timer(Part::Forward, "LayerNorm2d", Some(&scale));
        let [x, a, b] = [&input, &scale, &shift].map(Values::single);
        tensor_like(layer_norm_pass(&input, epsilon).forward(x.get(), a.get(), b.get()), input.shape(), &input)
    }

    fn kernel_activation(input: FlexTensor, function: Activation) -> FlexTensor {
        let _timer = timer(Part::Forward, function.kind(), None);
        let output = with_numbers!(input, |N| {
            Values::<N>::new(&input).map(|x| tensor(activation(isa(), function, x.get()), input.shape()))
        });
        output.unwrap_or_else(|| {
            let x = Values::single(&input);
            cast(tensor(activation(isa(), function, x.get()), input.shape()), input.dtype())
        })
    }

    fn kernel_linear(input: FlexTensor, weight: FlexTensor, bias: FlexTensor) -> FlexTensor {
        let _timer = timer(Part::Forward, "Linear", Some(&weight));
        match [&weight, &bias].map(Values::new) {
            [Some(w), Some(b)] if has_numbers(&input) => {
                let ([batch, inputs], [outputs, _]) = (input.shape().dims(), weight.shape().dims());
                let pass = LinearPass { isa: isa(), batch, inputs, outputs };
                let output = pass.forward(Values::single(&input).get(), w.get(), b.get());
                tensor_like(output, [batch, outputs], &input)
            }
            _ => Self::burn_linear(input, weight, bias),
        }
    }

    fn kernel_sgd_step(
        param: FlexTensor,
        velocity: FlexTensor,
        gradient: FlexTensor,
        rule: SgdStep,
    ) -> (FlexTensor, FlexTensor) {
        let _timer = timer(Part::Update, "SGD", Some(&param));
        let same = param.shape() == gradient.shape() && velocity.shape() == gradient.shape();
        match Values::new(&gradient) {
            Some(g) if same && [&param, &velocity].iter().all(|tensor| tensor.dtype() == DType::F32) => {
                let (mut param, mut velocity) = (whole(param), whole(velocity));
                rule.step(isa(), f32::slice_mut(&mut param), f32::slice_mut(&mut velocity), g.get());
                (param, velocity)
            }
            _ => Self::burn_sgd_step(param, velocity, gradient, rule),
        }
    }
}

impl FusedOps for Flex {
    fn kernel_batch_norm_train(
        input: FlexTensor,
        scale: FlexTensor,
        shift: FlexTensor,
        epsilon: f64,
        activation: Activation,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let _timer = timer(Part::Forward, "BatchNorm2d", Some(&scale));
        let pass = norm_pass(&input, epsilon, activation);
        let statistic = |values| tensor(values, [pass.channels]);
        let parameters = [&scale, &shift].map(Values::new);
        let normalized = match &parameters {
            [Some(factor), Some(summand)] => with_numbers!(input, |N| Values::<N>::new(&input).map(|x| {
                let (output, mean, variance) = pass.forward(x.get(), factor.get(), summand.get());
                (tensor(output, input.shape()), statistic(mean), statistic(variance))
            })),
            _ => None,
        };
        normalized.unwrap_or_else(|| {
            let (output, mean, variance) = Self::burn_batch_norm_train(input, scale, shift, epsilon);
            (Self::kernel_activated(output, activation), mean, variance)
        })
    }

    fn kernel_add_relu(a: FlexTensor, b: FlexTensor) -> FlexTensor {
        let _timer = timer(Part::Forward, "sum, ReLU", None);
        let sum = with_numbers!(a, |N| match (Values::<N>::new(&a), Values::<N>::new(&b)) {
            (Some(x), Some(y)) if a.shape() == b.shape() => Some(tensor(add_relu(isa(), x.get(), y.get()), a.shape())),
            _ => None,
        });
        sum.unwrap_or_else(|| Self::burn_add_relu(a, b))
    }
}

impl FusedGradients for Flex {
    fn kernel_batch_norm_again(input: FlexTensor, norm: BatchNorm<Self>, activation: Activation) -> FlexTensor {
        let BatchNorm { scale, shift, mean, variance, epsilon } = norm;
        Self::kernel_batch_norm(input, scale, shift, mean, variance, epsilon, activation)
    }

    fn kernel_batch_norm_backward(
        input: FlexTensor,
        norm: BatchNorm<Self>,
        activation: Activation,
        gradient: FlexTensor,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let _timer = timer(Part::InputGradient, "BatchNorm2d", Some(&norm.scale));
        let pass = norm_pass(&input, norm.epsilon, activation);
        let values = [&norm.scale, &norm.shift, &norm.mean, &norm.variance].map(Values::new);
        if let [Some(a), Some(b), Some(m), Some(v)] = &values {
            let params = BatchNormParams { scale: a.get(), shift: b.get(), mean: m.get(), variance: v.get() };
            let gradients = with_numbers!(gradient, |N| Values::<N>::new(&input).map(|x| {
                let mut gradient = whole(gradient.clone());
                let of = pass.backward(x.get(), params, N::slice_mut(&mut gradient));
                (gradient, tensor(of.scale, norm.scale.shape()), tensor(of.shift, norm.shift.shape()))
            }));
            if let Some(gradients) = gradients {
                return gradients;
            }
        }
        let gradient = match activation {
            Activation::Identity => gradient,
            function => {
                let output = Self::burn_batch_norm(input.clone(), norm.clone());
                let kept =
                    if activation_keeps_output(function) { Self::kernel_activation(output, function) } else { output };
                Self::kernel_activation_backward(kept, function, gradient)
            }
        };
        Self::burn_batch_norm_backward(input, norm, gradient).into()
    }

    fn kernel_add_relu_backward(output: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        let _timer = timer(Part::InputGradient, "sum, ReLU", None);
        let of_summand = with_numbers!(output, |N| match (Values::<N>::new(&output), Values::<N>::new(&gradient)) {
            (Some(y), Some(g)) => Some(tensor(add_relu_backward(isa(), y.get(), g.get()), output.shape())),
            _ => None,
        });
        of_summand.unwrap_or_else(|| Self::burn_add_relu_backward(output, gradient))
    }
}

impl KernelGradients for Flex {
    fn kernel_conv2d_x_backward(
        input: FlexTensor,
        weight: FlexTensor,
        gradient: FlexTensor,
        options: ConvOptions<2>,
    ) -> FlexTensor {
        let _timer = timer(Part::InputGradient, "Conv2d", Some(&weight));
        let of_input = match (Values::<f32>::new(&weight), conv_pass(&input, &weight, &options)) {
            (Some(w), Some(pass)) => with_numbers!(gradient, |N| {
                Values::<N>::new(&gradient).map(|g| tensor(pass.backward_input(g.get(), w.get()), input.shape()))
            }),
            _ => None,
        };
        of_input.unwrap_or_else(|| {
            let numbers = input.dtype();
            Self::conv2d_x_backward(input, cast(weight, numbers), gradient, options)
        })
    }

    fn kernel_conv2d_weight_backward(
        input: FlexTensor,
        weight: FlexTensor,
        gradient: FlexTensor,
        options: ConvOptions<2>,
    ) -> FlexTensor {
        let _timer = timer(Part::WeightGradient, "Conv2d", Some(&weight));
        let of_weight =
            conv_pass(&input, &weight, &options).filter(|_| weight.dtype() == DType::F32).and_then(|pass| {
                with_numbers!(gradient, |N| {
                    let (x, g) = (Values::<N>::new(&input)?, Values::<N>::new(&gradient)?);
                    Some(tensor(pass.backward_weight(x.get(), g.get()), weight.shape()))
                })
            });
        of_weight.unwrap_or_else(|| {
            let (numbers, of_weight) = (input.dtype(), weight.dtype());
            cast(Self::conv2d_weight_backward(input, cast(weight, numbers), gradient, options), of_weight)
        })
    }

    fn kernel_conv2d_bias_backward(input: FlexTensor, bias: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        let _timer = timer(Part::WeightGradient, "Conv2d", Some(&bias));
        let [_, channels, height, width] = gradient.shape().dims();
        if has_numbers(&gradient) && bias.dtype() == DType::F32 {
            let g = Values::single(&gradient);
            return tensor(channel_sums(isa(), g.get(), channels, height * width), bias.shape());
        }
        let (numbers, of_bias) = (input.dtype(), bias.dtype());
        cast(Self::conv2d_bias_backward(input, cast(bias, numbers), gradient), of_bias)
    }

    fn kernel_linear_x_backward(weight: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        let _timer = timer(Part::InputGradient, "Linear", Some(&weight));
        match Values::new(&weight).filter(|_| has_numbers(&gradient)) {
            Some(w) => {
                let ([batch, outputs], [_, inputs]) = (gradient.shape().dims(), weight.shape().dims());
                let pass = LinearPass { isa: isa(), batch, inputs, outputs };
                let of_input = pass.backward_input(Values::single(&gradient).get(), w.get());
                tensor_like(of_input, [batch, inputs], &gradient)
            }
            None => Self::burn_linear_x_backward(weight, gradient),
        }
    }

    fn kernel_linear_weight_backward(input: FlexTensor, weight: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        let _timer = timer(Part::WeightGradient, "Linear", Some(&weight));
        if has_numbers(&input) && has_numbers(&gradient) {
            let (x, g) = (Values::single(&input), Values::single(&gradient));
            let ([batch, inputs], [_, outputs]) = (input.shape().dims(), gradient.shape().dims());
            let pass = LinearPass { isa: isa(), batch, inputs, outputs };
            return tensor(pass.backward_weight(x.get(), g.get()), [outputs, inputs]);
        }
        Self::burn_linear_weight_backward(input, gradient)
    }

    fn kernel_concat(maps: Vec<FlexTensor>) -> FlexTensor {
        let _timer = timer(Part::Forward, "concatenation", None);
        let [batch, _, height, width] = maps[0].shape().dims();
        let channels = maps.iter().map(|map| map.shape().dims::<4>()[1]).sum();
        let joined = with_numbers!(maps[0], |N| {
            let values: Option<Vec<_>> = maps.iter().map(Values::<N>::new).collect();
            values.map(|values| {
                let parts: Vec<&[N]> = values.iter().map(Values::get).collect();
                tensor(concat(batch, &parts), [batch, channels, height, width])
            })
        });
        joined.unwrap_or_else(|| Self::float_cat(maps, 1))
    }

    fn kernel_concat_backward(gradient: FlexTensor, before: usize, channels: usize) -> FlexTensor {
        let _timer = timer(Part::InputGradient, "concatenation", None);
        let [batch, _, height, width] = gradient.shape().dims();
        let part = with_numbers!(gradient, |N| Values::<N>::new(&gradient).map(|g| {
            let [before, length] = [before, channels].map(|channels| channels * height * width);
            tensor(split(batch, g.get(), before, length), [batch, channels, height, width])
        }));
        part.unwrap_or_else(|| {
            let whole = |size: usize| Slice::from(0..size);
            let channels = Slice::from(before..before + channels);
            Self::float_slice(gradient, &[whole(batch), channels, whole(height), whole(width)])
        })
    }

    fn kernel_max_pool2d_with_indices(input: FlexTensor, options: MaxPoolOptions<2>) -> (FlexTensor, FlexTensor) {
        let _timer = timer(Part::Forward, "MaxPool2d", None);
        let Some(pass) = max_pool_pass(&input, &options).filter(|_| has_numbers(&input)) else {
            return Self::burn_max_pool2d_with_indices(input, options);
        };
        let x = Values::single(&input);
        let ([batch, channels, ..], [height, width]) = (input.shape().dims::<4>(), pass.output());
        let shape = Shape::new([batch, channels, height, width]);
        let (output, indices) = pass.forward(x.get());
        let indices = FlexTensor::new(Bytes::from_elems(indices), Layout::contiguous(shape.clone()), DType::I32);
        (tensor_like(output, shape, &input), indices)
    }

    fn kernel_max_pool2d_backward(
        input: FlexTensor,
        options: MaxPoolOptions<2>,
        indices: FlexTensor,
        gradient: FlexTensor,
    ) -> FlexTensor {
        let _timer = timer(Part::InputGradient, "MaxPool2d", None);
        match (indices.as_slice::<i32>(), max_pool_pass(&input, &options)) {
            (Some(places), Some(pass)) if has_numbers(&gradient) => {
                let of_input = pass.backward(places, Values::single(&gradient).get());
                tensor_like(of_input, input.shape(), &gradient)
            }
            _ => Self::burn_max_pool2d_backward(input, options, indices, gradient),
        }
    }

    fn kernel_average_pool2d_backward(input: Shape, shape: PoolShape, gradient: FlexTensor) -> FlexTensor {
        let _timer = timer(Part::InputGradient, "AvgPool2d", None);
        match average_pool_pass(&input, &shape).filter(|_| has_numbers(&gradient)) {
            Some(pass) => tensor_like(pass.backward(Values::single(&gradient).get()), input, &gradient),
            None => Self::burn_average_pool2d_backward(input, shape, gradient),
        }
    }

    fn kernel_scale_x_backward(factors: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        let _timer = timer(Part::InputGradient, "scale", Some(&factors));
        let (g, f) = (Values::single(&gradient), Values::single(&factors));
        tensor_like(scale_pass(&gradient).forward(g.get(), f.get()), gradient.shape(), &gradient)
    }

    fn kernel_scale_factors_backward(input: FlexTensor, factors: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        let _timer = timer(Part::WeightGradient, "scale", Some(&factors));
        let (x, g, shape) = (Values::single(&input), Values::single(&gradient), factors.shape());
        tensor_like(scale_pass(&input).backward_factors(x.get(), g.get(), shape.num_elements()), shape, &factors)
    }

    fn kernel_layer_norm_backward(
        input: FlexTensor,
        scale: FlexTensor,
        epsilon: f64,
        gradient: FlexTensor,
    ) -> [FlexTensor; 3] {
        let _timer = timer(Part::InputGradient, "LayerNorm2d", Some(&scale));
        let [x, a, g] = [&input, &scale, &gradient].map(Values::single);
        let result = layer_norm_pass(&input, epsilon).backward(x.get(), a.get(), g.get());
        let of_channels = |values| tensor(values, scale.shape());
        [tensor_like(result.input, input.shape(), &input), of_channels(result.scale), of_channels(result.shift)]
    }

    fn kernel_activation_backward(kept: FlexTensor, function: Activation, gradient: FlexTensor) -> FlexTensor {
        let _timer = timer(Part::InputGradient, function.kind(), None);
        let of_input = with_numbers!(kept, |N| match (Values::<N>::new(&kept), Values::<N>::new(&gradient)) {
            (Some(x), Some(g)) => Some(tensor(activation_backward(isa(), function, x.get(), g.get()), kept.shape())),
            _ => None,
        });
        of_input.unwrap_or_else(|| {
            let (x, g) = (Values::single(&kept), Values::single(&gradient));
            cast(tensor(activation_backward(isa(), function, x.get(), g.get()), kept.shape()), kept.dtype())
        })
    }
}
