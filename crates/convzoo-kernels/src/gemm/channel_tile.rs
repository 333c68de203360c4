//! The register tile whose vectors lie along output channels: pixels are broadcast.
#![allow(unsafe_code)]

use std::ptr;

use crate::elementwise::cut;
use crate::simd::{Kernel, MAX_LANES, Simd};

/// What a channel tile works on: some neighboring pixels of one row, one or two blocks of output channels.
///
/// All lengths and steps are in floats.
#[derive(Clone, Copy)]
pub struct ChannelTileArgs {
    /// The first tap of the first pixel in the first input block.
    pub input: *const f32,
    /// `[input block][row][tap][channel][output block][lanes]`.
    pub weights: *const f32,
    /// One value per output channel.
    pub bias: *const f32,
    /// Added to the output unless null.
    pub sum: *const f32,
    /// The first pixel in the first output block.
    pub output: *mut f32,
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
    /// What is summed at each tap: `run` floats, `run_last` in the last block, `run_step` apart.
    pub run: usize,
    pub run_last: usize,
    pub run_step: usize,
    /// From one pixel to the next in the input.
    pub pixel_step: usize,
    /// What the outputs are cut at, lower and upper.
    pub bounds: [f32; 2],
}

impl ChannelTileArgs {
    /// A product of matrices: a window of one tap, and nothing added. What is null or zero here has to be said, but for
    /// the sum.
    pub const PRODUCT: Self = {
        static NO_BIAS: [f32; 2 * MAX_LANES] = [0.0; 2 * MAX_LANES];
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

/// A tile of `PIXELS` by `BLOCKS`. `STEP`: the pixel step where it is known while compiling, else 0.
struct ChannelTile<const PIXELS: usize, const BLOCKS: usize, const STEP: usize>(ChannelTileArgs);

impl<const PIXELS: usize, const BLOCKS: usize, const STEP: usize> Kernel for ChannelTile<PIXELS, BLOCKS, STEP> {
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
                let mut weights = weights_block.add(args.skipped_rows * args.taps * run * BLOCKS * S::LANES);
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
                                    *total = S::mul_add(pixel, weight, *total);
                                }
                            }
                            weights = weights.wrapping_add(BLOCKS * S::LANES);
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
                        total = S::add(total, S::load(args.sum.add(b * args.sum_block + p * S::LANES)));
                    }
                    S::store(output.add(p * S::LANES), cut::<S>(args.bounds, total));
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
pub unsafe fn channel_tile<S: Simd>(pixels: usize, blocks: usize, args: &ChannelTileArgs) {
    // SAFETY: the caller's promise.
    unsafe {
        match blocks {
            1 => with_blocks::<S, 1>(pixels, args),
            _ => with_blocks::<S, 2>(pixels, args),
        }
    }
}

#[inline(always)]
unsafe fn with_blocks<S: Simd, const BLOCKS: usize>(pixels: usize, args: &ChannelTileArgs) {
    // SAFETY: as above. The steps are those of a stride of 1 or 2 over blocks or planes, and 4 over planes, and from one
    // row of a packed window to the next.
    unsafe {
        match args.pixel_step {
            ROW_STEP => with_step::<S, BLOCKS, ROW_STEP>(pixels, args),
            8 if S::LANES == 8 => with_step::<S, BLOCKS, 8>(pixels, args),
            16 => with_step::<S, BLOCKS, 16>(pixels, args),
            32 if S::LANES == 16 => with_step::<S, BLOCKS, 32>(pixels, args),
            1 => with_step::<S, BLOCKS, 1>(pixels, args),
            2 => with_step::<S, BLOCKS, 2>(pixels, args),
            4 => with_step::<S, BLOCKS, 4>(pixels, args),
            _ => with_step::<S, BLOCKS, 0>(pixels, args),
        }
    }
}

#[inline(always)]
unsafe fn with_step<S: Simd, const BLOCKS: usize, const STEP: usize>(pixels: usize, args: &ChannelTileArgs) {
    macro_rules! dispatch {
        ($($pixels:literal)*) => {
            match pixels {
                // Tiles larger than the registers are never asked for, and so not compiled.
                // SAFETY: as above.
                $($pixels if $pixels <= S::PIXELS => unsafe { S::call(ChannelTile::<$pixels, BLOCKS, STEP>(*args)) },)*
                _ => unreachable!("tiles of 1 to {} pixels", S::PIXELS),
            }
        };
    }
    dispatch!(1 2 3 4 5 6 7 8 9 10 11 12 13 14)
}

/// From one row of a packed window to the next: of lines of a cache an odd number, so that neighboring rows lie in
/// different sets of it.
pub const ROW_STEP: usize = 13 * 16;
