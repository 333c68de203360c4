#![allow(unsafe_code)]

use std::ptr;
use std::sync::Arc;

use super::{ConvShape, Job, Rows, pad_bias};
use crate::parallel::piece;
use crate::simd::{Kernel, Simd};
use crate::{Buffer, Isa, KernelError, Layout, Operation};

/// A convolution of each channel with a kernel of its own.
pub struct Depthwise {
    isa: Isa,
    pub(super) shape: ConvShape,
    /// `[block][row][tap][lanes]`.
    weights: Buffer,
    bias: Buffer,
}

impl Depthwise {
    pub(super) fn new(isa: Isa, shape: ConvShape, weight: &[f32], bias: Option<&[f32]>) -> Result<Self, KernelError> {
        let (lanes, channels) = (isa.lanes(), shape.channels[0]);
        if shape.groups != channels || shape.channels[1] != channels {
            return Err(KernelError::Groups { channels: shape.channels, groups: shape.groups });
        }
        let taps = shape.kernel[0] * shape.kernel[1];
        let mut weights = Buffer::zeros(channels.next_multiple_of(lanes) * taps);
        for (channel, kernel) in weight.chunks_exact(taps).enumerate() {
            for (tap, value) in kernel.iter().enumerate() {
                weights[(channel / lanes * taps + tap) * lanes + channel % lanes] = *value;
            }
        }
        Ok(Self { isa, shape, weights, bias: pad_bias(bias, channels, lanes) })
    }
}

pub(super) struct DepthwiseOperation {
    conv: Arc<Depthwise>,
    job: Job,
    bands: usize,
}

impl DepthwiseOperation {
    pub fn new(conv: Arc<Depthwise>, job: Job, threads: usize) -> Self {
        let parts = (job.output.batch * job.output.blocks()).max(1);
        let bands = (threads * 4).div_ceil(parts).clamp(1, job.output.height);
        Self { conv, job, bands }
    }
}

impl Operation for DepthwiseOperation {
    fn tasks(&self) -> usize {
        self.job.output.batch * self.job.output.blocks() * self.bands
    }

    fn inputs(&self) -> Vec<Layout> {
        self.job.inputs()
    }

    fn output(&self) -> Layout {
        self.job.output
    }

    unsafe fn run(&self, task: usize, inputs: &[*const f32], output: *mut f32) {
        let sum = inputs.get(1).copied().unwrap_or(ptr::null());
        // SAFETY: the instruction set was found on this processor, and the pointers are the caller's promise.
        unsafe { self.conv.isa.call(Task { operation: self, task, input: inputs[0], sum, output }) }
    }
}

struct Task<'a> {
    operation: &'a DepthwiseOperation,
    task: usize,
    input: *const f32,
    sum: *const f32,
    output: *mut f32,
}

/// Pixels whose sums run side by side, to hide the latency of multiply-adds.
const PIXELS: usize = 6;

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let DepthwiseOperation { conv, job, bands } = self.operation;
        let (shape, output) = (&conv.shape, &job.output);
        let (band, rest) = (self.task % bands, self.task / bands);
        let (image, block) = (rest / output.blocks(), rest % output.blocks());
        let [kernel_rows, kernel_columns] = shape.kernel;
        // SAFETY: the layouts have been checked against the shape, and the pointers are valid for the layouts.
        unsafe {
            let weights = conv.weights.as_ptr().add(block * kernel_rows * kernel_columns * S::LANES);
            for row in piece(output.height, *bands, band) {
                let rows = Rows::new(shape, job.input.height, row);
                let args = Pixels {
                    shape,
                    rows,
                    input_row: job.input.row(),
                    weights: weights.add(rows.first * kernel_columns * S::LANES),
                    bias: conv.bias.as_ptr().add(block * S::LANES),
                    relu: job.epilogue.relu,
                };
                let from = job.input.at(image, block, rows.input) - shape.padding[1] * S::LANES;
                let (from, to) = (self.input.add(from), self.output.add(output.at(image, block, row)));
                let sum = match job.epilogue.sum {
                    Some(layout) => self.sum.add(layout.at(image, block, row)),
                    None => ptr::null(),
                };
                let mut x = 0;
                while x + PIXELS <= output.width {
                    args.compute::<S, PIXELS>(x, from, sum, to);
                    x += PIXELS;
                }
                while x < output.width {
                    args.compute::<S, 1>(x, from, sum, to);
                    x += 1;
                }
                output.clear_halo(to);
            }
        }
    }
}

struct Pixels<'a> {
    shape: &'a ConvShape,
    rows: Rows,
    input_row: usize,
    weights: *const f32,
    bias: *const f32,
    relu: bool,
}

impl Pixels<'_> {
    /// `N` neighbouring pixels from column `x` of a row.
    #[inline(always)]
    unsafe fn compute<S: Simd, const N: usize>(&self, x: usize, input: *const f32, sum: *const f32, output: *mut f32) {
        let pixel = self.shape.stride[1] * S::LANES;
        // SAFETY: the columns exist in the rows that the pointers begin.
        unsafe {
            let mut totals = [S::load(self.bias); N];
            let mut weights = self.weights;
            for ky in 0..self.rows.last - self.rows.first {
                let row = input.add(ky * self.shape.dilation[0] * self.input_row + x * pixel);
                for kx in 0..self.shape.kernel[1] {
                    let tap = row.add(kx * self.shape.dilation[1] * S::LANES);
                    let weight = S::load(weights);
                    for (p, total) in totals.iter_mut().enumerate() {
                        *total = S::mul_add(S::load(tap.add(p * pixel)), weight, *total);
                    }
                    weights = weights.add(S::LANES);
                }
            }
            for (p, mut total) in totals.into_iter().enumerate() {
                if !sum.is_null() {
                    total = S::add(total, S::load(sum.add((x + p) * S::LANES)));
                }
                if self.relu {
                    total = S::max(S::splat(0.0), total);
                }
                S::store(output.add((x + p) * S::LANES), total);
            }
        }
    }
}
