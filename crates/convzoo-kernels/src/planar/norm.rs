#![allow(unsafe_code)]

use super::activation::for_each_function;
use crate::elementwise::{Activation, Apply as _};
use crate::memory::{Shared, filled, part_mut};
use crate::number::Number;
use crate::parallel;
use crate::simd::{Isa, Kernel, Simd};

/// Batch normalization of a tensor `[batch, channels, plane]`, and the activation after it
/// ([Ioffe and Szegedy, 2015](https://arxiv.org/abs/1502.03167)).
///
/// A channel's planes are read once from memory: what follows their statistics finds them in the cache.
#[derive(Clone, Copy, Debug)]
pub struct BatchNormPass {
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
    /// What follows.
    pub activation: Activation,
}

/// Parameters and statistics of each channel.
#[derive(Clone, Copy, Debug)]
pub struct BatchNormParams<'a> {
    /// γ.
    pub scale: &'a [f32],
    /// β.
    pub shift: &'a [f32],
    /// Mean.
    pub mean: &'a [f32],
    /// Biased variance.
    pub variance: &'a [f32],
}

/// Gradients of a batch normalization's parameters.
#[derive(Clone, Debug)]
pub struct BatchNormGradients {
    /// Of γ.
    pub scale: Vec<f32>,
    /// Of β.
    pub shift: Vec<f32>,
}

/// (x − mean) · slope + shift. With the mean in the shift there would be one operation less and, where the mean is many
/// deviations from zero, digits lost.
#[derive(Clone, Copy)]
struct Line {
    mean: f32,
    slope: f32,
    shift: f32,
}

impl Line {
    #[inline(always)]
    fn at(self, x: f32) -> f32 {
        (x - self.mean) * self.slope + self.shift
    }
}

/// Partial sums that are independent of each other, so that additions need not wait.
const SUMS: usize = 64;

/// The same at the end of a plane, where fewer values are left.
const LAST_SUMS: usize = 16;

impl BatchNormPass {
    /// Normalizes by the batch's statistics; returns the output, and each channel's mean and biased variance.
    ///
    /// # Panics
    /// A slice's length is not that of its shape; so below.
    pub fn forward<N: Number>(&self, input: &[N], scale: &[f32], shift: &[f32]) -> (Vec<N>, Vec<f32>, Vec<f32>) {
        for_each_function!(self.activation, |FUNCTION| self.forward_with(input, scale, shift, |y| FUNCTION.of(y)))
    }

    fn forward_with<N: Number>(
        &self,
        input: &[N],
        scale: &[f32],
        shift: &[f32],
        function: impl Fn(f32) -> f32 + Copy + Sync,
    ) -> (Vec<N>, Vec<f32>, Vec<f32>) {
        self.check(input.len(), &[scale, shift]);
        let (mut mean, mut variance) = (vec![0.0; self.channels], vec![0.0; self.channels]);
        let (to_mean, to_variance) = (Shared(mean.as_mut_ptr()), Shared(variance.as_mut_ptr()));
        // SAFETY: every channel is written by the task that has it.
        let output = unsafe {
            filled(input.len(), |output| {
                let output = Shared(output);
                parallel::for_each(self.channels, |channel| {
                    let (mean, variance) = self.statistics(input, channel);
                    to_mean.get().add(channel).write(mean);
                    to_variance.get().add(channel).write(variance);
                    let line = self.line(scale[channel], shift[channel], mean, variance);
                    self.normalize(input, channel, line, function, &output);
                });
            })
        };
        (output, mean, variance)
    }

    /// Normalizes by given statistics.
    pub fn apply<N: Number>(&self, input: &[N], params: BatchNormParams) -> Vec<N> {
        for_each_function!(self.activation, |FUNCTION| self.apply_with(input, params, |y| FUNCTION.of(y)))
    }

    fn apply_with<N: Number>(
        &self,
        input: &[N],
        params: BatchNormParams,
        function: impl Fn(f32) -> f32 + Copy + Sync,
    ) -> Vec<N> {
        let BatchNormParams { scale, shift, mean, variance } = params;
        self.check(input.len(), &[scale, shift, mean, variance]);
        // SAFETY: every channel is written by the task that has it.
        unsafe {
            filled(input.len(), |output| {
                let output = Shared(output);
                parallel::for_each(self.channels, |channel| {
                    let line = self.line(scale[channel], shift[channel], mean[channel], variance[channel]);
                    self.normalize(input, channel, line, function, &output);
                });
            })
        }
    }

