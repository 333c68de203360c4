#![allow(unsafe_code)]

use std::ops::Range;

use super::conv::Epilogue;
use super::frame::Frame;
use super::product::{Packed, Product, Target};
use super::{copy, keep};
use crate::simd::{Kernel, Simd};
use crate::{buffer, parallel};

/// Values in the planes of a task: half of a first-level cache.
const PLANES: usize = 6 << 10;

/// The most rows that are worth it: with more, a pixel brought to its place serves many.
const ROWS: usize = 32;

impl Product<'_> {
    /// A product of few rows, whose pixels are read where they lie: to bring each to every tap that sees it would take
    /// longer than to multiply it. Answers whether that suits; if not, nothing is done.
    pub fn run_directly(&self) -> bool {
        let &Self { isa, batch, gather, first, ref matrix, epilogue, ref target } = self;
        let Some(frame) = Frame::new(gather).filter(|_| matrix.rows <= ROWS) else { return false };
        // SAFETY: the instruction set comes from detection; so below.
        let packed = Packed::new(matrix, unsafe { isa.call(TileRows) }, matrix.channels);
        let offsets = frame.offsets(&gather.taps);
        let height = target.grid[0];
        // Rows that share a task: as many as a cache has room for, and few enough that all threads have some.
        let fitting = (PLANES / (matrix.channels * frame.pitch)).saturating_sub(frame.reach).max(4);
        let bands = height.div_ceil(fitting).max((4 * parallel::threads()).div_ceil(batch)).min(height);
        parallel::for_each(batch * bands, |task| {
            let rows = parallel::piece(height, bands, task % bands);
            let (frame, packed, offsets, image) = (&frame, &packed, &offsets, task / bands);
            // SAFETY: each task writes cells of its own, and the target has all of them.
            unsafe { isa.call(Band { frame, first, packed, offsets, epilogue, target, image, rows }) }
        });
        keep(packed.values);
        true
    }
}

/// Rows of a register tile, which has up to four vectors of cells.
struct TileRows;

impl Kernel for TileRows {
    type Output = usize;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> usize {
        (S::PIXELS / 2).max(1)
    }
}

/// Some rows of cells of one image.
struct Band<'a> {
    frame: &'a Frame<'a>,
    first: usize,
    packed: &'a Packed,
    offsets: &'a [usize],
    epilogue: Epilogue<'a>,
    target: &'a Target,
    image: usize,
    rows: Range<usize>,
}

impl Kernel for Band<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { frame, first, packed, offsets, epilogue, target, image, rows } = self;
        let plane = frame.len(rows.len(), S::LANES);
        let cells = (rows.len() * frame.pitch).next_multiple_of(S::LANES);
        let channels = first..first + packed.channels;
        let planes = packed.channels * plane + S::LANES;
        let tile_rows = packed.rows.div_ceil(packed.tiles);
        buffer::with_scratch(planes + tile_rows * cells + S::LANES, |scratch| {
            let (planes, sums) = scratch.split_at_mut(planes);
            // SAFETY: planes and sums have room for all rows; the taps of the cells lie within the planes.
            unsafe {
                frame.write::<S>(image, channels, [rows.start, rows.len()], frame.size[1], planes.as_mut_ptr());
                let used = (rows.len() - 1) * frame.pitch + target.grid[1];
                for tile in 0..packed.tiles {
                    let outputs = parallel::piece(packed.rows, packed.tiles, tile);
                    let mut vector = 0;
                    while vector < used.div_ceil(S::LANES) {
                        let vectors = match used.div_ceil(S::LANES) - vector {
                            4.. => 4,
                            left => left.min(2),
                        };
                        let args = TileArgs {
                            channels: packed.channels,
                            plane,
                            offsets,
                            weights: packed.values.as_ptr().add(packed.at(0, tile)),
                            pixels: planes.as_ptr().add(vector * S::LANES),
                            to: sums.as_mut_ptr().add(vector * S::LANES),
                            step: cells,
                            epilogue: epilogue.of(outputs.clone()),
                        };
                        multiply::<S>(outputs.len(), vectors, args);
                        vector += vectors;
                    }
                    for (sums, output) in sums.chunks_exact(cells).zip(outputs) {
                        write::<S>(target, image, output, rows.clone(), sums, frame.pitch);
                    }
                }
            }
        });
    }
}

