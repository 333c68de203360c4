//! Floats to bytes and back; copies of bytes: channels in another order, flattening.
#![allow(unsafe_code)]

use super::layout::QUAD;
use super::scale::ByteScale;
use crate::blocked::rows::{ByRows, Place, Row, RowKernel};
use crate::elementwise::cut;
use crate::memory::with_scratch;
use crate::number::Number;
use crate::simd::{Kernel, Simd};
use crate::{Isa, KernelError, Layout, Operation};

/// A layout's channels, height and width, for an error.
fn shape_of(layout: &Layout) -> [usize; 3] {
    [layout.channels, layout.height, layout.width]
}

/// Floats to the bytes that [`ByteScale::byte`] says: (x · 1/scale + zero), cut at 0 and 255, rounded to the nearest.
///
/// # Errors
/// The shapes differ.
pub fn to_bytes(
    isa: Isa,
    scale: ByteScale,
    input: Layout,
    output: Layout,
    threads: usize,
) -> Result<Box<dyn Operation>, KernelError> {
    check_same("bytes of floats", &input, &output)?;
    Ok(ByRows::new(ToBytes(scale), isa, vec![input], output, threads)?)
}

/// Bytes to floats.
///
/// # Errors
/// The shapes differ.
pub fn to_floats(
    isa: Isa,
    scale: ByteScale,
    input: Layout,
    output: Layout,
    threads: usize,
) -> Result<Box<dyn Operation>, KernelError> {
    check_same("floats of bytes", &output, &input)?;
    Ok(ByRows::new(ToFloats(scale), isa, vec![input], output, threads)?)
}

fn check_same(operation: &'static str, floats: &Layout, bytes: &Layout) -> Result<(), KernelError> {
    let (left, right) = ([floats.channels.div_ceil(QUAD), floats.height, floats.width], shape_of(bytes));
    match left == right && floats.batch == bytes.batch {
        true => Ok(()),
        false => Err(KernelError::Shapes { operation, left, right }),
    }
}

struct ToBytes(ByteScale);

impl RowKernel for ToBytes {
    #[inline(always)]
    unsafe fn row<S: Simd, I: Number, O: Number>(&self, Row { layouts, at, inputs, output }: Row<I, O>) {
        let (inverse, zero) = (self.0.inverse(), f32::from(self.0.zero));
        // SAFETY: the shapes are equal, and the pointers are valid for the layouts.
        unsafe {
            let from = inputs[0].cast::<f32>().add(layouts.inputs[0].at(at.image, at.block, at.row));
            for x in 0..layouts.output.width {
                let value = S::add(S::mul(S::load(from.add(x * S::LANES)), S::splat(inverse)), S::splat(zero));
                S::store_bytes(output.cast::<u8>().add(x * S::LANES), cut::<S>([0.0, 255.0], value));
            }
        }
    }

    #[inline(always)]
    fn halo(&self) -> u8 {
        self.0.zero
    }
}

struct ToFloats(ByteScale);

impl RowKernel for ToFloats {
    #[inline(always)]
    unsafe fn row<S: Simd, I: Number, O: Number>(&self, Row { layouts, at, inputs, output }: Row<I, O>) {
        let (scale, zero) = (self.0.scale, f32::from(self.0.zero));
        let channels = layouts.output.block_channels(at.block);
        // SAFETY: the shapes are equal, and the pointers are valid for the layouts.
        unsafe {
            let from = inputs[0].cast::<f32>().add(layouts.inputs[0].at(at.image, at.block, at.row)).cast::<u8>();
            for x in 0..layouts.output.width {
                let value = S::sub(S::load_bytes(from.add(x * S::LANES)), S::splat(zero));
                S::store(output.cast::<f32>().add(x * S::LANES), S::mul(value, S::splat(scale)));
                // The empty lanes of floats are zero.
                output.cast::<f32>().add(x * S::LANES + channels).write_bytes(0, S::LANES - channels);
            }
        }
    }
}

/// Images of at most four channels in NCHW order, with any halo, to bytes whose blocks are four channels.
pub struct ImagesToBytes {
    isa: Isa,
    scale: ByteScale,
    channels: usize,
    input: Layout,
    output: Layout,
    bands: usize,
}

