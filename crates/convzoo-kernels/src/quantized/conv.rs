//! Convolutions of bytes, of any shape, with bias, batch norm, sum and activation in the same pass.
#![allow(unsafe_code)]

use std::ptr;
use std::sync::Arc;

use super::depthwise::{DepthwiseByteConv, DepthwiseByteRows};
use super::layout::{QUAD, bytes_mut};
use super::scale::{MOST_PRODUCTS, Requantize};
use super::tile::{Pixels, TileArgs, tile};
use crate::blocked::conv::TapRows;
use crate::blocked::rows::ByRows;
use crate::conv::ConvShape;
use crate::elementwise::{Activation, Apply};
use crate::memory::pad_channels;
use crate::parallel::piece;
use crate::simd::Simd;
use crate::simd::dot::{Dot, DotKernel};
use crate::{Buffer, Isa, KernelError, Layout, Operation};

/// Packed weights that stay in a core's second-level cache while rows pass, in bytes.
const CACHED_WEIGHTS: usize = 512 << 10;

/// The same of the pixels that a task reads once for each pair of output blocks.
const CACHED_PIXELS: usize = 384 << 10;

/// A convolution of bytes whose weights are packed.
#[derive(Clone)]
pub enum ByteConv {
    /// Of any shape.
    Direct(Arc<DirectByteConv>),
    /// Of each channel with a kernel of its own.
    Depthwise(Arc<DepthwiseByteConv>),
}

/// What a convolution of bytes makes of its sums.
#[derive(Clone, Debug)]
pub struct ByteEpilogue {
    /// The layout of a tensor of bytes that is added, which is then the second input.
    pub sum: Option<Layout>,
    /// What makes outputs of sums.
    pub requantize: Arc<Requantize>,
    /// The zero point of the output, if it is bytes; else it is floats.
    pub bytes: Option<u8>,
    /// What is done to floats beyond the bounds.
    pub activation: Activation,
}

impl ByteConv {
    /// Packs weights `[outputs, inputs / groups, height, width]`. `images`: the input is in blocks of four channels.
    ///
    /// # Errors
    /// The shape is invalid, the weights do not have it, or a sum could exceed 32 bits.
    pub fn new(isa: Isa, shape: ConvShape, weight: &[i8], images: bool) -> Result<Self, KernelError> {
        shape.check_sizes()?;
        if weight.len() != shape.weights() {
            let (expected, found) = (shape.weights(), weight.len());
            return Err(KernelError::Length { what: "a convolution's weight", expected, found });
        }
        if shape.group_channels()[0] * shape.taps() > MOST_PRODUCTS {
            return Err(KernelError::Window {
                operation: "convolution of bytes",
                what: "more products than a sum holds",
            });
        }
        Ok(match !images && DepthwiseByteConv::suits(&shape) {
            true => Self::Depthwise(Arc::new(DepthwiseByteConv::new(isa, shape, weight))),
            false => Self::Direct(Arc::new(DirectByteConv::new(isa, shape, weight, images))),
        })
    }

    /// The convolution's shape.
    pub fn shape(&self) -> ConvShape {
        match self {
            Self::Direct(conv) => conv.shape,
            Self::Depthwise(conv) => conv.shape,
        }
    }

    /// Bytes of packed weights.
    pub(crate) fn weight_bytes(&self) -> usize {
        match self {
            Self::Direct(conv) => conv.weights.len() * size_of::<f32>(),
            Self::Depthwise(conv) => conv.weight_bytes(),
        }
    }

    /// The convolution of a tensor of bytes with a zero point into another layout, of bytes or floats.
    ///
    /// # Errors
    /// The layouts are not the convolution's.
    pub fn operation(
        &self,
        (input, zero): (Layout, u8),
        output: Layout,
        epilogue: ByteEpilogue,
        threads: usize,
    ) -> Result<Box<dyn Operation>, KernelError> {
        let shape = self.shape();
        let operation = "a convolution of bytes";
        let channels = |expected, found| match expected == found {
            true => Ok(()),
            false => Err(KernelError::Channels { operation, expected, found }),
        };
        let output_channels =
            if epilogue.bytes.is_some() { shape.channels[1].div_ceil(QUAD) } else { shape.channels[1] };
        channels(shape.channels[0].div_ceil(QUAD), input.channels)?;
        channels(output_channels, output.channels)?;
        let [height, width] = shape.output([input.height, input.width])?;
        let quads = shape.channels[1].div_ceil(QUAD);
        for (other, made) in [(Some(output), output_channels), (epilogue.sum, quads)] {
            let Some(other) = other else { continue };
            let (left, right) = ([made, height, width], [other.channels, other.height, other.width]);
            if left != right || input.batch != other.batch {
                return Err(KernelError::Shapes { operation, left, right });
            }
        }
        if input.halo < shape.padding[1] {
            return Err(KernelError::Window { operation, what: "a halo narrower than its padding" });
        }
        let Requantize { multiplier, offset, .. } = &*epilogue.requantize;
        for values in [multiplier, offset] {
            channels(shape.channels[1], values.len())?;
        }
        Ok(match self {
            Self::Direct(conv) => {
                Box::new(DirectByteOperation::new(conv.clone(), input, zero, output, epilogue, threads))
            }
            Self::Depthwise(conv) => {
                let inputs = [Some(input), epilogue.sum].into_iter().flatten().collect();
                let kernel = DepthwiseByteRows::new(conv.clone(), &input, zero, output, &epilogue);
                ByRows::new(kernel, conv.isa, inputs, output, threads)?
            }
        })
    }
}

