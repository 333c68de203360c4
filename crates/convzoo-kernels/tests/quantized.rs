//! Convolutions and networks of bytes, on every instruction set of this machine: each byte as the plain definition has it.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod common;

use std::collections::HashMap;
use std::sync::Arc;

use common::random;
use convzoo_graph::{QuantizedLayer, QuantizedValue};
use convzoo_kernels::conv::ConvShape;
use convzoo_kernels::elementwise::{Activation, ScaleShift};
use convzoo_kernels::engine::{CompiledNetwork, Graph, Scales};
use convzoo_kernels::linear::{Linear, LinearPrecision};
use convzoo_kernels::pool::{PoolKind, PoolShape};
use convzoo_kernels::quantized::conv::{ByteConv, ByteEpilogue};
use convzoo_kernels::quantized::pool::pool_bytes;
use convzoo_kernels::quantized::{ByteScale, Requantize, WeightScales, byte_layout, pack_bytes, unpack_bytes};
use convzoo_kernels::{Buffer, Isa, Layout, Operation};
use proptest::prelude::*;

/// Bytes that look like chance.
fn random_bytes(len: usize, seed: u64) -> Vec<u8> {
    random(len, seed).into_iter().map(|x| (x.to_bits() >> 7) as u8).collect()
}

/// What a convolution of bytes is tried with.
#[derive(Clone, Debug)]
struct Case {
    shape: ConvShape,
    batch: usize,
    size: [usize; 2],
    zero: u8,
    halo: usize,
    sum: bool,
    /// The output's zero point; without one it is floats.
    bytes: Option<u8>,
    /// Whether the input is in blocks of four channels.
    images: bool,
    threads: usize,
    seed: u64,
}

/// The sums of a convolution, by definition.
fn sums(case: &Case, input: &[u8], weight: &[i8]) -> Vec<i32> {
    let Case { shape, batch, size: [height, width], zero, .. } = case;
    let [inputs, outputs] = shape.channels;
    let [rows, columns] = shape.output(case.size).unwrap();
    let group = [inputs / shape.groups, outputs / shape.groups];
    let mut result = Vec::new();
    for at in 0..batch * outputs * rows * columns {
        let (n, o) = (at / (outputs * rows * columns), at / (rows * columns) % outputs);
        let (y, x) = (at / columns % rows, at % columns);
        let mut sum = 0;
        for tap in 0..group[0] * shape.kernel[0] * shape.kernel[1] {
            let (ky, kx) = (tap / shape.kernel[1] % shape.kernel[0], tap % shape.kernel[1]);
            let channel = o / group[1] * group[0] + tap / (shape.kernel[0] * shape.kernel[1]);
            let iy = (y * shape.stride[0] + ky * shape.dilation[0]).wrapping_sub(shape.padding[0]);
            let ix = (x * shape.stride[1] + kx * shape.dilation[1]).wrapping_sub(shape.padding[1]);
            if iy < *height && ix < *width {
                let byte = input[((n * inputs + channel) * height + iy) * width + ix];
                let weight = weight[o * group[0] * shape.kernel[0] * shape.kernel[1] + tap];
                sum += (i32::from(byte) - i32::from(*zero)) * i32::from(weight);
            }
        }
        result.push(sum);
    }
    result
}

/// A tensor of floats in NCHW order.
fn floats(tensor: &[f32], layout: &Layout) -> Vec<f32> {
    let Layout { batch, channels, height, width, lanes, .. } = *layout;
    let mut floats = Vec::new();
    for (n, c, y) in (0..batch * channels * height).map(|i| (i / height / channels, i / height % channels, i % height))
    {
        let row = layout.at(n, c / lanes, y) + c % lanes;
        floats.extend((0..width).map(|x| tensor[row + x * lanes]));
    }
    floats
}

/// Runs an operation's tasks on packed tensors.
fn run(operation: &dyn Operation, inputs: &[Buffer]) -> Buffer {
    let mut output = Buffer::zeros(operation.output().len());
    // What is not written shows.
    output.fill(f32::NAN);
    let pointers: Vec<*const u8> = inputs.iter().map(|input| input.as_ptr().cast()).collect();
    for task in 0..operation.tasks() {
        // SAFETY: the buffers have the layouts' lengths.
        #[allow(unsafe_code)]
        unsafe {
            operation.run(task, &pointers, output.as_mut_ptr().cast());
        }
    }
    output
}

