//! The kernels of this project that run on GPUs, against their definitions in Burn's own operations on flex.

use burn::tensor::{Device, FloatDType, Tensor};
use convzoo::device;
use convzoo_kernels::elementwise::Activation;
use convzoo_kernels::extension::{add_relu, batch_norm_train};

use crate::common::values;
use crate::relative;

const EPSILON: f64 = 1e-5;

/// The GPUs that are compiled in and present, by name.
fn gpus() -> Vec<(&'static str, Device)> {
    let open = |name| match device::open(name) {
        Ok(device) => Some((name, device)),
        Err(reason) => {
            eprintln!("skipped: {reason}");
            None
        }
    };
    ["wgpu", "cuda"].into_iter().filter_map(open).collect()
}

/// The values on a device.
fn on<const D: usize>(values: &Tensor<D>, device: &Device) -> Tensor<D> {
    Tensor::from_data(values.to_data(), device)
}

/// How the values of feature maps lie in memory.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Order {
    ChannelsFirst,
    ChannelsLast,
    /// With gaps.
    Sliced,
}

/// The same values, `[batch, channels, height, width]`, in this order on this device.
fn place(given: &Tensor<4>, order: Order, device: &Device, dtype: FloatDType) -> Tensor<4> {
    let values = on(given, device).cast(dtype);
    match order {
        Order::ChannelsFirst => values,
        Order::ChannelsLast => on(&given.clone().permute([0, 2, 3, 1]), device).cast(dtype).permute([0, 3, 1, 2]),
        Order::Sliced => {
            let [batch, channels, height, width] = values.dims();
            let wider = Tensor::cat(vec![values.clone(), values], 3);
            wider.slice([0..batch, 0..channels, 0..height, 0..width])
        }
    }
}

/// Values around a mean that depend on the name alone.
fn noise<const D: usize>(name: &str, shape: [usize; D], mean: f64) -> Tensor<D> {
    Tensor::from_data(values(&format!("input.{name}"), &shape, 1.0), &Device::flex()).add_scalar(mean)
}

/// What a batch norm with an activation is asked, on flex.
struct Case {
    input: Tensor<4>,
    scale: Tensor<1>,
    shift: Tensor<1>,
    /// Of the output.
    gradient: Tensor<4>,
    relu: bool,
}

/// Output, mean, variance, the gradients of input, scale and shift, and the output as the backward pass finds it.
type Results = [Vec<f32>; 7];

const NAMES: [&str; 7] =
    ["output", "mean", "variance", "gradient of the input", "of the scale", "of the shift", "output, backward"];

impl Case {
    fn new([batch, channels, height, width]: [usize; 4], mean: f64, relu: bool) -> Self {
        let maps = [batch, channels, height, width];
        Self {
            input: noise("maps", maps, mean),
            scale: noise("scale", [channels], 1.0),
            shift: noise("shift", [channels], 0.0),
            gradient: noise("gradient", maps, 0.5),
            relu,
        }
    }

    /// As if it had been given in this type.
    fn rounded(mut self, dtype: FloatDType) -> Self {
        fn round<const D: usize>(values: Tensor<D>, dtype: FloatDType) -> Tensor<D> {
            values.cast(dtype).cast(FloatDType::F32)
        }
        self.input = round(self.input, dtype);
        self.gradient = round(self.gradient, dtype);
        (self.scale, self.shift) = (round(self.scale, dtype), round(self.shift, dtype));
        self
    }

    /// In Burn's own operations.
    fn definition(&self) -> Results {
        let flex = Device::flex().autodiff();
        let leaf = |values: &Tensor<1>| on(values, &flex).require_grad();
        let (input, scale, shift) = (on(&self.input, &flex).require_grad(), leaf(&self.scale), leaf(&self.shift));
        let mean_of = |maps: Tensor<4>| maps.mean_dim(0).mean_dim(2).mean_dim(3);
        let of_channels = |values: &Tensor<1>| values.clone().unsqueeze_dims::<4>(&[0, 2, 3]);
        let mean = mean_of(input.clone());
        let distance = input.clone() - mean.clone();
        let variance = mean_of(distance.clone().square());
        let output = distance / variance.clone().add_scalar(EPSILON).sqrt() * of_channels(&scale) + of_channels(&shift);
        let output = if self.relu { burn::tensor::activation::relu(output) } else { output };
        let [_, channels, ..] = input.dims();
        let statistics = [mean, variance].map(|values| values.reshape([channels]));
        self.results(output, statistics, input, [scale, shift])
    }

    /// In this project's operation, on maps and parameters of these types.
    fn found(&self, device: &Device, order: Order, [dtype, of_parameters]: [FloatDType; 2]) -> Results {
        let place = |maps: &Tensor<4>| place(maps, order, device, dtype);
        let leaf = |values: &Tensor<1>| on(values, device).cast(of_parameters).require_grad();
        let (input, scale, shift) = (place(&self.input).require_grad(), leaf(&self.scale), leaf(&self.shift));
        let function = if self.relu { Activation::Relu } else { Activation::Identity };
        let result = batch_norm_train(input.clone(), scale.clone(), shift.clone(), EPSILON, function);
        self.results(result.output, [result.mean, result.variance], input, [scale, shift])
    }

