#![allow(unsafe_code)]

use std::ops::Range;

use crate::memory::{Shared, filled, part_mut, with_scratch};
use crate::number::convert;
use crate::parallel::{self, piece};
use crate::simd::{Isa, Kernel, Simd};

/// Layer normalization of each pixel of a tensor `[batch, channels, plane]` over its channels
/// ([Ba et al., 2016](https://arxiv.org/abs/1607.06450)).
///
/// Vectors lie along the pixels. Some pixels of all channels at a time are brought to scratch memory, where they are read
/// for their mean, for their variance and once more for the result.
#[derive(Clone, Copy, Debug)]
pub struct LayerNormPass {
    /// The instruction set.
    pub isa: Isa,
    /// Images.
    pub batch: usize,
    /// Channels.
    pub channels: usize,
    /// Pixels of a channel.
    pub plane: usize,
    /// Added to the variance.
    pub epsilon: f64,
}

/// The gradients of a layer normalization.
#[derive(Clone, Debug)]
pub struct LayerNormGradients {
    /// Of the input.
    pub input: Vec<f32>,
    /// Of γ.
    pub scale: Vec<f32>,
    /// Of β.
    pub shift: Vec<f32>,
}

/// Vectors of pixels that are worked on at once.
const VECTORS: usize = 4;

impl LayerNormPass {
    /// The output for an input, γ and β, `[channels]`.
    ///
    /// # Panics
    /// A slice's length is not that of its shape; so below.
    pub fn forward(&self, input: &[f32], scale: &[f32], shift: &[f32]) -> Vec<f32> {
        self.check(&[input], &[scale, shift]);
        let pieces = self.pieces();
        // SAFETY: every pixel is written by the task that has it; the instruction set comes from detection.
        unsafe {
            filled(input.len(), |to| {
                let to = Shared(to);
                parallel::for_each(self.batch * pieces, |task| {
                    let (start, pixels) = self.piece(pieces, task);
                    self.isa.call(Forward { pass: self, input, scale, shift, start, pixels, to: to.get() });
                });
            })
        }
    }

    /// The gradients from that of the output.
    pub fn backward(&self, input: &[f32], scale: &[f32], gradient: &[f32]) -> LayerNormGradients {
        self.check(&[input, gradient], &[scale]);
        let (channels, pieces) = (self.channels, self.pieces());
        let tasks = (self.batch * pieces).min(4 * parallel::threads());
        // γ's and β's of each task.
        let mut sums = vec![0.0; tasks * 2 * channels];
        let to_sums = Shared(sums.as_mut_ptr());
        // SAFETY: every pixel is written by the task that has it, and every task has sums of its own; the instruction set
        // comes from detection.
        let of_input = unsafe {
            filled(input.len(), |to| {
                let to = Shared(to);
                parallel::for_each(tasks, |task| {
                    let sums = part_mut(&to_sums, task * 2 * channels, 2 * channels);
                    let tasks = piece(self.batch * pieces, tasks, task);
                    self.isa.call(Backward { pass: self, input, scale, gradient, pieces, tasks, to: to.get(), sums });
                });
            })
        };
        let total = |first: usize| -> Vec<f32> {
            let of = |channel| sums.iter().skip(first + channel).step_by(2 * channels).map(|&sum| f64::from(sum));
            (0..channels).map(|channel| of(channel).sum::<f64>() as f32).collect()
        };
        LayerNormGradients { scale: total(0), shift: total(channels), input: of_input }
    }

    /// Into how many pieces the pixels of an image are divided.
    fn pieces(&self) -> usize {
        self.plane.div_ceil(VECTORS * self.isa.lanes())
    }

    /// Where the pixels of a piece start in the first channel, and how many there are.
    fn piece(&self, pieces: usize, task: usize) -> (usize, usize) {
        let pixels: Range<usize> = piece(self.plane, pieces, task % pieces);
        (task / pieces * self.channels * self.plane + pixels.start, pixels.len())
    }

