//! 3×3 convolutions on blocks of channels by Winograd's method, their weights packed once.
#![allow(unsafe_code)]

use std::ptr;
use std::sync::Arc;

use half::bf16;

use super::conv::Job;
use crate::conv::ConvShape;
use crate::elementwise::{Activation, Apply, cut};
use crate::gemm::WeightMatrix;
use crate::memory::pad_channels;
use crate::number::{Number, Numbers};
use crate::parallel::piece;
use crate::simd::Simd;
use crate::winograd::WinogradTile;
use crate::winograd::pipeline::{Pipeline, Segment, Sink, Source};
use crate::winograd::transform::{MAX_INPUTS, MAX_OUTPUTS, PutRow, Square, Transform, from_elements, to_elements};
use crate::winograd::weights::{pair_weights, transform_weights, transformed_len};
use crate::{Buffer, Isa, KernelError, Layout, Operation};

/// A 3×3 convolution of stride 1 by [Winograd's method](crate::winograd).
pub struct WinogradConv {
    isa: Isa,
    pub(super) shape: ConvShape,
    tile: WinogradTile,
    pub(super) numbers: Numbers,
    /// `[element][output block, in pairs][input][block of the pair][lanes]`, in cells of the numbers.
    weights: Buffer,
    bias: Buffer,
}

impl WinogradConv {
    pub(super) fn new(
        isa: Isa,
        shape: ConvShape,
        tile: WinogradTile,
        numbers: Numbers,
        weight: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Self, KernelError> {
        if !shape.suits_winograd() {
            let what = "a shape other than 3×3, stride 1, dilation 1, one group";
            return Err(KernelError::Window { operation: "Winograd convolution", what });
        }
        let [inputs, outputs] = shape.channels;
        let mut weights = Buffer::zeros(transformed_len(isa, tile, shape.channels));
        let taps = [0, 1, 2, 3, 4, 5, 6, 7, 8];
        let matrix = WeightMatrix { weight, rows: outputs, channels: inputs, row: inputs * 9, channel: 9, taps: &taps };
        transform_weights(isa, tile, &matrix, &mut weights);
        if numbers == Numbers::Bf16 {
            let mut pairs = Buffer::zeros(transformed_len(isa, tile, [inputs.div_ceil(2), outputs]));
            pair_weights(isa, tile, shape.channels, &weights, &mut pairs);
            weights = pairs;
        }
        Ok(Self { isa, shape, tile, numbers, weights, bias: pad_channels(bias, 0.0, outputs, isa.lanes()) })
    }

    /// Bytes of the weights as they are packed, with the zeros that fill vectors.
    pub(crate) fn weight_bytes(&self) -> usize {
        size_of_val(&*self.weights)
    }
}

/// Tiles that a task transforms at once, at most: what it reads and writes for each element stays in the second-level
/// cache, and the weights are read once for so many.
const MAX_TILES: usize = 56;

/// Fewer tiles than this would not be worth reading the weights for.
const FEW_TILES: usize = 24;

pub(super) struct WinogradOperation {
    conv: Arc<WinogradConv>,
    job: Job,
    /// Tiles of an image, down and across; those of all images are divided into `chunks`, their output blocks into
    /// `parts`.
    tiles: [usize; 2],
    chunks: usize,
    parts: usize,
}

impl WinogradOperation {
    pub fn new(conv: Arc<WinogradConv>, job: Job, threads: usize) -> Self {
        let side = conv.tile.outputs();
        let tiles = [job.output.height.div_ceil(side), job.output.width.div_ceil(side)];
        let total = job.output.batch * tiles[0] * tiles[1];
        let mut chunks = total.div_ceil(MAX_TILES).max(1);
        let mut parts = 1;
        if threads > 1 {
            let wanted = threads * 2;
            match total / wanted >= FEW_TILES {
                true => chunks = chunks.max(wanted).next_multiple_of(threads),
                // Few tiles: each thread transforms them all, and makes other output channels of them.
                false => parts = wanted.div_ceil(chunks).min(job.output.blocks().div_ceil(2)).max(1),
            }
        }
        Self { conv, job, tiles, chunks, parts }
    }
}

impl Operation for WinogradOperation {
    fn tasks(&self) -> usize {
        self.chunks * self.parts
    }

