//! Receptive fields, found by gradients, and what three 3×3 layers cost beside one of 7×7.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use convzoo::blocks::{ConvUnit, ConvUnitConfig, PoolConfig};
use convzoo::report::Grid;

use super::show::{grey, map, maps, table, thousands, values};

#[derive(clap::Args, Default)]
pub struct Args {
    /// Write the weights of the pixels in one cell's receptive field to this file, .png or .jpg
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
}

pub fn run(args: &Args, out: &mut dyn Write, device: &Device) -> Result<()> {
    let device = &device.clone().autodiff();
    let mut rows = Vec::new();
    let cases: [(&str, &[Layer]); 6] = [
        ("3×3", &[Layer::Conv(3)]),
        ("3×3, 3×3", &[Layer::Conv(3), Layer::Conv(3)]),
        ("3×3, 3×3, 3×3", &[Layer::Conv(3), Layer::Conv(3), Layer::Conv(3)]),
        ("7×7", &[Layer::Conv(7)]),
        ("3×3, pooling 2×2, 3×3", &[Layer::Conv(3), Layer::Pool, Layer::Conv(3)]),
        ("5×5, pooling, 5×5, pooling: LeNet-5", &[Layer::Conv(5), Layer::Pool, Layer::Conv(5), Layer::Pool]),
    ];
    for (name, layers) in cases {
        let (formula, measured) = (by_formula(layers), extent(&influence(layers, device)?)?);
        ensure!(formula == measured, "{name}: {formula} by the formula, {measured} by the gradient");
        rows.push([name.to_owned(), format!("{formula}×{formula}")]);
    }
    table(out, ["layers, one after another", "receptive field"], rows)?;
    let three = influence(&[Layer::Conv(3); 3], device)?.narrow(2, 12, 7).narrow(3, 12, 7);
    maps(out, "three 3×3 filters of ones: paths from each pixel to one cell", &three, 0)?;
    cost(out, device)?;
    if let Some(path) = &args.picture {
        let grid = [1, 2, 3, 5, 10].into_iter().try_fold(Grid::new(5), |grid, depth| {
            let weights = influence(&vec![Layer::Conv(3); depth], device)?;
            let most = values(&weights.clone().max().reshape([1]))?[0];
            Ok::<_, anyhow::Error>(grid.tile(format!("depth {depth}"), grey(&weights, most, 5)?))
        })?;
        grid.image()?.save(path).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// A convolution of this size, or a pooling of 2×2.
#[derive(Clone, Copy)]
enum Layer {
    Conv(usize),
    Pool,
}

// ANCHOR: formula
/// size ← size + (k − 1) · stride, stride ← stride · s.
fn by_formula(layers: &[Layer]) -> usize {
    let (mut size, mut stride) = (1, 1);
    for layer in layers {
        let (kernel, step) = match layer {
            Layer::Conv(kernel) => (*kernel, 1),
            Layer::Pool => (2, 2),
        };
        size += (kernel - 1) * stride;
        stride *= step;
    }
    size
}
// ANCHOR_END: formula

// ANCHOR: influence
/// The gradient of the middle output by each of 31×31 pixels. With filters of ones it counts the paths between them.
fn influence(layers: &[Layer], device: &Device) -> Result<Tensor<4>> {
    let image = Tensor::<4>::zeros([1, 1, 31, 31], device).require_grad();
    let mut x = image.clone();
    for layer in layers {
        x = match layer {
            Layer::Conv(size) => ones(*size, device).forward(x),
            Layer::Pool => PoolConfig::avg(2, 2).init().forward(x),
        };
    }
    let [.., height, width] = x.dims();
    let middle = x.narrow(2, height / 2, 1).narrow(3, width / 2, 1).sum();
    image.grad(&middle.backward()).context("the image has no gradient")
}
// ANCHOR_END: influence

/// A filter of ones that keeps the size.
fn ones(size: usize, device: &Device) -> ConvUnit {
    let mut conv = ConvUnitConfig::square(1, 1, size).padded(size / 2).linear().with_bias(false).init(device);
    conv.conv.weight = Param::from_tensor(map([[1.0]], device).expand([1, 1, size, size]));
    conv
}

/// From the first to the last row that has any influence.
fn extent(influence: &Tensor<4>) -> Result<usize> {
    let rows = values(&influence.clone().abs().sum_dim(3))?;
    let reached = |row: &usize| rows[*row] > 0.0;
    let (first, last) = ((0..31).find(reached), (0..31).rfind(reached));
    Ok(last.context("no pixel has any influence")? + 1 - first.context("no pixel has any influence")?)
}

/// Weights of layers that keep their number of channels.
fn cost(out: &mut dyn Write, device: &Device) -> Result<()> {
    let rows = [64, 256].map(|channels: usize| {
        let weights =
            |size| ConvUnitConfig::square(channels, channels, size).with_bias(false).init(device).num_params();
        let (one, three) = (weights(7), 3 * weights(3));
        [channels.to_string(), thousands(one), thousands(three), format!("{:.0} %", 100.0 * three as f64 / one as f64)]
    });
    table(out, ["channels", "weights of one 7×7", "of three 3×3", ""], rows.into())
}
