//! Stride, and output sizes by formula and by running.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use burn::tensor::{Device, Tensor};
use convzoo::blocks::ConvUnitConfig;
use convzoo::report::Grid;

use super::show::{convolve, grey, map, maps, shape, table, thousands, zero};

#[derive(clap::Args, Default)]
pub struct Args {
    /// Write a handwritten digit's edges at stride 1, 2 and 4 to this file, .png or .jpg
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
}

pub fn run(args: &Args, out: &mut dyn Write, device: &Device) -> Result<()> {
    // Each pixel is its row plus its column, and the filter adds up nine of them.
    let image = map(std::array::from_fn::<_, 7, _>(|y| std::array::from_fn::<_, 7, _>(|x| (x + y) as f32)), device);
    let filter = map([[1.0; 3]; 3], device);
    maps(out, "7×7 image", &image, 0)?;
    maps(out, "sums of 3×3 windows, stride 1", &convolve(&image, &filter, 1, 0), 0)?;
    maps(out, "sums of 3×3 windows, stride 2: every second of them", &convolve(&image, &filter, 2, 0), 0)?;
    sizes(out, device)?;
    network(out, device)?;
    match &args.picture {
        Some(path) => digit(device)?.save(path).with_context(|| format!("writing {}", path.display())),
        None => Ok(()),
    }
}

/// A digit's vertical edges at growing strides: the same values, fewer of them.
fn digit(device: &Device) -> Result<image::RgbImage> {
    let zero = zero(16, device)?;
    let vertical = map([[1., 0., -1.]; 3], device);
    let grid = Grid::new(4).tile("a handwritten 0", grey(&zero, 1.0, 8)?);
    let grid = [1, 2, 4].into_iter().try_fold(grid, |grid, stride| {
        let edges = grey(&convolve(&zero, &vertical, stride, 1), 3.0, 8 * stride as u32)?;
        Ok::<_, anyhow::Error>(grid.tile(format!("stride {stride}"), edges))
    })?;
    Ok(grid.image()?)
}

/// ⌊(n + 2p − f) / s⌋ + 1 against the size of what comes out.
fn sizes(out: &mut dyn Write, device: &Device) -> Result<()> {
    let cases = [
        ("a 3×3 filter", 6, 3, 0, 1),
        ("the same, padded by 1", 6, 3, 1, 1),
        ("the same, strided", 7, 3, 0, 2),
        ("a window that does not fit", 8, 3, 0, 2),
        ("LeNet-5, c1", 32, 5, 0, 1),
        ("AlexNet, first layer", 227, 11, 0, 4),
        ("ResNet, first layer", 224, 7, 3, 2),
        ("VGG, every layer", 224, 3, 1, 1),
    ];
    let rows = cases.map(|(name, n, f, p, s)| {
        let [formula, run] = size(n, f, p, s, device);
        ensure!(formula == run, "{name}: the formula says {formula}, the run {run}");
        let [n, f, p, s, formula, run] = [n, f, p, s, formula, run].map(|number| number.to_string());
        Ok([name.to_owned(), n, f, p, s, formula, run])
    });
    let rows = rows.into_iter().collect::<Result<_>>()?;
    table(out, ["layer", "n", "f", "p", "s", "by formula", "by running"], rows)
}

// ANCHOR: size
/// The side of the output, by the formula and by running. (Whole numbers, divided, round down.)
fn size(n: usize, f: usize, p: usize, s: usize, device: &Device) -> [usize; 2] {
    let formula = (n + 2 * p - f) / s + 1;
    let image = Tensor::ones([1, 1, n, n], device);
    let filter = Tensor::ones([1, 1, f, f], device);
    let [.., run] = convolve(&image, &filter, s, p).dims();
    [formula, run]
}
// ANCHOR_END: size

/// A small network: maps shrink, channels grow, and all that is left becomes one vector.
fn network(out: &mut dyn Write, device: &Device) -> Result<()> {
    let mut maps = Tensor::<4>::ones([1, 3, 39, 39], device);
    let mut rows = vec![["input".to_owned(), shape(&maps.dims()[1..])]];
    for (channels, size, stride) in [(10, 3, 1), (20, 5, 2), (40, 5, 2)] {
        let conv = ConvUnitConfig::square(maps.dims()[1], channels, size).strided(stride).init(device);
        maps = conv.forward(maps);
        rows.push([format!("{channels} filters {size}×{size}, stride {stride}"), shape(&maps.dims()[1..])]);
    }
    let features = maps.flatten::<2>(1, 3).dims()[1];
    rows.push(["flattened".to_owned(), thousands(features)]);
    table(out, ["a network on 39×39", "output"], rows)
}
