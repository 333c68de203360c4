#![allow(unsafe_code)]

use std::ops::Range;

use super::gather::Gather;
use crate::operation::Shared;
use crate::simd::{Isa, Kernel, Simd};
use crate::{buffer, parallel};

/// Pixels summed before a tile's vectors are folded into numbers: as many as leave a tile's rows in the first-level cache.
const PIXELS: usize = 1024;

/// Rows of the window's matrix packed at once: with their pixels, half of a second-level cache.
const ROWS: usize = 108;

/// Sums products over all pixels: `[outputs, channels · taps]`, the gradient of a weight from that of the output.
///
/// `gradient` reads `outputs` channels from the `first`-th on, `window` reads `channels` of those in front of the
/// weight.
pub(super) fn correlate(
    isa: Isa,
    batch: usize,
    (gradient, outputs): (&Gather, Range<usize>),
    (window, channels): (&Gather, Range<usize>),
    into: &mut [f32],
) {
    let pixels = batch * window.area();
    let depth = channels.len() * window.taps();
    let step = (ROWS / window.taps()).clamp(1, channels.len().max(1));
    let blocks = channels.len().div_ceil(step);
    // Where there are few rows, threads share out the pixels, and each sums for itself.
    let wanted = 4 * parallel::threads();
    let parts = if blocks >= wanted { 1 } else { wanted.div_ceil(blocks.max(1)).min(pixels.div_ceil(PIXELS)).max(1) };
    into.fill(0.0);
    let mut others = vec![0.0; (parts - 1) * into.len()];
    let (first, rest) = (Shared(into.as_mut_ptr()), Shared(others.as_mut_ptr()));
    let len = into.len();
    parallel::for_each(blocks * parts, |task| {
        let (block, part) = (task / parts, task % parts);
        let start = channels.start + block * step;
        let block_channels = start..channels.end.min(start + step);
        // SAFETY: every part has its sums to itself, and in them every block its columns.
        unsafe {
            let sums = if part == 0 { first.get() } else { rest.get().add((part - 1) * len) };
            isa.call(Block {
                gradient,
                outputs: outputs.clone(),
                window,
                channels: block_channels,
                pixels: parallel::piece(pixels, parts, part),
                sums: sums.add(block * step * window.taps()),
                depth,
            });
        }
    });
    for other in others.chunks_exact(len.max(1)) {
        into.iter_mut().zip(other).for_each(|(sum, other)| *sum += other);
    }
}

/// Some columns of the gradient of a weight, summed over some pixels.
struct Block<'a> {
    gradient: &'a Gather<'a>,
    outputs: Range<usize>,
    window: &'a Gather<'a>,
    channels: Range<usize>,
    pixels: Range<usize>,
    /// The first column; rows are `depth` apart.
    sums: *mut f32,
    depth: usize,
}

impl Kernel for Block<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (outputs, rows) = (self.outputs.len(), self.channels.len() * self.window.taps());
        let [tile_outputs, tile_rows] = tile::<S>();
        let (output_tiles, row_tiles) = (outputs.div_ceil(tile_outputs), rows.div_ceil(tile_rows));
        let chunks = self.pixels.len().div_ceil(PIXELS);
        let most = pitch::<S>(self.pixels.len().div_ceil(chunks.max(1)));
        let gradient_len = outputs * most + S::LANES;
        buffer::with_scratch(gradient_len + rows * most + S::LANES, |scratch| {
            let (gradients, windows) = scratch.split_at_mut(gradient_len);
            for chunk in 0..chunks {
                let piece = parallel::piece(self.pixels.len(), chunks, chunk);
                let pixels = self.pixels.start + piece.start..self.pixels.start + piece.end;
                let width = pitch::<S>(pixels.len());
                // SAFETY: the scratch has room for the rows and a vector more; sums are there for all tiles.
                unsafe {
                    self.gradient.pack::<S>(self.outputs.clone(), pixels.clone(), width, gradients.as_mut_ptr());
                    self.window.pack::<S>(self.channels.clone(), pixels, width, windows.as_mut_ptr());
                    for tile in 0..output_tiles {
                        let outputs = parallel::piece(outputs, output_tiles, tile);
                        for tile in 0..row_tiles {
                            let rows = parallel::piece(rows, row_tiles, tile);
                            let args = TileArgs {
                                a: gradients.as_ptr().add(outputs.start * width),
                                b: windows.as_ptr().add(rows.start * width),
                                width,
                                sums: self.sums.add(outputs.start * self.depth + rows.start),
                                step: self.depth,
                            };
                            fold::<S>([outputs.len(), rows.len()], args);
                        }
                    }
                }
            }
        });
    }
}

/// The width of rows of so many pixels: an odd number of vectors, so that neighbouring rows lie in different sets of a
/// cache.
#[inline(always)]
fn pitch<S: Simd>(pixels: usize) -> usize {
    (pixels.div_ceil(S::LANES) | 1) * S::LANES
}

/// Outputs and rows whose sums, with one vector of each output and one of a row, fill the registers.
#[inline(always)]
const fn tile<S: Simd>() -> [usize; 2] {
    match S::PIXELS {
        14.. => [6, 4],
        6.. => [4, 3],
        _ => [2, 2],
    }
}

#[derive(Clone, Copy)]
struct TileArgs {
    /// `[outputs, width]`.
    a: *const f32,
    /// `[rows, width]`.
    b: *const f32,
    width: usize,
    /// `[outputs, rows]`, outputs `step` apart.
    sums: *mut f32,
    step: usize,
}

struct Tile<const OUTPUTS: usize, const ROWS: usize>(TileArgs);

impl<const OUTPUTS: usize, const ROWS: usize> Kernel for Tile<OUTPUTS, ROWS> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let TileArgs { a, b, width, sums, step } = self.0;
        // SAFETY: the pointers are valid for the rows and the width, the promise of whoever made them.
        unsafe {
            let mut totals = [[S::splat(0.0); ROWS]; OUTPUTS];
            let mut i = 0;
            while i < width {
                let mut rows = [S::splat(0.0); ROWS];
                for (r, row) in rows.iter_mut().enumerate() {
                    *row = S::load(b.add(r * width + i));
                }
                for (o, totals) in totals.iter_mut().enumerate() {
                    let output = S::load(a.add(o * width + i));
                    for (total, row) in totals.iter_mut().zip(rows) {
                        *total = S::mul_add(output, row, *total);
                    }
                }
                i += S::LANES;
            }
            for (o, totals) in totals.into_iter().enumerate() {
                for (r, total) in totals.into_iter().enumerate() {
                    *sums.add(o * step + r) += S::sum(total);
                }
            }
        }
    }
}

/// Computes a tile of `[outputs, rows]`, no more than [`tile`].
#[inline(always)]
unsafe fn fold<S: Simd>(size: [usize; 2], args: TileArgs) {
    macro_rules! dispatch {
        ($($outputs:literal: $($rows:literal)*;)*) => {
            match size {
                // SAFETY: the caller's promise.
                $($([$outputs, $rows] if $outputs <= tile::<S>()[0] && $rows <= tile::<S>()[1] => unsafe {
                    S::call(Tile::<$outputs, $rows>(args))
                },)*)*
                _ => unreachable!("tiles have at most {:?} outputs and rows", tile::<S>()),
            }
        };
    }
    dispatch!(1: 1 2 3 4; 2: 1 2 3 4; 3: 1 2 3 4; 4: 1 2 3 4; 5: 1 2 3 4; 6: 1 2 3 4;)
}
