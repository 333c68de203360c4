//! The gradient of a 3×3 weight on planes by Winograd's method.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;
use std::ptr;

use super::tiles::PlanarTiles;
use crate::gemm::channel_tile::{ChannelTileArgs, channel_tile};
use crate::memory::{Shared, leave_packed, take_packed, with_scratch};
use crate::number::Number;
use crate::parallel::{self, piece};
use crate::simd::{Isa, Kernel, MAX_LANES, Simd};
use crate::winograd::WinogradTile;
use crate::winograd::pipeline::{Pair, Segments, lines_len};
use crate::winograd::transform::{Four, PutRow, Transform, Two, from_elements};

/// The gradient of a 3×3 weight by Winograd's method, each of whose steps is transposed: the input's tiles are transformed
/// as ever, the gradient's as their outputs are made, their products summed over all tiles, for each element of the square,
/// and the sums brought back to nine taps.
pub(super) struct WinogradWeightGrad<'a, N> {
    pub isa: Isa,
    pub tile: WinogradTile,
    pub batch: usize,
    /// `[batch, inputs, height, width]`, padded before the first.
    pub input: &'a [N],
    pub size: [usize; 2],
    pub padding: [usize; 2],
    /// `[batch, outputs, height, width]`.
    pub gradient: &'a [N],
    pub grid: [usize; 2],
    /// Inputs and outputs.
    pub channels: [usize; 2],
}

/// Transformed tiles, in floats, about: what all threads' caches hold together.
const CACHE: usize = 4 << 20;

/// Tiles whose products are summed at once, at least: sums are read and written as often.
const TILES: usize = 192;

impl<N: Number> WinogradWeightGrad<'_, N> {
    /// `[outputs, inputs, 3, 3]`.
    pub fn run(&self, into: &mut [f32]) {
        match self.tile {
            WinogradTile::Two => self.with::<Two>(into),
            WinogradTile::Four => self.with::<Four>(into),
        }
    }

    fn with<T: Transform>(&self, into: &mut [f32]) {
        let lanes = self.isa.lanes();
        let elements = T::INPUTS * T::INPUTS;
        let blocks = self.channels.map(|channels| channels.div_ceil(lanes));
        let tiles = self.grid.map(|side| side.div_ceil(T::OUTPUTS));
        let total = self.batch * tiles[0] * tiles[1];
        let most = (CACHE / (elements * lanes * (blocks[0] + blocks[1]))).max(TILES);
        let groups = total.div_ceil(most).max(1);
        // An element's end is padded by a vector: equal elements of a square else fall on the same lines of the cache.
        let steps = blocks.map(|blocks| blocks * total.div_ceil(groups) * lanes + MAX_LANES);
        let sums_step = blocks[0] * lanes * blocks[1] * lanes;
        let mut values = take_packed(elements * (steps[0] + steps[1] + sums_step));
        let memory = values.as_mut_ptr();
        for group in 0..groups {
            // SAFETY: the memory is as long as the steps make it.
            let work = unsafe {
                Work {
                    pass: self,
                    tiles,
                    group: piece(total, groups, group),
                    inputs: Shared(memory),
                    gradients: Shared(memory.add(elements * steps[0])),
                    sums: Shared(memory.add(elements * (steps[0] + steps[1]))),
                    steps,
                    sums_step,
                    add: group > 0,
                    transform: PhantomData::<T>,
                }
            };
            let parts = (4 * parallel::threads()).min(work.group.len());
            parallel::for_each(parts, |part| {
                with_scratch(lines_len::<T>(lanes), |lines| {
                    let run = piece(work.group.len(), parts, part);
                    let run = work.group.start + run.start..work.group.start + run.end;
                    // SAFETY: the instruction set comes from detection; each task transforms tiles of its own.
                    unsafe { self.isa.call(TransformTiles { work: &work, run, lines: lines.as_mut_ptr() }) }
                });
            });
            // Of an element all sums, or with many threads some.
            let parts = (2 * parallel::threads()).div_ceil(elements).min(blocks[1].div_ceil(2));
            parallel::for_each(elements * parts, |task| {
                let pairs = piece(blocks[1].div_ceil(2), parts, task % parts);
                // SAFETY: as above; each task has its sums to itself.
                unsafe { self.isa.call(Multiply { work: &work, element: task / parts, pairs }) }
            });
            if group + 1 == groups {
                let to = Shared(into.as_mut_ptr());
                parallel::for_each(blocks[0] * blocks[1], |task| {
                    let [input, output] = [task % blocks[0], task / blocks[0]];
                    // SAFETY: as above; each task writes the weights of its inputs and outputs.
                    unsafe { self.isa.call(WriteWeights { work: &work, input, output, to: to.get() }) }
                });
            }
        }
        leave_packed(values);
    }
}

/// A group of tiles.
struct Work<'a, T, N> {
    pass: &'a WinogradWeightGrad<'a, N>,
    /// Tiles of an image, down and across.
    tiles: [usize; 2],
    group: Range<usize>,
    /// `[element][input block][tile][lanes]`, `[element][pair of output blocks][tile][block][lanes]`.
    inputs: Shared<*mut f32>,
    gradients: Shared<*mut f32>,
    /// `[element][output block][input][lanes]`.
    sums: Shared<*mut f32>,
    /// From one element of the inputs, and of the gradients, to the next.
    steps: [usize; 2],
    sums_step: usize,
    /// Whether there are sums already.
    add: bool,
    transform: PhantomData<T>,
}

/// A run of a group's tiles, transformed.
struct TransformTiles<'a, T, N> {
    work: &'a Work<'a, T, N>,
    run: Range<usize>,
    lines: *mut f32,
}