    fn results(
        &self,
        output: Tensor<4>,
        [mean, variance]: [Tensor<1>; 2],
        input: Tensor<4>,
        [scale, shift]: [Tensor<1>; 2],
    ) -> Results {
        // The gradient of a product is the other factor.
        let gradient = on(&self.gradient, &output.device()).cast(output.dtype()).require_grad();
        let gradients = (output.clone() * gradient.clone()).sum().backward();
        [
            output.try_into_vec_as().unwrap(),
            mean.try_into_vec_as().unwrap(),
            variance.try_into_vec_as().unwrap(),
            input.grad(&gradients).unwrap().try_into_vec_as().unwrap(),
            scale.grad(&gradients).unwrap().try_into_vec_as().unwrap(),
            shift.grad(&gradients).unwrap().try_into_vec_as().unwrap(),
            gradient.grad(&gradients).unwrap().try_into_vec_as().unwrap(),
        ]
    }
}

/// Fails unless each differs by less than its tolerance, relative.
fn assert_close(what: &str, found: &Results, expected: &Results, tolerances: [f64; 7]) {
    for (((name, found), expected), tolerance) in NAMES.iter().zip(found).zip(expected).zip(tolerances) {
        let size = expected.iter().map(|value| value.abs()).fold(0.0, f32::max);
        if size < 1e-6 {
            let largest = found.iter().map(|value| value.abs()).fold(0.0, f32::max);
            assert!(largest < 1e-4, "{what}: {name} is {largest:.1e} instead of nothing");
            continue;
        }
        let difference = relative(found, expected);
        assert!(difference < tolerance, "{what}: {name} differs by {difference:.1e}, above {tolerance:.1e}");
    }
}

#[test]
fn a_batch_norm_and_its_gradients_are_their_definition() {
    let shapes = [[2, 3, 5, 7], [1, 1, 9, 1], [3, 33, 1, 1], [4, 64, 8, 8], [2, 5, 40, 41], [9, 130, 2, 3]];
    for (name, device) in gpus() {
        let device = device.autodiff();
        // Without ReLU too for one shape, of the size that needs several cubes for a channel.
        for (shape, relu) in shapes.into_iter().map(|shape| (shape, true)).chain([(shapes[4], false)]) {
            let case = Case::new(shape, 0.3, relu);
            let expected = case.definition();
            for order in [Order::ChannelsFirst, Order::ChannelsLast, Order::Sliced] {
                let what = format!("{shape:?}, {order:?}, ReLU {relu}, on {name}");
                assert_close(&what, &case.found(&device, order, [FloatDType::F32; 2]), &expected, [1e-5; 7]);
            }
        }
    }
}

#[test]
fn a_batch_norm_of_values_far_from_zero_does_not_cancel() {
    for (name, device) in gpus() {
        let case = Case::new([4, 8, 16, 16], 300.0, true);
        // The input itself is known to a ten-thousandth of its deviation.
        let tolerances = [1e-4, 1e-6, 1e-4, 1e-2, 1e-3, 1e-3, 1e-4];
        let found = case.found(&device.autodiff(), Order::ChannelsFirst, [FloatDType::F32; 2]);
        assert_close(&format!("on {name}"), &found, &case.definition(), tolerances);
    }
}

#[test]
fn a_batch_norm_in_half_precision_rounds_its_output_alone() {
    for (name, device) in gpus() {
        for (dtype, rounding) in [(FloatDType::F16, 1e-3), (FloatDType::BF16, 8e-3)] {
            if !device.supports_dtype(dtype) {
                eprintln!("skipped: {name} has no {dtype:?} here");
                continue;
            }
            let case = Case::new([4, 24, 9, 9], 0.3, true).rounded(dtype);
            // Parameters are of 32 bits in mixed precision.
            for (order, of_parameters) in [(Order::ChannelsFirst, dtype), (Order::ChannelsLast, FloatDType::F32)] {
                let found = case.found(&device.clone().autodiff(), order, [dtype, of_parameters]);
                assert_close(
                    &format!("{dtype:?}, {order:?}, {of_parameters:?}, on {name}"),
                    &found,
                    &case.definition(),
                    [rounding; 7],
                );
            }
        }
    }
}

#[test]
fn a_batch_norm_is_made_again_where_memory_is_saved() {
    for (name, device) in gpus() {
        let case = Case::new([2, 6, 5, 5], 0.3, true);
        let device = device.autodiff().gradient_checkpointing();
        let found = case.found(&device, Order::ChannelsLast, [FloatDType::F32; 2]);
        assert_close(&format!("on {name}"), &found, &case.definition(), [1e-5; 7]);
    }
}

#[test]
fn a_sum_with_relu_passes_gradients_where_it_is_positive() {
    let shape = [3, 5, 7, 6];
    let [a, b, gradient] = [("a", 0.0), ("b", 0.2), ("gradient", 0.5)].map(|(name, mean)| noise(name, shape, mean));
    let results = |device: &Device, orders: [Order; 2], sum: fn(Tensor<4>, Tensor<4>) -> Tensor<4>| {
        let [a, b] = [(&a, orders[0]), (&b, orders[1])]
            .map(|(values, order)| place(values, order, device, FloatDType::F32).require_grad());
        let output = sum(a.clone(), b.clone());
        let gradients = (output.clone() * on(&gradient, device)).sum().backward();
        [output, a.grad(&gradients).unwrap(), b.grad(&gradients).unwrap()]
            .map(|values| values.try_into_vec_as::<f32>().unwrap())
    };
    let flex = Device::flex().autodiff();
    let expected = results(&flex, [Order::ChannelsFirst; 2], |a, b| burn::tensor::activation::relu(a + b));
    for (name, device) in gpus() {
        let device = device.autodiff();
        for orders in [[Order::ChannelsFirst; 2], [Order::ChannelsLast, Order::ChannelsFirst], [Order::Sliced; 2]] {
            assert_eq!(results(&device, orders, add_relu), expected, "{orders:?} on {name}");
        }
    }
}
