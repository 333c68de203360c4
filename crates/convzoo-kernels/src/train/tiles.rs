//! Tiles of Winograd's filtering, brought from tensors in the usual order into blocks of channels and transformed.
#![allow(unsafe_code)]

use std::ops::Range;

use crate::conv::winograd::{MAX_INPUTS, Transform};
use crate::simd::Simd;

/// Neighbouring tiles whose rows are brought in at once.
const SEGMENT: usize = 16;

/// Columns that the rows of a segment take, with a square more.
pub(super) const fn pitch<T: Transform>(lanes: usize) -> usize {
    SEGMENT * T::OUTPUTS + T::INPUTS - T::OUTPUTS + lanes
}

/// Neighbouring tiles of a row.
pub(super) struct Segment {
    /// The first one, of the run's.
    pub first: usize,
    pub tiles: usize,
    pub image: usize,
    pub row: usize,
    pub column: usize,
}

impl Segment {
    /// The one of a run that begins at a tile.
    #[inline(always)]
    pub fn at(tile: usize, chunk: &Range<usize>, [down, across]: [usize; 2]) -> Self {
        let column = tile % across;
        Self {
            first: tile - chunk.start,
            tiles: SEGMENT.min(across - column).min(chunk.end - tile),
            image: tile / (down * across),
            row: tile / across % down,
            column,
        }
    }
}

/// A tensor `[batch, channels, height, width]` that tiles are cut from, one at every `T::OUTPUTS`-th row and column.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub values: &'a [f32],
    pub channels: usize,
    pub size: [usize; 2],
    /// Rows and columns of zeros in front of the first.
    pub padding: [usize; 2],
    /// The side of a tile.
    pub side: usize,
}

impl Source<'_> {
    /// Brings the rows of a segment's tiles to `[row][column][lanes]`.
    ///
    /// # Safety
    /// The processor has `S`'s instructions, and at `lines` there is room for `T::INPUTS` rows of [`pitch`] columns.
    #[inline(always)]
    pub unsafe fn bring<S: Simd, T: Transform>(&self, segment: &Segment, block: usize, lines: *mut f32) {
        let Self { values: source, channels, size: [height, width], padding, side } = *self;
        let columns = (segment.tiles - 1) * T::OUTPUTS + side;
        let left = (segment.column * T::OUTPUTS) as isize - padding[1] as isize;
        let front = left.min(0).unsigned_abs().min(columns);
        let start = left.max(0) as usize;
        let valid = width.saturating_sub(start).min(columns - front);
        let origin = (segment.image * channels + block * S::LANES) * height * width;
        let channels = S::LANES.min(channels - block * S::LANES);
        let squares = valid.div_ceil(S::LANES);
        for row in 0..side {
            let y = (segment.row * T::OUTPUTS + row).wrapping_sub(padding[0]);
            // SAFETY: the lines have room for a square more than the columns; squares are read where the source has them.
            unsafe {
                let to = lines.add(row * pitch::<T>(S::LANES) * S::LANES);
                if y >= height {
                    to.write_bytes(0, columns * S::LANES);
                    continue;
                }
                to.write_bytes(0, front * S::LANES);
                let values = to.add(front * S::LANES);
                let from = origin + y * width + start;
                if channels == S::LANES && from + (S::LANES - 1) * height * width + squares * S::LANES <= source.len() {
                    for square in 0..squares {
                        let from = source.as_ptr().add(from + square * S::LANES);
                        S::transpose(from, height * width, values.add(square * S::LANES * S::LANES), S::LANES);
                    }
                } else {
                    if channels < S::LANES {
                        values.write_bytes(0, valid * S::LANES);
                    }
                    for channel in 0..channels {
                        let from = source.as_ptr().add(from + channel * height * width);
                        for x in 0..valid {
                            values.add(x * S::LANES + channel).write(from.add(x).read());
                        }
                    }
                }
                values.add(valid * S::LANES).write_bytes(0, (columns - front - valid) * S::LANES);
            }
        }
    }
}

/// Transforms a segment's tiles, of `side` rows and columns, from [`Source::bring`]'s lines, both ways; `steps` lead from one
/// tile of an element to the next, and from one element to the next.
///
/// # Safety
/// The processor has `S`'s instructions, and `to` has room.
#[inline(always)]
pub(super) unsafe fn transform<S: Simd, T: Transform>(
    way: unsafe fn(&[S::Vector; MAX_INPUTS]) -> [S::Vector; MAX_INPUTS],
    side: usize,
    tiles: usize,
    lines: *const f32,
    to: *mut f32,
    steps: [usize; 2],
) {
    for tile in 0..tiles {
        // SAFETY: the caller's promise.
        unsafe {
            let from = lines.add(tile * T::OUTPUTS * S::LANES);
            let mut rows = [[S::splat(0.0); MAX_INPUTS]; MAX_INPUTS];
            for (y, row) in rows.iter_mut().enumerate().take(side) {
                let mut values = [S::splat(0.0); MAX_INPUTS];
                for (x, value) in values.iter_mut().enumerate().take(side) {
                    *value = S::load(from.add((y * pitch::<T>(S::LANES) + x) * S::LANES));
                }
                *row = way(&values);
            }
            let to = to.add(tile * steps[0]);
            for x in 0..T::INPUTS {
                let mut values = [S::splat(0.0); MAX_INPUTS];
                for (value, row) in values.iter_mut().zip(&rows).take(side) {
                    *value = row[x];
                }
                for (y, value) in way(&values).into_iter().enumerate().take(T::INPUTS) {
                    S::store(to.add((y * T::INPUTS + x) * steps[1]), value);
                }
            }
        }
    }
}
