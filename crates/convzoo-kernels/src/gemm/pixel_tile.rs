//! The register tile whose vectors lie along pixels: weights are broadcast.

use std::marker::PhantomData;

use super::ChannelAffine;
use crate::number::Number;
use crate::simd::{Isa, Kernel, Simd};

/// What a pixel tile works on: some rows of a weight, some neighboring vectors of pixels, in cells ([`Number`]).
#[derive(Clone, Copy)]
pub(crate) struct PixelTileArgs<'a> {
    /// Channels, or pairs of them, that are summed, and the step from the pixels of one to those of the next.
    pub channels: usize,
    pub channel_step: usize,
    /// Where the pixels of each tap lie.
    pub taps: &'a [usize],
    /// `[channel, tap][row]`.
    pub weights: *const f32,
    /// The first pixel.
    pub pixels: *const f32,
    /// The first row of the result, and the step to the next.
    pub to: *mut f32,
    pub step: usize,
    /// Whether the result is added to what is there.
    pub add: bool,
    /// What follows the last addition.
    pub last: Option<ChannelAffine<'a>>,
}

/// A tile of `ROWS` by `VECTORS`.
struct PixelTile<'a, N, const ROWS: usize, const VECTORS: usize>(PixelTileArgs<'a>, PhantomData<N>);

impl<N: Number, const ROWS: usize, const VECTORS: usize> Kernel for PixelTile<'_, N, ROWS, VECTORS> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let PixelTileArgs { channels, channel_step, taps, mut weights, mut pixels, to, step, add, last } = self.0;
        // SAFETY: the pointers are valid for all channels, taps, rows and vectors, the promise of whoever made them.
        unsafe {
            let mut totals = [[S::splat(0.0); VECTORS]; ROWS];
            for _ in 0..channels {
                for &tap in taps {
                    let mut values = [S::splat(0.0); VECTORS];
                    for (v, value) in values.iter_mut().enumerate() {
                        *value = S::load(pixels.add(tap + v * S::LANES));
                    }
                    for (r, totals) in totals.iter_mut().enumerate() {
                        let weight = S::splat(*weights.add(r));
                        for (total, value) in totals.iter_mut().zip(values) {
                            *total = N::mul_add::<S>(weight, value, *total);
                        }
                    }
                    weights = weights.add(ROWS);
                }
                pixels = pixels.wrapping_add(channel_step);
            }
            for (r, totals) in totals.into_iter().enumerate() {
                for (v, mut total) in totals.into_iter().enumerate() {
                    let to = to.add(r * step + v * S::LANES);
                    if add {
                        total = S::add(total, S::load(to));
                    }
                    if let Some(affine) = last {
                        total = affine.apply::<S>(r, total);
                    }
                    S::store(to, total);
                }
            }
        }
    }
}

/// Computes a tile of `rows` by 2 vectors, or of at most half of [`tile_rows`] by 1 or 4.
///
/// # Safety
/// The processor has `S`'s instructions, and all that the arguments point to is there.
#[inline(always)]
pub(crate) unsafe fn pixel_tile<S: Simd, N: Number>(rows: usize, vectors: usize, args: PixelTileArgs) {
    macro_rules! dispatch {
        ($($rows:literal)*) => {
            match (rows, vectors) {
                // Tiles larger than the registers are never asked for, and so not compiled.
                // SAFETY: the caller's promise.
                $(
                    ($rows, 1) if $rows <= (S::PIXELS / 2).max(1) => unsafe { S::call(PixelTile::<N, $rows, 1>(args, PhantomData)) },
                    ($rows, 2) if $rows <= S::PIXELS => unsafe { S::call(PixelTile::<N, $rows, 2>(args, PhantomData)) },
                    ($rows, 4) if $rows <= (S::PIXELS / 2).max(1) => unsafe { S::call(PixelTile::<N, $rows, 4>(args, PhantomData)) },
                )*
                _ => unreachable!("tiles have 1 to {} rows and 1, 2 or 4 vectors", S::PIXELS),
            }
        };
    }
    dispatch!(1 2 3 4 5 6 7 8 9 10 11 12 13 14)
}

/// Rows of a tile of two vectors that fills the registers.
pub(crate) fn tile_rows(isa: Isa) -> usize {
    struct Rows;
    impl Kernel for Rows {
        type Output = usize;

        #[inline(always)]
        unsafe fn run<S: Simd>(self) -> usize {
            S::PIXELS
        }
    }
    // SAFETY: the instruction set comes from detection.
    unsafe { isa.call(Rows) }
}
