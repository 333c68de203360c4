//! Convolutional networks in bytes: the arithmetic, its kernels on blocks of channels, and the choice of scales.
//!
//! # The arithmetic
//!
//! A tensor's numbers are unsigned bytes with a scale and a zero point for the whole tensor, x ≈ scale · (q − zero)
//! ([`ByteScale`]); the zero point is 0 where no number is negative, as after a ReLU. A layer's weights are signed bytes
//! from −127 to 127 with a scale for each output, w ≈ scale · q ([`WeightScales`]).
//!
//! A convolution sums products of bytes in 32 bits, exactly: Σ (q − zero) · w. What follows is the same for every
//! operation, in 32-bit floats, each operation rounded by itself, none fused:
//!
//! 1. the sum s becomes the nearest float f (ties to even);
//! 2. t = f · multiplier\[channel\]; t = t + offset\[channel\]. Multiplier and offset have everything folded into them:
//!    scales, batch norm, bias, zero points;
//! 3. where a tensor r is added, t = t + r · its multiplier;
//! 4. t is cut at two bounds, which are the activation's, and for bytes those of bytes, too;
//! 5. t is the output, or is rounded to the nearest byte, ties to even.
//!
//! Each step has one result by IEEE 754, so that all instruction sets give the same bytes, which [`Requantize::byte`]
//! defines.
//!
//! # Modules
//!
//! - [`scale`]: scales, weights in bytes, and the steps above for one number. [`calibration`]: scales from observed numbers.
//! - [`layout`]: tensors of bytes in blocks of channels.
//! - [`conv`], with its register [`tile`]; [`depthwise`]; [`pool`]; [`elementwise`]; [`rearrange`]: operations on blocks.
//!
//! [`engine`](crate::engine) makes networks of them.

pub mod calibration;
pub mod conv;
pub mod depthwise;
pub mod elementwise;
pub(crate) mod layout;
pub mod pool;
pub mod rearrange;
pub mod scale;
mod tile;

pub use layout::{byte_layout, pack_bytes, unpack_bytes};
pub use scale::{ByteScale, Requantize, WeightScales};
