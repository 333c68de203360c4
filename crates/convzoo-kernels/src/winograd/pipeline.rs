//! Winograd's method on a run of tiles: read and transformed by a source, multiplied, transformed back and written by a
//! sink, all within a cache.

use std::marker::PhantomData;
use std::ops::Range;

use super::WinogradTile;
use super::transform::{Four, Transform, Two};
use crate::gemm::channel_tile::{ChannelTileArgs, channel_tile};
use crate::memory::with_scratch;
use crate::number::{Load, Number};
use crate::parallel::piece;
use crate::simd::{Isa, Kernel, MAX_LANES, Simd};

/// Neighbouring tiles of a row that are read and written at once, at most.
const SEGMENT: usize = 16;

/// Columns of a segment's rows in the lines that sources and sinks may use, with a square of lanes more.
pub(crate) const fn pitch<T: Transform>(lanes: usize) -> usize {
    SEGMENT * T::OUTPUTS + T::INPUTS - T::OUTPUTS + lanes
}

/// Floats of the lines: as many rows as a tile of inputs has, and a square of lanes.
pub(crate) const fn lines_len<T: Transform>(lanes: usize) -> usize {
    T::INPUTS * pitch::<T>(lanes) * lanes + lanes * lanes
}

/// Neighbouring tiles of a row.
#[derive(Clone, Copy)]
pub(crate) struct Segment {
    /// The first one, of the run's.
    pub first: usize,
    pub tiles: usize,
    pub image: usize,
    pub row: usize,
    pub column: usize,
}

/// A run of tiles in segments.
pub(crate) struct Segments {
    run: Range<usize>,
    next: usize,
    /// Tiles of an image, down and across.
    tiles: [usize; 2],
}

impl Segments {
    #[inline(always)]
    pub fn new(run: Range<usize>, tiles: [usize; 2]) -> Self {
        Self { next: run.start, run, tiles }
    }

    /// The next segment.
    #[inline(always)]
    pub fn advance(&mut self) -> Option<Segment> {
        if self.next >= self.run.end {
            return None;
        }
        let (tile, [down, across]) = (self.next, self.tiles);
        let column = tile % across;
        let segment = Segment {
            first: tile - self.run.start,
            tiles: SEGMENT.min(across - column).min(self.run.end - tile),
            image: tile / (down * across),
            row: tile / across % down,
            column,
        };
        self.next += segment.tiles;
        Some(segment)
    }
}

/// Two neighboring output blocks, or the last one alone.
pub(crate) struct Pair {
    pub first: usize,
    pub blocks: usize,
}

impl Pair {
    #[inline(always)]
    pub fn of(block: usize, blocks: usize) -> Self {
        let first = block / 2 * 2;
        Self { first, blocks: (blocks - first).min(2) }
    }
}

/// Where tiles of inputs are read.
pub(crate) trait Source: Sync {
    /// In which tiles are transformed and multiplied.
    type Number: Number;
    /// Whether a block of channels is read, and written by the sink, for the whole run before the next block; else all
    /// blocks of a segment before the next segment. Whichever leaves more of the tensor's rows in the cache.
    const BY_BLOCK: bool;

    /// Transforms a segment's tiles of a block of channels: of each element, `element` apart, `[tile][lanes]`. `lines` are
    /// [`lines_len`] floats to use.
    ///
    /// # Safety
    /// The processor has `S`'s instructions, the segment and the block exist, and `to` has room.
    unsafe fn transform<S: Simd, T: Transform>(
        &self,
        segment: &Segment,
        block: usize,
        lines: *mut f32,
        to: *mut Self::Number,
        element: usize,
    );
}

/// Where tiles of outputs are written.
pub(crate) trait Sink: Sync {
    /// Transforms a segment's products back, of a block of channels: of each element, `element` apart, `[tile][lanes]`; and
    /// writes the outputs, with what follows the convolution.
    ///
    /// # Safety
    /// The processor has `S`'s instructions, the segment and the block exist, and nothing else writes the segment's outputs.
    unsafe fn write<S: Simd, T: Transform>(
        &self,
        segment: &Segment,
        block: usize,
        from: *const f32,
        element: usize,
        lines: *mut f32,
    );
}

/// A run of tiles on its way from a source to a sink.
pub(crate) struct Pipeline<'a, I, O> {
    pub source: &'a I,
    pub sink: &'a O,
    /// Transformed, `[element][pair of output blocks][input][block][lanes]`, in cells of the source's numbers.
    pub weights: &'a [f32],
    /// Input and output channels.
    pub channels: [usize; 2],
    /// Tiles of an image, down and across.
    pub tiles: [usize; 2],
    /// The run, of the tiles of all images.
    pub run: Range<usize>,
    /// The output blocks that are made, from an even one on.
    pub blocks: Range<usize>,
}

