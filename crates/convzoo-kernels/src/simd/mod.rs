//! Vectors of `f32`, one implementation per instruction set, chosen when the program runs.
//!
//! A kernel is a struct of arguments that implements [`Kernel`] for any [`Simd`]; [`Isa::call`] compiles it once for
//! each instruction set and enters the one asked for. Everything a kernel calls must be `#[inline(always)]`, so that it is
//! compiled with the instructions of the kernel's entry.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod dot;
mod isa;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd128;

pub use isa::Isa;

/// The widest vector of any instruction set.
pub const MAX_LANES: usize = 16;

/// A vector of [`LANES`](Self::LANES) floats and what kernels do with it.
///
/// # Safety
/// An implementation reads and writes exactly `LANES` floats at the pointers it is given.
///
/// Every method may be called only on a processor that has the instruction set, and pointers must be valid for `LANES`
/// values of their type; they need no alignment.
#[allow(missing_docs, clippy::missing_safety_doc)] // said above, once for all
pub unsafe trait Simd: Copy + Send + Sync + 'static {
    /// A register, or a few that are used as one.
    type Vector: Copy;
    /// Floats in a vector; also the channels in a block of activations.
    const LANES: usize;
    /// Pixels of a register tile whose channel blocks fill the registers.
    const PIXELS: usize;
    /// Channel blocks of a register tile, of the two whose weights lie together: 1 or 2.
    const BLOCKS: usize = 2;

    /// Runs a kernel compiled for this instruction set, out of line.
    unsafe fn call<K: Kernel>(kernel: K) -> K::Output;

    unsafe fn splat(value: f32) -> Self::Vector;
    unsafe fn load(from: *const f32) -> Self::Vector;
    /// Loads IEEE half-precision floats.
    unsafe fn load_half(from: *const half::f16) -> Self::Vector;
    /// Loads bfloat16 numbers, the upper halves of floats.
    unsafe fn load_bf16(from: *const half::bf16) -> Self::Vector;
    /// The first and the second bfloat16 number of each lane.
    unsafe fn pairs(cells: Self::Vector) -> [Self::Vector; 2];
    /// Loads bytes.
    unsafe fn load_bytes(from: *const u8) -> Self::Vector;
    unsafe fn store(to: *mut f32, vector: Self::Vector);
    /// Writes bfloat16 numbers, rounded to the nearest, a tie to the even one; NaN stays NaN. Where the processor has an
    /// instruction for it, numbers below 2⁻¹²⁶ become zero.
    unsafe fn store_bf16(to: *mut half::bf16, vector: Self::Vector);
    /// Stores numbers from 0 to 255 as bytes, rounded to the nearest, halves to the even one; NaN as 0.
    unsafe fn store_bytes(to: *mut u8, vector: Self::Vector);
    unsafe fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    unsafe fn sub(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    unsafe fn mul(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    unsafe fn div(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    unsafe fn max(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    unsafe fn min(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The larger of each two, NaN where either is; [`max`](Self::max) returns one or the other there.
    unsafe fn max_or_nan(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// Of each two values, with any 32 bits that belong to each: the first where it is larger, or NaN, else the second.
    unsafe fn larger(a: [Self::Vector; 2], b: [Self::Vector; 2]) -> [Self::Vector; 2];
    unsafe fn sqrt(a: Self::Vector) -> Self::Vector;
    /// `a * b + c`.
    unsafe fn mul_add(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// `a * b + c`, where each lane of `a` and `b` holds two bfloat16 numbers: both products are added.
    #[inline(always)]
    unsafe fn mul_add_pairs(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
        // SAFETY: the caller's promise.
        unsafe {
            let ([a, a_next], [b, b_next]) = (Self::pairs(a), Self::pairs(b));
            Self::mul_add(a_next, b_next, Self::mul_add(a, b, c))
        }
    }
    /// The sum of the lanes.
    unsafe fn sum(a: Self::Vector) -> f32;

    /// 2ⁿ of whole numbers from −126 to 127; of NaN anything.
    #[inline(always)]
    unsafe fn power_of_two(n: Self::Vector) -> Self::Vector {
        let mut values = [0.0; MAX_LANES];
        // SAFETY: there is room for the longest vector.
        unsafe {
            Self::store(values.as_mut_ptr(), n);
            // Adding it leaves n, shifted by 127, in the lowest bits.
            const SHIFT: f32 = 12_582_912.0 + 127.0;
            values[..Self::LANES].iter_mut().for_each(|n| *n = f32::from_bits((*n + SHIFT).to_bits() << 23));
            Self::load(values.as_ptr())
        }
    }

    /// Writes the columns of a square of `LANES` by `LANES` as rows: rows of the source start `from_step` apart, those
    /// of the result `to_step` apart.
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        for row in 0..Self::LANES {
            for column in 0..Self::LANES {
                // SAFETY: the pointers are valid for the rows, the trait's condition.
                unsafe { to.add(column * to_step + row).write(from.add(row * from_step + column).read()) }
            }
        }
    }
}

/// A computation that is compiled for each instruction set.
pub trait Kernel {
    /// What it returns.
    type Output;

    /// The computation; implementations are `#[inline(always)]`.
    ///
    /// # Safety
    /// The processor has `S`'s instructions, and the kernel's pointers are valid for what it does.
    unsafe fn run<S: Simd>(self) -> Self::Output;
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::number::Number;

    /// Widens, rounds and multiplies as many numbers as a vector has, and pairs of them.
    struct Bf16<'a> {
        values: &'a [f32; MAX_LANES],
        numbers: &'a [bf16; 2 * MAX_LANES],
        rounded: &'a mut [bf16; MAX_LANES],
        widened: &'a mut [f32; MAX_LANES],
        sums: &'a mut [f32; MAX_LANES],
    }

    impl Kernel for Bf16<'_> {
        type Output = usize;

        #[inline(always)]
        unsafe fn run<S: Simd>(self) -> usize {
            // SAFETY: there is room for the longest vector.
            unsafe {
                S::store_bf16(self.rounded.as_mut_ptr(), S::load(self.values.as_ptr()));
                S::store(self.widened.as_mut_ptr(), S::load_bf16(self.numbers.as_ptr()));
                let cells = S::load(self.numbers.as_ptr().cast());
                S::store(self.sums.as_mut_ptr(), S::mul_add_pairs(cells, cells, S::splat(1.0)));
            }
            S::LANES
        }
    }

    /// Which instructions there are, and whether they are those for bfloat16 numbers.
    #[test]
    fn bfloat16_numbers_are_rounded_widened_and_multiplied_alike_everywhere() {
        let special = [0.0, -0.0, 1.0, -2.5, 1e38, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 3e-38];
        let ties = [0x3f80_8000, 0x3f81_8000, 0x3f80_8001, 0x3f80_7fff, 0x7f7f_ffff].map(f32::from_bits);
        // Signalling, with nothing in the upper half but the exponent.
        let all: Vec<f32> = special.into_iter().chain(ties).chain([f32::from_bits(0x7f80_0001)]).collect();
        let all: [f32; MAX_LANES] = all.try_into().unwrap();
        let numbers: [bf16; 2 * MAX_LANES] = std::array::from_fn(|i| bf16::from_f32((i as f32 - 11.0) * 0.37));
        for isa in Isa::available() {
            for native in [false, true] {
                let mut values = all;
                for _ in 0..2 {
                    let (mut rounded, mut widened, mut sums) =
                        ([bf16::ZERO; MAX_LANES], [0.0; MAX_LANES], [0.0; MAX_LANES]);
                    let kernel = Bf16 {
                        values: &values,
                        numbers: &numbers,
                        rounded: &mut rounded,
                        widened: &mut widened,
                        sums: &mut sums,
                    };
                    // SAFETY: the instruction set is there, and what it has for such numbers is asked for by them.
                    let lanes = unsafe { if native { bf16::call(isa, kernel) } else { isa.call(kernel) } };
                    for i in 0..lanes {
                        let expected = bf16::from_f32(values[i]);
                        let same = rounded[i] == expected || rounded[i].is_nan() && expected.is_nan();
                        assert!(same, "{} is rounded to {}, not {expected}, on {isa}", values[i], rounded[i]);
                        assert_eq!(widened[i], numbers[i].to_f32(), "widened on {isa}");
                        let [a, b] = [numbers[2 * i], numbers[2 * i + 1]].map(|number| f64::from(number.to_f32()));
                        let (expected, found) = (1.0 + a * a + b * b, f64::from(sums[i]));
                        // Two roundings to 24 bits.
                        assert!((found - expected).abs() <= expected * 1.2e-7, "{found}, not {expected}, on {isa}");
                    }
                    // The other half, where vectors are short.
                    values.rotate_left(MAX_LANES / 2);
                }
            }
        }
    }
}
