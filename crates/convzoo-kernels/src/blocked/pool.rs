//! Max and average pooling.
#![allow(unsafe_code)]

use super::rows::{ByRows, Row, RowKernel};
use crate::number::Number;
use crate::pool::{PoolShape, Window};
use crate::simd::Simd;
use crate::{Isa, KernelError, Layout, Operation};

/// Pooling of one layout into another; any halos.
///
/// # Errors
/// The layouts do not fit each other or the shape.
pub fn pool2d(
    isa: Isa,
    shape: &PoolShape,
    input: Layout,
    output: Layout,
    threads: usize,
) -> Result<Box<dyn Operation>, KernelError> {
    let [rows, columns] = shape.between(&input, &output)?;
    let kernel = PoolRows { max: shape.is_max(), rows, columns };
    Ok(ByRows::new(kernel, isa, vec![input], output, threads)?)
}

struct PoolRows {
    max: bool,
    rows: Vec<Window>,
    columns: Vec<Window>,
}

impl RowKernel for PoolRows {
    #[inline(always)]
    unsafe fn row<S: Simd, I: Number, O: Number>(&self, Row { layouts, at, inputs, output }: Row<I, O>) {
        let (rows, shape) = (self.rows[at.row], &layouts.inputs[0]);
        // SAFETY: windows lie on the image, and the pointers are valid for the layouts.
        unsafe {
            let input = inputs[0].add(shape.at(at.image, at.block, 0));
            for (x, columns) in self.columns.iter().enumerate() {
                let mut total = S::splat(if self.max { f32::NEG_INFINITY } else { 0.0 });
                for row in rows.start..rows.end {
                    let mut pixel = input.add(row * shape.row() + columns.start * S::LANES);
                    for _ in columns.start..columns.end {
                        let value = I::load::<S>(pixel);
                        total = if self.max { S::max_or_nan(total, value) } else { S::add(total, value) };
                        pixel = pixel.wrapping_add(S::LANES);
                    }
                }
                if !self.max {
                    total = S::div(total, S::splat(rows.divisor * columns.divisor));
                }
                O::store::<S>(output.add(x * S::LANES), total);
            }
        }
    }
}
