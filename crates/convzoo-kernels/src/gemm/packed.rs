use std::cell::Cell;
use std::ops::Range;

use half::bf16;

use super::WeightMatrix;
use crate::memory::{Shared, take_packed};
use crate::number::Number;
use crate::parallel;
use crate::simd::{Isa, Kernel, MAX_LANES, Simd};

/// A weight in the order in which tiles read it: `[depth][tile][channel, tap][row]`; of bfloat16 numbers in cells,
/// `[pair of channels, tap][row]`, at the beginning of each tile's place.
pub(crate) struct PackedMatrix {
    pub values: Vec<f32>,
    pub rows: usize,
    pub tiles: usize,
    pub channels: usize,
    /// Channels that are summed at once.
    pub depth_channels: usize,
    pub taps: usize,
}

impl PackedMatrix {
    /// Tiles of at most `tile` rows; `depth_channels` are summed at once.
    pub fn new<N: Number>(isa: Isa, matrix: &WeightMatrix, tile: usize, depth_channels: usize) -> Self {
        let (rows, channels, taps) = (matrix.rows, matrix.channels, matrix.taps.len());
        let tiles = rows.div_ceil(tile);
        let mut values = take_packed(rows * channels * taps);
        let packed = Self { values: Vec::new(), rows, tiles, channels, depth_channels, taps };
        packed.fill(isa, matrix, Shared(values.as_mut_ptr()));
        if N::PER_CELL == 2 {
            packed.join(isa, Shared(values.as_mut_ptr()));
        }
        Self { values, ..packed }
    }

    /// Rounds the weights to bfloat16 numbers and brings those of two channels into a cell, each tile in its place.
    fn join(&self, isa: Isa, to: Shared<*mut f32>) {
        let join = |task: usize| {
            let (depth, tile) = (task / self.tiles, task % self.tiles);
            let (channels, rows) = (self.depth(depth).len(), parallel::piece(self.rows, self.tiles, tile));
            let len = self.taps * rows.len();
            // SAFETY: each tile of each depth has a part of the buffer to itself.
            let values = unsafe { std::slice::from_raw_parts_mut(to.get().add(self.at(depth, tile)), channels * len) };
            // SAFETY: the instruction set comes from detection.
            unsafe { isa.call(Join { values, len }) }
        };
        match self.rows * self.channels * self.taps {
            ..4096 => (0..self.depths() * self.tiles).for_each(join),
            _ => parallel::for_each(self.depths() * self.tiles, join),
        }
    }

    /// Writes the values in the order in which the weight lies in memory: with rows of 8 KiB, say, reads across them all
    /// meet in one set of the first-level cache.
    fn fill(&self, isa: Isa, matrix: &WeightMatrix, to: Shared<*mut f32>) {
        let (depths, taps) = (self.depths(), self.taps);
        // SAFETY: each tile of each depth has a part of the buffer to itself.
        let part = |depth: usize, tile: usize, skip: usize, len: usize| unsafe {
            std::slice::from_raw_parts_mut(to.get().add(self.at(depth, tile) + skip), len)
        };
        let by_rows = |task: usize| {
            let (depth, tile) = (task / self.tiles, task % self.tiles);
            let (channels, rows) = (self.depth(depth), parallel::piece(self.rows, self.tiles, tile));
            let to = part(depth, tile, 0, channels.len() * taps * rows.len());
            let from = &matrix.weight[rows.start * matrix.row + channels.start * taps..];
            // SAFETY: the instruction set comes from detection.
            unsafe { isa.call(Interleave { from, step: matrix.row, rows: rows.len(), to }) }
        };
        let by_channels = |task: usize| {
            let (depth, block) = (task / self.blocks(), task % self.blocks());
            let all = self.depth(depth);
            let channels = parallel::piece(all.len(), self.blocks(), block);
            for tile in 0..self.tiles {
                let rows = parallel::piece(self.rows, self.tiles, tile);
                let len = taps * rows.len();
                let to = part(depth, tile, channels.start * len, channels.len() * len);
                for (channel, to) in channels.clone().zip(to.chunks_exact_mut(len)) {
                    let from = &matrix.weight[(all.start + channel) * matrix.channel + rows.start * matrix.row..];
                    for (&tap, to) in matrix.taps.iter().zip(to.chunks_exact_mut(rows.len())) {
                        to.iter_mut().zip(from[tap..].iter().step_by(matrix.row)).for_each(|(to, from)| *to = *from);
                    }
                }
            }
        };
        let rows_in_order = matrix.channel == taps && matrix.taps.iter().copied().eq(0..taps);
        let (work, tasks): (&(dyn Fn(usize) + Sync), _) = match rows_in_order {
            true => (&by_rows, depths * self.tiles),
            false => (&by_channels, depths * self.blocks()),
        };
        match self.rows * self.channels * taps {
            ..4096 => (0..tasks).for_each(work),
            _ => parallel::for_each(tasks, work),
        }
    }

