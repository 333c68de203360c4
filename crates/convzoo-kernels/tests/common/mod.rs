//! Inputs, what results should be, and how they are compared.
#![allow(dead_code)] // each test binary uses its part

use convzoo_kernels::Numbers;
use convzoo_kernels::elementwise::Activation;
use half::bf16;

/// An activation by its definition.
pub fn activated(function: Activation, x: f64) -> f64 {
    let hardsigmoid = |x: f64| (x + 3.0).clamp(0.0, 6.0) / 6.0;
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match function {
        Activation::Identity => x,
        Activation::Relu => x.max(0.0),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::Tanh => x.tanh(),
        Activation::Sigmoid => sigmoid(x),
        Activation::Hardsigmoid => hardsigmoid(x),
        Activation::Silu => x * sigmoid(x),
        Activation::Hardswish => x * hardsigmoid(x),
        Activation::Gelu => x * normal(x),
    }
}

/// The normal distribution function: a half and the density times a series whose terms all have the sign of x.
fn normal(x: f64) -> f64 {
    if x.abs() > 12.0 {
        return if x > 0.0 { 1.0 } else { 0.0 };
    }
    let density = (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt();
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= x * x / f64::from(2 * n + 1);
        sum += term;
    }
    0.5 + density * sum
}

/// The slope of an activation, from its definition.
pub fn slope(function: Activation, x: f64) -> f64 {
    let step = 1e-6;
    (activated(function, x + step) - activated(function, x - step)) / (2.0 * step)
}

/// Values in [-1, 1] that depend on `seed` alone.
pub fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Both numbers of activations.
pub const NUMBERS: [Numbers; 2] = [Numbers::F32, Numbers::Bf16];

/// The nearest of such numbers to each value.
pub fn rounded(numbers: Numbers, mut values: Vec<f32>) -> Vec<f32> {
    if numbers == Numbers::Bf16 {
        values.iter_mut().for_each(|value| *value = bf16::from_f32(*value).to_f32());
    }
    values
}

/// Half of a unit in the last place of a number of magnitude one.
pub fn unit(numbers: Numbers) -> f64 {
    match numbers {
        Numbers::F32 => 0.0,
        Numbers::Bf16 => 1.0 / 256.0,
    }
}

/// Fails at the first value that differs by more than `tolerance` of its terms' magnitude.
pub fn assert_close(found: &[f32], expected: &[(f64, f64)], tolerance: f64, what: &str) {
    assert_near(found, expected, 0.0, tolerance, what);
}

/// The same where results may be rounded besides, by a share `unit` of them.
pub fn assert_near(found: &[f32], expected: &[(f64, f64)], unit: f64, tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: values");
    for (i, (found, (expected, magnitude))) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs();
        let bound = unit * expected.abs() + tolerance * magnitude.max(1.0);
        assert!(error <= bound, "{what}: value {i} is {found}, not {expected}; the error may be {bound:e}");
    }
}
