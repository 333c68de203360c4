//! 3×3 convolutions of stride 1 by Winograd's minimal filtering
//! ([Lavin and Gray, 2015](https://arxiv.org/abs/1509.09308)), on either layout.
//!
//! Each square of inputs and each kernel is transformed; the convolution then is a product of the two, element by
//! element of the square, summed over channels: one matrix product for each element. The result is transformed back.
//!
//! - [`transform`]: the transforms F(2×2, 3×3) and F(4×4, 3×3).
//! - [`weights`]: kernels, transformed and packed.
//! - [`pipeline`]: a run of tiles from a source to a sink. [`blocked::winograd`](crate::blocked) and
//!   [`planar::winograd`](crate::planar) have a source and a sink each; the latter's backward pass is the same pipeline
//!   with rotated kernels. The gradient of a weight, `planar::winograd_weight_grad`, is the pipeline transposed and
//!   shares the transforms.
#![allow(unsafe_code)]

pub(crate) mod pipeline;
pub(crate) mod transform;
pub(crate) mod weights;

/// The square of outputs that one step of Winograd's method makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WinogradTile {
    /// F(2×2, 3×3): 2.25 times fewer multiplications.
    Two,
    /// F(4×4, 3×3): 4 times fewer multiplications, less exact.
    Four,
}

impl WinogradTile {
    /// The side of the square of outputs.
    pub fn outputs(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }

    /// The side of the square of inputs that they depend on.
    pub fn inputs(self) -> usize {
        self.outputs() + 2
    }
}
