//! Winograd's transforms: in one dimension, and of squares.

use crate::number::Number;
use crate::simd::Simd;

/// The transforms in one dimension.
pub(crate) trait Transform: Send + Sync + 'static {
    /// Outputs and inputs of a step.
    const OUTPUTS: usize;
    const INPUTS: usize;
    /// What a kernel's row or column is multiplied by.
    const KERNEL: &'static [[f64; 3]];

    unsafe fn input<S: Simd>(from: &[S::Vector; MAX_INPUTS]) -> [S::Vector; MAX_INPUTS];
    unsafe fn output<S: Simd>(from: &[S::Vector; MAX_INPUTS]) -> [S::Vector; MAX_OUTPUTS];

    /// The transpose of [`output`](Self::output): of a row or column of the output's gradient.
    unsafe fn gradient<S: Simd>(from: &[S::Vector; MAX_INPUTS]) -> [S::Vector; MAX_INPUTS];

    /// Of the three taps of a kernel's row or column; what follows them is not read.
    #[inline(always)]
    unsafe fn kernel<S: Simd>(taps: &[S::Vector; MAX_INPUTS]) -> [S::Vector; MAX_INPUTS] {
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

/// A transform of a row or a column of a square, in whose values the square's come first.
pub(crate) type Way<S, const N: usize> = unsafe fn(&[<S as Simd>::Vector; MAX_INPUTS]) -> [<S as Simd>::Vector; N];

/// A square of values to transform.
pub(crate) trait Square {
    /// A row, its values first.
    ///
    /// # Safety
    /// The processor has `S`'s instructions, and the square has the row.
    unsafe fn row<S: Simd>(&self, y: usize) -> [S::Vector; MAX_INPUTS];
}

/// Transforms rows and columns of a square of side `side` to a vector for each of `T::INPUTS`² elements, `step` apart.
///
/// # Safety
/// The processor has `S`'s instructions, and `to` has room.
#[inline(always)]
pub(crate) unsafe fn to_elements<S: Simd, T: Transform, N: Number>(
    way: Way<S, MAX_INPUTS>,
    side: usize,
    square: &impl Square,
    to: *mut N,
    step: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut rows = [[S::splat(0.0); MAX_INPUTS]; MAX_INPUTS];
        for (y, row) in rows.iter_mut().enumerate().take(side) {
            *row = way(&square.row::<S>(y));
        }
        for x in 0..T::INPUTS {
            let mut values = [S::splat(0.0); MAX_INPUTS];
            for (value, row) in values.iter_mut().zip(&rows).take(side) {
                *value = row[x];
            }
            for (y, value) in way(&values).into_iter().enumerate().take(T::INPUTS) {
                N::store::<S>(to.add((y * T::INPUTS + x) * step), value);
            }
        }
    }
}

/// Where the rows of a square go that is transformed back.
pub(crate) trait PutRow<const N: usize> {
    /// Puts a row.
    ///
    /// # Safety
    /// The processor has `S`'s instructions, and there is room for the row.
    unsafe fn put<S: Simd>(&self, y: usize, values: [S::Vector; N]);
}

/// Transforms elements, `step` apart, back along columns and rows and puts the first `rows` rows of the square.
///
/// # Safety
/// The processor has `S`'s instructions, and there are `T::INPUTS`² elements.
#[inline(always)]
pub(crate) unsafe fn from_elements<S: Simd, T: Transform, const N: usize>(
    way: Way<S, N>,
    rows: usize,
    from: *const f32,
    step: usize,
    to: &impl PutRow<N>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut columns = [[S::splat(0.0); N]; MAX_INPUTS];
        for (x, column) in columns.iter_mut().enumerate().take(T::INPUTS) {
            let mut values = [S::splat(0.0); MAX_INPUTS];
            for (y, value) in values.iter_mut().enumerate().take(T::INPUTS) {
                *value = S::load(from.add((y * T::INPUTS + x) * step));
            }
            *column = way(&values);
        }
        for y in 0..rows {
            let mut values = [S::splat(0.0); MAX_INPUTS];
            for (value, column) in values.iter_mut().zip(&columns).take(T::INPUTS) {
                *value = column[y];
            }
            to.put::<S>(y, way(&values));
        }
    }
}
