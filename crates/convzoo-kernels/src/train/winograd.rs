#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;

use super::conv::Epilogue;
use super::product::Matrix;
use super::tiles::{Segment, Source, pitch, transform};
use super::{keep, kept};
use crate::buffer::with_scratch;
use crate::conv::Tile;
use crate::conv::tile::{TileArgs, tile};
use crate::conv::winograd::{Four, MAX_INPUTS, MAX_OUTPUTS, Pair, Transform, Two};
use crate::operation::Shared;
use crate::parallel::{self, piece};
use crate::simd::{Isa, Kernel, MAX_LANES, Simd};

/// A 3×3 convolution of stride 1 by Winograd's minimal filtering.
///
/// A task takes a run of tiles from the images to the output: it brings a few of their rows into blocks of channels,
/// transforms them, multiplies, transforms back and brings the rows into the usual order, all within a cache.
pub(super) struct Winograd<'a> {
    pub isa: Isa,
    pub tile: Tile,
    pub batch: usize,
    /// `[batch, channels, height, width]`.
    pub source: &'a [f32],
    /// Height and width of the source and of the output.
    pub size: [usize; 2],
    pub grid: [usize; 2],
    pub padding: [usize; 2],
    /// Nine taps, in the order of the window.
    pub matrix: Matrix<'a>,
    pub epilogue: Epilogue<'a>,
}

/// Tiles of a task, at most. More would read the weights less often, and what becomes of the tiles leave the cache.
const TILES: usize = 112;

/// Which of some tiles makes filtering fastest, if faster than the product, for a convolution into maps of `grid`.
///
/// The rule weighs multiply-adds, the transforms of tiles, and the weights, which are transformed anew in every step.
pub(super) fn choose(tiles: &[Tile], [inputs, outputs]: [usize; 2], batch: usize, grid: [usize; 2]) -> Option<Tile> {
    let kernels = (inputs * outputs) as f64;
    let filtered = |tile: Tile| {
        let tiles = (batch * grid.map(|side| side.div_ceil(tile.outputs())).iter().product::<usize>()) as f64;
        let elements = tile.inputs().pow(2) as f64;
        elements * (kernels * (tiles + WEIGHT) + (inputs + outputs) as f64 * tiles * TRANSFORM)
    };
    let product = kernels * 9.0 * (batch * grid[0] * grid[1]) as f64;
    let best = tiles.iter().copied().min_by(|a, b| filtered(*a).total_cmp(&filtered(*b)));
    best.filter(|tile| inputs.min(outputs) >= MIN_CHANNELS && filtered(*tile) < product)
}

/// With fewer channels the vectors are too empty.
const MIN_CHANNELS: usize = 8;

/// What transforming a weight and reading it costs, in multiply-adds. This and the next are fitted to the layers of ResNet,
/// VGG and DenseNet at eight images.
const WEIGHT: f64 = 80.0;

/// What transforming a value costs, in multiply-adds.
const TRANSFORM: f64 = 12.0;

