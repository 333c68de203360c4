//! Convolutions on planes, forward and backward: which algorithm computes each.
#![allow(unsafe_code)]

use super::channel_sums;
use super::depthwise::DepthwisePass;
use super::im2col::Im2col;
use super::implicit_gemm::{ImplicitGemm, Target};
use super::weight_grad::weight_grad;
use super::winograd::WinogradPass;
use super::winograd_weight_grad::WinogradWeightGrad;
use crate::conv::ConvShape;
use crate::cost;
use crate::gemm::{ChannelAffine, WeightMatrix};
use crate::memory::{Shared, filled, part_mut};
use crate::number::{Number, Numbers};
use crate::parallel;
use crate::simd::Isa;
use crate::winograd::WinogradTile;

/// Groups from which on each is computed by one thread: with fewer, some threads would wait for the last.
const GROUPS_PER_THREAD: usize = 3;

/// A convolution of a batch of images of one size.
#[derive(Clone, Copy, Debug)]
pub struct ConvPass {
    isa: Isa,
    shape: ConvShape,
    batch: usize,
    input: [usize; 2],
    output: [usize; 2],
    /// The tiles of Winograd's method, forward and of both gradients.
    tiles: [Option<WinogradTile>; 2],
    /// Those of products of bfloat16 numbers: forward and of the gradient of the input.
    narrow_tiles: [Option<WinogradTile>; 2],
}

impl ConvPass {
    /// Of `batch` images of `input`, `[height, width]`.
    ///
    /// # Errors
    /// The window does not fit.
    pub fn new(isa: Isa, shape: ConvShape, batch: usize, input: [usize; 2]) -> Result<Self, crate::KernelError> {
        let output = shape.output(input)?;
        // Forward, rounding decides on which side of zero the input of a ReLU lies: the tile of four rounds more.
        let forward = cost::PLANAR.winograd(&[WinogradTile::Two], &shape, batch, output);
        let backward = cost::PLANAR.winograd(&[WinogradTile::Two, WinogradTile::Four], &shape, batch, input);
        // Rounded to 8 bits before they are multiplied, tiles of four would lose too much.
        let narrow = |size| cost::PLANAR_BF16.winograd(&[WinogradTile::Two], &shape, batch, size);
        let narrow_tiles = [narrow(output), narrow(input)];
        Ok(Self { isa, shape, batch, input, output, tiles: [forward, backward], narrow_tiles }.suited())
    }

    /// The same with another tile of Winograd's method, or without it; a shape other than 3×3, stride 1, dilation 1,
    /// one group and padding up to 2 never uses it.
    pub fn with_tile(self, tile: Option<WinogradTile>) -> Self {
        Self { tiles: [tile; 2], narrow_tiles: [tile; 2], ..self }.suited()
    }

    /// Without Winograd's method, unless the shape suits it.
    fn suited(self) -> Self {
        let can = self.shape.suits_winograd() && self.shape.padding.iter().all(|&padding| padding < 3);
        let [tiles, narrow_tiles] = [self.tiles, self.narrow_tiles].map(|tiles| tiles.map(|tile| tile.filter(|_| can)));
        Self { tiles, narrow_tiles, ..self }
    }

    /// The tiles of products of such numbers, forward and of the gradient of the input.
    fn tiles_of<N: Number>(&self) -> [Option<WinogradTile>; 2] {
        match N::NUMBERS {
            Numbers::F32 => self.tiles,
            Numbers::Bf16 => self.narrow_tiles,
        }
    }

    /// `[batch, outputs, height, width]`.
    pub fn output_shape(&self) -> [usize; 4] {
        [self.batch, self.shape.channels[1], self.output[0], self.output[1]]
    }

