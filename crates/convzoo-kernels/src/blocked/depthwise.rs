//! Depthwise convolutions on blocks of channels.
#![allow(unsafe_code)]

use std::ptr;
use std::sync::Arc;

use super::conv::TapRows;
use super::rows::{Place, Row, RowKernel};
use crate::conv::ConvShape;
use crate::elementwise::{Activation, Apply, cut};
use crate::memory::pad_channels;
use crate::number::{Number, Numbers};
use crate::simd::Simd;
use crate::{Buffer, Isa, KernelError};

/// A convolution of each channel with a kernel of its own.
pub struct DepthwiseConv {
    pub(super) isa: Isa,
    pub(super) shape: ConvShape,
    pub(super) numbers: Numbers,
    /// `[block][row][tap][lanes]`.
    weights: Buffer,
    bias: Buffer,
}

impl DepthwiseConv {
    pub(super) fn new<N: Number>(
        isa: Isa,
        shape: ConvShape,
        weight: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Self, KernelError> {
        let (lanes, channels) = (isa.lanes(), shape.channels[0]);
        if shape.groups != channels || shape.channels[1] != channels {
            return Err(KernelError::Groups { channels: shape.channels, groups: shape.groups });
        }
        let taps = shape.taps();
        let mut packed = Buffer::of::<N>(channels.next_multiple_of(lanes) * taps);
        let weights = packed.numbers_mut::<N>();
        for (channel, kernel) in weight.chunks_exact(taps).enumerate() {
            for (tap, value) in kernel.iter().enumerate() {
                weights[(channel / lanes * taps + tap) * lanes + channel % lanes] = N::of(*value);
            }
        }
        let numbers = N::NUMBERS;
        Ok(Self { isa, shape, numbers, weights: packed, bias: pad_channels(bias, 0.0, channels, lanes) })
    }

    /// Bytes of the weights as they are packed, with the zeros that fill vectors.
    pub(crate) fn weight_bytes(&self) -> usize {
        size_of_val(&*self.weights)
    }
}

/// A depthwise convolution of one layout into another; a second input is added to the output.
pub(super) struct DepthwiseRows {
    pub conv: Arc<DepthwiseConv>,
    pub activation: Activation,
}

/// Pixels whose sums run side by side, to hide the latency of multiply-adds.
const PIXELS: usize = 6;

/// Columns of the widest kernel whose inputs are kept in registers.
const MOST_COLUMNS: usize = 7;

impl RowKernel for DepthwiseRows {
    #[inline(always)]
    unsafe fn row<S: Simd, I: Number, O: Number>(&self, Row { layouts, at, inputs, output }: Row<I, O>) {
        let Place { image, block, row } = at;
        let (conv, input) = (&self.conv, &layouts.inputs[0]);
        let [kernel_rows, kernel_columns] = conv.shape.kernel;
        let rows = TapRows::new(&conv.shape, input.height, row);
        // SAFETY: the layouts have been checked against the shape, and the pointers are valid for the layouts.
        unsafe {
            let weights = conv.weights.numbers::<I>().as_ptr().add(block * kernel_rows * kernel_columns * S::LANES);
            let args = Pixels {
                shape: &conv.shape,
                rows,
                input_row: input.row(),
                weights: weights.add(rows.first * kernel_columns * S::LANES),
                bias: conv.bias.as_ptr().add(block * S::LANES),
                bounds: self.activation.bounds(),
            };
            let from = input.at(image, block, rows.input) - conv.shape.padding[1] * S::LANES;
            let from = inputs[0].add(from);
            let sum = match layouts.inputs.get(1) {
                Some(layout) => inputs[1].add(layout.at(image, block, row)),
                None => ptr::null(),
            };
            let width = layouts.output.width;
            let neighbors = (conv.shape.stride[1], conv.shape.dilation[1]) == (1, 1);
            if width < PIXELS {
                (0..width).for_each(|x| args.compute::<S, O, 1>(x, from, sum, output));
            } else {
                for x in (0..width).step_by(PIXELS) {
                    // The last pixels are as many, some of them for the second time.
                    let x = x.min(width - PIXELS);
                    match kernel_columns {
                        3 if neighbors => args.slide::<S, O, 3>(x, from, sum, output),
                        5 if neighbors => args.slide::<S, O, 5>(x, from, sum, output),
                        7 if neighbors => args.slide::<S, O, 7>(x, from, sum, output),
                        _ => args.compute::<S, O, PIXELS>(x, from, sum, output),
                    }
                }
            }
            self.activation.finish::<S, O>(output, width, layouts.output.block_channels(block));
        }
    }
}

struct Pixels<'a, I> {
    shape: &'a ConvShape,
    rows: TapRows,
    input_row: usize,
    weights: *const I,
    bias: *const f32,
    bounds: [f32; 2],
}

