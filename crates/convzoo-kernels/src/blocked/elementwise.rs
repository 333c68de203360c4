//! Scale and shift, sums and activations, in one pass; and gates.
#![allow(unsafe_code)]

use super::rows::{ByRows, Layouts, Row, RowKernel};
use crate::elementwise::{Activation, Apply, ScaleShift, cut};
use crate::error::check_length;
use crate::memory::pad_channels;
use crate::number::Number;
use crate::simd::Simd;
use crate::{Buffer, Isa, KernelError, Layout, Operation};

/// activation(scale · x + shift + Σ others) of tensors of one shape in any halos; `inputs` are x and the others.
///
/// # Errors
/// Shapes or channels differ.
pub fn elementwise(
    isa: Isa,
    affine: Option<&ScaleShift>,
    activation: Activation,
    inputs: Vec<Layout>,
    output: Layout,
    threads: usize,
) -> Result<Box<dyn Operation>, KernelError> {
    output.check_equal("a sum", &inputs)?;
    let affine = affine.map(|ScaleShift { scale, shift }| {
        check_length("a normalization's scale", output.channels, scale)?;
        check_length("a normalization's shift", output.channels, shift)?;
        Ok([scale, shift].map(|values| pad_channels(Some(values), 0.0, output.channels, isa.lanes())))
    });
    let kernel = Elementwise { affine: affine.transpose()?, activation };
    Ok(ByRows::new(kernel, isa, inputs, output, threads)?)
}

struct Elementwise {
    affine: Option<[Buffer; 2]>,
    activation: Activation,
}

impl RowKernel for Elementwise {
    #[inline(always)]
    unsafe fn row<S: Simd, I: Number, O: Number>(&self, Row { layouts, at, inputs, output }: Row<I, O>) {
        let Layouts { inputs: shapes, output: shape } = layouts;
        // SAFETY: the shapes are equal, and the pointers are valid for the layouts.
        unsafe {
            let first = inputs[0].add(shapes[0].at(at.image, at.block, at.row));
            for x in 0..shape.width {
                let mut value = I::load::<S>(first.add(x * S::LANES));
                if let Some([scale, shift]) = &self.affine {
                    let channel = at.block * S::LANES;
                    value =
                        S::mul_add(value, S::load(scale.as_ptr().add(channel)), S::load(shift.as_ptr().add(channel)));
                }
                for (other, layout) in inputs.iter().zip(shapes).skip(1) {
                    let other = other.add(layout.at(at.image, at.block, at.row) + x * S::LANES);
                    value = S::add(value, I::load::<S>(other));
                }
                O::store::<S>(output.add(x * S::LANES), cut::<S>(self.activation.bounds(), value));
            }
            self.activation.finish::<S, O>(output, shape.width, shape.block_channels(at.block));
        }
    }
}

/// Tensors in any halos, `[batch, channels, height, width]`, each channel multiplied by that of a gate,
/// `[batch, channels, 1, 1]`; `inputs` are both.
///
/// # Errors
/// Shapes or channels differ.
pub fn gate(isa: Isa, inputs: [Layout; 2], output: Layout, threads: usize) -> Result<Box<dyn Operation>, KernelError> {
    let [batch, channels, ..] = output.shape();
    for (input, expected) in inputs.into_iter().zip([output.shape(), [batch, channels, 1, 1]]) {
        if input.shape() != expected {
            let shape = |[_, channels, height, width]: [usize; 4]| [channels, height, width];
            let (left, right) = (shape(input.shape()), shape(expected));
            return Err(KernelError::Shapes { operation: "a gate", left, right });
        }
    }
    Ok(ByRows::new(Gate, isa, inputs.into(), output, threads)?)
}

struct Gate;

impl RowKernel for Gate {
    #[inline(always)]
    unsafe fn row<S: Simd, I: Number, O: Number>(&self, Row { layouts, at, inputs, output }: Row<I, O>) {
        let [maps, gates] = &layouts.inputs[..] else { return };
        // SAFETY: the shapes have been checked, and the pointers are valid for the layouts.
        unsafe {
            let gate = I::load::<S>(inputs[1].add(gates.at(at.image, at.block, 0)));
            let from = inputs[0].add(maps.at(at.image, at.block, at.row));
            for x in 0..maps.width {
                O::store::<S>(output.add(x * S::LANES), S::mul(I::load::<S>(from.add(x * S::LANES)), gate));
            }
        }
    }
}