    fn inputs(&self) -> Vec<Layout> {
        self.job.inputs()
    }

    fn output(&self) -> Layout {
        self.job.output
    }

    unsafe fn run(&self, task: usize, inputs: &[*const u8], output: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.conv.numbers {
                Numbers::F32 => self.run_on::<f32>(task, inputs, output.cast()),
                Numbers::Bf16 => self.run_on::<bf16>(task, inputs, output.cast()),
            }
        }
    }
}

impl WinogradOperation {
    unsafe fn run_on<N: Number>(&self, task: usize, inputs: &[*const u8], output: *mut N) {
        let Self { conv, job, tiles, .. } = self;
        let (chunk, part) = (task / self.parts, task % self.parts);
        let total = job.output.batch * tiles[0] * tiles[1];
        let output_blocks = job.output.blocks();
        let pairs = piece(output_blocks.div_ceil(2), self.parts, part);
        let sum = job.epilogue.sum.zip(inputs.get(1).map(|sum| sum.cast::<N>()));
        let pipeline = Pipeline {
            source: &BlockedSource { layout: &job.input, input: inputs[0].cast::<N>(), padding: conv.shape.padding },
            sink: &BlockedSink {
                layout: &job.output,
                output,
                bias: &conv.bias,
                sum,
                activation: job.epilogue.activation,
                tiles,
            },
            weights: &conv.weights,
            channels: conv.shape.channels,
            tiles: *tiles,
            run: piece(total, self.chunks, chunk),
            blocks: pairs.start * 2..output_blocks.min(pairs.end * 2),
        };
        // SAFETY: the instruction set was found on this processor, and the pointers are the caller's promise.
        unsafe { pipeline.run(conv.isa, conv.tile) }
    }
}

/// Tiles of a tensor in blocks.
struct BlockedSource<'a, N> {
    layout: &'a Layout,
    input: *const N,
    padding: [usize; 2],
}

// SAFETY: the tensor is only read.
unsafe impl<N> Sync for BlockedSource<'_, N> {}

impl<N: Number> Source for BlockedSource<'_, N> {
    type Number = N;
    const BY_BLOCK: bool = true;

    #[inline(always)]
    unsafe fn transform<S: Simd, T: Transform>(
        &self,
        segment: &Segment,
        block: usize,
        _: *mut f32,
        to: *mut N,
        element: usize,
    ) {
        let layout = self.layout;
        let (side, halo) = (T::INPUTS as isize, layout.halo as isize);
        let (height, width) = (layout.height as isize, layout.width as isize);
        let top = (segment.row * T::OUTPUTS) as isize - self.padding[0] as isize;
        // SAFETY: the segment's tiles lie in the tensor, its halo or outside, where nothing is read.
        unsafe {
            let origin = self.input.add(layout.at(segment.image, block, 0));
            for i in 0..segment.tiles {
                let left = ((segment.column + i) * T::OUTPUTS) as isize - self.padding[1] as isize;
                let inside = top >= 0 && top + side <= height && left >= -halo && left + side <= width + halo;
                let (row, size) = (layout.row() as isize, [height, width]);
                let tile = BlockedTile { origin, row, size, side: T::INPUTS, top, left, inside };
                to_elements::<S, T, N>(T::input::<S>, T::INPUTS, &tile, to.add(i * S::LANES), element);
            }
        }
    }
}

/// A tile of inputs in a block.
struct BlockedTile<N> {
    /// The block's first pixel, and the step to the next row.
    origin: *const N,
    row: isize,
    /// Height and width of the image.
    size: [isize; 2],
    /// Rows and columns of the tile, and where its first ones lie.
    side: usize,
    top: isize,
    left: isize,
    /// Whether all of it can be read.
    inside: bool,
}

