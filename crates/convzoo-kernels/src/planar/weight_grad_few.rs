//! The gradient of a weight of few outputs: dot products of planes.
#![allow(unsafe_code)]

use std::ops::Range;

use super::frame::Frame;
use super::im2col::Im2col;
use crate::gemm::dot_tile::{DotTileArgs, dot_tile};
use crate::memory::{Shared, part_mut, with_scratch};
use crate::number::Number;
use crate::parallel;
use crate::simd::{Isa, Kernel, Simd};

/// Values of the sums, each a vector: half of a second-level cache.
const SUMS: usize = 128 << 10;

/// Values in the planes that are worked on at once: two thirds of a first-level cache.
const PLANES: usize = 8 << 10;

/// Vectors that a register tile sums at least before it goes to memory.
const VECTORS: usize = 32;

/// The gradient of a weight of few outputs, `[outputs, channels · taps]`: dot products of planes, read where they lie.
/// Returns whether that suits; if not, nothing is done.
pub(super) fn weight_grad_few<N: Number>(
    isa: Isa,
    batch: usize,
    (gradient, outputs): (&Im2col<N>, Range<usize>),
    (window, channels): (&Im2col<N>, Range<usize>),
    into: &mut [f32],
) -> bool {
    let Some(input) = Frame::new(window) else { return false };
    let [height, width] = window.grid;
    // Vectors along more outputs than one has lanes do better.
    if batch == 0 || outputs.len() > isa.lanes() || into.len() * isa.lanes() > SUMS {
        return false;
    }
    // The gradient in rows as long as the input's, so that a cell and its inputs lie at one distance.
    let size = [gradient.channels, height, width];
    let gradient = Frame { source: &gradient.source, size, first: [0, 0], reach: 0, pitch: input.pitch };
    // A piece is some rows of an image.
    let fitting = PLANES / ((channels.len() + outputs.len()) * input.pitch);
    let bands = height.div_ceil(fitting.saturating_sub(input.reach).max(4));
    let rows = height.div_ceil(bands);
    let plane = input.len(rows, isa.lanes());
    let offsets = input.offsets(&window.taps);
    let places: Vec<_> = (0..channels.len()).flat_map(|c| offsets.iter().map(move |at| c * plane + at)).collect();
    let pieces = batch * bands;
    let parts = (4 * parallel::threads()).min(pieces);
    let mut sums = vec![0.0; parts * into.len()];
    let (to, len) = (Shared(sums.as_mut_ptr()), into.len());
    parallel::for_each(parts, |part| {
        // SAFETY: every part has its sums to itself; the instruction set comes from detection.
        unsafe {
            N::call(
                isa,
                Part {
                    input: &input,
                    gradient: &gradient,
                    outputs: outputs.clone(),
                    channels: channels.clone(),
                    places: &places,
                    rows,
                    bands,
                    pieces: parallel::piece(pieces, parts, part),
                    to: part_mut(&to, part * len, len),
                },
            );
        }
    });
    into.copy_from_slice(&sums[..len]);
    for sums in sums[len..].chunks_exact(len) {
        into.iter_mut().zip(sums).for_each(|(into, sum)| *into += sum);
    }
    true
}

/// The sums over some pieces.
struct Part<'a, N> {
    input: &'a Frame<'a, N>,
    gradient: &'a Frame<'a, N>,
    outputs: Range<usize>,
    channels: Range<usize>,
    /// The input of the first cell at each tap of each channel.
    places: &'a [usize],
    /// Rows of a piece, and pieces of an image.
    rows: usize,
    bands: usize,
    pieces: Range<usize>,
    to: &'a mut [f32],
}

impl<N: Number> Kernel for Part<'_, N> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { input, gradient, outputs, channels, places, rows, bands, pieces, to } = self;
        let (inputs_len, plane) = (channels.len() * input.len(rows, S::LANES), gradient.len(rows, S::LANES));
        let gradients_len = outputs.len() * plane;
        let [_, height, width] = gradient.size;
        let vectors = ((rows - 1) * input.pitch + width).div_ceil(S::LANES);
        let (depth, together) = (places.len(), VECTORS.div_ceil(vectors).min(pieces.len()));
        let lengths = [to.len() * S::LANES, together * inputs_len, together * gradients_len + S::LANES];
        with_scratch(lengths.iter().sum(), |scratch| {
            // `[output][channel, tap][lanes]`, `[piece][channel][plane]`, `[piece][output][plane]`.
            let (sums, scratch) = scratch.split_at_mut(lengths[0]);
            let (inputs, gradients) = scratch.split_at_mut(lengths[1]);
            sums.fill(0.0);
            for start in pieces.clone().step_by(together) {
                let count = together.min(pieces.end - start);
                for (i, piece) in (start..start + count).enumerate() {
                    let (image, row) = (piece / bands, piece % bands * rows);
                    let end = height.min(row + rows);
                    // SAFETY: after the inputs there are the gradients, and after those a vector.
                    unsafe {
                        let (x, g) =
                            (inputs[i * inputs_len..].as_mut_ptr(), gradients[i * gradients_len..].as_mut_ptr());
                        input.write::<S>(image, channels.clone(), [row, rows], input.size[1], x);
                        gradient.write::<S>(image, outputs.clone(), [row, rows], end, g);
                    }
                }
                let tiles = outputs.len().div_ceil((S::PIXELS / 2).max(1));
                for tile in 0..tiles {
                    let tile = parallel::piece(outputs.len(), tiles, tile);
                    for (i, places) in places.chunks(4).enumerate() {
                        // SAFETY: a vector of cells and its inputs lie within their planes.
                        unsafe {
                            let args = DotTileArgs {
                                pieces: count,
                                vectors,
                                input: inputs.as_ptr(),
                                input_step: inputs_len,
                                places,
                                gradient: gradients.as_ptr().add(tile.start * plane),
                                gradient_step: gradients_len,
                                plane,
                                sums: sums.as_mut_ptr().add((tile.start * depth + 4 * i) * S::LANES),
                                step: depth * S::LANES,
                            };
                            dot_tile::<S>(tile.len(), args);
                        }
                    }
                }
            }
            for (to, sum) in to.iter_mut().zip(sums.chunks_exact(S::LANES)) {
                // SAFETY: a sum is a vector.
                *to = unsafe { S::sum(S::load(sum.as_ptr())) };
            }
        });
    }
}