impl ImagesToBytes {
    /// From planes to bytes of the same shape.
    ///
    /// # Errors
    /// The shapes differ, or there are more channels.
    pub fn new(isa: Isa, scale: ByteScale, input: Layout, output: Layout, threads: usize) -> Result<Self, KernelError> {
        check_same("bytes of images", &input, &output)?;
        if input.channels > QUAD || [input.lanes, output.lanes] != [1; 2] {
            let (expected, found) = (QUAD, input.channels);
            return Err(KernelError::Channels { operation: "bytes of images", expected, found });
        }
        let bands = (4 * threads).clamp(1, output.height.max(1));
        Ok(Self { isa, scale, channels: input.channels, input, output, bands })
    }
}

impl Operation for ImagesToBytes {
    fn tasks(&self) -> usize {
        self.output.batch * self.bands
    }

    fn inputs(&self) -> Vec<Layout> {
        vec![self.input]
    }

    fn output(&self) -> Layout {
        self.output
    }

    unsafe fn run(&self, task: usize, inputs: &[*const u8], output: *mut u8) {
        // SAFETY: the instruction set was found on this processor, and the pointers are the caller's promise.
        unsafe { self.isa.call(ImageTask { operation: self, task, input: inputs[0].cast(), output: output.cast() }) }
    }
}

struct ImageTask<'a> {
    operation: &'a ImagesToBytes,
    task: usize,
    input: *const f32,
    output: *mut f32,
}

impl Kernel for ImageTask<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let ImagesToBytes { scale, channels, input, output, bands, .. } = self.operation;
        let (image, band) = (self.task / bands, self.task % bands);
        let (inverse, zero) = (scale.inverse(), f32::from(scale.zero));
        let padded = output.width.next_multiple_of(S::LANES);
        // A row of bytes for each channel; of those there are not, zero.
        with_scratch(padded, |scratch| {
            scratch.fill(0.0);
            let planes = scratch.as_mut_ptr().cast::<u8>();
            for row in crate::parallel::piece(output.height, *bands, band) {
                // SAFETY: the rows exist, the scratch memory has four bytes for each pixel, and the pointers are valid for the
                // layouts.
                unsafe {
                    for channel in 0..*channels {
                        let (from, to) = (self.input.add(input.at(image, channel, row)), planes.add(channel * padded));
                        let whole = output.width - output.width % S::LANES;
                        for x in (0..whole).step_by(S::LANES) {
                            let value = S::add(S::mul(S::load(from.add(x)), S::splat(inverse)), S::splat(zero));
                            S::store_bytes(to.add(x), cut::<S>([0.0, 255.0], value));
                        }
                        for x in whole..output.width {
                            to.add(x).write(scale.byte(from.add(x).read()));
                        }
                    }
                    let pixels = self.output.add(output.at(image, 0, row));
                    let to = pixels.cast::<[u8; QUAD]>();
                    for x in 0..output.width {
                        let byte = |channel: usize| planes.add(channel * padded + x).read();
                        to.add(x).write([byte(0), byte(1), byte(2), byte(3)]);
                    }
                    output.fill_halo(pixels, scale.zero);
                }
            }
        });
    }
}

/// Channels of some tensors of bytes in any order; `sources` says for each channel of the output the input and its channel.
///
/// # Errors
/// The inputs' heights, widths or batches differ, or a channel does not exist, or there are not as many as the output's.
pub fn gather_bytes(
    isa: Isa,
    sources: Vec<(usize, usize)>,
    zero: u8,
    inputs: Vec<Layout>,
    output: Layout,
    threads: usize,
) -> Result<Box<dyn Operation>, KernelError> {
    for input in &inputs {
        if [input.batch, input.height, input.width] != [output.batch, output.height, output.width] {
            let (left, right) = (shape_of(input), shape_of(&output));
            return Err(KernelError::Shapes { operation: "a concatenation", left, right });
        }
    }
    if sources.len().div_ceil(QUAD) != output.channels {
        let (expected, found) = (output.channels * QUAD, sources.len());
        return Err(KernelError::Channels { operation: "a concatenation", expected, found });
    }
    let exists =
        |(input, channel): &(usize, usize)| inputs.get(*input).is_some_and(|input| *channel < input.channels * QUAD);
    if !sources.iter().all(exists) {
        return Err(KernelError::Missing("channel to rearrange"));
    }
    Ok(ByRows::new(GatherBytes { sources, zero }, isa, inputs, output, threads)?)
}