    /// Blocks of channels, of each of which a cache has room for a line of the weight.
    fn blocks(&self) -> usize {
        self.depth_channels.div_ceil(8)
    }

    /// How many times channels are summed.
    pub fn depths(&self) -> usize {
        self.channels.div_ceil(self.depth_channels)
    }

    /// The channels summed at once.
    pub fn depth(&self, depth: usize) -> Range<usize> {
        let start = depth * self.depth_channels;
        start..self.channels.min(start + self.depth_channels)
    }

    /// Where a tile's weights start.
    pub fn at(&self, depth: usize, tile: usize) -> usize {
        let channels = self.depth(depth);
        let first = parallel::piece(self.rows, self.tiles, tile).start;
        (channels.start * self.rows + channels.len() * first) * self.taps
    }
}

/// Rows, `step` apart, interleaved.
struct Interleave<'a> {
    from: &'a [f32],
    step: usize,
    rows: usize,
    to: &'a mut [f32],
}

impl Kernel for Interleave<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { from, step, rows, to } = self;
        let columns = to.len() / rows;
        // In squares of a vector each way, as far as there are rows for them, of which those that follow are left out.
        let there = from.len().saturating_sub((S::LANES - 1) * step).min(columns);
        let whole = if rows <= S::LANES { there - there % S::LANES } else { 0 };
        let mut square = [0.0; MAX_LANES * MAX_LANES];
        for first in (0..whole).step_by(S::LANES) {
            // SAFETY: the square's rows are in the slice.
            unsafe { S::transpose(from.as_ptr().add(first), step, square.as_mut_ptr(), S::LANES) };
            let to = &mut to[first * rows..];
            for (column, square) in square.chunks_exact(S::LANES).enumerate().take(S::LANES) {
                let to = &mut to[column * rows..];
                if to.len() >= S::LANES {
                    // What is written beyond the column is overwritten by the next.
                    // SAFETY: there is room for a vector.
                    unsafe { S::store(to.as_mut_ptr(), S::load(square.as_ptr())) };
                } else {
                    to[..rows].copy_from_slice(&square[..rows]);
                }
            }
        }
        for row in 0..rows {
            let from = &from[row * step..][whole..columns];
            let to = to.iter_mut().skip(whole * rows + row).step_by(rows);
            to.zip(from).for_each(|(to, from)| *to = *from);
        }
    }
}

/// Values of channels, `len` each, rounded to bfloat16 numbers and brought into cells of two channels, in their place.
struct Join<'a> {
    values: &'a mut [f32],
    len: usize,
}

impl Kernel for Join<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { values, len } = self;
        let cell = |first, next| bf16::cell(bf16::of(first), bf16::of(next));
        let channels = values.len() / len;
        let values = Cell::from_mut(values).as_slice_of_cells();
        for pair in 0..channels.div_ceil(2) {
            // A pair goes where nothing is any more that is still to be read.
            let to = &values[pair * len..][..len];
            let (first, next) = values[2 * pair * len..].split_at(len);
            if next.is_empty() {
                to.iter().zip(first).for_each(|(to, first)| to.set(cell(first.get(), 0.0)));
            } else {
                to.iter().zip(first).zip(next).for_each(|((to, first), next)| to.set(cell(first.get(), next.get())));
            }
        }
    }
}
