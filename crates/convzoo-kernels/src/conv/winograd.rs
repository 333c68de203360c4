#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ptr;
use std::sync::Arc;

use super::tile::{TileArgs, tile};
use super::{ConvShape, Job, pad_bias};
use crate::buffer::with_scratch;
use crate::parallel::piece;
use crate::simd::{Kernel, MAX_LANES, Simd};
use crate::{Buffer, Isa, KernelError, Layout, Operation};

/// The square of outputs that one step of the filtering makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tile {
    /// F(2×2, 3×3): 2.25 times fewer multiplications.
    Two,
    /// F(4×4, 3×3): 4 times fewer multiplications, less exact.
    Four,
}

impl Tile {
    /// The side of the square of outputs.
    pub fn outputs(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }

    /// The side of the square of inputs that they depend on.
    pub fn inputs(self) -> usize {
        self.outputs() + 2
    }
}

/// A 3×3 convolution of stride 1 by Winograd's minimal filtering
/// ([Lavin and Gray, 2015](https://arxiv.org/abs/1509.09308)).
///
/// Each square of inputs and each kernel is transformed; there the convolution is a product of the two, element by
/// element of the square, summed over channels: one matrix product for each element. The result is transformed back.
pub struct Winograd {
    isa: Isa,
    pub(super) shape: ConvShape,
    tile: Tile,
    /// `[element][output block, in pairs][input][block of the pair][lanes]`.
    weights: Buffer,
    bias: Buffer,
}

/// The transforms in one dimension.
pub(crate) trait Transform: Send + Sync + 'static {
    /// Outputs and inputs of a step.
    const OUTPUTS: usize;
    const INPUTS: usize;
    /// What a kernel's row or column is multiplied with.
    const KERNEL: &'static [[f64; 3]];

    unsafe fn input<S: Simd>(from: &[S::Vector; MAX_INPUTS]) -> [S::Vector; MAX_INPUTS];
    unsafe fn output<S: Simd>(from: &[S::Vector; MAX_INPUTS]) -> [S::Vector; MAX_OUTPUTS];

    /// The transpose of [`output`](Self::output): of a row or column of the output's gradient.
    unsafe fn gradient<S: Simd>(from: &[S::Vector; MAX_INPUTS]) -> [S::Vector; MAX_INPUTS];

    /// Of the three taps of a kernel's row or column.
    #[inline(always)]
    unsafe fn kernel<S: Simd>(taps: &[S::Vector; 3]) -> [S::Vector; MAX_INPUTS] {
        // SAFETY: the processor has the instructions, the caller's promise.
        unsafe {
            let mut sums = [S::splat(0.0); MAX_INPUTS];
            for (sum, factors) in sums.iter_mut().zip(Self::KERNEL) {
                for (factor, tap) in factors.iter().zip(taps) {
                    if *factor != 0.0 {
                        *sum = S::mul_add(S::splat(*factor as f32), *tap, *sum);
                    }
                }
            }
            sums
        }
    }

    /// The transpose of [`kernel`](Self::kernel): of a row or column of the transformed kernel's gradient.
    #[inline(always)]
    unsafe fn taps<S: Simd>(from: &[S::Vector; MAX_INPUTS]) -> [S::Vector; 3] {
        // SAFETY: as above.
        unsafe {
            let mut taps = [S::splat(0.0); 3];
            for (value, factors) in from.iter().zip(Self::KERNEL) {
                for (factor, tap) in factors.iter().zip(&mut taps) {
                    if *factor != 0.0 {
                        *tap = S::mul_add(S::splat(*factor as f32), *value, *tap);
                    }
                }
            }
            taps
        }
    }
}

pub(crate) const MAX_INPUTS: usize = 6;
pub(crate) const MAX_OUTPUTS: usize = 4;

pub(crate) struct Two;

impl Transform for Two {
    const OUTPUTS: usize = 2;
    const INPUTS: usize = 4;
    const KERNEL: &'static [[f64; 3]] = &[[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];

