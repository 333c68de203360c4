//! The register tile of convolutions of bytes: that of [`channel_tile`](crate::gemm::channel_tile), with four channels in
//! the place of one.
#![allow(unsafe_code)]

use crate::elementwise::cut;
use crate::simd::Simd;
use crate::simd::dot::{Dot, DotKernel};

/// What a tile works on: some neighboring pixels of one row, one or two blocks of output channels.
///
/// Lengths and steps in the input, the sum and the weights are in bytes, in the output in its numbers.
#[derive(Clone)]
pub struct TileArgs {
    /// The first tap of the first pixel in the first input block.
    pub input: *const u8,
    /// `[input block][row][tap][quad][output block][lanes][four channels]`.
    pub weights: *const i8,
    /// What sums begin with, by output channel.
    pub start: *const i32,
    /// By output channel.
    pub multiplier: *const f32,
    pub offset: *const f32,
    /// Added to the output unless null, times its multiplier; and from one output block to the next.
    pub sum: *const u8,
    pub sum_multiplier: f32,
    pub sum_block: usize,
    /// The first pixel in the first output block, of bytes or floats; and from one output block to the next.
    pub output: Pixels,
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
    /// Groups of four channels at each tap, and in the last block.
    pub run: usize,
    pub run_last: usize,
    /// From one pixel to the next in the input.
    pub pixel_step: usize,
    /// What the outputs are cut at, lower and upper.
    pub bounds: [f32; 2],
}

/// Where outputs are written.
#[derive(Clone, Copy)]
pub enum Pixels {
    Bytes(*mut u8),
    Floats(*mut f32),
}

impl Pixels {
    /// So many numbers further.
    ///
    /// # Safety
    /// They are there.
    #[inline(always)]
    pub unsafe fn add(self, numbers: usize) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::Bytes(to) => Self::Bytes(to.add(numbers)),
                Self::Floats(to) => Self::Floats(to.add(numbers)),
            }
        }
    }
}

/// A tile of `PIXELS` by `BLOCKS`. `STEP`: the pixel step where it is known while compiling, else 0.
struct Tile<'a, const PIXELS: usize, const BLOCKS: usize, const STEP: usize>(&'a TileArgs);

impl<const PIXELS: usize, const BLOCKS: usize, const STEP: usize> DotKernel for Tile<'_, PIXELS, BLOCKS, STEP> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<D: Dot>(self) {
        let args = self.0;
        let lanes = D::Float::LANES;
        let step = if STEP > 0 { STEP } else { args.pixel_step };
        // SAFETY: the pointers and steps stay within tensors and packed weights, which is the promise of whoever made
        // the arguments.
        unsafe {
            let mut first = [D::sums(args.start); BLOCKS];
            for (b, first) in first.iter_mut().enumerate() {
                *first = D::sums(args.start.add(b * lanes));
            }
            let mut totals = [first; PIXELS];
            let (mut input_block, mut weights_block) = (args.input, args.weights);
            for block in 0..args.blocks {
                let run = if block + 1 < args.blocks { args.run } else { args.run_last };
                let mut input_row = input_block;
                let mut weights = weights_block.add(args.skipped_rows * args.taps * run * BLOCKS * lanes * 4);
                for _ in 0..args.rows {
                    let mut input_tap = input_row;
                    for _ in 0..args.taps {
                        let mut input = input_tap;
                        for _ in 0..run {
                            let mut weight = [D::weights(weights); BLOCKS];
                            for (b, weight) in weight.iter_mut().enumerate().skip(1) {
                                *weight = D::weights(weights.add(b * lanes * 4));
                            }
                            for (p, totals) in totals.iter_mut().enumerate() {
                                let values = D::values(input.add(p * step));
                                for (total, weight) in totals.iter_mut().zip(weight) {
                                    *total = D::dot(*total, values, weight);
                                }
                            }
                            weights = weights.wrapping_add(BLOCKS * lanes * 4);
                            input = input.wrapping_add(4);
                        }
                        input_tap = input_tap.wrapping_add(args.tap_step);
                    }
                    input_row = input_row.wrapping_add(args.row_step);
                }
                input_block = input_block.wrapping_add(args.input_block);
                weights_block = weights_block.wrapping_add(args.weights_block);
            }

            // In small loops, which the compiler unrolls: it keeps sums in registers only if no index is left.
            let mut floats = [[D::Float::splat(0.0); BLOCKS]; PIXELS];
            for b in 0..BLOCKS {
                let multiplier = D::Float::load(args.multiplier.add(b * lanes));
                let offset = D::Float::load(args.offset.add(b * lanes));
                for (floats, totals) in floats.iter_mut().zip(&totals) {
                    floats[b] = D::Float::add(D::Float::mul(D::float(totals[b]), multiplier), offset);
                }
            }
            if !args.sum.is_null() {
                for b in 0..BLOCKS {
                    for (p, floats) in floats.iter_mut().enumerate() {
                        let added = D::Float::load_bytes(args.sum.add(b * args.sum_block + p * lanes));
                        let added = D::Float::mul(added, D::Float::splat(args.sum_multiplier));
                        floats[b] = D::Float::add(floats[b], added);
                    }
                }
            }
            for b in 0..BLOCKS {
                match args.output.add(b * args.output_block) {
                    Pixels::Bytes(to) => {
                        for (p, floats) in floats.iter().enumerate() {
                            D::Float::store_bytes(to.add(p * lanes), cut::<D::Float>(args.bounds, floats[b]));
                        }
                    }
                    Pixels::Floats(to) => {
                        for (p, floats) in floats.iter().enumerate() {
                            D::Float::store(to.add(p * lanes), cut::<D::Float>(args.bounds, floats[b]));
                        }
                    }
                }
            }
        }
    }
}

/// Computes a tile of `pixels` (at most [`Dot::PIXELS`]) by `blocks` (1 or 2).
///
/// # Safety
/// All that the arguments point to is there.
#[inline(always)]
pub unsafe fn tile<D: Dot>(pixels: usize, blocks: usize, args: &TileArgs) {
    // SAFETY: the caller's promise.
    unsafe {
        match blocks {
            1 => with_blocks::<D, 1>(pixels, args),
            _ => with_blocks::<D, 2>(pixels, args),
        }
    }
}

#[inline(always)]
unsafe fn with_blocks<D: Dot, const BLOCKS: usize>(pixels: usize, args: &TileArgs) {
    // SAFETY: as above. The steps are those of a stride of 1 or 2.
    unsafe {
        match args.pixel_step {
            8 if D::Float::LANES == 8 => with_step::<D, BLOCKS, 8>(pixels, args),
            16 => with_step::<D, BLOCKS, 16>(pixels, args),
            32 if D::Float::LANES == 16 => with_step::<D, BLOCKS, 32>(pixels, args),
            _ => with_step::<D, BLOCKS, 0>(pixels, args),
        }
    }
}

#[inline(always)]
unsafe fn with_step<D: Dot, const BLOCKS: usize, const STEP: usize>(pixels: usize, args: &TileArgs) {
    macro_rules! dispatch {
        ($($pixels:literal)*) => {
            match pixels {
                // Tiles larger than the registers are never asked for, and so not compiled.
                // SAFETY: as above.
                $($pixels if $pixels <= D::PIXELS => unsafe { D::enter(Tile::<$pixels, BLOCKS, STEP>(args)) },)*
                _ => unreachable!("tiles of 1 to {} pixels", D::PIXELS),
            }
        };
    }
    dispatch!(1 2 3 4 5 6 7 8 9 10 11 12 13 14)
}
