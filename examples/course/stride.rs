//! Stride, and output sizes by formula and by running.

use std::io::Write;

use anyhow::{Result, ensure};
use burn::tensor::{Device, Tensor};
use convzoo::blocks::ConvUnitConfig;
use convzoo::graph::arithmetic::Slide;

use super::show::{convolve, map, maps, shape, table, thousands};

pub fn run(out: &mut dyn Write, device: &Device) -> Result<()> {
    // Each pixel is its row plus its column, and the filter adds up nine of them.
    let image = map(std::array::from_fn::<_, 7, _>(|y| std::array::from_fn::<_, 7, _>(|x| (x + y) as f32)), device);
    let filter = map([[1.0; 3]; 3], device);
    maps(out, "7×7 image", &image, 0)?;
    maps(out, "sums of 3×3 windows, stride 1", &convolve(&image, &filter, 1, 0), 0)?;
    maps(out, "sums of 3×3 windows, stride 2: every second of them", &convolve(&image, &filter, 2, 0), 0)?;
    sizes(out, device)?;
    network(out, device)
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
        let formula = Slide { kernel: f, stride: s, dilation: 1 }.output(n, [p; 2], false);
        let (image, filter) = (Tensor::ones([1, 1, n, n], device), Tensor::ones([1, 1, f, f], device));
        let [.., run] = convolve(&image, &filter, s, p).dims();
        ensure!(formula == run, "{name}: the formula says {formula}, the run {run}");
        let [n, f, p, s, formula, run] = [n, f, p, s, formula, run].map(|number| number.to_string());
        Ok([name.to_owned(), n, f, p, s, formula, run])
    });
    let rows = rows.into_iter().collect::<Result<_>>()?;
    table(out, ["layer", "n", "f", "p", "s", "by formula", "by running"], rows)
}

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
