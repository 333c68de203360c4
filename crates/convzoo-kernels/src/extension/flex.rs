//! The kernels' operations on Flex's tensors: where these are `f32` and the kernels take their shapes; else Burn's own.

use burn::backend::ops::{FloatTensorOps, ModuleOps};
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::ops::{ConvOptions, MaxPoolOptions};
use burn::tensor::{Bytes, DType, FloatDType, Shape};
use burn_flex::{FlexTensor, Layout};

use super::burn_ops::{BatchNorm, BurnOps};
use super::kernel_ops::{KernelGradients, KernelOps};
use super::trace::{Part, timer};
use crate::Isa;
use crate::conv::ConvShape;
use crate::elementwise::Activation;
use crate::planar::{
    AveragePoolPass, BatchNormParams, BatchNormPass, ChannelAffine, ConvPass, LayerNormPass, LinearPass, MaxPoolPass,
    ScalePass, SgdStep, activation, activation_backward, activation_keeps_output, add_relu, add_relu_backward,
    channel_sums,
};
use crate::pool::{PoolKind, PoolShape};

/// A tensor's values, contiguous.
pub(super) struct Values(FlexTensor);

impl Values {
    /// None unless they are `f32`.
    pub fn new(tensor: &FlexTensor) -> Option<Self> {
        (tensor.dtype() == DType::F32).then(|| Self(tensor.to_contiguous()))
    }

    /// Others are brought to `f32`.
    pub fn single(tensor: &FlexTensor) -> Self {
        Self::new(tensor).unwrap_or_else(|| Self(Flex::float_cast(tensor.clone(), FloatDType::F32).to_contiguous()))
    }

    fn get(&self) -> &[f32] {
        self.0.as_slice().unwrap_or_default()
    }
}

impl AsRef<[f32]> for Values {
    fn as_ref(&self) -> &[f32] {
        self.get()
    }
}

/// The tensor, contiguous.
fn whole(tensor: FlexTensor) -> FlexTensor {
    match tensor.layout().contiguous_offsets() {
        Some((0, _)) => tensor,
        _ => tensor.to_contiguous(),
    }
}

/// The values of a [`whole`] tensor, copied if another holds them, too.
fn values_mut(tensor: &mut FlexTensor) -> &mut [f32] {
    let len = tensor.shape().num_elements();
    &mut tensor.storage_mut::<f32>()[..len]
}

fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape.into()), DType::F32)
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

impl KernelOps for Flex {
    fn kernel_conv2d(input: FlexTensor, weight: FlexTensor, options: ConvOptions<2>) -> FlexTensor {
        let _timer = timer(Part::Forward, "Conv2d", Some(&weight));
        match (Values::new(&input), Values::new(&weight), conv_pass(&input, &weight, &options)) {
            (Some(x), Some(w), Some(pass)) => {
                tensor(pass.forward(x.get(), w.get(), ChannelAffine::default()), pass.output_shape())
            }
            _ => Self::conv2d(input, weight, None, options),
        }
    }

    fn kernel_conv2d_bias(
        input: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        options: ConvOptions<2>,
    ) -> FlexTensor {
        let _timer = timer(Part::Forward, "Conv2d", Some(&weight));
        match ([&input, &weight, &bias].map(Values::new), conv_pass(&input, &weight, &options)) {
            ([Some(x), Some(w), Some(b)], Some(pass)) => {
                let affine = ChannelAffine { shift: Some(b.get()), ..ChannelAffine::default() };
                tensor(pass.forward(x.get(), w.get(), affine), pass.output_shape())
            }
            _ => Self::conv2d(input, weight, Some(bias), options),
        }
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
        match ([&input, &weight, &scale, &shift].map(Values::new), conv_pass(&input, &weight, &options)) {
            ([Some(x), Some(w), Some(factor), Some(summand)], Some(pass)) => {
                let affine = ChannelAffine { scale: Some(factor.get()), shift: Some(summand.get()), relu };
                tensor(pass.forward(x.get(), w.get(), affine), pass.output_shape())
            }
            _ => Self::burn_affine(Self::conv2d(input, weight, None, options), scale, shift, relu),
        }
    }