impl Winograd<'_> {
    /// Writes `[batch, outputs, height, width]`.
    ///
    /// # Safety
    /// `output` has room for it.
    pub unsafe fn run(&self, output: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.tile {
                Tile::Two => self.with::<Two>(output),
                Tile::Four => self.with::<Four>(output),
            }
        }
    }

    unsafe fn with<T: Transform>(&self, output: *mut f32) {
        let lanes = self.isa.lanes();
        let elements = T::INPUTS * T::INPUTS;
        let tiles = self.grid.map(|side| side.div_ceil(T::OUTPUTS));
        let total = self.batch * tiles[0] * tiles[1];
        let blocks = [self.matrix.channels, self.matrix.rows].map(|channels| channels.div_ceil(lanes));
        let chunks = total.div_ceil(TILES).next_multiple_of(parallel::threads());
        let weights = Weights::new::<T>(self.isa, &self.matrix);
        let pad = |values: Option<&[f32]>, none| {
            let mut padded = vec![none; blocks[1] * lanes];
            padded[..self.matrix.rows].copy_from_slice(values.unwrap_or(&vec![none; self.matrix.rows]));
            padded
        };
        let (scale, shift) = (pad(self.epilogue.scale, 1.0), pad(self.epilogue.shift, 0.0));
        let output = Shared(output);
        parallel::for_each(chunks, |chunk| {
            let range = piece(total, chunks, chunk);
            // An element's end is padded by a vector: equal elements of a square else fall on the same lines of the cache.
            let steps = blocks.map(|blocks| blocks * range.len() * lanes + MAX_LANES);
            let lines = T::INPUTS * pitch::<T>(lanes) * lanes;
            with_scratch(elements * (steps[0] + steps[1]) + lines + lanes * lanes, |scratch| {
                let task = Task {
                    pass: self,
                    weights: &weights,
                    scale: &scale,
                    shift: &shift,
                    tiles,
                    chunk: range,
                    steps,
                    scratch: scratch.as_mut_ptr(),
                    output: output.get(),
                    transform: PhantomData::<T>,
                };
                // SAFETY: the instruction set comes from detection; every task writes the pixels of its tiles.
                unsafe { self.isa.call(task) }
            });
        });
        keep(weights.values);
    }
}

/// Transformed weights: `[element][pair of output blocks][input][block][lanes]`.
struct Weights {
    values: Vec<f32>,
    element: usize,
}

impl Weights {
    fn new<T: Transform>(isa: Isa, matrix: &Matrix) -> Self {
        let blocks = matrix.rows.div_ceil(isa.lanes());
        let element = matrix.channels * blocks * isa.lanes();
        let mut values = kept(T::INPUTS * T::INPUTS * element);
        let to = Shared(values.as_mut_ptr());
        let parts = (4 * parallel::threads()).div_ceil(blocks).min(matrix.channels);
        parallel::for_each(blocks * parts, |task| {
            let (block, part) = (task / parts, task % parts);
            let channels = piece(matrix.channels, parts, part);
            let task = TransformWeights { matrix, block, channels, to: to.get(), element, transform: PhantomData::<T> };
            // SAFETY: the instruction set comes from detection; each task writes the weights of its outputs and inputs.
            unsafe { isa.call(task) }
        });
        Self { values, element }
    }
}

struct TransformWeights<'a, T> {
    matrix: &'a Matrix<'a>,
    block: usize,
    channels: Range<usize>,
    to: *mut f32,
    element: usize,
    transform: PhantomData<T>,
}

impl<T: Transform> Kernel for TransformWeights<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { matrix, block, .. } = self;
        let first = block * S::LANES;
        let outputs = S::LANES.min(matrix.rows - first);
        let pair = Pair::of(block, matrix.rows.div_ceil(S::LANES));
        // Of each tap a vector; as many as squares have.
        let mut taps = [0.0; 16 * MAX_LANES];
        let squares = 9usize.div_ceil(S::LANES);
        for channel in self.channels {
            let from = first * matrix.row + channel * matrix.channel;
            let read = from + (S::LANES - 1) * matrix.row + squares * S::LANES;
            // SAFETY: squares are read where the weight has them; the weights have room for every element.
            unsafe {
                if outputs == S::LANES && read <= matrix.weight.len() {
                    for square in 0..squares {
                        let from = matrix.weight.as_ptr().add(from + square * S::LANES);
                        S::transpose(from, matrix.row, taps.as_mut_ptr().add(square * S::LANES * S::LANES), S::LANES);
                    }
                } else {
                    for output in 0..outputs {
                        for tap in 0..9 {
                            taps[tap * S::LANES + output] = matrix.weight[from + output * matrix.row + tap];
                        }
                    }
                }
                let mut rows = [[S::splat(0.0); MAX_INPUTS]; 3];
                for (column, rows) in rows.iter_mut().enumerate() {
                    let mut values = [S::splat(0.0); 3];
                    for (row, value) in values.iter_mut().enumerate() {
                        *value = S::load(taps.as_ptr().add(matrix.taps[3 * row + column] * S::LANES));
                    }
                    *rows = T::kernel::<S>(&values);
                }
                let at =
                    pair.first * S::LANES * matrix.channels + (channel * pair.blocks + block - pair.first) * S::LANES;
                let mut to = self.to.add(at);
                let [left, middle, right] = &rows;
                for ((left, middle), right) in left.iter().zip(middle).zip(right).take(T::INPUTS) {
                    let values = T::kernel::<S>(&[*left, *middle, *right]);
                    for value in values.into_iter().take(T::INPUTS) {
                        S::store(to, value);
                        to = to.wrapping_add(self.element);
                    }
                }
            }
        }
    }
}

