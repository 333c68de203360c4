//! Direct convolutions on blocks of channels, of any shape.
#![allow(unsafe_code)]

use std::ptr;
use std::sync::Arc;

use half::bf16;

use super::conv::{Job, TapRows};
use crate::conv::ConvShape;
use crate::elementwise::Apply;
use crate::gemm::channel_tile::{ChannelTileArgs, channel_tile};
use crate::memory::pad_channels;
use crate::number::{Number, Numbers};
use crate::parallel::piece;
use crate::simd::{Kernel, Simd};
use crate::{Buffer, Isa, Layout, Operation};

/// Packed weights that stay in a core's second-level cache while rows pass, in cells of 32 bits.
const CACHED_WEIGHTS: usize = 128 << 10;

/// The same of the pixels that a task reads once for each pair of output blocks.
const CACHED_PIXELS: usize = 96 << 10;

/// A direct convolution of any shape.
pub struct DirectConv {
    isa: Isa,
    pub(super) shape: ConvShape,
    /// The input's: the instruction set's, or 1 for an input in NCHW order.
    input_lanes: usize,
    /// The input's numbers.
    pub(super) numbers: Numbers,
    groups: Vec<BlockGroup>,
    weights: Buffer,
    bias: Buffer,
}

/// One or two neighboring blocks of output channels, which read the same input blocks.
struct BlockGroup {
    /// The first output block, and how many.
    first: usize,
    blocks: usize,
    /// The first input block, and how many: those of the channel groups that the outputs belong to.
    inputs: usize,
    input_blocks: usize,
    /// Where the weights start: `[input block][row][tap][channel][output block][lanes]`, in cells of the numbers.
    weights: usize,
}

impl DirectConv {
    /// For an input of numbers `N` in blocks of so many lanes.
    pub(super) fn new<N: Number>(
        isa: Isa,
        shape: ConvShape,
        input_lanes: usize,
        weight: &[f32],
        bias: Option<&[f32]>,
    ) -> Self {
        let (lanes, per_cell) = (isa.lanes(), N::PER_CELL);
        let [inputs, outputs] = shape.channels;
        let ([group_inputs, group_outputs], taps) = (shape.group_channels(), shape.taps());

        let reads = |block: usize| {
            let last = outputs.min((block + 1) * lanes) - 1;
            let channels = [block * lanes / group_outputs * group_inputs, (last / group_outputs + 1) * group_inputs];
            channels[0] / input_lanes..channels[1].div_ceil(input_lanes)
        };
        let (mut groups, mut len, mut first) = (Vec::new(), 0, 0);
        let output_blocks = outputs.div_ceil(lanes);
        while first < output_blocks {
            let range = reads(first);
            let blocks = if first + 1 < output_blocks && reads(first + 1) == range { 2 } else { 1 };
            let channels = inputs.min(range.end * input_lanes) - range.start * input_lanes;
            groups.push(BlockGroup { first, blocks, inputs: range.start, input_blocks: range.len(), weights: len });
            // Blocks are of whole cells, but for the last.
            len += channels.div_ceil(per_cell) * taps * blocks * lanes;
            first += blocks;
        }

        let mut packed = Buffer::of::<N>(len * per_cell);
        let weights = packed.numbers_mut::<N>();
        for group in &groups {
            let mut to = group.weights;
            for input_block in group.inputs..group.inputs + group.input_blocks {
                let channels = input_block * input_lanes..inputs.min((input_block + 1) * input_lanes);
                for tap in 0..taps {
                    for (place, input) in channels.clone().enumerate() {
                        let filters = group.first * lanes..(group.first + group.blocks) * lanes;
                        for (lane, output) in filters.enumerate() {
                            if output < outputs && output / group_outputs == input / group_inputs {
                                let from = output * group_inputs + input % group_inputs;
                                let cell = to + place / per_cell * group.blocks * lanes + lane;
                                weights[cell * per_cell + place % per_cell] = N::of(weight[from * taps + tap]);
                            }
                        }
                    }
                    to += channels.len().div_ceil(per_cell) * group.blocks * lanes;
                }
            }
        }
        Self {
            isa,
            shape,
            input_lanes,
            numbers: N::NUMBERS,
            groups,
            weights: packed,
            bias: pad_channels(bias, 0.0, outputs, lanes),
        }
    }

