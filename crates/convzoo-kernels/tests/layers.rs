//! Pooling, fully-connected layers, normalization and copies, on every instruction set of this machine, against their
//! definitions.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod common;

use std::sync::Arc;

use common::{NUMBERS, activated, assert_close, assert_near, random, rounded, unit};
use convzoo_kernels::blocked::conv::{Algorithm, Conv, Epilogue};
use convzoo_kernels::blocked::elementwise::{elementwise, gate};
use convzoo_kernels::blocked::layer_norm::{LayerNorm, layer_norm};
use convzoo_kernels::blocked::linear::linear;
use convzoo_kernels::blocked::lrn::local_response_norm;
use convzoo_kernels::blocked::pool::pool2d;
use convzoo_kernels::blocked::rearrange::{Flatten, concatenate, gather};
use convzoo_kernels::conv::ConvShape;
use convzoo_kernels::elementwise::{Activation, ScaleShift};
use convzoo_kernels::linear::{Linear, LinearPrecision};
use convzoo_kernels::lrn::LocalResponse;
use convzoo_kernels::pool::{PoolKind, PoolShape};
use convzoo_kernels::{Isa, KernelError, Layout, Numbers, Operation, parallel};
use proptest::prelude::*;

/// Where `[n, c, y, x]` lies in a tensor in NCHW order.
fn at([_, channels, height, width]: [usize; 4], [n, c, y, x]: [usize; 4]) -> usize {
    ((n * channels + c) * height + y) * width + x
}

fn exact(values: Vec<f64>) -> Vec<(f64, f64)> {
    values.into_iter().map(|value| (value, value.abs())).collect()
}

fn tensors() -> impl Strategy<Value = [usize; 4]> {
    (1usize..=3, 1usize..=40, 1usize..=9, 1usize..=9).prop_map(|(n, c, h, w)| [n, c, h, w])
}

/// PyTorch's pooling, a cell at a time.
fn pool_cells(shape: &PoolShape, dims: [usize; 4], [rows, columns]: [usize; 2], input: &[f32]) -> Vec<f64> {
    let [batch, channels, height, width] = dims;
    let mut result = Vec::new();
    for n in 0..batch {
        for c in 0..channels {
            for y in 0..rows {
                for x in 0..columns {
                    let value = |iy: isize, ix: isize| {
                        let inside = (0..height as isize).contains(&iy) && (0..width as isize).contains(&ix);
                        inside.then(|| f64::from(input[at(dims, [n, c, iy as usize, ix as usize])]))
                    };
                    let mut cells = Vec::new();
                    let max;
                    let mut divide_by_all = false;
                    let mut all = 0;
                    match *shape {
                        PoolShape::Adaptive { kind, output: [h, w] } => {
                            max = kind == PoolKind::Max;
                            for iy in y * height / h..((y + 1) * height).div_ceil(h) {
                                for ix in x * width / w..((x + 1) * width).div_ceil(w) {
                                    cells.extend(value(iy as isize, ix as isize));
                                }
                            }
                        }
                        PoolShape::Sliding { kind, kernel, stride, padding, .. } => {
                            max = kind == PoolKind::Max;
                            divide_by_all = kind == PoolKind::Average { count_include_pad: true };
                            for ky in 0..kernel[0] {
                                for kx in 0..kernel[1] {
                                    let iy = (y * stride[0] + ky) as isize - padding[0] as isize;
                                    let ix = (x * stride[1] + kx) as isize - padding[1] as isize;
                                    cells.extend(value(iy, ix));
                                    let on_padding = iy < (height + padding[0]) as isize;
                                    all += usize::from(on_padding && ix < (width + padding[1]) as isize);
                                }
                            }
                        }
                    }
                    let divisor = if divide_by_all { all } else { cells.len() } as f64;
                    result.push(match max {
                        true => cells.into_iter().fold(f64::NEG_INFINITY, f64::max),
                        false => cells.into_iter().sum::<f64>() / divisor,
                    });
                }
            }
        }
    }
    result
}

