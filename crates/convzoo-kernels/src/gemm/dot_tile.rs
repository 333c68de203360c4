//! The register tile whose vectors lie along pixels and are summed: dot products of planes.

use crate::simd::{Kernel, Simd};

/// What a dot tile works on: some outputs of a weight, some taps, all pixels of some pieces.
#[derive(Clone, Copy)]
pub(crate) struct DotTileArgs<'a> {
    pub pieces: usize,
    /// Of a piece's cells.
    pub vectors: usize,
    /// The first piece's input, and the step to the next.
    pub input: *const f32,
    pub input_step: usize,
    /// The input of the first cell at each tap of the tile.
    pub places: &'a [usize],
    /// The first output's first cell, and the steps to the next piece and the next output.
    pub gradient: *const f32,
    pub gradient_step: usize,
    pub plane: usize,
    /// The first output's first sum, and the step to the next output.
    pub sums: *mut f32,
    pub step: usize,
}

/// The sums of `ROWS` outputs by `TAPS` taps.
struct DotTile<'a, const ROWS: usize, const TAPS: usize>(DotTileArgs<'a>);

impl<const ROWS: usize, const TAPS: usize> Kernel for DotTile<'_, ROWS, TAPS> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let DotTileArgs { pieces, vectors, input, input_step, places, gradient, gradient_step, plane, sums, step } =
            self.0;
        // SAFETY: the pointers are valid for all vectors, taps and outputs, the promise of whoever made them.
        unsafe {
            let mut totals = [[S::splat(0.0); TAPS]; ROWS];
            for piece in 0..pieces {
                let (input, gradient) = (input.add(piece * input_step), gradient.add(piece * gradient_step));
                let mut inputs = [input; TAPS];
                inputs.iter_mut().zip(places).for_each(|(at_tap, &place)| *at_tap = input.add(place));
                for at in (0..vectors).map(|vector| vector * S::LANES) {
                    let mut values = [S::splat(0.0); TAPS];
                    values.iter_mut().zip(inputs).for_each(|(value, at_tap)| *value = S::load(at_tap.add(at)));
                    for (r, totals) in totals.iter_mut().enumerate() {
                        let gradient = S::load(gradient.add(r * plane + at));
                        for (total, value) in totals.iter_mut().zip(values) {
                            *total = S::mul_add(gradient, value, *total);
                        }
                    }
                }
            }
            for (r, totals) in totals.into_iter().enumerate() {
                for (t, total) in totals.into_iter().enumerate() {
                    let sum = sums.add(r * step + t * S::LANES);
                    S::store(sum, S::add(S::load(sum), total));
                }
            }
        }
    }
}

/// Adds the sums of `rows` outputs, at most half of [`Simd::PIXELS`], and 1 to 4 taps.
///
/// # Safety
/// The processor has `S`'s instructions, and all that the arguments point to is there.
#[inline(always)]
pub(crate) unsafe fn dot_tile<S: Simd>(rows: usize, args: DotTileArgs) {
    macro_rules! dispatch {
        ($($rows:literal)*) => {
            match (rows, args.places.len()) {
                // Tiles larger than the registers are never asked for, and so not compiled.
                // SAFETY: the caller's promise.
                $(
                    ($rows, 1) if $rows <= (S::PIXELS / 2).max(1) => unsafe { S::call(DotTile::<$rows, 1>(args)) },
                    ($rows, 2) if $rows <= (S::PIXELS / 2).max(1) => unsafe { S::call(DotTile::<$rows, 2>(args)) },
                    ($rows, 3) if $rows <= (S::PIXELS / 2).max(1) => unsafe { S::call(DotTile::<$rows, 3>(args)) },
                    ($rows, 4) if $rows <= (S::PIXELS / 2).max(1) => unsafe { S::call(DotTile::<$rows, 4>(args)) },
                )*
                _ => unreachable!("tiles have 1 to {} rows and 1 to 4 taps", S::PIXELS / 2),
            }
        };
    }
    dispatch!(1 2 3 4 5 6 7)
}