    fn kernel_batch_norm_train(
        input: FlexTensor,
        scale: FlexTensor,
        shift: FlexTensor,
        epsilon: f64,
        activation: Activation,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let _timer = timer(Part::Forward, "BatchNorm2d", Some(&scale));
        let [Some(x), Some(factor), Some(summand)] = [&input, &scale, &shift].map(Values::new) else {
            let (output, mean, variance) = Self::burn_batch_norm_train(input, scale, shift, epsilon);
            return (Self::kernel_activated(output, activation), mean, variance);
        };
        let pass = norm_pass(&input, epsilon, activation);
        let (output, mean, variance) = pass.forward(x.get(), factor.get(), summand.get());
        let statistic = |values| tensor(values, [pass.channels]);
        (tensor(output, input.shape()), statistic(mean), statistic(variance))
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
        match [&input, &scale, &shift, &mean, &variance].map(Values::new) {
            [Some(x), Some(a), Some(b), Some(m), Some(v)] => {
                let params = BatchNormParams { scale: a.get(), shift: b.get(), mean: m.get(), variance: v.get() };
                tensor(norm_pass(&input, epsilon, activation).apply(x.get(), params), input.shape())
            }
            _ => {
                let output = Self::burn_batch_norm(input, BatchNorm { scale, shift, mean, variance, epsilon });
                Self::kernel_activated(output, activation)
            }
        }
    }

    fn kernel_add_relu(a: FlexTensor, b: FlexTensor) -> FlexTensor {
        let _timer = timer(Part::Forward, "sum, ReLU", None);
        match (Values::new(&a), Values::new(&b)) {
            (Some(x), Some(y)) if a.shape() == b.shape() => tensor(add_relu(isa(), x.get(), y.get()), a.shape()),
            _ => Self::burn_add_relu(a, b),
        }
    }

    fn kernel_max_pool2d(input: FlexTensor, options: MaxPoolOptions<2>) -> FlexTensor {
        Self::kernel_max_pool2d_with_indices(input, options).0
    }

    fn kernel_average_pool2d(input: FlexTensor, shape: PoolShape) -> FlexTensor {
        let _timer = timer(Part::Forward, "AvgPool2d", None);
        match (Values::new(&input), average_pool_pass(&input.shape(), &shape)) {
            (Some(x), Some(pass)) => {
                let ([batch, channels, ..], [height, width]) = (input.shape().dims::<4>(), pass.output());
                tensor(pass.forward(x.get()), [batch, channels, height, width])
            }
            _ => Self::burn_average_pool2d(input, shape),
        }
    }

    fn kernel_scale(input: FlexTensor, factors: FlexTensor) -> FlexTensor {
        let _timer = timer(Part::Forward, "scale", Some(&factors));
        let (x, f) = (Values::single(&input), Values::single(&factors));
        tensor(scale_pass(&input).forward(x.get(), f.get()), input.shape())
    }

    fn kernel_layer_norm(input: FlexTensor, scale: FlexTensor, shift: FlexTensor, epsilon: f64) -> FlexTensor {
        let _timer = timer(Part::Forward, "LayerNorm2d", Some(&scale));
        let [x, a, b] = [&input, &scale, &shift].map(Values::single);
        tensor(layer_norm_pass(&input, epsilon).forward(x.get(), a.get(), b.get()), input.shape())
    }

    fn kernel_activation(input: FlexTensor, function: Activation) -> FlexTensor {
        let _timer = timer(Part::Forward, function.kind(), None);
        let x = Values::single(&input);
        tensor(activation(isa(), function, x.get()), input.shape())
    }