    #[inline(always)]
    unsafe fn input<S: Simd>(d: &[S::Vector; MAX_INPUTS]) -> [S::Vector; MAX_INPUTS] {
        // SAFETY: the processor has the instructions, the caller's promise.
        unsafe {
            let none = d[0];
            [S::sub(d[0], d[2]), S::add(d[1], d[2]), S::sub(d[2], d[1]), S::sub(d[1], d[3]), none, none]
        }
    }

    #[inline(always)]
    unsafe fn output<S: Simd>(m: &[S::Vector; MAX_INPUTS]) -> [S::Vector; MAX_OUTPUTS] {
        // SAFETY: as above.
        unsafe {
            let (plus, minus) = (S::add(m[1], m[2]), S::sub(m[1], m[2]));
            [S::add(m[0], plus), S::sub(minus, m[3]), plus, plus]
        }
    }

    #[inline(always)]
    unsafe fn gradient<S: Simd>(y: &[S::Vector; MAX_INPUTS]) -> [S::Vector; MAX_INPUTS] {
        // SAFETY: as above.
        unsafe {
            let none = y[0];
            [y[0], S::add(y[0], y[1]), S::sub(y[0], y[1]), S::sub(S::splat(0.0), y[1]), none, none]
        }
    }
}

/// Interpolates at 0, ±`A`, ±`B` and infinity. Lavin and Gray take 1 and 2; with these points, whose squares are each
/// other's inverse, less is lost to rounding.
pub(crate) struct Four;

impl Four {
    const A: f32 = std::f32::consts::FRAC_1_SQRT_2;
    const B: f32 = std::f32::consts::SQRT_2;
    // The products below would be inexact in f32.
    const A2: f32 = 0.5;
    const B2: f32 = 2.0;
}

impl Transform for Four {
    const OUTPUTS: usize = 4;
    const INPUTS: usize = 6;
    /// Of the three taps of a kernel's row or column: `[1, p, p²]` over the product of the differences of the point `p`
    /// to the others.
    const KERNEL: &'static [[f64; 3]] = {
        let (a, b) = (std::f64::consts::FRAC_1_SQRT_2, std::f64::consts::SQRT_2);
        let (a2, b2) = (Self::A2 as f64, Self::B2 as f64);
        let (at_a, at_b) = (2.0 * a2 * (a2 - b2), 2.0 * b2 * (b2 - a2));
        &[
            [1.0 / (a2 * b2), 0.0, 0.0],
            [1.0 / at_a, a / at_a, a2 / at_a],
            [1.0 / at_a, -a / at_a, a2 / at_a],
            [1.0 / at_b, b / at_b, b2 / at_b],
            [1.0 / at_b, -b / at_b, b2 / at_b],
            [0.0, 0.0, 1.0],
        ]
    };

    #[inline(always)]
    unsafe fn input<S: Simd>(d: &[S::Vector; MAX_INPUTS]) -> [S::Vector; MAX_INPUTS] {
        // SAFETY: the processor has the instructions, the caller's promise.
        unsafe {
            let (minus_sum, product) = (S::splat(-(Self::A2 + Self::B2)), S::splat(Self::A2 * Self::B2));
            let (a, b, minus_a2, minus_b2) =
                (S::splat(Self::A), S::splat(Self::B), S::splat(-Self::A2), S::splat(-Self::B2));
            // At ±a: d4 - b² d2 ± a (d3 - b² d1); at ±b with a and b exchanged.
            let (even_a, odd_a) = (S::mul_add(minus_b2, d[2], d[4]), S::mul(a, S::mul_add(minus_b2, d[1], d[3])));
            let (even_b, odd_b) = (S::mul_add(minus_a2, d[2], d[4]), S::mul(b, S::mul_add(minus_a2, d[1], d[3])));
            [
                S::mul_add(product, d[0], S::mul_add(minus_sum, d[2], d[4])),
                S::add(even_a, odd_a),
                S::sub(even_a, odd_a),
                S::add(even_b, odd_b),
                S::sub(even_b, odd_b),
                S::mul_add(product, d[1], S::mul_add(minus_sum, d[3], d[5])),
            ]
        }
    }

    #[inline(always)]
    unsafe fn output<S: Simd>(m: &[S::Vector; MAX_INPUTS]) -> [S::Vector; MAX_OUTPUTS] {
        // SAFETY: as above.
        unsafe {
            let (even_a, odd_a) = (S::add(m[1], m[2]), S::mul(S::splat(Self::A), S::sub(m[1], m[2])));
            let (even_b, odd_b) = (S::add(m[3], m[4]), S::mul(S::splat(Self::B), S::sub(m[3], m[4])));
            let (a2, b2) = (S::splat(Self::A2), S::splat(Self::B2));
            [
                S::add(m[0], S::add(even_a, even_b)),
                S::add(odd_a, odd_b),
                S::mul_add(b2, even_b, S::mul(a2, even_a)),
                S::add(m[5], S::mul_add(b2, odd_b, S::mul(a2, odd_a))),
            ]
        }
    }

    #[inline(always)]
    unsafe fn gradient<S: Simd>(y: &[S::Vector; MAX_INPUTS]) -> [S::Vector; MAX_INPUTS] {
        // SAFETY: as above.
        unsafe {
            let (a, b, a2, b2) = (S::splat(Self::A), S::splat(Self::B), S::splat(Self::A2), S::splat(Self::B2));
            let (even_a, odd_a) = (S::mul_add(a2, y[2], y[0]), S::mul(a, S::mul_add(a2, y[3], y[1])));
            let (even_b, odd_b) = (S::mul_add(b2, y[2], y[0]), S::mul(b, S::mul_add(b2, y[3], y[1])));
            [y[0], S::add(even_a, odd_a), S::sub(even_a, odd_a), S::add(even_b, odd_b), S::sub(even_b, odd_b), y[3]]
        }
    }
}