/// A run of tiles.
struct Task<'a, T> {
    pass: &'a Winograd<'a>,
    weights: &'a Weights,
    scale: &'a [f32],
    shift: &'a [f32],
    /// Tiles of an image, down and across.
    tiles: [usize; 2],
    chunk: Range<usize>,
    /// From one element of the transformed inputs, and of the products, to the next.
    steps: [usize; 2],
    scratch: *mut f32,
    output: *mut f32,
    transform: PhantomData<T>,
}

impl<T: Transform> Kernel for Task<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let elements = T::INPUTS * T::INPUTS;
        let Winograd { source, size, padding, ref matrix, .. } = *self.pass;
        let source = Source { values: source, channels: matrix.channels, size, padding, side: T::INPUTS };
        let count = self.chunk.len();
        // SAFETY: the scratch memory is as long as the steps, the lines and the square make it.
        unsafe {
            let transformed = self.scratch;
            let products = transformed.add(elements * self.steps[0]);
            let lines = products.add(elements * self.steps[1]);
            let mut tile = self.chunk.start;
            while tile < self.chunk.end {
                let segment = Segment::at(tile, &self.chunk, self.tiles);
                for block in 0..matrix.channels.div_ceil(S::LANES) {
                    source.bring::<S, T>(&segment, block, lines);
                    let to = transformed.add((block * count + segment.first) * S::LANES);
                    transform::<S, T>(T::input::<S>, T::INPUTS, segment.tiles, lines, to, [S::LANES, self.steps[0]]);
                }
                tile += segment.tiles;
            }
            for element in 0..elements {
                let weights = self.weights.values.as_ptr().add(element * self.weights.element);
                let (from, to) = (transformed.add(element * self.steps[0]), products.add(element * self.steps[1]));
                self.multiply::<S>(weights, from, to);
            }
            let mut tile = self.chunk.start;
            while tile < self.chunk.end {
                let segment = Segment::at(tile, &self.chunk, self.tiles);
                for block in 0..matrix.rows.div_ceil(S::LANES) {
                    let from = products.add((block * count + segment.first) * S::LANES);
                    self.transform_output::<S>(segment.tiles, block, from, lines);
                    self.write::<S>(&segment, block, lines);
                }
                tile += segment.tiles;
            }
        }
    }
}

