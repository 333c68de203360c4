#![allow(unsafe_code)]

use std::ops::Range;

use crate::elementwise::Activation;
use crate::linear::{Dense, ROWS, Vectors};
use crate::memory::{Shared, filled};
use crate::parallel;
use crate::simd::{Isa, Kernel, Simd};

/// A fully-connected layer of a batch of vectors.
///
/// With few images it takes as long as its weights' way from memory: each pass goes through them once.
#[derive(Clone, Copy, Debug)]
pub struct LinearPass {
    /// The instruction set.
    pub isa: Isa,
    /// Images.
    pub batch: usize,
    /// Input features.
    pub inputs: usize,
    /// Output features.
    pub outputs: usize,
}

/// Inputs worked on at once: of a batch of eight, what fits into a first-level cache.
const COLUMNS: usize = 1024;

impl LinearPass {
    /// `[batch, outputs]` for an input `[batch, inputs]`, a weight `[outputs, inputs]` and a bias `[outputs]`.
    ///
    /// # Panics
    /// A slice's length is not that of its shape; so below.
    pub fn forward(&self, input: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
        self.check(Some(input), Some(weight), None);
        assert_eq!(bias.len(), self.outputs, "bias of {self:?}");
        // SAFETY: every output is written by the task that has it.
        unsafe {
            filled(self.batch * self.outputs, |to| {
                let to = Shared(to);
                self.by_rows(|rows| {
                    let vectors = Vectors {
                        bias,
                        input: input.as_ptr(),
                        input_step: self.inputs,
                        output: to.get(),
                        output_step: self.outputs,
                        batch: self.batch,
                        activation: Activation::Identity,
                    };
                    let weight = Dense { weight: weight.as_ptr(), inputs: self.inputs };
                    self.isa.call(Forward { vectors, weight, rows });
                });
            })
        }
    }

    /// The gradient of the input from that of the output.
    pub fn backward_input(&self, gradient: &[f32], weight: &[f32]) -> Vec<f32> {
        self.check(None, Some(weight), Some(gradient));
        let len = self.batch * self.inputs;
        // SAFETY: every column is written by the task that has it.
        unsafe {
            filled(len, |to| {
                let to = Shared(to);
                parallel::for_each(self.inputs.div_ceil(COLUMNS), |task| {
                    let columns = task * COLUMNS..self.inputs.min((task + 1) * COLUMNS);
                    self.isa.call(InputGradient { pass: *self, gradient, weight, columns, to: to.get() });
                });
            })
        }
    }

    /// The gradient of the weight from that of the output.
    pub fn backward_weight(&self, input: &[f32], gradient: &[f32]) -> Vec<f32> {
        self.check(Some(input), None, Some(gradient));
        // SAFETY: every row is written by the task that has it.
        unsafe {
            filled(self.outputs * self.inputs, |to| {
                let to = Shared(to);
                self.by_rows(|rows| self.isa.call(WeightGradient { pass: *self, input, gradient, rows, to: to.get() }));
            })
        }
    }

    /// Divides the outputs among threads.
    fn by_rows(&self, work: impl Fn(Range<usize>) + Sync) {
        let parts = (8 * parallel::threads()).min(self.outputs.div_ceil(ROWS));
        parallel::for_each(parts, |part| work(parallel::piece(self.outputs, parts, part)));
    }

    fn check(&self, input: Option<&[f32]>, weight: Option<&[f32]>, output: Option<&[f32]>) {
        let expect = |what, values: Option<&[f32]>, expected: usize| {
            assert!(values.is_none_or(|values| values.len() == expected), "{what} of {self:?}");
        };
        expect("input", input, self.batch * self.inputs);
        expect("weight", weight, self.outputs * self.inputs);
        expect("output", output, self.batch * self.outputs);
    }
}

/// Some outputs.
struct Forward<'a> {
    vectors: Vectors<'a, f32, f32>,
    weight: Dense<f32>,
    rows: Range<usize>,
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the rows and images exist.
        unsafe { self.vectors.write::<S>(&self.weight, self.rows) }
    }
}

/// Some columns of the gradient of the input.
struct InputGradient<'a> {
    pass: LinearPass,
    gradient: &'a [f32],
    weight: &'a [f32],
    columns: Range<usize>,
    to: *mut f32,
}