    /// The output for an input `[batch, inputs, height, width]` and a weight `[outputs, inputs / groups, height, width]`;
    /// a bias is the shift of `affine`.
    ///
    /// # Panics
    /// A slice's length is not that of its shape; so below.
    pub fn forward<N: Number>(&self, input: &[N], weight: &[f32], affine: ChannelAffine) -> Vec<N> {
        self.check(Some(input.len()), Some(weight.len()), None);
        for values in [affine.scale, affine.shift].into_iter().flatten() {
            assert_eq!(values.len(), self.shape.channels[1], "a value for every output");
        }
        if let Some(depthwise) = self.depthwise() {
            return depthwise.forward(input, weight, affine);
        }
        let Self { isa, batch, .. } = *self;
        let ([_, outputs], [_, group_outputs]) = (self.shape.channels, self.shape.group_channels());
        let planes = self.output[0] * self.output[1];
        let (taps, weights) = self.weights();
        let matrix = |group: usize| WeightMatrix {
            weight: &weight[group * group_outputs * weights..][..group_outputs * weights],
            rows: group_outputs,
            channels: weights / taps.len(),
            row: weights,
            channel: taps.len(),
            taps: &taps,
        };
        if let Some(tile) = self.tiles_of::<N>()[0] {
            let (padding, size, grid, matrix) = (self.shape.padding, self.input, self.output, matrix(0));
            let winograd = WinogradPass { isa, tile, batch, source: input, size, grid, padding, matrix, affine };
            // SAFETY: every pixel lies in a tile.
            return unsafe { filled(batch * outputs * planes, |output| winograd.run(output)) };
        }
        let im2col = self.window(input);
        // SAFETY: the product writes every cell of every plane.
        unsafe {
            filled(batch * outputs * planes, |output: *mut N| {
                let output = Shared(output);
                self.each_group(|group| {
                    let first = group * group_outputs;
                    let matrix = matrix(group);
                    let target = Target {
                        output: Shared(output.get().add(first * planes)),
                        image: outputs * planes,
                        size: self.output,
                        grid: self.output,
                        first: [0, 0],
                        step: [1, 1],
                    };
                    let (first, affine) = (group * matrix.channels, affine.of(first..first + group_outputs));
                    multiply(ImplicitGemm { isa, batch, im2col: &im2col, first, matrix, affine, target });
                });
            })
        }
    }

    /// The gradient of the input from that of the output.
    pub fn backward_input<N: Number>(&self, gradient: &[N], weight: &[f32]) -> Vec<N> {
        self.check(None, Some(weight.len()), Some(gradient.len()));
        if let Some(depthwise) = self.depthwise() {
            return depthwise.backward_input(gradient, weight);
        }
        let Self { isa, batch, .. } = *self;
        let ([inputs, outputs], kernel) = (self.shape.channels, self.shape.taps());
        let len = batch * inputs * self.input[0] * self.input[1];
        if let Some(tile) = self.tiles_of::<N>()[1] {
            // The same convolution, with the kernels rotated by 180°.
            let taps: Vec<usize> = (0..kernel).rev().collect();
            let (row, channel) = (kernel, inputs * kernel);
            let matrix = WeightMatrix { weight, rows: inputs, channels: outputs, row, channel, taps: &taps };
            let padding = self.shape.padding.map(|padding| 2 - padding);
            let (size, grid, affine) = (self.output, self.input, ChannelAffine::default());
            let winograd = WinogradPass { isa, tile, batch, source: gradient, size, grid, padding, matrix, affine };
            // SAFETY: every pixel lies in a tile.
            return unsafe { filled(len, |output| winograd.run(output)) };
        }
        let phases = self.phases();
        let write = |output| phases.iter().for_each(|phase| self.write_phase(phase, gradient, weight, output));
        let covered: usize = phases.iter().map(|phase| phase.grid[0] * phase.grid[1]).sum();
        if covered < self.input[0] * self.input[1] {
            // Pixels that no tap reads have no gradient.
            let mut output = vec![N::of(0.0); len];
            write(output.as_mut_ptr());
            return output;
        }
        // SAFETY: the phases cover every pixel of every plane.
        unsafe { filled(len, write) }
    }

    /// Writes the gradient of a phase's pixels of the input.
    fn write_phase<N: Number>(&self, phase: &Phase, gradient: &[N], weight: &[f32], output: *mut N) {
        let Self { isa, batch, .. } = *self;
        let ([inputs, outputs], [group_inputs, group_outputs]) = (self.shape.channels, self.shape.group_channels());
        let (planes, kernel) = (self.input[0] * self.input[1], self.shape.taps());
        let (offsets, taps): (Vec<_>, Vec<_>) = phase.taps.iter().copied().unzip();
        let size = [outputs, self.output[0], self.output[1]];
        let im2col = Im2col::new(gradient, size, phase.grid, [1, 1], taps);
        let output = Shared(output);
        self.each_group(|group| {
            let start = group * group_outputs * group_inputs * kernel;
            let matrix = WeightMatrix {
                weight: &weight[start..][..group_outputs * group_inputs * kernel],
                rows: group_inputs,
                channels: group_outputs,
                row: kernel,
                channel: group_inputs * kernel,
                taps: &offsets,
            };
            let target = Target {
                // SAFETY: the group's first plane lies within the output.
                output: Shared(unsafe { output.get().add(group * group_inputs * planes) }),
                image: inputs * planes,
                size: self.input,
                grid: phase.grid,
                first: phase.first,
                step: self.shape.stride,
            };
            let (first, affine) = (group * group_outputs, ChannelAffine::default());
            multiply(ImplicitGemm { isa, batch, im2col: &im2col, first, matrix, affine, target });
        });
    }

