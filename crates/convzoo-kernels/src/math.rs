//! Activations without branches or calls, so that loops over them become vectors; and the slopes of those whose backward
//! pass starts from the input.
//!
//! The curved ones come from eˣ: x = n·ln 2 + r, a polynomial in r, and 2ⁿ put together from its bits. Near zero eˣ − 1 keeps
//! its digits. The hyperbolic tangent and the sigmoid are within three units in the last place of the exact functions.

/// 2ⁿ and eʳ − 1 for x = n·ln 2 + r in [−87, 87], |r| at most ln 2 / 2; NaN of NaN.
#[inline(always)]
fn exp_parts(x: f32) -> [f32; 2] {
    // Adding it rounds to a whole number, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, the first so short that its multiples are exact.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN_2[0]) - n * LN_2[1];
    // eʳ − 1 − r by its series: |r| is at most ln 2 / 2, and the first term left out less than 2⁻²⁷.
    let series = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5];
    let tail = series.into_iter().fold(0.0, |sum, term| sum * r + term);
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    [power, r + r * r * tail]
}

/// eˣ − 1 for x in [−87, 87]; NaN of NaN.
#[inline(always)]
fn exp_m1(x: f32) -> f32 {
    let [power, rest] = exp_parts(x);
    power * rest + (power - 1.0)
}

/// e^(−x²/2).
#[inline(always)]
fn bell(x: f32) -> f32 {
    let exponent = x * x * -0.5;
    let [power, rest] = exp_parts(if exponent < -87.0 { -87.0 } else { exponent });
    power * rest + power
}

/// The hyperbolic tangent.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    // Beyond 10 it is one; a comparison keeps NaN, `min` would not.
    let size = if x.abs() > 10.0 { 10.0 } else { x.abs() };
    let e = exp_m1(-2.0 * size);
    (-e / (e + 2.0)).copysign(x)
}

/// 1 / (1 + e⁻ˣ).
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (2.0 + exp_m1(-clamp(x, -87.0, 87.0)))
}

/// x between two bounds; NaN of NaN.
#[inline(always)]
fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// min(max(0, x), 6).
#[inline(always)]
pub(crate) fn relu6(x: f32) -> f32 {
    clamp(x, 0.0, 6.0)
}

/// The slope of [`relu6`].
#[inline(always)]
pub(crate) fn relu6_slope(x: f32) -> f32 {
    if x > 0.0 && x < 6.0 { 1.0 } else { 0.0 }
}

/// ReLU6(x + 3) / 6.
#[inline(always)]
pub(crate) fn hardsigmoid(x: f32) -> f32 {
    relu6(x + 3.0) * (1.0 / 6.0)
}

/// The slope of [`hardsigmoid`].
#[inline(always)]
pub(crate) fn hardsigmoid_slope(x: f32) -> f32 {
    relu6_slope(x + 3.0) * (1.0 / 6.0)
}

/// x · [`hardsigmoid`]`(x)`.
#[inline(always)]
pub(crate) fn hardswish(x: f32) -> f32 {
    x * hardsigmoid(x)
}

/// The slope of [`hardswish`].
#[inline(always)]
pub(crate) fn hardswish_slope(x: f32) -> f32 {
    let middle = x * (1.0 / 3.0) + 0.5;
    let left = if x < -3.0 { 0.0 } else { middle };
    if x > 3.0 { 1.0 } else { left }
}

/// x · [`sigmoid`]`(x)`.
#[inline(always)]
pub(crate) fn silu(x: f32) -> f32 {
    x * sigmoid(x)
}

/// The slope of [`silu`].
#[inline(always)]
pub(crate) fn silu_slope(x: f32) -> f32 {
    let sigmoid = sigmoid(x);
    sigmoid * (1.0 + x * (1.0 - sigmoid))
}

/// What of the normal distribution lies beyond |x|, as a share of e^(−x²/2): a polynomial in 1 / (1 + 0.35 |x|) without a
/// constant term, fitted to a relative error of 4·10⁻⁸.
const SHARE: [f32; 9] = [
    -0.029_146_135,
    0.143_972_68,
    -0.255_716_26,
    0.159_176_44,
    -0.023_111_377,
    0.105_508_65,
    0.119_832_71,
    0.139_861_9,
    0.139_621_4,
];

/// By which |x| is multiplied there.
const SHARE_STEP: f32 = 0.35;

