//! Depthwise convolutions of bytes. Their sums are whole numbers that floats hold exactly, so they are taken in floats.
#![allow(unsafe_code)]

use std::sync::Arc;

use super::conv::ByteEpilogue;
use super::layout::QUAD;
use super::scale::Requantize;
use crate::blocked::conv::TapRows;
use crate::blocked::rows::{Place, Row, RowKernel};
use crate::conv::ConvShape;
use crate::elementwise::{Activation, Apply, cut};
use crate::memory::pad_channels;
use crate::number::Number;
use crate::simd::Simd;
use crate::{Buffer, Isa, Layout};

/// The most taps whose sum of products of bytes a float holds exactly, whatever the zero point.
const MOST_TAPS: usize = (1 << 23) / (255 * 127);

/// A convolution of each channel with a kernel of its own.
pub struct DepthwiseByteConv {
    pub(super) isa: Isa,
    pub(super) shape: ConvShape,
    /// Whole numbers, `[block][row][tap][lanes]`.
    weights: Buffer,
}

impl DepthwiseByteConv {
    /// Whether a convolution is one.
    pub(super) fn suits(shape: &ConvShape) -> bool {
        let [inputs, outputs] = shape.channels;
        shape.groups > 1 && [inputs, outputs] == [shape.groups; 2] && shape.taps() <= MOST_TAPS
    }

    pub(super) fn new(isa: Isa, shape: ConvShape, weight: &[i8]) -> Self {
        let (lanes, channels, taps) = (isa.lanes(), shape.channels[0], shape.taps());
        let mut weights = Buffer::zeros(channels.next_multiple_of(lanes) * taps);
        for (channel, kernel) in weight.chunks_exact(taps).enumerate() {
            for (tap, value) in kernel.iter().enumerate() {
                weights[(channel / lanes * taps + tap) * lanes + channel % lanes] = f32::from(*value);
            }
        }
        Self { isa, shape, weights }
    }

    pub(super) fn weight_bytes(&self) -> usize {
        self.weights.len() * size_of::<f32>()
    }
}

/// A depthwise convolution of one layout into another; a second input is added to the output.
pub(super) struct DepthwiseByteRows {
    conv: Arc<DepthwiseByteConv>,
    multiplier: Buffer,
    offset: Buffer,
    requantize: Arc<Requantize>,
    /// The zero point of the output, if it is bytes.
    bytes: Option<u8>,
    activation: Activation,
    /// −zero · Σ weights, `[block][lanes]`, for each range of a kernel's rows that lies on the image.
    starts: Vec<([usize; 2], Buffer)>,
}

/// Pixels whose sums run side by side, to hide the latency of multiply-adds.
const PIXELS: usize = 6;

impl DepthwiseByteRows {
    pub fn new(
        conv: Arc<DepthwiseByteConv>,
        input: &Layout,
        zero: u8,
        output: Layout,
        epilogue: &ByteEpilogue,
    ) -> Self {
        let (lanes, shape) = (conv.isa.lanes(), &conv.shape);
        let pad = |values: &[f32]| pad_channels(Some(values), 0.0, shape.channels[1], lanes);
        let (multiplier, offset) = (pad(&epilogue.requantize.multiplier), pad(&epilogue.requantize.offset));
        let mut starts: Vec<([usize; 2], Buffer)> = Vec::new();
        for row in 0..output.height {
            let rows = TapRows::new(shape, input.height, row);
            let range = [rows.first, rows.last];
            if starts.iter().any(|(known, _)| *known == range) {
                continue;
            }
            let mut start = Buffer::zeros(multiplier.len());
            for (at, weight) in conv.weights.iter().enumerate() {
                let (block, tap) = (at / lanes / shape.taps(), at / lanes % shape.taps());
                if (rows.first..rows.last).contains(&(tap / shape.kernel[1])) {
                    start[block * lanes + at % lanes] -= f32::from(zero) * weight;
                }
            }
            starts.push((range, start));
        }
        let (requantize, bytes, activation) = (epilogue.requantize.clone(), epilogue.bytes, epilogue.activation);
        Self { multiplier, offset, requantize, bytes, activation, starts, conv }
    }
}

