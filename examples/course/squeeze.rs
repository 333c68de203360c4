//! SqueezeNet: AlexNet's accuracy with a fiftieth of its parameters, by fire modules.

use std::io::Write;
use std::path::Path;

use anyhow::{Result, ensure};
use burn::module::Module;
use burn::tensor::Device;
use convzoo::blocks::{ConvUnitConfig, FireConfig};
use convzoo::report::Bars;
use convzoo::{Options, create};

use super::activations::save;
use super::show::{table, thousands};

pub fn run(pictures: Option<&Path>, out: &mut dyn Write, device: &Device) -> Result<()> {
    let fire = FireConfig::new(96, 16, 64).init(device).num_params();
    ensure!(fire == by_hand(96, 16, 64).iter().sum::<usize>(), "the fire module has {fire} parameters");
    let [squeeze, small, large] = by_hand(96, 16, 64).map(thousands);
    let plain = ConvUnitConfig::square(96, 128, 3).init(device).num_params();
    let row = |name: &str, params: String| [name.to_owned(), params];
    let rows = vec![
        row("squeeze: 1×1, 96 to 16", squeeze),
        row("expand: 1×1, 16 to 64", small),
        row("expand: 3×3, 16 to 64", large),
        row("fire module", thousands(fire)),
        row("one 3×3, 96 to 128", thousands(plain)),
    ];
    table(out, ["from 96 to 128 channels", "parameters"], rows)?;
    modules(pictures, out, device)?;
    networks(out, device)
}

// ANCHOR: count
/// Parameters of a fire module: of its 1×1 squeeze, its 1×1 expand and its 3×3 expand, each filter with a bias.
fn by_hand(inputs: usize, squeeze: usize, expand: usize) -> [usize; 3] {
    [(inputs + 1) * squeeze, (squeeze + 1) * expand, (9 * squeeze + 1) * expand]
}
// ANCHOR_END: count

/// SqueezeNet from the first convolution to the last, module by module.
fn modules(pictures: Option<&Path>, out: &mut dyn Write, device: &Device) -> Result<()> {
    let network = create("squeezenet1_0", &Options::default(), device)?;
    let summary = network.summary(network.input())?;
    let mut chart = Bars::new("SqueezeNet's parameters", "thousand", ["parameters"]);
    let mut rows: Vec<[String; 4]> = Vec::new();
    for layers in summary.layers.chunk_by(|a, b| module(&a.name) == module(&b.name)) {
        let params: usize = layers.iter().map(|layer| layer.params).sum();
        let macs: usize = layers.iter().map(|layer| layer.macs).sum();
        let Some(last) = layers.last().filter(|_| params > 0) else { continue };
        // The two expanding layers are concatenated.
        let channels = last.output[0] * if layers.len() > 1 { 2 } else { 1 };
        let side = last.output[1];
        rows.push([module(&last.name), format!("{channels}×{side}×{side}"), thousands(params), thousands(macs)]);
        chart = chart.group(module(&last.name), [Some(params as f64 / 1e3)]);
    }
    table(out, ["squeezenet1_0", "output", "parameters", "multiply-adds"], rows)?;
    save(pictures, "squeezenet.svg", &chart)
}

/// `features.3.squeeze` belongs to the module `features.3`.
fn module(layer: &str) -> String {
    layer.split('.').take(2).collect::<Vec<_>>().join(".")
}

fn networks(out: &mut dyn Write, device: &Device) -> Result<()> {
    let rows = ["alexnet_2012", "squeezenet1_0", "squeezenet1_1"].map(|name| {
        let network = create(name, &Options::default(), device)?;
        let summary = network.summary(network.input())?;
        let mib = format!("{:.1}", 4.0 * summary.params as f64 / 1024.0 / 1024.0);
        Ok([name.to_owned(), thousands(summary.params), mib, thousands(summary.macs)])
    });
    let rows = rows.into_iter().collect::<Result<_>>()?;
    table(out, ["network", "parameters", "MiB of 32-bit numbers", "multiply-adds"], rows)
}
