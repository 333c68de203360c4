use burn::tensor::Tensor;
use convzoo_blocks::graph::Graph;
use convzoo_blocks::{Observer, Step, observe};
use serde::Serialize;

use crate::{Classifier, ModelError, record};

/// Channels and stride of a feature map that a network can return besides its logits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FeatureInfo {
    /// The layer or block, by the reference's name.
    pub name: String,
    /// Channels of the feature map.
    pub channels: usize,
    /// Stride in pixels of the image, vertically and horizontally.
    pub reduction: [usize; 2],
}

/// What is known of the feature maps after `names`, layers or blocks such as `layer2`, for images of
/// `[channels, height, width]`.
///
/// # Errors
/// The network has no such layer, or does not take such images.
pub fn feature_info<N: Classifier>(
    network: &N,
    input: [usize; 3],
    names: &[&str],
) -> Result<Vec<FeatureInfo>, ModelError> {
    let graph = record(network, input, |images| network.forward_features(images))?;
    let fields = graph.receptive_fields();
    let info = |(name, node): (&&str, usize)| FeatureInfo {
        name: (*name).to_owned(),
        channels: graph.nodes()[node].shape[0],
        reduction: fields[node].stride,
    };
    Ok(names.iter().zip(nodes(&graph, names)?).map(info).collect())
}

/// The feature maps after `names`, layers or blocks such as `layer2` with what follows them (their sum, concatenation
/// and activation), `[batch, channels, height, width]` each, for heads of one's own: detection, segmentation.
///
/// The pass is observed: blocks run layer by layer and not in their fastest form. On an autodiff device the feature
/// maps are tracked, so that a head trains the network, too.
///
/// # Errors
/// The network has no such layer, or does not take such images.
pub fn features<N: Classifier>(network: &N, images: Tensor<4>, names: &[&str]) -> Result<Vec<Tensor<4>>, ModelError> {
    struct Keep {
        nodes: Vec<usize>,
        maps: Vec<Option<Tensor<4>>>,
    }

    impl Observer for Keep {
        fn output(&mut self, step: Step, output: Tensor<4>) -> Tensor<4> {
            for (node, map) in self.nodes.iter().zip(&mut self.maps) {
                if *node == step.node {
                    *map = Some(output.clone());
                }
            }
            output
        }
    }
    let [_, channels, height, width] = images.dims();
    let graph = record(network, [channels, height, width], |images| network.forward_features(images))?;
    let nodes = nodes(&graph, names)?;
    let mut keep = Keep { maps: vec![None; nodes.len()], nodes };
    observe(&mut keep, images, |images| network.forward_features(images));
    let map = |map: Option<Tensor<4>>| map.expect("a pass runs the operations of its graph");
    Ok(keep.maps.into_iter().map(map).collect())
}

/// The nodes that end these layers or blocks.
fn nodes(graph: &Graph, names: &[&str]) -> Result<Vec<usize>, ModelError> {
    let node = |name: &&str| {
        graph.end_of(name).ok_or_else(|| {
            let blocks = graph.layers().flat_map(|(_, node)| {
                let ends = node.name.match_indices('.').map(|(end, _)| node.name[..end].to_owned());
                ends.chain([node.name.clone()]).collect::<Vec<_>>()
            });
            let like = |known: &str| strsim::normalized_damerau_levenshtein(name, known);
            let mut nearest: Vec<String> = blocks.collect();
            nearest.sort_by(|a, b| like(b).total_cmp(&like(a)).then_with(|| a.cmp(b)));
            nearest.dedup();
            nearest.truncate(3);
            ModelError::Layer { layer: (*name).to_owned(), nearest }
        })
    };
    names.iter().map(node).collect()
}
