//! Operations on tensors in NCHW order, `[batch, channels, height, width]`: training, forward and backward, and
//! inference layer by layer.
//!
//! Vectors lie along the pixels of a plane, so that no tensor changes its layout; in the gradient of a weight, which sums
//! over them, along the outputs. To read in this order:
//!
//! - [`conv`]: a convolution and its gradients, and which algorithm computes each:
//!   - [`winograd`]: 3×3 of stride 1, forward and backward, where that is faster ([`cost`](crate::cost)); [`tiles`] brings
//!     tiles into blocks, [`winograd_weight_grad`] is the gradient of the weight.
//!   - [`implicit_gemm`]: all others, as a matrix product whose matrix of taps ([`im2col`]) is made in pieces as small as a
//!     cache; [`weight_grad`] is the gradient of the weight.
//!   - [`depthwise`]: those of each channel with a kernel of its own.
//!   - [`few_outputs`], [`weight_grad_few`]: the same two where there are few outputs, with the pixels read where they lie
//!     ([`frame`]).
//! - [`norm`], [`layer_norm`], [`scale`], [`add_relu`](mod@add_relu), [`concat`](mod@concat), [`activation`], [`max_pool`], [`average_pool`], [`linear`]: the other layers.
//! - [`sgd`]: the step of the optimizer.
#![allow(unsafe_code)]

mod activation;
mod add_relu;
mod average_pool;
mod concat;
mod conv;
mod depthwise;
mod few_outputs;
mod frame;
mod im2col;
mod implicit_gemm;
mod layer_norm;
mod linear;
mod max_pool;
mod norm;
mod scale;
mod sgd;
mod tiles;
mod weight_grad;
mod weight_grad_few;
mod winograd;
mod winograd_weight_grad;

pub use activation::{activation, activation_backward, activation_keeps_output};
pub use add_relu::{add, add_relu, add_relu_backward};
pub use average_pool::AveragePoolPass;
pub use concat::{concat, split};
pub use conv::ConvPass;
pub use layer_norm::{LayerNormGradients, LayerNormPass};
pub use linear::LinearPass;
pub use max_pool::MaxPoolPass;
pub use norm::{BatchNormGradients, BatchNormParams, BatchNormPass};
pub use scale::ScalePass;
pub use sgd::SgdStep;

pub use crate::gemm::ChannelAffine;
use crate::memory::{Shared, filled};
use crate::number::Number;
use crate::parallel;
use crate::simd::{Isa, Kernel, Simd};

/// Zeros, up to a vector too many.
#[inline(always)]
unsafe fn clear<S: Simd, N: Number>(to: *mut N, length: usize) {
    for i in (0..length).step_by(N::PER_CELL * S::LANES) {
        // SAFETY: the caller has room for a vector more.
        unsafe { S::store(to.add(i).cast(), S::splat(0.0)) }
    }
}

/// Copies, up to a vector too many.
#[inline(always)]
unsafe fn copy<S: Simd, N: Number>(to: *mut N, from: *const N, length: usize) {
    for i in (0..length).step_by(N::PER_CELL * S::LANES) {
        // SAFETY: the caller can read and has room for a vector more.
        unsafe { S::store(to.add(i).cast(), S::load(from.add(i).cast())) }
    }
}

/// The sum of each channel of a tensor `[batch, channels, plane]`.
pub(crate) fn channel_sums(isa: Isa, values: &[f32], channels: usize, plane: usize) -> Vec<f32> {
    struct Sum<'a>(&'a [f32]);
    impl Kernel for Sum<'_> {
        type Output = f32;

        #[inline(always)]
        unsafe fn run<S: Simd>(self) -> f32 {
            let chunks = self.0.chunks_exact(S::LANES);
            let rest: f32 = chunks.remainder().iter().sum();
            // SAFETY: chunks are vectors; the processor has the instructions.
            unsafe { rest + S::sum(chunks.fold(S::splat(0.0), |sum, chunk| S::add(sum, S::load(chunk.as_ptr())))) }
        }
    }
    // SAFETY: every channel is written by the task that has it.
    unsafe {
        filled(channels, |to: *mut f32| {
            let to = Shared(to);
            parallel::for_each(channels, |channel| {
                let planes = values.chunks_exact(plane.max(1)).skip(channel).step_by(channels);
                let sum: f64 = planes.map(|plane| f64::from(isa.call(Sum(plane)))).sum();
                to.get().add(channel).write(sum as f32);
            });
        })
    }
}
