use burn::backend::ops::conv::calculate_pool_output_size;
use burn::backend::ops::{ActivationOps, FloatTensorOps, ModuleOps};
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::ops::{ConvOptions, MaxPoolOptions};
use burn::tensor::{Bytes, DType, IntDType, Shape};
use burn_flex::{FlexTensor, Layout};

use super::compose;
use super::operations::{Gradients, Normalisation, Operations};
use crate::Isa;
use crate::conv::ConvShape;
use crate::elementwise::Activation;
use crate::pool::PoolShape;
use crate::train::{
    AveragePass, ConvPass, Descent, Epilogue, LinearPass, MaxPoolPass, NormParams, NormPass, add_relu,
    add_relu_backward, sigmoid, sigmoid_backward, tanh, tanh_backward,
};

/// A tensor's values in their usual order.
pub(super) struct Values(FlexTensor);

impl Values {
    /// None unless they are `f32`.
    pub fn new(tensor: &FlexTensor) -> Option<Self> {
        (tensor.dtype() == DType::F32).then(|| Self(tensor.to_contiguous()))
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

/// The tensor with its values in their usual order.
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
fn pass(input: &FlexTensor, weight: &FlexTensor, options: &ConvOptions<2>) -> Option<ConvPass> {
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

/// The layer of `[batch, inputs]` by a weight `[outputs, inputs]`.
fn linear_pass(input: &FlexTensor, weight: &FlexTensor) -> LinearPass {
    let ([batch, inputs], [outputs, _]) = (input.shape().dims(), weight.shape().dims());
    LinearPass { isa: isa(), batch, inputs, outputs }
}

fn norm_pass(input: &FlexTensor, epsilon: f64, relu: bool) -> NormPass {
    let [batch, channels, height, width] = input.shape().dims();
    NormPass { isa: isa(), batch, channels, plane: height * width, epsilon, relu }
}

fn pool_pass(input: &FlexTensor, options: &MaxPoolOptions<2>) -> MaxPoolPass {
    let [batch, channels, height, width] = input.shape().dims();
    let (kernel, stride, padding) = (options.kernel_size, options.stride, options.padding.map(|(begin, _)| begin));
    let cells =
        |i: usize, size| calculate_pool_output_size(kernel[i], stride[i], padding[i], 1, size, options.ceil_mode);
    MaxPoolPass {
        isa: isa(),
        planes: batch * channels,
        input: [height, width],
        output: [cells(0, height), cells(1, width)],
        kernel,
        stride,
        padding,
    }
}

impl Operations for Flex {
    fn convolve(input: FlexTensor, weight: FlexTensor, options: ConvOptions<2>) -> FlexTensor {
        match (Values::new(&input), Values::new(&weight), pass(&input, &weight, &options)) {
            (Some(x), Some(w), Some(pass)) => {
                tensor(pass.forward(x.get(), w.get(), Epilogue::default()), pass.output_shape())
            }
            _ => Self::conv2d(input, weight, None, options),
        }
    }

    fn convolve_biased(input: FlexTensor, weight: FlexTensor, bias: FlexTensor, options: ConvOptions<2>) -> FlexTensor {
        let values = [&input, &weight, &bias].map(Values::new);
        match (values, pass(&input, &weight, &options)) {
            ([Some(x), Some(w), Some(b)], Some(pass)) => {
                let epilogue = Epilogue { shift: Some(b.get()), ..Epilogue::default() };
                tensor(pass.forward(x.get(), w.get(), epilogue), pass.output_shape())
            }
            _ => Self::conv2d(input, weight, Some(bias), options),
        }
    }

    fn convolve_affine(
        input: FlexTensor,
        weight: FlexTensor,
        scale: FlexTensor,
        shift: FlexTensor,
        relu: bool,
        options: ConvOptions<2>,
    ) -> FlexTensor {
        if let (Some(x), Some(w), Some(factor), Some(summand), Some(pass)) = (
            Values::new(&input),
            Values::new(&weight),
            Values::new(&scale),
            Values::new(&shift),
            pass(&input, &weight, &options),
        ) {
            let epilogue = Epilogue { scale: Some(factor.get()), shift: Some(summand.get()), relu };
            return tensor(pass.forward(x.get(), w.get(), epilogue), pass.output_shape());
        }
        let shape = Shape::new([1, scale.shape().num_elements(), 1, 1]);
        let output = Self::conv2d(input, weight, None, options);
        let output = Self::float_mul(output, Self::float_reshape(scale, shape.clone()));
        let output = Self::float_add(output, Self::float_reshape(shift, shape));
        if relu { Self::relu(output) } else { output }
    }

    fn normalise(
        input: FlexTensor,
        scale: FlexTensor,
        shift: FlexTensor,
        epsilon: f64,
        relu: bool,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let (Some(x), Some(factor), Some(summand)) = (Values::new(&input), Values::new(&scale), Values::new(&shift))
        else {
            let result = Self::batch_norm_train(input, scale, shift, epsilon);
            let output = if relu { Self::relu(result.output) } else { result.output };
            return (output, result.mean, result.variance);
        };
        let pass = norm_pass(&input, epsilon, relu);
        let (output, mean, variance) = pass.forward(x.get(), factor.get(), summand.get());
        let statistic = |values| tensor(values, [pass.channels]);
        (tensor(output, input.shape()), statistic(mean), statistic(variance))
    }

    fn normalise_by(
        input: FlexTensor,
        scale: FlexTensor,
        shift: FlexTensor,
        mean: FlexTensor,
        variance: FlexTensor,
        epsilon: f64,
        relu: bool,
    ) -> FlexTensor {
        match (Values::new(&input), [&scale, &shift, &mean, &variance].map(Values::new)) {
            (Some(x), [Some(a), Some(b), Some(m), Some(v)]) => {
                let params = NormParams { scale: a.get(), shift: b.get(), mean: m.get(), variance: v.get() };
                tensor(norm_pass(&input, epsilon, relu).apply(x.get(), params), input.shape())
            }
            _ => {
                let output = Self::batch_norm(input, scale, shift, mean, variance, epsilon);
                if relu { Self::relu(output) } else { output }
            }
        }
    }

    fn add_rectified(a: FlexTensor, b: FlexTensor) -> FlexTensor {
        match (Values::new(&a), Values::new(&b)) {
            (Some(x), Some(y)) if a.shape() == b.shape() => tensor(add_relu(isa(), x.get(), y.get()), a.shape()),
            _ => Self::relu(Self::float_add(a, b)),
        }
    }

    fn largest(input: FlexTensor, options: MaxPoolOptions<2>) -> FlexTensor {
        Self::largest_where(input, options).0
    }

    fn averaged(input: FlexTensor, shape: PoolShape) -> FlexTensor {
        let [batch, channels, height, width] = input.shape().dims();
        let pass = AveragePass::new(isa(), &shape, batch * channels, [height, width]);
        match (Values::new(&input), pass, shape) {
            (Some(x), Ok(pass), _) => {
                let [height, width] = pass.output();
                tensor(pass.forward(x.get()), [batch, channels, height, width])
            }
            (_, _, PoolShape::Adaptive(size)) => Self::adaptive_avg_pool2d(input, size),
            (_, _, PoolShape::Sliding { kind, kernel, stride, padding, ceil }) => {
                Self::avg_pool2d(input, kernel, stride, padding, kind.counts_padding(), ceil)
            }
        }
    }

    fn squashed(input: FlexTensor, function: Activation) -> FlexTensor {
        match (Values::new(&input), function) {
            (Some(x), Activation::Sigmoid) => tensor(sigmoid(isa(), x.get()), input.shape()),
            (Some(x), _) => tensor(tanh(isa(), x.get()), input.shape()),
            (None, Activation::Sigmoid) => Self::sigmoid(input),
            (None, _) => Self::float_tanh(input),
        }
    }

    fn connect(input: FlexTensor, weight: FlexTensor, bias: FlexTensor) -> FlexTensor {
        match [&input, &weight, &bias].map(Values::new) {
            [Some(x), Some(w), Some(b)] => {
                let pass = linear_pass(&input, &weight);
                tensor(pass.forward(x.get(), w.get(), b.get()), [pass.batch, pass.outputs])
            }
            _ => Self::linear(input, Self::float_swap_dims(weight, 0, 1), Some(bias)),
        }
    }

    fn descend(
        param: FlexTensor,
        velocity: FlexTensor,
        gradient: FlexTensor,
        rule: Descent,
    ) -> (FlexTensor, FlexTensor) {
        let same = param.shape() == gradient.shape() && velocity.shape() == gradient.shape();
        match Values::new(&gradient) {
            Some(g) if same && [&param, &velocity].iter().all(|tensor| tensor.dtype() == DType::F32) => {
                let (mut param, mut velocity) = (whole(param), whole(velocity));
                rule.step(isa(), values_mut(&mut param), values_mut(&mut velocity), g.get());
                (param, velocity)
            }
            _ => compose::<Self>(param, velocity, gradient, rule),
        }
    }
}

impl Gradients for Flex {
    fn convolve_input(
        input: FlexTensor,
        weight: FlexTensor,
        gradient: FlexTensor,
        options: ConvOptions<2>,
    ) -> FlexTensor {
        match (Values::new(&weight), Values::new(&gradient), pass(&input, &weight, &options)) {
            (Some(w), Some(g), Some(pass)) => tensor(pass.backward_input(g.get(), w.get()), input.shape()),
            _ => Self::conv2d_x_backward(input, weight, gradient, options),
        }
    }

    fn convolve_weight(
        input: FlexTensor,
        weight: FlexTensor,
        gradient: FlexTensor,
        options: ConvOptions<2>,
    ) -> FlexTensor {
        match (Values::new(&input), Values::new(&gradient), pass(&input, &weight, &options)) {
            (Some(x), Some(g), Some(pass)) => tensor(pass.backward_weight(x.get(), g.get()), weight.shape()),
            _ => Self::conv2d_weight_backward(input, weight, gradient, options),
        }
    }

    fn convolve_bias(input: FlexTensor, bias: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        let [_, channels, height, width] = gradient.shape().dims();
        match Values::new(&gradient) {
            Some(g) => tensor(crate::train::sums(isa(), g.get(), channels, height * width), bias.shape()),
            None => Self::conv2d_bias_backward(input, bias, gradient),
        }
    }

    fn connect_input(weight: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        match (Values::new(&weight), Values::new(&gradient)) {
            (Some(w), Some(g)) => {
                let ([batch, outputs], [_, inputs]) = (gradient.shape().dims(), weight.shape().dims());
                let pass = LinearPass { isa: isa(), batch, inputs, outputs };
                tensor(pass.backward_input(g.get(), w.get()), [batch, inputs])
            }
            _ => Self::float_matmul(gradient, weight),
        }
    }

    fn connect_weight(input: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        match (Values::new(&input), Values::new(&gradient)) {
            (Some(x), Some(g)) => {
                let ([batch, inputs], [_, outputs]) = (input.shape().dims(), gradient.shape().dims());
                let pass = LinearPass { isa: isa(), batch, inputs, outputs };
                tensor(pass.backward_weight(x.get(), g.get()), [outputs, inputs])
            }
            // In the weight's own order, which the optimizer goes through in step with it.
            _ => Self::float_matmul(Self::float_swap_dims(gradient, 0, 1), input),
        }
    }

    fn normalise_backward(
        input: FlexTensor,
        normalisation: Normalisation<Self>,
        gradient: FlexTensor,
    ) -> [FlexTensor; 3] {
        let Normalisation { scale, shift, mean, variance, epsilon, relu } = normalisation;
        let values = [&scale, &shift, &mean, &variance].map(Values::new);
        let (Some(x), DType::F32, [Some(a), Some(b), Some(m), Some(v)]) =
            (Values::new(&input), gradient.dtype(), values)
        else {
            let gradient = match relu {
                true => {
                    let statistics = (mean.clone(), variance.clone());
                    let (x, a) = (input.clone(), scale.clone());
                    let output = Self::normalise_by(x, a, shift, statistics.0, statistics.1, epsilon, false);
                    Self::relu_backward(output, gradient)
                }
                false => gradient,
            };
            let result = Self::batch_norm_train_backward(input, scale, mean, variance, epsilon, gradient);
            return [result.x_grad, result.gamma_grad, result.beta_grad];
        };
        let params = NormParams { scale: a.get(), shift: b.get(), mean: m.get(), variance: v.get() };
        let mut gradient = whole(gradient);
        let result = norm_pass(&input, epsilon, relu).backward(x.get(), params, values_mut(&mut gradient));
        [gradient, tensor(result.scale, scale.shape()), tensor(result.shift, shift.shape())]
    }

    fn add_rectified_backward(output: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        match (Values::new(&output), Values::new(&gradient)) {
            (Some(y), Some(g)) => tensor(add_relu_backward(isa(), y.get(), g.get()), output.shape()),
            _ => Self::relu_backward(output, gradient),
        }
    }

    fn largest_where(input: FlexTensor, options: MaxPoolOptions<2>) -> (FlexTensor, FlexTensor) {
        let pass = pool_pass(&input, &options);
        let Some(x) = Values::new(&input) else {
            let MaxPoolPass { kernel, stride, padding, .. } = pass;
            let ceil_mode = options.ceil_mode;
            let result =
                Self::max_pool2d_with_indices(input, kernel, stride, padding, [1, 1], ceil_mode, IntDType::I32);
            return (result.output, result.indices);
        };
        let [batch, channels, ..] = input.shape().dims::<4>();
        let shape = Shape::new([batch, channels, pass.output[0], pass.output[1]]);
        let (output, indices) = pass.forward(x.get());
        let indices = FlexTensor::new(Bytes::from_elems(indices), Layout::contiguous(shape.clone()), DType::I32);
        (tensor(output, shape), indices)
    }

    fn largest_backward(
        input: FlexTensor,
        options: MaxPoolOptions<2>,
        indices: FlexTensor,
        gradient: FlexTensor,
    ) -> FlexTensor {
        let pass = pool_pass(&input, &options);
        match (Values::new(&gradient), indices.as_slice::<i32>()) {
            (Some(g), Some(places)) => tensor(pass.backward(places, g.get()), input.shape()),
            _ => {
                let MaxPoolPass { kernel, stride, padding, .. } = pass;
                let (dilation, ceil_mode) = (options.dilation, options.ceil_mode);
                let result = Self::max_pool2d_with_indices_backward(
                    input, kernel, stride, padding, dilation, ceil_mode, gradient, indices,
                );
                result.x_grad
            }
        }
    }

    fn averaged_backward(input: Shape, shape: PoolShape, gradient: FlexTensor) -> FlexTensor {
        let [batch, channels, height, width] = input.dims();
        let pass = AveragePass::new(isa(), &shape, batch * channels, [height, width]);
        if let (Some(g), Ok(pass)) = (Values::new(&gradient), pass) {
            return tensor(pass.backward(g.get()), input);
        }
        // Its values do not matter.
        let x = Self::float_zeros(input, &gradient.device(), gradient.dtype().into());
        match shape {
            PoolShape::Adaptive(_) => Self::adaptive_avg_pool2d_backward(x, gradient),
            PoolShape::Sliding { kind, kernel, stride, padding, ceil } => {
                Self::avg_pool2d_backward(x, gradient, kernel, stride, padding, kind.counts_padding(), ceil)
            }
        }
    }

    fn squashed_backward(output: FlexTensor, function: Activation, gradient: FlexTensor) -> FlexTensor {
        match (Values::new(&output), Values::new(&gradient), function) {
            (Some(y), Some(g), Activation::Sigmoid) => {
                tensor(sigmoid_backward(isa(), y.get(), g.get()), output.shape())
            }
            (Some(y), Some(g), _) => tensor(tanh_backward(isa(), y.get(), g.get()), output.shape()),
            (_, _, Activation::Sigmoid) => Self::sigmoid_backward(output, gradient),
            _ => {
                let square = Self::float_mul(output.clone(), output);
                Self::float_sub(gradient.clone(), Self::float_mul(gradient, square))
            }
        }
    }
}
