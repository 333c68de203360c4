//! Every convolution kernel, on every instruction set of this machine, against the definition.

#![allow(clippy::unwrap_used)] // a panic is how a test fails
#![allow(clippy::needless_range_loop)] // indices as in the definition

mod common;

use common::{NUMBERS, activated, assert_near, random, rounded, unit};
use convzoo_kernels::blocked::conv::{Algorithm, Conv, Epilogue};
use convzoo_kernels::conv::ConvShape;
use convzoo_kernels::elementwise::Activation;
use convzoo_kernels::winograd::WinogradTile;
use convzoo_kernels::{Isa, KernelError, Layout, Numbers};
use proptest::prelude::*;

/// The convolution of images `[batch, channels, height, width]`, with the sum of the terms' magnitudes, which bounds
/// what rounding can do.
fn convolve(
    shape: &ConvShape,
    batch: usize,
    [height, width]: [usize; 2],
    input: &[f32],
    weight: &[f32],
    bias: &[f32],
) -> Vec<(f64, f64)> {
    let [inputs, outputs] = shape.channels;
    let [rows, columns] = shape.output([height, width]).unwrap();
    let group = [inputs / shape.groups, outputs / shape.groups];
    let mut result = Vec::new();
    for n in 0..batch {
        for o in 0..outputs {
            for y in 0..rows {
                for x in 0..columns {
                    let (mut total, mut magnitude) = (f64::from(bias[o]), f64::from(bias[o]).abs());
                    for c in 0..group[0] {
                        for ky in 0..shape.kernel[0] {
                            for kx in 0..shape.kernel[1] {
                                let iy = (y * shape.stride[0] + ky * shape.dilation[0]).wrapping_sub(shape.padding[0]);
                                let ix = (x * shape.stride[1] + kx * shape.dilation[1]).wrapping_sub(shape.padding[1]);
                                if iy < height && ix < width {
                                    let channel = o / group[1] * group[0] + c;
                                    let value = input[((n * inputs + channel) * height + iy) * width + ix];
                                    let tap = ((o * group[0] + c) * shape.kernel[0] + ky) * shape.kernel[1] + kx;
                                    let term = f64::from(value) * f64::from(weight[tap]);
                                    total += term;
                                    magnitude += term.abs();
                                }
                            }
                        }
                    }
                    result.push((total, magnitude));
                }
            }
        }
    }
    result
}

/// What surrounds a convolution.
#[derive(Clone, Debug)]
struct Use {
    batch: usize,
    size: [usize; 2],
    sum: bool,
    activation: Activation,
    numbers: Numbers,
    /// Columns of halo beyond the padding of the input, and of the output and the sum.
    halos: [usize; 3],
    threads: usize,
    seed: u64,
}

fn uses() -> impl Strategy<Value = Use> {
    let size = prop::array::uniform2(1usize..=20);
    let halos = prop::array::uniform3(0usize..=1);
    let parts = (
        1usize..=2,
        size,
        any::<bool>(),
        prop::sample::select(Activation::ALL.to_vec()),
        prop::sample::select(NUMBERS.to_vec()),
        halos,
        1usize..=3,
        any::<u64>(),
    );
    parts.prop_map(|(batch, size, sum, activation, numbers, halos, threads, seed)| Use {
        batch,
        size,
        sum,
        activation,
        numbers,
        halos,
        threads,
        seed,
    })
}

/// Groups with any number of channels each.
fn channels() -> impl Strategy<Value = (usize, [usize; 2])> {
    prop_oneof![
        (Just(1usize), prop::array::uniform2(1usize..=40)),
        (2usize..=5, prop::array::uniform2(1usize..=9)).prop_map(|(groups, [i, o])| (groups, [i * groups, o * groups])),
        (Just(2usize), Just([32, 96])),
    ]
}

fn shapes() -> impl Strategy<Value = ConvShape> {
    let pair = |range| prop::array::uniform2(range);
    (channels(), pair(1usize..=4), pair(1usize..=3), pair(0usize..=3), pair(1usize..=2)).prop_map(
        |((groups, channels), kernel, stride, padding, dilation)| ConvShape {
            channels,
            kernel,
            stride,
            padding,
            dilation,
            groups,
        },
    )
}