#[test]
fn activations_of_any_value_equal_the_definition() {
    let grid = (-20_000..20_000).map(|i| (i as f32 + 0.5) * 0.005);
    let input: Vec<f32> = grid.chain([1e30, -1e30, -0.0, 1e-30, f32::INFINITY, f32::NAN, 0.25, -0.25]).collect();
    let (size, dims) = (input.len() / 8, [1, 8, 1, input.len() / 8]);
    assert_eq!(8 * size, input.len());
    for (isa, function) in Isa::available().flat_map(|isa| Activation::ALL.map(|function| (isa, function))) {
        let layout = Layout::new(dims, isa.lanes(), 0);
        let found = elementwise(isa, None, function, vec![layout], layout, 1).unwrap().apply(&[&input]);
        for (x, found) in input.iter().zip(found) {
            let expected = activated(function, f64::from(*x));
            let error = (f64::from(found) - expected).abs();
            let right = match x {
                x if x.is_nan() => found.is_nan(),
                _ => error <= 2e-6 * expected.abs().max(1.0) || f64::from(found) == expected,
            };
            assert!(right, "{function:?} of {x} is {found} on {isa}, not {expected}");
        }
    }
}

#[test]
fn a_maximum_is_nan_where_its_window_has_one() {
    // In windows of three, NaN is last, in the middle, first, and then not there.
    let input = [1.0, -1.0, f32::NAN, 2.0, f32::INFINITY, f32::NEG_INFINITY, 3.0];
    let shape =
        PoolShape::Sliding { kind: PoolKind::Max, kernel: [1, 3], stride: [1; 2], padding: [0; 2], ceil: false };
    for isa in Isa::available() {
        let (from, into) = (Layout::new([1, 1, 1, 7], isa.lanes(), 0), Layout::new([1, 1, 1, 5], isa.lanes(), 0));
        let found = pool2d(isa, &shape, from, into, 1).unwrap().apply(&[&input]);
        assert!(found[..3].iter().all(|value| value.is_nan()), "{found:?} on {isa}: the window's NaN is lost");
        assert_eq!(found[3..], [f32::INFINITY; 2], "on {isa}: what is a number stays one");
    }
}