    /// The gradient of the weight from that of the output.
    pub fn backward_weight<N: Number>(&self, input: &[N], gradient: &[N]) -> Vec<f32> {
        self.check(Some(input.len()), None, Some(gradient.len()));
        if let Some(depthwise) = self.depthwise() {
            return depthwise.backward_weight(input, gradient);
        }
        let [group_inputs, group_outputs] = self.shape.group_channels();
        let (_, weights) = self.weights();
        let mut into = vec![0.0; self.shape.channels[1] * weights];
        if let Some(tile) = self.tiles[1] {
            let Self { isa, batch, input: size, output: grid, shape, .. } = *self;
            let ConvShape { padding, channels, .. } = shape;
            WinogradWeightGrad { isa, tile, batch, input, size, padding, gradient, grid, channels }.run(&mut into);
            return into;
        }
        let size = [self.shape.channels[1], self.output[0], self.output[1]];
        let gradients = Im2col::new(gradient, size, self.output, [1, 1], vec![[0, 0]]);
        let window = self.window(input);
        let (to, len) = (Shared(into.as_mut_ptr()), group_outputs * weights);
        self.each_group(|group| {
            let outputs = group * group_outputs..(group + 1) * group_outputs;
            let inputs = group * group_inputs..(group + 1) * group_inputs;
            // SAFETY: every group has a part of the weight to itself.
            let into = unsafe { part_mut(&to, group * len, len) };
            weight_grad(self.isa, self.batch, (&gradients, outputs), (&window, inputs), into);
        });
        into
    }

    /// Works on the groups one after the other, each on all threads; on many at once, each on a thread of its own.
    fn each_group(&self, work: impl Fn(usize) + Sync) {
        match self.shape.groups {
            groups if groups >= GROUPS_PER_THREAD * parallel::threads() => parallel::for_each(groups, work),
            groups => (0..groups).for_each(work),
        }
    }

    /// The gradient of the bias from that of the output.
    pub fn backward_bias(&self, gradient: &[f32]) -> Vec<f32> {
        self.check(None, None, Some(gradient.len()));
        channel_sums(self.isa, gradient, self.shape.channels[1], self.output[0] * self.output[1])
    }

    /// The same where each channel has a kernel of its own.
    fn depthwise(&self) -> Option<DepthwisePass> {
        DepthwisePass::new(self.isa, self.shape, self.batch, self.input, self.output)
    }

    /// Where the taps lie in a channel of the weight, and the weights of an output.
    fn weights(&self) -> (Vec<usize>, usize) {
        let taps = self.shape.taps();
        ((0..taps).collect(), self.shape.group_channels()[0] * taps)
    }

    /// The input as the output's cells read it.
    fn window<'a, N: Number>(&self, input: &'a [N]) -> Im2col<'a, N> {
        let ConvShape { kernel, dilation, padding, .. } = self.shape;
        let at = |i: usize, tap: usize| (tap * dilation[i]) as isize - padding[i] as isize;
        let taps = (0..kernel[0]).flat_map(|row| (0..kernel[1]).map(move |column| [at(0, row), at(1, column)]));
        let size = [self.shape.channels[0], self.input[0], self.input[1]];
        Im2col::new(input, size, self.output, self.shape.stride, taps.collect())
    }

    /// The phases of the input's pixels, but for those that no tap reads.
    fn phases(&self) -> Vec<Phase> {
        let ConvShape { kernel, stride, dilation, padding, .. } = self.shape;
        // Taps of one direction that read the phase, and where from.
        let readers = |i: usize, phase: usize| -> Vec<(usize, isize)> {
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
                let (rows, columns) = (readers(0, y), readers(1, x));
                let taps: Vec<_> = rows
                    .iter()
                    .flat_map(|&(r, row)| columns.iter().map(move |&(c, column)| (r * kernel[1] + c, [row, column])))
                    .collect();
                if !taps.is_empty() {
                    let grid = [(self.input[0] - y).div_ceil(stride[0]), (self.input[1] - x).div_ceil(stride[1])];
                    phases.push(Phase { first: [y, x], grid, taps });
                }
            }
        }
        phases
    }

    fn check(&self, input: Option<usize>, weight: Option<usize>, output: Option<usize>) {
        let [inputs, outputs] = self.shape.channels;
        let expect = |what, len: Option<usize>, expected: usize| {
            assert!(len.is_none_or(|len| len == expected), "{what} of {self:?}");
        };
        expect("input", input, self.batch * inputs * self.input[0] * self.input[1]);
        expect("weight", weight, self.shape.weights());
        expect("output", output, self.batch * outputs * self.output[0] * self.output[1]);
    }
}

/// The input's pixels at one place among the steps of the stride.
struct Phase {
    /// The first one, and how many.
    first: [usize; 2],
    grid: [usize; 2],
    /// The taps that read them, each with its place in the weight and the output cell that the first pixel contributes to.
    taps: Vec<(usize, [isize; 2])>,
}

/// Computes the product by the algorithm that suits it.
fn multiply<N: Number>(gemm: ImplicitGemm<N>) {
    if !gemm.run_few_outputs() {
        gemm.run();
    }
}
