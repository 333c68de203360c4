#![allow(unsafe_code)]

use std::ops::Range;

use super::frame::Frame;
use super::gather::Gather;
use super::plane_at;
use crate::operation::Shared;
use crate::simd::{Isa, Kernel, Simd};
use crate::{buffer, parallel};

/// Values of the sums, each a vector: half of a second-level cache.
const SUMS: usize = 128 << 10;

/// Values in the planes that are worked on at once: two thirds of a first-level cache.
const PLANES: usize = 8 << 10;

/// Vectors that a register tile sums at least before it goes to memory.
const VECTORS: usize = 32;

/// The gradient of a weight of few outputs, `[outputs, channels · taps]`: dot products of planes, read where they lie.
/// Answers whether that suits; if not, nothing is done.
pub(super) fn dots(
    isa: Isa,
    batch: usize,
    (gradient, outputs): (&Gather, Range<usize>),
    (window, channels): (&Gather, Range<usize>),
    into: &mut [f32],
) -> bool {
    let Some(input) = Frame::new(window) else { return false };
    let [height, width] = window.grid;
    // Vectors along more outputs than one has lanes do better.
    if batch == 0 || outputs.len() > isa.lanes() || into.len() * isa.lanes() > SUMS {
        return false;
    }
    // The gradient in rows as long as the input's, so that a cell and what it sees lie at one distance.
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
            isa.call(Part {
                input: &input,
                gradient: &gradient,
                outputs: outputs.clone(),
                channels: channels.clone(),
                places: &places,
                rows,
                bands,
                pieces: parallel::piece(pieces, parts, part),
                to: plane_at(&to, part * len, len),
            });
        }
    });
    into.copy_from_slice(&sums[..len]);
    for sums in sums[len..].chunks_exact(len) {
        into.iter_mut().zip(sums).for_each(|(into, sum)| *into += sum);
    }
    true
}

/// The sums over some pieces.
struct Part<'a> {
    input: &'a Frame<'a>,
    gradient: &'a Frame<'a>,
    outputs: Range<usize>,
    channels: Range<usize>,
    /// What the first cell sees through each tap of each channel.
    places: &'a [usize],
    /// Rows of a piece, and pieces of an image.
    rows: usize,
    bands: usize,
    pieces: Range<usize>,
    to: &'a mut [f32],
}

impl Kernel for Part<'_> {
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
        buffer::with_scratch(lengths.iter().sum(), |scratch| {
            // `[output][channel, tap][lanes]`, `[piece][channel][plane]`, `[piece][output][plane]`.
            let (sums, scratch) = scratch.split_at_mut(lengths[0]);
            let (inputs, gradients) = scratch.split_at_mut(lengths[1]);
            sums.fill(0.0);
            for start in pieces.clone().step_by(together) {
                let count = together.min(pieces.end - start);
                for (i, piece) in (start..start + count).enumerate() {
                    let (image, row) = (piece / bands, piece % bands * rows);
                    let end = height.min(row + rows);
                    // SAFETY: behind the inputs there are the gradients, and behind those a vector.
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
                        // SAFETY: a vector of cells and what it sees lie within their planes.
                        unsafe {
                            let args = TileArgs {
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
                            add::<S>(tile.len(), args);
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

/// What a register tile works on.
#[derive(Clone, Copy)]
struct TileArgs<'a> {
    pieces: usize,
    /// Of a piece's cells.
    vectors: usize,
    /// The first piece's input, and the step to the next.
    input: *const f32,
    input_step: usize,
    /// What the first cell sees through each tap of the tile.
    places: &'a [usize],
    /// The first output's first cell, and the steps to the next piece and the next output.
    gradient: *const f32,
    gradient_step: usize,
    plane: usize,
    /// The first output's first sum, and the step to the next output.
    sums: *mut f32,
    step: usize,
}

/// The sums of `ROWS` outputs by `TAPS` taps.
struct Tile<'a, const ROWS: usize, const TAPS: usize>(TileArgs<'a>);

impl<const ROWS: usize, const TAPS: usize> Kernel for Tile<'_, ROWS, TAPS> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let TileArgs { pieces, vectors, input, input_step, places, gradient, gradient_step, plane, sums, step } =
            self.0;
        // SAFETY: the pointers are valid for all vectors, taps and outputs, the promise of whoever made them.
        unsafe {
            let mut totals = [[S::splat(0.0); TAPS]; ROWS];
            for piece in 0..pieces {
                let (input, gradient) = (input.add(piece * input_step), gradient.add(piece * gradient_step));
                let mut seen = [input; TAPS];
                seen.iter_mut().zip(places).for_each(|(seen, &place)| *seen = input.add(place));
                for at in (0..vectors).map(|vector| vector * S::LANES) {
                    let mut values = [S::splat(0.0); TAPS];
                    values.iter_mut().zip(seen).for_each(|(value, seen)| *value = S::load(seen.add(at)));
                    for (r, totals) in totals.iter_mut().enumerate() {
                        let gradient = S::load(gradient.add(r * plane + at));
                        for (total, value) in totals.iter_mut().zip(values) {
                            *total = S::mul_add(gradient, value, *total);
                        }
                    }
                }
            }
            for (r, totals) in totals.into_iter().enumerate() {
                for (t, total) in totals.into_iter().enumerate() {
                    let sum = sums.add(r * step + t * S::LANES);
                    S::store(sum, S::add(S::load(sum), total));
                }
            }
        }
    }
}

/// Adds the sums of `rows` outputs, at most half of [`Simd::PIXELS`], and 1 to 4 taps.
#[inline(always)]
unsafe fn add<S: Simd>(rows: usize, args: TileArgs) {
    macro_rules! dispatch {
        ($($rows:literal)*) => {
            match (rows, args.places.len()) {
                // Tiles larger than the registers are never asked for, and so not compiled.
                // SAFETY: the caller's promise.
                $(
                    ($rows, 1) if $rows <= (S::PIXELS / 2).max(1) => unsafe { S::call(Tile::<$rows, 1>(args)) },
                    ($rows, 2) if $rows <= (S::PIXELS / 2).max(1) => unsafe { S::call(Tile::<$rows, 2>(args)) },
                    ($rows, 3) if $rows <= (S::PIXELS / 2).max(1) => unsafe { S::call(Tile::<$rows, 3>(args)) },
                    ($rows, 4) if $rows <= (S::PIXELS / 2).max(1) => unsafe { S::call(Tile::<$rows, 4>(args)) },
                )*
                _ => unreachable!("tiles have 1 to {} rows and 1 to 4 taps", S::PIXELS / 2),
            }
        };
    }
    dispatch!(1 2 3 4 5 6 7)
}
