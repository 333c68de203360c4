//! The matrix of taps that a sliding window reads.
#![allow(unsafe_code)]

use std::borrow::Cow;
use std::ops::Range;

use super::{clear, copy};
use crate::memory::Shared;
use crate::parallel;
use crate::simd::{Kernel, Simd};

/// The matrix `[channels × taps, pixels]` that a sliding window reads from an image, made in pieces.
///
/// Pixels are the cells of a grid, counted through all images. A tap at `[row, column]` reads, for the cell `[y, x]`,
/// the pixel `[y · step + row, x · step + column]` of the source, and zero where there is none.
pub(super) struct Im2col<'a> {
    /// `[batch, channels, height, phases, phase]`: with a horizontal step, the columns that a tap reads side by side.
    pub source: Cow<'a, [f32]>,
    pub channels: usize,
    pub size: [usize; 2],
    phase: usize,
    pub grid: [usize; 2],
    pub step: [usize; 2],
    pub taps: Vec<[isize; 2]>,
}

/// A run of a row of the matrix: zeros, values, zeros.
#[derive(Clone, Copy)]
struct Run {
    to: usize,
    front: usize,
    from: usize,
    values: usize,
    back: usize,
}

impl<'a> Im2col<'a> {
    /// A window over `source`, `[batch, channels, height, width]`.
    pub fn new(
        source: &'a [f32],
        [channels, height, width]: [usize; 3],
        grid: [usize; 2],
        step: [usize; 2],
        taps: Vec<[isize; 2]>,
    ) -> Self {
        if grid == [height, width] && step == [1, 1] && taps.iter().all(|tap| *tap == [0, 0]) {
            // The window is the pixel itself: rows follow each other without a seam.
            let size = [1, height * width];
            return Self { source: source.into(), channels, size, phase: size[1], grid: size, step, taps };
        }
        let phase = width.div_ceil(step[1]);
        let source = match step[1] {
            1 => source.into(),
            phases => deinterleave(source, width, phases).into(),
        };
        Self { source, channels, size: [height, width], phase, grid, step, taps }
    }

    /// Taps of the window.
    pub fn taps(&self) -> usize {
        self.taps.len()
    }

    /// Cells of the grid.
    pub fn area(&self) -> usize {
        self.grid[0] * self.grid[1]
    }

    fn row(&self) -> usize {
        self.phase * self.step[1]
    }

    fn plane(&self) -> usize {
        self.size[0] * self.row()
    }

    /// Writes the rows of some channels and the columns of some pieces of the pixels, each `[channels, taps, width]` from
    /// where it is told to go, zero after its pixels. Channel by channel: a channel's pieces lie side by side.
    ///
    /// # Safety
    /// For every piece there is room for its rows and a vector more. The processor has `S`'s instructions; pixels and channels
    /// are there, and no more pixels in a piece than `width`.
    #[inline(always)]
    pub unsafe fn pack<S: Simd>(
        &self,
        channels: Range<usize>,
        pieces: impl Iterator<Item = (Range<usize>, usize)>,
        width: usize,
        to: *mut f32,
    ) {
        let mut runs = Vec::new();
        for (pixels, at) in pieces {
            self.runs(pixels, width, at, &mut runs);
        }
        let pack = Pack {
            source: &self.source,
            first: channels.start * self.plane(),
            plane: self.plane(),
            channels: channels.len(),
            runs: &runs,
            to,
            step: self.taps.len() * width,
        };
        // SAFETY: the caller's promise.
        unsafe { S::call(pack) }
    }

    /// Adds the runs of one channel that go to `at`, in ascending order; the channel's plane is to be added to `from`.
    fn runs(&self, pixels: Range<usize>, width: usize, at: usize, runs: &mut Vec<Run>) {
        let (area, image) = (self.area(), self.channels * self.plane());
        let mut segments = Vec::with_capacity(8);
        let mut pixel = pixels.start;
        while pixel < pixels.end {
            let (n, cell) = (pixel / area, pixel % area);
            let (y, x) = (cell / self.grid[1], cell % self.grid[1]);
            let length = (self.grid[1] - x).min(pixels.end - pixel);
            segments.push((n * image, [y, x], pixel - pixels.start, length));
            pixel += length;
        }
        runs.reserve(segments.len() * self.taps.len());
        for (t, &[row, column]) in self.taps.iter().enumerate() {
            let phases = self.step[1] as isize;
            let (phase, shift) = (column.rem_euclid(phases) as usize, column.div_euclid(phases));
            // Columns of this phase that the image has.
            let columns = (self.size[1] + self.step[1] - 1 - phase) / self.step[1];
            for (s, &(image, [y, x], to, length)) in segments.iter().enumerate() {
                let to = at + t * width + to;
                let tail = if s + 1 == segments.len() { width - pixels.len() } else { 0 };
                let y = (y * self.step[0]) as isize + row;
                let first = x as isize + shift;
                let front = first.clamp(-(length as isize), 0).unsigned_abs();
                let end = (columns as isize - first).clamp(front as isize, length as isize) as usize;
                if y < 0 || y >= self.size[0] as isize || end == front {
                    runs.push(Run { to, front: length + tail, from: 0, values: 0, back: 0 });
                    continue;
                }
                let from = image + y as usize * self.row() + phase * self.phase + (first + front as isize) as usize;
                runs.push(Run { to, front, from, values: end - front, back: length - end + tail });
            }
        }
    }
}

/// The same runs of some channels.
struct Pack<'a> {
    source: &'a [f32],
    /// The first channel, and the step to the next.
    first: usize,
    plane: usize,
    channels: usize,
    runs: &'a [Run],
    /// Where the first channel goes, and the step to the next.
    to: *mut f32,
    step: usize,
}

impl Kernel for Pack<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for channel in 0..self.channels {
            let base = self.first + channel * self.plane;
            // SAFETY: runs lie within the rows; what is written beyond the end of one is overwritten by the next, or lies
            // in the vector after the rows. Values are read from the source up to its end.
            unsafe {
                let to = self.to.add(channel * self.step);
                for run in self.runs {
                    let to = to.add(run.to);
                    clear::<S>(to, run.front);
                    let from = base + run.from;
                    let values = to.add(run.front);
                    if from + run.values + S::LANES <= self.source.len() {
                        copy::<S>(values, self.source.as_ptr().add(from), run.values);
                    } else if run.values > 0 {
                        values.copy_from_nonoverlapping(self.source.as_ptr().add(from), run.values);
                    }
                    clear::<S>(values.add(run.values), run.back);
                }
            }
        }
    }
}

/// Rows of `width` columns, each reordered: first every `phases`-th column from the first, then from the second …
fn deinterleave(source: &[f32], width: usize, phases: usize) -> Vec<f32> {
    let (rows, phase) = (source.len() / width.max(1), width.div_ceil(phases));
    let mut split = vec![0.0; rows * phase * phases];
    let to = Shared(split.as_mut_ptr());
    let parts = (rows * width / 4096).clamp(1, 4 * parallel::threads());
    parallel::for_each(parts, |part| {
        for row in parallel::piece(rows, parts, part) {
            let from = &source[row * width..][..width];
            // SAFETY: each row is written by one part, and lies within the vector.
            let to = unsafe { std::slice::from_raw_parts_mut(to.get().add(row * phase * phases), phase * phases) };
            for (i, to) in to.chunks_exact_mut(phase).enumerate() {
                to.iter_mut().zip(from.iter().skip(i).step_by(phases)).for_each(|(to, from)| *to = *from);
            }
        }
    });
    split
}
