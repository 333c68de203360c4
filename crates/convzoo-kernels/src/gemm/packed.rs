use std::ops::Range;

use half::bf16;

use super::WeightMatrix;
use crate::memory::{Shared, take_packed};
use crate::number::Number;
use crate::parallel;

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
    pub fn new<N: Number>(matrix: &WeightMatrix, tile: usize, depth_channels: usize) -> Self {
        let (rows, channels, taps) = (matrix.rows, matrix.channels, matrix.taps.len());
        let tiles = rows.div_ceil(tile);
        let mut values = take_packed(rows * channels * taps);
        let packed = Self { values: Vec::new(), rows, tiles, channels, depth_channels, taps };
        packed.fill(matrix, Shared(values.as_mut_ptr()));
        if N::PER_CELL == 2 {
            packed.join(Shared(values.as_mut_ptr()));
        }
        Self { values, ..packed }
    }

    /// Rounds the weights to bfloat16 numbers and brings those of two channels into a cell, each tile in its place.
    fn join(&self, to: Shared<*mut f32>) {
        let join = |task: usize| {
            let (depth, tile) = (task / self.tiles, task % self.tiles);
            let (channels, rows) = (self.depth(depth).len(), parallel::piece(self.rows, self.tiles, tile));
            let len = self.taps * rows.len();
            // SAFETY: each tile of each depth has a part of the buffer to itself.
            let values = unsafe { std::slice::from_raw_parts_mut(to.get().add(self.at(depth, tile)), channels * len) };
            let bits = |value: f32| u32::from(bf16::of(value).to_bits());
            for pair in 0..channels.div_ceil(2) {
                // A pair goes where nothing is any more that is still to be read.
                for i in 0..len {
                    let [first, next] = [2 * pair, 2 * pair + 1].map(|channel| values.get(channel * len + i).copied());
                    let cell = bits(first.unwrap_or(0.0)) | bits(next.unwrap_or(0.0)) << 16;
                    values[pair * len + i] = f32::from_bits(cell);
                }
            }
        };
        match self.rows * self.channels * self.taps {
            ..4096 => (0..self.depths() * self.tiles).for_each(join),
            _ => parallel::for_each(self.depths() * self.tiles, join),
        }
    }

    /// Writes the values in the order in which the weight lies in memory: with rows of 8 KiB, say, reads across them all
    /// meet in one set of the first-level cache.
    fn fill(&self, matrix: &WeightMatrix, to: Shared<*mut f32>) {
        let (depths, taps) = (self.depths(), self.taps);
        // SAFETY: each tile of each depth has a part of the buffer to itself.
        let part = |depth: usize, tile: usize, skip: usize, len: usize| unsafe {
            std::slice::from_raw_parts_mut(to.get().add(self.at(depth, tile) + skip), len)
        };
        let by_rows = |task: usize| {
            let (depth, tile) = (task / self.tiles, task % self.tiles);
            let (channels, rows) = (self.depth(depth), parallel::piece(self.rows, self.tiles, tile));
            let to = part(depth, tile, 0, channels.len() * taps * rows.len());
            for (r, row) in rows.clone().enumerate() {
                let from = &matrix.weight[row * matrix.row..];
                let from = &from[channels.start * taps..channels.end * taps];
                to[r..].iter_mut().step_by(rows.len()).zip(from).for_each(|(to, from)| *to = *from);
            }
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
