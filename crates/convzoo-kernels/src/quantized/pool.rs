//! Max and average pooling of bytes.
#![allow(unsafe_code)]

use super::layout::QUAD;
use super::scale::ByteScale;
use crate::blocked::rows::{ByRows, Row, RowKernel};
use crate::elementwise::cut;
use crate::number::Number;
use crate::pool::{PoolShape, Window};
use crate::simd::Simd;
use crate::{Isa, KernelError, Layout, Operation};

/// Pooling of one layout of bytes into another, each with its scale; any halos. The largest of some bytes keeps its scale,
/// so of max pooling both scales are the same.
///
/// A mean is (Σ q − n · zero) · multiplier + zero′, rounded to the nearest byte: n bytes are summed, and the multiplier is
/// scale / scale′ / divisor.
///
/// # Errors
/// The layouts do not fit each other or the shape.
pub fn pool_bytes(
    isa: Isa,
    shape: &PoolShape,
    [from, to]: [ByteScale; 2],
    input: Layout,
    output: Layout,
    threads: usize,
) -> Result<Box<dyn Operation>, KernelError> {
    let [rows, columns] = shape.between(&input, &output)?;
    if shape.is_max() && from != to {
        return Err(KernelError::Missing("second scale in max pooling"));
    }
    let ratio = (f64::from(from.scale) / f64::from(to.scale)) as f32;
    let kernel = PoolByteRows { max: shape.is_max(), rows, columns, ratio, zeros: [from.zero, to.zero] };
    Ok(ByRows::new(kernel, isa, vec![input], output, threads)?)
}

struct PoolByteRows {
    max: bool,
    rows: Vec<Window>,
    columns: Vec<Window>,
    /// Of the scales.
    ratio: f32,
    zeros: [u8; 2],
}

impl RowKernel for PoolByteRows {
    #[inline(always)]
    unsafe fn row<S: Simd, I: Number, O: Number>(&self, Row { layouts, at, inputs, output }: Row<I, O>) {
        let (rows, shape) = (self.rows[at.row], &layouts.inputs[0]);
        let [from, to] = self.zeros.map(f32::from);
        let output = output.cast::<u8>();
        // SAFETY: windows lie on the image, and the pointers are valid for the layouts.
        unsafe {
            let input = inputs[0].cast::<u8>().add(shape.at(at.image, at.block, 0) * QUAD);
            for (x, columns) in self.columns.iter().enumerate() {
                let summed = (rows.end - rows.start) * (columns.end - columns.start);
                let mut total = S::splat(if self.max { 0.0 } else { -from * summed as f32 });
                for row in rows.start..rows.end {
                    let mut pixel = input.add(row * shape.row() * QUAD + columns.start * S::LANES);
                    for _ in columns.start..columns.end {
                        let value = S::load_bytes(pixel);
                        total = if self.max { S::max(total, value) } else { S::add(total, value) };
                        pixel = pixel.wrapping_add(S::LANES);
                    }
                }
                if !self.max {
                    let multiplier = S::splat(self.ratio / (rows.divisor * columns.divisor));
                    total = cut::<S>([0.0, 255.0], S::add(S::mul(total, multiplier), S::splat(to)));
                }
                S::store_bytes(output.add(x * S::LANES), total);
            }
        }
    }

    #[inline(always)]
    fn halo(&self) -> u8 {
        self.zeros[1]
    }
}
