//! Element-wise functions: activations, and the scale and shift of each channel.
#![allow(unsafe_code)]

use crate::math;
use crate::simd::{MAX_LANES, Simd};

/// The element-wise function that follows an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// None.
    #[default]
    Identity,
    /// max(0, x).
    Relu,
    /// The hyperbolic tangent.
    Tanh,
    /// The sigmoid.
    Sigmoid,
}

impl Activation {
    /// Of a vector.
    ///
    /// # Safety
    /// The processor has `S`'s instructions.
    #[inline(always)]
    pub(crate) unsafe fn apply<S: Simd>(self, vector: S::Vector) -> S::Vector {
        // SAFETY: the caller's promise; the array holds any vector.
        unsafe {
            match self {
                Self::Identity => vector,
                // NaN stays: where an operand is NaN, the instruction returns the second.
                Self::Relu => S::max(S::splat(0.0), vector),
                Self::Tanh | Self::Sigmoid => {
                    let mut values = [0.0; MAX_LANES];
                    S::store(values.as_mut_ptr(), vector);
                    for value in &mut values[..S::LANES] {
                        *value = self.of(*value);
                    }
                    S::load(values.as_ptr())
                }
            }
        }
    }

    /// Of one value.
    #[inline(always)]
    pub fn of(self, x: f32) -> f32 {
        match self {
            Self::Identity => x,
            Self::Relu if x < 0.0 => 0.0,
            Self::Relu => x,
            Self::Tanh => math::tanh(x),
            Self::Sigmoid => math::sigmoid(x),
        }
    }
}

/// A scale and a shift of each channel: batch normalization by running statistics.
#[derive(Clone, Debug, PartialEq)]
pub struct ScaleShift {
    /// Per channel.
    pub scale: Vec<f32>,
    /// Per channel.
    pub shift: Vec<f32>,
}

/// Batch normalization by given statistics, (x − mean) / √(variance + ε) · weight + bias, as a scale and a shift of
/// each channel. Computed in 64 bits.
///
/// # Panics
/// The slices differ in length.
pub fn fold_batch_norm(weight: &[f32], bias: &[f32], mean: &[f32], variance: &[f32], epsilon: f64) -> ScaleShift {
    let channels = weight.len();
    assert!([bias, mean, variance].iter().all(|values| values.len() == channels), "parameters of {channels} channels");
    let pairs = (0..channels).map(|c| {
        let scale = f64::from(weight[c]) / (f64::from(variance[c]) + epsilon).sqrt();
        (scale as f32, (f64::from(bias[c]) - f64::from(mean[c]) * scale) as f32)
    });
    let (scale, shift) = pairs.unzip();
    ScaleShift { scale, shift }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folded_batch_norm_is_the_batch_norm() {
        // Means of many deviations and a variance of zero: where 32 bits would lose digits.
        let (weight, bias) = ([1.5, -0.25, 2.0], [0.5, 3.0, -1.0]);
        let (mean, variance) = ([1000.0, -3.0, 0.125], [1e-4, 4.0, 0.0]);
        let folded = fold_batch_norm(&weight, &bias, &mean, &variance, 1e-5);
        for c in 0..3 {
            let deviation = (f64::from(variance[c]) + 1e-5).sqrt();
            for x in [-1.0f32, 0.0, 7.5] {
                let expected =
                    (f64::from(x) - f64::from(mean[c])) / deviation * f64::from(weight[c]) + f64::from(bias[c]);
                let found = f64::from(folded.scale[c]) * f64::from(x) + f64::from(folded.shift[c]);
                let size = f64::from(folded.shift[c]).abs().max(f64::from(folded.scale[c] * x).abs()).max(1.0);
                assert!((found - expected).abs() < 1e-6 * size, "channel {c} of {x}: {found} instead of {expected}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "parameters of 2 channels")]
    fn parameters_of_other_channels_are_refused() {
        fold_batch_norm(&[1.0; 2], &[0.0; 2], &[0.0; 3], &[1.0; 2], 1e-5);
    }
}