/// Brings some rows of cells to their place in the target.
///
/// # Safety
/// The rows are the target's, and nothing else writes them meanwhile; behind the sums there is a vector more.
#[inline(always)]
unsafe fn write<S: Simd>(target: &Target, image: usize, output: usize, rows: Range<usize>, sums: &[f32], pitch: usize) {
    let width = target.grid[1];
    let place = |y: usize| (target.first[0] + y * target.step[0]) * target.size[1] + target.first[1];
    // SAFETY: the caller's promise.
    unsafe {
        let plane = target.output.get().add(image * target.image + output * target.plane());
        for (y, sums) in rows.clone().zip(sums.chunks(pitch)) {
            let to = plane.add(place(y));
            match target.step {
                // A vector beyond the end is overwritten by the rows that follow.
                [1, 1] if target.dense() && width.next_multiple_of(S::LANES) <= (rows.end - y) * width => {
                    copy::<S>(to, sums.as_ptr(), width);
                }
                [_, 1] => to.copy_from_nonoverlapping(sums.as_ptr(), width),
                [_, step] => sums[..width].iter().enumerate().for_each(|(x, &sum)| to.add(x * step).write(sum)),
            }
        }
    }
}

/// What a register tile works on.
#[derive(Clone, Copy)]
struct TileArgs<'a> {
    channels: usize,
    /// From one channel to the next.
    plane: usize,
    /// Of the taps.
    offsets: &'a [usize],
    /// `[channel, tap][row]`.
    weights: *const f32,
    /// The first cell.
    pixels: *const f32,
    /// The first row of the result, and the step to the next.
    to: *mut f32,
    step: usize,
    epilogue: Epilogue<'a>,
}

/// `ROWS` rows by `VECTORS` vectors of cells.
struct Tile<'a, const ROWS: usize, const VECTORS: usize>(TileArgs<'a>);

impl<const ROWS: usize, const VECTORS: usize> Kernel for Tile<'_, ROWS, VECTORS> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let TileArgs { channels, plane, offsets, mut weights, pixels, to, step, epilogue } = self.0;
        // SAFETY: the pointers are valid for all channels, taps and rows, the promise of whoever made them.
        unsafe {
            let mut totals = [[S::splat(0.0); VECTORS]; ROWS];
            for channel in 0..channels {
                let pixels = pixels.add(channel * plane);
                for &offset in offsets {
                    let mut values = [S::splat(0.0); VECTORS];
                    for (v, value) in values.iter_mut().enumerate() {
                        *value = S::load(pixels.add(offset + v * S::LANES));
                    }
                    for (r, totals) in totals.iter_mut().enumerate() {
                        let weight = S::splat(*weights.add(r));
                        for (total, value) in totals.iter_mut().zip(values) {
                            *total = S::mul_add(weight, value, *total);
                        }
                    }
                    weights = weights.add(ROWS);
                }
            }
            for (r, totals) in totals.into_iter().enumerate() {
                for (v, total) in totals.into_iter().enumerate() {
                    S::store(to.add(r * step + v * S::LANES), epilogue.apply::<S>(r, total));
                }
            }
        }
    }
}

/// Computes a tile of `rows`, at most half of [`Simd::PIXELS`], by 1, 2 or 4 vectors.
#[inline(always)]
unsafe fn multiply<S: Simd>(rows: usize, vectors: usize, args: TileArgs) {
    macro_rules! dispatch {
        ($($rows:literal)*) => {
            match (rows, vectors) {
                // Tiles larger than the registers are never asked for, and so not compiled.
                // SAFETY: the caller's promise.
                $(
                    ($rows, 1) if $rows <= (S::PIXELS / 2).max(1) => unsafe { S::call(Tile::<$rows, 1>(args)) },
                    ($rows, 2) if $rows <= (S::PIXELS / 2).max(1) => unsafe { S::call(Tile::<$rows, 2>(args)) },
                    ($rows, 4) if $rows <= (S::PIXELS / 2).max(1) => unsafe { S::call(Tile::<$rows, 4>(args)) },
                )*
                _ => unreachable!("tiles have 1 to {} rows and 1, 2 or 4 vectors", S::PIXELS / 2),
            }
        };
    }
    dispatch!(1 2 3 4 5 6 7)
}
