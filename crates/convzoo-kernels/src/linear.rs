//! Fully-connected layers.
//!
//! With one image each weight is used once: the layer takes as long as reading its weights does. They are read once for
//! up to four images, by all threads, in half precision where the user allows it.
#![allow(unsafe_code)]

use std::sync::Arc;

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::conv::length;
use crate::elementwise::Activation;
use crate::parallel::piece;
use crate::simd::{Kernel, Simd};
use crate::{Isa, KernelError, Layout, Operation, Values};

/// The precision in which weights are kept; sums are always taken in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32 bits.
    #[default]
    Single,
    /// IEEE's 16 bits: half the memory to read, each weight exact to one part in 2048.
    Half,
}

/// A fully-connected layer.
pub struct Linear {
    outputs: usize,
    inputs: usize,
    /// `[outputs, inputs]`.
    weight: Weight,
    bias: Vec<f32>,
}

enum Weight {
    Single(Values),
    Half(Vec<f16>),
}

impl Linear {
    /// From a weight `[outputs, inputs]`, which is kept as it is in single precision, and a bias `[outputs]`.
    ///
    /// # Errors
    /// The weight's length is not that.
    pub fn new(
        weight: impl Into<Values>,
        bias: Vec<f32>,
        inputs: usize,
        precision: Precision,
    ) -> Result<Self, KernelError> {
        let (outputs, weight) = (bias.len(), weight.into());
        length("a linear layer's weight", outputs * inputs, &weight)?;
        let weight = match precision {
            Precision::Single => Weight::Single(weight),
            Precision::Half => {
                let mut halves = vec![f16::ZERO; weight.len()];
                halves.convert_from_f32_slice(&weight);
                Weight::Half(halves)
            }
        };
        Ok(Self { outputs, inputs, weight, bias })
    }

    /// Features in.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Features out.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// The precision of its weight.
    pub fn precision(&self) -> Precision {
        match self.weight {
            Weight::Single(_) => Precision::Single,
            Weight::Half(_) => Precision::Half,
        }
    }

    /// Bytes of its weight.
    pub fn weight_bytes(&self) -> usize {
        let number = match self.weight {
            Weight::Single(_) => size_of::<f32>(),
            Weight::Half(_) => size_of::<f16>(),
        };
        self.inputs * self.outputs * number
    }

    /// The layer on vectors `[batch, inputs, 1, 1]` in blocks of the instruction set's lanes.
    ///
    /// # Errors
    /// The input is no vector of as many features.
    pub fn operation(
        self: Arc<Self>,
        isa: Isa,
        activation: Activation,
        input: Layout,
        threads: usize,
    ) -> Result<Box<dyn Operation>, KernelError> {
        let operation = "a linear layer";
        if [input.height, input.width, input.halo] != [1, 1, 0] {
            let left = [input.channels, input.height, input.width];
            return Err(KernelError::Shapes { operation, left, right: [self.inputs, 1, 1] });
        }
        if input.channels != self.inputs {
            return Err(KernelError::Channels { operation, expected: self.inputs, found: input.channels });
        }
        let output = Layout::new([input.batch, self.outputs, 1, 1], isa.lanes(), 0);
        let parts = (threads * 8).min(self.outputs.div_ceil(ROWS)).max(1);
        Ok(Box::new(LinearOperation { linear: self, isa, activation, input, output, parts }))
    }
}

struct LinearOperation {
    linear: Arc<Linear>,
    isa: Isa,
    activation: Activation,
    input: Layout,
    output: Layout,
    parts: usize,
}

/// Outputs and images whose sums run side by side.
const ROWS: usize = 4;
const IMAGES: usize = 4;

impl Operation for LinearOperation {
    fn tasks(&self) -> usize {
        self.parts
    }

    fn inputs(&self) -> Vec<Layout> {
        vec![self.input]
    }

    fn output(&self) -> Layout {
        self.output
    }

