use std::ops::Range;

use convzoo_blocks::Symbol;

use crate::{Classifier, ModelError, summarize};

/// Bytes that a training step with momentum needs at least, in f32, where its pass is on
/// [`Checkpointed`](convzoo_blocks::Checkpointed) images of `[channels, height, width]`: weights, gradients, momentum, the
/// outputs between the network's segments, and all those of the largest. `None` where the network has no segment, so that
/// nothing would be computed twice.
///
/// # Errors
/// The network does not take such images.
pub fn checkpointed_bytes<N: Classifier>(
    network: &N,
    input: [usize; 3],
    batch: usize,
) -> Result<Option<usize>, ModelError> {
    let (graph, segments) = Symbol::record_segments(input, |images| network.forward(images))?;
    let outputs = |nodes: Range<usize>| -> usize {
        let layers = graph.layers().filter(|(number, _)| nodes.contains(number));
        layers.map(|(_, node)| node.elements()).sum()
    };
    let inside: Vec<_> = segments.iter().cloned().map(outputs).collect();
    let Some(largest) = inside.iter().max() else { return Ok(None) };
    let ends = segments.iter().filter_map(|nodes| graph.nodes().get(nodes.end - 1));
    let between = outputs(0..graph.nodes().len()) - inside.iter().sum::<usize>();
    let kept = between + ends.map(|node| node.elements()).sum::<usize>() + largest;
    let summary = summarize(network, input)?;
    let bytes = size_of::<f32>() * (3 * summary.params + batch * kept);
    // That of a step without does not count concatenations, which some segments end in.
    Ok(Some(bytes.min(summary.training_bytes(batch))))
}
