//! The cost model: which algorithm computes a convolution, in inference and in training.
//!
//! It weighs multiply-adds, the transforms of Winograd's tiles, and the weights: Winograd's are 16 or 36 values for each
//! kernel's 9. What is no multiply-add is counted as so many of them.

use crate::blocked::conv::Algorithm;
use crate::conv::ConvShape;
use crate::number::Numbers;
use crate::winograd::WinogradTile;

/// What things cost, in multiply-adds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Costs {
    /// Reading a weight for the direct method.
    direct_weight: f64,
    /// Reading a transformed weight, and transforming it where that is done in each pass.
    winograd_weight: f64,
    /// Transforming a value.
    transform: f64,
}

/// Of inference on blocks, which packs weights once and reads them from memory again in each run. These made whole networks
/// fastest of 10 to 80 for weights and of 6 to 24 for transforms; within a factor of two they hardly matter.
pub(crate) const BLOCKED: Costs = Costs { direct_weight: 20.0, winograd_weight: 20.0, transform: 24.0 };

/// The same of bfloat16 numbers, of which twice as many are multiplied in the same time, and transformed in little less.
pub(crate) const BLOCKED_BF16: Costs = Costs { direct_weight: 20.0, winograd_weight: 20.0, transform: 40.0 };

/// Of planes, whose weights are packed in each pass. Fitted to the layers of ResNet, VGG and DenseNet at eight images.
pub(crate) const PLANAR: Costs = Costs { direct_weight: 0.0, winograd_weight: 80.0, transform: 12.0 };

/// The same of bfloat16 numbers, of which twice as many are multiplied in the same time.
pub(crate) const PLANAR_BF16: Costs = Costs { direct_weight: 0.0, winograd_weight: 160.0, transform: 24.0 };

/// With fewer channels Winograd's vectors are too empty.
const MIN_CHANNELS: usize = 8;

/// Images of at most so many channels are convolved as they are.
pub(crate) const PLANAR_CHANNELS: usize = 4;

impl Costs {
    /// Which of some tiles makes Winograd's method fastest for a convolution of `batch` images into feature maps of
    /// `size` (height, width); none where the shape does not suit it or the direct method is faster.
    pub fn winograd(
        &self,
        tiles: &[WinogradTile],
        shape: &ConvShape,
        batch: usize,
        size: [usize; 2],
    ) -> Option<WinogradTile> {
        let [inputs, outputs] = shape.channels;
        if !shape.suits_winograd() || inputs.min(outputs) < MIN_CHANNELS {
            return None;
        }
        let kernels = (inputs * outputs) as f64;
        let direct = kernels * 9.0 * ((batch * size[0] * size[1]) as f64 + self.direct_weight);
        let winograd = |tile: WinogradTile| {
            let count = (batch * size.map(|side| side.div_ceil(tile.outputs())).iter().product::<usize>()) as f64;
            let elements = tile.inputs().pow(2) as f64;
            elements * (kernels * (count + self.winograd_weight) + (inputs + outputs) as f64 * count * self.transform)
        };
        let best = tiles.iter().copied().min_by(|a, b| winograd(*a).total_cmp(&winograd(*b)));
        best.filter(|tile| winograd(*tile) < direct)
    }
}

/// The algorithm for a convolution on blocks of `batch` images into feature maps of `size` (height, width), of `numbers`.
/// `planar`: the input is in NCHW order.
pub(crate) fn algorithm(
    shape: &ConvShape,
    numbers: Numbers,
    batch: usize,
    size: [usize; 2],
    planar: bool,
) -> Algorithm {
    let [inputs, outputs] = shape.channels;
    if planar {
        return Algorithm::Planar;
    }
    if shape.groups > 1 && shape.groups == inputs && inputs == outputs {
        return Algorithm::Depthwise;
    }
    let tile = match numbers {
        Numbers::F32 => BLOCKED.winograd(&[WinogradTile::Two, WinogradTile::Four], shape, batch, size),
        // Tiles are rounded to 8 bits before they are multiplied, and the larger one would multiply what that loses.
        Numbers::Bf16 => BLOCKED_BF16.winograd(&[WinogradTile::Two], shape, batch, size),
    };
    tile.map_or(Algorithm::Direct, Algorithm::Winograd)
}