/// A convolution of bytes of any shape.
pub struct DirectByteConv {
    isa: Isa,
    shape: ConvShape,
    /// Groups of four channels in an input block.
    input_lanes: usize,
    groups: Vec<BlockGroup>,
    weights: Buffer,
    /// The sum of each output's weights in each row of its kernel, `[row][output]`, for whole blocks.
    row_sums: Vec<i32>,
}

/// One or two neighboring blocks of output channels, which read the same input blocks.
struct BlockGroup {
    /// The first output block, and how many.
    first: usize,
    blocks: usize,
    /// The first input block, and how many: those of the channel groups that the outputs belong to.
    inputs: usize,
    input_blocks: usize,
    /// Where the weights start, in bytes.
    weights: usize,
}

impl DirectByteConv {
    fn new(isa: Isa, shape: ConvShape, weight: &[i8], images: bool) -> Self {
        let lanes = isa.lanes();
        let input_lanes = if images { 1 } else { lanes / QUAD };
        let block = input_lanes * QUAD;
        let [inputs, outputs] = shape.channels;
        let ([group_inputs, group_outputs], taps) = (shape.group_channels(), shape.taps());

        let reads = |output_block: usize| {
            let last = outputs.min((output_block + 1) * lanes) - 1;
            let first = output_block * lanes / group_outputs * group_inputs;
            first / block..((last / group_outputs + 1) * group_inputs).div_ceil(block)
        };
        let (mut groups, mut len, mut first) = (Vec::new(), 0, 0);
        let output_blocks = outputs.div_ceil(lanes);
        let all_quads = inputs.div_ceil(QUAD);
        while first < output_blocks {
            let range = reads(first);
            let blocks = if first + 1 < output_blocks && reads(first + 1) == range { 2 } else { 1 };
            let quads = all_quads.min(range.end * input_lanes) - range.start * input_lanes;
            groups.push(BlockGroup { first, blocks, inputs: range.start, input_blocks: range.len(), weights: len });
            len += quads * taps * blocks * lanes * QUAD;
            first += blocks;
        }

        let mut weights = Buffer::zeros(len / QUAD);
        let packed = bytes_mut(&mut weights);
        for group in &groups {
            let mut to = group.weights;
            for input_block in group.inputs..group.inputs + group.input_blocks {
                let quads = input_block * input_lanes..all_quads.min((input_block + 1) * input_lanes);
                for tap in 0..taps {
                    for quad in quads.clone() {
                        let filters = group.first * lanes..outputs.min((group.first + group.blocks) * lanes);
                        for (lane, output) in filters.enumerate() {
                            for input in quad * QUAD..inputs.min((quad + 1) * QUAD) {
                                if output / group_outputs == input / group_inputs {
                                    let from = output * group_inputs + input % group_inputs;
                                    packed[to + lane * QUAD + input % QUAD] = weight[from * taps + tap] as u8;
                                }
                            }
                        }
                        to += group.blocks * lanes * QUAD;
                    }
                }
            }
        }
        let padded = output_blocks * lanes;
        let [rows, columns] = shape.kernel;
        let mut row_sums = vec![0; rows * padded];
        for (at, weight) in weight.iter().enumerate() {
            row_sums[at % taps / columns * padded + at / (group_inputs * taps)] += i32::from(*weight);
        }
        Self { isa, shape, input_lanes, groups, weights, row_sums }
    }
}