fn check_conv(case: &Case) {
    let Case { shape, batch, size: [height, width], zero, halo, sum, bytes, images, threads, seed } = case.clone();
    let [inputs, outputs] = shape.channels;
    let [rows, columns] = shape.output(case.size).unwrap();
    let input = random_bytes(batch * inputs * height * width, seed);
    let weight: Vec<i8> =
        random_bytes(shape.weights(), seed + 1).into_iter().map(|byte| (byte as i8).max(-127)).collect();
    let added = random_bytes(batch * outputs * rows * columns, seed + 2);
    let taps = (shape.weights() / outputs) as f32;
    let requantize = Requantize {
        multiplier: random(outputs, seed + 3).into_iter().map(|x| x / taps.sqrt() / 60.0).collect(),
        offset: random(outputs, seed + 4).into_iter().map(|x| 128.0 + 40.0 * x).collect(),
        sum: 0.37,
        bounds: if bytes.is_some() { [f32::from(bytes.unwrap_or(0)), 255.0] } else { [0.0, 200.0] },
    };
    let expected = sums(case, &input, &weight);
    let added_to = |i: usize| sum.then(|| added[i]);
    let channel = |i: usize| i / (rows * columns) % outputs;

    for isa in Isa::available() {
        let from = match images {
            true => byte_layout([batch, inputs, height, width], 4, shape.padding[1] + halo),
            false => byte_layout([batch, inputs, height, width], isa.lanes(), shape.padding[1] + halo),
        };
        let to_shape = [batch, outputs, rows, columns];
        let to = match bytes {
            Some(_) => byte_layout(to_shape, isa.lanes(), halo),
            None => Layout::new(to_shape, isa.lanes(), halo),
        };
        let sum_layout = byte_layout(to_shape, isa.lanes(), 0);
        let epilogue = ByteEpilogue {
            sum: sum.then_some(sum_layout),
            requantize: Arc::new(requantize.clone()),
            bytes,
            activation: Activation::Identity,
        };
        let conv = ByteConv::new(isa, shape, &weight, images).unwrap();
        let operation = conv.operation((from, zero), to, epilogue, threads).unwrap();
        let mut tensors = vec![pack_bytes(&input, inputs, &from, zero)];
        tensors.extend(sum.then(|| pack_bytes(&added, outputs, &sum_layout, 7)));
        let output = run(&*operation, &tensors);
        match bytes {
            Some(own) => {
                let found = unpack_bytes(&output, outputs, &to);
                for (i, found) in found.iter().enumerate() {
                    assert_eq!(*found, requantize.byte(expected[i], channel(i), added_to(i)), "{isa}, number {i}");
                }
                // The halo is the zero point.
                for row in 0..rows {
                    let start = to.at(0, 0, row) - to.halo * to.lanes;
                    let halo = output[start..start + to.halo * to.lanes].iter().flat_map(|float| float.to_ne_bytes());
                    assert!(halo.into_iter().all(|byte| byte == own), "{isa}, the halo of row {row}");
                }
            }
            None => {
                let found = floats(&output, &to);
                for (i, found) in found.iter().enumerate() {
                    assert_eq!(*found, requantize.number(expected[i], channel(i), added_to(i)), "{isa}, number {i}");
                }
            }
        }
    }
}

