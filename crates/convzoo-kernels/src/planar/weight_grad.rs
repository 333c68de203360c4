//! The gradient of a weight, its vectors along outputs.
#![allow(unsafe_code)]

use std::ops::Range;
use std::ptr;

use super::im2col::Im2col;
use super::weight_grad_few::weight_grad_few;
use crate::gemm::channel_tile::{ChannelTileArgs, ROW_STEP, channel_tile};
use crate::memory::{Shared, with_scratch};
use crate::number::Number;
use crate::parallel;
use crate::simd::{Isa, Kernel, MAX_LANES, Simd};

/// Cells of pixels summed at once: with two vectors of outputs for each, half of a first-level cache.
const CELLS: usize = ROW_STEP - MAX_LANES;

/// What a task works on, in floats: three quarters of a second-level cache.
const CACHE: usize = 180 << 10;

/// Outputs of a task, at most: with more, so few rows would fit beside them that transposing took longer than multiplying.
const OUTPUTS: usize = 256;

/// Sums products over all pixels: `[outputs, channels · taps]`, the gradient of a weight from that of the output.
///
/// `gradient` reads `outputs` of its channels, `window` reads `channels` of the input. Vectors lie along
/// the outputs: for that the gradient is transposed, a few pixels at a time.
pub(super) fn weight_grad<N: Number>(
    isa: Isa,
    batch: usize,
    (gradient, outputs): (&Im2col<N>, Range<usize>),
    (window, channels): (&Im2col<N>, Range<usize>),
    into: &mut [f32],
) {
    if weight_grad_few(isa, batch, (gradient, outputs.clone()), (window, channels.clone()), into) {
        return;
    }
    let pixels = batch * window.area();
    let depth = channels.len() * window.taps();
    let columns = outputs.len().div_ceil(OUTPUTS).max(1);
    let wide = outputs.len().div_ceil(columns).next_multiple_of(isa.lanes());
    let rows = CACHE.saturating_sub(wide * CELLS) / (ROW_STEP + wide);
    let step = (rows / window.taps()).clamp(1, channels.len().max(1));
    let blocks = channels.len().div_ceil(step);
    // Where there are few rows, threads share out the pixels, and each sums for itself.
    let (tasks, wanted) = (blocks * columns, 4 * parallel::threads());
    let parts = if tasks >= wanted {
        1
    } else {
        wanted.div_ceil(tasks.max(1)).min(pixels.div_ceil(N::PER_CELL * CELLS)).max(1)
    };
    let mut others = vec![0.0; (parts - 1) * into.len()];
    let (first, rest) = (Shared(into.as_mut_ptr()), Shared(others.as_mut_ptr()));
    let len = into.len();
    parallel::for_each(tasks * parts, |task| {
        let (block, column, part) = (task / parts / columns, task / parts % columns, task % parts);
        let block_channels = parallel::piece(channels.len(), blocks, block);
        let block_outputs = outputs.len().min(column * wide)..outputs.len().min((column + 1) * wide);
        // SAFETY: every part has its sums to itself, and in them every block its columns of its rows.
        unsafe {
            let sums = if part == 0 { first.get() } else { rest.get().add((part - 1) * len) };
            N::call(
                isa,
                WeightBlock {
                    gradient,
                    outputs: outputs.start + block_outputs.start..outputs.start + block_outputs.end,
                    window,
                    channels: channels.start + block_channels.start..channels.start + block_channels.end,
                    pixels: parallel::piece(pixels, parts, part),
                    sums: sums.add(block_outputs.start * depth + block_channels.start * window.taps()),
                    depth,
                },
            );
        }
    });
    for other in others.chunks_exact(len.max(1)) {
        into.iter_mut().zip(other).for_each(|(sum, other)| *sum += other);
    }
}

/// Some columns of the gradient of a weight, summed over some pixels.
struct WeightBlock<'a, N: Number> {
    gradient: &'a Im2col<'a, N>,
    outputs: Range<usize>,
    window: &'a Im2col<'a, N>,
    channels: Range<usize>,
    pixels: Range<usize>,
    /// The first column; rows are `depth` apart.
    sums: *mut f32,
    depth: usize,
}

