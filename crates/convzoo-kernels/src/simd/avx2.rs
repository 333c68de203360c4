use std::arch::x86_64::*;

use super::{Kernel, Simd};

#[derive(Clone, Copy)]
pub struct Avx2;

// SAFETY: a `__m256` is 8 floats, and loads and stores are the unaligned ones.
#[allow(clippy::missing_safety_doc)]
unsafe impl Simd for Avx2 {
    type Vector = __m256;
    const LANES: usize = 8;
    const PIXELS: usize = 6;

    #[inline(always)]
    unsafe fn call<K: Kernel>(kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        unsafe fn entry<K: Kernel>(kernel: K) -> K::Output {
            // SAFETY: the caller's promise.
            unsafe { kernel.run::<Avx2>() }
        }
        // SAFETY: the caller's promise.
        unsafe { entry(kernel) }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> __m256 {
        // SAFETY: the processor has AVX2, FMA and F16C, the trait's condition; so below.
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m256 {
        // SAFETY: as above, and the pointer is valid for 8 floats; so below.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_half(from: *const half::f16) -> __m256 {
        // SAFETY: as above, with 8 halves.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const half::bf16) -> __m256 {
        // SAFETY: as above, with 8 numbers.
        unsafe {
            let upper = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(upper))
        }
    }

    #[inline(always)]
    unsafe fn pairs(cells: __m256) -> [__m256; 2] {
        // SAFETY: as above.
        unsafe {
            let bits = _mm256_castps_si256(cells);
            let upper = _mm256_and_si256(bits, _mm256_set1_epi32(0xffff_0000_u32 as i32));
            [_mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits)), _mm256_castsi256_ps(upper)]
        }
    }

    #[inline(always)]
    unsafe fn store_bf16(to: *mut half::bf16, vector: __m256) {
        // SAFETY: as above, with room for 8 numbers.
        unsafe {
            let bits = _mm256_castps_si256(vector);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
            // A quiet NaN, which rounding could carry to infinity.
            let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
            let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(vector, vector));
            let upper = _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, nan));
            let packed = _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256::<1>(upper));
            _mm_storeu_si128(to.cast(), packed);
        }
    }

    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> __m256 {
        // SAFETY: as above, with 8 bytes.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn store_bytes(to: *mut u8, vector: __m256) {
        // SAFETY: as above, with 8 bytes. NaN becomes the smallest number, which is cut at 0.
        unsafe {
            let whole = _mm256_cvtps_epi32(vector);
            let words = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256::<1>(whole));
            _mm_storel_epi64(to.cast(), _mm_packus_epi16(words, words));
        }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, vector: __m256) {
        // SAFETY: as above.
        unsafe { _mm256_storeu_ps(to, vector) }
    }

    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn sub(a: __m256, b: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn div(a: __m256, b: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_div_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn max(a: __m256, b: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_max_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn min(a: __m256, b: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_min_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn max_or_nan(a: __m256, b: __m256) -> __m256 {
        // SAFETY: as above. The instruction returns `b` where either is NaN.
        unsafe { _mm256_blendv_ps(_mm256_max_ps(a, b), a, _mm256_cmp_ps::<_CMP_UNORD_Q>(a, a)) }
    }

    #[inline(always)]
    unsafe fn larger(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: as above.
        unsafe {
            let (greater, nan) = (_mm256_cmp_ps::<_CMP_GT_OQ>(a[0], b[0]), _mm256_cmp_ps::<_CMP_UNORD_Q>(a[0], a[0]));
            let first = _mm256_or_ps(greater, nan);
            [_mm256_blendv_ps(b[0], a[0], first), _mm256_blendv_ps(b[1], a[1], first)]
        }
    }

    #[inline(always)]
    unsafe fn sqrt(a: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_sqrt_ps(a) }
    }

    #[inline(always)]
    unsafe fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn sum(a: __m256) -> f32 {
        // SAFETY: as above.
        unsafe {
            let quad = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let pair = _mm_add_ps(quad, _mm_movehl_ps(quad, quad));
            _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps::<1>(pair, pair)))
        }
    }

    #[inline(always)]
    unsafe fn power_of_two(n: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
        }
    }

    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        // SAFETY: as above, for every row.
        unsafe {
            // Of four rows each, column 4h + j to half h of the j-th vector.
            let mut fours = [[_mm256_setzero_ps(); 4]; 2];
            for (i, columns) in fours.iter_mut().enumerate() {
                let row = from.add(4 * i * from_step);
                let (a, b) = (_mm256_loadu_ps(row), _mm256_loadu_ps(row.add(from_step)));
                let (c, d) = (_mm256_loadu_ps(row.add(2 * from_step)), _mm256_loadu_ps(row.add(3 * from_step)));
                let low_a = _mm256_castps_pd(_mm256_unpacklo_ps(a, b));
                let low_b = _mm256_castps_pd(_mm256_unpacklo_ps(c, d));
                let high_a = _mm256_castps_pd(_mm256_unpackhi_ps(a, b));
                let high_b = _mm256_castps_pd(_mm256_unpackhi_ps(c, d));
                *columns = [
                    _mm256_castpd_ps(_mm256_unpacklo_pd(low_a, low_b)),
                    _mm256_castpd_ps(_mm256_unpackhi_pd(low_a, low_b)),
                    _mm256_castpd_ps(_mm256_unpacklo_pd(high_a, high_b)),
                    _mm256_castpd_ps(_mm256_unpackhi_pd(high_a, high_b)),
                ];
            }
            let [a, b] = fours;
            for j in 0..4 {
                _mm256_storeu_ps(to.add(j * to_step), _mm256_permute2f128_ps::<0x20>(a[j], b[j]));
                _mm256_storeu_ps(to.add((j + 4) * to_step), _mm256_permute2f128_ps::<0x31>(a[j], b[j]));
            }
        }
    }
}
