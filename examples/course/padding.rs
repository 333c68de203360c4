//! Padding: how large the map stays, and how many windows cover the rim.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use burn::tensor::{Device, Tensor};
use convzoo::graph::arithmetic::{Padding, Slide};

use super::show::{convolve, maps, shape};

pub fn run(out: &mut dyn Write, device: &Device) -> Result<()> {
    let slide = Slide { kernel: 3, stride: 1, dilation: 1 };
    let device = device.clone().autodiff();
    for (name, padding) in [("valid", Padding::Valid), ("same", Padding::Same), ("full", Padding::Full)] {
        let [front, _] = slide.padding(6, padding);
        let (output, windows) = coverage(front, &device)?;
        let [.., height, width] = output.dims();
        ensure!(height == slide.output(6, [front; 2], false), "the formula differs from the run");
        let size = shape(&[height, width]);
        maps(out, &format!("{name}: padding {front}, 6×6 → {size}; windows that cover each pixel:"), &windows, 0)?;
    }

    let sizes = (0..8).scan(32, |size, _| {
        let before = *size;
        *size = slide.output(before, [0, 0], false);
        Some(before.to_string())
    });
    Ok(writeln!(out, "valid, layer after layer: {}\n", sizes.collect::<Vec<_>>().join(" → "))?)
}

// ANCHOR: coverage
/// The output of a 6×6 image under a filter of ones, and how many windows cover each of its pixels.
fn coverage(padding: usize, device: &Device) -> Result<(Tensor<4>, Tensor<4>)> {
    let image = Tensor::ones([1, 1, 6, 6], device).require_grad();
    let filter = Tensor::ones([1, 1, 3, 3], device);
    let output = convolve(&image, &filter, 1, padding);
    // Each window adds a pixel to the sum once: its derivative by a pixel is the number of windows that the pixel is in.
    let windows = image.grad(&output.clone().sum().backward());
    Ok((output, windows.context("the image has no gradient")?))
}
// ANCHOR_END: coverage