impl Winograd {
    pub(super) fn new(
        isa: Isa,
        shape: ConvShape,
        tile: Tile,
        weight: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Self, KernelError> {
        if (shape.kernel, shape.stride, shape.dilation, shape.groups) != ([3; 2], [1; 2], [1; 2], 1) {
            let what = "a shape other than 3×3, stride 1, dilation 1, one group";
            return Err(KernelError::Window { operation: "Winograd convolution", what });
        }
        let transform: &[[f64; 3]] = match tile {
            Tile::Two => Two::KERNEL,
            Tile::Four => Four::KERNEL,
        };
        let lanes = isa.lanes();
        let [inputs, outputs] = shape.channels;
        let mut weights = Buffer::zeros(tile.inputs().pow(2) * inputs * outputs.next_multiple_of(lanes));
        let element_len = inputs * outputs.next_multiple_of(lanes);
        for output in 0..outputs {
            let block = output / lanes;
            let pair = Pair::of(block, outputs.div_ceil(lanes));
            for input in 0..inputs {
                let kernel = &weight[(output * inputs + input) * 9..][..9];
                let to = (pair.first * inputs + input * pair.blocks + (block - pair.first)) * lanes + output % lanes;
                for (i, row) in transform.iter().enumerate() {
                    for (j, column) in transform.iter().enumerate() {
                        let terms =
                            kernel.iter().enumerate().map(|(k, tap)| f64::from(*tap) * row[k / 3] * column[k % 3]);
                        weights[(i * tile.inputs() + j) * element_len + to] = terms.sum::<f64>() as f32;
                    }
                }
            }
        }
        Ok(Self { isa, shape, tile, weights, bias: pad_bias(bias, outputs, lanes) })
    }
}

/// Two neighbouring output blocks, or the last one alone.
pub(crate) struct Pair {
    pub first: usize,
    pub blocks: usize,
}

impl Pair {
    #[inline(always)]
    pub fn of(block: usize, blocks: usize) -> Self {
        let first = block / 2 * 2;
        Self { first, blocks: (blocks - first).min(2) }
    }
}

/// Tiles that a task transforms at once, at most: what it reads and writes for each element stays in the second-level
/// cache, and the weights are read once for so many.
const MAX_TILES: usize = 56;

pub(super) struct WinogradOperation {
    conv: Arc<Winograd>,
    job: Job,
    /// Tiles of an image, down and across; those of all images are divided into `chunks`, their output blocks into
    /// `parts`.
    tiles: [usize; 2],
    chunks: usize,
    parts: usize,
}

impl WinogradOperation {
    pub fn new(conv: Arc<Winograd>, job: Job, threads: usize) -> Self {
        let side = conv.tile.outputs();
        let tiles = [job.output.height.div_ceil(side), job.output.width.div_ceil(side)];
        let total = job.output.batch * tiles[0] * tiles[1];
        let mut chunks = total.div_ceil(MAX_TILES).max(1);
        let mut parts = 1;
        if threads > 1 {
            let wanted = threads * 2;
            match total / wanted >= FEW_TILES {
                true => chunks = chunks.max(wanted).next_multiple_of(threads),
                // Few tiles: each thread transforms them all, and makes other output channels of them.
                false => parts = wanted.div_ceil(chunks).min(job.output.blocks().div_ceil(2)).max(1),
            }
        }
        Self { conv, job, tiles, chunks, parts }
    }

