#![allow(unsafe_code)]

use std::ops::Range;

use super::conv::Epilogue;
use super::gather::Gather;
use super::{keep, kept};
use crate::operation::Shared;
use crate::simd::{Isa, Kernel, Simd};
use crate::{buffer, parallel};

/// A weight as a matrix `[rows, channels × taps]`, wherever its values lie.
pub(super) struct Matrix<'a> {
    pub weight: &'a [f32],
    pub rows: usize,
    pub channels: usize,
    /// From one row to the next, and from one channel to the next.
    pub row: usize,
    pub channel: usize,
    /// Where the taps lie.
    pub taps: &'a [usize],
}

/// Where the product goes: `[batch, rows, height, width]`, on the cells of a grid.
pub(super) struct Target {
    /// The first row of the first image.
    pub output: Shared<*mut f32>,
    /// From one image to the next.
    pub image: usize,
    /// Height and width.
    pub size: [usize; 2],
    /// Height and width of the grid; where its first cell lies, and the step to the next.
    pub grid: [usize; 2],
    pub first: [usize; 2],
    pub step: [usize; 2],
}

impl Target {
    pub fn plane(&self) -> usize {
        self.size[0] * self.size[1]
    }

    /// Whether the grid's cells are all there is, in their order.
    pub fn dense(&self) -> bool {
        self.grid == self.size && self.first == [0, 0] && self.step == [1, 1]
    }
}

/// Values summed before the next piece of the matrices is packed: a panel of pixels and a tile of weights then fill the
/// first-level cache.
const DEPTH: usize = 384;

/// Panels of pixels that share a pass over the weights.
const PANELS: usize = 6;

/// A weight times the pixels that its taps see in the source's channels, from the `first`-th on.
pub(super) struct Product<'a> {
    pub isa: Isa,
    pub batch: usize,
    pub gather: &'a Gather<'a>,
    pub first: usize,
    pub matrix: Matrix<'a>,
    pub epilogue: Epilogue<'a>,
    pub target: Target,
}

impl Product<'_> {
    /// Writes the product to the target.
    pub fn run(&self) {
        let &Self { isa, batch, gather, first, ref matrix, epilogue, ref target } = self;
        let pixels = batch * gather.area();
        if pixels == 0 || matrix.rows == 0 || self.run_directly() {
            return;
        }
        // SAFETY: the instruction set comes from detection.
        let rows = unsafe { isa.call(TileRows) };
        let packed = Packed::new(matrix, rows, (DEPTH / matrix.taps.len()).clamp(1, matrix.channels));
        let panel = 2 * isa.lanes();
        let panels = pixels.div_ceil(panel);
        let tasks = panels.div_ceil(PANELS).max(panels.min(6 * parallel::threads()));
        parallel::for_each(tasks, |task| {
            let panels = parallel::piece(panels, tasks, task);
            let block =
                Block { gather, first, packed: &packed, epilogue, target, pixels, panels: [panels.start, panels.end] };
            // SAFETY: as above; each task writes pixels of its own, and the target has all of them.
            unsafe { isa.call(block) }
        });
        keep(packed.values);
    }
}

/// A weight in the order in which tiles read it: `[depth][tile][channel, tap][row]`.
pub(super) struct Packed {
    pub values: Vec<f32>,
    pub rows: usize,
    pub tiles: usize,
    pub channels: usize,
    depth_channels: usize,
    taps: usize,
}

impl Packed {
    /// Tiles of at most `tile` rows; `depth_channels` are summed at once.
    pub fn new(matrix: &Matrix, tile: usize, depth_channels: usize) -> Self {
        let (rows, channels, taps) = (matrix.rows, matrix.channels, matrix.taps.len());
        let tiles = rows.div_ceil(tile);
        let mut values = kept(rows * channels * taps);
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

    fn depths(&self) -> usize {
        self.channels.div_ceil(self.depth_channels)
    }

    /// The channels summed at once.
    fn depth(&self, depth: usize) -> Range<usize> {
        let start = depth * self.depth_channels;
        start..self.channels.min(start + self.depth_channels)
    }

    /// Where a tile's weights begin.
    pub fn at(&self, depth: usize, tile: usize) -> usize {
        let channels = self.depth(depth);
        let first = parallel::piece(self.rows, self.tiles, tile).start;
        (channels.start * self.rows + channels.len() * first) * self.taps
    }
}

/// Rows of a register tile.
struct TileRows;

impl Kernel for TileRows {
    type Output = usize;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> usize {
        S::PIXELS
    }
}

/// All rows of some panels.
struct Block<'a> {
    gather: &'a Gather<'a>,
    first: usize,
    packed: &'a Packed,
    epilogue: Epilogue<'a>,
    target: &'a Target,
    pixels: usize,
    panels: [usize; 2],
}