/// What of the normal distribution lies beyond |x|, and e^(−x²/2).
#[inline(always)]
fn normal_tail(x: f32) -> [f32; 2] {
    let t = 1.0 / (1.0 + SHARE_STEP * x.abs());
    let share = SHARE.into_iter().fold(0.0, |sum, term| sum * t + term) * t;
    let bell = bell(x);
    [bell * share, bell]
}

/// x · Φ(x).
#[inline(always)]
pub(crate) fn gelu(x: f32) -> f32 {
    let [tail, _] = normal_tail(x);
    // Beyond 13 nothing is left, and infinity times it is no number.
    let size = if x.abs() > 13.0 { 13.0 } else { x.abs() };
    let positive = if x < 0.0 { 0.0 } else { x };
    positive - size * tail
}

/// The slope of [`gelu`].
#[inline(always)]
pub(crate) fn gelu_slope(x: f32) -> f32 {
    // 1 / √(2π).
    const HEIGHT: f32 = 0.398_942_3;
    let [tail, bell] = normal_tail(x);
    let below = if x < 0.0 { tail } else { 1.0 - tail };
    below + clamp(x, -13.0, 13.0) * (bell * HEIGHT)
}

/// The same of a vector, with multiply-adds: what runs over whole feature maps in inference. Each is within 10⁻⁶ of its
/// definition, relative to x where that is larger than 1.
///
/// Operands are ordered so that NaN stays NaN: where one is, [`Simd::min`] and [`Simd::max`] return the second.
pub(crate) mod vector {
    #![allow(unsafe_code)]

    use super::{SHARE, SHARE_STEP};
    use crate::simd::Simd;

    /// e to the power of `scale`·x in [−87, 87]: 2ⁿ⁺ᶠ with a whole n, and of f in [−½, ½] a polynomial, fitted to a
    /// relative error of 10⁻⁷.
    #[inline(always)]
    unsafe fn exp<S: Simd>(x: S::Vector, scale: f32) -> S::Vector {
        const ROUND: f32 = 12_582_912.0;
        const TERMS: [f32; 5] = [0.009_669_691, 0.055_505_585, 0.240_222_83, std::f32::consts::LN_2, 1.0];
        // SAFETY: the processor has the instructions, the caller's promise; so below.
        unsafe {
            let scale = S::splat(scale * std::f32::consts::LOG2_E);
            let n = S::sub(S::mul_add(x, scale, S::splat(ROUND)), S::splat(ROUND));
            let f = S::mul_add(x, scale, S::sub(S::splat(0.0), n));
            let mut sum = S::splat(0.001_330_060_7);
            for term in TERMS {
                sum = S::mul_add(sum, f, S::splat(term));
            }
            S::mul(sum, S::power_of_two(n))
        }
    }

    /// 1 + e⁻ˣ.
    #[inline(always)]
    unsafe fn logistic_denominator<S: Simd>(x: S::Vector) -> S::Vector {
        // SAFETY: as above.
        unsafe {
            let x = S::min(S::splat(87.0), S::max(S::splat(-87.0), x));
            S::add(S::splat(1.0), exp::<S>(x, -1.0))
        }
    }

    /// 1 / (1 + e⁻ˣ).
    #[inline(always)]
    pub(crate) unsafe fn sigmoid<S: Simd>(x: S::Vector) -> S::Vector {
        // SAFETY: as above.
        unsafe { S::div(S::splat(1.0), logistic_denominator::<S>(x)) }
    }

    /// x / (1 + e⁻ˣ).
    #[inline(always)]
    pub(crate) unsafe fn silu<S: Simd>(x: S::Vector) -> S::Vector {
        // SAFETY: as above.
        unsafe { S::div(x, logistic_denominator::<S>(x)) }
    }