fn case() -> impl Strategy<Value = Case> {
    let channels = (1usize..4, 1usize..20, 1usize..36, any::<bool>());
    let window = ([1usize..6, 1..6], [1usize..3, 1..3], [1usize..3, 1..3], [0usize..3, 0..3]);
    let rest = (
        1usize..3,
        [1usize..12, 1..20],
        any::<u8>(),
        0usize..2,
        any::<bool>(),
        any::<Option<u8>>(),
        1usize..3,
        0u64..999,
    );
    (channels, window, rest).prop_filter_map("the window fits", |(channels, window, rest)| {
        let (groups, inputs, outputs, depthwise) = channels;
        let (kernel, stride, dilation, padding) = window;
        let (batch, size, zero, halo, sum, bytes, threads, seed) = rest;
        let padding = [0, 1].map(|i| padding[i].min(kernel[i] / 2));
        let (channels, groups) = match depthwise {
            true => ([outputs; 2], outputs),
            false => ([groups * inputs, groups * outputs], groups),
        };
        let shape = ConvShape { channels, kernel, stride, padding, dilation, groups };
        let images = channels[0] <= 4 && seed % 2 == 0;
        shape.output(size).ok()?;
        Some(Case { shape, batch, size, zero, halo, sum, bytes, images, threads, seed })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn convolutions_have_the_bytes_of_the_definition(case in case()) {
        check_conv(&case);
    }
}

#[test]
fn pooling_has_the_bytes_of_the_definition() {
    let dims = [2, 19, 7, 9];
    let [batch, channels, height, width] = dims;
    let input = random_bytes(dims.iter().product(), 5);
    let (from, to) = (ByteScale { scale: 0.031, zero: 77 }, ByteScale { scale: 0.0123, zero: 130 });
    for (max, kernel, padding) in [(true, 3, 1), (false, 3, 1), (false, 2, 0)] {
        let kind = if max { PoolKind::Max } else { PoolKind::Average { count_include_pad: true } };
        let shape =
            PoolShape::Sliding { kind, kernel: [kernel; 2], stride: [2; 2], padding: [padding; 2], ceil: false };
        let [rows, columns] = shape.output([height, width]).unwrap();
        let scales = if max { [from; 2] } else { [from, to] };
        let ratio = (f64::from(scales[0].scale) / f64::from(scales[1].scale)) as f32;
        let expected = (0..batch * channels * rows * columns).map(|at| {
            let (plane, y, x) = (at / (rows * columns), at / columns % rows, at % columns);
            let inside = |start: usize, cells: usize| {
                (2 * start..2 * start + kernel).filter_map(move |i| i.checked_sub(padding).filter(|i| *i < cells))
            };
            let seen: Vec<u8> = inside(y, height)
                .flat_map(|iy| inside(x, width).map(move |ix| (iy, ix)))
                .map(|(iy, ix)| input[(plane * height + iy) * width + ix])
                .collect();
            if max {
                return seen.iter().copied().max().unwrap();
            }
            let sum = seen.iter().map(|byte| i32::from(*byte) - i32::from(scales[0].zero)).sum::<i32>() as f32;
            let t = sum * (ratio / (kernel * kernel) as f32) + f32::from(scales[1].zero);
            t.clamp(0.0, 255.0).round_ties_even() as u8
        });
        let expected: Vec<u8> = expected.collect();
        for isa in Isa::available() {
            let layout = byte_layout(dims, isa.lanes(), 1);
            let pooled = byte_layout([batch, channels, rows, columns], isa.lanes(), 1);
            let operation = pool_bytes(isa, &shape, scales, layout, pooled, 2).unwrap();
            let output = run(&*operation, &[pack_bytes(&input, channels, &layout, 9)]);
            assert_eq!(unpack_bytes(&output, channels, &pooled), expected, "{isa}, {shape:?}");
        }
    }
}

/// A network with every kind of operation that has bytes, and some that have none.
fn network(isa: Isa) -> CompiledNetwork {
    let mut graph = Graph::new(3);
    let mut seed = 10;
    let mut values = |len: usize, scale: f32| -> Vec<f32> {
        seed += 1;
        random(len, seed).into_iter().map(|x| x * scale).collect()
    };
    let mut label = 0;
    let mut labeled = |graph: &mut Graph, value| {
        label += 1;
        graph.label(value, label);
        value
    };
    macro_rules! conv {
        ($input:expr, $shape:expr) => {{
            let shape: ConvShape = $shape;
            let scale = 1.0 / ((shape.weights() / shape.channels[1]) as f32).sqrt();
            let (weight, bias) = (values(shape.weights(), scale), values(shape.channels[1], 0.1));
            let value = graph.conv($input, shape, weight, Some(bias)).unwrap();
            labeled(&mut graph, value)
        }};
    }
    let padded =
        |inputs, outputs, size: usize| ConvShape { padding: [size / 2; 2], ..ConvShape::square(inputs, outputs, size) };
    let images = graph.input();
    let stem = conv!(images, ConvShape { stride: [2; 2], ..padded(3, 16, 7) });
    let stem = graph.activation(stem, Activation::Relu);
    let pool = PoolShape::Sliding { kind: PoolKind::Max, kernel: [3; 2], stride: [2; 2], padding: [1; 2], ceil: false };
    let stem = graph.pool(stem, pool);
    // A residual block without a ReLU before its sum, then a gate, which has no bytes.
    let inner = conv!(stem, padded(16, 16, 3));
    let norm = ScaleShift { scale: values(16, 1.0), shift: values(16, 0.2) };
    let inner = graph.scale_shift(inner, norm);
    let inner = graph.activation(inner, Activation::Relu6);
    let inner = conv!(inner, ConvShape { groups: 16, ..padded(16, 16, 3) });
    let sum = graph.add(&[stem, inner]);
    let sum = graph.activation(sum, Activation::Relu);
    let curved = conv!(sum, padded(16, 16, 1));
    let curved = graph.activation(curved, Activation::Silu);
    let squeezed = graph.pool(curved, PoolShape::adaptive_average([1, 1]));
    let gate = conv!(squeezed, padded(16, 16, 1));
    let gate = graph.activation(gate, Activation::Hardsigmoid);
    let gated = graph.gate(curved, gate);
    // Parts that lie in their place and parts that do not; a chain of element-wise operations; a shuffle.
    let parts = [
        conv!(gated, padded(16, 32, 1)),
        conv!(sum, padded(16, 10, 3)),
        conv!(sum, ConvShape { groups: 2, ..padded(16, 12, 3) }),
    ];
    let joined = graph.concat(&parts);
    let norm = ScaleShift { scale: values(54, 1.0), shift: values(54, 0.2) };
    let joined = graph.scale_shift(joined, norm);
    let joined = graph.activation(joined, Activation::Relu);
    let shuffled = graph.channels(joined, (0..54).map(|c| c % 2 * 27 + c / 2));
    let head = conv!(shuffled, padded(54, 20, 1));
    let average = PoolShape::Sliding {
        kind: PoolKind::Average { count_include_pad: false },
        kernel: [2; 2],
        stride: [2; 2],
        padding: [0; 2],
        ceil: true,
    };
    let head = graph.pool(head, average);
    let flat = graph.flatten(head);
    let features = 20 * 4 * 4;
    let weight = values(12 * features, 0.1);
    let linear = Linear::new(weight, values(12, 0.1), features, LinearPrecision::Single).unwrap();
    let output = graph.linear(flat, linear);
    let output = labeled(&mut graph, output);
    graph.finish_for(output, isa).unwrap()
}

const IMAGES: [usize; 4] = [2, 3, 28, 28];

/// Scales for all weights and values, from the portable kernels' numbers.
fn scales() -> Scales {
    let floats = network(Isa::Portable);
    let mut ranges = vec![[0.0f32; 2]; floats.values().len()];
    let images = random(IMAGES.iter().product(), 3);
    let see = |value: usize, _, numbers: &[f32]| {
        let [low, high] = &mut ranges[value];
        numbers.iter().for_each(|x| (*low, *high) = (low.min(*x), high.max(*x)));
    };
    floats.observe(IMAGES, &images, see).unwrap();
    let mut scales = Scales::default();
    for (i, value) in floats.values().iter().enumerate() {
        if let (Some(weight), Some(label)) = (&value.weight, value.layers.first()) {
            scales.weights.insert(*label, WeightScales::of_largest(&weight.values, weight.outputs));
        }
        scales.values.insert(i, ByteScale::of_range(ranges[i][0], ranges[i][1]));
    }
    scales
}

#[test]
fn networks_have_the_same_bytes_on_every_instruction_set() {
    let (scales, images) = (scales(), random(IMAGES.iter().product(), 3));
    let expected = network(Isa::Portable).quantize(&scales).unwrap().run(IMAGES, &images).unwrap();
    for isa in Isa::available() {
        let found = network(isa).quantize(&scales).unwrap().run(IMAGES, &images).unwrap();
        // Curved activations, means and gates of floats are each instruction set's own; what follows is rounded again.
        for (i, (found, expected)) in found.values.iter().zip(&expected.values).enumerate() {
            assert!(
                (found - expected).abs() < 0.05,
                "{isa}, number {i}: {found}, the portable kernels give {expected}"
            );
        }
    }
    let floats = network(Isa::Portable).run(IMAGES, &images).unwrap();
    let square = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x * x)).sum::<f64>();
    let noise = square(&mut expected.values.iter().zip(&floats.values).map(|(a, b)| a - b));
    let signal = square(&mut floats.values.iter().copied());
    let ratio = 10.0 * (signal / noise).log10();
    assert!(ratio > 20.0, "the output in bytes has a signal-to-noise ratio of {ratio:.1} dB");
}