    /// Whether its input is in NCHW order.
    pub(super) fn is_planar(&self) -> bool {
        self.input_lanes == 1
    }

    /// Bytes of the weights as they are packed, with the zeros that fill vectors.
    pub(crate) fn weight_bytes(&self) -> usize {
        size_of_val(&*self.weights)
    }
}

/// A direct convolution of one layout into another.
pub(super) struct DirectOperation {
    conv: Arc<DirectConv>,
    job: Job,
    /// The rows into which the input, the output and the sum are divided: a 1×1 convolution over tensors without halo
    /// treats all pixels as one sequence, in rows of its own.
    rows: usize,
    flat: bool,
    /// Into how many parts blocks and rows are divided.
    chunks: usize,
    bands: usize,
}

impl DirectOperation {
    pub fn new(conv: Arc<DirectConv>, job: Job, threads: usize) -> Self {
        let shape = &conv.shape;
        let halos =
            [Some(job.input), Some(job.output), job.epilogue.sum].into_iter().flatten().map(|layout| layout.halo);
        let flat = (shape.kernel, shape.stride, shape.padding) == ([1; 2], [1; 2], [0; 2]) && halos.sum::<usize>() == 0;
        let rows = match flat {
            true => (job.output.height * job.output.width).div_ceil(FLAT_ROW),
            false => job.output.height,
        };
        let chunks = conv.weights.len().div_ceil(CACHED_WEIGHTS).clamp(1, conv.groups.len());
        // Enough tasks that an interrupted thread does not hold up the others for long.
        let wanted = (threads * TASKS_PER_THREAD).div_ceil(chunks * job.output.batch.max(1));
        let wanted = if threads == 1 { 1 } else { wanted };
        // And so many that a task's pixels are still in the cache when the next outputs read them.
        let pixels = if flat { FLAT_ROW } else { job.input.width * shape.stride[0] };
        let fitting = (CACHED_PIXELS / (pixels * job.input.channels)).max(1);
        let bands = wanted.max(rows.div_ceil(fitting)).min(rows).max(1);
        Self { conv, job, rows, flat, chunks, bands }
    }
}

/// Pixels in a row of a flat 1×1 convolution: a few full tiles for any instruction set.
const FLAT_ROW: usize = 84;

/// Tasks per thread, about.
const TASKS_PER_THREAD: usize = 6;

impl Operation for DirectOperation {
    fn tasks(&self) -> usize {
        self.chunks * self.job.output.batch * self.bands
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
            match [self.conv.numbers, self.job.output.numbers] {
                [Numbers::F32, Numbers::F32] => self.run_on::<f32, f32>(task, inputs, output.cast()),
                [Numbers::F32, Numbers::Bf16] => self.run_on::<f32, bf16>(task, inputs, output.cast()),
                [Numbers::Bf16, _] => self.run_on::<bf16, bf16>(task, inputs, output.cast()),
            }
        }
    }
}

impl DirectOperation {
    unsafe fn run_on<I: Number, O: Number>(&self, task: usize, inputs: &[*const u8], output: *mut O) {
        // Neighbouring tasks share weights.
        let (band, rest) = (task % self.bands, task / self.bands);
        let (image, chunk) = (rest % self.job.output.batch, rest / self.job.output.batch);
        let (input, sum) = (inputs[0].cast::<I>(), inputs.get(1).map_or(ptr::null(), |sum| sum.cast::<O>()));
        // SAFETY: the instruction set was found on this processor, and the pointers are the caller's promise.
        unsafe { O::call(self.conv.isa, Task { operation: self, image, chunk, band, input, sum, output }) }
    }
}

