//! Fully-connected layers of a compiled network.
#![allow(unsafe_code)]

use std::sync::Arc;

use half::bf16;

use super::operation::Operation;
use crate::elementwise::Activation;
use crate::linear::{Dense, Linear, Products, ROWS, Vectors, Weight};
use crate::number::{Number, Numbers};
use crate::parallel::piece;
use crate::simd::{Kernel, Simd};
use crate::{Isa, KernelError, Layout};

/// A layer on vectors `[batch, inputs, 1, 1]` in blocks of the instruction set's lanes; its outputs are `numbers`, of an input
/// of `f32` such, too.
///
/// # Errors
/// The input is no vector of as many features.
pub fn linear(
    isa: Isa,
    linear: Arc<Linear>,
    activation: Activation,
    input: Layout,
    numbers: Numbers,
    threads: usize,
) -> Result<Box<dyn Operation>, KernelError> {
    let operation = "a linear layer";
    if [input.height, input.width, input.halo] != [1, 1, 0] {
        let left = [input.channels, input.height, input.width];
        return Err(KernelError::Shapes { operation, left, right: [linear.inputs(), 1, 1] });
    }
    if input.channels != linear.inputs() {
        return Err(KernelError::Channels { operation, expected: linear.inputs(), found: input.channels });
    }
    let numbers = if input.numbers == Numbers::F32 { Numbers::F32 } else { numbers };
    let output = Layout::new([input.batch, linear.outputs(), 1, 1], isa.lanes(), 0).of(numbers);
    let parts = (threads * 8).min(linear.outputs().div_ceil(ROWS)).max(1);
    Ok(Box::new(LinearOperation { linear, isa, activation, input, output, parts }))
}

struct LinearOperation {
    linear: Arc<Linear>,
    isa: Isa,
    activation: Activation,
    input: Layout,
    output: Layout,
    parts: usize,
}

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

    unsafe fn run(&self, task: usize, inputs: &[*const u8], output: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe {
            match [self.input.numbers, self.output.numbers] {
                [Numbers::F32, _] => self.run_on::<f32, f32>(task, inputs[0].cast(), output.cast()),
                [Numbers::Bf16, Numbers::F32] => self.run_on::<bf16, f32>(task, inputs[0].cast(), output.cast()),
                [Numbers::Bf16, Numbers::Bf16] => self.run_on::<bf16, bf16>(task, inputs[0].cast(), output.cast()),
            }
        }
    }
}

impl LinearOperation {
    /// # Safety
    /// As [`Operation::run`].
    unsafe fn run_on<I: Number, O: Number>(&self, task: usize, input: *const I, output: *mut O) {
        // SAFETY: the caller's promise.
        unsafe {
            if let Some(weight) = self.linear.sparse(self.input.batch) {
                return self.product(task, weight, input, output);
            }
            let inputs = self.linear.inputs();
            match &self.linear.weight {
                Weight::Single(weight) => self.product(task, &Dense { weight: weight.as_ptr(), inputs }, input, output),
                Weight::Half(weight) => self.product(task, &Dense { weight: weight.as_ptr(), inputs }, input, output),
                Weight::Bf16(weight) => self.product(task, &Dense { weight: weight.as_ptr(), inputs }, input, output),
            }
        }
    }

    /// # Safety
    /// As [`Operation::run`].
    unsafe fn product<I: Number, O: Number>(
        &self,
        task: usize,
        weight: &impl Products,
        input: *const I,
        output: *mut O,
    ) {
        // SAFETY: the instruction set was found on this processor, and the pointers are the caller's promise.
        unsafe { I::call(self.isa, Task { operation: self, task, weight, input, output }) }
    }

    /// The outputs of a task; the last one also clears the empty lanes after them.
    ///
    /// # Safety
    /// The pointer is valid for the output's layout, of blocks of so many lanes.
    #[inline(always)]
    unsafe fn rows<O: Number>(&self, task: usize, output: *mut O, lanes: usize) -> std::ops::Range<usize> {
        let outputs = self.linear.outputs();
        if task + 1 == self.parts {
            for image in 0..self.output.batch {
                // SAFETY: the caller's promise.
                unsafe {
                    let empty = output.add(image * self.output.image + outputs);
                    empty.write_bytes(0, outputs.next_multiple_of(lanes) - outputs);
                }
            }
        }
        let groups = piece(outputs.div_ceil(ROWS), self.parts, task);
        groups.start * ROWS..outputs.min(groups.end * ROWS)
    }
}

struct Task<'a, W, I, O> {
    operation: &'a LinearOperation,
    task: usize,
    weight: &'a W,
    input: *const I,
    output: *mut O,
}

impl<W: Products, I: Number, O: Number> Kernel for Task<'_, W, I, O> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let LinearOperation { linear, activation, input, output, .. } = self.operation;
        // SAFETY: the layouts have been checked against the layer; each task writes outputs of its own.
        unsafe {
            let rows = self.operation.rows(self.task, self.output, S::LANES);
            let vectors = Vectors {
                bias: &linear.bias,
                input: self.input,
                input_step: input.image,
                output: self.output,
                output_step: output.image,
                batch: input.batch,
                activation: *activation,
            };
            vectors.write::<S>(self.weight, rows);
        }
    }
}