proptest! {
    #[test]
    fn pooling_equals_the_definition(
        dims in tensors(),
        kind in prop::sample::select(vec![
            PoolKind::Max,
            PoolKind::Average { count_include_pad: true },
            PoolKind::Average { count_include_pad: false },
        ]),
        kernel in prop::array::uniform2(1usize..=4),
        stride in prop::array::uniform2(1usize..=3),
        padded in any::<bool>(),
        ceil in any::<bool>(),
        adaptive in prop::option::of(prop::array::uniform2(1usize..=4)),
        halos in prop::array::uniform2(0usize..=2),
        numbers in prop::sample::select(NUMBERS.to_vec()),
        output in prop::sample::select(NUMBERS.to_vec()),
        seed in any::<u64>(),
    ) {
        let padding = if padded { kernel.map(|k| k / 2) } else { [0; 2] };
        let shape = match adaptive {
            Some(output) => PoolShape::Adaptive { kind, output },
            None => PoolShape::Sliding { kind, kernel, stride, padding, ceil },
        };
        let [batch, channels, height, width] = dims;
        let Ok(cells) = shape.output([height, width]) else { return Err(TestCaseError::reject("too small")) };
        let input = rounded(numbers, random(batch * channels * height * width, seed));
        // Numbers of 16 bits are pooled into either, as at a network's end.
        let output = if numbers == Numbers::Bf16 { output } else { numbers };
        let expected = exact(pool_cells(&shape, dims, cells, &input));
        for isa in Isa::available() {
            let from = Layout::new(dims, isa.lanes(), halos[0]).of(numbers);
            let into = Layout::new([batch, channels, cells[0], cells[1]], isa.lanes(), halos[1]).of(output);
            let found = pool2d(isa, &shape, from, into, 2).unwrap().apply(&[&input]);
            assert_near(&found, &expected, unit(output), 1e-6, &format!("{shape:?} on {isa}"));
        }
    }

    #[test]
    fn linear_equals_the_definition(
        batch in 1usize..=9,
        inputs in 1usize..=70,
        outputs in 1usize..=20,
        relu in any::<bool>(),
        zeros in 0usize..=3,
        seed in any::<u64>(),
    ) {
        let input = random(batch * inputs, seed);
        let mut weight = random(outputs * inputs, seed ^ 1);
        // All are left, or every second, or every third, or every fourth.
        weight.iter_mut().enumerate().filter(|(i, _)| i % (zeros + 1) > 0).for_each(|(_, weight)| *weight = 0.0);
        let bias = random(outputs, seed ^ 2);
        let dot = |n: usize, o: usize| {
            let terms = (0..inputs).map(|i| f64::from(input[n * inputs + i]) * f64::from(weight[o * inputs + i]));
            let (total, magnitude) = terms.fold((0.0, 0.0), |(t, m), term| (t + term, m + term.abs()));
            let total = total + f64::from(bias[o]);
            (if relu { total.max(0.0) } else { total }, magnitude)
        };
        let expected: Vec<_> = (0..batch * outputs).map(|i| dot(i / outputs, i % outputs)).collect();
        let activation = if relu { Activation::Relu } else { Activation::Identity };
        for isa in Isa::available() {
            let precisions =
                [(LinearPrecision::Single, 1e-6), (LinearPrecision::Half, 1e-3), (LinearPrecision::Bf16, 4e-3)];
            for (precision, tolerance) in precisions {
                let layer = || Arc::new(Linear::new(weight.clone(), bias.clone(), inputs, precision).unwrap());
                let from = Layout::new([batch, inputs, 1, 1], isa.lanes(), 0);
                let found = linear(isa, layer(), activation, from, Numbers::F32, 3).unwrap().apply(&[&input]);
                assert_close(&found, &expected, tolerance, &format!("{precision:?} on {isa}"));
                // Inputs are rounded, too, and outputs if those are asked for.
                let from = from.of(Numbers::Bf16);
                for numbers in NUMBERS {
                    let found = linear(isa, layer(), activation, from, numbers, 3).unwrap().apply(&[&input]);
                    let what = format!("{precision:?} from bf16 to {numbers:?} on {isa}");
                    assert_near(&found, &expected, unit(numbers), tolerance + 4e-3, &what);
                }
            }
            let layer = Linear::new(weight.clone(), bias.clone(), inputs, LinearPrecision::Single).unwrap();
            let layer = layer.sparse_up_to(batch);
            let from = Layout::new([batch, inputs, 1, 1], isa.lanes(), 0);
            let found = linear(isa, Arc::new(layer), activation, from, Numbers::F32, 3).unwrap().apply(&[&input]);
            assert_close(&found, &expected, 1e-6, &format!("without zeros on {isa}"));
        }
    }

    #[test]
    fn local_response_equals_the_definition(
        dims in tensors(),
        size in 1usize..=9,
        beta in prop::sample::select(vec![0.75f32, 0.5, 1.25]),
        halo in 0usize..=1,
        numbers in prop::sample::select(NUMBERS.to_vec()),
        seed in any::<u64>(),
    ) {
        let [batch, channels, height, width] = dims;
        let (alpha, k) = (0.4, 2.0);
        let input = rounded(numbers, random(batch * channels * height * width, seed));
        let value = |n, c, y, x| f64::from(input[at(dims, [n, c, y, x])]);
        let mut expected = Vec::new();
        for i in 0..input.len() {
            let (x, y, c, n) = (i % width, i / width % height, i / width / height % channels, i / width / height / channels);
            let inside = (0..channels).filter(|other| (c..c + size).contains(&(other + size / 2)));
            let squares: f64 = inside.map(|c| value(n, c, y, x).powi(2)).sum();
            let base = f64::from(k) + f64::from(alpha) / size as f64 * squares;
            expected.push(value(n, c, y, x) / base.powf(f64::from(beta)));
        }
        let expected = exact(expected);
        for isa in Isa::available() {
            let layout = |halo| Layout::new(dims, isa.lanes(), halo).of(numbers);
            let norm = LocalResponse { size, alpha, beta, k };
            let found = local_response_norm(isa, norm, layout(halo), layout(1), 2).unwrap().apply(&[&input]);
            assert_near(&found, &expected, unit(numbers), 2e-6, &format!("{norm:?} in {numbers:?} on {isa}"));
        }
    }

    #[test]
    fn elements_equal_the_definition(
        dims in tensors(),
        affine in any::<bool>(),
        others in 0usize..=2,
        activation in prop::sample::select(Activation::ALL.to_vec()),
        numbers in prop::sample::select(NUMBERS.to_vec()),
        seed in any::<u64>(),
    ) {
        let [_, channels, height, width] = dims;
        let inputs: Vec<_> = (0..=others).map(|i| rounded(numbers, random(dims.iter().product(), seed ^ i as u64))).collect();
        let affine = affine.then(|| ScaleShift { scale: random(channels, seed ^ 7), shift: random(channels, seed ^ 8) });
        let of = |i: usize| {
            let c = i / (height * width) % channels;
            let (scale, shift) = affine.as_ref().map_or((1.0, 0.0), |a| (a.scale[c], a.shift[c]));
            let total = f64::from(inputs[0][i]) * f64::from(scale) + f64::from(shift);
            let total = inputs[1..].iter().fold(total, |total, input| total + f64::from(input[i]));
            // A curved activation is of the rounded total; its slope is at most 1.13.
            (activated(activation, total), total.abs() * (1.0 + 1.2 * unit(numbers) / 2e-6))
        };
        let expected: Vec<_> = (0..inputs[0].len()).map(of).collect();
        let slices: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
        for isa in Isa::available() {
            let layouts = (0..=others).map(|halo| Layout::new(dims, isa.lanes(), halo).of(numbers)).collect();
            let into = Layout::new(dims, isa.lanes(), 1).of(numbers);
            let operation = elementwise(isa, affine.as_ref(), activation, layouts, into, 2).unwrap();
            let what = format!("{activation:?} in {numbers:?} on {isa}");
            assert_near(&operation.apply(&slices), &expected, unit(numbers), 2e-6, &what);
        }
    }

    #[test]
    fn layer_normalization_equals_the_definition(
        dims in tensors(),
        offset in 0f32..20.0,
        halo in 0usize..=1,
        numbers in prop::sample::select(NUMBERS.to_vec()),
        seed in any::<u64>(),
    ) {
        let [batch, channels, height, width] = dims;
        let plane = height * width;
        let input = random(dims.iter().product(), seed).into_iter().map(|x| x + offset).collect();
        let input = rounded(numbers, input);
        let (weight, bias) = (random(channels, seed ^ 1), random(channels, seed ^ 2));
        let mut expected = vec![(0.0, 0.0); input.len()];
        for pixel in 0..batch * plane {
            let at = |c: usize| (pixel / plane * channels + c) * plane + pixel % plane;
            let values: Vec<f64> = (0..channels).map(|c| f64::from(input[at(c)])).collect();
            let mean = values.iter().sum::<f64>() / channels as f64;
            let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / channels as f64;
            let deviation = (variance + 1e-3).sqrt();
            for (c, x) in values.into_iter().enumerate() {
                let value = (x - mean) / deviation * f64::from(weight[c]) + f64::from(bias[c]);
                expected[at(c)] = (value, f64::from(offset) / deviation);
            }
        }
        for isa in Isa::available() {
            let layout = |halo| Layout::new(dims, isa.lanes(), halo).of(numbers);
            let norm = LayerNorm { weight: weight.clone(), bias: bias.clone(), epsilon: 1e-3 };
            let found = layer_norm(isa, &norm, layout(halo), layout(1), 2).unwrap().apply(&[&input]);
            assert_near(&found, &expected, unit(numbers), 2e-6, &format!("layer normalization in {numbers:?} on {isa}"));
        }
    }

    #[test]
    fn a_gate_multiplies_each_channel(
        dims in tensors(),
        halo in 0usize..=1,
        numbers in prop::sample::select(NUMBERS.to_vec()),
        seed in any::<u64>(),
    ) {
        let [batch, channels, height, width] = dims;
        let random = |len, seed| rounded(numbers, random(len, seed));
        let (maps, factors) = (random(dims.iter().product(), seed), random(batch * channels, seed ^ 1));
        let expected = maps.iter().enumerate().map(|(i, x)| f64::from(*x) * f64::from(factors[i / (height * width)]));
        let expected = exact(expected.collect());
        for isa in Isa::available() {
            let layout = |dims, halo| Layout::new(dims, isa.lanes(), halo).of(numbers);
            let inputs = [layout(dims, halo), layout([batch, channels, 1, 1], halo)];
            let found = gate(isa, inputs, layout(dims, 1), 2).unwrap().apply(&[&maps, &factors]);
            assert_near(&found, &expected, unit(numbers), 1e-6, &format!("a gate in {numbers:?} on {isa}"));
        }
    }

    #[test]
    fn gathered_channels_are_those_asked_for(
        order in prop::collection::vec((0usize..2, 0usize..19), 1..40),
        [batch, _, height, width] in tensors(),
        numbers in prop::sample::select(NUMBERS.to_vec()),
        seed in any::<u64>(),
    ) {
        let plane = height * width;
        let parts = [seed, seed ^ 1].map(|seed| rounded(numbers, random(batch * 19 * plane, seed)));
        let expected: Vec<f32> = (0..batch)
            .flat_map(|n| order.iter().map(move |(part, c)| (part, (n * 19 + c) * plane)))
            .flat_map(|(part, start)| &parts[*part][start..start + plane])
            .copied()
            .collect();
        for isa in Isa::available() {
            let layout = |c, halo| Layout::new([batch, c, height, width], isa.lanes(), halo).of(numbers);
            let operation = gather(isa, order.clone(), vec![layout(19, 1), layout(19, 0)], layout(order.len(), 1), 2);
            prop_assert!(operation.unwrap().apply(&[&parts[0], &parts[1]]) == expected, "{order:?} on {isa}");
        }
    }

    #[test]
    fn concatenation_and_flattening_keep_the_order(
        channels in prop::collection::vec(1usize..=33, 1..4),
        [batch, _, height, width] in tensors(),
        numbers in prop::sample::select(NUMBERS.to_vec()),
        seed in any::<u64>(),
    ) {
        let plane = height * width;
        let part = |(i, c)| rounded(numbers, random(batch * c * plane, seed ^ i as u64));
        let parts: Vec<_> = channels.iter().enumerate().map(part).collect();
        let expected: Vec<f32> = (0..batch)
            .flat_map(|n| parts.iter().zip(&channels).flat_map(move |(part, c)| &part[n * c * plane..][..c * plane]))
            .copied()
            .collect();
        let total = channels.iter().sum();
        let slices: Vec<&[f32]> = parts.iter().map(Vec::as_slice).collect();
        for isa in Isa::available() {
            let layout = |c, halo| Layout::new([batch, c, height, width], isa.lanes(), halo).of(numbers);
            let from = channels.iter().map(|c| layout(*c, 1)).collect();
            let found = concatenate(isa, from, layout(total, 0), 2).unwrap().apply(&slices);
            prop_assert!(found == expected, "a concatenation of {channels:?} on {isa}");
            let found = Flatten::new(layout(total, 1), 2).apply(&[&expected]);
            prop_assert!(found == expected, "flattening {total} channels on {isa}");
        }
    }
}

