//! Training's operations against their definitions in double precision, on every instruction set this processor has.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod common;

use common::{activated, assert_close, random, slope};
use convzoo_kernels::Isa;
use convzoo_kernels::conv::ConvShape;
use convzoo_kernels::elementwise::Activation;
use convzoo_kernels::planar::{
    BatchNormParams, BatchNormPass, ChannelAffine, ConvPass, LayerNormPass, LinearPass, MaxPoolPass, ScalePass,
    SgdStep, activation, activation_backward, activation_keeps_output, add_relu, add_relu_backward,
};
use convzoo_kernels::pool::{PoolKind, PoolShape};
use convzoo_kernels::winograd::WinogradTile;
use half::bf16;
use proptest::prelude::*;

/// A convolution of small images.
#[derive(Clone, Copy, Debug)]
struct Case {
    shape: ConvShape,
    batch: usize,
    input: [usize; 2],
}

fn pair(range: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = [usize; 2]> {
    [range.clone(), range]
}

fn cases() -> impl Strategy<Value = Case> {
    // From some number on, groups are divided among threads.
    let grouped = prop_oneof![(1..=4usize, 1..=9usize, 1..=19usize), (5..=20usize, 1..=3usize, 1..=3usize)];
    let channels = prop_oneof![grouped, (1..=40usize, Just(1), Just(1))];
    let window = (pair(1..=7), pair(1..=3), pair(0..=3), pair(1..=2));
    let cases = (channels, window, 1..=4usize, pair(1..=21));
    cases.prop_filter_map("a window that does not fit", |((groups, inputs, outputs), window, batch, input)| {
        let (kernel, stride, padding, dilation) = window;
        let shape =
            ConvShape { channels: [groups * inputs, groups * outputs], kernel, stride, padding, dilation, groups };
        shape.output(input).is_ok().then_some(Case { shape, batch, input })
    })
}

/// What Winograd's method is for: 3×3, stride 1.
fn winograd_cases() -> impl Strategy<Value = Case> {
    let cases = ((1..=35usize, 1..=35usize), pair(0..=2), 1..=2usize, pair(1..=21));
    cases.prop_filter_map("a window that does not fit", |((inputs, outputs), padding, batch, input)| {
        let shape = ConvShape { padding, ..ConvShape::square(inputs, outputs, 3) };
        shape.output(input).is_ok().then_some(Case { shape, batch, input })
    })
}

/// Max pooling of one plane, by kernel, stride and padding.
fn max_pool(isa: Isa, input: [usize; 2], [kernel, stride, padding]: [[usize; 2]; 3]) -> MaxPoolPass {
    let shape = PoolShape::Sliding { kind: PoolKind::Max, kernel, stride, padding, ceil: false };
    MaxPoolPass::new(isa, &shape, 1, input).unwrap()
}

/// Values between −1 and 1 that depend on `seed` alone.
fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Everything a convolution computes, by its definition: output, gradients of input, weight and bias.
struct Reference {
    output: Vec<f64>,
    input: Vec<f64>,
    weight: Vec<f64>,
    bias: Vec<f64>,
}

fn reference(case: &Case, input: &[f32], weight: &[f32], bias: &[f32], gradient: &[f32]) -> Reference {
    let Case { shape, batch, input: [height, width] } = *case;
    let ([inputs, outputs], [rows, columns]) = (shape.channels, shape.output(case.input).unwrap());
    let [group_inputs, group_outputs] = shape.channels.map(|channels| channels / shape.groups);
    let [kh, kw] = shape.kernel;
    let mut result = Reference {
        output: vec![0.0; batch * outputs * rows * columns],
        input: vec![0.0; input.len()],
        weight: vec![0.0; weight.len()],
        bias: vec![0.0; bias.len()],
    };
    for (at, sum) in result.output.iter_mut().enumerate() {
        let (x, y) = (at % columns, at / columns % rows);
        let (o, n) = (at / (columns * rows) % outputs, at / (columns * rows * outputs));
        let g = f64::from(gradient[at]);
        result.bias[o] += g;
        *sum = f64::from(bias[o]);
        for (c, r, s) in (0..group_inputs).flat_map(|c| (0..kh).flat_map(move |r| (0..kw).map(move |s| (c, r, s)))) {
            let row = (y * shape.stride[0] + r * shape.dilation[0]).wrapping_sub(shape.padding[0]);
            let column = (x * shape.stride[1] + s * shape.dilation[1]).wrapping_sub(shape.padding[1]);
            if row < height && column < width {
                let channel = o / group_outputs * group_inputs + c;
                let from = ((n * inputs + channel) * height + row) * width + column;
                let tap = ((o * group_inputs + c) * kh + r) * kw + s;
                *sum += f64::from(input[from]) * f64::from(weight[tap]);
                result.input[from] += g * f64::from(weight[tap]);
                result.weight[tap] += g * f64::from(input[from]);
            }
        }
    }
    result
}

/// Fails unless all values are within a millionth of the largest sum of `terms` products.
fn close(what: &str, found: &[f32], expected: &[f64], terms: usize) -> Result<(), TestCaseError> {
    prop_assert_eq!(found.len(), expected.len(), "{}", what);
    let tolerance = 1e-6 * (terms as f64).max(4.0);
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs();
        prop_assert!(error <= tolerance, "{}: {} at {}, expected {}", what, found, i, expected);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.min(192), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_convolution_and_its_gradients_are_their_definition(case in cases(), seed in 1..u64::MAX) {
        let Case { shape, batch, input: [height, width] } = case;
        let outputs = shape.channels[1];
        let input = noise(batch * shape.channels[0] * height * width, seed);
        let (weight, bias) = (noise(shape.weights(), seed ^ 1), noise(outputs, seed ^ 2));
        let cells = shape.output(case.input).unwrap().iter().product::<usize>();
        let gradient = noise(batch * outputs * cells, seed ^ 3);
        let expected = reference(&case, &input, &weight, &bias, &gradient);
        let taps = shape.kernel[0] * shape.kernel[1];
        for isa in Isa::available() {
            let pass = ConvPass::new(isa, shape, batch, case.input).unwrap();
            let output = pass.forward(&input, &weight, ChannelAffine { shift: Some(&bias), ..ChannelAffine::default() });
            close("output", &output, &expected.output, shape.channels[0] * taps)?;
            close("input", &pass.backward_input(&gradient, &weight), &expected.input, outputs * taps)?;
            close("weight", &pass.backward_weight(&input, &gradient), &expected.weight, batch * cells)?;
            close("bias", &pass.backward_bias(&gradient), &expected.bias, batch * cells)?;
        }
    }

    #[test]
    fn a_filtered_convolution_and_its_gradients_are_their_definition(case in winograd_cases(), seed in 1..u64::MAX) {
        let Case { shape, batch, input: [height, width] } = case;
        let [inputs, outputs] = shape.channels;
        let input = noise(batch * inputs * height * width, seed);
        let (weight, bias) = (noise(shape.weights(), seed ^ 1), noise(outputs, seed ^ 2));
        let cells = shape.output(case.input).unwrap().iter().product::<usize>();
        let gradient = noise(batch * outputs * cells, seed ^ 3);
        let expected = reference(&case, &input, &weight, &bias, &gradient);
        let scale = noise(outputs, seed ^ 4);
        let planes = expected.output.chunks_exact(cells).enumerate();
        let scaled: Vec<f64> = planes
            .flat_map(|(plane, values)| {
                let (a, b) = (f64::from(scale[plane % outputs]), f64::from(bias[plane % outputs]));
                values.iter().map(move |y| ((y - b) * a + b).max(0.0))
            })
            .collect();
        for (isa, tile) in Isa::available().flat_map(|isa| [WinogradTile::Two, WinogradTile::Four].map(|tile| (isa, tile))) {
            let pass = ConvPass::new(isa, shape, batch, case.input).unwrap().with_tile(Some(tile));
            // Four loses more to rounding.
            let terms = |channels: usize| 9 * channels * tile.outputs();
            let affine = ChannelAffine { scale: Some(&scale), shift: Some(&bias), relu: true };
            close("output", &pass.forward(&input, &weight, affine), &scaled, terms(inputs))?;
            close("input", &pass.backward_input(&gradient, &weight), &expected.input, terms(outputs))?;
            let pixels = batch * cells * tile.outputs();
            close("weight", &pass.backward_weight(&input, &gradient), &expected.weight, pixels)?;
        }
    }

    #[test]
    fn a_linear_layer_and_its_gradients_are_their_definition(
        (batch, inputs, outputs) in (1..=9usize, 1..=70usize, 1..=19usize),
        wide: bool,
        seed in 1..u64::MAX,
    ) {
        // Some are wider than a piece of the inputs.
        let inputs = if wide { inputs + 1000 } else { inputs };
        let (input, weight) = (noise(batch * inputs, seed), noise(outputs * inputs, seed ^ 1));
        let (bias, gradient) = (noise(outputs, seed ^ 2), noise(batch * outputs, seed ^ 3));
        let at = |values: &[f32], row: usize, width: usize, column: usize| f64::from(values[row * width + column]);
        let sum = |terms: usize, term: &dyn Fn(usize) -> f64| (0..terms).map(term).sum::<f64>();
        let cells = |rows: usize, columns: usize| (0..rows * columns).map(move |i| (i / columns, i % columns));
        let output: Vec<f64> = cells(batch, outputs)
            .map(|(n, o)| {
                f64::from(bias[o]) + sum(inputs, &|i| at(&input, n, inputs, i) * at(&weight, o, inputs, i))
            })
            .collect();
        let of_input: Vec<f64> = cells(batch, inputs)
            .map(|(n, i)| sum(outputs, &|o| at(&gradient, n, outputs, o) * at(&weight, o, inputs, i)))
            .collect();
        let of_weight: Vec<f64> = cells(outputs, inputs)
            .map(|(o, i)| sum(batch, &|n| at(&gradient, n, outputs, o) * at(&input, n, inputs, i)))
            .collect();
        for isa in Isa::available() {
            let pass = LinearPass { isa, batch, inputs, outputs };
            close("output", &pass.forward(&input, &weight, &bias), &output, inputs)?;
            close("input", &pass.backward_input(&gradient, &weight), &of_input, outputs)?;
            close("weight", &pass.backward_weight(&input, &gradient), &of_weight, batch)?;
        }
    }

    #[test]
    fn a_max_pool_is_its_definition(
        (kernel, stride, input) in (pair(1..=3), pair(1..=3), pair(3..=20)),
        seed in 1..u64::MAX,
    ) {
        let padding = kernel.map(|kernel| kernel / 2);
        let cells = [0, 1].map(|i| (input[i] + 2 * padding[i] - kernel[i]) / stride[i] + 1);
        // Few values, so that many are equal.
        let plane: Vec<f32> = noise(input[0] * input[1], seed).iter().map(|x| (3.0 * x).round()).collect();
        for isa in Isa::available() {
            let pass = max_pool(isa, input, [kernel, stride, padding]);
            prop_assert_eq!(pass.output(), cells);
            let (values, places) = pass.forward(&plane);
            for (cell, (value, place)) in values.iter().zip(places).enumerate() {
                let window = |i: usize, cell: usize| {
                    let start = cell * stride[i];
                    start.saturating_sub(padding[i])..(start + kernel[i] - padding[i]).min(input[i])
                };
                let mut best = (f32::NEG_INFINITY, 0);
                for y in window(0, cell / cells[1]) {
                    for x in window(1, cell % cells[1]) {
                        let pixel = plane[y * input[1] + x];
                        if pixel > best.0 {
                            best = (pixel, (y * input[1] + x) as i32);
                        }
                    }
                }
                prop_assert_eq!((*value, place), best, "cell {} of {:?}", cell, pass);
            }
            let narrow = |values: &[f32]| values.iter().copied().map(bf16::from_f32).collect::<Vec<_>>();
            let (values, places) = pass.forward(&plane);
            prop_assert_eq!(pass.forward(&narrow(&plane)), (narrow(&values), places.clone()), "bfloat16, {:?}", pass);
            let gradient = narrow(&noise(places.len(), seed ^ 1));
            let wide: Vec<f32> = gradient.iter().map(|g| g.to_f32()).collect();
            let sums = narrow(&pass.backward(&places, &wide));
            prop_assert_eq!(pass.backward(&places, &gradient), sums, "bfloat16, {:?}", pass);
        }
    }

    #[test]
    fn a_batch_norm_and_its_gradients_are_their_definition(
        (batch, channels, plane) in (1..=3usize, 1..=5usize, 2..=150usize),
        function in prop::sample::select(Activation::ALL.to_vec()),
        seed in 1..u64::MAX,
    ) {
        let len = batch * channels * plane;
        let (input, gradient) = (noise(len, seed), noise(len, seed ^ 1));
        let input: Vec<f32> = input.iter().map(|x| 3.0 + 2.0 * x).collect();
        let (scale, shift) = (noise(channels, seed ^ 2), noise(channels, seed ^ 3));
        let of = |values: &[f32], c: usize| -> Vec<f64> {
            let planes = values.chunks_exact(plane).skip(c).step_by(channels);
            planes.flatten().map(|&value| f64::from(value)).collect()
        };
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let epsilon = 1e-3;
        for isa in Isa::available() {
            let pass = BatchNormPass { isa, batch, channels, plane, epsilon, activation: function };
            let (output, means, variances) = pass.forward(&input, &scale, &shift);
            let params = BatchNormParams { scale: &scale, shift: &shift, mean: &means, variance: &variances };
            let mut of_input = gradient.clone();
            let found = pass.backward(&input, params, &mut of_input);
            prop_assert_eq!(&pass.apply(&input, params), &output, "the same by the statistics of the batch");
            for c in 0..channels {
                let (x, own) = (of(&input, c), of(&output, c));
                let center = mean(&x);
                let variance = mean(&x.iter().map(|x| (x - center).powi(2)).collect::<Vec<_>>());
                let deviation = (variance + epsilon).sqrt();
                let (a, b) = (f64::from(scale[c]), f64::from(shift[c]));
                let normal: Vec<f64> = x.iter().map(|x| (x - center) / deviation).collect();
                let line: Vec<f64> = normal.iter().map(|x| a * x + b).collect();
                let expected: Vec<f64> = line.iter().map(|&y| activated(function, y)).collect();
                let own: Vec<f32> = own.iter().map(|&y| y as f32).collect();
                close("output", &own, &expected, 8)?;
                close("mean", &means[c..=c], &[center], 4)?;
                close("variance", &variances[c..=c], &[variance], 8)?;

                // Where rounding decides the side of a bend, there is no gradient to compare.
                let bent = |y: &f64| [-3.0, 0.0, 3.0, 6.0].iter().any(|bend| (y - bend).abs() < 1e-5);
                if function != Activation::Identity && line.iter().any(bent) {
                    continue;
                }
                let g = of(&gradient, c).into_iter().zip(&line);
                let g: Vec<f64> = g.map(|(g, &y)| g * slope(function, y)).collect();
                let product: Vec<f64> = g.iter().zip(&normal).map(|(g, x)| g * x).collect();
                let count = x.len() as f64;
                close("shift", &found.shift[c..=c], &[mean(&g) * count], x.len())?;
                close("scale", &found.scale[c..=c], &[mean(&product) * count], 4 * x.len())?;
                let (mean_gradient, mean_product) = (mean(&g), mean(&product));
                let pairs = g.iter().zip(&normal);
                let expected: Vec<f64> =
                    pairs.map(|(g, x)| a / deviation * (g - mean_gradient - x * mean_product)).collect();
                let own: Vec<f32> = of(&of_input, c).iter().map(|&y| y as f32).collect();
                // The rounding of the mean counts by the deviation that it is divided by, twice.
                let terms = 16.0 / (deviation * deviation).min(1.0);
                close("input", &own, &expected, terms as usize)?;
            }
        }
    }

    #[test]
    fn a_layer_norm_and_its_gradients_are_their_definition(
        (batch, channels, plane) in (1..=3usize, 1..=40usize, 1..=150usize),
        seed in 1..u64::MAX,
    ) {
        let len = batch * channels * plane;
        let (input, gradient) = (noise(len, seed), noise(len, seed ^ 1));
        let input: Vec<f32> = input.iter().map(|x| 3.0 + 2.0 * x).collect();
        let (scale, shift) = (noise(channels, seed ^ 2), noise(channels, seed ^ 3));
        let epsilon = 1e-2;
        let [mut output, mut of_input] = [vec![0.0; len], vec![0.0; len]];
        let [mut of_scale, mut of_shift] = [vec![0.0; channels], vec![0.0; channels]];
        for pixel in (0..batch * plane).map(|pixel| pixel / plane * channels * plane + pixel % plane) {
            let of = |values: &[f32]| -> Vec<f64> {
                (0..channels).map(|channel| f64::from(values[pixel + channel * plane])).collect()
            };
            let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
            let (x, g) = (of(&input), of(&gradient));
            let center = mean(&x);
            let deviation = (mean(&x.iter().map(|x| (x - center).powi(2)).collect::<Vec<_>>()) + epsilon).sqrt();
            let normal: Vec<f64> = x.iter().map(|x| (x - center) / deviation).collect();
            let inner: Vec<f64> = g.iter().zip(&scale).map(|(g, &a)| g * f64::from(a)).collect();
            let products: Vec<f64> = inner.iter().zip(&normal).map(|(g, x)| g * x).collect();
            let (mean_inner, mean_product) = (mean(&inner), mean(&products));
            for channel in 0..channels {
                let at = pixel + channel * plane;
                output[at] = normal[channel] * f64::from(scale[channel]) + f64::from(shift[channel]);
                of_input[at] = (inner[channel] - mean_inner - normal[channel] * mean_product) / deviation;
                of_scale[channel] += g[channel] * normal[channel];
                of_shift[channel] += g[channel];
            }
        }
        for isa in Isa::available() {
            let pass = LayerNormPass { isa, batch, channels, plane, epsilon };
            close("output", &pass.forward(&input, &scale, &shift), &output, 32)?;
            let found = pass.backward(&input, &scale, &gradient);
            close("input", &found.input, &of_input, 256)?;
            close("scale", &found.scale, &of_scale, 8 * batch * plane)?;
            close("shift", &found.shift, &of_shift, batch * plane)?;
        }
    }

    #[test]
    fn scaled_planes_and_their_gradients_are_their_definition(
        (batch, channels, plane) in (1..=3usize, 1..=40usize, 1..=150usize),
        by_channel: bool,
        seed in 1..u64::MAX,
    ) {
        let planes = batch * channels;
        let count = if by_channel { channels } else { planes };
        let (input, gradient) = (noise(planes * plane, seed), noise(planes * plane, seed ^ 1));
        let factors = noise(count, seed ^ 2);
        let factor = |at: usize| at / plane % count;
        let product = |(at, x): (usize, &f32)| f64::from(*x) * f64::from(factors[factor(at)]);
        let output: Vec<f64> = input.iter().enumerate().map(product).collect();
        let mut of_factors = vec![0.0; count];
        for (at, (x, g)) in input.iter().zip(&gradient).enumerate() {
            of_factors[factor(at)] += f64::from(*x) * f64::from(*g);
        }
        for isa in Isa::available() {
            let pass = ScalePass { isa, planes, plane };
            close("output", &pass.forward(&input, &factors), &output, 1)?;
            close("factors", &pass.backward_factors(&input, &gradient, count), &of_factors, planes / count * plane)?;
        }
    }
}

#[test]
fn a_deep_wide_convolution_is_its_definition() {
    // More channels than a piece of the matrices is deep, more pixels than a chunk of them, more outputs than a task has.
    // The last has too many outputs to be read in place, forward and backward.
    let cases =
        [(130, 30, [9, 9], 3), (3, 18, [41, 33], 7), (500, 35, [3, 3], 1), (7, 530, [5, 4], 1), (40, 37, [9, 9], 5)];
    for (inputs, outputs, size, kernel) in cases {
        let shape = ConvShape {
            channels: [inputs, outputs],
            kernel: [kernel; 2],
            stride: [1, 1],
            padding: [kernel / 2; 2],
            dilation: [1, 1],
            groups: 1,
        };
        let case = Case { shape, batch: 2, input: size };
        let pixels = 2 * size[0] * size[1];
        let (input, gradient) = (noise(inputs * pixels, 5), noise(outputs * pixels, 6));
        let (weight, bias) = (noise(shape.weights(), 7), noise(outputs, 8));
        let expected = reference(&case, &input, &weight, &bias, &gradient);
        for isa in Isa::available() {
            let pass = ConvPass::new(isa, shape, 2, size).unwrap();
            let terms = [inputs * kernel * kernel, outputs * kernel * kernel, pixels];
            close(
                "output",
                &pass.forward(&input, &weight, ChannelAffine { shift: Some(&bias), ..ChannelAffine::default() }),
                &expected.output,
                terms[0],
            )
            .unwrap();
            close("input", &pass.backward_input(&gradient, &weight), &expected.input, terms[1]).unwrap();
            close("weight", &pass.backward_weight(&input, &gradient), &expected.weight, terms[2]).unwrap();
        }
    }
}

#[test]
fn a_filtered_weight_of_more_tiles_than_are_summed_at_once_is_its_definition() {
    let shape = ConvShape { padding: [1; 2], ..ConvShape::square(910, 1, 3) };
    let case = Case { shape, batch: 1, input: [57, 57] };
    let (input, gradient) = (noise(910 * 57 * 57, 1), noise(57 * 57, 2));
    let expected = reference(&case, &input, &vec![0.0; shape.weights()], &[0.0], &gradient);
    for isa in Isa::available() {
        let pass = ConvPass::new(isa, shape, 1, case.input).unwrap().with_tile(Some(WinogradTile::Four));
        close("weight", &pass.backward_weight(&input, &gradient), &expected.weight, 57 * 57).unwrap();
    }
}

#[test]
fn a_max_pool_finds_the_first_of_the_largest_and_sends_the_gradient_there() {
    let pass = max_pool(Isa::detect().unwrap(), [3, 4], [[3, 3], [2, 2], [1, 1]]);
    let input = [-1.0, 5.0, 2.0, 5.0, -3.0, 1.0, 0.0, 4.0, 7.0, 1.0, -9.0, 8.0];
    let (output, places) = pass.forward(&input);
    assert_eq!((output.as_slice(), places.as_slice()), ([5.0, 5.0, 7.0, 8.0].as_slice(), [1, 1, 8, 11].as_slice()));
    let gradient = pass.backward(&places, &[1.0, 2.0, 3.0, 4.0]);
    assert_eq!(gradient, [0.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0, 0.0, 0.0, 4.0]);
}

#[test]
fn a_max_pool_returns_nan_where_its_window_has_one() {
    let isa = Isa::detect().unwrap();
    let pass = max_pool(isa, [1, 6], [[1, 3], [1; 2], [0; 2]]);
    let input = [1.0, f32::NAN, 5.0, 2.0, 4.0, f32::NEG_INFINITY];
    let (output, places) = pass.forward(&input);
    assert!(output[..2].iter().all(|value| value.is_nan()), "the window's NaN is lost: {output:?}");
    assert_eq!((&output[2..], places.as_slice()), ([5.0, 4.0].as_slice(), [1, 1, 2, 4].as_slice()));
}

#[test]
fn add_relu_passes_gradients_where_it_is_positive() {
    for isa in Isa::available() {
        let output = add_relu(isa, &[1.0, -2.0, 0.5], &[1.0, 1.0, -0.5]);
        assert_eq!(output, [2.0, 0.0, 0.0], "{isa}");
        assert_eq!(add_relu_backward(isa, &output, &[3.0, 4.0, 5.0]), [3.0, 0.0, 0.0], "{isa}");
    }
}

#[test]
fn an_sgd_step_is_as_its_rule_says() {
    let (param, velocity, gradient) = (noise(20_000, 1), noise(20_000, 2), noise(20_000, 3));
    for (isa, nesterov) in Isa::available().flat_map(|isa| [false, true].map(|nesterov| (isa, nesterov))) {
        let rule = SgdStep { rate: 0.1, momentum: 0.9, nesterov, decay: 0.01 };
        let (mut own, mut own_velocity) = (param.clone(), velocity.clone());
        rule.step(isa, &mut own, &mut own_velocity, &gradient);
        let all = param.iter().zip(&velocity).zip(&gradient);
        let expected = all.map(|((&p, &v), &g)| {
            let g = f64::from(g) + 0.01 * f64::from(p);
            let v = g + 0.9 * f64::from(v);
            (f64::from(p) - 0.1 * if nesterov { g + 0.9 * v } else { v }, v)
        });
        let (expected, expected_velocity): (Vec<f64>, Vec<f64>) = expected.unzip();
        close("parameter", &own, &expected, 4).unwrap();
        close("velocity", &own_velocity, &expected_velocity, 4).unwrap();
    }
}

#[test]
fn activations_and_their_gradients_are_those_of_the_definition() {
    let input: Vec<f32> = random(40_000, 7).into_iter().map(|x| 9.0 * x).collect();
    let gradient = random(input.len(), 8);
    for isa in Isa::available() {
        for function in Activation::ALL {
            let output = activation(isa, function, &input);
            let kept = if activation_keeps_output(function) { &output } else { &input };
            let found = activation_backward(isa, function, kept, &gradient);
            let exact: Vec<_> =
                input.iter().map(|x| (activated(function, f64::from(*x)), f64::from(x.abs()))).collect();
            assert_close(&output, &exact, 1e-6, &format!("{function:?} on {isa}"));
            for ((x, g), found) in input.iter().zip(&gradient).zip(found) {
                // Bends have no slope.
                if [-3.0f32, 0.0, 3.0, 6.0].iter().all(|bend| (x - bend).abs() > 1e-3) {
                    let expected = f64::from(*g) * slope(function, f64::from(*x));
                    let error = (f64::from(found) - expected).abs();
                    assert!(error < 1e-6, "the gradient of {function:?} at {x} on {isa} is {found}, not {expected}");
                }
            }
        }
    }
}

/// The values, each rounded to the nearest bfloat16 number.
fn rounded(values: &[f32]) -> (Vec<bf16>, Vec<f32>) {
    let numbers: Vec<bf16> = values.iter().map(|&value| bf16::from_f32(value)).collect();
    let values = numbers.iter().map(|number| number.to_f32()).collect();
    (numbers, values)
}

/// Fails unless all numbers are within a rounding of the sum of as many products, and their own.
fn close_in_bf16(what: &str, found: &[bf16], expected: &[f64]) -> Result<(), TestCaseError> {
    prop_assert_eq!(found.len(), expected.len(), "{}", what);
    // What is multiplied may be rounded once more on the way: by Winograd's transforms, and weights.
    let norm = (expected.iter().map(|value| value * value).sum::<f64>() / expected.len() as f64).sqrt();
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(found.to_f32()) - expected).abs();
        prop_assert!(
            error <= expected.abs() / 200.0 + norm / 50.0,
            "{}: {} at {}, expected {}",
            what,
            found,
            i,
            expected
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.min(96), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_convolution_of_bfloat16_numbers_and_its_gradients_are_their_definition(
        case in prop_oneof![cases(), winograd_cases()],
        seed in 1..u64::MAX,
    ) {
        let Case { shape, batch, input: [height, width] } = case;
        let outputs = shape.channels[1];
        let cells = shape.output(case.input).unwrap().iter().product::<usize>();
        let (input, wide_input) = rounded(&noise(batch * shape.channels[0] * height * width, seed));
        let (_, weight) = rounded(&noise(shape.weights(), seed ^ 1));
        let (gradient, wide_gradient) = rounded(&noise(batch * outputs * cells, seed ^ 3));
        let bias = noise(outputs, seed ^ 2);
        let expected = reference(&case, &wide_input, &weight, &bias, &wide_gradient);
        for isa in Isa::available() {
            let pass = ConvPass::new(isa, shape, batch, case.input).unwrap();
            let output = pass.forward(&input, &weight, ChannelAffine { shift: Some(&bias), ..ChannelAffine::default() });
            close_in_bf16("output", &output, &expected.output)?;
            close_in_bf16("input", &pass.backward_input(&gradient, &weight), &expected.input)?;
            let of_weight: Vec<bf16> =
                pass.backward_weight(&input, &gradient).into_iter().map(bf16::from_f32).collect();
            close_in_bf16("weight", &of_weight, &expected.weight)?;
        }
    }
}
