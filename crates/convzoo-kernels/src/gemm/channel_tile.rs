//! The register tile whose vectors lie along output channels: pixels are broadcast.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ptr;

use crate::elementwise::cut;
use crate::number::Number;
use crate::simd::{Kernel, MAX_LANES, Simd};

/// What a channel tile works on: some neighboring pixels of one row, one or two blocks of output channels.
///
/// Inputs and weights are cells of 32 bits, see [`Number`]: an `f32` or two neighboring bfloat16 numbers. All lengths and
/// steps of theirs are in cells, those of outputs, which are numbers `O`, in values.
#[derive(Clone, Copy)]
pub(crate) struct ChannelTileArgs<O> {
    /// The first tap of the first pixel in the first input block.
    pub input: *const f32,
    /// `[input block][row][tap][channel][output block][lanes]`.
    pub weights: *const f32,
    /// One value per output channel.
    pub bias: *const f32,
    /// Added to the output unless null.
    pub sum: *const O,
    /// The first pixel in the first output block.
    pub output: *mut O,
    /// From one output block to the next, of `sum` and of `output`.
    pub sum_block: usize,
    pub output_block: usize,
    /// Input blocks; from one to the next, in the input and in the weights.
    pub blocks: usize,
    pub input_block: usize,
    pub weights_block: usize,
    /// Rows of the kernel that are used, and how many before them are not; from one to the next in the input.
    pub rows: usize,
    pub skipped_rows: usize,
    pub row_step: usize,
    /// Taps of a row; from one to the next in the input.
    pub taps: usize,
    pub tap_step: usize,
    /// What is summed at each tap: `run` cells, `run_last` in the last block, `run_step` apart.
    pub run: usize,
    pub run_last: usize,
    pub run_step: usize,
    /// From one pixel to the next in the input.
    pub pixel_step: usize,
    /// What the outputs are cut at, lower and upper.
    pub bounds: [f32; 2],
}

static NO_BIAS: [f32; 2 * MAX_LANES] = [0.0; 2 * MAX_LANES];

impl<O> ChannelTileArgs<O> {
    /// A product of matrices: a window of one tap, and nothing added. What is null or zero here has to be said, but for
    /// the sum.
    pub const PRODUCT: Self = {
        Self {
            input: ptr::null(),
            weights: ptr::null(),
            bias: NO_BIAS.as_ptr(),
            sum: ptr::null(),
            output: ptr::null_mut(),
            sum_block: 0,
            output_block: 0,
            blocks: 1,
            input_block: 0,
            weights_block: 0,
            rows: 1,
            skipped_rows: 0,
            row_step: 0,
            taps: 1,
            tap_step: 0,
            run: 0,
            run_last: 0,
            run_step: 1,
            pixel_step: 1,
            bounds: [f32::NEG_INFINITY, f32::INFINITY],
        }
    };
}

/// A tile of `PIXELS` by `BLOCKS` of the `PACKED` blocks whose weights lie together, of numbers `I` into numbers `O`. `STEP`:
/// the pixel step where it is known while compiling, else 0.
struct ChannelTile<'a, I, O, const PIXELS: usize, const BLOCKS: usize, const PACKED: usize, const STEP: usize>(
    &'a ChannelTileArgs<O>,
    PhantomData<I>,
);

impl<I: Number, O: Number, const PIXELS: usize, const BLOCKS: usize, const PACKED: usize, const STEP: usize> Kernel
    for ChannelTile<'_, I, O, PIXELS, BLOCKS, PACKED, STEP>
{
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let args = self.0;
        let step = if STEP > 0 { STEP } else { args.pixel_step };
        // SAFETY: the pointers and steps stay within tensors and packed weights, which is the promise of whoever made
        // the arguments.
        unsafe {
            let mut totals = [[S::splat(0.0); BLOCKS]; PIXELS];
            let (mut input_block, mut weights_block) = (args.input, args.weights);
            for block in 0..args.blocks {
                let run = if block + 1 < args.blocks { args.run } else { args.run_last };
                let mut input_row = input_block;
                let mut weights = weights_block.add(args.skipped_rows * args.taps * run * PACKED * S::LANES);
                for _ in 0..args.rows {
                    let mut input_tap = input_row;
                    for _ in 0..args.taps {
                        let mut input = input_tap;
                        for _ in 0..run {
                            let mut weight = [S::splat(0.0); BLOCKS];
                            for (b, weight) in weight.iter_mut().enumerate() {
                                *weight = S::load(weights.add(b * S::LANES));
                            }
                            for (p, totals) in totals.iter_mut().enumerate() {
                                let pixel = S::splat(*input.add(p * step));
                                for (total, weight) in totals.iter_mut().zip(weight) {
                                    *total = I::mul_add::<S>(pixel, weight, *total);
                                }
                            }
                            weights = weights.wrapping_add(PACKED * S::LANES);
                            input = input.wrapping_add(args.run_step);
                        }
                        input_tap = input_tap.wrapping_add(args.tap_step);
                    }
                    input_row = input_row.wrapping_add(args.row_step);
                }
                input_block = input_block.wrapping_add(args.input_block);
                weights_block = weights_block.wrapping_add(args.weights_block);
            }

            for b in 0..BLOCKS {
                let bias = S::load(args.bias.add(b * S::LANES));
                let output = args.output.add(b * args.output_block);
                for (p, totals) in totals.iter().enumerate() {
                    let mut total = S::add(totals[b], bias);
                    if !args.sum.is_null() {
                        total = S::add(total, O::load::<S>(args.sum.add(b * args.sum_block + p * S::LANES)));
                    }
                    O::store::<S>(output.add(p * S::LANES), cut::<S>(args.bounds, total));
                }
            }
        }
    }
}

