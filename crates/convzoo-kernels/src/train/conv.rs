#![allow(unsafe_code)]

use std::ops::Range;

use super::filtered::FilteredWeights;
use super::gather::Gather;
use super::product::{Matrix, Product, Target};
use super::weights::correlate;
use super::winograd::{Winograd, choose};
use super::{filled, sums};
use crate::conv::{ConvShape, Tile};
use crate::operation::Shared;
use crate::simd::{Isa, Simd};

/// What follows a convolution in the same pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// Multiplies each channel.
    pub scale: Option<&'a [f32]>,
    /// Added to each channel, after the scale.
    pub shift: Option<&'a [f32]>,
    /// Whether a ReLU comes last.
    pub relu: bool,
}

impl<'a> Epilogue<'a> {
    /// That of some channels.
    pub(super) fn of(&self, channels: Range<usize>) -> Self {
        let part = |values: Option<&'a [f32]>| values.map(|values| &values[channels.clone()]);
        Self { scale: part(self.scale), shift: part(self.shift), relu: self.relu }
    }

    /// What follows in a channel.
    ///
    /// # Safety
    /// The processor has `S`'s instructions.
    #[inline(always)]
    pub(super) unsafe fn apply<S: Simd>(&self, channel: usize, mut total: S::Vector) -> S::Vector {
        // SAFETY: the caller's promise.
        unsafe {
            let of = |values: Option<&[f32]>, none| S::splat(values.map_or(none, |values| values[channel]));
            if self.scale.is_some() || self.shift.is_some() {
                total = S::mul_add(total, of(self.scale, 1.0), of(self.shift, 0.0));
            }
            if self.relu { S::max(S::splat(0.0), total) } else { total }
        }
    }
}

/// A convolution of a batch of images of one size.
#[derive(Clone, Copy, Debug)]
pub struct ConvPass {
    isa: Isa,
    shape: ConvShape,
    batch: usize,
    input: [usize; 2],
    output: [usize; 2],
    /// The tiles of Winograd's filtering, forward and of both gradients.
    tiles: [Option<Tile>; 2],
}

impl ConvPass {
    /// Of `batch` images of `input`, `[height, width]`.
    ///
    /// # Errors
    /// The window does not fit.
    pub fn new(isa: Isa, shape: ConvShape, batch: usize, input: [usize; 2]) -> Result<Self, crate::KernelError> {
        let output = shape.output(input)?;
        // Forward, rounding decides on which side of zero the input of a ReLU lies: the tile of four rounds more.
        let forward = choose(&[Tile::Two], shape.channels, batch, output);
        let backward = choose(&[Tile::Two, Tile::Four], shape.channels, batch, input);
        Ok(Self { isa, shape, batch, input, output, tiles: [forward, backward] }.filterable())
    }

    /// The same with another tile of Winograd's filtering, or without; a shape other than 3×3, stride 1, dilation 1, one group
    /// and padding up to 2 is never filtered.
    pub fn filtered_by(self, tile: Option<Tile>) -> Self {
        Self { tiles: [tile; 2], ..self }.filterable()
    }

    /// Without filtering, unless the shape allows it.
    fn filterable(self) -> Self {
        let ConvShape { kernel, stride, padding, dilation, groups, .. } = self.shape;
        let can = (kernel, stride, dilation, groups) == ([3; 2], [1; 2], [1; 2], 1) && padding.iter().all(|&p| p < 3);
        Self { tiles: self.tiles.map(|tile| tile.filter(|_| can)), ..self }
    }

    /// `[batch, outputs, height, width]`.
    pub fn output_shape(&self) -> [usize; 4] {
        [self.batch, self.shape.channels[1], self.output[0], self.output[1]]
    }