#[test]
fn a_network_computes_in_bytes_what_has_scales() {
    let (mut scales, images) = (scales(), random(IMAGES.iter().product(), 3));
    let kinds = |scales: &Scales| {
        let network = network(Isa::Portable).quantize(scales).unwrap();
        let profile = network.plan(IMAGES).unwrap().profile(&images, 1).unwrap();
        profile.steps.iter().map(|step| step.kind.to_string()).collect::<Vec<_>>()
    };
    let all = kinds(&scales);
    let count = |kinds: &[String], word: &str| kinds.iter().filter(|kind| kind.contains(word)).count();
    assert_eq!((count(&all, "int8"), count(&all, "linear")), (10, 0), "{all:?}");
    // Without scales for its weights, the last layer is in floats.
    scales.weights.remove(&10);
    let kept = kinds(&scales);
    assert_eq!((count(&kept, "int8"), count(&kept, "linear")), (9, 1), "{kept:?}");
    // Without any, all is.
    let none = kinds(&Scales::default());
    assert_eq!((count(&none, "int8"), count(&none, "bytes")), (0, 0), "{none:?}");
}

#[test]
fn a_network_in_bytes_is_described_with_what_is_folded_into_its_layers() {
    let mut graph = Graph::new(1);
    let input = graph.input();
    let conv = graph.conv(input, ConvShape::square(1, 3, 1), vec![2.0, 4.0, 8.0], Some(vec![1.0; 3])).unwrap();
    graph.label(conv, 1);
    let norm = ScaleShift { scale: vec![0.5, -0.25, 0.0], shift: vec![1.0, 2.0, 3.0] };
    let maps = graph.scale_shift(conv, norm);
    let maps = graph.activation(maps, Activation::Relu);
    let output = graph.conv(maps, ConvShape::square(3, 1, 1), vec![1.0, 1.0, -1.0], None).unwrap();
    graph.label(output, 2);
    let network = graph.finish(output).unwrap();

    let (images, hidden) = (ByteScale { scale: 0.5, zero: 3 }, ByteScale { scale: 0.25, zero: 0 });
    let scales = Scales {
        weights: HashMap::from([(1, WeightScales(vec![2.0, 1.0, 1.0])), (2, WeightScales(vec![1.0]))]),
        corrections: HashMap::from([(1, vec![0.125, 0.0, 0.0])]),
        values: HashMap::from([(0, images), (1, hidden)]),
    };
    let described = network.quantized(&scales).unwrap();
    // The images; convolution, norm and activation; the last convolution.
    assert_eq!(described.value_of, [Some(0), Some(1), Some(1), Some(1), Some(2)]);
    let layer = |weight: &[i8], scales: &[f32], bias: &[f32]| {
        Some(QuantizedLayer { weight: weight.into(), scales: scales.into(), bias: bias.into() })
    };
    let value = |scale, rounded, from_bytes, layer| QuantizedValue { scale, rounded, from_bytes, layer };
    let first = layer(&[1, -4, 0], &[1.0, 0.25, 1.0], &[1.625, 1.75, 3.0]);
    let last = layer(&[1, 1, -1], &[1.0], &[0.0]);
    assert_eq!(described.values[0], value(Some((0.5, 3)), false, false, None), "images become bytes");
    assert_eq!(described.values[1], value(Some((0.25, 0)), true, true, first), "a negative factor turns the bytes");
    assert_eq!(described.values[2], value(None, false, true, last), "the output is floats");
}
