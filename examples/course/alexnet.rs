//! AlexNet in numbers: local response normalization by hand, memory layer by layer, and one tower instead of two.

use std::io::Write;
use std::path::Path;

use anyhow::{Result, ensure};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use convzoo::blocks::{ConvUnitConfig, LocalResponseNorm};
use convzoo::families::alexnet_2012::AlexNet2012Config;
use convzoo::report::Bars;
use convzoo::{Options, create};

use super::activations::save;
use super::show::{number, table, thousands, values};

const MIB: f64 = 1024.0 * 1024.0;
/// Images in a batch of the paper's training.
const BATCH: usize = 128;

pub fn run(pictures: Option<&Path>, out: &mut dyn Write, device: &Device) -> Result<()> {
    response(out, device)?;
    memory(pictures, out, device)?;
    towers(out, device)
}

/// a / (2 + 1e-4 · Σ a²)^0.75 over five channels, for one pixel of eight channels.
fn response(out: &mut dyn Write, device: &Device) -> Result<()> {
    // PyTorch's and Burn's layer takes the mean of the squares, the paper their sum: α is five times as large.
    let layer = LocalResponseNorm::new(5, 5e-4, 0.75, 2.0);
    let mut rows = Vec::new();
    for (name, channels) in [
        ("one channel is active", [0., 0., 0., 100., 0., 0., 0., 0.]),
        ("so are its neighbours", [0., 100., 100., 100., 100., 100., 0., 0.]),
        ("one is stronger", [0., 50., 50., 100., 50., 50., 0., 0.]),
    ] {
        let pixel = Tensor::<1>::from_data(channels, device).reshape([1, 8, 1, 1]);
        let output = values(&layer.forward(pixel))?;
        for (i, value) in output.iter().enumerate() {
            let by_hand = normalized(&channels, i);
            ensure!((value - by_hand).abs() < 1e-3, "channel {i}: {value}, by hand {by_hand}");
        }
        let row = |name: &str, values: &[f32]| {
            [name.to_owned(), values.iter().map(|value| format!("{:>6}", number(*value, 1))).collect()]
        };
        rows.push(row(name, &channels));
        rows.push(row("normalized", &output));
    }
    table(out, ["one pixel, eight channels", ""], rows)
}

// ANCHOR: response
/// The response of channel i beside its two neighbours on each side.
fn normalized(channels: &[f32; 8], i: usize) -> f32 {
    let window = &channels[i.saturating_sub(2)..(i + 3).min(8)];
    let squares: f32 = window.iter().map(|a| a * a).sum();
    channels[i] / (2.0 + 1e-4 * squares).powf(0.75)
}
// ANCHOR_END: response

// ANCHOR: grouped
/// The parameters of a convolution whose channels are divided into groups.
fn grouped(inputs: usize, outputs: usize, size: usize, groups: usize, device: &Device) -> usize {
    let conv = ConvUnitConfig::square(inputs, outputs, size).with_groups(groups).init(device);
    conv.num_params()
}
// ANCHOR_END: grouped

/// What the weights of each layer take, and its maps for a batch.
fn memory(pictures: Option<&Path>, out: &mut dyn Write, device: &Device) -> Result<()> {
    let network = create("alexnet_2012", &Options::default(), device)?;
    let summary = network.summary(network.input())?;
    let mut chart = Bars::new("AlexNet's memory", "MiB", ["weights", "maps of 128 images"]);
    let (mut rows, mut sums) = (Vec::new(), [0; 3]);
    for layer in &summary.layers {
        let map = 4 * layer.output.iter().product::<usize>();
        let bytes = [4 * layer.params, map, BATCH * map];
        let mib = bytes.map(|bytes| bytes as f64 / MIB);
        sums = std::array::from_fn(|i| sums[i] + bytes[i]);
        let [weights, one, batch] = mib.map(|mib| format!("{mib:.1}"));
        rows.push([layer.name.clone(), weights, one, batch]);
        chart = chart.group(&layer.name, [Some(mib[0]), Some(mib[2])]);
    }
    let [weights, one, batch] = sums.map(|sum| format!("{:.1}", sum as f64 / MIB));
    rows.push(["in all".to_owned(), weights, one, batch]);
    table(out, ["MiB of 32-bit numbers", "weights", "map of one image", "maps of 128"], rows)?;

    let hidden = summary.layers.iter().filter(|layer| matches!(layer.name.as_str(), "fc6" | "fc7"));
    let params: usize = hidden.map(|layer| layer.params).sum();
    writeln!(out, "fc6 and fc7: {} weights of 4 bytes, {:.1} MiB\n", thousands(params), 4.0 * params as f64 / MIB)?;
    save(pictures, "alexnet-memory.svg", &chart)
}

/// Convolutions 2, 4 and 5 in two groups, as the two GPUs had them, and in one.
fn towers(out: &mut dyn Write, device: &Device) -> Result<()> {
    let network = create("alexnet_2012", &Options::default(), device)?;
    let summary = network.summary(network.input())?;
    let (mut rows, mut all) = (Vec::new(), [summary.params; 2]);
    for (name, inputs, outputs, size) in [("conv2", 96, 256, 5), ("conv4", 384, 384, 3), ("conv5", 384, 256, 3)] {
        let params = [2, 1].map(|groups| grouped(inputs, outputs, size, groups, device));
        let listed = summary.layers.iter().find(|layer| layer.name == name).map(|layer| layer.params);
        ensure!(listed == Some(params[0]), "{name} has {listed:?}");
        all[1] += params[1] - params[0];
        rows.push([name.to_owned(), thousands(params[0]), thousands(params[1])]);
    }
    let one_tower = AlexNet2012Config::new().with_groups(1).init(device).num_params();
    ensure!(all[1] == one_tower, "one tower has {one_tower} parameters");
    rows.push(["the network".to_owned(), thousands(all[0]), thousands(all[1])]);
    table(out, ["parameters", "two towers", "one tower"], rows)
}
