//! The operations of training, forward and backward, on tensors in the usual order, `[batch, channels, height, width]`.
//!
//! Convolutions are matrix products over pixels, of a matrix that is made in pieces as small as a cache. Vectors lie along
//! the pixels, so that no tensor changes its layout; in the gradient of a weight, which sums over them, along the outputs.
//! 3×3 convolutions of stride 1 go by Winograd's filtering where that is faster.
#![allow(unsafe_code)]

mod activation;
mod average;
mod conv;
mod descent;
mod direct;
mod dots;
mod filtered;
mod frame;
mod gather;
mod linear;
mod norm;
mod pool;
mod product;
mod sum;
mod tiles;
mod weights;
mod winograd;

pub use activation::{sigmoid, sigmoid_backward, tanh, tanh_backward};
pub use average::AveragePass;
pub use conv::{ConvPass, Epilogue};
pub use descent::Descent;
pub use linear::LinearPass;
pub use norm::{NormGradients, NormParams, NormPass};
pub use pool::MaxPoolPass;
pub use sum::{add_relu, add_relu_backward};

use std::cell::Cell;

use crate::operation::Shared;
use crate::parallel;
use crate::simd::{Isa, Kernel, Simd};

/// A vector of `len` values that `write` writes.
///
/// # Safety
/// `write` writes them all.
unsafe fn filled(len: usize, write: impl FnOnce(*mut f32)) -> Vec<f32> {
    retain();
    let mut values = Vec::with_capacity(len);
    advise(&mut values);
    write(values.as_mut_ptr());
    // SAFETY: the capacity is there, and the caller's promise.
    unsafe { values.set_len(len) };
    values
}

/// Asks the C library's allocator to keep what tensors leave: a step would give its memory back only for the next to fault
/// it in again, page by page. With tensors as large as the limit, the allocator comes to the same thresholds by itself.
fn retain() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::ffi::c_int;
        /// `M_MMAP_THRESHOLD`, and the largest value it takes.
        const OWN_MAPPING: [c_int; 2] = [-3, 4 << 20];
        /// `M_TRIM_THRESHOLD`.
        const TRIM: [c_int; 2] = [-1, 64 << 20];
        unsafe extern "C" {
            fn mallopt(param: c_int, value: c_int) -> c_int;
        }
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            for [param, value] in [OWN_MAPPING, TRIM] {
                // SAFETY: the allocator may be told at any time, by any thread. Where it does not take it, all stays as it
                // was.
                unsafe { mallopt(param, value) };
            }
        });
    }
}

/// Asks for large pages, so that a first write to the memory of a large tensor costs hundreds of times fewer page faults.
fn advise(values: &mut Vec<f32>) {
    #[cfg(target_os = "linux")]
    {
        /// A large page of the processors that have them.
        const PAGE: usize = 2 << 20;
        /// `MADV_HUGEPAGE`.
        const HUGE: std::ffi::c_int = 14;
        unsafe extern "C" {
            fn madvise(start: *mut std::ffi::c_void, len: usize, advice: std::ffi::c_int) -> std::ffi::c_int;
        }
        let start = values.as_mut_ptr().addr().next_multiple_of(PAGE);
        let end = (values.as_mut_ptr().addr() + 4 * values.capacity()) / PAGE * PAGE;
        if start < end {
            // SAFETY: the pages lie within the vector's memory, and the advice changes none of it. Where the kernel does not
            // take it, all stays as it was.
            unsafe { madvise(values.as_mut_ptr().with_addr(start).cast(), end - start, HUGE) };
        }
    }
}

thread_local! {
    static KEPT: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Memory for the weights of a convolution as its kernels read them, from the last convolution of this thread: fresh memory
/// costs more than packing does. The values are any.
fn kept(len: usize) -> Vec<f32> {
    let values = KEPT.take();
    if values.len() < len { vec![0.0; len] } else { values }
}

/// Leaves the memory to the next convolution.
fn keep(values: Vec<f32>) {
    KEPT.set(values);
}

/// Transposes a row of squares, [`Simd::LANES`] each way: `from` one beside the other `to` one below the other.
struct Transpose {
    from: *const f32,
    from_step: usize,
    to: *mut f32,
    to_step: usize,
    squares: usize,
}

impl Kernel for Transpose {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for square in 0..self.squares {
            // SAFETY: the squares are there, the promise of whoever made the pointers.
            unsafe {
                let from = self.from.add(square * S::LANES);
                S::transpose(from, self.from_step, self.to.add(square * S::LANES * self.to_step), self.to_step);
            }
        }
    }
}

/// Zeros, up to a vector too many.
#[inline(always)]
unsafe fn clear<S: Simd>(to: *mut f32, length: usize) {
    for i in (0..length).step_by(S::LANES) {
        // SAFETY: the caller has room for a vector more.
        unsafe { S::store(to.add(i), S::splat(0.0)) }
    }
}

/// Copies, up to a vector too many.
#[inline(always)]
unsafe fn copy<S: Simd>(to: *mut f32, from: *const f32, length: usize) {
    for i in (0..length).step_by(S::LANES) {
        // SAFETY: the caller can read and has room for a vector more.
        unsafe { S::store(to.add(i), S::load(from.add(i))) }
    }
}

/// A part of what `to` points to.
///
/// # Safety
/// The part is there, and nothing else uses it meanwhile.
unsafe fn plane_at<'a>(to: &Shared<*mut f32>, start: usize, len: usize) -> &'a mut [f32] {
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(to.get().add(start), len) }
}

/// The sum of each channel of a tensor `[batch, channels, plane]`.
pub(crate) fn sums(isa: Isa, values: &[f32], channels: usize, plane: usize) -> Vec<f32> {
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
        filled(channels, |to| {
            let to = Shared(to);
            parallel::for_each(channels, |channel| {
                let planes = values.chunks_exact(plane.max(1)).skip(channel).step_by(channels);
                let sum: f64 = planes.map(|plane| f64::from(isa.call(Sum(plane)))).sum();
                to.get().add(channel).write(sum as f32);
            });
        })
    }
}
