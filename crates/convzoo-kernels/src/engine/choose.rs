use crate::conv::{Algorithm, ConvShape, Tile};

/// Images of at most so many channels are convolved as they are.
pub(super) const PLANAR_CHANNELS: usize = 4;

/// The algorithm for a convolution of `batch` images into maps of `size` (height, width).
///
/// The rule weighs multiply-adds, the transforms of tiles, and the weights, which a network reads from memory again in
/// each run: Winograd's are 16 or 36 values for each kernel's 9.
pub(super) fn choose(shape: &ConvShape, batch: usize, size: [usize; 2], planar: bool) -> Algorithm {
    let [inputs, outputs] = shape.channels;
    if planar {
        return Algorithm::Planar;
    }
    if shape.groups > 1 && shape.groups == inputs && inputs == outputs {
        return Algorithm::Depthwise;
    }
    let filtered = (shape.kernel, shape.stride, shape.dilation, shape.groups) == ([3; 2], [1; 2], [1; 2], 1);
    if !filtered || inputs.min(outputs) < MIN_CHANNELS {
        return Algorithm::Direct;
    }
    let pixels = batch * size[0] * size[1];
    let kernels = (inputs * outputs) as f64;
    let direct = kernels * 9.0 * (pixels as f64 + READ);
    let winograd = |tile: Tile| {
        let side = tile.outputs();
        let tiles = (batch * size[0].div_ceil(side) * size[1].div_ceil(side)) as f64;
        let elements = tile.inputs().pow(2) as f64;
        elements * (kernels * (tiles + READ) + (inputs + outputs) as f64 * tiles * TRANSFORM)
    };
    let (two, four) = (winograd(Tile::Two), winograd(Tile::Four));
    match () {
        _ if direct <= two && direct <= four => Algorithm::Direct,
        _ if two <= four => Algorithm::Winograd(Tile::Two),
        _ => Algorithm::Winograd(Tile::Four),
    }
}

/// With fewer channels the vectors are too empty.
const MIN_CHANNELS: usize = 8;

/// What reading a weight costs, in multiply-adds.
const READ: f64 = 20.0;

/// What transforming a value costs, in multiply-adds.
const TRANSFORM: f64 = 12.0;
