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
    /// Pixels of a register tile whose two channel blocks fill the registers.
    const PIXELS: usize;

    /// Runs a kernel compiled for this instruction set, out of line.
    unsafe fn call<K: Kernel>(kernel: K) -> K::Output;

    unsafe fn splat(value: f32) -> Self::Vector;
    unsafe fn load(from: *const f32) -> Self::Vector;
    /// Loads IEEE half-precision floats.
    unsafe fn load_half(from: *const half::f16) -> Self::Vector;
    unsafe fn store(to: *mut f32, vector: Self::Vector);
    unsafe fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    unsafe fn sub(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    unsafe fn mul(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    unsafe fn div(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    unsafe fn max(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    unsafe fn min(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The larger of each two, NaN where either is; [`max`](Self::max) returns one or the other there.
    unsafe fn max_or_nan(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    unsafe fn sqrt(a: Self::Vector) -> Self::Vector;
    /// `a * b + c`.
    unsafe fn mul_add(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
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
