//! Operations of compiled networks: tensors in blocks of channels ([`Layout`](crate::Layout)), so that one instruction computes as
//! many output channels as a vector has lanes; weights packed once into the order in which kernels read them.
//!
//! Each function makes an [`Operation`](crate::Operation) for given layouts, which divides into tasks. To read in this order:
//!
//! - [`layout`], [`operation`]: tensors and operations; [`rows`]: operations that work row by row.
//! - [`conv`]: the algorithms of a convolution, with bias, sum and activation in the same pass: [`direct`] (any shape, and images
//!   in planes), [`depthwise`], [`winograd`] (3×3 of stride 1, most convolutions of a ResNet).
//! - [`pool`], [`linear`], [`lrn`], [`layer_norm`], [`elementwise`], [`rearrange`]: the other layers.
//!
//! [`engine`](crate::engine) chooses among them for a whole network.

pub mod conv;
mod depthwise;
mod direct;
pub mod elementwise;
pub mod layer_norm;
pub(crate) mod layout;
pub mod linear;
pub mod lrn;
pub(crate) mod operation;
pub mod pool;
pub mod rearrange;
pub(crate) mod rows;
mod winograd;
