//! Dot products of four bytes in each lane, summed in 32 bits: what convolutions of bytes are made of.
//!
//! Sums are exact wherever they fit, so that all instruction sets have the same, in whatever order they add.

#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::Simd;
use super::portable::Portable;
use crate::Isa;

/// What kernels do with bytes and 32-bit sums.
///
/// # Safety
/// An implementation reads what its methods say. Every method may be called only on a processor that has the
/// instruction set; pointers need no alignment.
#[allow(clippy::missing_safety_doc)] // said above, once for all
pub unsafe trait Dot: Copy + Send + Sync + 'static {
    /// Floats of as many lanes.
    type Float: Simd;
    /// A 32-bit sum in each lane.
    type Sums: Copy;
    /// Four signed bytes for each lane.
    type Weights: Copy;
    /// Four unsigned bytes, the same for all lanes.
    type Values: Copy;
    /// Pixels of a register tile whose two channel blocks fill the registers.
    const PIXELS: usize;

    /// Runs a kernel compiled for this instruction set, out of line.
    unsafe fn enter<K: DotKernel>(kernel: K) -> K::Output;

    /// Loads a sum for each lane.
    unsafe fn sums(from: *const i32) -> Self::Sums;
    /// Loads four weights for each lane, those of a lane together.
    unsafe fn weights(from: *const i8) -> Self::Weights;
    /// Loads four bytes for all lanes.
    unsafe fn values(from: *const u8) -> Self::Values;
    /// Adds the dot product of the values with each lane's weights to its sum.
    unsafe fn dot(sums: Self::Sums, values: Self::Values, weights: Self::Weights) -> Self::Sums;
    /// The sums, each rounded to the nearest float.
    unsafe fn float(sums: Self::Sums) -> <Self::Float as Simd>::Vector;
}

/// A computation on bytes that is compiled for each instruction set.
pub trait DotKernel {
    /// What it returns.
    type Output;

    /// The computation; implementations are `#[inline(always)]`.
    ///
    /// # Safety
    /// The processor has `D`'s instructions, and the kernel's pointers are valid for what it does.
    unsafe fn run<D: Dot>(self) -> Self::Output;
}

impl Isa {
    /// Runs a kernel on bytes, compiled for the best that this processor has for them in blocks of
    /// [`lanes`](Self::lanes) channels.
    ///
    /// # Safety
    /// As [`call`](Self::call).
    pub(crate) unsafe fn call_dot<K: DotKernel>(self, kernel: K) -> K::Output {
        // SAFETY: the caller's promise, and what is found here.
        unsafe {
            match self {
                #[cfg(target_arch = "x86_64")]
                Self::Avx512 if x86::has_vnni() => x86::Vnni::enter(kernel),
                #[cfg(target_arch = "x86_64")]
                Self::Avx512 => x86::Halves::enter(kernel),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 if x86::has_avx_vnni() => x86::AvxVnni::enter(kernel),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 => x86::Pairs::enter(kernel),
                #[cfg(target_arch = "aarch64")]
                Self::Neon => super::neon::Neon::enter(kernel),
                _ => Portable::enter(kernel),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sums of all lanes after a few products of given bytes.
    struct Few<'a> {
        values: &'a [u8],
        weights: &'a [i8],
        start: &'a [i32],
    }

    impl DotKernel for Few<'_> {
        type Output = Vec<f32>;

        #[inline(always)]
        unsafe fn run<D: Dot>(self) -> Vec<f32> {
            let lanes = D::Float::LANES;
            // SAFETY: there are four weights a lane for each four values, and a start for each lane.
            unsafe {
                let mut sums = D::sums(self.start.as_ptr());
                for i in 0..self.values.len() / 4 {
                    let weights = D::weights(self.weights.as_ptr().add(i * 4 * lanes));
                    sums = D::dot(sums, D::values(self.values.as_ptr().add(4 * i)), weights);
                }
                let mut floats = vec![0.0; lanes];
                D::Float::store(floats.as_mut_ptr(), D::float(sums));
                floats
            }
        }
    }

    /// The same by definition.
    fn expected(few: &Few, lanes: usize) -> Vec<f32> {
        let sum = |lane: usize| {
            let products = few.values.iter().enumerate().map(|(i, value)| {
                let weight = few.weights[i / 4 * 4 * lanes + lane * 4 + i % 4];
                i32::from(*value) * i32::from(weight)
            });
            (few.start[lane] + products.sum::<i32>()) as f32
        };
        (0..lanes).map(sum).collect()
    }

    #[test]
    fn all_instruction_sets_have_the_same_sums() {
        // The largest values with the largest weights of either sign, where 16 bits would overflow, and a mixture.
        let mixed = |step: usize, len: usize| (0..len).map(move |i| (i * step % 256) as u8);
        let largest = (vec![255; 12], vec![127; 12 * 16]);
        let negative = (vec![255; 12], vec![-128; 12 * 16]);
        let mixture = (mixed(89, 12).collect(), mixed(57, 12 * 16).map(|byte| byte as i8).collect());
        for (values, weights) in [largest, negative, mixture] {
            let start: Vec<i32> = (0..16).map(|lane| lane * 100_003 - 70_000).collect();
            let few = || Few { values: &values, weights: &weights, start: &start };
            let check = |name: &str, found: Vec<f32>| {
                assert_eq!(found, expected(&few(), found.len()), "{name} of {:?}…", &values[..4]);
            };
            // SAFETY: each is entered where the processor has it.
            unsafe {
                check("portable", Portable::enter(few()));
                #[cfg(target_arch = "x86_64")]
                {
                    let has: Vec<Isa> = Isa::available().collect();
                    if has.contains(&Isa::Avx2) {
                        check("pairs", x86::Pairs::enter(few()));
                    }
                    if has.contains(&Isa::Avx2) && x86::has_avx_vnni() {
                        check("AVX-VNNI", x86::AvxVnni::enter(few()));
                    }
                    if has.contains(&Isa::Avx512) {
                        check("halves", x86::Halves::enter(few()));
                    }
                    if has.contains(&Isa::Avx512) && x86::has_vnni() {
                        check("VNNI", x86::Vnni::enter(few()));
                    }
                }
                #[cfg(target_arch = "aarch64")]
                check("NEON", super::super::neon::Neon::enter(few()));
            }
        }
    }
}
