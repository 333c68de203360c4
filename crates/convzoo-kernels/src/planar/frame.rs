//! Zero-padded planes for windows of stride 1.
#![allow(unsafe_code)]

use std::ops::Range;

use super::im2col::Im2col;
use super::{clear, copy};
use crate::number::{Number, convert};
use crate::simd::Simd;

/// The zero-padded planes of a source that a window of stride 1 reads.
///
/// Rows follow each other without a seam, so that a tap lies at one distance from all cells: vectors of cells run on over
/// the ends of rows, and what they compute there is left out.
pub(super) struct Frame<'a, N> {
    pub source: &'a [N],
    /// Channels, height and width of the source.
    pub size: [usize; 3],
    /// Where the frame's first row and column lie in the source, relative to the grid's first cell.
    pub first: [isize; 2],
    /// Rows that a row of cells reads besides its own.
    pub reach: usize,
    /// From one row to the next.
    pub pitch: usize,
}

impl<'a, N: Number> Frame<'a, N> {
    /// None where the window steps, or where it is the pixel itself.
    pub fn new(im2col: &'a Im2col<N>) -> Option<Self> {
        if im2col.step != [1, 1] || im2col.taps() < 2 {
            return None;
        }
        let bounds = |i: usize| {
            let places = im2col.taps.iter().map(|tap| tap[i]);
            Some((places.clone().min()?, places.max()?))
        };
        let ((top, bottom), (left, right)) = (bounds(0)?, bounds(1)?);
        Some(Self {
            source: &im2col.source,
            size: [im2col.channels, im2col.size[0], im2col.size[1]],
            first: [top, left],
            reach: bottom.abs_diff(top),
            pitch: im2col.grid[1] + right.abs_diff(left),
        })
    }

    /// Where the taps lie, relative to a cell's place.
    pub fn offsets(&self, taps: &[[isize; 2]]) -> Vec<usize> {
        let [top, left] = self.first;
        taps.iter().map(|[row, column]| row.abs_diff(top) * self.pitch + column.abs_diff(left)).collect()
    }

    /// Floats of a plane that some rows of cells read, with those that their last vector reads beyond it.
    pub fn len(&self, rows: usize, lanes: usize) -> usize {
        ((rows + self.reach) * self.pitch).next_multiple_of(lanes) + lanes
    }

    /// Writes what `rows` rows of cells read, the first of them `row`, of some channels of an image: [`len`](Self::len)
    /// floats each. Rows of the source from `height` on count as zeros.
    ///
    /// # Safety
    /// At `to` there is room for the planes and a vector more. The processor has `S`'s instructions; image and channels are
    /// there.
    #[inline(always)]
    pub unsafe fn write<S: Simd>(
        &self,
        image: usize,
        channels: Range<usize>,
        [row, rows]: [usize; 2],
        height: usize,
        to: *mut f32,
    ) {
        let [all, total, width] = self.size;
        let (rows, len) = (rows + self.reach, self.len(rows, S::LANES));
        // Columns: zeros, values, zeros.
        let front = self.pitch.min((-self.first[1]).max(0).unsigned_abs());
        let skipped = self.first[1].max(0).unsigned_abs();
        let values = width.saturating_sub(skipped).min(self.pitch - front);
        for (i, channel) in channels.enumerate() {
            let plane = (image * all + channel) * total * width;
            // SAFETY: what is written beyond the end of a run is overwritten by the next, or lies in the vector after the
            // planes. Values are read from the source up to its end.
            unsafe {
                let to = to.add(i * len);
                for r in 0..rows {
                    let (to, y) = (to.add(r * self.pitch), (row + r) as isize + self.first[0]);
                    if y < 0 || y >= height as isize {
                        clear::<S, f32>(to, self.pitch);
                        continue;
                    }
                    let from = plane + y.unsigned_abs() * width + skipped;
                    clear::<S, f32>(to, front);
                    if N::PER_CELL == 1 && from + values + S::LANES <= self.source.len() {
                        copy::<S, f32>(to.add(front), self.source.as_ptr().add(from).cast(), values);
                    } else if values > 0 {
                        convert::<S, N, f32>(to.add(front), self.source.as_ptr().add(from), values);
                    }
                    clear::<S, f32>(to.add(front + values), self.pitch - front - values);
                }
                clear::<S, f32>(to.add(rows * self.pitch), len - rows * self.pitch);
            }
        }
    }
}
