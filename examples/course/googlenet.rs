//! GoogLeNet's table, recomputed row by row beside the paper's.

use std::io::Write;

use anyhow::Result;
use burn::tensor::Device;
use convzoo::{Options, Summary, create};

use super::show::{table, thousands};

/// The paper's rows: a layer or module, its parameters in thousands, its operations in millions.
const PAPER: [(&str, &str, f64, f64); 13] = [
    ("conv1", "7×7, stride 2", 2.7, 34.0),
    ("conv2", "1×1 and 3×3", 112.0, 360.0),
    ("inception3a", "inception 3a", 159.0, 128.0),
    ("inception3b", "inception 3b", 380.0, 304.0),
    ("inception4a", "inception 4a", 364.0, 73.0),
    ("inception4b", "inception 4b", 437.0, 88.0),
    ("inception4c", "inception 4c", 463.0, 100.0),
    ("inception4d", "inception 4d", 580.0, 119.0),
    ("inception4e", "inception 4e", 840.0, 170.0),
    ("inception5a", "inception 5a", 1072.0, 54.0),
    ("inception5b", "inception 5b", 1388.0, 71.0),
    ("fc", "linear", 1000.0, 1.0),
    ("", "in all", 0.0, 0.0),
];

pub fn run(out: &mut dyn Write, device: &Device) -> Result<()> {
    // The paper's network: 5×5 paths, no batch norm.
    let network = create("googlenet", &Options { batch_norm: Some(false), ..Options::default() }, device)?;
    let summary = network.summary(network.input())?;
    let mut rows = Vec::new();
    for (prefix, title, paper_weights, paper_macs) in PAPER {
        let module: &[&str] = match prefix {
            "" => &[],
            "conv2" => &["conv2", "conv3"],
            _ => &[prefix],
        };
        let (weights, macs) = sums(&summary, module);
        let paper = |value: f64, unit: &str| if value > 0.0 { format!("{value}{unit}") } else { String::new() };
        // The paper's thousands are 1,024.
        let differs = paper_weights > 0.0 && (weights as f64 / 1024.0 / paper_weights - 1.0).abs() > 0.03;
        rows.push([
            title.to_owned(),
            thousands(weights),
            format!("{:.1}K", weights as f64 / 1024.0),
            paper(paper_weights, "K"),
            format!("{:.1}M", macs as f64 / 1e6),
            paper(paper_macs, "M"),
            if differs { "differs".to_owned() } else { String::new() },
        ]);
    }
    table(out, ["GoogLeNet", "weights", "of 1,024", "paper", "multiply-adds", "paper", ""], rows)
}

// ANCHOR: sums
/// Weights and multiply-adds of a module's layers; of all layers, if none is named.
fn sums(summary: &Summary, module: &[&str]) -> (usize, usize) {
    let (mut weights, mut macs) = (0, 0);
    for layer in &summary.layers {
        let part = layer.name.split('.').next().unwrap_or_default();
        if module.is_empty() || module.contains(&part) {
            // A weight is used once at every place: the paper counts no biases.
            weights += layer.macs / layer.output[1..].iter().product::<usize>().max(1);
            macs += layer.macs;
        }
    }
    (weights, macs)
}
// ANCHOR_END: sums