    fn kernel_linear(input: FlexTensor, weight: FlexTensor, bias: FlexTensor) -> FlexTensor {
        let _timer = timer(Part::Forward, "Linear", Some(&weight));
        match [&input, &weight, &bias].map(Values::new) {
            [Some(x), Some(w), Some(b)] => {
                let ([batch, inputs], [outputs, _]) = (input.shape().dims(), weight.shape().dims());
                let pass = LinearPass { isa: isa(), batch, inputs, outputs };
                tensor(pass.forward(x.get(), w.get(), b.get()), [batch, outputs])
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
                rule.step(isa(), values_mut(&mut param), values_mut(&mut velocity), g.get());
                (param, velocity)
            }
            _ => Self::burn_sgd_step(param, velocity, gradient, rule),
        }
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
        match (Values::new(&weight), Values::new(&gradient), conv_pass(&input, &weight, &options)) {
            (Some(w), Some(g), Some(pass)) => tensor(pass.backward_input(g.get(), w.get()), input.shape()),
            _ => Self::conv2d_x_backward(input, weight, gradient, options),
        }
    }

    fn kernel_conv2d_weight_backward(
        input: FlexTensor,
        weight: FlexTensor,
        gradient: FlexTensor,
        options: ConvOptions<2>,
    ) -> FlexTensor {
        let _timer = timer(Part::WeightGradient, "Conv2d", Some(&weight));
        match (Values::new(&input), Values::new(&gradient), conv_pass(&input, &weight, &options)) {
            (Some(x), Some(g), Some(pass)) => tensor(pass.backward_weight(x.get(), g.get()), weight.shape()),
            _ => Self::conv2d_weight_backward(input, weight, gradient, options),
        }
    }

    fn kernel_conv2d_bias_backward(input: FlexTensor, bias: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        let _timer = timer(Part::WeightGradient, "Conv2d", Some(&bias));
        let [_, channels, height, width] = gradient.shape().dims();
        match Values::new(&gradient) {
            Some(g) => tensor(channel_sums(isa(), g.get(), channels, height * width), bias.shape()),
            None => Self::conv2d_bias_backward(input, bias, gradient),
        }
    }

    fn kernel_linear_x_backward(weight: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        let _timer = timer(Part::InputGradient, "Linear", Some(&weight));
        match (Values::new(&weight), Values::new(&gradient)) {
            (Some(w), Some(g)) => {
                let ([batch, outputs], [_, inputs]) = (gradient.shape().dims(), weight.shape().dims());
                let pass = LinearPass { isa: isa(), batch, inputs, outputs };
                tensor(pass.backward_input(g.get(), w.get()), [batch, inputs])
            }
            _ => Self::burn_linear_x_backward(weight, gradient),
        }
    }

    fn kernel_linear_weight_backward(input: FlexTensor, weight: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        let _timer = timer(Part::WeightGradient, "Linear", Some(&weight));
        match (Values::new(&input), Values::new(&gradient)) {
            (Some(x), Some(g)) => {
                let ([batch, inputs], [_, outputs]) = (input.shape().dims(), gradient.shape().dims());
                let pass = LinearPass { isa: isa(), batch, inputs, outputs };
                tensor(pass.backward_weight(x.get(), g.get()), [outputs, inputs])
            }
            _ => Self::burn_linear_weight_backward(input, gradient),
        }
    }

    fn kernel_batch_norm_backward(
        input: FlexTensor,
        norm: BatchNorm<Self>,
        activation: Activation,
        gradient: FlexTensor,
    ) -> [FlexTensor; 3] {
        let _timer = timer(Part::InputGradient, "BatchNorm2d", Some(&norm.scale));
        let values = [&input, &norm.scale, &norm.shift, &norm.mean, &norm.variance].map(Values::new);
        let (DType::F32, [Some(x), Some(a), Some(b), Some(m), Some(v)]) = (gradient.dtype(), values) else {
            let gradient = match activation {
                Activation::Identity => gradient,
                function => {
                    let output = Self::burn_batch_norm(input.clone(), norm.clone());
                    let kept = if activation_keeps_output(function) {
                        Self::kernel_activation(output, function)
                    } else {
                        output
                    };
                    Self::kernel_activation_backward(kept, function, gradient)
                }
            };
            return Self::burn_batch_norm_backward(input, norm, gradient);
        };
        let params = BatchNormParams { scale: a.get(), shift: b.get(), mean: m.get(), variance: v.get() };
        let mut gradient = whole(gradient);
        let pass = norm_pass(&input, norm.epsilon, activation);
        let result = pass.backward(x.get(), params, values_mut(&mut gradient));
        [gradient, tensor(result.scale, norm.scale.shape()), tensor(result.shift, norm.shift.shape())]
    }

