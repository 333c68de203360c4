//! What the machine can do at most, measured: the roofline of kernels.
//!
//! Each figure is the best of many short readings, so that what disturbs the machine now and then does not count.
#![allow(unsafe_code)]

use std::hint::black_box;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use half::bf16;

use crate::number::{Number, Numbers};
use crate::parallel::{self, piece};
use crate::simd::{Kernel, Simd};
use crate::{Buffer, Isa};

/// How long readings are taken for.
const TIME: Duration = Duration::from_millis(300);

/// Tasks of a reading for each thread: enough that one that is called late does not miss much.
const TASKS: usize = 16;

/// Multiply-adds of such numbers in a second, of all threads together: independent ones on registers alone.
pub fn multiply_adds(isa: Isa, numbers: Numbers) -> f64 {
    match numbers {
        Numbers::F32 => multiply_adds_of::<f32>(isa),
        Numbers::Bf16 => multiply_adds_of::<bf16>(isa),
    }
}

fn multiply_adds_of<N: Number>(isa: Isa) -> f64 {
    const STEPS: usize = 100_000;
    let tasks = parallel::threads() * TASKS;
    let work = |_| {
        // SAFETY: the instruction set was found on this processor.
        unsafe { N::call(isa, Chains { steps: STEPS, numbers: PhantomData::<N> }) }
    };
    (tasks * STEPS * CHAINS * isa.lanes() * N::PER_CELL) as f64 / best(|| parallel::for_each(tasks, work))
}

/// Bytes in a second that all threads together read, from memory of so many bytes that they read over and over. Where
/// a cache holds them, it is the cache's speed.
pub fn bandwidth(isa: Isa, bytes: usize) -> f64 {
    let memory = Buffer::zeros((bytes / size_of::<f32>()).next_multiple_of(LINE * CHAINS));
    let bytes = memory.len() * size_of::<f32>();
    // Pieces that a task is worth taking for, and of little memory so many rounds that the call for threads is, too.
    let pieces = (bytes / (64 << 10)).clamp(parallel::threads(), parallel::threads() * TASKS);
    let rounds = (64usize << 20).div_ceil(bytes);
    let work = |task| {
        let lines = piece(memory.len() / LINE, pieces, task % pieces);
        // SAFETY: the instruction set was found on this processor.
        unsafe { isa.call(Read { part: &memory[lines.start * LINE..lines.end * LINE] }) }
    };
    (rounds * bytes) as f64 / best(|| parallel::for_each(rounds * pieces, work))
}

/// The seconds of the fastest reading.
fn best(mut reading: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut best = f64::INFINITY;
    while start.elapsed() < TIME {
        let reading_start = Instant::now();
        reading();
        best = best.min(reading_start.elapsed().as_secs_f64());
    }
    best
}

/// Sums that run side by side: enough to hide the latency of an addition, and few enough for 16 registers.
const CHAINS: usize = 12;

/// Floats in a cache line.
const LINE: usize = 16;

struct Chains<N> {
    steps: usize,
    numbers: PhantomData<N>,
}

impl<N: Number> Kernel for Chains<N> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the processor has the instructions, the caller's promise.
        unsafe {
            let factor = S::splat(black_box(0.5));
            let mut totals = [S::splat(0.0); CHAINS];
            for _ in 0..self.steps {
                for total in &mut totals {
                    *total = N::mul_add::<S>(factor, factor, *total);
                }
            }
            black_box(totals.map(|total| S::sum(total)));
        }
    }
}

struct Read<'a> {
    part: &'a [f32],
}

impl Kernel for Read<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: as above; chunks are whole vectors.
        unsafe {
            let mut totals = [S::splat(0.0); CHAINS];
            for chunk in self.part.chunks_exact(CHAINS * S::LANES) {
                for (i, total) in totals.iter_mut().enumerate() {
                    *total = S::add(*total, S::load(chunk.as_ptr().add(i * S::LANES)));
                }
            }
            black_box(totals.map(|total| S::sum(total)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only that there are figures: no clock decides a test, and under emulation or load caches may read as slowly as
    /// memory.
    #[test]
    fn the_peaks_are_positive_numbers() {
        let isa = Isa::detect().unwrap();
        let [single, half] = [Numbers::F32, Numbers::Bf16].map(|numbers| multiply_adds(isa, numbers));
        for peak in [single, half, bandwidth(isa, 256 << 10), bandwidth(isa, 16 << 20)] {
            assert!(peak.is_finite() && peak > 0.0, "{peak}");
        }
    }
}