    unsafe fn run(&self, task: usize, inputs: &[*const f32], output: *mut f32) {
        // SAFETY: the instruction set was found on this processor, and the pointers are the caller's promise.
        unsafe {
            match &self.linear.weight {
                Weight::Single(weight) => {
                    self.isa.call(Task { operation: self, task, weight: weight.as_ptr(), input: inputs[0], output })
                }
                Weight::Half(weight) => {
                    self.isa.call(Task { operation: self, task, weight: weight.as_ptr(), input: inputs[0], output })
                }
            }
        }
    }
}

/// A number that weights are kept in.
trait Number: Copy {
    unsafe fn load<S: Simd>(from: *const Self) -> S::Vector;
    fn value(self) -> f32;
}

impl Number for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const Self) -> S::Vector {
        // SAFETY: the caller's promise.
        unsafe { S::load(from) }
    }

    #[inline(always)]
    fn value(self) -> f32 {
        self
    }
}

impl Number for f16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const Self) -> S::Vector {
        // SAFETY: the caller's promise.
        unsafe { S::load_half(from) }
    }

    #[inline(always)]
    fn value(self) -> f32 {
        self.to_f32()
    }
}

struct Task<'a, W> {
    operation: &'a LinearOperation,
    task: usize,
    weight: *const W,
    input: *const f32,
    output: *mut f32,
}

impl<W: Number> Kernel for Task<'_, W> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let LinearOperation { linear, input, output, parts, .. } = self.operation;
        // SAFETY: the layouts have been checked against the layer; each task writes outputs of its own, the last one
        // also the empty lanes behind them.
        unsafe {
            if self.task + 1 == *parts {
                for image in 0..output.batch {
                    let used = linear.outputs;
                    let lanes = self.output.add(image * output.image + used);
                    lanes.write_bytes(0, used.next_multiple_of(S::LANES) - used);
                }
            }
            let groups = piece(linear.outputs.div_ceil(ROWS), *parts, self.task);
            let (mut row, end) = (groups.start * ROWS, linear.outputs.min(groups.end * ROWS));
            while row < end {
                let mut image = 0;
                while image < input.batch {
                    match (end - row >= ROWS, input.batch - image >= IMAGES) {
                        (true, true) => self.dots::<S, ROWS, IMAGES>(row, image),
                        (true, false) => self.dots::<S, ROWS, 1>(row, image),
                        (false, _) => {
                            for row in row..end {
                                self.dots::<S, 1, 1>(row, image);
                            }
                        }
                    }
                    image += if end - row >= ROWS && input.batch - image >= IMAGES { IMAGES } else { 1 };
                }
                row += ROWS;
            }
        }
    }
}

impl<W: Number> Task<'_, W> {
    /// `R` outputs of `N` images.
    #[inline(always)]
    unsafe fn dots<S: Simd, const R: usize, const N: usize>(&self, row: usize, image: usize) {
        let LinearOperation { linear, activation, input, output, .. } = self.operation;
        let inputs = linear.inputs;
        // SAFETY: the rows and images exist.
        unsafe {
            let weight = self.weight.add(row * inputs);
            let from = self.input.add(image * input.image);
            let mut totals = [[S::splat(0.0); N]; R];
            let whole = inputs - inputs % S::LANES;
            let mut i = 0;
            while i < whole {
                let mut values = [S::splat(0.0); N];
                for (n, value) in values.iter_mut().enumerate() {
                    *value = S::load(from.add(n * input.image + i));
                }
                for (r, totals) in totals.iter_mut().enumerate() {
                    let weight = W::load::<S>(weight.add(r * inputs + i));
                    for (total, value) in totals.iter_mut().zip(values) {
                        *total = S::mul_add(weight, value, *total);
                    }
                }
                i += S::LANES;
            }
            for (r, totals) in totals.into_iter().enumerate() {
                for (n, total) in totals.into_iter().enumerate() {
                    let mut total = S::sum(total) + linear.bias[row + r];
                    for i in whole..inputs {
                        total += (*weight.add(r * inputs + i)).value() * *from.add(n * input.image + i);
                    }
                    *self.output.add((image + n) * output.image + row + r) = activation.of(total);
                }
            }
        }
    }
}
