use std::arch::x86_64::*;

use super::super::avx2::Avx2;
use super::super::avx512::Avx512;
use super::{Dot, DotKernel};

/// Whether the processor has AVX-512 VNNI.
pub fn has_vnni() -> bool {
    is_x86_feature_detected!("avx512vnni")
}

/// Whether the processor has AVX-VNNI.
pub fn has_avx_vnni() -> bool {
    is_x86_feature_detected!("avxvnni")
}

/// AVX-512 with VNNI: `vpdpbusd`, without saturation.
#[derive(Clone, Copy)]
pub struct Vnni;

// SAFETY: loads are the unaligned ones, of 16 sums, 64 weights and 4 values.
#[allow(clippy::missing_safety_doc)]
unsafe impl Dot for Vnni {
    type Float = Avx512<false>;
    type Sums = __m512i;
    type Weights = __m512i;
    type Values = __m512i;
    const PIXELS: usize = 14;

    #[inline(always)]
    unsafe fn enter<K: DotKernel>(kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512vnni,avx2,fma")]
        unsafe fn entry<K: DotKernel>(kernel: K) -> K::Output {
            // SAFETY: the caller's promise.
            unsafe { kernel.run::<Vnni>() }
        }
        // SAFETY: the caller's promise.
        unsafe { entry(kernel) }
    }

    #[inline(always)]
    unsafe fn sums(from: *const i32) -> __m512i {
        // SAFETY: the processor has the instructions, the trait's condition, and the pointer is valid; so below.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn values(from: *const u8) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn dot(sums: __m512i, values: __m512i, weights: __m512i) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_dpbusd_epi32(sums, values, weights) }
    }

    #[inline(always)]
    unsafe fn float(sums: __m512i) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_cvtepi32_ps(sums) }
    }
}

/// AVX2 with AVX-VNNI.
#[derive(Clone, Copy)]
pub struct AvxVnni;

// SAFETY: loads are the unaligned ones, of 8 sums, 32 weights and 4 values.
#[allow(clippy::missing_safety_doc)]
unsafe impl Dot for AvxVnni {
    type Float = Avx2;
    type Sums = __m256i;
    type Weights = __m256i;
    type Values = __m256i;
    const PIXELS: usize = 6;

    #[inline(always)]
    unsafe fn enter<K: DotKernel>(kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,avxvnni,fma,f16c")]
        unsafe fn entry<K: DotKernel>(kernel: K) -> K::Output {
            // SAFETY: the caller's promise.
            unsafe { kernel.run::<AvxVnni>() }
        }
        // SAFETY: the caller's promise.
        unsafe { entry(kernel) }
    }

    #[inline(always)]
    unsafe fn sums(from: *const i32) -> __m256i {
        // SAFETY: the processor has the instructions, the trait's condition, and the pointer is valid; so below.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn values(from: *const u8) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn dot(sums: __m256i, values: __m256i, weights: __m256i) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_dpbusd_avx_epi32(sums, values, weights) }
    }

    #[inline(always)]
    unsafe fn float(sums: __m256i) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_cvtepi32_ps(sums) }
    }
}

/// AVX2 alone: bytes widened to 16 bits, whose products are added in pairs in 32 bits. (`vpmaddubsw` would add pairs in
/// 16 bits, and saturate.)
#[derive(Clone, Copy)]
pub struct Pairs;

/// The first and third byte of each four in 16 bits each, and the second and fourth.
type Widened = [__m256i; 2];

// SAFETY: as above.
#[allow(clippy::missing_safety_doc)]
unsafe impl Dot for Pairs {
    type Float = Avx2;
    type Sums = __m256i;
    type Weights = Widened;
    type Values = Widened;
    const PIXELS: usize = 4;

    #[inline(always)]
    unsafe fn enter<K: DotKernel>(kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        unsafe fn entry<K: DotKernel>(kernel: K) -> K::Output {
            // SAFETY: the caller's promise.
            unsafe { kernel.run::<Pairs>() }
        }
        // SAFETY: the caller's promise.
        unsafe { entry(kernel) }
    }

    #[inline(always)]
    unsafe fn sums(from: *const i32) -> __m256i {
        // SAFETY: the processor has the instructions, the trait's condition, and the pointer is valid; so below.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8) -> Widened {
        // SAFETY: as above.
        unsafe {
            let bytes = _mm256_loadu_si256(from.cast());
            [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(bytes)), _mm256_srai_epi16::<8>(bytes)]
        }
    }

    #[inline(always)]
    unsafe fn values(from: *const u8) -> Widened {
        // SAFETY: as above.
        unsafe {
            let bytes = _mm256_set1_epi32(from.cast::<i32>().read_unaligned());
            [_mm256_and_si256(bytes, _mm256_set1_epi16(0xFF)), _mm256_srli_epi16::<8>(bytes)]
        }
    }

    #[inline(always)]
    unsafe fn dot(sums: __m256i, values: Widened, weights: Widened) -> __m256i {
        // SAFETY: as above.
        unsafe {
            let products =
                _mm256_add_epi32(_mm256_madd_epi16(values[0], weights[0]), _mm256_madd_epi16(values[1], weights[1]));
            _mm256_add_epi32(sums, products)
        }
    }

    #[inline(always)]
    unsafe fn float(sums: __m256i) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_cvtepi32_ps(sums) }
    }
}

/// AVX-512 without VNNI: [`Pairs`] for each half of the lanes.
#[derive(Clone, Copy)]
pub struct Halves;

// SAFETY: as above, for 16 lanes.
#[allow(clippy::missing_safety_doc)]
unsafe impl Dot for Halves {
    type Float = Avx512<false>;
    type Sums = [__m256i; 2];
    type Weights = [Widened; 2];
    type Values = Widened;
    const PIXELS: usize = 6;

    #[inline(always)]
    unsafe fn enter<K: DotKernel>(kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx2,fma")]
        unsafe fn entry<K: DotKernel>(kernel: K) -> K::Output {
            // SAFETY: the caller's promise.
            unsafe { kernel.run::<Halves>() }
        }
        // SAFETY: the caller's promise.
        unsafe { entry(kernel) }
    }

    #[inline(always)]
    unsafe fn sums(from: *const i32) -> Self::Sums {
        // SAFETY: the processor has the instructions, the trait's condition, and the pointer is valid; so below.
        unsafe { [Pairs::sums(from), Pairs::sums(from.add(8))] }
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8) -> Self::Weights {
        // SAFETY: as above.
        unsafe { [Pairs::weights(from), Pairs::weights(from.add(32))] }
    }

    #[inline(always)]
    unsafe fn values(from: *const u8) -> Widened {
        // SAFETY: as above.
        unsafe { Pairs::values(from) }
    }

    #[inline(always)]
    unsafe fn dot(sums: Self::Sums, values: Widened, weights: Self::Weights) -> Self::Sums {
        // SAFETY: as above.
        unsafe { [Pairs::dot(sums[0], values, weights[0]), Pairs::dot(sums[1], values, weights[1])] }
    }

    #[inline(always)]
    unsafe fn float(sums: Self::Sums) -> __m512 {
        // SAFETY: as above.
        unsafe {
            let whole = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(sums[0]), sums[1]);
            _mm512_cvtepi32_ps(whole)
        }
    }
}