struct Task<'a, I, O> {
    operation: &'a DirectOperation,
    image: usize,
    chunk: usize,
    band: usize,
    input: *const I,
    sum: *const O,
    output: *mut O,
}

impl<I: Number, O: Number> Kernel for Task<'_, I, O> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let DirectOperation { conv, job, flat, .. } = self.operation;
        let (shape, image) = (&conv.shape, self.image);
        let (input, output) = (&job.input, &job.output);
        let planar = conv.input_lanes == 1 && S::LANES > 1;
        let (lanes, cells) = (conv.input_lanes, conv.input_lanes / I::PER_CELL);
        let sum = job.epilogue.sum.filter(|_| !self.sum.is_null());
        let [kernel_rows, kernel_columns] = shape.kernel;

        for group in &conv.groups[piece(conv.groups.len(), self.operation.chunks, self.chunk)] {
            let end = group.inputs + group.input_blocks;
            let last = input.block_channels(end - 1).div_ceil(I::PER_CELL);
            let row_weights = kernel_columns * group.blocks * S::LANES;
            // SAFETY: the layouts have been checked against the shape, and the pointers are valid for the layouts.
            unsafe {
                let mut args = ChannelTileArgs {
                    input: ptr::null(),
                    weights: conv.weights.as_ptr().add(group.weights),
                    bias: conv.bias.as_ptr().add(group.first * S::LANES),
                    sum: ptr::null(),
                    output: ptr::null_mut(),
                    sum_block: sum.map_or(0, |sum| sum.block()),
                    output_block: output.block(),
                    blocks: group.input_blocks,
                    input_block: input.block() / I::PER_CELL,
                    weights_block: kernel_rows * row_weights * cells,
                    rows: kernel_rows,
                    skipped_rows: 0,
                    row_step: shape.dilation[0] * input.row() / I::PER_CELL,
                    // In planes the taps of a row follow each other, in blocks the channels of a tap do.
                    taps: if planar { 1 } else { kernel_columns },
                    tap_step: shape.dilation[1] * cells,
                    run: if planar { kernel_columns } else { cells },
                    run_last: if planar { kernel_columns } else { last },
                    run_step: if planar { shape.dilation[1] } else { 1 },
                    pixel_step: shape.stride[1] * cells,
                    bounds: job.epilogue.activation.bounds(),
                };
                for row in piece(self.operation.rows, self.operation.bands, self.band) {
                    // Where the row starts in each tensor, and how many pixels it has.
                    let (read, write, add, width);
                    if *flat {
                        let pixels = piece(output.height * output.width, self.operation.rows, row);
                        width = pixels.len();
                        read = input.at(image, group.inputs, 0) + pixels.start * lanes;
                        write = output.at(image, group.first, 0) + pixels.start * S::LANES;
                        add = sum.map(|sum| sum.at(image, group.first, 0) + pixels.start * S::LANES);
                    } else {
                        let rows = TapRows::new(shape, input.height, row);
                        width = output.width;
                        read = input.at(image, group.inputs, rows.input) - shape.padding[1] * lanes;
                        write = output.at(image, group.first, row);
                        add = sum.map(|sum| sum.at(image, group.first, row));
                        args.rows = rows.last - rows.first;
                        args.skipped_rows = rows.first;
                    }
                    let tiles = width.div_ceil(S::PIXELS);
                    for part in 0..tiles {
                        let pixels = piece(width, tiles, part);
                        args.input = self.input.add(read).cast::<f32>().add(pixels.start * args.pixel_step);
                        args.output = self.output.add(write + pixels.start * S::LANES);
                        if let Some(add) = add {
                            args.sum = self.sum.add(add + pixels.start * S::LANES);
                        }
                        channel_tile::<S, I, O>(pixels.len(), group.blocks, &args);
                    }
                    for block in 0..group.blocks {
                        let to = self.output.add(write + block * output.block());
                        job.epilogue.activation.finish::<S, O>(to, width, output.block_channels(group.first + block));
                        if !flat {
                            output.clear_halo(to);
                        }
                    }
                }
            }
        }
    }
}