impl<T: Transform, N: Number> Kernel for TransformTiles<'_, T, N> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Work { pass, tiles, ref group, steps, .. } = *self.work;
        let WinogradWeightGrad { input, size, padding, gradient, grid, channels, .. } = *pass;
        let [inputs, outputs] = channels;
        let inputs = PlanarTiles { values: input, channels: inputs, size, padding, side: T::INPUTS };
        let outputs =
            PlanarTiles { values: gradient, channels: outputs, size: grid, padding: [0; 2], side: T::OUTPUTS };
        let blocks = channels.map(|channels| channels.div_ceil(S::LANES));
        let before = self.run.start - group.start;
        let mut segments = Segments::new(self.run, tiles);
        while let Some(segment) = segments.advance() {
            let first = before + segment.first;
            // SAFETY: the memory has room for all tiles of the group.
            unsafe {
                for block in 0..blocks[0] {
                    let to = self.work.inputs.get().add((block * group.len() + first) * S::LANES);
                    let steps = [S::LANES, steps[0]];
                    inputs.transform_by::<S, T, f32>(T::input::<S>, &segment, block, self.lines, to, steps);
                }
                for block in 0..blocks[1] {
                    let pair = Pair::of(block, blocks[1]);
                    let at = pair.first * group.len() + first * pair.blocks + block - pair.first;
                    let to = self.work.gradients.get().add(at * S::LANES);
                    let steps = [pair.blocks * S::LANES, steps[1]];
                    outputs.transform_by::<S, T, f32>(T::gradient::<S>, &segment, block, self.lines, to, steps);
                }
            }
        }
    }
}

/// The sums of an element, for some pairs of output blocks.
struct Multiply<'a, T, N> {
    work: &'a Work<'a, T, N>,
    element: usize,
    pairs: Range<usize>,
}

impl<T: Transform, N: Number> Kernel for Multiply<'_, T, N> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Work { pass, ref group, steps, sums_step, add, .. } = *self.work;
        let blocks = pass.channels.map(|channels| channels.div_ceil(S::LANES));
        let (count, inputs) = (group.len(), blocks[0] * S::LANES);
        let parts = S::LANES.div_ceil(S::PIXELS);
        // SAFETY: the memory has room for all tiles of the group, and for the sums.
        unsafe {
            let from = self.work.inputs.get().add(self.element * steps[0]);
            let gradients = self.work.gradients.get().add(self.element * steps[1]);
            let sums = self.work.sums.get().add(self.element * sums_step);
            for first in (self.pairs.start * 2..blocks[1].min(self.pairs.end * 2)).step_by(2) {
                for block in 0..blocks[0] {
                    for part in 0..parts {
                        let channels = piece(S::LANES, parts, part);
                        let to = sums.add((first * inputs + block * S::LANES + channels.start) * S::LANES);
                        let args = ChannelTileArgs {
                            input: from.add(block * count * S::LANES + channels.start),
                            weights: gradients.add(first * count * S::LANES),
                            sum: if add { to } else { ptr::null() },
                            output: to,
                            sum_block: inputs * S::LANES,
                            output_block: inputs * S::LANES,
                            run: count,
                            run_last: count,
                            run_step: S::LANES,
                            ..ChannelTileArgs::PRODUCT
                        };
                        channel_tile::<S, f32, f32>(channels.len(), (blocks[1] - first).min(2), &args);
                    }
                }
            }
        }
    }
}

/// The weights of a block of inputs and a block of outputs, from their sums.
struct WriteWeights<'a, T, N> {
    work: &'a Work<'a, T, N>,
    input: usize,
    output: usize,
    to: *mut f32,
}

impl<T: Transform, N: Number> Kernel for WriteWeights<'_, T, N> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Work { pass, sums_step, .. } = *self.work;
        let [inputs, outputs] = pass.channels;
        let (first, output) = (self.input * S::LANES, self.output * S::LANES);
        let (channels, rows) = (S::LANES.min(inputs - first), S::LANES.min(outputs - output));
        // `[channel, tap][lanes]`, and a square of it.
        let mut taps = [0.0; 9 * MAX_LANES * MAX_LANES];
        let mut square = [0.0; MAX_LANES * MAX_LANES];
        // SAFETY: sums are there for whole blocks; weights are written where there are some.
        unsafe {
            for channel in 0..channels {
                let at = (self.output * inputs.next_multiple_of(S::LANES) + first + channel) * S::LANES;
                let sums = self.work.sums.get().add(at);
                let to = TapOutputs(taps.as_mut_ptr().add(channel * 9 * S::LANES));
                from_elements::<S, T, 3>(T::taps::<S>, 3, sums, sums_step, &to);
            }
            let to = self.to.add((output * inputs + first) * 9);
            for start in (0..channels * 9).step_by(S::LANES) {
                S::transpose(taps.as_ptr().add(start * S::LANES), S::LANES, square.as_mut_ptr(), S::LANES);
                let count = S::LANES.min(channels * 9 - start);
                for row in 0..rows {
                    let to = to.add(row * inputs * 9 + start);
                    to.copy_from_nonoverlapping(square.as_ptr().add(row * S::LANES), count);
                }
            }
        }
    }
}

/// Nine taps, `[tap][lanes]`.
struct TapOutputs(*mut f32);

impl PutRow<3> for TapOutputs {
    #[inline(always)]
    unsafe fn put<S: Simd>(&self, y: usize, values: [S::Vector; 3]) {
        for (x, value) in values.into_iter().enumerate() {
            // SAFETY: there is room for the taps; the processor has the instructions, the caller's promise.
            unsafe { S::store(self.0.add((3 * y + x) * S::LANES), value) }
        }
    }
}