    /// x · Φ(x).
    #[inline(always)]
    pub(crate) unsafe fn gelu<S: Simd>(x: S::Vector) -> S::Vector {
        // SAFETY: as above.
        unsafe {
            let (zero, one) = (S::splat(0.0), S::splat(1.0));
            let size = S::max(S::sub(zero, x), x);
            let t = S::div(one, S::mul_add(size, S::splat(SHARE_STEP), one));
            let mut share = S::splat(SHARE[0]);
            for term in &SHARE[1..] {
                share = S::mul_add(share, t, S::splat(*term));
            }
            let bell = exp::<S>(S::min(S::splat(174.0), S::mul(x, x)), -0.5);
            let tail = S::mul(S::mul(bell, t), share);
            // Beyond 13 nothing is left, and infinity times it is no number.
            S::sub(S::max(zero, x), S::mul(S::min(S::splat(13.0), size), tail))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest error over a grid of all sizes, in units in the last place of the exact value.
    fn error(own: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64) -> f64 {
        let sizes = (-1200..=400).map(|i| (f64::from(i) * 0.0113).exp2() as f32);
        let values = sizes.flat_map(|size| [size, -size]).filter(|x| x.abs() < 80.0);
        let errors = values.map(|x| {
            let exact = exact(f64::from(x));
            let unit = f64::from((exact as f32).abs().next_up()) - f64::from((exact as f32).abs());
            (f64::from(own(x)) - exact).abs() / unit
        });
        errors.fold(0.0, f64::max)
    }

    #[test]
    fn functions_are_exact_but_for_the_last_digit() {
        let (tanh_error, sigmoid_error) = (error(tanh, f64::tanh), error(sigmoid, |x| 1.0 / (1.0 + (-x).exp())));
        assert!(tanh_error < 3.0, "tanh is {tanh_error} units off");
        assert!(sigmoid_error < 3.0, "sigmoid is {sigmoid_error} units off");
    }

    #[test]
    fn limits_and_nan_are_as_they_should_be() {
        assert_eq!([0.0, -0.0, 1e30, f32::NEG_INFINITY].map(tanh), [0.0, -0.0, 1.0, -1.0]);
        assert_eq!([0.0, 1e30, f32::INFINITY].map(sigmoid), [0.5, 1.0, 1.0]);
        assert!(sigmoid(f32::NEG_INFINITY) < 1e-37);
        assert!(tanh(f32::NAN).is_nan() && sigmoid(f32::NAN).is_nan());
    }

    /// Φ(x) by Simpson's rule on the density.
    fn normal(x: f64) -> f64 {
        let density = |x: f64| (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt();
        let (steps, start) = (4000, -12.0);
        let step = (x - start) / f64::from(steps);
        let at = |i: u32| density(start + step * f64::from(i));
        let weight = |i: u32| if i == 0 || i == steps { 1.0 } else { f64::from(2 + 2 * (i % 2)) };
        (0..=steps).map(|i| weight(i) * at(i)).sum::<f64>() * step / 3.0
    }

    #[test]
    fn functions_of_the_input_and_their_slopes_are_those_of_their_definitions() {
        type Function = (&'static str, fn(f32) -> f32, fn(f64) -> f64);
        let functions: [Function; 8] = [
            ("relu6", relu6, |x| x.clamp(0.0, 6.0)),
            ("hardsigmoid", hardsigmoid, |x| (x + 3.0).clamp(0.0, 6.0) / 6.0),
            ("hardswish", hardswish, |x| x * (x + 3.0).clamp(0.0, 6.0) / 6.0),
            ("hardswish's slope", hardswish_slope, |x| {
                if x < -3.0 {
                    0.0
                } else if x > 3.0 {
                    1.0
                } else {
                    x / 3.0 + 0.5
                }
            }),
            ("silu", silu, |x| x / (1.0 + (-x).exp())),
            ("silu's slope", silu_slope, |x| (1.0 + x - x / (1.0 + (-x).exp())) / (1.0 + (-x).exp())),
            ("gelu", gelu, |x| x * normal(x)),
            ("gelu's slope", gelu_slope, |x| normal(x) + x * (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt()),
        ];
        assert!((normal(1.0) - 0.841_344_746_068_543).abs() < 1e-12, "the exact function of this test");
        for (name, own, exact) in functions {
            for i in -900..=900 {
                // Not on a bend, where a slope has two sides.
                let x = i as f32 * 0.01 + 0.003;
                let (found, expected) = (f64::from(own(x)), exact(f64::from(x)));
                // Some roundings of 32 bits, of values up to 10.
                assert!(
                    (found - expected).abs() < 1e-6 * expected.abs().max(1.0),
                    "{name} of {x}: {found}, not {expected}"
                );
            }
            assert!(own(f32::NAN).is_nan(), "{name} of NaN");
        }
        assert_eq!([f32::NEG_INFINITY, 100.0, f32::INFINITY].map(gelu), [0.0, 100.0, f32::INFINITY]);
        assert!(gelu(-100.0).abs() < 1e-37, "{} far below zero", gelu(-100.0));
        assert!(gelu_slope(-1e30).abs() < 1e-37 && gelu_slope(1e30) == 1.0, "far from zero");
        assert_eq!([0.0, 6.0, 3.0].map(relu6_slope), [0.0, 0.0, 1.0]);
        assert_eq!([-3.0, 3.0, 0.0].map(hardsigmoid_slope), [0.0, 0.0, 1.0 / 6.0]);
    }
}
