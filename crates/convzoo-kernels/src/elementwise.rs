//! What is done to each element on its own: scale and shift, sums, activations.
#![allow(unsafe_code)]

use crate::conv::length;
use crate::functions;
use crate::rows::{ByRows, Place, RowKernel};
use crate::simd::{MAX_LANES, Simd};
use crate::{Buffer, Isa, KernelError, Layout, Operation};

/// The element-wise function behind an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// None.
    #[default]
    Identity,
    /// max(0, x).
    Relu,
    /// The hyperbolic tangent.
    Tanh,
    /// The logistic function.
    Sigmoid,
}

impl Activation {
    /// Of a vector.
    ///
    /// # Safety
    /// The processor has `S`'s instructions.
    #[inline(always)]
    pub(crate) unsafe fn apply<S: Simd>(self, vector: S::Vector) -> S::Vector {
        // SAFETY: the caller's promise; the array holds any vector.
        unsafe {
            match self {
                Self::Identity => vector,
                // NaN stays: where an operand is none, the instruction answers with the second.
                Self::Relu => S::max(S::splat(0.0), vector),
                Self::Tanh | Self::Sigmoid => {
                    let mut values = [0.0; MAX_LANES];
                    S::store(values.as_mut_ptr(), vector);
                    for value in &mut values[..S::LANES] {
                        *value = self.of(*value);
                    }
                    S::load(values.as_ptr())
                }
            }
        }
    }

    /// Of one value.
    #[inline(always)]
    pub fn of(self, x: f32) -> f32 {
        match self {
            Self::Identity => x,
            Self::Relu if x < 0.0 => 0.0,
            Self::Relu => x,
            Self::Tanh => functions::tanh(x),
            Self::Sigmoid => functions::sigmoid(x),
        }
    }
}

/// Scales and shifts that each channel has of its own: batch normalisation by running statistics.
#[derive(Clone, Debug, PartialEq)]
pub struct ScaleShift {
    /// Per channel.
    pub scale: Vec<f32>,
    /// Per channel.
    pub shift: Vec<f32>,
}

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
    let right = [output.channels, output.height, output.width];
    for input in &inputs {
        let left = [input.channels, input.height, input.width];
        if left != right || input.batch != output.batch {
            return Err(KernelError::Shapes { operation: "a sum", left, right });
        }
    }
    let affine = affine.map(|ScaleShift { scale, shift }| {
        length("a normalisation's scale", output.channels, scale)?;
        length("a normalisation's shift", output.channels, shift)?;
        Ok([scale, shift].map(|values| {
            let mut padded = Buffer::zeros(output.channels.next_multiple_of(isa.lanes()));
            padded[..values.len()].copy_from_slice(values);
            padded
        }))
    });
    let kernel = Elementwise { isa, affine: affine.transpose()?, activation, inputs, output };
    Ok(Box::new(ByRows::new(kernel, threads)))
}

struct Elementwise {
    isa: Isa,
    affine: Option<[Buffer; 2]>,
    activation: Activation,
    inputs: Vec<Layout>,
    output: Layout,
}

impl RowKernel for Elementwise {
    fn isa(&self) -> Isa {
        self.isa
    }

    fn inputs(&self) -> Vec<Layout> {
        self.inputs.clone()
    }

    fn output(&self) -> Layout {
        self.output
    }

    #[inline(always)]
    unsafe fn row<S: Simd>(&self, at: Place, inputs: &[*const f32], output: *mut f32) {
        let channels = self.output.block_channels(at.block);
        // SAFETY: the shapes are equal, and the pointers are valid for the layouts.
        unsafe {
            let first = inputs[0].add(self.inputs[0].at(at.image, at.block, at.row));
            for x in 0..self.output.width {
                let mut value = S::load(first.add(x * S::LANES));
                if let Some([scale, shift]) = &self.affine {
                    let channel = at.block * S::LANES;
                    value =
                        S::mul_add(value, S::load(scale.as_ptr().add(channel)), S::load(shift.as_ptr().add(channel)));
                }
                for (other, layout) in inputs.iter().zip(&self.inputs).skip(1) {
                    let other = other.add(layout.at(at.image, at.block, at.row) + x * S::LANES);
                    value = S::add(value, S::load(other));
                }
                S::store(output.add(x * S::LANES), self.activation.apply::<S>(value));
            }
            // The sigmoid of the empty lanes' zeros is not zero.
            if channels < S::LANES && self.activation == Activation::Sigmoid {
                for x in 0..self.output.width {
                    output.add(x * S::LANES + channels).write_bytes(0, S::LANES - channels);
                }
            }
        }
    }
}
