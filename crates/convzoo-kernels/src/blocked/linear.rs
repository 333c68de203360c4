//! Fully-connected layers of a compiled network.
#![allow(unsafe_code)]

use std::sync::Arc;

use super::operation::Operation;
use crate::elementwise::Activation;
use crate::linear::{Dots, Linear, Number, ROWS, Weight};
use crate::parallel::piece;
use crate::simd::{Kernel, Simd};
use crate::{Isa, KernelError, Layout};

/// A layer on vectors `[batch, inputs, 1, 1]` in blocks of the instruction set's lanes.
///
/// # Errors
/// The input is no vector of as many features.
pub fn linear(
    isa: Isa,
    linear: Arc<Linear>,
    activation: Activation,
    input: Layout,
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
    let output = Layout::new([input.batch, linear.outputs(), 1, 1], isa.lanes(), 0);
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
        let LinearOperation { linear, activation, input, output, parts, .. } = self.operation;
        let outputs = linear.outputs();
        // SAFETY: the layouts have been checked against the layer; each task writes outputs of its own, the last one
        // also the empty lanes after them.
        unsafe {
            if self.task + 1 == *parts {
                for image in 0..output.batch {
                    let lanes = self.output.add(image * output.image + outputs);
                    lanes.write_bytes(0, outputs.next_multiple_of(S::LANES) - outputs);
                }
            }
            let groups = piece(outputs.div_ceil(ROWS), *parts, self.task);
            let dots = Dots {
                inputs: linear.inputs(),
                weight: self.weight,
                bias: &linear.bias,
                input: self.input,
                input_step: input.image,
                output: self.output,
                output_step: output.image,
                activation: *activation,
            };
            let rows = groups.start * ROWS..outputs.min(groups.end * ROWS);
            dots.write::<S>(rows, input.batch);
        }
    }
}
