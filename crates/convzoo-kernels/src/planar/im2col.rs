//! The matrix of taps that a sliding window reads.
#![allow(unsafe_code)]

use std::borrow::Cow;
use std::ops::Range;

use super::{clear, copy};
use crate::memory::Shared;
use crate::number::Number;
use crate::parallel;
use crate::simd::{Kernel, Simd};

/// The matrix `[channels × taps, pixels]` that a sliding window reads from an image, made in pieces.
///
/// Pixels are the cells of a grid, counted through all images. A tap at `[row, column]` reads, for the cell `[y, x]`,
/// the pixel `[y · step + row, x · step + column]` of the source, and zero where there is none.
pub(super) struct Im2col<'a, N: Number> {
    /// `[batch, channels, height, phases, phase]`: with a horizontal step, the columns that a tap reads side by side.
    pub source: Cow<'a, [N]>,
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

impl<'a, N: Number> Im2col<'a, N> {
    /// A window over `source`, `[batch, channels, height, width]`.
    pub fn new(
        source: &'a [N],
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
        to: *mut N,
    ) {
        let runs = self.all_runs(pieces, width);
        let rows = Rows { im2col: self, channels, runs: &runs, step: self.taps.len() * width };
        // SAFETY: the caller's promise.
        unsafe { S::call(Pack { rows, to }) }
    }

    /// The same in [cells](Number): of bfloat16 numbers, `[pairs of channels, taps, width]`.
    ///
    /// # Safety
    /// As [`pack`](Self::pack).
    #[inline(always)]
    pub unsafe fn pack_cells<S: Simd>(
        &self,
        channels: Range<usize>,
        pieces: impl Iterator<Item = (Range<usize>, usize)>,
        width: usize,
        to: *mut f32,
    ) {
        let runs = self.all_runs(pieces, width);
        let rows = Rows { im2col: self, channels, runs: &runs, step: self.taps.len() * width };
        // SAFETY: the caller's promise.
        unsafe { S::call(PackCells { rows, to }) }
    }

    /// The runs of one channel of all pieces.
    fn all_runs(&self, pieces: impl Iterator<Item = (Range<usize>, usize)>, width: usize) -> Vec<Run> {
        let mut runs = Vec::new();
        for (pixels, at) in pieces {
            self.runs(pixels, width, at, &mut runs);
        }
        runs
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
struct Rows<'a, N: Number> {
    im2col: &'a Im2col<'a, N>,
    channels: Range<usize>,
    runs: &'a [Run],
    /// From where a channel goes to where the next does.
    step: usize,
}

/// Rows as they are.
struct Pack<'a, N: Number> {
    rows: Rows<'a, N>,
    /// Where the first channel goes.
    to: *mut N,
}

impl<N: Number> Kernel for Pack<'_, N> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Rows { im2col, channels, runs, step } = self.rows;
        let source = &im2col.source;
        for (i, channel) in channels.enumerate() {
            let base = channel * im2col.plane();
            // SAFETY: runs lie within the rows; what is written beyond the end of one is overwritten by the next, or lies
            // in the vector after the rows. Values are read from the source up to its end.
            unsafe {
                let to = self.to.add(i * step);
                for run in runs {
                    let to = to.add(run.to);
                    clear::<S, N>(to, run.front);
                    let from = base + run.from;
                    let values = to.add(run.front);
                    if from + run.values + N::PER_CELL * S::LANES <= source.len() {
                        copy::<S, N>(values, source.as_ptr().add(from), run.values);
                    } else if run.values > 0 {
                        values.copy_from_nonoverlapping(source.as_ptr().add(from), run.values);
                    }
                    clear::<S, N>(values.add(run.values), run.back);
                }
            }
        }
    }
}

/// Rows in cells.
struct PackCells<'a, N: Number> {
    rows: Rows<'a, N>,
    /// Where the first channels go.
    to: *mut f32,
}

impl<N: Number> Kernel for PackCells<'_, N> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Rows { im2col, channels, runs, step } = self.rows;
        if N::PER_CELL == 1 {
            // SAFETY: a cell is a number.
            return unsafe { Pack { rows: Rows { im2col, channels, runs, step }, to: self.to.cast::<N>() }.run::<S>() };
        }
        let (source, plane) = (&im2col.source, im2col.plane());
        for (i, channel) in channels.clone().step_by(N::PER_CELL).enumerate() {
            // SAFETY: as of rows; two channels are joined where there are two.
            unsafe {
                let first = source.as_ptr().add(channel * plane);
                let next = if channel + 1 < channels.end { first.add(plane) } else { std::ptr::null() };
                let to = self.to.add(i * step);
                for run in runs {
                    let to = to.add(run.to);
                    clear::<S, f32>(to, run.front);
                    let values = to.add(run.front);
                    if run.values > 0 {
                        let cells = std::slice::from_raw_parts_mut(values, run.values).iter_mut();
                        let cells = cells.zip(std::slice::from_raw_parts(first.add(run.from), run.values));
                        if next.is_null() {
                            cells.for_each(|(cell, first)| *cell = N::cell(*first, N::of(0.0)));
                        } else {
                            let next = std::slice::from_raw_parts(next.add(run.from), run.values);
                            cells.zip(next).for_each(|((cell, first), next)| *cell = N::cell(*first, *next));
                        }
                    }
                    clear::<S, f32>(values.add(run.values), run.back);
                }
            }
        }
    }
}

/// Rows of `width` columns, each reordered: first every `phases`-th column from the first, then from the second …
fn deinterleave<N: Number>(source: &[N], width: usize, phases: usize) -> Vec<N> {
    let (rows, phase) = (source.len() / width.max(1), width.div_ceil(phases));
    let mut split = vec![N::of(0.0); rows * phase * phases];
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
