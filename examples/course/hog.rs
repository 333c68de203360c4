//! Before networks learned their features: histograms of oriented gradients and a linear classifier, beside LeNet-5.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use burn::module::{Module, ModuleDisplay};
use burn::tensor::{Device, Tensor, TensorData};
use convzoo::blocks::{Linear, LinearConfig};
use convzoo::data::{Dataset, Fit, Preprocess, Source, open};
use convzoo::report::Grid;
use convzoo::{Classifier, Options, create};
use image::{Rgb, RgbImage};

use super::show::{number, table, thousands};
use super::training::{Images, Plan, train};

#[derive(clap::Args, Default)]
pub struct Args {
    /// Train the classifiers, too (some seconds)
    #[arg(long)]
    train: bool,
    /// Steps of that training
    #[arg(long, value_name = "N", default_value_t = 900, requires = "train")]
    steps: usize,
    /// Write digits and their histograms to this file, .png or .jpg
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
}

/// Digits are enlarged to this side, and cells of the grid have a side of [`CELL`].
const SIDE: usize = 16;
const CELL: usize = 4;
const CELLS: usize = SIDE / CELL;
/// Directions, of 20° each: an edge and its opposite are alike.
const BINS: usize = 9;

pub fn run(args: &Args, out: &mut dyn Write, device: &Device) -> Result<()> {
    // Bright on the left half of the cell in the middle: its gradient points along the rows.
    let edge: Vec<f32> = (0..SIDE * SIDE).map(|i| if i % SIDE < 6 { 1.0 } else { 0.0 }).collect();
    // Bright above a diagonal.
    let diagonal: Vec<f32> = (0..SIDE * SIDE).map(|i| if i % SIDE + i / SIDE < 11 { 1.0 } else { 0.0 }).collect();
    let rows = [("vertical edge", edge), ("diagonal edge", diagonal)].map(|(name, image)| {
        let cell = cells(&image)[CELLS + 1];
        [name.to_owned(), cell.iter().map(|value| format!("{:>5}", number(*value, 2))).collect()]
    });
    let angles: String = (0..BINS).map(|bin| format!("{:>4}°", 20 * bin)).collect();
    table(out, ["histogram of one cell", &angles], rows.into())?;
    let (cells, blocks) = (CELLS * CELLS, (CELLS - 1).pow(2));
    writeln!(
        out,
        "{cells} cells, {blocks} blocks of 2×2 cells: {blocks} · 4 · {BINS} = {} features\n",
        blocks * 4 * BINS
    )?;
    if let Some(path) = &args.picture {
        picture()?.save(path).with_context(|| format!("writing {}", path.display()))?;
    }
    if args.train { compare(args, out, &device.clone().autodiff()) } else { Ok(()) }
}

/// The histogram of each cell of an image of 16×16: how much gradient there is in each direction.
fn cells(image: &[f32]) -> Vec<[f32; BINS]> {
    let at = |y: usize, x: usize| image[y.min(SIDE - 1) * SIDE + x.min(SIDE - 1)];
    let mut histograms = vec![[0.0; BINS]; CELLS * CELLS];
    for y in 0..SIDE {
        for x in 0..SIDE {
            let dx = at(y, x + 1) - at(y, x.saturating_sub(1));
            let dy = at(y + 1, x) - at(y.saturating_sub(1), x);
            vote(&mut histograms[y / CELL * CELLS + x / CELL], dx, dy);
        }
    }
    histograms
}

// ANCHOR: vote
/// Adds a pixel's gradient to the histogram of its cell: its length, in the bin of its angle.
fn vote(histogram: &mut [f32; BINS], dx: f32, dy: f32) {
    let angle = dy.atan2(dx).to_degrees().rem_euclid(180.0) / 20.0;
    // Between two directions, both get their share.
    let (bin, share) = (angle as usize % BINS, angle.fract());
    histogram[bin] += dx.hypot(dy) * (1.0 - share);
    histogram[(bin + 1) % BINS] += dx.hypot(dy) * share;
}
// ANCHOR_END: vote

/// The features of an image: each block of 2×2 cells, divided by its norm, so that contrast does not matter.
fn features(image: &[f32]) -> Vec<f32> {
    let cells = cells(image);
    let mut features = Vec::new();
    for y in 0..CELLS - 1 {
        for x in 0..CELLS - 1 {
            let corner = y * CELLS + x;
            let block = [corner, corner + 1, corner + CELLS, corner + CELLS + 1].map(|cell| cells[cell]).concat();
            let norm = (block.iter().map(|value| value * value).sum::<f32>() + 0.01).sqrt();
            features.extend(block.iter().map(|value| value / norm));
        }
    }
    features
}

