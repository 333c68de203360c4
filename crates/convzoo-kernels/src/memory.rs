//! Memory of tensors: aligned buffers, scratch memory of a thread, and what is said to the operating system about both.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ops::{Deref, DerefMut};

use crate::number::Number;

/// A cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// Floats that start at a cache line, zero at first.
#[derive(Default)]
pub struct Buffer {
    lines: Vec<Line>,
    len: usize,
}

impl Buffer {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        Self { lines: vec![Line([0.0; 16]); len.div_ceil(16)], len }
    }

    /// `len` zeros of any kind of number.
    pub(crate) fn of<N: Number>(len: usize) -> Self {
        Self::zeros((len * size_of::<N>()).div_ceil(size_of::<f32>()))
    }

    /// Its memory as such numbers.
    pub(crate) fn numbers<N: Number>(&self) -> &[N] {
        let len = self.lines.len() * size_of::<Line>() / size_of::<N>();
        // SAFETY: lines have no gaps, and any bits are a number.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), len) }
    }

    /// The same to write.
    pub(crate) fn numbers_mut<N: Number>(&mut self) -> &mut [N] {
        let len = self.lines.len() * size_of::<Line>() / size_of::<N>();
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), len) }
    }

    /// Lengthens, with zeros, to at least `len`.
    fn grow(&mut self, len: usize) {
        if self.len < len {
            *self = Self::zeros(len);
        }
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: lines are arrays of floats without gaps, at least `len` of them.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

/// Values for whole blocks of channels: `values`, and `fill` in the lanes that the last block leaves empty, or `fill`
/// alone.
pub(crate) fn pad_channels(values: Option<&[f32]>, fill: f32, channels: usize, lanes: usize) -> Buffer {
    let mut padded = Buffer::zeros(channels.next_multiple_of(lanes));
    padded.fill(fill);
    if let Some(values) = values {
        padded[..channels].copy_from_slice(values);
    }
    padded
}

/// A pointer that tasks on other threads may use: each writes a part of its own.
pub(crate) struct Shared<T>(pub T);

impl<T: Copy> Shared<T> {
    pub(crate) fn get(&self) -> T {
        self.0
    }
}

// SAFETY: those who make one ensure that no part is written by one thread while another uses it.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

/// A part of what `to` points to.
///
/// # Safety
/// The part is there, and nothing else uses it meanwhile.
pub(crate) unsafe fn part_mut<'a, N>(to: &Shared<*mut N>, start: usize, len: usize) -> &'a mut [N] {
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(to.get().add(start), len) }
}

/// Runs `work` on this thread's scratch memory: `len` floats of any value, kept from call to call. Calls do not nest.
///
/// Inlined, so that a kernel's `work` is compiled with the kernel's instructions.
#[inline(always)]
pub(crate) fn with_scratch<T>(len: usize, work: impl FnOnce(&mut [f32]) -> T) -> T {
    thread_local! {
        static SCRATCH: Cell<Buffer> = Cell::default();
    }
    let mut scratch = SCRATCH.take();
    scratch.grow(len);
    let result = work(&mut scratch[..len]);
    SCRATCH.set(scratch);
    result
}

thread_local! {
    static PACKED: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Memory for the weights of a convolution as its kernels read them, from the last convolution of this thread: fresh memory
/// costs more than packing does. The values are any.
pub(crate) fn take_packed(len: usize) -> Vec<f32> {
    let values = PACKED.take();
    if values.len() < len { vec![0.0; len] } else { values }
}

/// Leaves the memory to the next convolution.
pub(crate) fn leave_packed(values: Vec<f32>) {
    PACKED.set(values);
}

/// A vector of `len` values that `write` writes.
///
/// # Safety
/// `write` writes them all.
pub(crate) unsafe fn filled<N>(len: usize, write: impl FnOnce(*mut N)) -> Vec<N> {
    let mut values = Vec::with_capacity(len);
    advise_large_pages(&mut values);
    write(values.as_mut_ptr());
    // SAFETY: the capacity is there, and the caller's promise.
    unsafe { values.set_len(len) };
    values
}

/// Asks the C library's allocator, for the whole process, to keep the memory that tensors leave, where it is glibc's; does
/// nothing elsewhere.
///
/// A training step would otherwise give its memory back only for the next to fault it in again, page by page, which takes a
/// quarter of a mobile network's step. Larger tensors than the limit still have a mapping of their own each time. This crate
/// never calls it: a program that trains does, once, at its start.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::ffi::c_int;
        /// `M_MMAP_THRESHOLD`, and the largest value it takes where pointers have 64 bits; elsewhere all stays as it was.
        const OWN_MAPPING: [c_int; 2] = [-3, 32 << 20];
        /// `M_TRIM_THRESHOLD`: more than a step leaves.
        const TRIM: [c_int; 2] = [-1, 1 << 30];
        unsafe extern "C" {
            fn mallopt(param: c_int, value: c_int) -> c_int;
        }
        for [param, value] in [OWN_MAPPING, TRIM] {
            // SAFETY: the allocator may be told at any time, by any thread. Where it does not take it, all stays as it was.
            unsafe { mallopt(param, value) };
        }
    }
}

/// Asks for large pages, so that a first write to the memory of a large tensor costs hundreds of times fewer page faults.
fn advise_large_pages<N>(values: &mut Vec<N>) {
    #[cfg(target_os = "linux")]
    {
        /// A large page of the processors that have them.
        const PAGE: usize = 2 << 20;
        /// `MADV_HUGEPAGE`.
        const HUGE: std::ffi::c_int = 14;
        unsafe extern "C" {
            fn madvise(start: *mut std::ffi::c_void, len: usize, advice: std::ffi::c_int) -> std::ffi::c_int;
        }
        let start = values.as_mut_ptr().addr().next_multiple_of(PAGE);
        let end = (values.as_mut_ptr().addr() + size_of::<N>() * values.capacity()) / PAGE * PAGE;
        if start < end {
            // SAFETY: the pages lie within the vector's memory, and the advice changes none of it. Where the kernel does not
            // take it, all stays as it was.
            unsafe { madvise(values.as_mut_ptr().with_addr(start).cast(), end - start, HUGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = values;
}
