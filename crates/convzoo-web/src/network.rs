use convzoo_data::{Filter, Image, Preprocess};
use convzoo_graph::Graph;
use convzoo_kernels::engine::{CompiledNetwork, compile};
use convzoo_kernels::{Precision, Values};
use serde::{Deserialize, Serialize};

use crate::error::within;
use crate::{WebError, Weights};

/// What `convzoo draw NETWORK -o NETWORK.json` says of a network, as far as it is read here.
#[derive(Clone, Debug, Deserialize)]
pub struct Description {
    /// Its name.
    pub model: String,
    /// How images become its input.
    pub preprocessing: Preparation,
    /// Its operations.
    pub graph: Graph,
}

/// How an image becomes a network's input.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Preparation {
    /// Height and width of the input.
    pub size: [usize; 2],
    /// The shorter side before the crop.
    pub resize: Option<usize>,
    /// How it is resized.
    pub interpolation: Interpolation,
    /// The mean of each channel.
    pub mean: [f32; 3],
    /// The standard deviation of each channel.
    pub std: [f32; 3],
}

/// How an image is resized.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// Linearly.
    Bilinear,
    /// By cubics.
    Bicubic,
}

/// A network with its weights.
pub struct Network {
    /// Its operations.
    pub graph: Graph,
    preparation: Preparation,
    weights: Weights,
    /// The network, compiled.
    whole: CompiledNetwork,
    /// The last part of it that was asked for, up to a node.
    part: Option<(usize, CompiledNetwork)>,
}

/// A prediction of one image.
pub struct Prediction {
    /// Before softmax, `[classes]`.
    pub logits: Vec<f32>,
    /// Softmax of them.
    pub probabilities: Vec<f32>,
}

impl Network {
    /// Puts a description and weights together. The number of classes is taken from the weights.
    ///
    /// # Errors
    /// The weights are not those of the network.
    pub fn new(description: Description, weights: Weights) -> Result<Self, WebError> {
        let Description { model, preprocessing, mut graph } = description;
        if let Some(classes) = classes(&graph, &weights) {
            graph = graph.with_classes(classes)?;
        }
        check(&model, &graph, &weights)?;
        let whole = engine(&graph, graph.nodes().len() - 1, &weights)?;
        let preparation = weights.about.as_ref().and_then(|about| about.preprocessing).unwrap_or(preprocessing);
        Ok(Self { graph, preparation, weights, whole, part: None })
    }

    /// What an image looks like at the size of the network's input, `fitted`, and the input itself.
    pub fn prepare(&self, image: &Image) -> (Image, Vec<f32>) {
        let Preparation { size, resize, interpolation, mean, std } = self.preparation;
        let filter = match interpolation {
            Interpolation::Bilinear => Filter::Bilinear,
            Interpolation::Bicubic => Filter::Bicubic,
        };
        let preprocess = Preprocess::for_network(self.graph.input(), size, resize, image);
        let preprocess = preprocess.with_filter(filter).normalized(mean, std);
        let fitted = preprocess.fitted(image);
        let mut input = Vec::new();
        preprocess.normalize(&fitted, &mut input);
        (fitted, input)
    }

    /// The classes of an input `[channels, height, width]`.
    ///
    /// # Errors
    /// The network does not take it.
    pub fn predict(&self, input: &[f32]) -> Result<Prediction, WebError> {
        let [channels, height, width] = self.graph.input();
        let logits = self.whole.run([1, channels, height, width], input)?.values;
        let probabilities = softmax(&logits);
        Ok(Prediction { logits, probabilities })
    }

    /// The output of a node, `[channels, height, width]` or `[features]`.
    ///
    /// # Errors
    /// There is no such node, or the network does not take the input.
    pub fn output(&mut self, node: usize, input: &[f32]) -> Result<Vec<f32>, WebError> {
        within("node", node, self.graph.nodes().len())?;
        if node == 0 {
            return Ok(input.to_vec());
        }
        let part = match self.part.take().filter(|(end, _)| *end == node) {
            Some(part) => part,
            None => (node, engine(&self.graph, node, &self.weights)?),
        };
        let [channels, height, width] = self.graph.input();
        let output = part.1.run([1, channels, height, width], input)?.values;
        self.part = Some(part);
        Ok(output)
    }

    /// A parameter of a node by its place among the node's: the weight first.
    pub fn parameter(&self, node: usize, place: usize) -> Option<&[f32]> {
        let name = &self.graph.nodes().get(node)?.parameters.get(place)?.name;
        self.weights.tensors.get(name).map(|tensor| &*tensor.values)
    }
}

/// Compiles a graph for inference, up to a node.
fn engine(graph: &Graph, node: usize, weights: &Weights) -> Result<CompiledNetwork, WebError> {
    let values = |parameter: &convzoo_graph::Parameter| -> Option<Values> {
        weights.tensors.get(&parameter.name).map(|tensor| tensor.values.clone())
    };
    Ok(compile(graph, node, Precision::F32, values)?)
}

/// The classes that weights are for: what the last layer with weights has outputs.
fn classes(graph: &Graph, weights: &Weights) -> Option<usize> {
    let head = graph.nodes().iter().rev().find(|node| node.macs > 0)?;
    weights.tensors.get(&head.parameters.first()?.name)?.shape.first().copied()
}

/// Refuses weights that lack a tensor of the network, or have one of another shape.
fn check(model: &str, graph: &Graph, weights: &Weights) -> Result<(), WebError> {
    let problem = |parameter: &convzoo_graph::Parameter| match weights.tensors.get(&parameter.name) {
        None => Some(format!("there is no '{}'", parameter.name)),
        Some(tensor) if tensor.shape != parameter.shape => {
            Some(format!("'{}' is {:?} and not {:?}", parameter.name, tensor.shape, parameter.shape))
        }
        Some(_) => None,
    };
    let problems = graph.nodes().iter().flat_map(|node| &node.parameters).filter_map(problem);
    let problems: Vec<String> = problems.take(3).collect();
    match problems.is_empty() {
        true => Ok(()),
        false => Err(WebError::Weights { model: model.to_owned(), problem: problems.join(", ") }),
    }
}

/// Probabilities of logits.
pub(crate) fn softmax(logits: &[f32]) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = logits.iter().map(|logit| (logit - largest).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}
