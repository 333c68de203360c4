//! Copies between layouts: of images, channels in another order, flattening.
#![allow(unsafe_code)]

use half::bf16;

use super::layout::pack;
use super::rows::{ByRows, Place, Row, RowKernel};
use crate::number::{Number, Numbers};
use crate::parallel::piece;
use crate::simd::{MAX_LANES, Simd};
use crate::{Isa, KernelError, Layout, Operation};

/// Copies images `[batch, channels, height, width]` into a layout.
pub struct Pack(pub Layout);

impl Operation for Pack {
    fn tasks(&self) -> usize {
        self.0.batch * self.0.blocks()
    }

    fn inputs(&self) -> Vec<Layout> {
        vec![Layout::new(self.0.shape(), 1, 0)]
    }

    fn output(&self) -> Layout {
        self.0
    }

    unsafe fn run(&self, task: usize, inputs: &[*const u8], output: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.0.numbers {
                Numbers::F32 => self.run_on(task, inputs[0].cast(), output.cast::<f32>()),
                Numbers::Bf16 => self.run_on(task, inputs[0].cast(), output.cast::<bf16>()),
            }
        }
    }
}

impl Pack {
    unsafe fn run_on<N: Number>(&self, task: usize, images: *const f32, output: *mut N) {
        let (image, block) = (task / self.0.blocks(), task % self.0.blocks());
        let len = self.0.channels * self.0.height * self.0.width;
        // SAFETY: the pointers are valid for the layouts, and each task has a block of the output to itself.
        let (from, into) = unsafe {
            (
                std::slice::from_raw_parts(images.add(image * len), len),
                std::slice::from_raw_parts_mut(
                    output.add(image * self.0.image + block * self.0.block()),
                    self.0.block(),
                ),
            )
        };
        pack(from, &self.0, block, into);
    }
}

/// Concatenates along channels, whatever number of them each input has.
///
/// # Errors
/// The inputs' heights, widths or batches differ, or their channels do not add up to the output's.
pub fn concatenate(
    isa: Isa,
    inputs: Vec<Layout>,
    output: Layout,
    threads: usize,
) -> Result<Box<dyn Operation>, KernelError> {
    let sources = inputs.iter().enumerate().flat_map(|(i, input)| (0..input.channels).map(move |c| (i, c))).collect();
    gather(isa, sources, inputs, output, threads)
}

/// Channels of some tensors in any order; `sources` says for each channel of the output the input and its channel.
///
/// # Errors
/// The inputs' heights, widths or batches differ, or a channel does not exist, or there are not as many as the output's.
pub fn gather(
    isa: Isa,
    sources: Vec<(usize, usize)>,
    inputs: Vec<Layout>,
    output: Layout,
    threads: usize,
) -> Result<Box<dyn Operation>, KernelError> {
    for input in &inputs {
        if [input.batch, input.height, input.width] != [output.batch, output.height, output.width] {
            let shape = |layout: &Layout| [layout.channels, layout.height, layout.width];
            let (left, right) = (shape(input), shape(&output));
            return Err(KernelError::Shapes { operation: "a concatenation", left, right });
        }
    }
    if sources.len() != output.channels {
        let (expected, found) = (output.channels, sources.len());
        return Err(KernelError::Channels { operation: "a concatenation", expected, found });
    }
    if !sources.iter().all(|(input, channel)| inputs.get(*input).is_some_and(|input| *channel < input.channels)) {
        return Err(KernelError::Missing("channel to rearrange"));
    }
    Ok(ByRows::new(Gather { sources }, isa, inputs, output, threads)?)
}

struct Gather {
    /// For each channel of the output the input and its channel.
    sources: Vec<(usize, usize)>,
}

impl RowKernel for Gather {
    #[inline(always)]
    unsafe fn row<S: Simd, I: Number, O: Number>(&self, Row { layouts, at, inputs, output }: Row<I, O>) {
        let Place { image, block, row } = at;
        let channels = layouts.output.block_channels(block);
        let sources = &self.sources[block * S::LANES..][..channels];
        let width = layouts.output.width;
        let (first, channel) = sources[0];
        // SAFETY: the sources' channels exist, heights and widths are equal, and the pointers are valid for the layouts.
        unsafe {
            let layout = &layouts.inputs[first];
            let neighbors = sources.iter().enumerate().all(|(lane, source)| *source == (first, channel + lane));
            let same = size_of::<I>() == size_of::<O>();
            if same && neighbors && channel % S::LANES == 0 && layout.block_channels(channel / S::LANES) == channels {
                let from = inputs[first].add(layout.at(image, channel / S::LANES, row));
                output.copy_from_nonoverlapping(from.cast(), width * S::LANES);
                return;
            }
            if channels < S::LANES {
                output.write_bytes(0, width * S::LANES);
            }
            // Pixel by pixel, so that each line of the cache is written at once.
            let mut from = [inputs[first]; MAX_LANES];
            for (from, (input, channel)) in from.iter_mut().zip(sources) {
                let layout = &layouts.inputs[*input];
                *from = inputs[*input].add(layout.at(image, channel / S::LANES, row) + channel % S::LANES);
            }
            for x in 0..width {
                for (lane, from) in from[..channels].iter().enumerate() {
                    *output.add(x * S::LANES + lane) = O::of((*from.add(x * S::LANES)).value());
                }
            }
        }
    }
}

/// Copies each image's values into NCHW order, `[channels, height, width]`, one after the other: the output has as
/// many channels as the input has values, height and width 1.
pub struct Flatten {
    input: Layout,
    output: Layout,
    parts: usize,
}

impl Flatten {
    /// From any layout into blocks of as many lanes, of the same numbers.
    pub fn new(input: Layout, threads: usize) -> Self {
        let features = input.channels * input.height * input.width;
        let output = Layout::new([input.batch, features, 1, 1], input.lanes, 0).of(input.numbers);
        Self { input, output, parts: (threads * 2).min(input.blocks()).max(1) }
    }
}

impl Operation for Flatten {
    fn tasks(&self) -> usize {
        self.input.batch * self.parts
    }

    fn inputs(&self) -> Vec<Layout> {
        vec![self.input]
    }

    fn output(&self) -> Layout {
        self.output
    }

    unsafe fn run(&self, task: usize, inputs: &[*const u8], output: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.input.numbers {
                Numbers::F32 => self.run_on::<f32>(task, inputs[0].cast(), output.cast()),
                Numbers::Bf16 => self.run_on::<bf16>(task, inputs[0].cast(), output.cast()),
            }
        }
    }
}

impl Flatten {
    unsafe fn run_on<N: Number>(&self, task: usize, input: *const N, output: *mut N) {
        let (image, part) = (task / self.parts, task % self.parts);
        let Layout { height, width, lanes, .. } = self.input;
        let blocks = piece(self.input.blocks(), self.parts, part);
        // SAFETY: the pointers are valid for the layouts; each task writes the channels of its blocks, the last one also
        // the empty lanes after them.
        unsafe {
            let into = output.add(image * self.output.image);
            if blocks.end == self.input.blocks() {
                let used = self.output.channels;
                into.add(used).write_bytes(0, used.next_multiple_of(lanes) - used);
            }
            for block in blocks {
                for c in 0..self.input.block_channels(block) {
                    for y in 0..height {
                        let from = input.add(self.input.at(image, block, y) + c);
                        let into = into.add(((block * lanes + c) * height + y) * width);
                        for x in 0..width {
                            *into.add(x) = *from.add(x * lanes);
                        }
                    }
                }
            }
        }
    }
}
