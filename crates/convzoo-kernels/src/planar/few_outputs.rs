//! Convolutions of few outputs on planes, whose pixels are read where they lie.
#![allow(unsafe_code)]

use std::ops::Range;

use super::copy;
use super::frame::Frame;
use super::implicit_gemm::{ImplicitGemm, Target};
use crate::gemm::pixel_tile::{PixelTileArgs, pixel_tile, tile_rows};
use crate::gemm::{ChannelAffine, PackedMatrix};
use crate::memory::{leave_packed, with_scratch};
use crate::number::{Number, convert};
use crate::parallel;
use crate::simd::{Kernel, Simd};

/// Values in the planes of a task: half of a first-level cache.
const PLANES: usize = 6 << 10;

/// The most rows that are worth it: with more, a pixel brought to its place serves many.
const ROWS: usize = 32;

impl<N: Number> ImplicitGemm<'_, N> {
    /// [`run`](Self::run) for few rows, with the pixels read where they lie: to bring each to every tap that reads it
    /// would take longer than to multiply it. Returns whether that suits; if not, nothing is done.
    pub fn run_few_outputs(&self) -> bool {
        let &Self { isa, batch, im2col, first, ref matrix, affine, ref target } = self;
        let Some(frame) = Frame::new(im2col).filter(|_| batch > 0 && (1..=ROWS).contains(&matrix.rows)) else {
            return false;
        };
        let packed = PackedMatrix::new::<f32>(isa, matrix, (tile_rows(isa) / 2).max(1), matrix.channels);
        let offsets = frame.offsets(&im2col.taps);
        let height = target.grid[0];
        // Rows that share a task: as many as a cache has room for, and few enough that all threads have some.
        let fitting = (PLANES / (matrix.channels * frame.pitch)).saturating_sub(frame.reach).max(4);
        let bands = height.div_ceil(fitting).max((4 * parallel::threads()).div_ceil(batch)).min(height);
        parallel::for_each(batch * bands, |task| {
            let rows = parallel::piece(height, bands, task % bands);
            let (frame, packed, offsets, image) = (&frame, &packed, &offsets, task / bands);
            // SAFETY: the instruction set comes from detection; each task writes cells of its own, and the target has all
            // of them.
            unsafe { N::call(isa, Band { frame, first, packed, offsets, affine, target, image, rows }) }
        });
        leave_packed(packed.values);
        true
    }
}

/// Some rows of cells of one image.
struct Band<'a, N> {
    frame: &'a Frame<'a, N>,
    first: usize,
    packed: &'a PackedMatrix,
    offsets: &'a [usize],
    affine: ChannelAffine<'a>,
    target: &'a Target<N>,
    image: usize,
    rows: Range<usize>,
}

impl<N: Number> Kernel for Band<'_, N> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { frame, first, packed, offsets, affine, target, image, rows } = self;
        let plane = frame.len(rows.len(), S::LANES);
        let cells = (rows.len() * frame.pitch).next_multiple_of(S::LANES);
        let channels = first..first + packed.channels;
        let planes = packed.channels * plane + S::LANES;
        let tile_rows = packed.rows.div_ceil(packed.tiles);
        with_scratch(planes + tile_rows * cells + S::LANES, |scratch| {
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
                        let args = PixelTileArgs {
                            channels: packed.channels,
                            channel_step: plane,
                            taps: offsets,
                            weights: packed.values.as_ptr().add(packed.at(0, tile)),
                            pixels: planes.as_ptr().add(vector * S::LANES),
                            to: sums.as_mut_ptr().add(vector * S::LANES),
                            step: cells,
                            add: false,
                            last: Some(affine.of(outputs.clone())),
                        };
                        pixel_tile::<S, f32>(outputs.len(), vectors, args);
                        vector += vectors;
                    }
                    for (sums, output) in sums.chunks_exact(cells).zip(outputs) {
                        write::<S, N>(target, image, output, rows.clone(), sums, frame.pitch);
                    }
                }
            }
        });
    }
}

/// Brings some rows of cells to their place in the target.
///
/// # Safety
/// The rows are the target's, and nothing else writes them meanwhile; after the sums there is a vector more.
#[inline(always)]
unsafe fn write<S: Simd, N: Number>(
    target: &Target<N>,
    image: usize,
    output: usize,
    rows: Range<usize>,
    sums: &[f32],
    pitch: usize,
) {
    let width = target.grid[1];
    let place = |y: usize| (target.first[0] + y * target.step[0]) * target.size[1] + target.first[1];
    // SAFETY: the caller's promise.
    unsafe {
        let plane = target.output.get().add(image * target.image + output * target.plane());
        for (y, sums) in rows.clone().zip(sums.chunks(pitch)) {
            let to = plane.add(place(y));
            match target.step {
                // A vector beyond the end is overwritten by the rows that follow.
                [1, 1]
                    if N::PER_CELL == 1
                        && target.dense()
                        && width.next_multiple_of(S::LANES) <= (rows.end - y) * width =>
                {
                    copy::<S, f32>(to.cast(), sums.as_ptr(), width);
                }
                [_, 1] => convert::<S, f32, N>(to, sums.as_ptr(), width),
                [_, step] => sums[..width].iter().enumerate().for_each(|(x, &sum)| to.add(x * step).write(N::of(sum))),
            }
        }
    }
}
