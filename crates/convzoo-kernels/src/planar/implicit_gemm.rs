//! Convolutions on planes as a matrix product, of a matrix of taps that is made in pieces.
#![allow(unsafe_code)]

use std::ops::Range;

use super::im2col::Im2col;
use crate::gemm::pixel_tile::{PixelTileArgs, pixel_tile, tile_rows};
use crate::gemm::{ChannelAffine, PackedMatrix, WeightMatrix};
use crate::memory::{Shared, leave_packed, with_scratch};
use crate::number::{Number, convert};
use crate::parallel;
use crate::simd::{Isa, Kernel, Simd};

/// Where the product goes: `[batch, rows, height, width]`, on the cells of a grid.
pub(super) struct Target<N> {
    /// The first row of the first image.
    pub output: Shared<*mut N>,
    /// From one image to the next.
    pub image: usize,
    /// Height and width.
    pub size: [usize; 2],
    /// Height and width of the grid; where its first cell lies, and the step to the next.
    pub grid: [usize; 2],
    pub first: [usize; 2],
    pub step: [usize; 2],
}

impl<N> Target<N> {
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

/// A weight times the pixels that its taps read in the source's channels, from the `first`-th on.
pub(super) struct ImplicitGemm<'a, N: Number> {
    pub isa: Isa,
    pub batch: usize,
    pub im2col: &'a Im2col<'a, N>,
    pub first: usize,
    pub matrix: WeightMatrix<'a>,
    pub affine: ChannelAffine<'a>,
    pub target: Target<N>,
}

impl<N: Number> ImplicitGemm<'_, N> {
    /// Writes the product to the target.
    pub fn run(&self) {
        let &Self { isa, batch, im2col, first, ref matrix, affine, ref target } = self;
        let pixels = batch * im2col.area();
        if pixels == 0 || matrix.rows == 0 {
            return;
        }
        let depth = (DEPTH / matrix.taps.len()).max(1) * N::PER_CELL;
        let packed = PackedMatrix::new::<N>(isa, matrix, tile_rows(isa), depth.min(matrix.channels));
        let panel = 2 * isa.lanes();
        let panels = pixels.div_ceil(panel);
        let tasks = panels.div_ceil(PANELS).max(panels.min(6 * parallel::threads()));
        parallel::for_each(tasks, |task| {
            let panels = parallel::piece(panels, tasks, task);
            let panels = [panels.start, panels.end];
            let block = PanelBlock { im2col, first, packed: &packed, affine, target, pixels, panels };
            // SAFETY: the instruction set comes from detection; each task writes pixels of its own, and the target has all of them.
            unsafe { N::call(isa, block) }
        });
        leave_packed(packed.values);
    }
}

/// All rows of some panels.
struct PanelBlock<'a, N: Number> {
    im2col: &'a Im2col<'a, N>,
    first: usize,
    packed: &'a PackedMatrix,
    affine: ChannelAffine<'a>,
    target: &'a Target<N>,
    pixels: usize,
    panels: [usize; 2],
}

impl<N: Number> Kernel for PanelBlock<'_, N> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { im2col, first, packed, affine, target, pixels, panels } = self;
        let (width, area) = (2 * S::LANES, im2col.area());
        // Of other numbers than `f32`, sums are rounded when they are whole.
        let dense = target.dense() && N::PER_CELL == 1;
        let depth = packed.depth_channels.div_ceil(N::PER_CELL) * packed.taps;
        let (panel_len, tile_len) = ((depth + 1) * width, packed.rows * width);
        let count = panels[1] - panels[0];
        with_scratch(count * (panel_len + tile_len), |scratch| {
            let (packs, tiles) = scratch.split_at_mut(count * panel_len);
            for depth in 0..packed.depths() {
                let channels = packed.depth(depth);
                let sources = first + channels.start..first + channels.end;
                let range = |panel: usize| panel * width..pixels.min((panel + 1) * width);
                let pieces = (panels[0]..panels[1]).enumerate().map(|(i, panel)| (range(panel), i * panel_len));
                // SAFETY: every pack has a row more than there are rows.
                unsafe { im2col.pack_cells::<S>(sources, pieces, width, packs.as_mut_ptr()) }
                for tile in 0..packed.tiles {
                    let rows = parallel::piece(packed.rows, packed.tiles, tile);
                    for (i, panel) in (panels[0]..panels[1]).enumerate() {
                        let pixel = panel * width;
                        let (n, cell) = (pixel / area, pixel % area);
                        // SAFETY: weights, pixels and bias are as long as the packing made them; the output is a
                        // panel within one image, or the scratch tile.
                        unsafe {
                            let (c, step) = if dense && cell + width <= area {
                                (target.output.get().add(n * target.image + cell).cast::<f32>(), target.plane())
                            } else {
                                (tiles.as_mut_ptr().add(i * tile_len), width)
                            };
                            let args = PixelTileArgs {
                                channels: channels.len().div_ceil(N::PER_CELL) * packed.taps,
                                channel_step: width,
                                taps: &[0],
                                weights: packed.values.as_ptr().add(packed.at(depth, tile)),
                                pixels: packs.as_ptr().add(i * panel_len),
                                to: c.add(rows.start * step),
                                step,
                                add: depth > 0,
                                last: (depth + 1 == packed.depths()).then(|| affine.of(rows.clone())),
                            };
                            pixel_tile::<S, N>(rows.len(), 2, args);
                        }
                    }
                }
            }
            for (i, panel) in (panels[0]..panels[1]).enumerate() {
                let range = panel * width..pixels.min((panel + 1) * width);
                if !(dense && range.start % area + width <= area) {
                    // SAFETY: the cells of the range are the target's.
                    unsafe { scatter::<S, N>(target, range, &tiles[i * tile_len..][..tile_len], width) }
                }
            }
        });
    }
}

/// Brings the first columns of a tile `[rows, width]` to the cells of the target.
///
/// # Safety
/// The pixels are the target's, and nothing else writes them meanwhile.
#[inline(always)]
unsafe fn scatter<S: Simd, N: Number>(target: &Target<N>, pixels: Range<usize>, tile: &[f32], width: usize) {
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
                    1 => convert::<S, f32, N>(to, from.as_ptr(), from.len()),
                    step => from.iter().enumerate().for_each(|(i, &value)| to.add(i * step).write(N::of(value))),
                }
            }
        }
        start += length;
    }
}
