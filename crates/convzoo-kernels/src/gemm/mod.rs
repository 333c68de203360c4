//! Matrix products: the register tiles that all convolutions end in, and weights as matrices.
//!
//! - [`channel_tile`]: vectors lie along output channels, pixels are broadcast. On blocks, where a pixel's channels are a
//!   vector already; by Winograd's method; and for the gradient of a weight, whose sums run over pixels.
//! - [`pixel_tile`]: vectors lie along pixels, weights are broadcast. On planes.
//! - [`dot_tile`]: vectors lie along pixels, which are summed. For the gradient of a weight of few outputs.
#![allow(unsafe_code)]

mod affine;
pub(crate) mod channel_tile;
pub(crate) mod dot_tile;
mod packed;
pub(crate) mod pixel_tile;

pub use affine::ChannelAffine;
pub(crate) use packed::PackedMatrix;

/// A weight as a matrix `[rows, channels × taps]`, wherever its values lie.
pub(crate) struct WeightMatrix<'a> {
    pub weight: &'a [f32],
    pub rows: usize,
    pub channels: usize,
    /// From one row to the next, and from one channel to the next.
    pub row: usize,
    pub channel: usize,
    /// Where the taps lie.
    pub taps: &'a [usize],
}
