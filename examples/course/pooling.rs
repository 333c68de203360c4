//! Pooling, forward and backward, each beside the same by hand.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use convzoo::Classifier;
use convzoo::blocks::PoolConfig;
use convzoo::data::{Fit, Preprocess};
use convzoo::families::lenet::{LeNet5, LeNet5Config};
use convzoo::report::Grid;

use super::show::{grey, map, maps, table, values, zero};
use super::training::{Images, Plan, train};

/// The gradient of the loss by the four cells of the output, as the next layer gives it.
const FROM_NEXT: [[f32; 2]; 2] = [[1., 2.], [3., 4.]];

#[derive(clap::Args, Default)]
pub struct Args {
    /// Train LeNet-5 with maximum and with mean pooling, too (some seconds)
    #[arg(long)]
    train: bool,
    /// Steps of that training
    #[arg(long, value_name = "N", default_value_t = 300, requires = "train")]
    steps: usize,
    /// Write a handwritten digit under both poolings to this file, .png or .jpg
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
}

pub fn run(args: &Args, out: &mut dyn Write, device: &Device) -> Result<()> {
    let device = &device.clone().autodiff();
    let image = [[4., 1., 0., 2.], [3., 8., 5., 1.], [2., 6., 1., 0.], [1., 3., 7., 9.]];
    maps(out, "input", &map(image, device), 0)?;
    maps(out, "gradient from the next layer", &map(FROM_NEXT, device), 0)?;
    for (name, layer, by_hand) in [
        ("maximum", PoolConfig::max(2, 2), maximum as fn(&[f32]) -> (f32, Vec<f32>)),
        ("mean", PoolConfig::avg(2, 2), mean),
    ] {
        let input = map(image, device).require_grad();
        let output = layer.init().forward(input.clone());
        let gradients = (output.clone() * map(FROM_NEXT, device)).sum().backward();
        let gradient = input.grad(&gradients).context("the input has no gradient")?;

        let (hand_output, hand_gradient) = pool(&image, by_hand);
        ensure!(values(&output)? == hand_output && values(&gradient)? == hand_gradient, "{name} differs by hand");
        maps(out, &format!("{name} over 2×2, stride 2"), &output, 2)?;
        maps(out, &format!("{name}, backward"), &gradient, 2)?;
    }
    overlapping(out, device)?;
    if let Some(path) = &args.picture {
        digit(device)?.save(path).with_context(|| format!("writing {}", path.display()))?;
    }
    if args.train { compare(args, out, device) } else { Ok(()) }
}

/// A digit, and what is left of it after one and after two poolings of either kind.
fn digit(device: &Device) -> Result<image::RgbImage> {
    let zero = zero(16, device)?;
    let mut grid = Grid::new(3);
    for (name, layer) in [("maximum", PoolConfig::max(2, 2)), ("mean", PoolConfig::avg(2, 2))] {
        let once = layer.init().forward(zero.clone());
        let twice = layer.init().forward(once.clone());
        grid = grid.tile("a handwritten 0", grey(&zero, 1.0, 8)?);
        grid = grid.tile(name, grey(&once, 1.0, 16)?).tile(format!("{name}, twice"), grey(&twice, 1.0, 32)?);
    }
    Ok(grid.image()?)
}

/// Windows that overlap: a pixel that wins several of them collects from all.
fn overlapping(out: &mut dyn Write, device: &Device) -> Result<()> {
    let image =
        [[1., 0., 2., 1., 3.], [2., 7., 1., 0., 4.], [0., 3., 5., 2., 1.], [6., 1., 2., 8., 0.], [4., 2., 0., 1., 3.]];
    let input = map(image, device).require_grad();
    let output = PoolConfig::max(3, 1).init().forward(input.clone());
    let gradient = input.grad(&output.clone().sum().backward()).context("the input has no gradient")?;
    maps(out, "5×5 input", &input, 0)?;
    maps(out, "maximum over 3×3, stride 1", &output, 0)?;
    maps(out, "its backward of a gradient of ones: the windows that each pixel wins", &gradient, 0)
}

/// The output and the input's gradient of a 2×2 pooling, window by window. `of` gives a window's value and each
/// pixel's share of the gradient.
fn pool(image: &[[f32; 4]; 4], of: fn(&[f32]) -> (f32, Vec<f32>)) -> (Vec<f32>, Vec<f32>) {
    let (mut output, mut gradient) = (Vec::new(), vec![0.0; 16]);
    for (y, x) in [(0, 0), (0, 2), (2, 0), (2, 2)] {
        let pixels = [(y, x), (y, x + 1), (y + 1, x), (y + 1, x + 1)];
        let (value, shares) = of(&pixels.map(|(y, x)| image[y][x]));
        output.push(value);
        for ((row, column), share) in pixels.into_iter().zip(shares) {
            gradient[row * 4 + column] = share * FROM_NEXT[y / 2][x / 2];
        }
    }
    (output, gradient)
}

// ANCHOR: window
/// The largest pixel, which gets all of the gradient.
fn maximum(window: &[f32]) -> (f32, Vec<f32>) {
    let most = window.iter().copied().fold(f32::MIN, f32::max);
    (most, window.iter().map(|&pixel| f32::from(pixel == most)).collect())
}

/// The mean, whose pixels share the gradient.
fn mean(window: &[f32]) -> (f32, Vec<f32>) {
    let count = window.len() as f32;
    (window.iter().sum::<f32>() / count, vec![1.0 / count; window.len()])
}
// ANCHOR_END: window

/// Both poolings on the embedded digits, in the mean of five runs.
fn compare(args: &Args, out: &mut dyn Write, device: &Device) -> Result<()> {
    const RUNS: u64 = 5;
    let input = Preprocess::new(1, 32, 32, Fit::Resize).normalized([0.1307; 3], [0.3081; 3]);
    let [digits, test] = Images::digits(usize::MAX, &input, device)?;
    let plan = Plan { steps: args.steps, batch: 32, rate: 0.02, momentum: 0.9, weight_decay: 0.0 };
    let mut rows = Vec::new();
    for (name, pool) in [("mean", PoolConfig::avg(2, 2)), ("maximum", PoolConfig::max(2, 2))] {
        let mut accuracies = Vec::new();
        for seed in 0..RUNS {
            device.seed(seed);
            let network = LeNet5Config::new().with_pool(pool.clone()).init(device);
            let network = train(network, |it, images| it.forward(images), &digits, plan, |_, _, _| Ok(()))?;
            accuracies.push(100.0 * test.accuracy(&network, |it: &LeNet5, images| it.forward(images))?);
        }
        let mean = accuracies.iter().sum::<f64>() / RUNS as f64;
        let [least, most] = [f64::min, f64::max].map(|of| accuracies.iter().copied().reduce(of).unwrap_or(mean));
        rows.push([name.to_owned(), format!("{mean:.1} %"), format!("{least:.1} %"), format!("{most:.1} %")]);
    }
    let title = format!("LeNet-5 after {} steps, {RUNS} runs", args.steps);
    table(out, [&title, "accuracy, test", "least", "most"], rows)
}