/// Runs the case on each instruction set and compares.
fn check(algorithm: Algorithm, shape: ConvShape, case: &Use, tolerance: f64) -> Result<(), TestCaseError> {
    let Ok([rows, columns]) = shape.output(case.size) else { return Err(TestCaseError::reject("too small")) };
    let [inputs, outputs] = shape.channels;
    let [height, width] = case.size;
    // Images in planes are of `f32`, and so are the weights that they are multiplied by.
    let planar = algorithm == Algorithm::Planar;
    let of = if planar { Numbers::F32 } else { case.numbers };
    let input = rounded(of, random(case.batch * inputs * height * width, case.seed));
    let weight = rounded(of, random(shape.weights(), case.seed ^ 1));
    let bias = random(outputs, case.seed ^ 2);
    let sum = rounded(case.numbers, random(case.batch * outputs * rows * columns, case.seed ^ 3));
    let mut expected = convolve(&shape, case.batch, case.size, &input, &weight, &bias);
    if case.sum {
        expected.iter_mut().zip(&sum).for_each(|((total, _), sum)| *total += f64::from(*sum));
    }
    // A curved activation is of the rounded total, and rounded again; its slope is at most 1.13.
    let twice = !matches!(case.activation, Activation::Identity | Activation::Relu | Activation::Relu6);
    let unit = unit(case.numbers);
    for (total, magnitude) in &mut expected {
        if twice {
            *magnitude += 1.2 * unit / tolerance * total.abs();
        }
        *total = activated(case.activation, *total);
    }
    for isa in Isa::available() {
        let lanes = if planar { 1 } else { isa.lanes() };
        let from = Layout::new([case.batch, inputs, height, width], lanes, shape.padding[1] + case.halos[0]).of(of);
        let into = |halo| Layout::new([case.batch, outputs, rows, columns], isa.lanes(), halo).of(case.numbers);
        let epilogue = Epilogue { sum: case.sum.then(|| into(case.halos[1])), activation: case.activation };
        let conv = Conv::new(isa, shape, algorithm, case.numbers, &weight, Some(&bias)).unwrap();
        let operation = conv.operation(from, into(case.halos[2]), epilogue, case.threads).unwrap();
        let tensors: &[&[f32]] = if case.sum { &[&input, &sum] } else { &[&input] };
        let what = format!("{algorithm:?} in {:?} on {isa}", case.numbers);
        assert_near(&operation.apply(tensors), &expected, unit, tolerance, &what);
    }
    Ok(())
}

proptest! {
    #[test]
    fn direct_equals_the_definition(shape in shapes(), case in uses()) {
        check(Algorithm::Direct, shape, &case, 1e-6)?;
    }

    #[test]
    fn planar_equals_the_definition(shape in shapes(), case in uses(), step in 1usize..=4) {
        let shape = ConvShape { stride: [step; 2], ..shape };
        check(Algorithm::Planar, shape, &case, 1e-6)?;
    }

    #[test]
    fn pointwise_equals_the_definition(channels in prop::array::uniform2(1usize..=70), case in uses()) {
        let shape = ConvShape { channels, ..ConvShape::square(1, 1, 1) };
        check(Algorithm::Direct, shape, &case, 1e-6)?;
    }

    #[test]
    fn depthwise_equals_the_definition(shape in shapes(), channels in 1usize..=40, case in uses()) {
        let shape = ConvShape { channels: [channels; 2], groups: channels, ..shape };
        check(Algorithm::Depthwise, shape, &case, 1e-6)?;
    }

    #[test]
    fn winograd_equals_the_definition(
        channels in prop::array::uniform2(1usize..=40),
        padding in prop::array::uniform2(0usize..=2),
        case in uses(),
    ) {
        let shape = ConvShape { channels, padding, ..ConvShape::square(1, 1, 3) };
        // In bfloat16 a tile's inputs and kernel are rounded once more, by a 256th at most each, up and down.
        let (two, four) = match case.numbers {
            Numbers::F32 => (2e-6, 1e-5),
            Numbers::Bf16 => (0.03, 0.15),
        };
        check(Algorithm::Winograd(WinogradTile::Two), shape, &case, two)?;
        check(Algorithm::Winograd(WinogradTile::Four), shape, &case, four)?;
    }
}

#[test]
fn a_misshapen_convolution_is_an_error() {
    let shape = ConvShape::square(4, 6, 3);
    let make = |shape: ConvShape, weights: usize| {
        Conv::new(Isa::Portable, shape, Algorithm::Direct, Numbers::F32, &vec![0.0; weights], None).err()
    };
    let weight = shape.weights();
    assert_eq!(make(shape, weight), None);
    let what = "a convolution's weight";
    assert_eq!(make(shape, weight - 1), Some(KernelError::Length { what, expected: 216, found: 215 }));
    assert_eq!(
        make(ConvShape { groups: 4, ..shape }, weight / 4),
        Some(KernelError::Groups { channels: [4, 6], groups: 4 })
    );
    let error = make(ConvShape { stride: [0, 1], ..shape }, weight);
    assert!(matches!(error, Some(KernelError::Window { .. })), "a stride of zero gives {error:?}");
    let error = shape.output([2, 9]);
    assert_eq!(error, Err(KernelError::TooSmall { operation: "convolution", size: [2, 9] }));
}

#[test]
fn layouts_that_do_not_fit_are_an_error() {
    let shape = ConvShape { padding: [1; 2], ..ConvShape::square(4, 6, 3) };
    let weight = vec![0.0; shape.weights()];
    let conv = Conv::new(Isa::Portable, shape, Algorithm::Direct, Numbers::F32, &weight, None).unwrap();
    let layout = |channels, side, halo| Layout::new([1, channels, side, side], 8, halo);
    let fits = |from, into| conv.operation(from, into, Epilogue::default(), 2).map(|_| ());
    assert_eq!(fits(layout(4, 5, 1), layout(6, 5, 0)), Ok(()));
    for (from, into) in [
        (layout(5, 5, 1), layout(6, 5, 0)),
        (layout(4, 5, 1), layout(7, 5, 0)),
        (layout(4, 5, 1), layout(6, 4, 0)),
        (layout(4, 5, 0), layout(6, 5, 0)),
        (layout(4, 5, 1).of(Numbers::Bf16), layout(6, 5, 0)),
        (layout(4, 5, 1), layout(6, 5, 0).of(Numbers::Bf16)),
    ] {
        assert!(fits(from, into).is_err(), "{from:?} to {into:?} is taken");
    }
}
