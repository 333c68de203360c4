use super::{Dot, DotKernel, Portable};

const LANES: usize = 8;

// SAFETY: loads are unaligned, and of as many bytes as the arrays have.
#[allow(clippy::missing_safety_doc)]
unsafe impl Dot for Portable {
    type Float = Self;
    type Sums = [i32; LANES];
    /// Widened, by the place among the four.
    type Weights = [[i32; LANES]; 4];
    type Values = [i32; 4];
    const PIXELS: usize = 2;

    unsafe fn enter<K: DotKernel>(kernel: K) -> K::Output {
        // SAFETY: the caller's promise.
        unsafe { kernel.run::<Self>() }
    }

    #[inline(always)]
    unsafe fn sums(from: *const i32) -> Self::Sums {
        // SAFETY: there is one for each lane.
        unsafe { from.cast::<Self::Sums>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8) -> Self::Weights {
        // SAFETY: there are four for each lane.
        let bytes = unsafe { from.cast::<[[i8; 4]; LANES]>().read_unaligned() };
        let mut weights = [[0; LANES]; 4];
        for (lane, bytes) in bytes.into_iter().enumerate() {
            for (weights, byte) in weights.iter_mut().zip(bytes) {
                weights[lane] = i32::from(byte);
            }
        }
        weights
    }

    #[inline(always)]
    unsafe fn values(from: *const u8) -> Self::Values {
        // SAFETY: there are four.
        unsafe { from.cast::<[u8; 4]>().read_unaligned() }.map(i32::from)
    }

    #[inline(always)]
    unsafe fn dot(mut sums: Self::Sums, values: Self::Values, weights: Self::Weights) -> Self::Sums {
        for (value, weights) in values.into_iter().zip(weights) {
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum = sum.wrapping_add(value * weight);
            }
        }
        sums
    }

    #[inline(always)]
    unsafe fn float(sums: Self::Sums) -> [f32; LANES] {
        sums.map(|sum| sum as f32)
    }
}
