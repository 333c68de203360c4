//! 3×3 convolutions of stride 1 on planes by Winograd's method.
//!
//! A task brings a few rows of a run of tiles into blocks of channels, and rows of outputs back into planes; what lies
//! between is [`winograd::pipeline`](crate::winograd).
#![allow(unsafe_code)]

use super::tiles::PlanarTiles;
use crate::gemm::{ChannelAffine, WeightMatrix};
use crate::memory::{Shared, leave_packed, pad_channels, take_packed};
use crate::number::{Number, convert};
use crate::parallel::{self, piece};
use crate::simd::{Isa, Simd};
use crate::winograd::WinogradTile;
use crate::winograd::pipeline::{Pipeline, Segment, Sink, Source, pitch};
use crate::winograd::transform::{MAX_OUTPUTS, PutRow, Transform, from_elements};
use crate::winograd::weights::{pair_weights, transform_weights, transformed_len};

/// A 3×3 convolution of stride 1 by [Winograd's method](crate::winograd).
pub(super) struct WinogradPass<'a, N> {
    pub isa: Isa,
    pub tile: WinogradTile,
    pub batch: usize,
    /// `[batch, channels, height, width]`.
    pub source: &'a [N],
    /// Height and width of the source and of the output.
    pub size: [usize; 2],
    pub grid: [usize; 2],
    pub padding: [usize; 2],
    /// Nine taps, in the order of the window.
    pub matrix: WeightMatrix<'a>,
    pub affine: ChannelAffine<'a>,
}

/// Tiles of a task, at most. More would read the weights less often, and what becomes of the tiles leave the cache.
const TILES: usize = 112;

impl<N: Number> WinogradPass<'_, N> {
    /// Writes `[batch, outputs, height, width]`.
    ///
    /// # Safety
    /// `output` has room for it.
    pub unsafe fn run(&self, output: *mut N) {
        let Self { isa, tile, ref matrix, .. } = *self;
        let (channels, lanes) = ([matrix.channels, matrix.rows], isa.lanes());
        let tiles = self.grid.map(|side| side.div_ceil(tile.outputs()));
        let total = self.batch * tiles[0] * tiles[1];
        let chunks = total.div_ceil(TILES).next_multiple_of(parallel::threads());
        let mut weights = take_packed(transformed_len(isa, tile, channels));
        transform_weights(isa, tile, matrix, &mut weights);
        if N::PER_CELL == 2 {
            let mut pairs = vec![0.0; transformed_len(isa, tile, [matrix.channels.div_ceil(2), matrix.rows])];
            pair_weights(isa, tile, channels, &weights, &mut pairs);
            leave_packed(std::mem::replace(&mut weights, pairs));
        }
        let (size, padding) = (self.size, self.padding);
        let source = PlanarTiles { values: self.source, channels: matrix.channels, size, padding, side: tile.inputs() };
        let sink = PlanarSink {
            output: Shared(output),
            channels: matrix.rows,
            size: self.grid,
            scale: &pad_channels(self.affine.scale, 1.0, matrix.rows, lanes),
            shift: &pad_channels(self.affine.shift, 0.0, matrix.rows, lanes),
            relu: self.affine.relu,
        };
        parallel::for_each(chunks, |chunk| {
            let (run, blocks) = (piece(total, chunks, chunk), 0..matrix.rows.div_ceil(lanes));
            let pipeline = Pipeline { source: &source, sink: &sink, weights: &weights, channels, tiles, run, blocks };
            // SAFETY: the instruction set comes from detection; every task writes the pixels of its tiles.
            unsafe { pipeline.run(isa, tile) }
        });
        leave_packed(weights);
    }
}

impl<N: Number> Source for PlanarTiles<'_, N> {
    type Number = N;
    const BY_BLOCK: bool = false;

    #[inline(always)]
    unsafe fn transform<S: Simd, T: Transform>(
        &self,
        segment: &Segment,
        block: usize,
        lines: *mut f32,
        to: *mut N,
        element: usize,
    ) {
        let tiles = Self { side: T::INPUTS, ..*self };
        // SAFETY: the caller's promise.
        unsafe { tiles.transform_by::<S, T, N>(T::input::<S>, segment, block, lines, to, [S::LANES, element]) }
    }
}

