//! The hyperbolic tangent and the sigmoid without branches or calls, so that loops over them become vectors.
//!
//! Both come from eˣ − 1, which keeps its digits near zero: x = n·ln 2 + r, a polynomial in r, and 2ⁿ put together from its
//! bits. They are within three units in the last place of the exact functions.

/// eˣ − 1 for x in [−87, 87]; NaN of NaN.
#[inline(always)]
fn exp_m1(x: f32) -> f32 {
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
    power * (r + r * r * tail) + (power - 1.0)
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
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 87.0 { 87.0 } else { x };
    1.0 / (2.0 + exp_m1(-x))
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
}
