//! Edge detection: what a convolution computes, with filters that nobody trained, and with one that is found.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use burn::tensor::{Device, Distribution, Tensor, TensorData};
use convzoo::data::{Source, open};
use convzoo::report::Grid;

use super::show::{convolve, grey, map, maps};

const VERTICAL: [[f32; 3]; 3] = [[1., 0., -1.]; 3];
const HORIZONTAL: [[f32; 3]; 3] = [[1.; 3], [0.; 3], [-1.; 3]];
const SOBEL: [[f32; 3]; 3] = [[1., 0., -1.], [2., 0., -2.], [1., 0., -1.]];
const SCHARR: [[f32; 3]; 3] = [[3., 0., -3.], [10., 0., -10.], [3., 0., -3.]];

#[derive(clap::Args, Default)]
pub struct Args {
    /// Write a handwritten digit and its edges to this file, .png or .jpg
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
}

pub fn run(args: &Args, out: &mut dyn Write, device: &Device) -> Result<()> {
    let bright_left = map([[10., 10., 10., 0., 0., 0.]; 6], device);
    let bright_right = map([[0., 0., 0., 10., 10., 10.]; 6], device);
    let [vertical, horizontal, sobel, scharr] = [VERTICAL, HORIZONTAL, SOBEL, SCHARR].map(|rows| map(rows, device));
    let mut under = |title: &str, image, filter| maps(out, title, &convolve(image, filter, 1, 0), 0);
    under("bright on the left, vertical filter", &bright_left, &vertical)?;
    under("bright on the right, vertical filter", &bright_right, &vertical)?;
    under("bright on the left, horizontal filter", &bright_left, &horizontal)?;
    under("bright on the left, Sobel's filter", &bright_left, &sobel)?;
    under("bright on the left, Scharr's filter", &bright_left, &scharr)?;
    under("bright on the left, vertical filter turned by 180°", &bright_left, &vertical.clone().flip([2, 3]))?;
    maps(out, "nine numbers found by gradient descent, from zeros", &learned(&vertical, device)?, 2)?;
    if let Some(path) = &args.picture {
        digit(&vertical, &horizontal)?.save(path).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// Finds the filter that answers to noise as `wanted` does.
fn learned(wanted: &Tensor<4>, device: &Device) -> Result<Tensor<4>> {
    device.seed(0);
    let device = &device.clone().autodiff();
    let noise = Tensor::random([1, 1, 64, 64], Distribution::Uniform(-1.0, 1.0), device);
    let answers = convolve(&noise, &wanted.clone().autodiff(), 1, 0);
    let mut filter = Tensor::<4>::zeros([1, 1, 3, 3], device);
    for _ in 0..50 {
        let tracked = filter.clone().require_grad();
        let loss = (convolve(&noise, &tracked, 1, 0) - answers.clone()).square().mean();
        let gradient = tracked.grad(&loss.backward()).context("the filter has no gradient")?;
        filter = (filter.without_autodiff() - gradient).autodiff();
    }
    Ok(filter.without_autodiff())
}

/// A round digit beside its vertical and horizontal edges: grey is none, white and black are the two directions.
fn digit(vertical: &Tensor<4>, horizontal: &Tensor<4>) -> Result<image::RgbImage> {
    let digits = open("digits", &Source::default())?.train;
    let zero = (0..digits.len()).find(|&index| digits.label(index).is_ok_and(|label| label == 0));
    let image = digits.get(zero.context("there is no 0 among the digits")?)?.image;
    let ink = image.pixels.iter().map(|&ink| f32::from(ink) / 255.0).collect::<Vec<_>>();
    let data = TensorData::new(ink, [1, 1, image.height, image.width]);
    let zero = Tensor::from_data(data, &vertical.device());
    let grid = Grid::new(3)
        .tile("a handwritten 0", grey(&zero, 1.0, 16)?)
        .tile("vertical edges", grey(&convolve(&zero, vertical, 1, 1), 3.0, 16)?)
        .tile("horizontal edges", grey(&convolve(&zero, horizontal, 1, 1), 3.0, 16)?);
    Ok(grid.image()?)
}
