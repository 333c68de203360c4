//! The weight of a fully-connected layer most of whose numbers are zero, and its products with vectors.
#![allow(unsafe_code)]

use std::ops::Range;

use crate::linear::{IMAGES, Products, Vectors};
use crate::number::Number;
use crate::simd::Simd;

/// The density below which a product of one vector with those numbers that are not zero is faster than one with all:
/// measured by `cargo test --workspace --test layers -- --ignored --nocapture by_density`, see `docs/src/kernels.md`.
pub const BREAK_EVEN: f64 = 0.2;

/// The numbers of a matrix `[outputs, inputs]` that are not zero, row by row.
pub(crate) struct SparseWeight {
    /// Where each row begins in `entries`, and where the last ends.
    starts: Vec<usize>,
    /// Column and number.
    entries: Vec<(u32, f32)>,
}

impl SparseWeight {
    /// Of a matrix with rows of `inputs` numbers.
    pub fn new(weight: &[f32], inputs: usize) -> Self {
        let (mut starts, mut entries) = (vec![0], Vec::new());
        for row in weight.chunks_exact(inputs.max(1)) {
            entries.extend(
                row.iter().zip(0..).filter(|(weight, _)| **weight != 0.0).map(|(weight, column)| (column, *weight)),
            );
            starts.push(entries.len());
        }
        Self { starts, entries }
    }

    /// How many numbers are not zero.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes to read for a product.
    pub fn bytes(&self) -> usize {
        size_of_val(self.entries.as_slice()) + size_of_val(self.starts.as_slice())
    }
}

/// The share of numbers that are not zero.
pub(crate) fn density(weight: &[f32]) -> f64 {
    weight.iter().filter(|weight| **weight != 0.0).count() as f64 / weight.len().max(1) as f64
}

impl Products for SparseWeight {
    #[inline(always)]
    unsafe fn rows<S: Simd, I: Number, O: Number>(&self, vectors: &Vectors<'_, I, O>, rows: Range<usize>) {
        for row in rows {
            let mut image = 0;
            // SAFETY: the caller's promise.
            unsafe {
                while image + IMAGES <= vectors.batch {
                    self.sum::<I, O, IMAGES>(vectors, row, image);
                    image += IMAGES;
                }
                for image in image..vectors.batch {
                    self.sum::<I, O, 1>(vectors, row, image);
                }
            }
        }
    }
}

impl SparseWeight {
    /// One output of `N` images, before the activation. Products are added by turns to sums of their own, since each
    /// addition waits for the one before it.
    #[inline(always)]
    unsafe fn sum<I: Number, O: Number, const N: usize>(&self, vectors: &Vectors<'_, I, O>, row: usize, image: usize) {
        const TURNS: usize = 4;
        let entries = &self.entries[self.starts[row]..self.starts[row + 1]];
        let mut totals = [[0.0f32; N]; TURNS];
        // SAFETY: columns are below the layer's inputs, and the images exist.
        unsafe {
            let input = vectors.input.add(image * vectors.input_step);
            let groups = entries.chunks_exact(TURNS);
            let rest = groups.remainder();
            for group in groups {
                for (totals, &(column, weight)) in totals.iter_mut().zip(group) {
                    for (n, total) in totals.iter_mut().enumerate() {
                        *total += weight * (*input.add(n * vectors.input_step + column as usize)).value();
                    }
                }
            }
            for &(column, weight) in rest {
                for (n, total) in totals[0].iter_mut().enumerate() {
                    *total += weight * (*input.add(n * vectors.input_step + column as usize)).value();
                }
            }
            for n in 0..N {
                let total: f32 = totals.iter().map(|totals| totals[n]).sum();
                vectors.output.add((image + n) * vectors.output_step + row).write(O::of(total + vectors.bias[row]));
            }
        }
    }
}