    /// Makes the gradient of the input from that of the output, in its place, and returns those of the parameters; the
    /// statistics are those that [`forward`](Self::forward) returned.
    pub fn backward<N: Number>(&self, input: &[N], params: BatchNormParams, gradient: &mut [N]) -> BatchNormGradients {
        for_each_function!(self.activation, |FUNCTION| {
            let before = |y, gradient| {
                let kept = if FUNCTION.keeps_output() { FUNCTION.of(y) } else { y };
                FUNCTION.backward(kept, gradient)
            };
            match FUNCTION {
                // What takes no longer than to write it and to read it again.
                Activation::Identity | Activation::Relu | Activation::Relu6 => {
                    self.backward_with::<N, false>(input, params, gradient, before)
                }
                _ => self.backward_with::<N, true>(input, params, gradient, before),
            }
        })
    }

    /// `before(y, gradient)` is the gradient before the activation, of the normalized y. With `KEEP` it is computed once,
    /// and kept in the gradient's place.
    fn backward_with<N: Number, const KEEP: bool>(
        &self,
        input: &[N],
        params: BatchNormParams,
        gradient: &mut [N],
        before: impl Fn(f32, f32) -> f32 + Copy + Sync,
    ) -> BatchNormGradients {
        let BatchNormParams { scale, shift, mean, variance } = params;
        self.check(input.len(), &[scale, shift, mean, variance]);
        assert_eq!(gradient.len(), input.len(), "gradient of {self:?}");
        let (mut of_scale, mut of_shift) = (vec![0.0; self.channels], vec![0.0; self.channels]);
        let (to_scale, to_shift) = (Shared(of_scale.as_mut_ptr()), Shared(of_shift.as_mut_ptr()));
        let gradient = Shared(gradient.as_mut_ptr());
        parallel::for_each(self.channels, |channel| {
            // SAFETY: every channel is read and written by the task that has it; the instruction set comes from detection.
            unsafe {
                let variance = variance[channel];
                let line = self.line(scale[channel], shift[channel], mean[channel], variance);
                let (mut sum, mut product) = (0.0, 0.0);
                for n in 0..self.batch {
                    let at = self.at(n, channel);
                    let (x, g) = (&input[at..][..self.plane], part_mut(&gradient, at, self.plane));
                    let sums = N::call(self.isa, GradientSums::<_, _, KEEP> { x, g, line, before });
                    (sum, product) = (sum + sums[0], product + sums[1]);
                }
                let inverse = 1.0 / (f64::from(variance) + self.epsilon).sqrt();
                let count = (self.batch * self.plane) as f64;
                to_shift.get().add(channel).write(sum as f32);
                to_scale.get().add(channel).write((product * inverse) as f32);
                let slope = Slope {
                    line,
                    gradient_mean: (sum / count) as f32,
                    projection: (product / count * inverse * inverse) as f32,
                };
                for n in 0..self.batch {
                    let at = self.at(n, channel);
                    let (x, g) = (&input[at..][..self.plane], part_mut(&gradient, at, self.plane));
                    N::call(self.isa, InputGradient::<_, _, KEEP> { x, g, slope, before });
                }
            }
        });
        BatchNormGradients { scale: of_scale, shift: of_shift }
    }

    fn at(&self, image: usize, channel: usize) -> usize {
        (image * self.channels + channel) * self.plane
    }

    /// The normalization of a channel.
    fn line(&self, scale: f32, shift: f32, mean: f32, variance: f32) -> Line {
        let slope = f64::from(scale) / (f64::from(variance) + self.epsilon).sqrt();
        Line { mean, slope: slope as f32, shift }
    }

    /// Mean and biased variance of a channel, from those of its planes.
    fn statistics<N: Number>(&self, input: &[N], channel: usize) -> (f32, f32) {
        let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
        for n in 0..self.batch {
            let plane = &input[self.at(n, channel)..][..self.plane];
            // SAFETY: the instruction set comes from detection.
            let [own_mean, own_squares] = unsafe { self.isa.call(Moments(plane)) };
            let (own, before) = (self.plane as f64, count);
            count += own;
            let distance = own_mean - mean;
            mean += distance * own / count;
            squares += own_squares + distance * distance * before * own / count;
        }
        (mean as f32, (squares / count) as f32)
    }

    /// # Safety
    /// The output has the input's length, and nothing else writes the channel meanwhile.
    unsafe fn normalize<N: Number>(
        &self,
        input: &[N],
        channel: usize,
        line: Line,
        function: impl Fn(f32) -> f32 + Copy,
        output: &Shared<*mut N>,
    ) {
        for n in 0..self.batch {
            let at = self.at(n, channel);
            // SAFETY: the caller's promise.
            unsafe {
                let to = part_mut(output, at, self.plane);
                N::call(self.isa, Normalize { x: &input[at..][..self.plane], to, line, function });
            }
        }
    }

    fn check(&self, input: usize, params: &[&[f32]]) {
        assert_eq!(input, self.batch * self.channels * self.plane, "input of {self:?}");
        assert!(params.iter().all(|param| param.len() == self.channels), "parameters of {self:?}");
    }
}

/// Mean and summed squared distance from it.
struct Moments<'a, N>(&'a [N]);

