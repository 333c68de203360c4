//! Stochastic depth: residual blocks that are left out at random in training.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use convzoo::blocks::{
    AdaptiveAvgPool2d, BasicBlock, BasicBlockConfig, ConvUnit, ConvUnitConfig, DropPath, DropPathConfig, Linear,
    LinearConfig,
};
use convzoo::data::{Fit, Preprocess};
use convzoo::report::Lines;

use super::activations::save;
use super::show::{number, table, values};
use super::training::{Images, Plan, train};

#[derive(clap::Args, Default)]
pub struct Args {
    /// Train a residual network with and without, too (one to two minutes)
    #[arg(long)]
    train: bool,
    /// Steps of that training
    #[arg(long, value_name = "N", default_value_t = 500, requires = "train")]
    steps: usize,
    /// Times that each is trained, from other weights
    #[arg(long, value_name = "N", default_value_t = 3, requires = "train", value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    /// Write the probabilities to this folder, as SVG
    #[arg(long, value_name = "DIR")]
    pictures: Option<PathBuf>,
}

/// The last block is dropped half of the time.
const RATE: f64 = 0.5;

pub fn run(args: &Args, out: &mut dyn Write, device: &Device) -> Result<()> {
    let device = &device.clone().autodiff();
    one_block(out)?;
    survival(args, out, device)?;
    if args.train { compare(args, out, device) } else { Ok(()) }
}

// ANCHOR: block
/// A residual block in one training step: where the draw, from 0 to 1, is not below p, only the shortcut is left.
fn block(x: f64, residual: fn(f64) -> f64, p: f64, draw: f64) -> f64 {
    if draw < p { x + residual(x) / p } else { x }
}
// ANCHOR_END: block

/// What a block gives for 2, if F(x) is x / 2 and p is 0.5; evenly spread draws have the mean of evaluation.
fn one_block(out: &mut dyn Write) -> Result<()> {
    let half = |x: f64| x / 2.0;
    let mean = (0..100).map(|i| block(2.0, half, 0.5, (f64::from(i) + 0.5) / 100.0)).sum::<f64>() / 100.0;
    ensure!((mean - (2.0 + half(2.0))).abs() < 1e-9, "the mean is {mean}");
    let row = |name: &str, value: f64| [name.to_owned(), number(value as f32, 3)];
    let rows = vec![
        row("survives: 2 + 1 / 0.5", block(2.0, half, 0.5, 0.3)),
        row("is dropped: 2", block(2.0, half, 0.5, 0.7)),
        row("mean, as in evaluation: 2 + 1", mean),
    ];
    table(out, ["x = 2, F(x) = x / 2, p = 0.5", "output"], rows)
}

/// The probabilities of ResNet-110's 54 blocks, by the formula and by what the layer does in 10,000 draws.
fn survival(args: &Args, out: &mut dyn Write, device: &Device) -> Result<()> {
    device.seed(0);
    let rates: Vec<f64> = DropPath::linear_decay(RATE, 54).collect();
    let mut rows = Vec::new();
    for block in [1, 18, 36, 54] {
        let rate = rates[block - 1];
        let path = DropPathConfig::new(rate).init().forward(Tensor::<2>::ones([10_000, 1], device));
        let kept = values(&path)?.iter().filter(|value| **value > 0.0).count() as f64 / 1e4;
        ensure!((kept - (1.0 - rate)).abs() < 0.03, "block {block} is kept {kept}");
        rows.push([block.to_string(), format!("{:.3}", 1.0 - rate), number((1.0 / (1.0 - rate)) as f32, 3)]);
    }
    table(out, ["block of 54", "probability to survive", "F(x) times"], rows)?;
    let expected: f64 = rates.iter().map(|rate| 1.0 - rate).sum();
    writeln!(out, "blocks that survive, on average: {expected:.2} of 54\n")?;

    let points = rates.iter().enumerate().map(|(i, rate)| ((i + 1) as f64, 1.0 - rate));
    let chart = Lines::new("stochastic depth in ResNet-110", "block", "probability to survive").series("", points);
    save(args.pictures.as_deref(), "survival.svg", &chart)
}

/// A convolution, residual blocks on maps of 8×8, and a classifier of their means.
#[derive(Module, Debug)]
struct Network {
    stem: ConvUnit,
    blocks: Vec<BasicBlock>,
    pool: AdaptiveAvgPool2d,
    classifier: Linear,
}

/// Channels and blocks of [`Network`].
const WIDTH: usize = 16;
const DEPTH: usize = 18;

impl Network {
    // ANCHOR: network
    /// Block l of L is dropped with probability `rate` · l / L.
    fn new(rate: f64, device: &Device) -> Self {
        let block = |rate| BasicBlockConfig::new([WIDTH; 2]).with_drop_path(rate).init(device);
        Self {
            stem: ConvUnitConfig::square(1, WIDTH, 3).padded(1).with_batch_norm().init(device),
            blocks: DropPath::linear_decay(rate, DEPTH).map(block).collect(),
            pool: AdaptiveAvgPool2d::new([1, 1]),
            classifier: LinearConfig::new(WIDTH, 10).init(device),
        }
    }
    // ANCHOR_END: network

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let maps = self.blocks.iter().fold(self.stem.forward(images), |x, block| block.forward(x));
        self.classifier.forward(self.pool.forward(maps).flatten(1, 3))
    }
}

/// Trained on 300 digits: all blocks, and each left out in turn.
fn compare(args: &Args, out: &mut dyn Write, device: &Device) -> Result<()> {
    let eight = Preprocess::new(1, 8, 8, Fit::Resize).normalized([0.3; 3], [0.37; 3]);
    let [digits, test] = Images::digits(300, &eight, device)?;
    let plan = Plan { steps: args.steps, batch: 32, rate: 0.05, momentum: 0.9, weight_decay: 1e-4 };
    let mut rows = Vec::new();
    for (name, rate) in [("all blocks in each step", 0.0), ("stochastic depth, 0.5 at the last", RATE)] {
        let mut sums = [0.0; 2];
        for seed in 0..args.runs {
            device.seed(seed);
            let network = train(Network::new(rate, device), Network::forward, &digits, plan, |_, _, _| Ok(()))?;
            sums[0] += test.accuracy(&network, Network::forward)?;
            for left_out in 0..DEPTH {
                let mut shorter = network.clone();
                shorter.blocks.remove(left_out);
                sums[1] += test.accuracy(&shorter, Network::forward)? / DEPTH as f64;
            }
        }
        let [all, without] = sums.map(|sum| format!("{:.1} %", 100.0 * sum / args.runs as f64));
        rows.push([name.to_owned(), all, without]);
    }
    let title = format!("{DEPTH} blocks, 300 digits, mean of {} runs", args.runs);
    table(out, [&title, "accuracy, test", "with one block less"], rows)
}