    fn total(&self) -> usize {
        self.job.output.batch * self.tiles[0] * self.tiles[1]
    }

    fn lengths(&self, tiles: usize, blocks: usize) -> Lengths {
        // An element's end is padded by a vector: equal elements of a square else fall on the same lines of the cache.
        let len = |blocks: usize| blocks * tiles * self.conv.isa.lanes() + MAX_LANES;
        Lengths { element_in: len(self.job.input.blocks()), element_out: len(blocks) }
    }
}

/// Fewer tiles than this would not be worth reading the weights for.
const FEW_TILES: usize = 24;

impl Operation for WinogradOperation {
    fn tasks(&self) -> usize {
        self.chunks * self.parts
    }

    fn inputs(&self) -> Vec<Layout> {
        self.job.inputs()
    }

    fn output(&self) -> Layout {
        self.job.output
    }

    unsafe fn run(&self, task: usize, inputs: &[*const f32], output: *mut f32) {
        let sum = inputs.get(1).copied().unwrap_or(ptr::null());
        let (conv, input) = (&self.conv, inputs[0]);
        let (chunk, part) = (task / self.parts, task % self.parts);
        let elements = conv.tile.inputs().pow(2);
        // The first pieces are the longest.
        let tiles = piece(self.total(), self.chunks, 0).len();
        let blocks = piece(self.job.output.blocks().div_ceil(2), self.parts, 0).len() * 2;
        let Lengths { element_in, element_out } = self.lengths(tiles, blocks);
        with_scratch(elements * (element_in + element_out), |scratch| {
            let scratch = scratch.as_mut_ptr();
            // SAFETY: the instruction set was found on this processor, and the pointers are the caller's promise.
            unsafe {
                let task = Task { operation: self, chunk, part, input, sum, output, scratch };
                match conv.tile {
                    Tile::Two => conv.isa.call(Transformed(task, PhantomData::<Two>)),
                    Tile::Four => conv.isa.call(Transformed(task, PhantomData::<Four>)),
                }
            }
        });
    }
}

/// Floats that a task's transformed inputs and products take for each element, each `[block][tile][lanes]`.
struct Lengths {
    element_in: usize,
    element_out: usize,
}

struct Task<'a> {
    operation: &'a WinogradOperation,
    chunk: usize,
    part: usize,
    input: *const f32,
    sum: *const f32,
    output: *mut f32,
    scratch: *mut f32,
}