    fn check(&self, tensors: &[&[f32]], params: &[&[f32]]) {
        let len = self.batch * self.channels * self.plane;
        assert!(tensors.iter().all(|values| values.len() == len), "values of {self:?}");
        assert!(params.iter().all(|param| param.len() == self.channels), "parameters of {self:?}");
    }
}

/// Some pixels of all channels in scratch memory, `[channels][VECTORS][lanes]`, zero after the last pixel.
struct Pixels {
    channels: usize,
    values: *mut f32,
}

impl Pixels {
    /// Copies `pixels` pixels of each plane, the first plane's from `start` on.
    ///
    /// # Safety
    /// The processor has `S`'s instructions; `from` is a tensor of the pass, and `values` has room for all channels.
    #[inline(always)]
    unsafe fn new<S: Simd>(pass: &LayerNormPass, from: &[f32], start: usize, pixels: usize, values: *mut f32) -> Self {
        let width = VECTORS * S::LANES;
        for channel in 0..pass.channels {
            // SAFETY: the caller's promise.
            unsafe {
                let to = values.add(channel * width);
                to.add(pixels).write_bytes(0, width - pixels);
                convert::<S, f32, f32>(to, from.as_ptr().add(start + channel * pass.plane), pixels);
            }
        }
        Self { channels: pass.channels, values }
    }

    /// Copies them back to their places.
    ///
    /// # Safety
    /// `to` is a tensor of the pass, whose pixels nothing else writes meanwhile.
    #[inline(always)]
    unsafe fn put<S: Simd>(&self, pass: &LayerNormPass, to: *mut f32, start: usize, pixels: usize) {
        for channel in 0..self.channels {
            // SAFETY: the caller's promise.
            unsafe { convert::<S, f32, f32>(to.add(start + channel * pass.plane), self.at::<S>(channel, 0), pixels) }
        }
    }

    /// The place of a vector of a channel.
    #[inline(always)]
    unsafe fn at<S: Simd>(&self, channel: usize, vector: usize) -> *mut f32 {
        // SAFETY: the caller asks for what is there.
        unsafe { self.values.add((channel * VECTORS + vector) * S::LANES) }
    }

    /// The mean of each pixel and 1 / √(variance + ε).
    #[inline(always)]
    unsafe fn statistics<S: Simd>(&self, epsilon: f64) -> [[S::Vector; VECTORS]; 2] {
        // SAFETY: channels and vectors are there.
        unsafe {
            let share = S::splat(1.0 / self.channels as f32);
            let (mut means, mut scales) = ([S::splat(0.0); VECTORS], [S::splat(0.0); VECTORS]);
            for channel in 0..self.channels {
                for (v, mean) in means.iter_mut().enumerate() {
                    *mean = S::add(*mean, S::load(self.at::<S>(channel, v)));
                }
            }
            means.iter_mut().for_each(|mean| *mean = S::mul(*mean, share));
            for channel in 0..self.channels {
                for (v, square) in scales.iter_mut().enumerate() {
                    let distance = S::sub(S::load(self.at::<S>(channel, v)), means[v]);
                    *square = S::mul_add(distance, distance, *square);
                }
            }
            let (one, epsilon) = (S::splat(1.0), S::splat(epsilon as f32));
            scales.iter_mut().for_each(|scale| *scale = S::div(one, S::sqrt(S::mul_add(*scale, share, epsilon))));
            [means, scales]
        }
    }
}