#[test]
fn a_relu_does_not_turn_nan_into_zero() {
    for isa in Isa::available() {
        let layout = Layout::new([1, 1, 1, 3], isa.lanes(), 0);
        let operation = elementwise(isa, None, Activation::Relu, vec![layout], layout, 1).unwrap();
        let found = operation.apply(&[&[f32::NAN, -1.0, 2.0]]);
        assert!(found[0].is_nan() && found[1..] == [0.0, 2.0], "{found:?} on {isa}");
    }
}

/// Where products without zeros become faster: what `docs/src/kernels.md` shows. A 1×1 convolution is a product with
/// each pixel.
#[test]
#[ignore = "it measures"]
fn dense_and_sparse_products_by_density() {
    const DENSITIES: [f64; 6] = [0.5, 0.4, 0.3, 0.2, 0.1, 0.05];
    let isa = Isa::detect().unwrap();
    let threads = parallel::threads();
    let fastest = |operation: &dyn Operation, input: &[f32]| {
        let once = || {
            let start = std::time::Instant::now();
            operation.apply(&[input]);
            start.elapsed().as_secs_f64() * 1e3
        };
        (0..40).map(|_| once()).fold(f64::MAX, f64::min)
    };
    let weights = |count: usize, density: f64| {
        let mut weight = random(count, 2);
        // Numbers from −1 to 1, evenly.
        let gone = random(count, 3).into_iter().map(|number| f64::from(number.abs()) >= density);
        weight.iter_mut().zip(gone).filter(|(_, gone)| *gone).for_each(|(weight, _)| *weight = 0.0);
        weight
    };
    println!("{isa}, {threads} threads, milliseconds: with all weights, and without zeros by density");
    println!("{:<28} {:>8} {}", "", "all", DENSITIES.map(|density| format!("{density:>8}")).join(" "));
    let row = |name: String, dense: f64, inputs: usize, outputs: usize, batch: usize| {
        let (input, from) = (random(batch * inputs, 1), Layout::new([batch, inputs, 1, 1], isa.lanes(), 0));
        let sparse = DENSITIES.map(|density| {
            let weight = weights(inputs * outputs, density);
            let layer =
                Linear::new(weight, vec![0.0; outputs], inputs, LinearPrecision::Single).unwrap().sparse_up_to(batch);
            let operation = linear(isa, Arc::new(layer), Activation::Identity, from, Numbers::F32, threads).unwrap();
            format!("{:8.3}", fastest(&*operation, &input))
        });
        println!("{name:<28} {dense:8.3} {}", sparse.join(" "));
    };
    for (inputs, outputs) in [(400, 120), (4096, 1000), (4096, 4096), (9216, 4096)] {
        for batch in [1, 8] {
            let (input, from) = (random(batch * inputs, 1), Layout::new([batch, inputs, 1, 1], isa.lanes(), 0));
            let weight = weights(inputs * outputs, 1.0);
            let layer = Linear::new(weight, vec![0.0; outputs], inputs, LinearPrecision::Single).unwrap();
            let operation = linear(isa, Arc::new(layer), Activation::Identity, from, Numbers::F32, threads).unwrap();
            let dense = fastest(&*operation, &input);
            row(format!("{inputs} to {outputs}, batch {batch}"), dense, inputs, outputs, batch);
        }
    }
    for (inputs, outputs, side) in [(64, 256, 27), (512, 1000, 13)] {
        let input = random(inputs * side * side, 1);
        let layout = |channels| Layout::new([1, channels, side, side], isa.lanes(), 0);
        let shape = ConvShape::square(inputs, outputs, 1);
        let conv =
            Conv::new(isa, shape, Algorithm::Direct, Numbers::F32, &weights(inputs * outputs, 1.0), None).unwrap();
        let epilogue = Epilogue { sum: None, activation: Activation::Identity };
        let operation = conv.operation(layout(inputs), layout(outputs), epilogue, threads).unwrap();
        let dense = fastest(&*operation, &input);
        row(format!("1×1, {inputs} to {outputs}, {side}×{side}"), dense, inputs, outputs, side * side);
    }
}

