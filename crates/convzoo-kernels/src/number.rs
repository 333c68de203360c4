//! The numbers in which tensors and weights lie in memory. Kernels compute in `f32` whatever they are.
#![allow(unsafe_code)]

use std::borrow::Cow;

use half::{bf16, f16};

use crate::memory::{Shared, filled, part_mut};
use crate::simd::{Kernel, Simd};
use crate::{Isa, parallel};

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
pub trait Load: Copy + Send + Sync + 'static {
    /// Numbers in a cell of 32 bits, see [`Number`]; 1 of those that do not lie in cells.
    const PER_CELL: usize;

    /// A vector of them.
    ///
    /// # Safety
    /// The processor has `S`'s instructions, and there are as many.
    unsafe fn load<S: Simd>(from: *const Self) -> S::Vector;

    /// The value.
    fn value(self) -> f32;
}

/// A number that activations are kept in: `f32` or bfloat16.
///
/// Register tiles read *cells* of 32 bits, which are one `f32` or two neighboring bfloat16 numbers: these are multiplied pair
/// by pair, and both products added to the same sum.
pub trait Number: Load {
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

    /// A cell: of `f32` the first number alone.
    fn cell(first: Self, next: Self) -> f32;

    /// The values, which are the numbers themselves where these are `f32`.
    fn widened(isa: Isa, numbers: &[Self]) -> Cow<'_, [f32]>;

    /// The nearest numbers to values.
    fn rounded(isa: Isa, values: Vec<f32>) -> Vec<Self>;
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

    #[inline(always)]
    fn cell(first: Self, _: Self) -> f32 {
        first
    }

    fn widened(_: Isa, numbers: &[Self]) -> Cow<'_, [f32]> {
        numbers.into()
    }

    fn rounded(_: Isa, values: Vec<f32>) -> Vec<Self> {
        values
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
        // Without a branch, so that loops become vectors: to the nearest, halves to the even one, NaN to a quiet one.
        let bits = value.to_bits();
        let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
        Self::from_bits((if value.is_nan() { bits | 0x0040_0000 } else { nearest } >> 16) as u16)
    }

    #[inline(always)]
    fn cell(first: Self, next: Self) -> f32 {
        f32::from_bits(u32::from(first.to_bits()) | u32::from(next.to_bits()) << 16)
    }

    fn widened(isa: Isa, numbers: &[Self]) -> Cow<'_, [f32]> {
        converted(isa, numbers).into()
    }

    fn rounded(isa: Isa, values: Vec<f32>) -> Vec<Self> {
        converted(isa, &values)
    }
}

/// Writes numbers as others, rounded to the nearest.
///
/// # Safety
/// The processor has `S`'s instructions, and there are as many numbers and as much room.
#[inline(always)]
pub(crate) unsafe fn convert<S: Simd, I: Number, O: Number>(to: *mut O, from: *const I, length: usize) {
    let whole = length - length % S::LANES;
    // SAFETY: the caller's promise.
    unsafe {
        for i in (0..whole).step_by(S::LANES) {
            O::store::<S>(to.add(i), I::load::<S>(from.add(i)));
        }
        (whole..length).for_each(|i| to.add(i).write(O::of((*from.add(i)).value())));
    }
}

/// Numbers as others, on all threads.
fn converted<I: Number, O: Number>(isa: Isa, from: &[I]) -> Vec<O> {
    /// Numbers of a task: a few pages.
    const CHUNK: usize = 1 << 14;

    struct Convert<'a, I, O>(&'a [I], &'a mut [O]);

    impl<I: Number, O: Number> Kernel for Convert<'_, I, O> {
        type Output = ();

        #[inline(always)]
        unsafe fn run<S: Simd>(self) {
            let Self(from, to) = self;
            assert_eq!(from.len(), to.len(), "room for converted numbers");
            // SAFETY: both have as many.
            unsafe { convert::<S, I, O>(to.as_mut_ptr(), from.as_ptr(), from.len()) }
        }
    }

    // SAFETY: every chunk is written by the task that has it; the instruction set comes from detection.
    unsafe {
        filled(from.len(), |to| {
            let to = Shared(to);
            parallel::for_each(from.len().div_ceil(CHUNK), |task| {
                let range = task * CHUNK..from.len().min((task + 1) * CHUNK);
                let to = part_mut(&to, range.start, range.len());
                bf16::call(isa, Convert(&from[range], to));
            });
        })
    }
}
