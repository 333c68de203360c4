use convzoo_blocks::graph::{Graph, ReceptiveField};
use serde::Serialize;

use crate::names::name_tree;
use crate::{Classifier, ModelError, record};

/// A network layer by layer, read from its graph.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Channels, height and width of the input.
    pub input: [usize; 3],
    /// Trainable parameters of the whole network, auxiliary classifiers included.
    pub params: usize,
    /// Multiply-adds of convolutions and linear layers for one image in inference.
    pub macs: usize,
    /// In the order of their calls.
    pub layers: Vec<LayerSummary>,
}

/// One layer of a [`Summary`].
#[derive(Debug, Clone, Serialize)]
pub struct LayerSummary {
    /// Its name in the reference's state dict.
    pub name: String,
    /// PyTorch's name for the kind of layer.
    pub kind: &'static str,
    /// Output shape without the batch.
    pub output: Vec<usize>,
    /// Trainable parameters.
    pub params: usize,
    /// Multiply-adds for one image.
    pub macs: usize,
    /// Height and width of the receptive field; `null` is all of the input.
    pub receptive_field: [Option<usize>; 2],
    /// Stride in pixels of the input, vertically and horizontally.
    pub receptive_stride: [usize; 2],
    /// Center of the first element's receptive field, in input coordinates.
    pub receptive_center: [f64; 2],
    /// Bytes of the output for one image in f32.
    pub activation_bytes: usize,
}

/// Summarizes `network` for an image of `input`, `[channels, height, width]`. Nothing is computed.
///
/// # Errors
/// The network does not take such images.
pub fn summarize<N: Classifier>(network: &N, input: [usize; 3]) -> Result<Summary, ModelError> {
    Ok(Summary::new(&network.graph(input)?, network))
}

/// [`summarize`] for the layers before the head: those of [`Classifier::forward_features`].
///
/// # Errors
/// The network does not take such images.
pub fn summarize_features<N: Classifier>(network: &N, input: [usize; 3]) -> Result<Summary, ModelError> {
    let graph = record(network, input, |images| network.forward_features(images))?;
    Ok(Summary::new(&graph, network))
}

impl Summary {
    /// Reads the graph of a network.
    pub fn new<N: Classifier>(graph: &Graph, network: &N) -> Self {
        let fields = graph.receptive_fields();
        let layers = graph.layers().map(|(number, node)| {
            let ReceptiveField { size, stride, center } = fields[number];
            LayerSummary {
                name: node.name.clone(),
                kind: node.operation.kind(),
                output: node.shape.clone(),
                params: node.params(),
                macs: node.macs,
                receptive_field: size,
                receptive_stride: stride,
                receptive_center: center,
                activation_bytes: node.elements() * size_of::<f32>(),
            }
        });
        let state = name_tree(network).state;
        let parameters = state.iter().filter(|entry| entry.parameter);
        Self {
            input: graph.input(),
            params: parameters.map(|entry| entry.shape.iter().product::<usize>()).sum(),
            macs: graph.nodes().iter().map(|node| node.macs).sum(),
            layers: layers.collect(),
        }
    }

    /// Bytes that inference on a batch needs at least, in f32: the weights and the two largest consecutive outputs.
    pub fn inference_bytes(&self, batch: usize) -> usize {
        let outputs = self.layers.windows(2).map(|pair| pair[0].activation_bytes + pair[1].activation_bytes);
        self.params * size_of::<f32>() + batch * outputs.max().unwrap_or(0)
    }

    /// Bytes that a training step with momentum needs at least, in f32: weights, gradients, momentum and all outputs.
    pub fn training_bytes(&self, batch: usize) -> usize {
        let outputs: usize = self.layers.iter().map(|layer| layer.activation_bytes).sum();
        3 * self.params * size_of::<f32>() + batch * outputs
    }
}
