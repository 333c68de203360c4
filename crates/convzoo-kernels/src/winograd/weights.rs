//! The transformed weights of a convolution.

use std::marker::PhantomData;
use std::ops::Range;

use half::bf16;

use super::WinogradTile;
use super::pipeline::Pair;
use super::transform::{Four, MAX_INPUTS, Square, Transform, Two, to_elements};
use crate::gemm::WeightMatrix;
use crate::memory::{Shared, part_mut};
use crate::number::Number;
use crate::parallel::{self, piece};
use crate::simd::{Isa, Kernel, MAX_LANES, Simd};

/// Floats of one element's weights, for channels in and out.
pub(crate) fn element_len(isa: Isa, [inputs, outputs]: [usize; 2]) -> usize {
    inputs * outputs.next_multiple_of(isa.lanes())
}

/// Floats of the weights of all elements.
pub(crate) fn transformed_len(isa: Isa, tile: WinogradTile, channels: [usize; 2]) -> usize {
    tile.inputs().pow(2) * element_len(isa, channels)
}

/// Transforms kernels of nine taps to `[element][pair of output blocks][input][block][lanes]`.
///
/// # Panics
/// `to` is not as long as [`transformed_len`] or longer.
pub(crate) fn transform_weights(isa: Isa, tile: WinogradTile, matrix: &WeightMatrix, to: &mut [f32]) {
    assert!(to.len() >= transformed_len(isa, tile, [matrix.channels, matrix.rows]), "room for transformed weights");
    match tile {
        WinogradTile::Two => with::<Two>(isa, matrix, to),
        WinogradTile::Four => with::<Four>(isa, matrix, to),
    }
}

/// Rounds transformed weights to bfloat16 numbers, those of neighboring inputs in one cell.
///
/// # Panics
/// `to` has no room.
pub(crate) fn pair_weights(
    isa: Isa,
    tile: WinogradTile,
    [inputs, outputs]: [usize; 2],
    weights: &[f32],
    to: &mut [f32],
) {
    let lanes = isa.lanes();
    let (elements, blocks, pairs) = (tile.inputs().pow(2), outputs.div_ceil(lanes), inputs.div_ceil(2));
    let (len, paired) = (inputs * blocks * lanes, pairs * blocks * lanes);
    assert!(to.len() >= elements * paired, "room for pairs of weights");
    let to = Shared(to.as_mut_ptr());
    parallel::for_each(elements, |element| {
        // SAFETY: each element has a part to itself.
        let to = unsafe { part_mut(&to, element * paired, paired) };
        let from = &weights[element * len..][..len];
        for first in (0..blocks).step_by(2) {
            let width = (blocks - first).min(2) * lanes;
            let from = from[first * inputs * lanes..][..inputs * width].chunks(2 * width);
            let to = to[first * pairs * lanes..][..pairs * width].chunks_exact_mut(width);
            for (to, from) in to.zip(from) {
                let (low, high) = from.split_at(width);
                let high = high.iter().copied().chain(std::iter::repeat(0.0));
                for ((to, low), high) in to.iter_mut().zip(low).zip(high) {
                    *to = bf16::cell(bf16::of(*low), bf16::of(high));
                }
            }
        }
    });
}

fn with<T: Transform>(isa: Isa, matrix: &WeightMatrix, to: &mut [f32]) {
    let blocks = matrix.rows.div_ceil(isa.lanes());
    let element = element_len(isa, [matrix.channels, matrix.rows]);
    let to = Shared(to.as_mut_ptr());
    let parts = (4 * parallel::threads()).div_ceil(blocks).min(matrix.channels);
    parallel::for_each(blocks * parts, |task| {
        let (block, part) = (task / parts, task % parts);
        let channels = piece(matrix.channels, parts, part);
        let task = TransformWeights { matrix, block, channels, to: to.get(), element, transform: PhantomData::<T> };
        // SAFETY: the instruction set comes from detection; each task writes the weights of its outputs and inputs.
        unsafe { isa.call(task) }
    });
}

/// The weights of a block of outputs and some inputs.
struct TransformWeights<'a, T> {
    matrix: &'a WeightMatrix<'a>,
    block: usize,
    channels: Range<usize>,
    to: *mut f32,
    element: usize,
    transform: PhantomData<T>,
}

impl<T: Transform> Kernel for TransformWeights<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { matrix, block, .. } = self;
        let pair = Pair::of(block, matrix.rows.div_ceil(S::LANES));
        let mut taps = [0.0; 16 * MAX_LANES];
        for channel in self.channels.clone() {
            // SAFETY: the weights have room for every element.
            unsafe {
                self.gather::<S>(channel, &mut taps);
                let at =
                    pair.first * S::LANES * matrix.channels + (channel * pair.blocks + block - pair.first) * S::LANES;
                let square = Taps { values: taps.as_ptr(), order: matrix.taps };
                to_elements::<S, T, f32>(T::kernel::<S>, 3, &square, self.to.add(at), self.element);
            }
        }
    }
}

impl<T> TransformWeights<'_, T> {
    /// Brings a channel's taps to `[tap][lanes]`, of whose taps there are as many as squares have.
    #[inline(always)]
    unsafe fn gather<S: Simd>(&self, channel: usize, taps: &mut [f32; 16 * MAX_LANES]) {
        let matrix = self.matrix;
        let first = self.block * S::LANES;
        let outputs = S::LANES.min(matrix.rows - first);
        let squares = 9usize.div_ceil(S::LANES);
        let from = first * matrix.row + channel * matrix.channel;
        let read = from + (S::LANES - 1) * matrix.row + squares * S::LANES;
        if outputs == S::LANES && read <= matrix.weight.len() {
            for square in 0..squares {
                // SAFETY: squares are read where the weight has them, and the taps have room for them.
                unsafe {
                    let from = matrix.weight.as_ptr().add(from + square * S::LANES);
                    S::transpose(from, matrix.row, taps.as_mut_ptr().add(square * S::LANES * S::LANES), S::LANES);
                }
            }
            return;
        }
        for output in 0..outputs {
            for tap in 0..9 {
                taps[tap * S::LANES + output] = matrix.weight[from + output * matrix.row + tap];
            }
        }
    }
}

/// The taps of a block's kernels, `[tap][lanes]`, in the order in which the window has them.
struct Taps<'a> {
    values: *const f32,
    order: &'a [usize],
}

impl Square for Taps<'_> {
    #[inline(always)]
    unsafe fn row<S: Simd>(&self, y: usize) -> [S::Vector; MAX_INPUTS] {
        // SAFETY: there are nine taps; the processor has the instructions, the caller's promise.
        unsafe {
            let mut row = [S::splat(0.0); MAX_INPUTS];
            for (x, value) in row.iter_mut().enumerate().take(3) {
                *value = S::load(self.values.add(self.order[3 * y + x] * S::LANES));
            }
            row
        }
    }
}
