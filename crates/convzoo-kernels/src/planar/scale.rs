#![allow(unsafe_code)]

use crate::memory::{Shared, filled, part_mut};
use crate::parallel::{self, piece};
use crate::simd::{Isa, Kernel, Simd};

/// Planes that are multiplied by a factor each: the gates of squeeze-and-excitation
/// ([Hu et al., 2017](https://arxiv.org/abs/1709.01507)), or a factor of each channel.
///
/// Factors take turns: with as many as planes, each plane has its own; with as many as channels, all images share them.
#[derive(Clone, Copy, Debug)]
pub struct ScalePass {
    /// The instruction set.
    pub isa: Isa,
    /// Planes: images times channels.
    pub planes: usize,
    /// Pixels of a plane.
    pub plane: usize,
}

impl ScalePass {
    /// Each plane times its factor; so is the gradient of the input made from that of the output.
    ///
    /// # Panics
    /// A slice's length is not that of its shape, or the planes are no multiple of the factors; so below.
    pub fn forward(&self, input: &[f32], factors: &[f32]) -> Vec<f32> {
        self.check(input, factors.len());
        // SAFETY: every plane is written by the task that has it; the instruction set comes from detection.
        unsafe {
            filled(input.len(), |to| {
                let to = Shared(to);
                let tasks = self.tasks(self.planes);
                parallel::for_each(tasks, |task| {
                    for plane in piece(self.planes, tasks, task) {
                        let at = plane * self.plane;
                        let (x, to) = (&input[at..][..self.plane], part_mut(&to, at, self.plane));
                        self.isa.call(Multiply { x, factor: factors[plane % factors.len()], to });
                    }
                });
            })
        }
    }

    /// The gradient of the factors, of which there are `count`, from that of the output.
    pub fn backward_factors(&self, input: &[f32], gradient: &[f32], count: usize) -> Vec<f32> {
        self.check(input, count);
        self.check(gradient, count);
        // SAFETY: every factor is written by the task that has it; the instruction set comes from detection.
        unsafe {
            filled(count, |to: *mut f32| {
                let to = Shared(to);
                let tasks = self.tasks(count);
                parallel::for_each(tasks, |task| {
                    for factor in piece(count, tasks, task) {
                        let products = (factor..self.planes).step_by(count).map(|plane| {
                            let at = plane * self.plane;
                            let (x, g) = (&input[at..][..self.plane], &gradient[at..][..self.plane]);
                            f64::from(self.isa.call(Dot { x, g }))
                        });
                        to.get().add(factor).write(products.sum::<f64>() as f32);
                    }
                });
            })
        }
    }

    /// Planes are small: a task has several.
    fn tasks(&self, most: usize) -> usize {
        most.min(8 * parallel::threads())
    }

    fn check(&self, values: &[f32], factors: usize) {
        assert_eq!(values.len(), self.planes * self.plane, "values of {self:?}");
        assert!(self.planes == 0 || self.planes.is_multiple_of(factors.max(1)), "{factors} factors of {self:?}");
    }
}

struct Multiply<'a> {
    x: &'a [f32],
    factor: f32,
    to: &'a mut [f32],
}

impl Kernel for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        self.to.iter_mut().zip(self.x).for_each(|(to, &x)| *to = x * self.factor);
    }
}

/// The sum of products.
struct Dot<'a> {
    x: &'a [f32],
    g: &'a [f32],
}

/// Vectors whose sums run side by side.
const VECTORS: usize = 4;

impl Kernel for Dot<'_> {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> f32 {
        let Self { x, g } = self;
        let whole = x.len() - x.len() % S::LANES;
        // SAFETY: vectors end before the whole ones do; the processor has the instructions, the caller's promise.
        unsafe {
            let mut totals = [S::splat(0.0); VECTORS];
            for (vector, at) in (0..whole).step_by(S::LANES).enumerate() {
                let total = &mut totals[vector % VECTORS];
                *total = S::mul_add(S::load(x.as_ptr().add(at)), S::load(g.as_ptr().add(at)), *total);
            }
            let rest: f32 = x[whole..].iter().zip(&g[whole..]).map(|(x, g)| x * g).sum();
            rest + totals.into_iter().map(|total| S::sum(total)).sum::<f32>()
        }
    }
}