/// Computes a tile of `pixels` (at most [`Simd::PIXELS`]) by `blocks` (1 or 2).
///
/// # Safety
/// All that the arguments point to is there.
#[inline(always)]
pub(crate) unsafe fn channel_tile<S: Simd, I: Number, O: Number>(
    pixels: usize,
    blocks: usize,
    args: &ChannelTileArgs<O>,
) {
    // SAFETY: the caller's promise; the second block's weights, bias and outputs lie after the first's.
    unsafe {
        match blocks {
            1 => with_blocks::<S, I, O, 1, 1>(pixels, args),
            _ if const { S::BLOCKS == 2 } => with_blocks::<S, I, O, 2, 2>(pixels, args),
            _ => {
                with_blocks::<S, I, O, 1, 2>(pixels, args);
                let (weights, bias) = (args.weights.add(S::LANES), args.bias.add(S::LANES));
                let sum = if args.sum.is_null() { args.sum } else { args.sum.add(args.sum_block) };
                let output = args.output.add(args.output_block);
                with_blocks::<S, I, O, 1, 2>(pixels, &ChannelTileArgs { weights, bias, sum, output, ..*args });
            }
        }
    }
}

#[inline(always)]
unsafe fn with_blocks<S: Simd, I: Number, O: Number, const BLOCKS: usize, const PACKED: usize>(
    pixels: usize,
    args: &ChannelTileArgs<O>,
) {
    // The steps are those of a stride of 1 or 2 over blocks or planes, and 4 over planes, and from one row of a packed window
    // to the next. Planes are of `f32`, and products of bfloat16 numbers in `f32` have a stride of 1. What is
    // constant and false is not compiled.
    macro_rules! with {
        ($step:expr) => {
            // SAFETY: as above.
            unsafe { with_step::<S, I, O, BLOCKS, PACKED, { $step }>(pixels, args) }
        };
    }
    match args.pixel_step {
        ROW_STEP if const { O::PER_CELL == 1 } => with!(ROW_STEP),
        4 if const { I::PER_CELL == 1 || S::LANES == 8 } => with!(4),
        8 if const { steps::<S, I, O>(8) } => with!(8),
        16 if const { steps::<S, I, O>(16) } => with!(16),
        32 if const { steps::<S, I, O>(32) } => with!(32),
        1 if const { I::PER_CELL == 1 } => with!(1),
        2 if const { I::PER_CELL == 1 } => with!(2),
        _ if const { I::PER_CELL == 1 || O::PER_CELL == 2 } => with!(0),
        step => unreachable!("a product of pixels {step} apart"),
    }
}

/// Whether pixels of blocks may lie so many cells apart: 1 or 2 of them, but 1 where numbers become others.
const fn steps<S: Simd, I: Number, O: Number>(step: usize) -> bool {
    let pixel = S::LANES / I::PER_CELL;
    match (I::PER_CELL, O::PER_CELL) {
        (1, 2) => false,
        (2, 1) => step == pixel,
        _ => step == pixel || step == 2 * pixel,
    }
}

#[inline(always)]
unsafe fn with_step<S: Simd, I: Number, O: Number, const BLOCKS: usize, const PACKED: usize, const STEP: usize>(
    pixels: usize,
    args: &ChannelTileArgs<O>,
) {
    macro_rules! dispatch {
        ($($pixels:literal)*) => {
            match pixels {
                // Tiles larger than the registers are never asked for, and so not compiled.
                $($pixels if $pixels <= S::PIXELS => {
                    // SAFETY: as above.
                    unsafe { S::call(ChannelTile::<I, O, $pixels, BLOCKS, PACKED, STEP>(args, PhantomData)) }
                })*
                _ => unreachable!("tiles of 1 to {} pixels", S::PIXELS),
            }
        };
    }
    dispatch!(1 2 3 4 5 6 7 8 9 10 11 12 13 14)
}

/// From one row of a packed window to the next: of lines of a cache an odd number, so that neighboring rows lie in
/// different sets of it.
pub const ROW_STEP: usize = 13 * 16;
