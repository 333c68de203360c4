//! Backward.

use burn::backend::ops::{FloatTensorOps, ModuleOps};
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::ops::{ConvOptions, MaxPoolOptions};
use burn::tensor::{Bytes, DType, Shape, Slice};
use burn_flex::{FlexTensor, Layout};
use half::bf16;

use super::{Activations, Values, cast, isa, tensor, tensor_like, whole, with_numbers};
use super::{average_pool_pass, conv_pass, layer_norm_pass, max_pool_pass, norm_pass, scale_pass};
use crate::elementwise::Activation;
use crate::extension::burn_ops::{BatchNorm, BurnOps};
use crate::extension::fused_ops::FusedGradients;
use crate::extension::has_kernels;
use crate::extension::kernel_ops::{KernelGradients, KernelOps};
use crate::extension::trace::{Part, timer};
use crate::planar::{
    BatchNormParams, LinearPass, activation_backward, activation_keeps_output, add_relu_backward, channel_sums, concat,
    split,
};
use crate::pool::PoolShape;

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
        if has_kernels(gradient.dtype()) && bias.dtype() == DType::F32 {
            let g = Values::single(&gradient);
            return tensor(channel_sums(isa(), g.get(), channels, height * width), bias.shape());
        }
        let (numbers, of_bias) = (input.dtype(), bias.dtype());
        cast(Self::conv2d_bias_backward(input, cast(bias, numbers), gradient), of_bias)
    }

    fn kernel_linear_x_backward(weight: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        let _timer = timer(Part::InputGradient, "Linear", Some(&weight));
        match Values::new(&weight).filter(|_| has_kernels(gradient.dtype())) {
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
        if has_kernels(input.dtype()) && has_kernels(gradient.dtype()) {
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
        let pooled = max_pool_pass(&input, &options).and_then(|pass| {
            let ([batch, channels, ..], [height, width]) = (input.shape().dims::<4>(), pass.output());
            let shape = Shape::new([batch, channels, height, width]);
            with_numbers!(input, |N| Values::<N>::new(&input).map(|x| {
                let (output, indices) = pass.forward(x.get());
                let layout = Layout::contiguous(shape.clone());
                (tensor(output, shape), FlexTensor::new(Bytes::from_elems(indices), layout, DType::I32))
            }))
        });
        pooled.unwrap_or_else(|| Self::burn_max_pool2d_with_indices(input, options))
    }

    fn kernel_max_pool2d_backward(
        input: FlexTensor,
        options: MaxPoolOptions<2>,
        indices: FlexTensor,
        gradient: FlexTensor,
    ) -> FlexTensor {
        let _timer = timer(Part::InputGradient, "MaxPool2d", None);
        let of_input = indices.as_slice::<i32>().zip(max_pool_pass(&input, &options)).and_then(|(places, pass)| {
            with_numbers!(gradient, |N| {
                let g = Values::<N>::new(&gradient)?;
                Some(tensor(pass.backward(places, g.get()), input.shape()))
            })
        });
        of_input.unwrap_or_else(|| Self::burn_max_pool2d_backward(input, options, indices, gradient))
    }

    fn kernel_average_pool2d_backward(input: Shape, shape: PoolShape, gradient: FlexTensor) -> FlexTensor {
        let _timer = timer(Part::InputGradient, "AvgPool2d", None);
        match average_pool_pass(&input, &shape).filter(|_| has_kernels(gradient.dtype())) {
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
