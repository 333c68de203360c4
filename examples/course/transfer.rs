//! Transfer learning: what stays and what is trained when a network changes its task.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use burn::tensor::Device;
use convzoo::report::Bars;
use convzoo::{Classifier, Options, Summary, create};

use super::activations::save;
use super::show::{table, thousands};

/// The digits that hands can sign.
const CLASSES: usize = 10;

pub fn run(pictures: Option<&Path>, out: &mut dyn Write, device: &Device) -> Result<()> {
    let mut chart = Bars::new("parameters that are kept, and new ones", "million", ["kept", "new"]);
    let mut rows = Vec::new();
    for name in ["squeezenet1_0", "resnet18", "vgg16", "densenet121"] {
        let [before, after] = replaced(name, device)?;
        let weighted = |layer: &&convzoo::LayerSummary| matches!(layer.kind, "Conv2d" | "Linear");
        let head = after.layers.iter().rfind(weighted).context("a network has layers")?;
        let [kept, new] = [after.params - head.params, head.params].map(|params| params as f64 / 1e6);
        chart = chart.group(name, [Some(kept), Some(new)]);
        rows.push([
            name.to_owned(),
            thousands(before.params),
            head.name.clone(),
            thousands(after.params - head.params),
            thousands(head.params),
        ]);
    }
    table(out, ["network", "for 1,000 classes", "its last layer", "kept", "new, for 10 classes"], rows)?;
    save(pictures, "transfer.svg", &chart)
}

// ANCHOR: replaced
/// A network before and after its last layer is replaced by a new one for ten classes.
fn replaced(name: &str, device: &Device) -> Result<[Summary; 2]> {
    let network = create(name, &Options::default(), device)?;
    let before = network.summary(network.input())?;
    let network = network.replace_head(CLASSES);
    let after = network.summary(network.input())?;
    Ok([before, after])
}
// ANCHOR_END: replaced
