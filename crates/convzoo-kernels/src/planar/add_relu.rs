#![allow(unsafe_code)]

use crate::memory::{Shared, filled, part_mut};
use crate::number::Number;
use crate::parallel;
use crate::simd::{Isa, Kernel, Simd};

/// Values that a task works on: a few pages.
const CHUNK: usize = 1 << 14;

/// a + b, element by element.
///
/// # Panics
/// The slices differ in length; so below.
pub fn add<N: Number>(isa: Isa, a: &[N], b: &[N]) -> Vec<N> {
    combine(isa, a, b, |a, b| a + b)
}

/// max(0, a + b), element by element.
pub fn add_relu<N: Number>(isa: Isa, a: &[N], b: &[N]) -> Vec<N> {
    combine(isa, a, b, |a, b| {
        let sum = a + b;
        if sum < 0.0 { 0.0 } else { sum }
    })
}

/// The gradient of both of [`add_relu`]'s summands: that of its output where that is positive.
pub fn add_relu_backward<N: Number>(isa: Isa, output: &[N], gradient: &[N]) -> Vec<N> {
    combine(isa, output, gradient, |output, gradient| if output > 0.0 { gradient } else { 0.0 })
}

/// A function of each element.
pub(super) fn map<N: Number>(isa: Isa, input: &[N], f: impl Fn(f32) -> f32 + Copy + Sync) -> Vec<N> {
    combine(isa, input, input, move |x, _| f(x))
}

/// A function of two elements each.
pub(super) fn combine<N: Number>(isa: Isa, a: &[N], b: &[N], f: impl Fn(f32, f32) -> f32 + Copy + Sync) -> Vec<N> {
    assert_eq!(a.len(), b.len(), "operands of one length");
    // SAFETY: every chunk is written by the task that has it.
    unsafe {
        filled(a.len(), |to| {
            let to = Shared(to);
            parallel::for_each(a.len().div_ceil(CHUNK), |task| {
                let range = task * CHUNK..a.len().min((task + 1) * CHUNK);
                let to = part_mut(&to, range.start, range.len());
                N::call(isa, Combine { a: &a[range.clone()], b: &b[range], to, f });
            });
        })
    }
}

struct Combine<'a, N, F> {
    a: &'a [N],
    b: &'a [N],
    to: &'a mut [N],
    f: F,
}

impl<N: Number, F: Fn(f32, f32) -> f32> Kernel for Combine<'_, N, F> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        self.to
            .iter_mut()
            .zip(self.a)
            .zip(self.b)
            .for_each(|((to, &a), &b)| *to = N::of((self.f)(a.value(), b.value())));
    }
}
