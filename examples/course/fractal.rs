//! FractalNet: depth without shortcuts, by paths of many lengths that are joined and dropped.

use std::io::Write;

use anyhow::{Result, ensure};
use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor};
use convzoo::blocks::{
    AdaptiveAvgPool2d, FractalBlock, FractalBlockConfig, Linear, LinearConfig, Paths, Pool, PoolConfig,
};
use convzoo::data::{Fit, Preprocess};

use super::show::{table, values};
use super::training::{Images, Plan, train};

#[derive(clap::Args, Default)]
pub struct Args {
    /// Train a small FractalNet with and without drop path, too (some seconds)
    #[arg(long)]
    train: bool,
    /// Steps of that training
    #[arg(long, value_name = "N", default_value_t = 1200, requires = "train")]
    steps: usize,
}

pub fn run(args: &Args, out: &mut dyn Write, device: &Device) -> Result<()> {
    counts(out, device)?;
    joins(out, device)?;
    if args.train { compare(args, out, &device.clone().autodiff()) } else { Ok(()) }
}

// ANCHOR: count
/// Convolutions, the longest path and the number of paths of a fractal, by its rule: a convolution beside two fractals
/// of a column less, one after the other.
fn count(columns: u32) -> [usize; 3] {
    if columns == 1 {
        return [1, 1, 1];
    }
    let [convolutions, longest, paths] = count(columns - 1);
    [1 + 2 * convolutions, 2 * longest, 1 + paths * paths]
}
// ANCHOR_END: count

/// The counts, and that the block has as many convolutions.
fn counts(out: &mut dyn Write, device: &Device) -> Result<()> {
    let params = |columns: u32| FractalBlockConfig::new([64, 64], columns as usize).init(device).num_params();
    let mut rows = Vec::new();
    for columns in 1..=4 {
        let [convolutions, longest, paths] = count(columns);
        let counted = params(columns) / params(1);
        ensure!(counted == convolutions, "{columns} columns have {counted} convolutions");
        rows.push([columns, convolutions as u32, longest as u32, paths as u32].map(|number| number.to_string()));
    }
    table(out, ["columns of a fractal", "convolutions", "longest path", "paths"], rows)
}

/// With two columns, the block is the mean of what the columns give alone.
fn joins(out: &mut dyn Write, device: &Device) -> Result<()> {
    device.seed(0);
    let block = FractalBlockConfig::new([2, 3], 2).init(device);
    let input = Tensor::random([1, 2, 5, 5], Distribution::Default, device);
    let [shallow, deep] = [0, 1].map(|column| block.forward_column(input.clone(), column));
    let difference = (shallow + deep) / 2.0 - block.forward(input);
    let most = values(&difference.abs().max().reshape([1]))?[0];
    ensure!(most < 1e-5, "the block differs from the mean of its columns by {most}");
    Ok(writeln!(out, "two columns: the block is the mean of its columns, to 0.00001\n")?)
}

/// Two fractals with a pooling between them, on maps of 8×8 and 4×4.
#[derive(Module, Debug)]
struct Network {
    blocks: [FractalBlock; 2],
    pool: Pool,
    mean: AdaptiveAvgPool2d,
    classifier: Linear,
    drop_path: bool,
}

/// Columns of each fractal of [`Network`].
const COLUMNS: usize = 3;

impl Network {
    fn new(drop_path: bool, device: &Device) -> Self {
        device.seed(0);
        let block = |inputs, outputs| FractalBlockConfig::new([inputs, outputs], COLUMNS).init(device);
        Self {
            blocks: [block(1, 16), block(16, 32)],
            pool: PoolConfig::max(2, 2).init(),
            mean: AdaptiveAvgPool2d::new([1, 1]),
            classifier: LinearConfig::new(32, 10).init(device),
            drop_path,
        }
    }

    // ANCHOR: forward
    /// In training other paths are drawn in each step: half of the time one column alone, else most of all paths.
    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let paths = if self.drop_path { Paths::draw(0.15, COLUMNS, &images.device()) } else { Paths::All };
        self.classify(images, |block, x| block.forward_paths(x, paths))
    }
    // ANCHOR_END: forward

    /// The plain network that a column is by itself.
    fn column(&self, images: Tensor<4>, column: usize) -> Tensor<2> {
        self.classify(images, |block, x| block.forward_column(x, column))
    }

    fn classify(&self, images: Tensor<4>, block: impl Fn(&FractalBlock, Tensor<4>) -> Tensor<4>) -> Tensor<2> {
        let x = self.pool.forward(block(&self.blocks[0], images));
        self.classifier.forward(self.mean.forward(block(&self.blocks[1], x)).flatten(1, 3))
    }
}

/// The accuracy of the whole and of each column alone, trained with all paths and with some.
fn compare(args: &Args, out: &mut dyn Write, device: &Device) -> Result<()> {
    let eight = Preprocess::new(1, 8, 8, Fit::Resize).normalized([0.3; 3], [0.37; 3]);
    let [digits, test] = Images::digits(usize::MAX, &eight, device)?;
    let plan = Plan { steps: args.steps, batch: 32, rate: 0.02, momentum: 0.9, weight_decay: 0.0 };
    let mut rows = Vec::new();
    for (name, drop_path) in [("all paths in each step", false), ("drop path", true)] {
        let network = train(Network::new(drop_path, device), Network::forward, &digits, plan, |_, _, _| Ok(()))?;
        let ways: [fn(&Network, Tensor<4>) -> Tensor<2>; 4] =
            [Network::forward, |it, x| it.column(x, 0), |it, x| it.column(x, 1), |it, x| it.column(x, 2)];
        let mut row = vec![name.to_owned()];
        for way in ways {
            row.push(format!("{:.1} %", 100.0 * test.accuracy(&network, way)?));
        }
        rows.push(std::array::from_fn::<_, 5, _>(|i| row[i].clone()));
    }
    let title = format!("trained, {} steps, with", args.steps);
    table(out, [&title, "whole", "column of 1", "of 2", "of 4"], rows)
}
