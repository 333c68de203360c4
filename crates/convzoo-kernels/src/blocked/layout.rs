//! How a tensor in blocks of channels lies in memory.
#![allow(unsafe_code)]

use crate::KernelError;
use crate::number::{Number, Numbers};

/// How a tensor `[batch, channels, height, width]` lies in memory: `[batch, blocks, height, halo + width + halo, lanes]`.
///
/// A block is `lanes` neighboring channels; the last one may be partly empty, its other lanes zero. With one lane this
/// is NCHW order, `[batch, channels, height, width]`. The halo is zeros on both sides of each row, so that a
/// convolution need not check whether a column exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Images.
    pub batch: usize,
    /// Channels, without those that fill the last block.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns, without the halo.
    pub width: usize,
    /// Channels in a block.
    pub lanes: usize,
    /// Columns of zeros on each side of a row.
    pub halo: usize,
    /// What the values are.
    pub numbers: Numbers,
    /// Values from one image to the next.
    pub image: usize,
}

impl Layout {
    /// Images of `f32` that follow each other directly.
    pub fn new([batch, channels, height, width]: [usize; 4], lanes: usize, halo: usize) -> Self {
        let mut layout = Self { batch, channels, height, width, lanes, halo, numbers: Numbers::F32, image: 0 };
        layout.image = layout.blocks() * layout.block();
        layout
    }

    /// The same layout of other numbers.
    pub fn of(self, numbers: Numbers) -> Self {
        Self { numbers, ..self }
    }

    /// Blocks of channels.
    pub fn blocks(&self) -> usize {
        self.channels.div_ceil(self.lanes)
    }

    /// Channels of a block, fewer than the lanes in the last.
    pub fn block_channels(&self, block: usize) -> usize {
        self.lanes.min(self.channels - block * self.lanes)
    }

    /// Values from one row to the next.
    pub fn row(&self) -> usize {
        (self.width + 2 * self.halo) * self.lanes
    }

    /// Values from one block to the next.
    pub fn block(&self) -> usize {
        self.height * self.row()
    }

    /// Values that the tensor takes, from the first halo to the last.
    pub fn len(&self) -> usize {
        if self.batch == 0 { 0 } else { (self.batch - 1) * self.image + self.blocks() * self.block() }
    }

    /// Bytes that the tensor takes.
    pub fn bytes(&self) -> usize {
        self.len() * self.numbers.bytes()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the block of a row's first pixel starts.
    pub fn at(&self, image: usize, block: usize, row: usize) -> usize {
        image * self.image + block * self.block() + row * self.row() + self.halo * self.lanes
    }

    /// `[batch, channels, height, width]`.
    pub fn shape(&self) -> [usize; 4] {
        [self.batch, self.channels, self.height, self.width]
    }

    /// Refuses inputs of another shape, or of other images, than the output's.
    pub(crate) fn check_equal(&self, operation: &'static str, inputs: &[Self]) -> Result<(), KernelError> {
        let right = [self.channels, self.height, self.width];
        for input in inputs {
            let left = [input.channels, input.height, input.width];
            if left != right || input.batch != self.batch {
                return Err(KernelError::Shapes { operation, left, right });
            }
        }
        Ok(())
    }

    /// Clears the halo of a row that starts at [`at`](Self::at).
    ///
    /// # Safety
    /// `row` points to the first pixel of a row of a tensor of this layout.
    #[inline(always)]
    pub(crate) unsafe fn clear_halo<N: Number>(&self, row: *mut N) {
        // SAFETY: the caller's promise.
        unsafe { self.fill_halo(row, 0) }
    }

    /// Fills every byte of a row's halo.
    ///
    /// # Safety
    /// As [`clear_halo`](Self::clear_halo).
    #[inline(always)]
    pub(crate) unsafe fn fill_halo<N: Number>(&self, row: *mut N, byte: u8) {
        let halo = self.halo * self.lanes;
        // SAFETY: the halo lies in the tensor, before the row's pixels and after them.
        unsafe {
            row.sub(halo).write_bytes(byte, halo);
            row.add(self.width * self.lanes).write_bytes(byte, halo);
        }
    }
}

/// Copies one block of an image from `[channels, height, width]` into a layout, halo and empty lanes included.
///
/// # Panics
/// A slice is shorter than its layout.
pub(crate) fn pack<N: Number>(image: &[f32], layout: &Layout, block: usize, into: &mut [N]) {
    let (plane, lanes) = (layout.height * layout.width, layout.lanes);
    let channels = layout.block_channels(block);
    let image = &image[block * lanes * plane..][..channels * plane];
    let into = &mut into[..layout.block()];
    if lanes > 1 && channels < lanes {
        into.fill(N::of(0.0));
    }
    for (y, row) in into.chunks_exact_mut(layout.row()).enumerate() {
        let (front, rest) = row.split_at_mut(layout.halo * lanes);
        let (pixels, back) = rest.split_at_mut(layout.width * lanes);
        front.fill(N::of(0.0));
        back.fill(N::of(0.0));
        for (c, from) in image.chunks_exact(plane).enumerate() {
            let from = &from[y * layout.width..][..layout.width];
            match lanes {
                1 => pixels.iter_mut().zip(from).for_each(|(to, from)| *to = N::of(*from)),
                _ => pixels.iter_mut().skip(c).step_by(lanes).zip(from).for_each(|(to, from)| *to = N::of(*from)),
            }
        }
    }
}

/// Copies one block back into an image `[channels, height, width]`.
///
/// # Panics
/// A slice is shorter than its layout.
pub(crate) fn unpack<N: Number>(from: &[N], layout: &Layout, block: usize, image: &mut [f32]) {
    let (plane, lanes) = (layout.height * layout.width, layout.lanes);
    let image = &mut image[block * lanes * plane..][..layout.block_channels(block) * plane];
    for (c, to) in image.chunks_exact_mut(plane).enumerate() {
        for (row, to) in from.chunks_exact(layout.row()).zip(to.chunks_exact_mut(layout.width)) {
            let pixels = &row[layout.halo * lanes..][..layout.width * lanes];
            to.iter_mut().zip(pixels.iter().skip(c).step_by(lanes)).for_each(|(to, from)| *to = from.value());
        }
    }
}
