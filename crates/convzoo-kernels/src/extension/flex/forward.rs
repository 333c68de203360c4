//! Forward.

use burn::backend::ops::{FloatTensorOps, ModuleOps};
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::DType;
use burn::tensor::ops::{ConvOptions, MaxPoolOptions};
use burn_flex::FlexTensor;
use half::bf16;

use super::{Activations, Values, cast, isa, tensor, tensor_like, whole, with_numbers};
use super::{average_pool_pass, conv_pass, layer_norm_pass, norm_pass, scale_pass};
use crate::elementwise::Activation;
use crate::extension::burn_ops::{BatchNorm, BurnOps};
use crate::extension::fused_ops::FusedOps;
use crate::extension::has_kernels;
use crate::extension::kernel_ops::{KernelGradients, KernelOps};
use crate::extension::trace::{Part, timer};
use crate::planar::{BatchNormParams, ChannelAffine, LinearPass, SgdStep, activation, add, add_relu};
use crate::pool::PoolShape;

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
        match average_pool_pass(&input.shape(), &shape).filter(|_| has_kernels(input.dtype())) {
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
            [Some(w), Some(b)] if has_kernels(input.dtype()) => {
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
