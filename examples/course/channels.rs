//! Several channels, several filters, and the parameters they have.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use convzoo::blocks::{ConvUnitConfig, LinearConfig};
use convzoo::report::Grid;
use image::{Rgb, RgbImage};

use super::show::{convolve, grey, map, maps, shape, table, thousands, values};

#[derive(clap::Args, Default)]
pub struct Args {
    /// Write the image, its channels and the two outputs to this file, .png or .jpg
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
}

pub fn run(args: &Args, out: &mut dyn Write, device: &Device) -> Result<()> {
    let (left, right) = (map([[10., 10., 10., 0., 0., 0.]; 6], device), map([[0., 0., 0., 10., 10., 10.]; 6], device));
    let even = map([[10.; 6]; 6], device);
    // Red is bright on the left, green on the right, blue everywhere.
    let image = Tensor::cat(vec![left.clone(), right.clone(), even.clone()], 1);
    let vertical = map([[1., 0., -1.]; 3], device);
    let nothing = vertical.zeros_like();
    let in_red = Tensor::cat(vec![vertical.clone(), nothing.clone(), nothing], 1);
    let in_all = Tensor::cat(vec![vertical.clone(); 3], 1);
    let both = convolve(&image, &Tensor::cat(vec![in_red, in_all], 0), 1, 0);
    let (input, output) = (shape(&image.dims()[1..]), shape(&both.dims()[1..]));
    writeln!(out, "an image of {input} under 2 filters of 3×3×3 → {output}\n")?;
    maps(out, "vertical edges in red, then in all three channels, where red and green cancel", &both, 0)?;

    if let Some(path) = &args.picture {
        picture(&image, &both)?.save(path).with_context(|| format!("writing {}", path.display()))?;
    }

    // A filter's output is the sum of what it gives on each channel.
    let parts = [left, right, even].map(|channel| convolve(&channel, &vertical, 1, 0));
    let sum = parts.into_iter().reduce(|a, b| a + b);
    let in_all = both.narrow(1, 1, 1);
    ensure!(sum.is_some_and(|sum| sum.all_close(in_all, None, None)), "channels do not add up");
    parameters(out, device)
}

/// The image in its colours, its three channels, and what the two filters give.
fn picture(image: &Tensor<4>, both: &Tensor<4>) -> Result<RgbImage> {
    const CELL: u32 = 16;
    let pixels = values(image)?;
    let coloured = RgbImage::from_fn(6 * CELL, 6 * CELL, |x, y| {
        let at = (y / CELL * 6 + x / CELL) as usize;
        Rgb([0, 1, 2].map(|channel| (25.5 * pixels[channel * 36 + at]) as u8))
    });
    let channel = |maps: &Tensor<4>, i, most| grey(&maps.clone().narrow(1, i, 1), most, CELL);
    let grid = Grid::new(4).tile("image", coloured);
    let grid = grid.tile("red", channel(image, 0, 14.0)?).tile("green", channel(image, 1, 14.0)?);
    let grid = grid.tile("blue", channel(image, 2, 14.0)?);
    let grid = grid.tile("edges in red", channel(both, 0, 42.0)?).tile("in all three", channel(both, 1, 42.0)?);
    Ok(grid.image()?)
}

// ANCHOR: count
/// The parameters of a layer of `filters` filters, f×f on `channels` channels: by the formula, and counted in the layer.
fn count(f: usize, channels: usize, filters: usize, device: &Device) -> [usize; 2] {
    let formula = (f * f * channels + 1) * filters;
    let layer = ConvUnitConfig::square(channels, filters, f).init(device);
    [formula, layer.num_params()]
}
// ANCHOR_END: count

/// (f · f · channels + 1) · filters, by the formula and counted in the layer.
fn parameters(out: &mut dyn Write, device: &Device) -> Result<()> {
    let cases = [(3, 3, 10), (5, 3, 6), (5, 3, 8), (5, 1, 6), (5, 6, 16), (5, 8, 16), (3, 64, 64), (1, 192, 32)];
    let mut rows = Vec::new();
    for (f, channels, filters) in cases {
        let [formula, counted] = count(f, channels, filters, device);
        ensure!(formula == counted, "the layer has {counted} parameters, by the formula {formula}");
        rows.push([format!("{filters} filters of {f}×{f}×{channels}"), thousands(formula)]);
    }
    let (inputs, outputs) = (3 * 32 * 32, 6 * 28 * 28);
    let connected = LinearConfig::new(inputs, outputs).init(device);
    rows.push([
        format!("fully connected, 3×32×32 to 6×28×28 ({inputs} to {outputs})"),
        thousands(connected.num_params()),
    ]);
    table(out, ["layer", "parameters"], rows)
}
