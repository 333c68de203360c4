//! Transfer learning: what stays and what is trained when a network changes its task.

use std::io::Write;

use anyhow::{Context, Result};
use burn::tensor::Device;
use convzoo::{Classifier, Options, create};

use super::show::{table, thousands};

/// The digits that hands can sign.
const CLASSES: usize = 10;

pub fn run(out: &mut dyn Write, device: &Device) -> Result<()> {
    let mut rows = Vec::new();
    for name in ["squeezenet1_0", "resnet18", "vgg16", "densenet121"] {
        let network = create(name, &Options::default(), device)?;
        let before = network.summary(network.input())?;
        let network = network.replace_head(CLASSES);
        let after = network.summary(network.input())?;
        let weighted = |layer: &&convzoo::LayerSummary| matches!(layer.kind, "Conv2d" | "Linear");
        let head = after.layers.iter().rfind(weighted).context("a network has layers")?;
        rows.push([
            name.to_owned(),
            thousands(before.params),
            head.name.clone(),
            thousands(after.params - head.params),
            thousands(head.params),
        ]);
    }
    table(out, ["network", "for 1,000 classes", "its last layer", "kept", "new, for 10 classes"], rows)
}
