//! Edge detection: what a convolution computes, with filters that nobody trained, and with one that is found.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use burn::tensor::{Device, Distribution, Tensor};
use convzoo::report::Grid;

use super::show::{convolve, grey, map, maps, number, table, values, zero};

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
    let places = by_hand([[10., 10., 10., 0., 0., 0.]; 6], VERTICAL);
    ensure!(values(&convolve(&bright_left, &vertical, 1, 0))? == places, "the layer differs from the definition");
    under("bright on the left, vertical filter", &bright_left, &vertical)?;
    under("bright on the right, vertical filter", &bright_right, &vertical)?;
    under("bright on the left, horizontal filter", &bright_left, &horizontal)?;
    under("bright on the left, Sobel's filter", &bright_left, &sobel)?;
    under("bright on the left, Scharr's filter", &bright_left, &scharr)?;
    under("bright on the left, vertical filter turned by 180°", &bright_left, &vertical.clone().flip([2, 3]))?;
    maps(out, "nine numbers found by gradient descent, from zeros", &learned(&vertical, device)?, 2)?;
    smoothing(out, device)?;
    if let Some(path) = &args.picture {
        digit(&vertical, &horizontal)?.save(path).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

// ANCHOR: definition
/// A convolution by its definition: at each place of the window, the sum of nine products.
fn by_hand(image: [[f32; 6]; 6], filter: [[f32; 3]; 3]) -> Vec<f32> {
    let mut output = Vec::new();
    for y in 0..4 {
        for x in 0..4 {
            let mut sum = 0.0;
            for (i, row) in filter.iter().enumerate() {
                for (j, weight) in row.iter().enumerate() {
                    sum += weight * image[y + i][x + j];
                }
            }
            output.push(sum);
        }
    }
    output
}
// ANCHOR_END: definition

/// Finds the filter that gives for noise what `wanted` gives.
fn learned(wanted: &Tensor<4>, device: &Device) -> Result<Tensor<4>> {
    device.seed(0);
    let device = &device.clone().autodiff();
    let noise = Tensor::random([1, 1, 64, 64], Distribution::Uniform(-1.0, 1.0), device);
    let outputs = convolve(&noise, &wanted.clone().autodiff(), 1, 0);
    let zeros = Tensor::<4>::zeros([1, 1, 3, 3], device);
    Ok((0..50).try_fold(zeros, |filter, _| step(filter, &noise, &outputs))?.without_autodiff())
}

// ANCHOR: step
/// One step of gradient descent: the filter, less the gradient of its mean squared error.
fn step(filter: Tensor<4>, noise: &Tensor<4>, outputs: &Tensor<4>) -> Result<Tensor<4>> {
    let tracked = filter.clone().require_grad();
    let error = (convolve(noise, &tracked, 1, 0) - outputs.clone()).square().mean();
    let gradient = tracked.grad(&error.backward()).context("the filter has no gradient")?;
    Ok((filter.without_autodiff() - gradient).autodiff())
}
// ANCHOR_END: step

/// What the weights of the three rows are for: not less noise, but a response that depends less on the direction.
fn smoothing(out: &mut dyn Write, device: &Device) -> Result<()> {
    let rows = [("vertical", VERTICAL), ("Sobel", SOBEL), ("Scharr", SCHARR)].map(|(name, filter)| {
        let weights = filter.map(|row| row[0]);
        let sum: f32 = weights.iter().sum();
        let noise = weights.iter().map(|weight| (weight / sum).powi(2)).sum::<f32>();
        let response = slope(filter, 45.0, device)? / slope(filter, 0.0, device)?;
        let weights = weights.map(|weight| number(weight, 0)).join(", ");
        Ok([name.to_owned(), weights, format!("{noise:.3}"), format!("{:.1} %", 100.0 * response)])
    });
    let rows = rows.into_iter().collect::<Result<_>>()?;
    table(out, ["filter", "weights of its rows", "share of the noise's variance", "response at 45°"], rows)
}

/// The length of the gradient that a filter and its transpose find in the middle of a wave, eight pixels long, that
/// runs in a direction.
fn slope(filter: [[f32; 3]; 3], degrees: f32, device: &Device) -> Result<f32> {
    let (sin, cos) = degrees.to_radians().sin_cos();
    let phase = |x: usize, y: usize| std::f32::consts::TAU / 8.0 * ((x as f32 - 1.0) * cos + (y as f32 - 1.0) * sin);
    let wave = map(std::array::from_fn::<_, 3, _>(|y| std::array::from_fn::<_, 3, _>(|x| phase(x, y).sin())), device);
    let filter = map(filter, device);
    let along = |filter| Ok::<_, anyhow::Error>(values(&convolve(&wave, &filter, 1, 0))?[0]);
    Ok(along(filter.clone())?.hypot(along(filter.swap_dims(2, 3))?))
}

/// A round digit beside its vertical and horizontal edges: grey is none, white and black are the two directions.
fn digit(vertical: &Tensor<4>, horizontal: &Tensor<4>) -> Result<image::RgbImage> {
    let zero = zero(8, &vertical.device())?;
    let grid = Grid::new(3)
        .tile("a handwritten 0", grey(&zero, 1.0, 16)?)
        .tile("vertical edges", grey(&convolve(&zero, vertical, 1, 1), 3.0, 16)?)
        .tile("horizontal edges", grey(&convolve(&zero, horizontal, 1, 1), 3.0, 16)?);
    Ok(grid.image()?)
}