/// Where tiles of outputs go in planes, and what follows the convolution.
struct PlanarSink<'a, N> {
    output: Shared<*mut N>,
    channels: usize,
    /// Height and width.
    size: [usize; 2],
    /// Of whole blocks.
    scale: &'a [f32],
    shift: &'a [f32],
    relu: bool,
}

impl<N: Number> Sink for PlanarSink<'_, N> {
    #[inline(always)]
    unsafe fn write<S: Simd, T: Transform>(
        &self,
        segment: &Segment,
        block: usize,
        from: *const f32,
        element: usize,
        lines: *mut f32,
    ) {
        // SAFETY: the caller's promise; scale and shift have whole blocks.
        unsafe {
            let (scale, shift) = (self.scale.as_ptr().add(block * S::LANES), self.shift.as_ptr().add(block * S::LANES));
            for tile in 0..segment.tiles {
                let lines = lines.add(tile * T::OUTPUTS * S::LANES);
                let row = pitch::<T>(S::LANES) * S::LANES;
                let to = LineOutputs { lines, row, width: T::OUTPUTS, scale, shift, relu: self.relu };
                from_elements::<S, T, MAX_OUTPUTS>(T::output::<S>, T::OUTPUTS, from.add(tile * S::LANES), element, &to);
            }
            self.write_rows::<S, T>(segment, block, lines);
        }
    }
}

/// A tile of outputs in lines of blocks, `[row][column][lanes]`.
struct LineOutputs {
    lines: *mut f32,
    /// From one row to the next.
    row: usize,
    width: usize,
    scale: *const f32,
    shift: *const f32,
    relu: bool,
}

impl PutRow<MAX_OUTPUTS> for LineOutputs {
    #[inline(always)]
    unsafe fn put<S: Simd>(&self, y: usize, values: [S::Vector; MAX_OUTPUTS]) {
        // SAFETY: the lines have the tile's rows and columns; the processor has the instructions, the caller's promise.
        unsafe {
            let (scale, shift, to) = (S::load(self.scale), S::load(self.shift), self.lines.add(y * self.row));
            for (x, value) in values.into_iter().enumerate().take(self.width) {
                let mut value = S::mul_add(value, scale, shift);
                if self.relu {
                    value = S::max(S::splat(0.0), value);
                }
                S::store(to.add(x * S::LANES), value);
            }
        }
    }
}

impl<N: Number> PlanarSink<'_, N> {
    /// Brings a segment's rows to their place in the output.
    #[inline(always)]
    unsafe fn write_rows<S: Simd, T: Transform>(&self, segment: &Segment, block: usize, lines: *mut f32) {
        let ([height, width], rows) = (self.size, self.channels);
        let (top, left) = (segment.row * T::OUTPUTS, segment.column * T::OUTPUTS);
        let columns = (segment.tiles * T::OUTPUTS).min(width - left);
        let channels = S::LANES.min(rows - block * S::LANES);
        let plane = height * width;
        for row in 0..T::OUTPUTS.min(height - top) {
            // SAFETY: pixels are written where the output has them, and squares are read within the lines.
            unsafe {
                let from = lines.add(row * pitch::<T>(S::LANES) * S::LANES);
                let at = (segment.image * rows + block * S::LANES) * plane + (top + row) * width + left;
                let to = self.output.get().add(at);
                if N::PER_CELL == 1 && channels == S::LANES && columns >= S::LANES {
                    let mut column = 0;
                    while column < columns {
                        // The last square may overlap the one before it.
                        column = column.min(columns - S::LANES);
                        S::transpose(from.add(column * S::LANES), S::LANES, to.add(column).cast(), plane);
                        column += S::LANES;
                    }
                    continue;
                }
                let square = lines.add(T::INPUTS * pitch::<T>(S::LANES) * S::LANES);
                for column in (0..columns).step_by(S::LANES) {
                    S::transpose(from.add(column * S::LANES), S::LANES, square, S::LANES);
                    let count = S::LANES.min(columns - column);
                    for channel in 0..channels {
                        let to = to.add(channel * plane + column);
                        convert::<S, f32, N>(to, square.add(channel * S::LANES), count);
                    }
                }
            }
        }
    }
}