impl<I: Number> Pixels<'_, I> {
    /// `N` neighboring pixels from column `x` of a row.
    #[inline(always)]
    unsafe fn compute<S: Simd, O: Number, const N: usize>(
        &self,
        x: usize,
        input: *const I,
        sum: *const I,
        output: *mut O,
    ) {
        let pixel = self.shape.stride[1] * S::LANES;
        // SAFETY: the columns exist in the rows that the pointers point to.
        unsafe {
            let mut totals = [S::load(self.bias); N];
            let mut weights = self.weights;
            for ky in 0..self.rows.last - self.rows.first {
                let row = input.add(ky * self.shape.dilation[0] * self.input_row + x * pixel);
                for kx in 0..self.shape.kernel[1] {
                    let tap = row.add(kx * self.shape.dilation[1] * S::LANES);
                    let weight = I::load::<S>(weights);
                    for (p, total) in totals.iter_mut().enumerate() {
                        *total = S::mul_add(I::load::<S>(tap.add(p * pixel)), weight, *total);
                    }
                    weights = weights.add(S::LANES);
                }
            }
            self.put::<S, O, N>(totals, x, sum, output);
        }
    }

    /// The same of [`PIXELS`] pixels with a stride and a dilation of 1: what neighbors read is loaded once.
    #[inline(always)]
    unsafe fn slide<S: Simd, O: Number, const COLUMNS: usize>(
        &self,
        x: usize,
        input: *const I,
        sum: *const I,
        output: *mut O,
    ) {
        // SAFETY: as above.
        unsafe {
            let mut totals = [S::load(self.bias); PIXELS];
            for ky in 0..self.rows.last - self.rows.first {
                let row = input.add(ky * self.shape.dilation[0] * self.input_row + x * S::LANES);
                let weights = self.weights.add(ky * COLUMNS * S::LANES);
                let mut columns = [S::splat(0.0); COLUMNS];
                for (kx, weight) in columns.iter_mut().enumerate() {
                    *weight = I::load::<S>(weights.add(kx * S::LANES));
                }
                let mut values = [S::splat(0.0); PIXELS + MOST_COLUMNS - 1];
                for (i, value) in values[..PIXELS + COLUMNS - 1].iter_mut().enumerate() {
                    *value = I::load::<S>(row.add(i * S::LANES));
                }
                for (total, values) in totals.iter_mut().zip(values.windows(COLUMNS)) {
                    for (value, weight) in values.iter().zip(columns) {
                        *total = S::mul_add(*value, weight, *total);
                    }
                }
            }
            self.put::<S, O, PIXELS>(totals, x, sum, output);
        }
    }

    /// What follows the sums.
    #[inline(always)]
    unsafe fn put<S: Simd, O: Number, const N: usize>(
        &self,
        totals: [S::Vector; N],
        x: usize,
        sum: *const I,
        output: *mut O,
    ) {
        // SAFETY: as above.
        unsafe {
            for (p, mut total) in totals.into_iter().enumerate() {
                if !sum.is_null() {
                    total = S::add(total, I::load::<S>(sum.add((x + p) * S::LANES)));
                }
                O::store::<S>(output.add((x + p) * S::LANES), cut::<S>(self.bounds, total));
            }
        }
    }
}