impl<T: Transform> Task<'_, T> {
    /// The products of one element.
    #[inline(always)]
    unsafe fn multiply<S: Simd>(&self, weights: *const f32, from: *const f32, to: *mut f32) {
        let Matrix { channels, rows, .. } = self.pass.matrix;
        let blocks = [channels, rows].map(|channels| channels.div_ceil(S::LANES));
        let count = self.chunk.len();
        let parts = count.div_ceil(S::PIXELS);
        for first in (0..blocks[1]).step_by(2) {
            let pair = Pair::of(first, blocks[1]);
            for part in 0..parts {
                let tiles = piece(count, parts, part);
                // SAFETY: as in `run`.
                unsafe {
                    let args = TileArgs {
                        input: from.add(tiles.start * S::LANES),
                        weights: weights.add(first * channels * S::LANES),
                        output: to.add((first * count + tiles.start) * S::LANES),
                        output_block: count * S::LANES,
                        blocks: blocks[0],
                        input_block: count * S::LANES,
                        weights_block: S::LANES * pair.blocks * S::LANES,
                        run: S::LANES,
                        run_last: channels - (blocks[0] - 1) * S::LANES,
                        pixel_step: S::LANES,
                        ..TileArgs::PRODUCT
                    };
                    tile::<S>(tiles.len(), pair.blocks, &args);
                }
            }
        }
    }

    /// Makes a segment's rows of outputs, `[row][column][lanes]`.
    #[inline(always)]
    unsafe fn transform_output<S: Simd>(&self, tiles: usize, block: usize, from: *const f32, lines: *mut f32) {
        // SAFETY: as in `run`.
        unsafe {
            let scale = S::load(self.scale.as_ptr().add(block * S::LANES));
            let shift = S::load(self.shift.as_ptr().add(block * S::LANES));
            for tile in 0..tiles {
                let from = from.add(tile * S::LANES);
                let mut columns = [[S::splat(0.0); MAX_OUTPUTS]; MAX_INPUTS];
                for (x, column) in columns.iter_mut().enumerate().take(T::INPUTS) {
                    let mut values = [S::splat(0.0); MAX_INPUTS];
                    for (y, value) in values.iter_mut().enumerate().take(T::INPUTS) {
                        *value = S::load(from.add((y * T::INPUTS + x) * self.steps[1]));
                    }
                    *column = T::output::<S>(&values);
                }
                for y in 0..T::OUTPUTS {
                    let mut values = [S::splat(0.0); MAX_INPUTS];
                    for (value, column) in values.iter_mut().zip(&columns).take(T::INPUTS) {
                        *value = column[y];
                    }
                    let to = lines.add((y * pitch::<T>(S::LANES) + tile * T::OUTPUTS) * S::LANES);
                    for (x, value) in T::output::<S>(&values).into_iter().enumerate().take(T::OUTPUTS) {
                        let mut value = S::mul_add(value, scale, shift);
                        if self.pass.epilogue.relu {
                            value = S::max(S::splat(0.0), value);
                        }
                        S::store(to.add(x * S::LANES), value);
                    }
                }
            }
        }
    }

    /// Brings a segment's rows to their place in the output.
    #[inline(always)]
    unsafe fn write<S: Simd>(&self, segment: &Segment, block: usize, lines: *mut f32) {
        let [height, width] = self.pass.grid;
        let rows = self.pass.matrix.rows;
        let (top, left) = (segment.row * T::OUTPUTS, segment.column * T::OUTPUTS);
        let columns = (segment.tiles * T::OUTPUTS).min(width - left);
        let channels = S::LANES.min(rows - block * S::LANES);
        let plane = height * width;
        for row in 0..T::OUTPUTS.min(height - top) {
            // SAFETY: pixels are written where the output has them, and squares are read within the lines.
            unsafe {
                let from = lines.add(row * pitch::<T>(S::LANES) * S::LANES);
                let at = (segment.image * rows + block * S::LANES) * plane + (top + row) * width + left;
                let to = self.output.add(at);
                if channels == S::LANES && columns >= S::LANES {
                    let mut column = 0;
                    while column < columns {
                        // The last square may overlap the one in front of it.
                        column = column.min(columns - S::LANES);
                        S::transpose(from.add(column * S::LANES), S::LANES, to.add(column), plane);
                        column += S::LANES;
                    }
                    continue;
                }
                let square = lines.add(T::INPUTS * pitch::<T>(S::LANES) * S::LANES);
                for column in (0..columns).step_by(S::LANES) {
                    S::transpose(from.add(column * S::LANES), S::LANES, square, S::LANES);
                    let count = S::LANES.min(columns - column);
                    for channel in 0..channels {
                        let from = square.add(channel * S::LANES);
                        to.add(channel * plane + column).copy_from_nonoverlapping(from, count);
                    }
                }
            }
        }
    }
}