    /// The output for an input `[batch, inputs, height, width]` and a weight `[outputs, inputs / groups, height, width]`;
    /// a bias is the epilogue's shift.
    ///
    /// # Panics
    /// A slice's length is not that of its shape; so below.
    pub fn forward(&self, input: &[f32], weight: &[f32], epilogue: Epilogue) -> Vec<f32> {
        self.check(Some(input), Some(weight), None);
        for values in [epilogue.scale, epilogue.shift].into_iter().flatten() {
            assert_eq!(values.len(), self.shape.channels[1], "a value for every output");
        }
        let Self { isa, batch, .. } = *self;
        let ([_, outputs], [_, group_outputs]) = (self.shape.channels, self.group_channels());
        let planes = self.output[0] * self.output[1];
        let (taps, weights) = self.weights();
        let matrix = |group: usize| Matrix {
            weight: &weight[group * group_outputs * weights..][..group_outputs * weights],
            rows: group_outputs,
            channels: weights / taps.len(),
            row: weights,
            channel: taps.len(),
            taps: &taps,
        };
        if let Some(tile) = self.tiles[0] {
            let (padding, size, grid, matrix) = (self.shape.padding, self.input, self.output, matrix(0));
            let winograd = Winograd { isa, tile, batch, source: input, size, grid, padding, matrix, epilogue };
            // SAFETY: every pixel lies in a tile.
            return unsafe { filled(batch * outputs * planes, |output| winograd.run(output)) };
        }
        let gather = self.window(input);
        // SAFETY: the product writes every cell of every plane.
        unsafe {
            filled(batch * outputs * planes, |output| {
                for group in 0..self.shape.groups {
                    let first = group * group_outputs;
                    let matrix = matrix(group);
                    let target = Target {
                        output: Shared(output.add(first * planes)),
                        image: outputs * planes,
                        size: self.output,
                        grid: self.output,
                        first: [0, 0],
                        step: [1, 1],
                    };
                    let (first, epilogue) = (group * matrix.channels, epilogue.of(first..first + group_outputs));
                    Product { isa, batch, gather: &gather, first, matrix, epilogue, target }.run();
                }
            })
        }
    }

    /// The gradient of the input from that of the output.
    pub fn backward_input(&self, gradient: &[f32], weight: &[f32]) -> Vec<f32> {
        self.check(None, Some(weight), Some(gradient));
        let Self { isa, batch, .. } = *self;
        let ([inputs, outputs], [group_inputs, group_outputs]) = (self.shape.channels, self.group_channels());
        let planes = self.input[0] * self.input[1];
        let kernel = self.shape.kernel[0] * self.shape.kernel[1];
        if let Some(tile) = self.tiles[1] {
            // The same convolution, of the kernels turned by half a turn.
            let taps: Vec<usize> = (0..kernel).rev().collect();
            let row = kernel;
            let matrix = Matrix { weight, rows: inputs, channels: outputs, row, channel: inputs * kernel, taps: &taps };
            let padding = self.shape.padding.map(|padding| 2 - padding);
            let (size, grid) = (self.output, self.input);
            let epilogue = Epilogue::default();
            let winograd = Winograd { isa, tile, batch, source: gradient, size, grid, padding, matrix, epilogue };
            // SAFETY: every pixel lies in a tile.
            return unsafe { filled(batch * inputs * planes, |output| winograd.run(output)) };
        }
        let phases = self.phases();
        let write = |output: *mut f32| {
            for (first, grid, taps) in &phases {
                let (offsets, taps): (Vec<_>, Vec<_>) = taps.iter().copied().unzip();
                let gather = Gather::new(gradient, [outputs, self.output[0], self.output[1]], *grid, [1, 1], taps);
                for group in 0..self.shape.groups {
                    let start = group * group_outputs * group_inputs * kernel;
                    let matrix = Matrix {
                        weight: &weight[start..][..group_outputs * group_inputs * kernel],
                        rows: group_inputs,
                        channels: group_outputs,
                        row: kernel,
                        channel: group_inputs * kernel,
                        taps: &offsets,
                    };
                    let target = Target {
                        // SAFETY: the group's first plane lies within the output.
                        output: Shared(unsafe { output.add(group * group_inputs * planes) }),
                        image: inputs * planes,
                        size: self.input,
                        grid: *grid,
                        first: *first,
                        step: self.shape.stride,
                    };
                    let (first, epilogue) = (group * group_outputs, Epilogue::default());
                    Product { isa, batch, gather: &gather, first, matrix, epilogue, target }.run();
                }
            }
        };
        let len = batch * inputs * planes;
        let covered: usize = phases.iter().map(|(_, grid, _)| grid[0] * grid[1]).sum();
        if covered < planes {
            // Pixels that no tap sees have no gradient.
            let mut output = vec![0.0; len];
            write(output.as_mut_ptr());
            return output;
        }
        // SAFETY: the phases cover every pixel of every plane.
        unsafe { filled(len, write) }
    }

