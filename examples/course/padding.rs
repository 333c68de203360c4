//! Padding: how large the map stays, and how many windows cover the rim.

use std::io::Write;

use anyhow::{Result, ensure};
use burn::tensor::{Device, Tensor};
use convzoo::graph::arithmetic::{Padding, Slide};

use super::show::{convolve, maps, shape};

pub fn run(out: &mut dyn Write, device: &Device) -> Result<()> {
    let slide = Slide { kernel: 3, stride: 1, dilation: 1 };
    let device = device.clone().autodiff();
    let filter = Tensor::ones([1, 1, 3, 3], &device);
    for (name, padding) in [("valid", Padding::Valid), ("same", Padding::Same), ("full", Padding::Full)] {
        let image = Tensor::ones([1, 1, 6, 6], &device).require_grad();
        let [front, _] = slide.padding(6, padding);
        let output = convolve(&image, &filter, 1, front);
        let [.., height, width] = output.dims();
        ensure!(height == slide.output(6, [front; 2], false), "the formula differs from the run");

        // With a filter of ones, the gradient of the sum counts the windows that a pixel is in.
        let windows = image.grad(&output.sum().backward());
        let Some(windows) = windows else { anyhow::bail!("the image has no gradient") };
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