    fn kernel_add_relu_backward(output: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        let _timer = timer(Part::InputGradient, "sum, ReLU", None);
        match (Values::new(&output), Values::new(&gradient)) {
            (Some(y), Some(g)) => tensor(add_relu_backward(isa(), y.get(), g.get()), output.shape()),
            _ => Self::burn_add_relu_backward(output, gradient),
        }
    }

    fn kernel_max_pool2d_with_indices(input: FlexTensor, options: MaxPoolOptions<2>) -> (FlexTensor, FlexTensor) {
        let _timer = timer(Part::Forward, "MaxPool2d", None);
        let (Some(x), Some(pass)) = (Values::new(&input), max_pool_pass(&input, &options)) else {
            return Self::burn_max_pool2d_with_indices(input, options);
        };
        let ([batch, channels, ..], [height, width]) = (input.shape().dims::<4>(), pass.output());
        let shape = Shape::new([batch, channels, height, width]);
        let (output, indices) = pass.forward(x.get());
        let indices = FlexTensor::new(Bytes::from_elems(indices), Layout::contiguous(shape.clone()), DType::I32);
        (tensor(output, shape), indices)
    }

    fn kernel_max_pool2d_backward(
        input: FlexTensor,
        options: MaxPoolOptions<2>,
        indices: FlexTensor,
        gradient: FlexTensor,
    ) -> FlexTensor {
        let _timer = timer(Part::InputGradient, "MaxPool2d", None);
        match (Values::new(&gradient), indices.as_slice::<i32>(), max_pool_pass(&input, &options)) {
            (Some(g), Some(places), Some(pass)) => tensor(pass.backward(places, g.get()), input.shape()),
            _ => Self::burn_max_pool2d_backward(input, options, indices, gradient),
        }
    }

    fn kernel_average_pool2d_backward(input: Shape, shape: PoolShape, gradient: FlexTensor) -> FlexTensor {
        let _timer = timer(Part::InputGradient, "AvgPool2d", None);
        match (Values::new(&gradient), average_pool_pass(&input, &shape)) {
            (Some(g), Some(pass)) => tensor(pass.backward(g.get()), input),
            _ => Self::burn_average_pool2d_backward(input, shape, gradient),
        }
    }

    fn kernel_scale_x_backward(factors: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        let _timer = timer(Part::InputGradient, "scale", Some(&factors));
        let (g, f) = (Values::single(&gradient), Values::single(&factors));
        tensor(scale_pass(&gradient).forward(g.get(), f.get()), gradient.shape())
    }

    fn kernel_scale_factors_backward(input: FlexTensor, factors: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        let _timer = timer(Part::WeightGradient, "scale", Some(&factors));
        let (x, g, shape) = (Values::single(&input), Values::single(&gradient), factors.shape());
        tensor(scale_pass(&input).backward_factors(x.get(), g.get(), shape.num_elements()), shape)
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
        [tensor(result.input, input.shape()), of_channels(result.scale), of_channels(result.shift)]
    }

    fn kernel_activation_backward(kept: FlexTensor, function: Activation, gradient: FlexTensor) -> FlexTensor {
        let _timer = timer(Part::InputGradient, function.kind(), None);
        let (x, g) = (Values::single(&kept), Values::single(&gradient));
        tensor(activation_backward(isa(), function, x.get(), g.get()), kept.shape())
    }
}