    /// The gradient of the weight from that of the output.
    pub fn backward_weight(&self, input: &[f32], gradient: &[f32]) -> Vec<f32> {
        self.check(Some(input), None, Some(gradient));
        let [group_inputs, group_outputs] = self.group_channels();
        let (_, weights) = self.weights();
        let mut into = vec![0.0; self.shape.channels[1] * weights];
        if let Some(tile) = self.tiles[1] {
            let Self { isa, batch, input: size, output: grid, shape, .. } = *self;
            let ConvShape { padding, channels, .. } = shape;
            FilteredWeights { isa, tile, batch, input, size, padding, gradient, grid, channels }.run(&mut into);
            return into;
        }
        let size = [self.shape.channels[1], self.output[0], self.output[1]];
        let gradients = Gather::new(gradient, size, self.output, [1, 1], vec![[0, 0]]);
        let window = self.window(input);
        for (group, into) in into.chunks_exact_mut(group_outputs * weights).enumerate() {
            let outputs = group * group_outputs..(group + 1) * group_outputs;
            let inputs = group * group_inputs..(group + 1) * group_inputs;
            correlate(self.isa, self.batch, (&gradients, outputs), (&window, inputs), into);
        }
        into
    }

    /// The gradient of the bias from that of the output.
    pub fn backward_bias(&self, gradient: &[f32]) -> Vec<f32> {
        self.check(None, None, Some(gradient));
        sums(self.isa, gradient, self.shape.channels[1], self.output[0] * self.output[1])
    }

    /// Inputs and outputs of a group.
    fn group_channels(&self) -> [usize; 2] {
        self.shape.channels.map(|channels| channels / self.shape.groups)
    }

    /// Where the taps lie in a channel of the weight, and the weights of an output.
    fn weights(&self) -> (Vec<usize>, usize) {
        let taps = self.shape.kernel[0] * self.shape.kernel[1];
        ((0..taps).collect(), self.group_channels()[0] * taps)
    }

    /// The input as the output's cells see it.
    fn window<'a>(&self, input: &'a [f32]) -> Gather<'a> {
        let ConvShape { kernel, dilation, padding, .. } = self.shape;
        let at = |i: usize, tap: usize| (tap * dilation[i]) as isize - padding[i] as isize;
        let taps = (0..kernel[0]).flat_map(|row| (0..kernel[1]).map(move |column| [at(0, row), at(1, column)]));
        let size = [self.shape.channels[0], self.input[0], self.input[1]];
        Gather::new(input, size, self.output, self.shape.stride, taps.collect())
    }

    /// The input's pixels by their place among the steps of the stride: the first one, how many, and the taps that see
    /// them, each with its place in the weight and the output cell that sees the first pixel through it.
    #[allow(clippy::type_complexity)]
    fn phases(&self) -> Vec<([usize; 2], [usize; 2], Vec<(usize, [isize; 2])>)> {
        let ConvShape { kernel, stride, dilation, padding, .. } = self.shape;
        // Taps of one direction that see the phase, and where from.
        let seen = |i: usize, phase: usize| -> Vec<(usize, isize)> {
            (0..kernel[i])
                .filter_map(|tap| {
                    let distance = (phase + padding[i]) as isize - (tap * dilation[i]) as isize;
                    (distance.rem_euclid(stride[i] as isize) == 0).then_some((tap, distance / stride[i] as isize))
                })
                .collect()
        };
        let mut phases = Vec::new();
        for y in 0..stride[0].min(self.input[0]) {
            for x in 0..stride[1].min(self.input[1]) {
                let (rows, columns) = (seen(0, y), seen(1, x));
                let taps: Vec<_> = rows
                    .iter()
                    .flat_map(|&(r, row)| columns.iter().map(move |&(c, column)| (r * kernel[1] + c, [row, column])))
                    .collect();
                if !taps.is_empty() {
                    let grid = [(self.input[0] - y).div_ceil(stride[0]), (self.input[1] - x).div_ceil(stride[1])];
                    phases.push(([y, x], grid, taps));
                }
            }
        }
        phases
    }

    fn check(&self, input: Option<&[f32]>, weight: Option<&[f32]>, output: Option<&[f32]>) {
        let [inputs, outputs] = self.shape.channels;
        let expect = |what, values: Option<&[f32]>, expected: usize| {
            assert!(values.is_none_or(|values| values.len() == expected), "{what} of {self:?}");
        };
        expect("input", input, self.batch * inputs * self.input[0] * self.input[1]);
        expect("weight", weight, self.shape.weights());
        expect("output", output, self.batch * outputs * self.output[0] * self.output[1]);
    }
}