/// A task with its transforms.
struct Transformed<'a, T>(Task<'a>, PhantomData<T>);

impl<T: Transform> Kernel for Transformed<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let WinogradOperation { job, tiles, chunks, parts, .. } = self.0.operation;
        let chunk = piece(self.0.operation.total(), *chunks, self.0.chunk);
        let output_blocks = job.output.blocks();
        let pairs = piece(output_blocks.div_ceil(2), *parts, self.0.part);
        let blocks = pairs.start * 2..output_blocks.min(pairs.end * 2);
        let elements = T::INPUTS * T::INPUTS;

        let Lengths { element_in, element_out } = self.0.operation.lengths(chunk.len(), blocks.len());
        let block_len = chunk.len() * S::LANES;
        // SAFETY: the layouts have been checked against the shape, the pointers are valid for the layouts, and the
        // scratch memory is as large as the lengths say.
        unsafe {
            let (transformed, products) = (self.0.scratch, self.0.scratch.add(elements * element_in));
            for block in 0..job.input.blocks() {
                for (i, tile) in chunk.clone().enumerate() {
                    let place = Place::new(tile, *tiles);
                    let to = transformed.add(block * block_len + i * S::LANES);
                    self.transform_input::<S>(&place, block, to, element_in);
                }
            }
            for element in 0..elements {
                let from = transformed.add(element * element_in);
                let to = products.add(element * element_out);
                self.multiply::<S>(element, chunk.len(), blocks.clone(), from, to);
            }
            for (b, block) in blocks.enumerate() {
                for (i, tile) in chunk.clone().enumerate() {
                    let place = Place::new(tile, *tiles);
                    let from = products.add(b * block_len + i * S::LANES);
                    self.transform_output::<S>(&place, block, from, element_out);
                }
            }
        }
    }
}

/// Where a tile lies.
struct Place {
    image: usize,
    row: usize,
    column: usize,
}

impl Place {
    #[inline(always)]
    fn new(tile: usize, [down, across]: [usize; 2]) -> Self {
        Self { image: tile / (down * across), row: tile / across % down, column: tile % across }
    }
}

