//! Layer normalization over the channels of each pixel.
#![allow(unsafe_code)]

use half::bf16;

use crate::error::check_length;
use crate::memory::pad_channels;
use crate::number::{Number, Numbers};
use crate::parallel::piece;
use crate::simd::{Kernel, Simd};
use crate::{Buffer, Isa, KernelError, Layout, Operation};

/// A layer normalization over the channels of each pixel, with a weight and a bias of each channel.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNorm {
    /// Multiplies each channel.
    pub weight: Vec<f32>,
    /// Added to each channel.
    pub bias: Vec<f32>,
    /// Added to the variance.
    pub epsilon: f32,
}

/// Layer normalization of one layout into another; any halos.
///
/// # Errors
/// Shapes differ, or the weights are of another number of channels.
pub fn layer_norm(
    isa: Isa,
    norm: &LayerNorm,
    input: Layout,
    output: Layout,
    threads: usize,
) -> Result<Box<dyn Operation>, KernelError> {
    if input.numbers != output.numbers {
        return Err(KernelError::Numbers { operation: "layer normalization" });
    }
    if input.shape() != output.shape() {
        let shape = |layout: Layout| [layout.channels, layout.height, layout.width];
        let (left, right) = (shape(input), shape(output));
        return Err(KernelError::Shapes { operation: "layer normalization", left, right });
    }
    let padded = |what, values: &[f32]| {
        check_length(what, input.channels, values)?;
        Ok(pad_channels(Some(values), 0.0, input.channels, isa.lanes()))
    };
    Ok(Box::new(LayerNormOperation {
        isa,
        weight: padded("a layer normalization's weight", &norm.weight)?,
        bias: padded("a layer normalization's bias", &norm.bias)?,
        present: pad_channels(Some(&vec![1.0; input.channels]), 0.0, input.channels, isa.lanes()),
        epsilon: norm.epsilon,
        input,
        output,
        bands: (threads * 4).div_ceil(output.batch.max(1)).clamp(1, output.height.max(1)),
    }))
}

struct LayerNormOperation {
    isa: Isa,
    weight: Buffer,
    bias: Buffer,
    /// 1 for each channel, 0 for the lanes after them.
    present: Buffer,
    epsilon: f32,
    input: Layout,
    output: Layout,
    /// Parts that the rows of an image are divided into.
    bands: usize,
}

impl Operation for LayerNormOperation {
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
        // SAFETY: the caller's promise.
        unsafe {
            match self.input.numbers {
                Numbers::F32 => self.run_on::<f32>(task, inputs[0].cast(), output.cast()),
                Numbers::Bf16 => self.run_on::<bf16>(task, inputs[0].cast(), output.cast()),
            }
        }
    }
}

impl LayerNormOperation {
    unsafe fn run_on<N: Number>(&self, task: usize, input: *const N, output: *mut N) {
        let (image, band) = (task / self.bands, task % self.bands);
        for row in piece(self.output.height, self.bands, band) {
            // SAFETY: the instruction set was found on this processor, and the pointers are the caller's promise.
            unsafe { N::call(self.isa, Row { operation: self, image, row, input, output }) }
        }
    }
}

/// A row of an image.
struct Row<'a, N> {
    operation: &'a LayerNormOperation,
    image: usize,
    row: usize,
    input: *const N,
    output: *mut N,
}

/// Pixels whose sums run side by side.
const PIXELS: usize = 4;

impl<N: Number> Kernel for Row<'_, N> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let LayerNormOperation { input, output, .. } = self.operation;
        // SAFETY: the row exists, and the pointers are valid for the layouts.
        unsafe {
            let from = self.input.add(input.at(self.image, 0, self.row));
            let to = self.output.add(output.at(self.image, 0, self.row));
            let mut x = 0;
            while x + PIXELS <= output.width {
                self.pixels::<S, PIXELS>(from.add(x * S::LANES), to.add(x * S::LANES));
                x += PIXELS;
            }
            while x < output.width {
                self.pixels::<S, 1>(from.add(x * S::LANES), to.add(x * S::LANES));
                x += 1;
            }
            for block in 0..output.blocks() {
                output.clear_halo(to.add(block * output.block()));
            }
        }
    }
}

impl<N: Number> Row<'_, N> {
    /// `P` neighboring pixels.
    #[inline(always)]
    unsafe fn pixels<S: Simd, const P: usize>(&self, from: *const N, to: *mut N) {
        let LayerNormOperation { weight, bias, present, epsilon, input, output, .. } = self.operation;
        let (blocks, count) = (input.blocks(), input.channels as f32);
        // SAFETY: the pixels exist in every block.
        unsafe {
            let mut totals = [S::splat(0.0); P];
            for block in 0..blocks {
                let from = from.add(block * input.block());
                for (p, total) in totals.iter_mut().enumerate() {
                    *total = S::add(*total, N::load::<S>(from.add(p * S::LANES)));
                }
            }
            let means = totals.map(|total| S::sum(total) / count);
            let mut squares = [S::splat(0.0); P];
            for block in 0..blocks {
                let from = from.add(block * input.block());
                let present = S::load(present.as_ptr().add(block * S::LANES));
                for (p, square) in squares.iter_mut().enumerate() {
                    let distance = S::sub(N::load::<S>(from.add(p * S::LANES)), S::splat(means[p]));
                    let distance = S::mul(distance, present);
                    *square = S::mul_add(distance, distance, *square);
                }
            }
            let mut scales = [0.0; P];
            for (p, scale) in scales.iter_mut().enumerate() {
                *scale = 1.0 / (S::sum(squares[p]) / count + epsilon).sqrt();
            }
            for block in 0..blocks {
                let (weight, bias) = (weight.as_ptr().add(block * S::LANES), bias.as_ptr().add(block * S::LANES));
                let (weight, bias) = (S::load(weight), S::load(bias));
                let (from, to) = (from.add(block * input.block()), to.add(block * output.block()));
                for p in 0..P {
                    let distance = S::sub(N::load::<S>(from.add(p * S::LANES)), S::splat(means[p]));
                    let value = S::mul_add(S::mul(distance, S::splat(scales[p])), weight, bias);
                    N::store::<S>(to.add(p * S::LANES), value);
                }
            }
        }
    }
}
