//! Local response normalization.
#![allow(unsafe_code)]

use super::rows::{ByRows, Place, Row, RowKernel};
use crate::lrn::LocalResponse;
use crate::number::Number;
use crate::simd::{MAX_LANES, Simd};
use crate::{Isa, KernelError, Layout, Operation};

/// Local response normalization of one layout into another; any halos.
///
/// # Errors
/// Shapes differ, or the window is of no channel or wider than [`LocalResponse::MAX_SIZE`].
pub fn local_response_norm(
    isa: Isa,
    norm: LocalResponse,
    input: Layout,
    output: Layout,
    threads: usize,
) -> Result<Box<dyn Operation>, KernelError> {
    let operation = "local response normalization";
    if norm.size == 0 || norm.size > LocalResponse::MAX_SIZE {
        return Err(KernelError::Window { operation, what: "a window of no channel or of more than 17" });
    }
    if input.shape() != output.shape() {
        let shape = |layout: Layout| [layout.channels, layout.height, layout.width];
        return Err(KernelError::Shapes { operation, left: shape(input), right: shape(output) });
    }
    Ok(ByRows::new(LocalResponseRows(norm), isa, vec![input], output, threads)?)
}

struct LocalResponseRows(LocalResponse);

impl RowKernel for LocalResponseRows {
    #[inline(always)]
    unsafe fn row<S: Simd, I: Number, O: Number>(&self, Row { layouts, at, inputs, output }: Row<I, O>) {
        let Place { image, block, row } = at;
        let LocalResponse { size, alpha, beta, k } = self.0;
        let shape = &layouts.inputs[0];
        let (before, share) = (size / 2, alpha / size as f32);
        // SAFETY: the shapes are equal, and the pointers are valid for the layouts; a window reaches no further than
        // the neighboring blocks.
        unsafe {
            let pixels = inputs[0].add(shape.at(image, block, row));
            for x in 0..shape.width {
                let pixel = pixels.add(x * S::LANES);
                // The squares of three neighboring blocks; empty lanes are zero.
                let mut squares = [0.0; 3 * MAX_LANES];
                for neighbor in 0..3 {
                    if (1..=shape.blocks()).contains(&(block + neighbor)) {
                        let step = shape.block() as isize * (neighbor as isize - 1);
                        let value = I::load::<S>(pixel.offset(step));
                        S::store(squares.as_mut_ptr().add(neighbor * S::LANES), S::mul(value, value));
                    }
                }
                let mut total = S::splat(0.0);
                for channel in S::LANES - before..S::LANES - before + size {
                    total = S::add(total, S::load(squares.as_ptr().add(channel)));
                }
                let base = S::mul_add(S::splat(share), total, S::splat(k));
                let value = I::load::<S>(pixel);
                let result = if beta == 0.75 {
                    let root = S::sqrt(base);
                    S::div(value, S::mul(root, S::sqrt(root)))
                } else {
                    let mut bases = [0.0f32; MAX_LANES];
                    S::store(bases.as_mut_ptr(), base);
                    for base in &mut bases[..S::LANES] {
                        *base = base.powf(beta);
                    }
                    S::div(value, S::load(bases.as_ptr()))
                };
                O::store::<S>(output.add(x * S::LANES), result);
            }
        }
    }
}
