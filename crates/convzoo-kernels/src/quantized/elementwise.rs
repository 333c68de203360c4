//! Sums, scales and ReLUs of bytes, in one pass.
#![allow(unsafe_code)]

use super::layout::QUAD;
use crate::blocked::rows::{ByRows, Layouts, Row, RowKernel};
use crate::elementwise::cut;
use crate::error::check_length;
use crate::memory::pad_channels;
use crate::number::Number;
use crate::simd::Simd;
use crate::{Buffer, Isa, KernelError, Layout, Operation};

/// What makes bytes of the bytes of some tensors: multiplier · first + offset + Σ others · their multipliers, each operation
/// rounded by itself, cut at the bounds and rounded to the nearest byte.
#[derive(Clone, Debug)]
pub struct ByteSum {
    /// By channel, of the first tensor.
    pub multiplier: Vec<f32>,
    /// By channel.
    pub offset: Vec<f32>,
    /// Of each tensor after the first.
    pub others: Vec<f32>,
    /// Within those of bytes.
    pub bounds: [f32; 2],
    /// The output's zero point.
    pub zero: u8,
}

/// The sum of tensors of bytes of one shape in any halos.
///
/// # Errors
/// Shapes or channels differ.
pub fn sum_bytes(
    isa: Isa,
    sum: &ByteSum,
    inputs: Vec<Layout>,
    output: Layout,
    threads: usize,
) -> Result<Box<dyn Operation>, KernelError> {
    output.check_equal("a sum", &inputs)?;
    let channels = sum.multiplier.len();
    if channels.div_ceil(QUAD) != output.channels {
        return Err(KernelError::Channels { operation: "a sum", expected: channels, found: output.channels * QUAD });
    }
    check_length("a sum's offset", channels, &sum.offset)?;
    check_length("a sum's multipliers", inputs.len().saturating_sub(1), &sum.others)?;
    let [multiplier, offset] =
        [&sum.multiplier, &sum.offset].map(|values| pad_channels(Some(values), 0.0, channels, isa.lanes()));
    let kernel = SumByteRows { multiplier, offset, others: sum.others.clone(), bounds: sum.bounds, zero: sum.zero };
    Ok(ByRows::new(kernel, isa, inputs, output, threads)?)
}

struct SumByteRows {
    multiplier: Buffer,
    offset: Buffer,
    others: Vec<f32>,
    bounds: [f32; 2],
    zero: u8,
}

impl RowKernel for SumByteRows {
    #[inline(always)]
    unsafe fn row<S: Simd, I: Number, O: Number>(&self, Row { layouts, at, inputs, output }: Row<I, O>) {
        let Layouts { inputs: shapes, output: shape } = layouts;
        let place = |layout: &Layout| layout.at(at.image, at.block, at.row) * QUAD;
        // SAFETY: the shapes are equal, and the pointers are valid for the layouts.
        unsafe {
            let first = inputs[0].cast::<u8>().add(place(&shapes[0]));
            let channel = at.block * S::LANES;
            let (multiplier, offset) =
                (S::load(self.multiplier.as_ptr().add(channel)), S::load(self.offset.as_ptr().add(channel)));
            for x in 0..shape.width {
                let mut value = S::add(S::mul(S::load_bytes(first.add(x * S::LANES)), multiplier), offset);
                for ((other, layout), multiplier) in inputs.iter().zip(shapes).skip(1).zip(&self.others) {
                    let other = S::load_bytes(other.cast::<u8>().add(place(layout) + x * S::LANES));
                    value = S::add(value, S::mul(other, S::splat(*multiplier)));
                }
                S::store_bytes(output.cast::<u8>().add(x * S::LANES), cut::<S>(self.bounds, value));
            }
        }
    }

    #[inline(always)]
    fn halo(&self) -> u8 {
        self.zero
    }
}