impl RowKernel for DepthwiseByteRows {
    #[inline(always)]
    unsafe fn row<S: Simd, I: Number, O: Number>(&self, Row { layouts, at, inputs, output }: Row<I, O>) {
        let (Place { image, block, row }, output) = (at, output.cast::<f32>());
        let (conv, input) = (&self.conv, &layouts.inputs[0]);
        let [_, kernel_columns] = conv.shape.kernel;
        let rows = TapRows::new(&conv.shape, input.height, row);
        let range = [rows.first, rows.last];
        let Some((_, start)) = self.starts.iter().find(|(known, _)| *known == range) else { return };
        // SAFETY: the layouts have been checked against the shape, and the pointers are valid for the layouts.
        unsafe {
            let weights = conv.weights.as_ptr().add(block * conv.shape.taps() * S::LANES);
            let from = input.at(image, block, rows.input) * QUAD - conv.shape.padding[1] * S::LANES;
            let args = Pixels {
                rows: self,
                shape: &conv.shape,
                taps: rows,
                input_row: input.row() * QUAD,
                weights: weights.add(rows.first * kernel_columns * S::LANES),
                channel: block * S::LANES,
                start: start.as_ptr().add(block * S::LANES),
                input: inputs[0].cast::<u8>().add(from),
                sum: layouts
                    .inputs
                    .get(1)
                    .map(|layout| inputs[1].cast::<f32>().add(layout.at(image, block, row)).cast()),
                output,
            };
            let width = layouts.output.width;
            let neighbors = (conv.shape.stride[1], conv.shape.dilation[1]) == (1, 1);
            if width < PIXELS {
                for x in 0..width {
                    args.compute::<S, 1>(x);
                }
            } else {
                for x in (0..width).step_by(PIXELS) {
                    // The last pixels are as many, some of them for the second time.
                    let x = x.min(width - PIXELS);
                    match kernel_columns {
                        3 if neighbors => args.slide::<S, 3, { PIXELS + 2 }>(x),
                        5 if neighbors => args.slide::<S, 5, { PIXELS + 4 }>(x),
                        _ => args.compute::<S, PIXELS>(x),
                    }
                }
            }
            if self.bytes.is_none() {
                let channels = layouts.output.block_channels(block);
                self.activation.finish::<S, f32>(output, width, channels);
                if args.sum.is_some() && channels < S::LANES {
                    for x in 0..width {
                        output.add(x * S::LANES + channels).write_bytes(0, S::LANES - channels);
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn halo(&self) -> u8 {
        self.bytes.unwrap_or(0)
    }
}

struct Pixels<'a> {
    rows: &'a DepthwiseByteRows,
    shape: &'a ConvShape,
    taps: TapRows,
    /// In bytes.
    input_row: usize,
    weights: *const f32,
    channel: usize,
    start: *const f32,
    input: *const u8,
    sum: Option<*const u8>,
    output: *mut f32,
}

impl Pixels<'_> {
    /// `N` neighboring pixels from column `x` of the row.
    #[inline(always)]
    unsafe fn compute<S: Simd, const N: usize>(&self, x: usize) {
        let pixel = self.shape.stride[1] * S::LANES;
        // SAFETY: the columns exist in the rows that the pointers point to.
        unsafe {
            let mut totals = [S::load(self.start); N];
            let mut weights = self.weights;
            for ky in 0..self.taps.last - self.taps.first {
                let row = self.input.add(ky * self.shape.dilation[0] * self.input_row + x * pixel);
                for kx in 0..self.shape.kernel[1] {
                    let tap = row.add(kx * self.shape.dilation[1] * S::LANES);
                    let weight = S::load(weights);
                    for (p, total) in totals.iter_mut().enumerate() {
                        *total = S::mul_add(S::load_bytes(tap.add(p * pixel)), weight, *total);
                    }
                    weights = weights.add(S::LANES);
                }
            }
            self.put::<S, N>(totals, x);
        }
    }

    /// The same of [`PIXELS`] pixels with a stride and a dilation of 1: the `READ` that neighbors share are loaded once.
    #[inline(always)]
    unsafe fn slide<S: Simd, const COLUMNS: usize, const READ: usize>(&self, x: usize) {
        // SAFETY: as above.
        unsafe {
            let mut totals = [S::load(self.start); PIXELS];
            for ky in 0..self.taps.last - self.taps.first {
                let row = self.input.add(ky * self.shape.dilation[0] * self.input_row + x * S::LANES);
                let weights = self.weights.add(ky * COLUMNS * S::LANES);
                let mut values = [S::splat(0.0); READ];
                for (i, value) in values.iter_mut().enumerate() {
                    *value = S::load_bytes(row.add(i * S::LANES));
                }
                for kx in 0..COLUMNS {
                    let weight = S::load(weights.add(kx * S::LANES));
                    for (p, total) in totals.iter_mut().enumerate() {
                        *total = S::mul_add(values[p + kx], weight, *total);
                    }
                }
            }
            self.put::<S, PIXELS>(totals, x);
        }
    }

    /// What follows the sums.
    #[inline(always)]
    unsafe fn put<S: Simd, const N: usize>(&self, totals: [S::Vector; N], x: usize) {
        let DepthwiseByteRows { multiplier, offset, requantize, bytes, .. } = self.rows;
        // SAFETY: as above.
        unsafe {
            let multiplier = S::load(multiplier.as_ptr().add(self.channel));
            let offset = S::load(offset.as_ptr().add(self.channel));
            for (p, total) in totals.into_iter().enumerate() {
                let mut total = S::add(S::mul(total, multiplier), offset);
                if let Some(sum) = self.sum {
                    let added = S::load_bytes(sum.add((x + p) * S::LANES));
                    total = S::add(total, S::mul(added, S::splat(requantize.sum)));
                }
                let total = cut::<S>(requantize.bounds, total);
                match bytes {
                    Some(_) => S::store_bytes(self.output.cast::<u8>().add((x + p) * S::LANES), total),
                    None => S::store(self.output.add((x + p) * S::LANES), total),
                }
            }
        }
    }
}