impl<T: Transform> Transformed<'_, T> {
    #[inline(always)]
    unsafe fn transform_input<S: Simd>(&self, place: &Place, block: usize, to: *mut f32, element: usize) {
        let (input, shape) = (&self.0.operation.job.input, &self.0.operation.conv.shape);
        let side = T::INPUTS as isize;
        let top = (place.row * T::OUTPUTS) as isize - shape.padding[0] as isize;
        let left = (place.column * T::OUTPUTS) as isize - shape.padding[1] as isize;
        let (height, width, halo) = (input.height as isize, input.width as isize, input.halo as isize);
        // SAFETY: rows are read only where they exist, columns where they or their halo do.
        unsafe {
            let origin = self.0.input.add(input.at(place.image, block, 0));
            let inside = top >= 0 && top + side <= height && left >= -halo && left + side <= width + halo;
            let mut rows = [[S::splat(0.0); MAX_INPUTS]; MAX_INPUTS];
            for (y, row) in rows.iter_mut().enumerate().take(T::INPUTS) {
                let mut values = [S::splat(0.0); MAX_INPUTS];
                let line = top + y as isize;
                if inside {
                    let from = origin.offset(line * input.row() as isize + left * S::LANES as isize);
                    for (x, value) in values.iter_mut().enumerate().take(T::INPUTS) {
                        *value = S::load(from.add(x * S::LANES));
                    }
                } else if (0..height).contains(&line) {
                    let from = origin.offset(line * input.row() as isize);
                    for (x, value) in values.iter_mut().enumerate().take(T::INPUTS) {
                        let column = left + x as isize;
                        if (0..width).contains(&column) {
                            *value = S::load(from.offset(column * S::LANES as isize));
                        }
                    }
                }
                *row = T::input::<S>(&values);
            }
            for x in 0..T::INPUTS {
                let mut values = [S::splat(0.0); MAX_INPUTS];
                for (value, row) in values.iter_mut().zip(&rows).take(T::INPUTS) {
                    *value = row[x];
                }
                for (y, value) in T::input::<S>(&values).into_iter().enumerate().take(T::INPUTS) {
                    S::store(to.add((y * T::INPUTS + x) * element), value);
                }
            }
        }
    }

    /// The product of one element: a 1×1 convolution whose pixels are the tiles.
    #[inline(always)]
    unsafe fn multiply<S: Simd>(
        &self,
        element: usize,
        count: usize,
        blocks: std::ops::Range<usize>,
        from: *const f32,
        to: *mut f32,
    ) {
        let WinogradOperation { conv, job, .. } = self.0.operation;
        let (input_blocks, output_blocks) = (job.input.blocks(), job.output.blocks());
        let inputs = conv.shape.channels[0];
        let block_len = count * S::LANES;
        let parts = count.div_ceil(S::PIXELS);
        // SAFETY: as in `run`.
        unsafe {
            let weights = conv.weights.as_ptr().add(element * inputs * output_blocks * S::LANES);
            for block in blocks.clone().step_by(2) {
                let pair = Pair::of(block, output_blocks);
                for part in 0..parts {
                    let tiles = piece(count, parts, part);
                    let args = TileArgs {
                        input: from.add(tiles.start * S::LANES),
                        weights: weights.add(block * inputs * S::LANES),
                        output: to.add((block - blocks.start) * block_len + tiles.start * S::LANES),
                        output_block: block_len,
                        blocks: input_blocks,
                        input_block: block_len,
                        weights_block: S::LANES * pair.blocks * S::LANES,
                        run: S::LANES,
                        run_last: job.input.block_channels(input_blocks - 1),
                        pixel_step: S::LANES,
                        ..TileArgs::PRODUCT
                    };
                    tile::<S>(tiles.len(), pair.blocks, &args);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn transform_output<S: Simd>(&self, place: &Place, block: usize, from: *const f32, element: usize) {
        let WinogradOperation { conv, job, tiles, .. } = self.0.operation;
        let output = &job.output;
        let (top, left) = (place.row * T::OUTPUTS, place.column * T::OUTPUTS);
        // SAFETY: as in `run`; pixels are written only where they exist.
        unsafe {
            let mut columns = [[S::splat(0.0); MAX_OUTPUTS]; MAX_INPUTS];
            for (x, column) in columns.iter_mut().enumerate().take(T::INPUTS) {
                let mut values = [S::splat(0.0); MAX_INPUTS];
                for (y, value) in values.iter_mut().enumerate().take(T::INPUTS) {
                    *value = S::load(from.add((y * T::INPUTS + x) * element));
                }
                *column = T::output::<S>(&values);
            }
            let bias = S::load(conv.bias.as_ptr().add(block * S::LANES));
            for y in 0..T::OUTPUTS.min(output.height - top) {
                let mut values = [S::splat(0.0); MAX_INPUTS];
                for (value, column) in values.iter_mut().zip(&columns).take(T::INPUTS) {
                    *value = column[y];
                }
                let row = self.0.output.add(output.at(place.image, block, top + y));
                let sum = match job.epilogue.sum {
                    Some(layout) => self.0.sum.add(layout.at(place.image, block, top + y)),
                    None => ptr::null(),
                };
                let width = T::OUTPUTS.min(output.width - left);
                for (x, value) in T::output::<S>(&values).into_iter().enumerate().take(width) {
                    let mut value = S::add(value, bias);
                    let at = (left + x) * S::LANES;
                    if !sum.is_null() {
                        value = S::add(value, S::load(sum.add(at)));
                    }
                    if job.epilogue.relu {
                        value = S::max(S::splat(0.0), value);
                    }
                    S::store(row.add(at), value);
                }
                if place.column + 1 == tiles[1] {
                    output.clear_halo(row);
                }
            }
        }
    }
}
