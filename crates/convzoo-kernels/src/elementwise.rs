//! Element-wise functions: activations, and the scale and shift of each channel.
#![allow(unsafe_code)]

pub use convzoo_graph::Activation;

use crate::math::{self, vector};
use crate::number::Number;
use crate::simd::{Kernel, Simd};

/// What kernels do with an [`Activation`].
pub(crate) trait Apply: Copy {
    /// Of one value.
    fn of(self, x: f32) -> f32;

    /// The slope times `gradient`, from the output where [`keeps_output`](Self::keeps_output) says so, else the input.
    fn backward(self, kept: f32, gradient: f32) -> f32;

    /// Whether the backward pass starts from the output.
    fn keeps_output(self) -> bool;

    /// What kernels cut their results at, lower and upper, while they are in registers: all that some functions do.
    fn bounds(self) -> [f32; 2];

    /// What is left to do after the [`bounds`](Self::bounds), for `pixels` neighboring pixels of a block with so many
    /// `channels`; the lanes after them stay zero.
    ///
    /// # Safety
    /// The processor has `S`'s instructions, and the pixels can be read and written.
    unsafe fn finish<S: Simd, N: Number>(self, values: *mut N, pixels: usize, channels: usize);

    /// Of all values, in place.
    ///
    /// # Safety
    /// The processor has `S`'s instructions.
    unsafe fn all<S: Simd, N: Number>(self, values: &mut [N]);
}

impl Apply for Activation {
    #[inline(always)]
    fn of(self, x: f32) -> f32 {
        match self {
            Self::Identity => x,
            Self::Relu if x < 0.0 => 0.0,
            Self::Relu => x,
            Self::Relu6 => math::relu6(x),
            Self::Tanh => math::tanh(x),
            Self::Sigmoid => math::sigmoid(x),
            Self::Hardsigmoid => math::hardsigmoid(x),
            Self::Silu => math::silu(x),
            Self::Hardswish => math::hardswish(x),
            Self::Gelu => math::gelu(x),
        }
    }

    #[inline(always)]
    fn backward(self, kept: f32, gradient: f32) -> f32 {
        match self {
            Self::Identity => gradient,
            Self::Relu if kept > 0.0 => gradient,
            Self::Relu => 0.0,
            Self::Relu6 => gradient * math::relu6_slope(kept),
            Self::Tanh => gradient * (1.0 - kept * kept),
            Self::Sigmoid => gradient * (kept * (1.0 - kept)),
            Self::Hardsigmoid => gradient * math::hardsigmoid_slope(kept),
            Self::Silu => gradient * math::silu_slope(kept),
            Self::Hardswish => gradient * math::hardswish_slope(kept),
            Self::Gelu => gradient * math::gelu_slope(kept),
        }
    }

    fn keeps_output(self) -> bool {
        matches!(self, Self::Relu | Self::Relu6 | Self::Tanh | Self::Sigmoid)
    }

    #[inline(always)]
    fn bounds(self) -> [f32; 2] {
        match self {
            Self::Relu => [0.0, f32::INFINITY],
            Self::Relu6 => [0.0, 6.0],
            _ => [f32::NEG_INFINITY, f32::INFINITY],
        }
    }

    #[inline(always)]
    unsafe fn finish<S: Simd, N: Number>(self, values: *mut N, pixels: usize, channels: usize) {
        if matches!(self, Self::Identity | Self::Relu | Self::Relu6) {
            return;
        }
        // SAFETY: the caller's promise.
        let values = unsafe { std::slice::from_raw_parts_mut(values, pixels * S::LANES) };
        // SAFETY: the caller's promise.
        unsafe { self.all::<S, N>(values) };
        // The sigmoids of the empty lanes' zeros are not zero.
        if channels < S::LANES && self.of(0.0) != 0.0 {
            values.chunks_exact_mut(S::LANES).for_each(|pixel| pixel[channels..].fill(N::of(0.0)));
        }
    }

    #[inline(always)]
    unsafe fn all<S: Simd, N: Number>(self, values: &mut [N]) {
        // SAFETY: the caller's promise.
        unsafe { S::call(All { function: self, values }) }
    }
}

/// [`Apply::all`], out of line: kernels are compiled for every size of their tiles.
struct All<'a, N> {
    function: Activation,
    values: &'a mut [N],
}

impl<N: Number> Kernel for All<'_, N> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (whole, rest) = self.values.split_at_mut(self.values.len() - self.values.len() % S::LANES);
        // A loop over vectors for the curved ones; a closure would not be compiled with the kernel's instructions.
        macro_rules! vectors {
            ($function:path) => {{
                for values in whole.chunks_exact_mut(S::LANES) {
                    // SAFETY: the chunk is as long as a vector; the processor has the instructions, the caller's promise.
                    unsafe { N::store::<S>(values.as_mut_ptr(), $function(N::load::<S>(values.as_ptr()))) }
                }
                rest
            }};
        }
        let values = match self.function {
            Activation::Sigmoid => vectors!(vector::sigmoid::<S>),
            Activation::Silu => vectors!(vector::silu::<S>),
            Activation::Gelu => vectors!(vector::gelu::<S>),
            _ => self.values,
        };
        // A loop for each function.
        macro_rules! functions {
            ($($name:ident)*) => {
                match self.function {
                    $(Activation::$name => values.iter_mut().for_each(|x| *x = N::of(Activation::$name.of(x.value()))),)*
                }
            };
        }
        functions!(Identity Relu Relu6 Tanh Sigmoid Hardsigmoid Silu Hardswish Gelu)
    }
}

/// Cuts a vector at [`Apply::bounds`]. NaN stays: where an operand is NaN, the instructions return the second.
///
/// # Safety
/// The processor has `S`'s instructions.
#[inline(always)]
pub(crate) unsafe fn cut<S: Simd>([low, high]: [f32; 2], vector: S::Vector) -> S::Vector {
    // SAFETY: the caller's promise.
    unsafe { S::min(S::splat(high), S::max(S::splat(low), vector)) }
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