/// What a linear classifier reads, an image as `[features, 1, 1]`.
fn described(data: &dyn Dataset, describe: fn(&[f32]) -> Vec<f32>, device: &Device) -> Result<Images> {
    let enlarge = Preprocess::new(1, SIDE, SIDE, Fit::Resize);
    let (mut features, mut labels, mut width) = (Vec::new(), Vec::new(), 0);
    for index in 0..data.len() {
        let sample = data.get(index)?;
        let described = describe(&enlarge.apply(&sample.image));
        width = described.len();
        features.extend(described);
        labels.push(sample.label as i64);
    }
    let images = Tensor::from_data(TensorData::new(features, [data.len(), width, 1, 1]), device);
    Ok(Images { images, labels: Tensor::from_data(TensorData::new(labels, [data.len()]), device) })
}

/// The same classifier on pixels and on histograms, and LeNet-5.
fn compare(args: &Args, out: &mut dyn Write, device: &Device) -> Result<()> {
    let digits = open("digits", &Source::default())?;
    let plan = Plan { steps: args.steps, batch: 32, rate: 0.02, momentum: 0.9, weight_decay: 0.0 };
    let mut rows = Vec::new();
    type Describe = fn(&[f32]) -> Vec<f32>;
    let describe: [(&str, Describe); 2] =
        [("linear, on 256 pixels", <[f32]>::to_vec), ("linear, on 324 features of HOG", features)];
    for (name, describe) in describe {
        let [some, test] = [&digits.train, &digits.test].map(|part| described(&**part, describe, device));
        let (some, test) = (some?, test?);
        device.seed(0);
        let linear = LinearConfig::new(some.images.dims()[1], 10).init(device);
        let forward = |linear: &Linear, features: Tensor<4>| linear.forward(features.flatten(1, 3));
        rows.push(row(name, linear, forward, [&some, &test], plan)?);
    }
    device.seed(0);
    let lenet = create("lenet5", &Options::default(), device)?;
    let input = convzoo::preprocess(&lenet.preprocessing(), lenet.input(), &digits.train.get(0)?.image);
    let [some, test] = Images::digits(usize::MAX, &input, device)?;
    rows.push(row("LeNet-5", lenet, |network, images| network.forward(images), [&some, &test], plan)?);
    let title = format!("after {} steps", args.steps);
    table(out, [&title, "parameters", "accuracy, test", "seconds"], rows)
}

/// Trains a network and says what came of it.
fn row<M: Module + ModuleDisplay>(
    name: &str,
    network: M,
    forward: fn(&M, Tensor<4>) -> Tensor<2>,
    [digits, test]: [&Images; 2],
    plan: Plan,
) -> Result<[String; 4]> {
    let (params, start) = (Module::num_params(&network), Instant::now());
    let network = train(network, forward, digits, plan, |_, _, _| Ok(()))?;
    let seconds = start.elapsed().as_secs_f64();
    let accuracy = format!("{:.1} %", 100.0 * test.accuracy(&network, forward)?);
    Ok([name.to_owned(), thousands(params), accuracy, format!("{seconds:.0}")])
}

/// Digits above their cells' histograms, each drawn as lines along the edges that it counts.
fn picture() -> Result<RgbImage> {
    const SCALE: usize = 8;
    let digits = open("digits", &Source::default())?.train;
    let enlarge = Preprocess::new(1, SIDE, SIDE, Fit::Resize);
    let (mut inputs, mut histograms) = (Vec::new(), Vec::new());
    for class in [0, 1, 4, 7] {
        let index = (0..digits.len()).find(|&index| digits.label(index).is_ok_and(|label| label == class));
        let image = enlarge.apply(&digits.get(index.context("a digit is missing")?)?.image);
        let side = (SIDE * SCALE) as u32;
        inputs.push(RgbImage::from_fn(side, side, |x, y| {
            Rgb([(255.0 * image[y as usize / SCALE * SIDE + x as usize / SCALE]) as u8; 3])
        }));
        let cells = cells(&image);
        let most = cells.iter().flatten().fold(0.0f32, |most, value| most.max(*value));
        let mut drawn = RgbImage::new(side, side);
        let reach = (CELL * SCALE / 2) as f32;
        for (i, cell) in cells.iter().enumerate() {
            let centre = [i % CELLS, i / CELLS].map(|cell| (cell as f32 + 0.5) * (CELL * SCALE) as f32);
            for (bin, value) in cell.iter().enumerate() {
                // An edge runs at a right angle to its gradient.
                let (sin, cos) = ((20 * bin) as f32 + 90.0).to_radians().sin_cos();
                for step in -30..=30 {
                    let at = step as f32 / 32.0 * reach;
                    let [x, y] = [centre[0] + at * cos, centre[1] + at * sin].map(|at| at as u32);
                    let pixel = drawn.get_pixel_mut(x.min(side - 1), y.min(side - 1));
                    pixel.0 = [pixel.0[0].max((255.0 * value / most) as u8); 3];
                }
            }
        }
        histograms.push(drawn);
    }
    let grid = inputs.into_iter().chain(histograms).fold(Grid::new(4), |grid, tile| grid.tile("", tile));
    Ok(grid.image()?)
}