/// A convolution of bytes of one layout into another.
struct DirectByteOperation {
    conv: Arc<DirectByteConv>,
    input: Layout,
    output: Layout,
    epilogue: ByteEpilogue,
    multiplier: Buffer,
    offset: Buffer,
    /// What sums begin with, −zero · Σ weights: for each range of a kernel's rows that lies on the image.
    starts: Vec<([usize; 2], Vec<i32>)>,
    /// As in [`DirectOperation`](crate::blocked::direct).
    rows: usize,
    flat: bool,
    chunks: usize,
    bands: usize,
}

/// Pixels in a row of a flat 1×1 convolution: a few full tiles for any instruction set.
const FLAT_ROW: usize = 84;

/// Tasks per thread, about.
const TASKS_PER_THREAD: usize = 6;

impl DirectByteOperation {
    fn new(
        conv: Arc<DirectByteConv>,
        input: Layout,
        zero: u8,
        output: Layout,
        epilogue: ByteEpilogue,
        threads: usize,
    ) -> Self {
        let shape = &conv.shape;
        let halos = [Some(input), Some(output), epilogue.sum].into_iter().flatten().map(|layout| layout.halo);
        let flat = (shape.kernel, shape.stride, shape.padding) == ([1; 2], [1; 2], [0; 2]) && halos.sum::<usize>() == 0;
        let rows = if flat { (output.height * output.width).div_ceil(FLAT_ROW) } else { output.height };
        let chunks = (conv.weights.len() * QUAD).div_ceil(CACHED_WEIGHTS).clamp(1, conv.groups.len());
        // Enough tasks that an interrupted thread does not hold up the others for long.
        let wanted = (threads * TASKS_PER_THREAD).div_ceil(chunks * output.batch.max(1));
        let wanted = if threads == 1 { 1 } else { wanted };
        // And so many that a task's pixels are still in the cache when the next outputs read them.
        let pixels = if flat { FLAT_ROW } else { input.width * shape.stride[0] };
        let fitting = (CACHED_PIXELS / (pixels * input.channels * QUAD)).max(1);
        let bands = wanted.max(rows.div_ceil(fitting)).min(rows).max(1);

        let padded = conv.row_sums.len() / shape.kernel[0];
        let mut starts: Vec<([usize; 2], Vec<i32>)> = Vec::new();
        for row in 0..output.height {
            let rows = TapRows::new(shape, input.height, row);
            let range = [rows.first, rows.last];
            if starts.iter().all(|(known, _)| *known != range) {
                let mut start = vec![0i32; padded];
                for sums in conv.row_sums.chunks_exact(padded).take(rows.last).skip(rows.first) {
                    start.iter_mut().zip(sums).for_each(|(start, sum)| *start -= i32::from(zero) * sum);
                }
                starts.push((range, start));
            }
        }
        let lanes = conv.isa.lanes();
        let pad = |values: &[f32]| pad_channels(Some(values), 0.0, shape.channels[1], lanes);
        let (multiplier, offset) = (pad(&epilogue.requantize.multiplier), pad(&epilogue.requantize.offset));
        Self { input, output, multiplier, offset, starts, rows, flat, chunks, bands, epilogue, conv }
    }

    /// What sums begin with where these rows of the kernel lie on the image.
    fn start(&self, first: usize, last: usize) -> *const i32 {
        let known = self.starts.iter().find(|(range, _)| *range == [first, last]);
        known.map_or(ptr::null(), |(_, start)| start.as_ptr())
    }
}

impl Operation for DirectByteOperation {
    fn tasks(&self) -> usize {
        self.chunks * self.output.batch * self.bands
    }

    fn inputs(&self) -> Vec<Layout> {
        [Some(self.input), self.epilogue.sum].into_iter().flatten().collect()
    }

    fn output(&self) -> Layout {
        self.output
    }

    unsafe fn run(&self, task: usize, inputs: &[*const u8], output: *mut u8) {
        // Neighbouring tasks share weights.
        let (band, rest) = (task % self.bands, task / self.bands);
        let (image, chunk) = (rest % self.output.batch, rest / self.output.batch);
        let sum = inputs.get(1).copied().unwrap_or(ptr::null());
        // SAFETY: the instruction set was found on this processor, and the pointers are the caller's promise.
        unsafe {
            self.conv.isa.call_dot(Task {
                operation: self,
                image,
                chunk,
                band,
                input: inputs[0].cast(),
                sum: sum.cast(),
                output: output.cast(),
            })
        }
    }
}

struct Task<'a> {
    operation: &'a DirectByteOperation,
    image: usize,
    chunk: usize,
    band: usize,
    input: *const f32,
    sum: *const f32,
    output: *mut f32,
}

