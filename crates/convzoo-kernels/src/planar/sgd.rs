#![allow(unsafe_code)]

use crate::memory::{Shared, part_mut};
use crate::parallel;
use crate::simd::{Isa, Kernel, Simd};

/// Values that a task works on.
const CHUNK: usize = 1 << 14;

/// A step of stochastic gradient descent with momentum, without dampening.
///
/// All of it in one pass: with the weights of a large network it takes as long as memory does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdStep {
    /// Learning rate.
    pub rate: f32,
    /// Momentum.
    pub momentum: f32,
    /// Whether the momentum is Nesterov's.
    pub nesterov: bool,
    /// Weight decay.
    pub decay: f32,
}

impl SgdStep {
    /// Updates a parameter and its momentum buffer by a gradient.
    ///
    /// # Panics
    /// The slices differ in length.
    pub fn step(&self, isa: Isa, param: &mut [f32], velocity: &mut [f32], gradient: &[f32]) {
        assert!(
            param.len() == gradient.len() && velocity.len() == gradient.len(),
            "a parameter's slices of one length"
        );
        let (to_param, to_velocity) = (Shared(param.as_mut_ptr()), Shared(velocity.as_mut_ptr()));
        parallel::for_each(gradient.len().div_ceil(CHUNK), |task| {
            let range = task * CHUNK..gradient.len().min((task + 1) * CHUNK);
            // SAFETY: each task has its values to itself; the instruction set comes from detection.
            unsafe {
                let (start, len) = (range.start, range.len());
                let (param, velocity) = (part_mut(&to_param, start, len), part_mut(&to_velocity, start, len));
                isa.call(Chunk { rule: *self, param, velocity, gradient: &gradient[range] });
            }
        });
    }
}

struct Chunk<'a> {
    rule: SgdStep,
    param: &'a mut [f32],
    velocity: &'a mut [f32],
    gradient: &'a [f32],
}

impl Kernel for Chunk<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let SgdStep { rate, momentum, nesterov, decay } = self.rule;
        for ((p, v), &g) in self.param.iter_mut().zip(self.velocity).zip(self.gradient) {
            let g = g + decay * *p;
            *v = g + momentum * *v;
            *p -= rate * if nesterov { g + momentum * *v } else { *v };
        }
    }
}