impl Kernel for InputGradient<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let LinearPass { batch, inputs, outputs, .. } = self.pass;
        let width = self.columns.len();
        for image in 0..batch {
            // SAFETY: the columns are the task's own.
            unsafe { self.to.add(image * inputs + self.columns.start).write_bytes(0, width) }
        }
        let whole = outputs - outputs % ROWS;
        for row in (0..whole).step_by(ROWS) {
            // SAFETY: as above.
            unsafe { self.add::<S, ROWS>(row) }
        }
        for row in whole..outputs {
            // SAFETY: as above.
            unsafe { self.add::<S, 1>(row) }
        }
    }
}

impl InputGradient<'_> {
    /// What `R` outputs add.
    #[inline(always)]
    unsafe fn add<S: Simd, const R: usize>(&self, row: usize) {
        let LinearPass { batch, inputs, outputs, .. } = self.pass;
        let width = self.columns.len();
        let whole = width - width % S::LANES;
        // SAFETY: rows, images and columns exist.
        unsafe {
            let weight = self.weight.as_ptr().add(row * inputs + self.columns.start);
            let gradient = self.gradient.as_ptr().add(row);
            let to = self.to.add(self.columns.start);
            for i in (0..whole).step_by(S::LANES) {
                let mut weights = [S::splat(0.0); R];
                for (r, value) in weights.iter_mut().enumerate() {
                    *value = S::load(weight.add(r * inputs + i));
                }
                for image in 0..batch {
                    let at = to.add(image * inputs + i);
                    let mut total = S::load(at);
                    for (r, weight) in weights.iter().enumerate() {
                        total = S::mul_add(S::splat(*gradient.add(image * outputs + r)), *weight, total);
                    }
                    S::store(at, total);
                }
            }
            for i in whole..width {
                for image in 0..batch {
                    for r in 0..R {
                        *to.add(image * inputs + i) += *gradient.add(image * outputs + r) * *weight.add(r * inputs + i);
                    }
                }
            }
        }
    }
}

/// Some rows of the gradient of the weight.
struct WeightGradient<'a> {
    pass: LinearPass,
    input: &'a [f32],
    gradient: &'a [f32],
    rows: Range<usize>,
    to: *mut f32,
}

impl Kernel for WeightGradient<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let inputs = self.pass.inputs;
        for start in (0..inputs).step_by(COLUMNS) {
            let columns = start..inputs.min(start + COLUMNS);
            let mut row = self.rows.start;
            while row < self.rows.end {
                // SAFETY: the rows and columns exist.
                unsafe {
                    match self.rows.end - row {
                        ..ROWS => {
                            self.sum::<S, 1>(row, columns.clone());
                            row += 1;
                        }
                        _ => {
                            self.sum::<S, ROWS>(row, columns.clone());
                            row += ROWS;
                        }
                    }
                }
            }
        }
    }
}

impl WeightGradient<'_> {
    /// Some columns of `R` rows.
    #[inline(always)]
    unsafe fn sum<S: Simd, const R: usize>(&self, row: usize, columns: Range<usize>) {
        let LinearPass { batch, inputs, outputs, .. } = self.pass;
        let whole = columns.end - columns.len() % S::LANES;
        // SAFETY: rows, images and columns exist.
        unsafe {
            let (input, gradient) = (self.input.as_ptr(), self.gradient.as_ptr().add(row));
            let to = self.to.add(row * inputs);
            for i in (columns.start..whole).step_by(S::LANES) {
                let mut totals = [S::splat(0.0); R];
                for image in 0..batch {
                    let value = S::load(input.add(image * inputs + i));
                    for (r, total) in totals.iter_mut().enumerate() {
                        *total = S::mul_add(S::splat(*gradient.add(image * outputs + r)), value, *total);
                    }
                }
                for (r, total) in totals.into_iter().enumerate() {
                    S::store(to.add(r * inputs + i), total);
                }
            }
            for i in whole..columns.end {
                for r in 0..R {
                    let mut total = 0.0;
                    for image in 0..batch {
                        total += *gradient.add(image * outputs + r) * *input.add(image * inputs + i);
                    }
                    to.add(r * inputs + i).write(total);
                }
            }
        }
    }
}