impl<I: Source, O: Sink> Pipeline<'_, I, O> {
    /// Takes the tiles from the source to the sink.
    ///
    /// # Safety
    /// The instruction set was found on this processor; the source has the tiles, and nothing else writes their outputs of
    /// those blocks to the sink.
    pub unsafe fn run(&self, isa: Isa, tile: WinogradTile) {
        // SAFETY: the caller's promise.
        unsafe {
            match tile {
                WinogradTile::Two => self.with::<Two>(isa),
                WinogradTile::Four => self.with::<Four>(isa),
            }
        }
    }

    unsafe fn with<T: Transform>(&self, isa: Isa) {
        let lanes = isa.lanes();
        let elements = T::INPUTS * T::INPUTS;
        // An element's end is padded by a vector: equal elements of a square else fall on the same lines of the cache.
        let cells = lanes / I::Number::PER_CELL;
        let step = |blocks: usize, cells: usize| blocks * self.run.len() * cells + MAX_LANES;
        let steps = [step(self.channels[0].div_ceil(lanes), cells), step(self.blocks.len(), lanes)];
        with_scratch(elements * (steps[0] + steps[1]) + lines_len::<T>(lanes), |scratch| {
            let scratch = scratch.as_mut_ptr();
            // SAFETY: the caller's promise, and the scratch memory is as long as the steps and lines make it.
            unsafe { I::Number::call(isa, Task { pipeline: self, steps, scratch, transform: PhantomData::<T> }) }
        });
    }
}

/// Visits all segments of all blocks in either order. No function, whose closure might not be compiled with the kernel's
/// instructions.
macro_rules! visit {
    ($by_block:expr, $blocks:expr, $segments:expr, |$block:ident, $segment:ident| $visit:block) => {
        if $by_block {
            for $block in $blocks {
                let mut segments = $segments;
                while let Some($segment) = segments.advance() $visit
            }
        } else {
            let mut segments = $segments;
            while let Some($segment) = segments.advance() {
                for $block in $blocks $visit
            }
        }
    };
}

struct Task<'a, I, O, T> {
    pipeline: &'a Pipeline<'a, I, O>,
    /// From one element of the transformed inputs, in cells, and of the products to the next.
    steps: [usize; 2],
    scratch: *mut f32,
    transform: PhantomData<T>,
}

impl<I: Source, O: Sink, T: Transform> Kernel for Task<'_, I, O, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Pipeline { source, sink, channels, tiles, run, blocks, .. } = self.pipeline;
        let elements = T::INPUTS * T::INPUTS;
        let count = run.len();
        // SAFETY: the scratch memory is as long as the steps and lines make it; the rest is the caller's promise.
        unsafe {
            let transformed = self.scratch;
            let products = transformed.add(elements * self.steps[0]);
            let lines = products.add(elements * self.steps[1]);
            visit!(
                I::BY_BLOCK,
                0..channels[0].div_ceil(S::LANES),
                Segments::new(run.clone(), *tiles),
                |block, segment| {
                    let to = transformed.cast::<I::Number>().add((block * count + segment.first) * S::LANES);
                    let element = self.steps[0] * I::Number::PER_CELL;
                    source.transform::<S, T>(&segment, block, lines, to, element);
                }
            );
            for element in 0..elements {
                let (from, to) = (transformed.add(element * self.steps[0]), products.add(element * self.steps[1]));
                self.multiply::<S>(element, from, to);
            }
            visit!(I::BY_BLOCK, blocks.clone(), Segments::new(run.clone(), *tiles), |block, segment| {
                let from = products.add(((block - blocks.start) * count + segment.first) * S::LANES);
                sink.write::<S, T>(&segment, block, from, self.steps[1], lines);
            });
        }
    }
}

impl<I: Source, O, T> Task<'_, I, O, T> {
    /// The products of one element: a 1×1 convolution whose pixels are the tiles.
    #[inline(always)]
    unsafe fn multiply<S: Simd>(&self, element: usize, from: *const f32, to: *mut f32) {
        let Pipeline { weights, channels: [inputs, outputs], run, blocks, .. } = self.pipeline;
        let (input_blocks, output_blocks) = (inputs.div_ceil(S::LANES), outputs.div_ceil(S::LANES));
        let (block_len, cells) = (run.len() * S::LANES, S::LANES / I::Number::PER_CELL);
        let input_cells = inputs.div_ceil(I::Number::PER_CELL);
        let parts = run.len().div_ceil(S::PIXELS);
        // SAFETY: as in `run`.
        unsafe {
            let weights = weights.as_ptr().add(element * input_cells * output_blocks * S::LANES);
            for block in blocks.clone().step_by(2) {
                let pair = Pair::of(block, output_blocks);
                for part in 0..parts {
                    let tiles = piece(run.len(), parts, part);
                    let args = ChannelTileArgs {
                        input: from.add(tiles.start * cells),
                        weights: weights.add(block * input_cells * S::LANES),
                        output: to.add((block - blocks.start) * block_len + tiles.start * S::LANES),
                        output_block: block_len,
                        blocks: input_blocks,
                        input_block: run.len() * cells,
                        weights_block: cells * pair.blocks * S::LANES,
                        run: cells,
                        run_last: input_cells - (input_blocks - 1) * cells,
                        pixel_step: cells,
                        ..ChannelTileArgs::PRODUCT
                    };
                    channel_tile::<S, I::Number, f32>(tiles.len(), pair.blocks, &args);
                }
            }
        }
    }
}
