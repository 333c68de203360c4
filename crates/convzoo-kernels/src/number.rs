//! The numbers in which tensors and weights lie in memory. Kernels compute in `f32` whatever they are.
#![allow(unsafe_code)]

use half::{bf16, f16};

use crate::Isa;
use crate::simd::{Kernel, Simd};

/// The numbers of a tensor in a [`Layout`](crate::Layout).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Numbers {
    /// 32 bits.
    #[default]
    F32,
    /// bfloat16.
    Bf16,
}

impl Numbers {
    /// Bytes of one.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => size_of::<f32>(),
            Self::Bf16 => size_of::<bf16>(),
        }
    }
}

/// A number that is read as a value of `f32`.
pub(crate) trait Load: Copy + Send + Sync + 'static {
    /// Numbers in a cell of 32 bits, see [`Number`]; 1 of those that do not lie in cells.
    const PER_CELL: usize;

    /// A vector of them.
    ///
    /// # Safety
    /// The processor has `S`'s instructions, and there are as many.
    unsafe fn load<S: Simd>(from: *const Self) -> S::Vector;

    fn value(self) -> f32;
}

/// A number that activations are kept in.
///
/// Register tiles read *cells* of 32 bits, which are one `f32` or two neighboring bfloat16 numbers: these are multiplied pair
/// by pair, and both products added to the same sum.
pub(crate) trait Number: Load {
    /// Which they are.
    const NUMBERS: Numbers;

    /// Runs a kernel on such numbers, with the instructions for them where the processor has such.
    ///
    /// # Safety
    /// As [`Isa::call`].
    unsafe fn call<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
        // SAFETY: the caller's promise.
        unsafe { isa.call(kernel) }
    }

    /// Writes a vector of them, rounded to the nearest.
    ///
    /// # Safety
    /// The processor has `S`'s instructions, and there is room.
    unsafe fn store<S: Simd>(to: *mut Self, vector: S::Vector);

    /// `a * b + c`, where the lanes of `a` and `b` are cells.
    ///
    /// # Safety
    /// The processor has `S`'s instructions.
    unsafe fn mul_add<S: Simd>(a: S::Vector, b: S::Vector, c: S::Vector) -> S::Vector;

    /// The nearest to a value.
    fn of(value: f32) -> Self;
}

impl Load for f32 {
    const PER_CELL: usize = 1;

    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const Self) -> S::Vector {
        // SAFETY: the caller's promise.
        unsafe { S::load(from) }
    }

    #[inline(always)]
    fn value(self) -> f32 {
        self
    }
}

impl Load for f16 {
    const PER_CELL: usize = 1;

    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const Self) -> S::Vector {
        // SAFETY: the caller's promise.
        unsafe { S::load_half(from) }
    }

    #[inline(always)]
    fn value(self) -> f32 {
        self.to_f32()
    }
}

impl Load for bf16 {
    const PER_CELL: usize = 2;

    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const Self) -> S::Vector {
        // SAFETY: the caller's promise.
        unsafe { S::load_bf16(from) }
    }

    #[inline(always)]
    fn value(self) -> f32 {
        self.to_f32()
    }
}

impl Number for f32 {
    const NUMBERS: Numbers = Numbers::F32;
    #[inline(always)]
    unsafe fn store<S: Simd>(to: *mut Self, vector: S::Vector) {
        // SAFETY: as above.
        unsafe { S::store(to, vector) }
    }

    #[inline(always)]
    unsafe fn mul_add<S: Simd>(a: S::Vector, b: S::Vector, c: S::Vector) -> S::Vector {
        // SAFETY: as above.
        unsafe { S::mul_add(a, b, c) }
    }

    #[inline(always)]
    fn of(value: f32) -> Self {
        value
    }
}

impl Number for bf16 {
    const NUMBERS: Numbers = Numbers::Bf16;
    unsafe fn call<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
        // SAFETY: as above.
        unsafe { isa.call_bf16(kernel) }
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(to: *mut Self, vector: S::Vector) {
        // SAFETY: as above.
        unsafe { S::store_bf16(to, vector) }
    }

    #[inline(always)]
    unsafe fn mul_add<S: Simd>(a: S::Vector, b: S::Vector, c: S::Vector) -> S::Vector {
        // SAFETY: as above.
        unsafe { S::mul_add_pairs(a, b, c) }
    }

    #[inline(always)]
    fn of(value: f32) -> Self {
        Self::from_f32(value)
    }
}
