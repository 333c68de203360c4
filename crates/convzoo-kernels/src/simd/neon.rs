use std::arch::aarch64::*;

use super::{Kernel, Simd};

#[derive(Clone, Copy)]
pub struct Neon;

/// The same instruction on both registers.
macro_rules! both {
    ($f:ident $(, $v:expr)+) => {
        // SAFETY: the processor has NEON, the trait's condition.
        unsafe { [$f($($v[0]),+), $f($($v[1]),+)] }
    };
}

// SAFETY: two registers of 4 floats are 8, and NEON's loads and stores need no more than the floats' alignment.
#[allow(clippy::missing_safety_doc)]
unsafe impl Simd for Neon {
    type Vector = [float32x4_t; 2];
    const LANES: usize = 8;
    const PIXELS: usize = 6;

    #[inline(always)]
    unsafe fn call<K: Kernel>(kernel: K) -> K::Output {
        #[target_feature(enable = "neon")]
        unsafe fn entry<K: Kernel>(kernel: K) -> K::Output {
            // SAFETY: the caller's promise.
            unsafe { kernel.run::<Neon>() }
        }
        // SAFETY: the caller's promise.
        unsafe { entry(kernel) }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::Vector {
        // SAFETY: the processor has NEON, the trait's condition.
        unsafe { [vdupq_n_f32(value); 2] }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::Vector {
        // SAFETY: as above, and the pointer is valid for 8 floats.
        unsafe { [vld1q_f32(from), vld1q_f32(from.add(4))] }
    }

    #[inline(always)]
    unsafe fn load_half(from: *const half::f16) -> Self::Vector {
        // SAFETY: the pointer is valid for 8 halves.
        unsafe {
            let mut floats = [0.0; 8];
            for (i, float) in floats.iter_mut().enumerate() {
                *float = from.add(i).read().to_f32();
            }
            Self::load(floats.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const half::bf16) -> Self::Vector {
        // SAFETY: as above, with 8 numbers.
        unsafe {
            let upper = vld1q_u16(from.cast());
            let low = vshll_n_u16::<16>(vget_low_u16(upper));
            let high = vshll_n_u16::<16>(vget_high_u16(upper));
            [vreinterpretq_f32_u32(low), vreinterpretq_f32_u32(high)]
        }
    }

    #[inline(always)]
    unsafe fn pairs(cells: Self::Vector) -> [Self::Vector; 2] {
        // SAFETY: as above.
        unsafe {
            let bits = cells.map(|cells| vreinterpretq_u32_f32(cells));
            let first = bits.map(|bits| vreinterpretq_f32_u32(vshlq_n_u32::<16>(bits)));
            let second = bits.map(|bits| vreinterpretq_f32_u32(vandq_u32(bits, vdupq_n_u32(0xffff_0000))));
            [first, second]
        }
    }

    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> Self::Vector {
        // SAFETY: as above, with 8 bytes.
        unsafe {
            let words = vmovl_u8(vld1_u8(from));
            let low = vcvtq_f32_u32(vmovl_u16(vget_low_u16(words)));
            [low, vcvtq_f32_u32(vmovl_u16(vget_high_u16(words)))]
        }
    }

    #[inline(always)]
    unsafe fn store_bf16(to: *mut half::bf16, vector: Self::Vector) {
        // SAFETY: as above, with room for 8 numbers.
        unsafe {
            for (half, vector) in vector.into_iter().enumerate() {
                let bits = vreinterpretq_u32_f32(vector);
                let odd = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
                let rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
                // A quiet NaN, which rounding could carry to infinity.
                let quiet = vorrq_u32(bits, vdupq_n_u32(0x0040_0000));
                let rounded = vbslq_u32(vceqq_f32(vector, vector), rounded, quiet);
                vst1_u16(to.add(4 * half).cast(), vshrn_n_u32::<16>(rounded));
            }
        }
    }

    #[inline(always)]
    unsafe fn store_bytes(to: *mut u8, vector: Self::Vector) {
        // SAFETY: as above, with 8 bytes. NaN becomes 0.
        unsafe {
            let words = vector.map(|half| vqmovn_s32(vcvtnq_s32_f32(half)));
            vst1_u8(to, vqmovun_s16(vcombine_s16(words[0], words[1])));
        }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, vector: Self::Vector) {
        // SAFETY: as above, and the pointer is valid for 8 floats.
        unsafe {
            vst1q_f32(to, vector[0]);
            vst1q_f32(to.add(4), vector[1]);
        }
    }

    #[inline(always)]
    unsafe fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector {
        both!(vaddq_f32, a, b)
    }

    #[inline(always)]
    unsafe fn sub(a: Self::Vector, b: Self::Vector) -> Self::Vector {
        both!(vsubq_f32, a, b)
    }

    #[inline(always)]
    unsafe fn mul(a: Self::Vector, b: Self::Vector) -> Self::Vector {
        both!(vmulq_f32, a, b)
    }

    #[inline(always)]
    unsafe fn div(a: Self::Vector, b: Self::Vector) -> Self::Vector {
        both!(vdivq_f32, a, b)
    }

    #[inline(always)]
    unsafe fn max(a: Self::Vector, b: Self::Vector) -> Self::Vector {
        both!(vmaxq_f32, a, b)
    }

    #[inline(always)]
    unsafe fn min(a: Self::Vector, b: Self::Vector) -> Self::Vector {
        both!(vminq_f32, a, b)
    }

    #[inline(always)]
    unsafe fn max_or_nan(a: Self::Vector, b: Self::Vector) -> Self::Vector {
        // The instruction returns NaN where either is.
        both!(vmaxq_f32, a, b)
    }

    #[inline(always)]
    unsafe fn larger(a: [Self::Vector; 2], b: [Self::Vector; 2]) -> [Self::Vector; 2] {
        let greater: [uint32x4_t; 2] = both!(vcgtq_f32, a[0], b[0]);
        let number: [uint32x4_t; 2] = both!(vceqq_f32, a[0], a[0]);
        let first: [uint32x4_t; 2] = both!(vornq_u32, greater, number);
        [both!(vbslq_f32, first, a[0], b[0]), both!(vbslq_f32, first, a[1], b[1])]
    }

    #[inline(always)]
    unsafe fn sqrt(a: Self::Vector) -> Self::Vector {
        both!(vsqrtq_f32, a)
    }

    #[inline(always)]
    unsafe fn mul_add(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
        both!(vfmaq_f32, c, a, b)
    }

    #[inline(always)]
    unsafe fn sum(a: Self::Vector) -> f32 {
        // SAFETY: the processor has NEON, the trait's condition.
        unsafe { vaddvq_f32(vaddq_f32(a[0], a[1])) }
    }
}
