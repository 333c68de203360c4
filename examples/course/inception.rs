//! What an Inception module costs, with and without 1×1 convolutions that reduce its channels first.

use std::io::Write;

use anyhow::Result;
use burn::tensor::Device;
use convzoo::blocks::{ConvUnit, ConvUnitConfig, InceptionConfig, Symbol};
use convzoo::graph::{Graph, GraphError, Node};

use super::show::{shape, table, thousands};

pub fn run(out: &mut dyn Write, device: &Device) -> Result<()> {
    let module = |config: &InceptionConfig| {
        let module = config.init(device);
        Symbol::record([256, 28, 28], |maps| module.forward(maps))
    };
    let naive = module(&InceptionConfig::naive(256, [128, 192, 96]))?;
    let reduced = module(&InceptionConfig::v1(256, [128, 64, 192, 64, 96, 64], 5))?;
    costs(out, "naive, on 256×28×28", &["1×1", "3×3", "5×5", "maximum"], &naive)?;
    let paths = ["1×1", "1×1 before 3×3", "3×3", "1×1 before 5×5", "5×5", "maximum", "1×1 after it"];
    costs(out, "with 1×1 reduction to 64", &paths, &reduced)?;
    let (naive, reduced) = (macs(&naive), macs(&reduced));
    writeln!(
        out,
        "{:.0} million against {:.0} million: {:.1} times fewer\n",
        million(naive),
        million(reduced),
        naive as f64 / reduced as f64
    )?;

    // One path alone: 32 filters of 5×5 on 192 channels, straight and through 16 channels.
    costs(out, "a path of 5×5, on 192×28×28", &["5×5"], &path(&[(192, 32, 5)], device)?)?;
    costs(out, "through 16 channels", &["1×1", "5×5"], &path(&[(192, 16, 1), (16, 32, 5)], device)?)
}

// ANCHOR: path
/// The graph of convolutions, each of inputs, outputs and size, one after another on 192 channels of 28×28.
fn path(layers: &[(usize, usize, usize)], device: &Device) -> Result<Graph, GraphError> {
    let conv = |(inputs, outputs, size): (usize, usize, usize)| {
        ConvUnitConfig::square(inputs, outputs, size).padded(size / 2).init(device)
    };
    let convs: Vec<ConvUnit> = layers.iter().copied().map(conv).collect();
    Symbol::record([192, 28, 28], |maps| convs.iter().fold(maps, |x, conv| conv.forward(x)))
}
// ANCHOR_END: path

/// Outputs and multiply-adds, layer by layer and in all.
fn costs(out: &mut dyn Write, title: &str, names: &[&str], graph: &Graph) -> Result<()> {
    let row = |(name, (_, node)): (&&str, (usize, &Node))| {
        [(*name).to_owned(), shape(&node.shape), thousands(node.params()), thousands(node.macs)]
    };
    let mut rows: Vec<_> = names.iter().zip(graph.layers()).map(row).collect();
    let params = graph.nodes().iter().map(Node::params).sum();
    rows.push(["in all".to_owned(), String::new(), thousands(params), thousands(macs(graph))]);
    table(out, [title, "output", "parameters", "multiply-adds"], rows)
}

fn macs(graph: &Graph) -> usize {
    graph.nodes().iter().map(|node| node.macs).sum()
}

fn million(macs: usize) -> f64 {
    macs as f64 / 1e6
}
