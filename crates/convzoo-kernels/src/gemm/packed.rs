use std::ops::Range;

use super::WeightMatrix;
use crate::memory::{Shared, take_packed};
use crate::parallel;

/// A weight in the order in which tiles read it: `[depth][tile][channel, tap][row]`.
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
    pub fn new(matrix: &WeightMatrix, tile: usize, depth_channels: usize) -> Self {
        let (rows, channels, taps) = (matrix.rows, matrix.channels, matrix.taps.len());
        let tiles = rows.div_ceil(tile);
        let mut values = take_packed(rows * channels * taps);
        let packed = Self { values: Vec::new(), rows, tiles, channels, depth_channels, taps };
        let to = Shared(values.as_mut_ptr());
        let depths = packed.depths();
        let pack = |task: usize| {
            let (depth, tile) = (task / tiles, task % tiles);
            let (channels, rows) = (packed.depth(depth), parallel::piece(rows, tiles, tile));
            // SAFETY: each tile of each depth has a part of the buffer to itself.
            let to = unsafe {
                let len = channels.len() * taps * rows.len();
                std::slice::from_raw_parts_mut(to.get().add(packed.at(depth, tile)), len)
            };
            for (channel, to) in channels.zip(to.chunks_exact_mut(taps * rows.len())) {
                for (r, row) in rows.clone().enumerate() {
                    let from = &matrix.weight[channel * matrix.channel + row * matrix.row..];
                    let to = to[r..].iter_mut().step_by(rows.len());
                    to.zip(matrix.taps).for_each(|(to, &tap)| *to = from[tap]);
                }
            }
        };
        match rows * channels * taps {
            ..4096 => (0..depths * tiles).for_each(pack),
            _ => parallel::for_each(depths * tiles, pack),
        }
        Self { values, ..packed }
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
