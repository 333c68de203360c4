use std::arch::wasm32::*;

use super::{Kernel, Simd};

#[derive(Clone, Copy)]
pub struct Simd128;

/// The same instruction on both registers.
macro_rules! both {
    ($f:ident $(, $v:expr)+) => {
        [$f($($v[0]),+), $f($($v[1]),+)]
    };
}

// SAFETY: two registers of 4 floats are 8, and loads and stores need no alignment. A program for WebAssembly either is
// refused by the browser or has all the instructions it was compiled with: there is nothing to promise about them.
#[allow(clippy::missing_safety_doc)]
unsafe impl Simd for Simd128 {
    type Vector = [v128; 2];
    const LANES: usize = 8;
    /// Browsers run on processors of 16 registers of this length, of which they keep one: twelve sums of six pixels and one
    /// block, two of weights, one of a pixel.
    const PIXELS: usize = 6;
    const BLOCKS: usize = 1;

    #[inline(always)]
    unsafe fn call<K: Kernel>(kernel: K) -> K::Output {
        #[inline(never)]
        unsafe fn entry<K: Kernel>(kernel: K) -> K::Output {
            // SAFETY: the caller's promise.
            unsafe { kernel.run::<Simd128>() }
        }
        // SAFETY: the caller's promise.
        unsafe { entry(kernel) }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::Vector {
        [f32x4_splat(value); 2]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::Vector {
        // SAFETY: the pointer is valid for 8 floats.
        unsafe { [v128_load(from.cast()), v128_load(from.add(4).cast())] }
    }

    #[inline(always)]
    unsafe fn load_half(from: *const half::f16) -> Self::Vector {
        // SAFETY: the pointer is valid for 8 halves.
        unsafe {
            let floats: [f32; 8] = std::array::from_fn(|i| from.add(i).read().to_f32());
            Self::load(floats.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const half::bf16) -> Self::Vector {
        // SAFETY: the pointer is valid for 8 numbers.
        let numbers = unsafe { v128_load(from.cast()) };
        [u32x4_extend_low_u16x8(numbers), u32x4_extend_high_u16x8(numbers)].map(|number| i32x4_shl(number, 16))
    }

    #[inline(always)]
    unsafe fn pairs(cells: Self::Vector) -> [Self::Vector; 2] {
        let upper = i32x4_splat(0xffff_0000_u32 as i32);
        [cells.map(|cells| i32x4_shl(cells, 16)), cells.map(|cells| v128_and(cells, upper))]
    }

    #[inline(always)]
    unsafe fn store_bf16(to: *mut half::bf16, vector: Self::Vector) {
        let [low, high] = vector.map(|bits| {
            let odd = v128_and(u32x4_shr(bits, 16), i32x4_splat(1));
            let rounded = i32x4_add(bits, i32x4_add(odd, i32x4_splat(0x7fff)));
            // A quiet NaN, which rounding could carry to infinity.
            let quiet = v128_or(bits, i32x4_splat(0x0040_0000));
            u32x4_shr(v128_bitselect(rounded, quiet, f32x4_eq(bits, bits)), 16)
        });
        // SAFETY: there is room for 8 numbers.
        unsafe { v128_store(to.cast(), u16x8_narrow_i32x4(low, high)) }
    }

    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> Self::Vector {
        // SAFETY: the pointer is valid for 8 bytes.
        unsafe {
            let words = u16x8_load_extend_u8x8(from);
            [f32x4_convert_u32x4(u32x4_extend_low_u16x8(words)), f32x4_convert_u32x4(u32x4_extend_high_u16x8(words))]
        }
    }

    #[inline(always)]
    unsafe fn store_bytes(to: *mut u8, vector: Self::Vector) {
        // NaN becomes 0.
        let whole = vector.map(|half| i32x4_trunc_sat_f32x4(f32x4_nearest(half)));
        let words = i16x8_narrow_i32x4(whole[0], whole[1]);
        // SAFETY: the pointer is valid for 8 bytes.
        unsafe { v128_store64_lane::<0>(u8x16_narrow_i16x8(words, words), to.cast()) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, vector: Self::Vector) {
        // SAFETY: the pointer is valid for 8 floats.
        unsafe {
            v128_store(to.cast(), vector[0]);
            v128_store(to.add(4).cast(), vector[1]);
        }
    }

    #[inline(always)]
    unsafe fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector {
        both!(f32x4_add, a, b)
    }

    #[inline(always)]
    unsafe fn sub(a: Self::Vector, b: Self::Vector) -> Self::Vector {
        both!(f32x4_sub, a, b)
    }

    #[inline(always)]
    unsafe fn mul(a: Self::Vector, b: Self::Vector) -> Self::Vector {
        both!(f32x4_mul, a, b)
    }

    #[inline(always)]
    unsafe fn div(a: Self::Vector, b: Self::Vector) -> Self::Vector {
        both!(f32x4_div, a, b)
    }

    #[inline(always)]
    unsafe fn max(a: Self::Vector, b: Self::Vector) -> Self::Vector {
        // One instruction everywhere, where the one without `p` takes several for the sake of NaN.
        both!(f32x4_pmax, a, b)
    }

    #[inline(always)]
    unsafe fn min(a: Self::Vector, b: Self::Vector) -> Self::Vector {
        both!(f32x4_pmin, a, b)
    }

    #[inline(always)]
    unsafe fn max_or_nan(a: Self::Vector, b: Self::Vector) -> Self::Vector {
        both!(f32x4_max, a, b)
    }

    #[inline(always)]
    unsafe fn larger(a: [Self::Vector; 2], b: [Self::Vector; 2]) -> [Self::Vector; 2] {
        let (greater, nan): ([v128; 2], [v128; 2]) = (both!(f32x4_gt, a[0], b[0]), both!(f32x4_ne, a[0], a[0]));
        let first: [v128; 2] = both!(v128_or, greater, nan);
        [both!(v128_bitselect, a[0], b[0], first), both!(v128_bitselect, a[1], b[1], first)]
    }

    #[inline(always)]
    unsafe fn sqrt(a: Self::Vector) -> Self::Vector {
        both!(f32x4_sqrt, a)
    }

    #[inline(always)]
    unsafe fn mul_add(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
        // Fused where the processor has that: what `relaxed` leaves to it.
        #[cfg(target_feature = "relaxed-simd")]
        return both!(f32x4_relaxed_madd, a, b, c);
        #[cfg(not(target_feature = "relaxed-simd"))]
        return both!(f32x4_add, both!(f32x4_mul, a, b), c);
    }

    #[inline(always)]
    unsafe fn sum(a: Self::Vector) -> f32 {
        let quad = f32x4_add(a[0], a[1]);
        let pair = f32x4_add(quad, i32x4_shuffle::<2, 3, 0, 1>(quad, quad));
        f32x4_extract_lane::<0>(pair) + f32x4_extract_lane::<1>(pair)
    }

    #[inline(always)]
    unsafe fn power_of_two(n: Self::Vector) -> Self::Vector {
        n.map(|n| i32x4_shl(i32x4_add(i32x4_trunc_sat_f32x4(n), i32x4_splat(127)), 23))
    }

    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        for (top, left) in [(0, 0), (0, 4), (4, 0), (4, 4)] {
            // SAFETY: the pointers are valid for the rows, the trait's condition.
            unsafe {
                let row = |i: usize| v128_load(from.add((top + i) * from_step + left).cast());
                let (a, b, c, d) = (row(0), row(1), row(2), row(3));
                let (low_ab, high_ab) = (i32x4_shuffle::<0, 4, 1, 5>(a, b), i32x4_shuffle::<2, 6, 3, 7>(a, b));
                let (low_cd, high_cd) = (i32x4_shuffle::<0, 4, 1, 5>(c, d), i32x4_shuffle::<2, 6, 3, 7>(c, d));
                let columns = [
                    i32x4_shuffle::<0, 1, 4, 5>(low_ab, low_cd),
                    i32x4_shuffle::<2, 3, 6, 7>(low_ab, low_cd),
                    i32x4_shuffle::<0, 1, 4, 5>(high_ab, high_cd),
                    i32x4_shuffle::<2, 3, 6, 7>(high_ab, high_cd),
                ];
                for (j, column) in columns.into_iter().enumerate() {
                    v128_store(to.add((left + j) * to_step + top).cast(), column);
                }
            }
        }
    }
}