struct GatherBytes {
    /// For each channel of the output the input and its channel.
    sources: Vec<(usize, usize)>,
    zero: u8,
}

impl RowKernel for GatherBytes {
    #[inline(always)]
    unsafe fn row<S: Simd, I: Number, O: Number>(&self, Row { layouts, at, inputs, output }: Row<I, O>) {
        let Place { image, block, row } = at;
        let start = block * S::LANES;
        let sources = &self.sources[start..self.sources.len().min(start + S::LANES)];
        let (width, output) = (layouts.output.width, output.cast::<u8>());
        let (first, channel) = sources[0];
        // SAFETY: the sources' channels exist, heights and widths are equal, and the pointers are valid for the layouts.
        unsafe {
            let layout = &layouts.inputs[first];
            let neighbors = sources.iter().enumerate().all(|(lane, source)| *source == (first, channel + lane));
            // The lanes after the last channel may be any.
            let whole = layout.block_channels(channel / S::LANES) >= sources.len().div_ceil(QUAD);
            if neighbors && channel % S::LANES == 0 && whole && layouts.output.lanes == layout.lanes {
                let from = inputs[first].cast::<f32>().add(layout.at(image, channel / S::LANES, row)).cast::<u8>();
                output.copy_from_nonoverlapping(from, width * S::LANES);
                return;
            }
            if sources.len() < S::LANES {
                output.write_bytes(self.zero, width * S::LANES);
            }
            for (lane, (input, channel)) in sources.iter().enumerate() {
                let layout = &layouts.inputs[*input];
                let from = inputs[*input].add(layout.at(image, channel / S::LANES, row)).cast::<u8>();
                let from = from.add(channel % S::LANES);
                for x in 0..width {
                    *output.add(x * S::LANES + lane) = *from.add(x * S::LANES);
                }
            }
        }
    }

    #[inline(always)]
    fn halo(&self) -> u8 {
        self.zero
    }
}

/// Copies each image's bytes into NCHW order, `[channels, height, width]`, one after the other: the output has as many
/// channels as the input has bytes, height and width 1.
pub struct FlattenBytes {
    channels: usize,
    input: Layout,
    output: Layout,
}

impl FlattenBytes {
    /// From any layout of a tensor of so many channels into blocks of as many lanes.
    ///
    /// # Errors
    /// The layout has other channels.
    pub fn new(channels: usize, input: Layout) -> Result<Self, KernelError> {
        if channels.div_ceil(QUAD) != input.channels {
            let (expected, found) = (channels, input.channels * QUAD);
            return Err(KernelError::Channels { operation: "flattening", expected, found });
        }
        let features = channels * input.height * input.width;
        let output = Layout::new([input.batch, features.div_ceil(QUAD), 1, 1], input.lanes, 0);
        Ok(Self { channels, input, output })
    }
}

impl Operation for FlattenBytes {
    fn tasks(&self) -> usize {
        self.input.batch
    }

    fn inputs(&self) -> Vec<Layout> {
        vec![self.input]
    }

    fn output(&self) -> Layout {
        self.output
    }

    unsafe fn run(&self, image: usize, inputs: &[*const u8], output: *mut u8) {
        let Layout { height, width, lanes, .. } = self.input;
        let block = lanes * QUAD;
        // SAFETY: the pointers are valid for the layouts; each task writes an image, with the bytes that fill its last block.
        unsafe {
            let into = output.cast::<f32>().add(image * self.output.image).cast::<u8>();
            let features = self.channels * height * width;
            into.add(features).write_bytes(0, features.next_multiple_of(block) - features);
            for c in 0..self.channels {
                for y in 0..height {
                    let from =
                        inputs[0].cast::<f32>().add(self.input.at(image, c / block, y)).cast::<u8>().add(c % block);
                    let into = into.add((c * height + y) * width);
                    for x in 0..width {
                        *into.add(x) = *from.add(x * block);
                    }
                }
            }
        }
    }
}