impl Kernel for Block<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { gather, first, packed, epilogue, target, pixels, panels } = self;
        let (width, area) = (2 * S::LANES, gather.area());
        let dense = target.dense();
        let depth = packed.depth_channels * packed.taps;
        let (panel_len, tile_len) = ((depth + 1) * width, packed.rows * width);
        let count = panels[1] - panels[0];
        buffer::with_scratch(count * (panel_len + tile_len), |scratch| {
            let (packs, tiles) = scratch.split_at_mut(count * panel_len);
            for depth in 0..packed.depths() {
                let channels = packed.depth(depth);
                let sources = first + channels.start..first + channels.end;
                let range = |panel: usize| panel * width..pixels.min((panel + 1) * width);
                let pieces = (panels[0]..panels[1]).enumerate().map(|(i, panel)| (range(panel), i * panel_len));
                // SAFETY: every pack has a row more than there are rows.
                unsafe { gather.pack::<S>(sources, pieces, width, packs.as_mut_ptr()) }
                for tile in 0..packed.tiles {
                    let rows = parallel::piece(packed.rows, packed.tiles, tile);
                    for (i, panel) in (panels[0]..panels[1]).enumerate() {
                        let pixel = panel * width;
                        let (n, cell) = (pixel / area, pixel % area);
                        // SAFETY: weights, pixels and bias are as long as the packing made them; the output is a
                        // panel within one image, or the scratch tile.
                        unsafe {
                            let (c, step) = if dense && cell + width <= area {
                                (target.output.get().add(n * target.image + cell), target.plane())
                            } else {
                                (tiles.as_mut_ptr().add(i * tile_len), width)
                            };
                            let args = TileArgs {
                                depth: channels.len() * packed.taps,
                                a: packed.values.as_ptr().add(packed.at(depth, tile)),
                                b: packs.as_ptr().add(i * panel_len),
                                c: c.add(rows.start * step),
                                step,
                                add: depth > 0,
                                last: (depth + 1 == packed.depths()).then(|| epilogue.of(rows.clone())),
                            };
                            multiply::<S>(rows.len(), args);
                        }
                    }
                }
            }
            for (i, panel) in (panels[0]..panels[1]).enumerate() {
                let range = panel * width..pixels.min((panel + 1) * width);
                if !(dense && range.start % area + width <= area) {
                    // SAFETY: the cells of the range are the target's.
                    unsafe { scatter(target, range, &tiles[i * tile_len..][..tile_len], width) }
                }
            }
        });
    }
}

/// Brings the first columns of a tile `[rows, width]` to the cells of the target.
///
/// # Safety
/// The pixels are the target's, and nothing else writes them meanwhile.
unsafe fn scatter(target: &Target, pixels: Range<usize>, tile: &[f32], width: usize) {
    let [height, columns] = target.grid;
    let mut start = pixels.start;
    while start < pixels.end {
        let (n, cell) = (start / (height * columns), start % (height * columns));
        let (y, x) = (cell / columns, cell % columns);
        let length = (columns - x).min(pixels.end - start);
        let (y, x) = (target.first[0] + y * target.step[0], target.first[1] + x * target.step[1]);
        let first = n * target.image + y * target.size[1] + x;
        for (row, tile) in tile.chunks_exact(width).enumerate() {
            let from = &tile[start - pixels.start..][..length];
            // SAFETY: the caller's promise.
            unsafe {
                let to = target.output.get().add(first + row * target.plane());
                match target.step[1] {
                    1 => to.copy_from_nonoverlapping(from.as_ptr(), length),
                    step => from.iter().enumerate().for_each(|(i, &value)| to.add(i * step).write(value)),
                }
            }
        }
        start += length;
    }
}

/// What a register tile works on.
#[derive(Clone, Copy)]
struct TileArgs<'a> {
    depth: usize,
    /// `[depth, rows]`.
    a: *const f32,
    /// `[depth, two vectors]`.
    b: *const f32,
    /// The first row of the result, and the step to the next.
    c: *mut f32,
    step: usize,
    /// Whether the result is added to what is there.
    add: bool,
    /// What follows the last addition.
    last: Option<Epilogue<'a>>,
}

/// `ROWS` rows by two vectors of pixels.
struct Tile<'a, const ROWS: usize>(TileArgs<'a>);

impl<const ROWS: usize> Kernel for Tile<'_, ROWS> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let TileArgs { depth, mut a, mut b, c, step, add, last } = self.0;
        // SAFETY: the pointers are valid for the depth, the rows and the vectors, the promise of whoever made them.
        unsafe {
            let mut totals = [[S::splat(0.0); 2]; ROWS];
            for _ in 0..depth {
                let pixels = [S::load(b), S::load(b.add(S::LANES))];
                for (r, totals) in totals.iter_mut().enumerate() {
                    let weight = S::splat(*a.add(r));
                    totals[0] = S::mul_add(weight, pixels[0], totals[0]);
                    totals[1] = S::mul_add(weight, pixels[1], totals[1]);
                }
                a = a.add(ROWS);
                b = b.add(2 * S::LANES);
            }
            for (r, totals) in totals.into_iter().enumerate() {
                for (v, mut total) in totals.into_iter().enumerate() {
                    let to = c.add(r * step + v * S::LANES);
                    if add {
                        total = S::add(total, S::load(to));
                    }
                    if let Some(epilogue) = last {
                        total = epilogue.apply::<S>(r, total);
                    }
                    S::store(to, total);
                }
            }
        }
    }
}

/// Computes a tile of `rows`, at most [`Simd::PIXELS`].
#[inline(always)]
unsafe fn multiply<S: Simd>(rows: usize, args: TileArgs) {
    macro_rules! dispatch {
        ($($rows:literal)*) => {
            match rows {
                // Tiles larger than the registers are never asked for, and so not compiled.
                // SAFETY: the caller's promise.
                $($rows if $rows <= S::PIXELS => unsafe { S::call(Tile::<$rows>(args)) },)*
                _ => unreachable!("tiles have 1 to {} rows", S::PIXELS),
            }
        };
    }
    dispatch!(1 2 3 4 5 6 7 8 9 10 11 12 13 14)
}