impl DotKernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<D: Dot>(self) {
        let DirectByteOperation { conv, input, output, epilogue, flat, .. } = self.operation;
        let (shape, image, width_of) = (&conv.shape, self.image, output.width);
        let (lanes, block_bytes) = (D::Float::LANES, conv.input_lanes * QUAD);
        let sum = epilogue.sum.filter(|_| !self.sum.is_null());
        // Numbers of the output in one of its floats.
        let numbers = if epilogue.bytes.is_some() { QUAD } else { 1 };
        let to = match epilogue.bytes {
            Some(_) => Pixels::Bytes(self.output.cast()),
            None => Pixels::Floats(self.output),
        };
        let [kernel_rows, kernel_columns] = shape.kernel;

        for group in &conv.groups[piece(conv.groups.len(), self.operation.chunks, self.chunk)] {
            let end = group.inputs + group.input_blocks;
            let row_weights = kernel_columns * group.blocks * lanes * QUAD;
            let channel = group.first * lanes;
            // SAFETY: the layouts have been checked against the shape, and the pointers are valid for the layouts.
            unsafe {
                let mut args = TileArgs {
                    input: ptr::null(),
                    weights: conv.weights.as_ptr().cast::<i8>().add(group.weights),
                    start: self.operation.start(0, kernel_rows).wrapping_add(channel),
                    multiplier: self.operation.multiplier.as_ptr().add(channel),
                    offset: self.operation.offset.as_ptr().add(channel),
                    sum: ptr::null(),
                    sum_multiplier: epilogue.requantize.sum,
                    sum_block: sum.map_or(0, |sum| sum.block() * QUAD),
                    output: to,
                    output_block: output.block() * numbers,
                    blocks: group.input_blocks,
                    input_block: input.block() * QUAD,
                    weights_block: kernel_rows * row_weights * conv.input_lanes,
                    rows: kernel_rows,
                    skipped_rows: 0,
                    row_step: shape.dilation[0] * input.row() * QUAD,
                    taps: kernel_columns,
                    tap_step: shape.dilation[1] * block_bytes,
                    run: conv.input_lanes,
                    run_last: input.block_channels(end - 1),
                    pixel_step: shape.stride[1] * block_bytes,
                    bounds: epilogue.requantize.bounds,
                };
                for row in piece(self.operation.rows, self.operation.bands, self.band) {
                    // Where the row starts in each tensor, in its numbers, and how many pixels it has.
                    let (read, write, add, width);
                    if *flat {
                        let pixels = piece(output.height * width_of, self.operation.rows, row);
                        width = pixels.len();
                        read = input.at(image, group.inputs, 0) * QUAD + pixels.start * block_bytes;
                        write = output.at(image, group.first, 0) * numbers + pixels.start * lanes;
                        add = sum.map(|sum| sum.at(image, group.first, 0) * QUAD + pixels.start * lanes);
                    } else {
                        let rows = TapRows::new(shape, input.height, row);
                        width = width_of;
                        read = input.at(image, group.inputs, rows.input) * QUAD - shape.padding[1] * block_bytes;
                        write = output.at(image, group.first, row) * numbers;
                        add = sum.map(|sum| sum.at(image, group.first, row) * QUAD);
                        args.rows = rows.last - rows.first;
                        args.skipped_rows = rows.first;
                        args.start = self.operation.start(rows.first, rows.last).wrapping_add(channel);
                    }
                    let tiles = width.div_ceil(D::PIXELS);
                    for part in 0..tiles {
                        let pixels = piece(width, tiles, part);
                        args.input = self.input.cast::<u8>().add(read + pixels.start * args.pixel_step);
                        args.output = to.add(write + pixels.start * lanes);
                        if let Some(add) = add {
                            args.sum = self.sum.cast::<u8>().add(add + pixels.start * lanes);
                        }
                        tile::<D>(pixels.len(), group.blocks, &args);
                    }
                    for block in 0..group.blocks {
                        let floats = self.output.add(write / numbers + block * output.block());
                        if epilogue.bytes.is_none() {
                            let channels = output.block_channels(group.first + block);
                            epilogue.activation.finish::<D::Float, f32>(floats, width, channels);
                            // What was added there may be anything.
                            if sum.is_some() && channels < lanes {
                                for pixel in 0..width {
                                    floats.add(pixel * lanes + channels).write_bytes(0, lanes - channels);
                                }
                            }
                        }
                        if !flat {
                            output.fill_halo(floats, epilogue.bytes.unwrap_or(0));
                        }
                    }
                }
            }
        }
    }
}