impl<N: Number> Square for BlockedTile<N> {
    #[inline(always)]
    unsafe fn row<S: Simd>(&self, y: usize) -> [S::Vector; MAX_INPUTS] {
        let &Self { origin, row, size: [height, width], side, top, left, inside } = self;
        let line = top + y as isize;
        // SAFETY: rows are read only where they exist, columns where they or their halo do.
        unsafe {
            let mut values = [S::splat(0.0); MAX_INPUTS];
            if inside {
                let from = origin.offset(line * row + left * S::LANES as isize);
                for (x, value) in values.iter_mut().enumerate().take(side) {
                    *value = N::load::<S>(from.add(x * S::LANES));
                }
            } else if (0..height).contains(&line) {
                let from = origin.offset(line * row);
                for (x, value) in values.iter_mut().enumerate().take(side) {
                    let column = left + x as isize;
                    if (0..width).contains(&column) {
                        *value = N::load::<S>(from.offset(column * S::LANES as isize));
                    }
                }
            }
            values
        }
    }
}

/// Where tiles of outputs go in a tensor in blocks, and what follows the convolution.
struct BlockedSink<'a, N> {
    layout: &'a Layout,
    output: *mut N,
    bias: &'a [f32],
    sum: Option<(Layout, *const N)>,
    activation: Activation,
    tiles: &'a [usize; 2],
}

// SAFETY: tasks write different tiles or blocks.
unsafe impl<N> Sync for BlockedSink<'_, N> {}

impl<N: Number> Sink for BlockedSink<'_, N> {
    #[inline(always)]
    unsafe fn write<S: Simd, T: Transform>(
        &self,
        segment: &Segment,
        block: usize,
        from: *const f32,
        element: usize,
        _: *mut f32,
    ) {
        let layout = self.layout;
        let top = segment.row * T::OUTPUTS;
        let rows = T::OUTPUTS.min(layout.height - top);
        let at = |layout: &Layout, y| layout.at(segment.image, block, top + y);
        // SAFETY: pixels are written only where they exist.
        unsafe {
            let bias = self.bias.as_ptr().add(block * S::LANES);
            for i in 0..segment.tiles {
                let left = (segment.column + i) * T::OUTPUTS;
                let tile = BlockedOutputs {
                    output: self.output.add(at(layout, 0) + left * S::LANES),
                    row: layout.row(),
                    sum: self.sum.map_or(ptr::null(), |(layout, sum)| sum.add(at(&layout, 0) + left * S::LANES)),
                    sum_row: self.sum.map_or(0, |(layout, _)| layout.row()),
                    width: T::OUTPUTS.min(layout.width - left),
                    bias,
                    bounds: self.activation.bounds(),
                };
                from_elements::<S, T, MAX_OUTPUTS>(T::output::<S>, rows, from.add(i * S::LANES), element, &tile);
            }
            let first = segment.column * T::OUTPUTS;
            let pixels = (segment.tiles * T::OUTPUTS).min(layout.width - first);
            for y in 0..rows {
                let to = self.output.add(at(layout, y) + first * S::LANES);
                self.activation.finish::<S, N>(to, pixels, layout.block_channels(block));
            }
            if segment.column + segment.tiles == self.tiles[1] {
                for y in 0..rows {
                    layout.clear_halo(self.output.add(at(layout, y)));
                }
            }
        }
    }
}

/// A tile of outputs in a block.
struct BlockedOutputs<N> {
    /// Its first pixel, and the step to the next row.
    output: *mut N,
    row: usize,
    /// The same of what is added, or null.
    sum: *const N,
    sum_row: usize,
    width: usize,
    bias: *const f32,
    bounds: [f32; 2],
}

impl<N: Number> PutRow<MAX_OUTPUTS> for BlockedOutputs<N> {
    #[inline(always)]
    unsafe fn put<S: Simd>(&self, y: usize, values: [S::Vector; MAX_OUTPUTS]) {
        // SAFETY: the row exists, and as many pixels as the width says.
        unsafe {
            let bias = S::load(self.bias);
            let (output, sum) = (self.output.add(y * self.row), self.sum.wrapping_add(y * self.sum_row));
            for (x, value) in values.into_iter().enumerate().take(self.width) {
                let mut value = S::add(value, bias);
                if !self.sum.is_null() {
                    value = S::add(value, N::load::<S>(sum.add(x * S::LANES)));
                }
                N::store::<S>(output.add(x * S::LANES), cut::<S>(self.bounds, value));
            }
        }
    }
}