#[test]
fn layers_that_do_not_fit_are_an_error() {
    let layout = |c, side| Layout::new([1, c, side, side], 8, 0);
    let max = PoolShape::Sliding { kind: PoolKind::Max, kernel: [3; 2], stride: [2; 2], padding: [0; 2], ceil: false };
    assert_eq!(max.output([2, 9]), Err(KernelError::TooSmall { operation: "pooling", size: [2, 9] }));
    let padded =
        PoolShape::Sliding { kind: PoolKind::Max, kernel: [2; 2], stride: [1; 2], padding: [1; 2], ceil: false };
    let error = padded.output([0, 9]);
    assert!(matches!(error, Err(KernelError::Window { .. })), "a map of padding alone gives {error:?}");
    assert!(pool2d(Isa::Portable, &max, layout(4, 7), layout(5, 3), 1).is_err(), "another number of channels is taken");
    let half = |c, side| layout(c, side).of(Numbers::Bf16);
    assert!(pool2d(Isa::Portable, &max, layout(4, 7), half(4, 3), 1).is_err(), "numbers of 32 bits become others");
    let parts = vec![layout(4, 7), half(4, 7)];
    assert!(concatenate(Isa::Portable, parts, half(8, 7), 1).is_err(), "parts of other numbers are taken");
    let layer = Linear::new(vec![0.0; 12], vec![0.0; 3], 4, LinearPrecision::Single).unwrap();
    let fits = linear(Isa::Portable, Arc::new(layer), Activation::Identity, layout(5, 1), Numbers::F32, 1).err();
    assert_eq!(fits, Some(KernelError::Channels { operation: "a linear layer", expected: 4, found: 5 }));
    assert!(
        Linear::new(vec![0.0; 11], vec![0.0; 3], 4, LinearPrecision::Single).is_err(),
        "a weight too short is taken"
    );
    let wide = LocalResponse { size: 18, alpha: 1.0, beta: 0.75, k: 1.0 };
    assert!(
        local_response_norm(Isa::Portable, wide, layout(4, 2), layout(4, 2), 1).is_err(),
        "a window of 18 channels is taken"
    );
}
