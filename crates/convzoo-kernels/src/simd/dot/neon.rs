use std::arch::aarch64::*;

use super::super::neon::Neon;
use super::{Dot, DotKernel};

/// The sums of the four products in each lane of one register of sums, from two registers of 16-bit weights.
macro_rules! products {
    ($values:expr, $weights:expr) => {{
        // SAFETY: the processor has NEON, the trait's condition.
        unsafe {
            let pair = |weights: int16x8_t| {
                let first = vmull_s16(vget_low_s16($values), vget_low_s16(weights));
                vpaddq_s32(first, vmull_s16(vget_high_s16($values), vget_high_s16(weights)))
            };
            vpaddq_s32(pair($weights[0]), pair($weights[1]))
        }
    }};
}

// SAFETY: NEON's loads need no more than the numbers' alignment, which bytes do not have; sums are aligned.
#[allow(clippy::missing_safety_doc)]
unsafe impl Dot for Neon {
    type Float = Self;
    type Sums = [int32x4_t; 2];
    /// In 16 bits, two lanes in each.
    type Weights = [int16x8_t; 4];
    /// In 16 bits, twice.
    type Values = int16x8_t;
    const PIXELS: usize = 4;

    #[inline(always)]
    unsafe fn enter<K: DotKernel>(kernel: K) -> K::Output {
        #[target_feature(enable = "neon")]
        unsafe fn entry<K: DotKernel>(kernel: K) -> K::Output {
            // SAFETY: the caller's promise.
            unsafe { kernel.run::<Neon>() }
        }
        // SAFETY: the caller's promise.
        unsafe { entry(kernel) }
    }

    #[inline(always)]
    unsafe fn sums(from: *const i32) -> Self::Sums {
        // SAFETY: the processor has NEON, the trait's condition, and the pointer is valid; so below.
        unsafe { [vld1q_s32(from), vld1q_s32(from.add(4))] }
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8) -> Self::Weights {
        // SAFETY: as above.
        unsafe { [0, 8, 16, 24].map(|at| vmovl_s8(vld1_s8(from.add(at)))) }
    }

    #[inline(always)]
    unsafe fn values(from: *const u8) -> int16x8_t {
        // SAFETY: as above.
        unsafe {
            let bytes = vdup_n_u32(from.cast::<u32>().read_unaligned());
            vreinterpretq_s16_u16(vmovl_u8(vreinterpret_u8_u32(bytes)))
        }
    }

    #[inline(always)]
    unsafe fn dot(sums: Self::Sums, values: int16x8_t, weights: Self::Weights) -> Self::Sums {
        let [low, high] = [products!(values, [weights[0], weights[1]]), products!(values, [weights[2], weights[3]])];
        // SAFETY: as above.
        unsafe { [vaddq_s32(sums[0], low), vaddq_s32(sums[1], high)] }
    }

    #[inline(always)]
    unsafe fn float(sums: Self::Sums) -> [float32x4_t; 2] {
        // SAFETY: as above.
        unsafe { sums.map(|half| vcvtq_f32_s32(half)) }
    }
}