impl<N: Number> Kernel for Moments<'_, N> {
    type Output = [f64; 2];

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> [f64; 2] {
        let mean = reduce(self.0, |x| x) / self.0.len() as f64;
        let center = mean as f32;
        let squares = reduce(self.0, |x| (x - center) * (x - center));
        // The mean is rounded in the second pass; the exact one is as far from it as said here.
        let rounding = mean - f64::from(center);
        [mean, squares - rounding * rounding * self.0.len() as f64]
    }
}

#[inline(always)]
fn reduce<N: Number>(values: &[N], f: impl Fn(f32) -> f32) -> f64 {
    let (mut sums, mut last_sums) = ([0.0f32; SUMS], [0.0f32; LAST_SUMS]);
    let chunks = values.chunks_exact(SUMS);
    let last = chunks.remainder().chunks_exact(LAST_SUMS);
    let rest: f64 = last.remainder().iter().map(|&x| f64::from(f(x.value()))).sum();
    for chunk in last {
        last_sums.iter_mut().zip(chunk).for_each(|(sum, &x)| *sum += f(x.value()));
    }
    for chunk in chunks {
        sums.iter_mut().zip(chunk).for_each(|(sum, &x)| *sum += f(x.value()));
    }
    rest + total(sums) + total(last_sums)
}

/// The sum of partial sums.
#[inline(always)]
fn total<const N: usize>(sums: [f32; N]) -> f64 {
    sums.into_iter().map(f64::from).sum()
}

struct Normalize<'a, N, F> {
    x: &'a [N],
    to: &'a mut [N],
    line: Line,
    function: F,
}

impl<N: Number, F: Fn(f32) -> f32> Kernel for Normalize<'_, N, F> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { x, to, line, function } = self;
        to.iter_mut().zip(x).for_each(|(to, &x)| *to = N::of(function(line.at(x.value()))));
    }
}

/// Sums of the gradient before the activation, and of it times the centered input.
struct GradientSums<'a, N, F, const KEEP: bool> {
    x: &'a [N],
    g: &'a mut [N],
    line: Line,
    before: F,
}

impl<N: Number, F: Fn(f32, f32) -> f32, const KEEP: bool> Kernel for GradientSums<'_, N, F, KEEP> {
    type Output = [f64; 2];

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> [f64; 2] {
        let Self { x, g, line, before } = self;
        let ([mut sums, mut products], [mut last_sums, mut last_products]) =
            ([[0.0f32; SUMS]; 2], [[0.0; LAST_SUMS]; 2]);
        let term = |x: N, g: &mut N| {
            let x = x.value();
            let own = before(line.at(x), g.value());
            if KEEP {
                *g = N::of(own);
            }
            [own, own * (x - line.mean)]
        };
        let whole = x.len() - x.len() % SUMS;
        let ((xs, last_xs), (gs, last_gs)) = (x.split_at(whole), g.split_at_mut(whole));
        for (xs, gs) in xs.chunks_exact(SUMS).zip(gs.chunks_exact_mut(SUMS)) {
            for i in 0..SUMS {
                let [own, product] = term(xs[i], &mut gs[i]);
                sums[i] += own;
                products[i] += product;
            }
        }
        let (xs, mut gs) = (last_xs.chunks_exact(LAST_SUMS), last_gs.chunks_exact_mut(LAST_SUMS));
        let mut totals = [0.0; 2];
        let rest = xs.remainder();
        for (xs, gs) in xs.zip(&mut gs) {
            for i in 0..LAST_SUMS {
                let [own, product] = term(xs[i], &mut gs[i]);
                last_sums[i] += own;
                last_products[i] += product;
            }
        }
        for (&x, g) in rest.iter().zip(gs.into_remainder()) {
            let terms = term(x, g);
            totals.iter_mut().zip(terms).for_each(|(total, term)| *total += f64::from(term));
        }
        [totals[0] + total(sums) + total(last_sums), totals[1] + total(products) + total(last_products)]
    }
}

/// A channel's gradient through its normalization.
#[derive(Clone, Copy)]
struct Slope {
    line: Line,
    gradient_mean: f32,
    projection: f32,
}

struct InputGradient<'a, N, F, const KEPT: bool> {
    x: &'a [N],
    /// The gradient of the output, or that before the activation where it was kept; it becomes the input's.
    g: &'a mut [N],
    slope: Slope,
    before: F,
}

impl<N: Number, F: Fn(f32, f32) -> f32, const KEPT: bool> Kernel for InputGradient<'_, N, F, KEPT> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { x, g, slope: Slope { line, gradient_mean, projection }, before } = self;
        for (g, &x) in g.iter_mut().zip(x) {
            let x = x.value();
            let own = if KEPT { g.value() } else { before(line.at(x), g.value()) };
            *g = N::of(line.slope * (own - gradient_mean - (x - line.mean) * projection));
        }
    }
}