/// One piece.
struct Forward<'a> {
    pass: &'a LayerNormPass,
    input: &'a [f32],
    scale: &'a [f32],
    shift: &'a [f32],
    start: usize,
    pixels: usize,
    to: *mut f32,
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { pass, input, scale, shift, start, pixels, to } = self;
        // SAFETY: the pixels exist, and the scratch memory has room for all channels.
        with_scratch(pass.channels * VECTORS * S::LANES, |scratch| unsafe {
            let x = Pixels::new::<S>(pass, input, start, pixels, scratch.as_mut_ptr());
            let [means, scales] = x.statistics::<S>(pass.epsilon);
            for channel in 0..pass.channels {
                let (a, b) = (S::splat(scale[channel]), S::splat(shift[channel]));
                for v in 0..VECTORS {
                    let at = x.at::<S>(channel, v);
                    let normal = S::mul(S::sub(S::load(at), means[v]), scales[v]);
                    S::store(at, S::mul_add(normal, a, b));
                }
            }
            x.put::<S>(pass, to, start, pixels);
        });
    }
}

/// Some pieces.
struct Backward<'a> {
    pass: &'a LayerNormPass,
    input: &'a [f32],
    scale: &'a [f32],
    gradient: &'a [f32],
    pieces: usize,
    tasks: Range<usize>,
    to: *mut f32,
    /// γ's gradients, then β's.
    sums: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { pass, input, scale, gradient, pieces, tasks, to, sums } = self;
        let (channels, len) = (pass.channels, pass.channels * VECTORS * S::LANES);
        let share = 1.0 / channels as f32;
        // SAFETY: the pixels exist, and the scratch memory has room for all channels of both tensors, and of the sums a
        // vector for each.
        with_scratch(2 * len + 2 * channels * S::LANES, |scratch| unsafe {
            let (lanes, values) = scratch.split_at_mut(2 * channels * S::LANES);
            lanes.fill(0.0);
            let (of_scale, of_shift) = (lanes.as_mut_ptr(), lanes.as_mut_ptr().add(channels * S::LANES));
            let (x, g) = (values.as_mut_ptr(), values.as_mut_ptr().add(len));
            for task in tasks {
                let (start, pixels) = pass.piece(pieces, task);
                let x = Pixels::new::<S>(pass, input, start, pixels, x);
                let g = Pixels::new::<S>(pass, gradient, start, pixels, g);
                let [means, scales] = x.statistics::<S>(pass.epsilon);
                let (mut mean_g, mut mean_product) = ([S::splat(0.0); VECTORS], [S::splat(0.0); VECTORS]);
                for (channel, &scale) in scale.iter().enumerate() {
                    let a = S::splat(scale);
                    let (at_scale, at_shift) = (of_scale.add(channel * S::LANES), of_shift.add(channel * S::LANES));
                    let (mut sum_scale, mut sum_shift) = (S::load(at_scale), S::load(at_shift));
                    for v in 0..VECTORS {
                        let (at, own) = (x.at::<S>(channel, v), S::load(g.at::<S>(channel, v)));
                        let normal = S::mul(S::sub(S::load(at), means[v]), scales[v]);
                        S::store(at, normal);
                        sum_scale = S::mul_add(own, normal, sum_scale);
                        sum_shift = S::add(own, sum_shift);
                        let inner = S::mul(own, a);
                        mean_g[v] = S::add(mean_g[v], inner);
                        mean_product[v] = S::mul_add(inner, normal, mean_product[v]);
                    }
                    S::store(at_scale, sum_scale);
                    S::store(at_shift, sum_shift);
                }
                let share = S::splat(share);
                for v in 0..VECTORS {
                    mean_g[v] = S::mul(mean_g[v], share);
                    mean_product[v] = S::mul(mean_product[v], share);
                }
                for (channel, &scale) in scale.iter().enumerate() {
                    let a = S::splat(scale);
                    for v in 0..VECTORS {
                        let (at, normal) = (g.at::<S>(channel, v), S::load(x.at::<S>(channel, v)));
                        let own = S::sub(S::mul(S::load(at), a), mean_g[v]);
                        let own = S::sub(own, S::mul(normal, mean_product[v]));
                        S::store(at, S::mul(own, scales[v]));
                    }
                }
                g.put::<S>(pass, to, start, pixels);
            }
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = S::sum(S::load(lanes.as_ptr().add(i * S::LANES)));
            }
        });
    }
}
