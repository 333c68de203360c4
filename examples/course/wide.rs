//! Wide residual networks: what width costs beside depth.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use convzoo::blocks::{ConvUnit, ConvUnitConfig};
use convzoo::report::Lines;
use convzoo::{Options, create};

use super::activations::save;
use super::show::{table, thousands, values};

#[derive(clap::Args, Default)]
pub struct Args {
    /// Measure deep and wide stacks of the same number of weights, too (some seconds)
    #[arg(long)]
    measure: bool,
    /// Write how weights grow to this folder, as SVG
    #[arg(long, value_name = "DIR")]
    pictures: Option<PathBuf>,
}

pub fn run(args: &Args, out: &mut dyn Write, device: &Device) -> Result<()> {
    growth(args, out, device)?;
    networks(out, device)?;
    if args.measure { measure(out, device) } else { Ok(()) }
}

// ANCHOR: stack
/// 3×3 convolutions one after another, each from `width` channels to as many.
fn stack(depth: usize, width: usize, device: &Device) -> Vec<ConvUnit> {
    let conv = || ConvUnitConfig::square(width, width, 3).padded(1).with_bias(false).init(device);
    (0..depth).map(|_| conv()).collect()
}
// ANCHOR_END: stack

fn weights(stack: &[ConvUnit]) -> usize {
    stack.iter().map(Module::num_params).sum()
}

/// Weights of a layer of 16 channels that is k times as wide, and of k such layers.
fn growth(args: &Args, out: &mut dyn Write, device: &Device) -> Result<()> {
    let [mut wide, mut deep] = [Vec::new(), Vec::new()];
    let mut rows = Vec::new();
    for k in 1..=10 {
        let [by_width, by_depth] = [weights(&stack(1, 16 * k, device)), weights(&stack(k, 16, device))];
        ensure!(by_width == 9 * (16 * k).pow(2) && by_depth == k * 9 * 16 * 16, "{by_width}, {by_depth}");
        if [1, 2, 4, 10].contains(&k) {
            rows.push([k.to_string(), thousands(by_width), thousands(by_depth)]);
        }
        wide.push((k as f64, by_width as f64));
        deep.push((k as f64, by_depth as f64));
    }
    table(out, ["k", "weights, 3×3, k times as wide", "k times as deep"], rows)?;
    let chart = Lines::new("weights of 3×3 layers on 16 channels", "k", "weights");
    let chart = chart.series("k times as wide", wide).series("k times as deep", deep).logarithmic();
    save(args.pictures.as_deref(), "wide.svg", &chart)
}

/// Deep and narrow, or wide.
fn networks(out: &mut dyn Write, device: &Device) -> Result<()> {
    let names =
        [("preact_resnet164_cifar", "5.46 %"), ("preact_resnet1001_cifar", "4.92 %"), ("wide_resnet28_10", "4.00 %")];
    let rows = names.map(|(name, error)| {
        let network = create(name, &Options::default(), device)?;
        let summary = network.summary(network.input())?;
        let convs = summary.layers.iter().filter(|layer| layer.kind == "Conv2d").count();
        let [params, macs] = [summary.params, summary.macs].map(thousands);
        Ok([name.to_owned(), convs.to_string(), params, macs, error.to_owned()])
    });
    let rows = rows.into_iter().collect::<Result<_>>()?;
    table(out, ["network", "convolutions", "parameters", "multiply-adds", "error in its paper"], rows)
}

/// The time of stacks that have the same number of weights and of multiply-adds.
fn measure(out: &mut dyn Write, device: &Device) -> Result<()> {
    let mut rows = Vec::new();
    for (depth, width) in [(64, 16), (16, 32), (4, 64), (1, 128)] {
        let layers = stack(depth, width, device);
        let image = Tensor::<4>::ones([1, width, 32, 32], device);
        let mut times = Vec::new();
        for _ in 0..30 {
            let start = Instant::now();
            let output = layers.iter().fold(image.clone(), |x, layer| layer.forward(x));
            // The values are asked for, so that they have been computed.
            ensure!(values(&output)?.len() == width * 32 * 32, "an output is missing");
            times.push(start.elapsed());
        }
        times.sort();
        let median: Duration = times[times.len() / 2];
        rows.push([
            depth.to_string(),
            width.to_string(),
            thousands(weights(&layers)),
            format!("{:.2} ms", 1e3 * median.as_secs_f64()),
        ]);
    }
    table(out, ["layers", "channels", "weights", "time of one image, 32×32"], rows)
}
