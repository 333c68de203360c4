//! Tiles of Winograd's method, brought from tensors in NCHW order into blocks of channels and transformed.
#![allow(unsafe_code)]

use crate::number::Number;
use crate::simd::{MAX_LANES, Simd};
use crate::winograd::pipeline::{Segment, pitch};
use crate::winograd::transform::{MAX_INPUTS, Square, Transform, Way, to_elements};

/// A tensor `[batch, channels, height, width]` that tiles are cut from, one at every `T::OUTPUTS`-th row and column.
#[derive(Clone, Copy)]
pub(super) struct PlanarTiles<'a, N> {
    pub values: &'a [N],
    pub channels: usize,
    pub size: [usize; 2],
    /// Rows and columns of zeros before the first.
    pub padding: [usize; 2],
    /// The side of a tile.
    pub side: usize,
}

impl<N: Number> PlanarTiles<'_, N> {
    /// Brings the rows of a segment's tiles to `[row][column][lanes]`.
    ///
    /// # Safety
    /// The processor has `S`'s instructions, and at `lines` there is room for `T::INPUTS` rows of [`pitch`] columns.
    #[inline(always)]
    unsafe fn bring<S: Simd, T: Transform>(&self, segment: &Segment, block: usize, lines: *mut f32) {
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
                        let to = values.add(square * S::LANES * S::LANES);
                        if N::PER_CELL == 1 {
                            S::transpose(from.cast(), height * width, to, S::LANES);
                            continue;
                        }
                        let mut wide = [0.0; MAX_LANES * MAX_LANES];
                        for channel in 0..S::LANES {
                            let from = N::load::<S>(from.add(channel * height * width));
                            S::store(wide.as_mut_ptr().add(channel * S::LANES), from);
                        }
                        S::transpose(wide.as_ptr(), S::LANES, to, S::LANES);
                    }
                } else {
                    if channels < S::LANES {
                        values.write_bytes(0, valid * S::LANES);
                    }
                    for channel in 0..channels {
                        let from = source.as_ptr().add(from + channel * height * width);
                        for x in 0..valid {
                            values.add(x * S::LANES + channel).write((*from.add(x)).value());
                        }
                    }
                }
                values.add(valid * S::LANES).write_bytes(0, (columns - front - valid) * S::LANES);
            }
        }
    }

    /// Brings a segment's tiles and transforms them by `way`: of each element, one tile and the next `steps[0]` apart, one
    /// element and the next `steps[1]`.
    ///
    /// # Safety
    /// As [`bring`](Self::bring), and `to` has room.
    #[inline(always)]
    pub unsafe fn transform_by<S: Simd, T: Transform, O: Number>(
        &self,
        way: Way<S, MAX_INPUTS>,
        segment: &Segment,
        block: usize,
        lines: *mut f32,
        to: *mut O,
        steps: [usize; 2],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            self.bring::<S, T>(segment, block, lines);
            for tile in 0..segment.tiles {
                let from = lines.add(tile * T::OUTPUTS * S::LANES);
                let square = LineSquare { from, pitch: pitch::<T>(S::LANES), side: self.side };
                to_elements::<S, T, O>(way, self.side, &square, to.add(tile * steps[0]), steps[1]);
            }
        }
    }
}

/// A tile in lines of blocks, `[row][column][lanes]`.
struct LineSquare {
    from: *const f32,
    /// Columns from one row to the next.
    pitch: usize,
    side: usize,
}

impl Square for LineSquare {
    #[inline(always)]
    unsafe fn row<S: Simd>(&self, y: usize) -> [S::Vector; MAX_INPUTS] {
        // SAFETY: the lines have the tile's rows and columns; the processor has the instructions, the caller's promise.
        unsafe {
            let mut values = [S::splat(0.0); MAX_INPUTS];
            for (x, value) in values.iter_mut().enumerate().take(self.side) {
                *value = S::load(self.from.add((y * self.pitch + x) * S::LANES));
            }
            values
        }
    }
}
