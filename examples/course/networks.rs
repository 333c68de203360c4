//! LeNet-5 as a table, and where the classic networks keep their parameters and spend their multiply-adds.

use std::io::Write;

use anyhow::Result;
use burn::tensor::Device;
use convzoo::{LayerSummary, Options, Summary, create};

use super::show::{shape, table, thousands};

/// Shapes, numbers of values, and parameters, from the image to the classes.
pub fn lenet(out: &mut dyn Write, device: &Device) -> Result<()> {
    let network = create("lenet5", &Options::default(), device)?;
    let summary = network.summary(network.input())?;
    let mut rows = rows(&summary);
    rows.push(["in all".to_owned(), String::new(), String::new(), thousands(summary.params)]);
    table(out, ["layer", "shape", "values", "parameters"], rows)?;

    let colour = create("lenet5", &Options::default().with_channels(3), device)?;
    let summary = colour.summary(colour.input())?;
    let (input, c1) = (shape(&summary.input), thousands(summary.layers[0].params));
    Ok(writeln!(out, "for images of {input}: {c1} parameters in c1, {} in all\n", thousands(summary.params))?)
}

// ANCHOR: rows
/// Each layer's output: its shape, how many values that are, and the parameters that they take.
fn rows(summary: &Summary) -> Vec<[String; 4]> {
    let row = |name: &str, dims: &[usize], params: usize| {
        [name.to_owned(), shape(dims), thousands(dims.iter().product()), thousands(params)]
    };
    let mut rows = vec![row("input", &summary.input, 0)];
    rows.extend(summary.layers.iter().map(|layer| row(&layer.name, &layer.output, layer.params)));
    rows
}
// ANCHOR_END: rows

/// Convolutions compute, fully-connected layers remember.
pub fn shares(out: &mut dyn Write, device: &Device) -> Result<()> {
    let mut rows = Vec::new();
    for name in ["lenet5", "alexnet_2012", "vgg16", "googlenet", "resnet50"] {
        let network = create(name, &Options::default(), device)?;
        let summary = network.summary(network.input())?;
        rows.push([
            name.to_owned(),
            thousands(summary.params),
            share(&summary, |layer| layer.params),
            thousands(summary.macs),
            share(&summary, |layer| layer.macs),
        ]);
    }
    table(out, ["network", "parameters", "in linear layers", "multiply-adds", "in linear layers"], rows)
}

// ANCHOR: share
/// The share of the linear layers, of all layers that an image passes.
fn share(summary: &Summary, of: fn(&LayerSummary) -> usize) -> String {
    let all: usize = summary.layers.iter().map(of).sum();
    let linear: usize = summary.layers.iter().filter(|layer| layer.kind == "Linear").map(of).sum();
    format!("{:.1} %", 100.0 * linear as f64 / all as f64)
}
// ANCHOR_END: share
