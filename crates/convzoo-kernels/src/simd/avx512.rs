use std::arch::x86_64::*;
use std::mem::transmute;

use super::{Kernel, Simd};

/// AVX-512F; with `BF16` also the instructions for bfloat16 numbers.
#[derive(Clone, Copy)]
pub struct Avx512<const BF16: bool>;

// SAFETY: a `__m512` is 16 floats, and loads and stores are the unaligned ones.
#[allow(clippy::missing_safety_doc)]
unsafe impl<const BF16: bool> Simd for Avx512<BF16> {
    type Vector = __m512;
    const LANES: usize = 16;
    const PIXELS: usize = 14;

    #[inline(always)]
    unsafe fn call<K: Kernel>(kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx2,fma")]
        unsafe fn entry<K: Kernel>(kernel: K) -> K::Output {
            // SAFETY: the caller's promise.
            unsafe { kernel.run::<Avx512<false>>() }
        }
        #[target_feature(enable = "avx512f,avx512bf16,avx2,fma")]
        unsafe fn bf16_entry<K: Kernel>(kernel: K) -> K::Output {
            // SAFETY: the caller's promise.
            unsafe { kernel.run::<Avx512<true>>() }
        }
        // SAFETY: the caller's promise.
        unsafe { if BF16 { bf16_entry(kernel) } else { entry(kernel) } }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> __m512 {
        // SAFETY: the processor has AVX-512F, the trait's condition; so below.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        // SAFETY: as above, and the pointer is valid for 16 floats; so below.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_half(from: *const half::f16) -> __m512 {
        // SAFETY: as above, with 16 halves.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const half::bf16) -> __m512 {
        // SAFETY: as above, with 16 numbers.
        unsafe {
            let upper = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(upper))
        }
    }

    #[inline(always)]
    unsafe fn pairs(cells: __m512) -> [__m512; 2] {
        // SAFETY: as above.
        unsafe {
            let cells = _mm512_castps_si512(cells);
            let upper = _mm512_and_si512(cells, _mm512_set1_epi32(0xffff_0000_u32 as i32));
            [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(cells)), _mm512_castsi512_ps(upper)]
        }
    }

    #[inline(always)]
    unsafe fn store_bf16(to: *mut half::bf16, vector: __m512) {
        // SAFETY: as above, with room for 16 numbers; the instruction is there where `BF16` says so.
        unsafe {
            if BF16 {
                to.cast::<__m256bh>().write_unaligned(_mm512_cvtneps_pbh(vector));
                return;
            }
            let bits = _mm512_castps_si512(vector);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
            // A quiet NaN, which rounding could carry to infinity.
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(vector, vector);
            let rounded = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x0040_0000));
            _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(rounded)));
        }
    }

    #[inline(always)]
    unsafe fn mul_add_pairs(a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: as above; the instruction is there where `BF16` says so, and cells are its pairs.
        unsafe {
            if BF16 {
                return _mm512_dpbf16_ps(c, transmute::<__m512, __m512bh>(a), transmute::<__m512, __m512bh>(b));
            }
            let ([a, a_next], [b, b_next]) = (Self::pairs(a), Self::pairs(b));
            Self::mul_add(a_next, b_next, Self::mul_add(a, b, c))
        }
    }

    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> __m512 {
        // SAFETY: as above, with 16 bytes.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn store_bytes(to: *mut u8, vector: __m512) {
        // SAFETY: as above, with 16 bytes. NaN becomes the number whose lowest byte is 0.
        unsafe { _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(vector))) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, vector: __m512) {
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(to, vector) }
    }

    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn div(a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn min(a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn max_or_nan(a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above. The instruction returns `b` where either is NaN.
        unsafe { _mm512_mask_mov_ps(_mm512_max_ps(a, b), _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a), a) }
    }

    #[inline(always)]
    unsafe fn larger(a: [__m512; 2], b: [__m512; 2]) -> [__m512; 2] {
        // SAFETY: as above.
        unsafe {
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a[0], a[0]);
            let first = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(a[0], b[0]) | nan;
            [_mm512_mask_mov_ps(b[0], first, a[0]), _mm512_mask_mov_ps(b[1], first, a[1])]
        }
    }

    #[inline(always)]
    unsafe fn sqrt(a: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_sqrt_ps(a) }
    }

    #[inline(always)]
    unsafe fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn sum(a: __m512) -> f32 {
        // SAFETY: as above.
        unsafe { _mm512_reduce_add_ps(a) }
    }

    #[inline(always)]
    unsafe fn power_of_two(n: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_scalef_ps(_mm512_set1_ps(1.0), n) }
    }

    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        // SAFETY: as above, for every row.
        unsafe {
            // Of four rows each, column 4q + j to quarter q of the j-th vector.
            let mut fours = [[_mm512_setzero_ps(); 4]; 4];
            for (i, columns) in fours.iter_mut().enumerate() {
                let row = from.add(4 * i * from_step);
                let (a, b) = (_mm512_loadu_ps(row), _mm512_loadu_ps(row.add(from_step)));
                let (c, d) = (_mm512_loadu_ps(row.add(2 * from_step)), _mm512_loadu_ps(row.add(3 * from_step)));
                let low_a = _mm512_castps_pd(_mm512_unpacklo_ps(a, b));
                let low_b = _mm512_castps_pd(_mm512_unpacklo_ps(c, d));
                let high_a = _mm512_castps_pd(_mm512_unpackhi_ps(a, b));
                let high_b = _mm512_castps_pd(_mm512_unpackhi_ps(c, d));
                *columns = [
                    _mm512_castpd_ps(_mm512_unpacklo_pd(low_a, low_b)),
                    _mm512_castpd_ps(_mm512_unpackhi_pd(low_a, low_b)),
                    _mm512_castpd_ps(_mm512_unpacklo_pd(high_a, high_b)),
                    _mm512_castpd_ps(_mm512_unpackhi_pd(high_a, high_b)),
                ];
            }
            let [a, b, c, d] = fours;
            for j in 0..4 {
                const EVEN: i32 = 0b10_00_10_00;
                const ODD: i32 = 0b11_01_11_01;
                let (even_ab, even_cd) =
                    (_mm512_shuffle_f32x4::<EVEN>(a[j], b[j]), _mm512_shuffle_f32x4::<EVEN>(c[j], d[j]));
                let (odd_ab, odd_cd) =
                    (_mm512_shuffle_f32x4::<ODD>(a[j], b[j]), _mm512_shuffle_f32x4::<ODD>(c[j], d[j]));
                let to = to.add(j * to_step);
                _mm512_storeu_ps(to, _mm512_shuffle_f32x4::<EVEN>(even_ab, even_cd));
                _mm512_storeu_ps(to.add(4 * to_step), _mm512_shuffle_f32x4::<EVEN>(odd_ab, odd_cd));
                _mm512_storeu_ps(to.add(8 * to_step), _mm512_shuffle_f32x4::<ODD>(even_ab, even_cd));
                _mm512_storeu_ps(to.add(12 * to_step), _mm512_shuffle_f32x4::<ODD>(odd_ab, odd_cd));
            }
        }
    }
}
