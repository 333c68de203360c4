#![allow(unsafe_code)]

use crate::memory::{Shared, filled, part_mut};
use crate::parallel;
use crate::simd::{Isa, Kernel, Simd};

/// Values that a task works on: a few pages.
const CHUNK: usize = 1 << 14;

/// max(0, a + b), element by element.
///
/// # Panics
/// The slices differ in length; so below.
pub fn add_relu(isa: Isa, a: &[f32], b: &[f32]) -> Vec<f32> {
    combine(isa, a, b, |a, b| {
        let sum = a + b;
        if sum < 0.0 { 0.0 } else { sum }
    })
}

/// The gradient of both of [`add_relu`]'s summands: that of its output where that is positive.
pub fn add_relu_backward(isa: Isa, output: &[f32], gradient: &[f32]) -> Vec<f32> {
    combine(isa, output, gradient, |output, gradient| if output > 0.0 { gradient } else { 0.0 })
}

/// A function of each element.
pub(super) fn map(isa: Isa, input: &[f32], f: impl Fn(f32) -> f32 + Copy + Sync) -> Vec<f32> {
    combine(isa, input, input, move |x, _| f(x))
}

/// A function of two elements each.
pub(super) fn combine(isa: Isa, a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32 + Copy + Sync) -> Vec<f32> {
    assert_eq!(a.len(), b.len(), "operands of one length");
    // SAFETY: every chunk is written by the task that has it.
    unsafe {
        filled(a.len(), |to| {
            let to = Shared(to);
            parallel::for_each(a.len().div_ceil(CHUNK), |task| {
                let range = task * CHUNK..a.len().min((task + 1) * CHUNK);
                let to = part_mut(&to, range.start, range.len());
                isa.call(Combine { a: &a[range.clone()], b: &b[range], to, f });
            });
        })
    }
}

struct Combine<'a, F> {
    a: &'a [f32],
    b: &'a [f32],
    to: &'a mut [f32],
    f: F,
}

impl<F: Fn(f32, f32) -> f32> Kernel for Combine<'_, F> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        self.to.iter_mut().zip(self.a).zip(self.b).for_each(|((to, &a), &b)| *to = (self.f)(a, b));
    }
}
