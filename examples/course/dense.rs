//! Dense connectivity: every layer reads all that came before it.

use std::io::Write;

use anyhow::{Result, ensure};
use burn::tensor::{Device, Distribution, Tensor};
use convzoo::blocks::{DenseBlock, DenseBlockConfig};
use convzoo::{Options, create};

use super::show::{table, thousands, values};

pub fn run(out: &mut dyn Write, device: &Device) -> Result<()> {
    let (inputs, layers, growth) = (24, 4, 12);
    let block = DenseBlockConfig::new(inputs, layers, growth).init(device);
    device.seed(0);
    let input = Tensor::random([1, inputs, 8, 8], Distribution::Default, device);
    let (features, mut rows) = by_hand(&block, &input);
    let all = features.dims()[1];
    rows.push(["the block's output".to_owned(), String::new(), all.to_string()]);
    table(out, ["a dense block on 24 channels", "channels it reads", "channels it adds"], rows)?;

    ensure!(values(&block.forward(input.clone()))? == values(&features)?, "the block is more than its layers");
    ensure!(values(&features.narrow(1, 0, inputs))? == values(&input)?, "the input was changed on its way");
    writeln!(out, "the block's first {inputs} channels are its input, unchanged")?;
    writeln!(out, "direct connections: {} in the dense block, {layers} in a chain\n", layers * (layers + 1) / 2)?;
    blocks(out)?;
    networks(out, device)
}

// ANCHOR: block
/// A dense block, layer by layer: its output, and the channels that each layer reads and adds.
fn by_hand(block: &DenseBlock, input: &Tensor<4>) -> (Tensor<4>, Vec<[String; 3]>) {
    let (mut features, mut rows) = (input.clone(), Vec::new());
    for (i, layer) in block.layers.iter().enumerate() {
        let new = layer.forward(features.clone());
        rows.push([format!("layer {}", i + 1), features.dims()[1].to_string(), new.dims()[1].to_string()]);
        features = Tensor::cat(vec![features, new], 1);
    }
    (features, rows)
}
// ANCHOR_END: block

/// DenseNet-121: channels grow through a block and are halved after it.
fn blocks(out: &mut dyn Write) -> Result<()> {
    let mut inputs = 64;
    let mut rows = Vec::new();
    for (i, layers) in [6, 12, 24, 16].into_iter().enumerate() {
        let outputs = DenseBlockConfig::new(inputs, layers, 32).outputs();
        rows.push([(i + 1).to_string(), layers.to_string(), inputs.to_string(), outputs.to_string()]);
        inputs = outputs / 2;
    }
    table(out, ["block of DenseNet-121", "layers", "channels in", "channels out"], rows)
}

fn networks(out: &mut dyn Write, device: &Device) -> Result<()> {
    let mut rows = Vec::new();
    for name in ["resnet50", "densenet121", "densenet201"] {
        let network = create(name, &Options::default(), device)?;
        let summary = network.summary(network.input())?;
        rows.push([name.to_owned(), thousands(summary.params), thousands(summary.macs)]);
    }
    table(out, ["network", "parameters", "multiply-adds"], rows)
}