impl<N: Number> Kernel for WeightBlock<'_, N> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let rows = self.channels.len() * self.window.taps();
        let outputs = self.outputs.len().div_ceil(S::LANES);
        let block_len = rows.next_multiple_of(S::LANES) * S::LANES;
        let lengths = [outputs * S::LANES * CELLS, outputs * block_len, S::LANES * ROW_STEP];
        with_scratch(lengths.iter().sum::<usize>() + rows * ROW_STEP + S::LANES, |scratch| {
            // `[pair of output blocks][cell][block][lanes]`, `[output block][row][lanes]`, `[lanes][cell]`, `[row][cell]`.
            let (gradients, scratch) = scratch.split_at_mut(lengths[0]);
            let (sums, scratch) = scratch.split_at_mut(lengths[1]);
            let (lines, windows) = scratch.split_at_mut(lengths[2]);
            let chunks = self.pixels.len().div_ceil(N::PER_CELL * CELLS);
            for chunk in 0..chunks {
                let piece = parallel::piece(self.pixels.len(), chunks, chunk);
                let pixels = self.pixels.start + piece.start..self.pixels.start + piece.end;
                let count = pixels.len().div_ceil(N::PER_CELL);
                // SAFETY: what lies after the rows that are packed is packed later, or spare.
                unsafe {
                    self.transpose::<S>(pixels.clone(), lines, gradients);
                    let pixels = std::iter::once((pixels, 0));
                    let to = windows.as_mut_ptr().cast();
                    self.window.pack::<S>(self.channels.clone(), pixels, N::PER_CELL * ROW_STEP, to);
                    for first in (0..outputs).step_by(2) {
                        let tiles = rows.div_ceil(S::PIXELS);
                        for part in 0..tiles {
                            let rows = parallel::piece(rows, tiles, part);
                            let to = sums.as_mut_ptr().add(first * block_len + rows.start * S::LANES);
                            let args = ChannelTileArgs {
                                input: windows.as_ptr().add(rows.start * ROW_STEP),
                                weights: gradients.as_ptr().add(first * S::LANES * CELLS),
                                sum: if chunk > 0 { to } else { ptr::null() },
                                output: to,
                                sum_block: block_len,
                                output_block: block_len,
                                run: count,
                                run_last: count,
                                pixel_step: ROW_STEP,
                                ..ChannelTileArgs::PRODUCT
                            };
                            channel_tile::<S, N, f32>(rows.len(), (outputs - first).min(2), &args);
                        }
                    }
                }
            }
            // SAFETY: the result has a place for each sum.
            unsafe { self.write::<S>(rows, sums, lines) }
        });
    }
}

impl<N: Number> WeightBlock<'_, N> {
    /// Brings the gradient's pixels to `[pair of output blocks][cell][block][lanes]`.
    ///
    /// # Safety
    /// After the lines there is room for a vector.
    #[inline(always)]
    unsafe fn transpose<S: Simd>(&self, pixels: Range<usize>, lines: &mut [f32], gradients: &mut [f32]) {
        let count = pixels.len().div_ceil(N::PER_CELL);
        let blocks = self.outputs.len().div_ceil(S::LANES);
        for block in 0..blocks {
            let start = self.outputs.start + block * S::LANES;
            let channels = start..self.outputs.end.min(start + S::LANES);
            lines[channels.len() * ROW_STEP..].fill(0.0);
            let first = block / 2 * 2;
            let step = (blocks - first).min(2) * S::LANES;
            // SAFETY: the lines are as wide as the squares of the pixels.
            unsafe {
                let pixels = std::iter::once((pixels.clone(), 0));
                self.gradient.pack::<S>(channels, pixels, N::PER_CELL * ROW_STEP, lines.as_mut_ptr().cast());
                let to = gradients.as_mut_ptr().add(first * S::LANES * CELLS + (block - first) * S::LANES);
                let (from, squares) = (lines.as_ptr(), count.div_ceil(S::LANES));
                S::call(Transpose { from, from_step: ROW_STEP, to, to_step: step, squares });
            }
        }
    }

    /// Brings the sums from `[output block][row][lanes]` to their place.
    ///
    /// # Safety
    /// The result has `rows` columns of all outputs.
    #[inline(always)]
    unsafe fn write<S: Simd>(&self, rows: usize, sums: &[f32], square: &mut [f32]) {
        let block_len = rows.next_multiple_of(S::LANES) * S::LANES;
        for (block, sums) in sums.chunks_exact(block_len).enumerate() {
            let outputs = block * S::LANES..self.outputs.len().min((block + 1) * S::LANES);
            for row in (0..rows).step_by(S::LANES) {
                // SAFETY: sums are there for all lanes and for rows up to a multiple of them.
                unsafe {
                    let (from, to) = (sums.as_ptr().add(row * S::LANES), square.as_mut_ptr());
                    S::call(Transpose { from, from_step: S::LANES, to, to_step: S::LANES, squares: 1 });
                    for (output, values) in outputs.clone().zip(square.chunks_exact(S::LANES)) {
                        let to = self.sums.add(output * self.depth + row);
                        to.copy_from_nonoverlapping(values.as_ptr(), S::LANES.min(rows - row));
                    }
                }
            }
        }
    }
}

/// Transposes a row of squares, [`Simd::LANES`] each way: `from` one beside the other `to` one below the other.
struct Transpose {
    from: *const f32,
    from_step: usize,
    to: *mut f32,
    to_step: usize,
    squares: usize,
}

impl Kernel for Transpose {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for square in 0..self.squares {
            // SAFETY: the squares are there, the promise of whoever made the pointers.
            unsafe {
                let from = self.from.add(square * S::LANES);
                S::transpose(from, self.from_step, self.to.add(square * S::LANES * self.to_step), self.to_step);
            }
        }
    }
}
