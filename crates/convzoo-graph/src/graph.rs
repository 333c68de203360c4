use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::{Builder, GraphError, Operation, ReceptiveField};

/// A network's operations in the order in which they run; the last one gives the output.
///
/// Every node's inputs come before it. Node 0 is the images.
///
/// Read from JSON, as it writes itself, it is built anew: shapes and multiply-adds are those of its operations, whatever the
/// text says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Graph {
    pub(crate) nodes: Vec<Node>,
}

/// An operation on the outputs of earlier nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// What it computes.
    pub operation: Operation,
    /// The nodes whose outputs it takes.
    pub inputs: Vec<usize>,
    /// The shape of its output without the batch: `[channels, height, width]` or `[features]`.
    pub shape: Vec<usize>,
    /// Multiply-adds for one image; only convolutions and linear layers are counted.
    pub macs: usize,
    /// The layer's name in the reference's state dict; empty where it is no layer.
    pub name: String,
    /// The identity of the layer in the module that the graph was recorded from.
    #[serde(skip)]
    pub layer: Option<u64>,
    /// Its weights and statistics. Two nodes share a weight where these have the same identity.
    pub parameters: Vec<Parameter>,
}

/// A tensor of a layer: a weight or a running statistic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameter {
    /// Its name in the reference's state dict.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Whether it is trained by gradients; running statistics are not.
    pub trainable: bool,
    /// The identity of the tensor in the module that the graph was recorded from.
    #[serde(skip)]
    pub id: u64,
}

/// A graph as it is written, unchecked.
#[derive(Deserialize)]
struct Written {
    nodes: Vec<Node>,
}

impl TryFrom<Written> for Graph {
    type Error = GraphError;

    fn try_from(Written { nodes }: Written) -> Result<Self, GraphError> {
        Self::rebuilt(nodes)
    }
}

impl Parameter {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

impl Node {
    pub(crate) fn new(operation: Operation, inputs: Vec<usize>, shape: Vec<usize>) -> Self {
        Self { operation, inputs, shape, macs: 0, name: String::new(), layer: None, parameters: Vec::new() }
    }

    /// Trainable parameters.
    pub fn params(&self) -> usize {
        self.parameters.iter().filter(|parameter| parameter.trainable).map(Parameter::elements).sum()
    }

    /// Number of elements of its output for one image.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

impl Graph {
    /// A graph of these operations, inputs, names and parameters; shapes and multiply-adds are computed.
    fn rebuilt(nodes: Vec<Node>) -> Result<Self, GraphError> {
        let fails = |node: usize, kind, reason: &str| GraphError::Shape { node, kind, reason: reason.to_owned() };
        let images = nodes.first().and_then(|images| <[usize; 3]>::try_from(images.shape.as_slice()).ok());
        let images = images.ok_or_else(|| fails(0, "Input", "images have channels, height and width"))?;
        let mut graph = Builder::new(images);
        let mut names = vec![String::new()];
        for (number, node) in nodes.into_iter().enumerate().skip(1) {
            if node.inputs.is_empty() || node.inputs.iter().any(|input| *input >= number) {
                return Err(fails(number, node.operation.kind(), "its inputs do not come before it"));
            }
            if !node.operation.is_sound(&node.parameters) {
                return Err(fails(number, node.operation.kind(), "its window, groups or parameters cannot be"));
            }
            graph.add_layer(node.operation, &node.inputs, node.layer, node.parameters);
            names.push(node.name);
        }
        let last = names.len() - 1;
        let mut graph = graph.finish(last)?;
        graph.nodes.iter_mut().zip(names).for_each(|(node, name)| node.name = name);
        Ok(graph)
    }

    /// The same network for another number of classes: its last convolution or linear layer, with what it needs for it.
    ///
    /// # Errors
    /// What follows that layer does not take so many.
    pub fn with_classes(mut self, classes: usize) -> Result<Self, GraphError> {
        let head = self.nodes.iter_mut().rev().find_map(|node| match &mut node.operation {
            Operation::Conv2d { outputs, .. } | Operation::Linear { outputs } => Some((outputs, &mut node.parameters)),
            _ => None,
        });
        if let Some((outputs, parameters)) = head {
            *outputs = classes;
            parameters.iter_mut().filter_map(|parameter| parameter.shape.first_mut()).for_each(|side| *side = classes);
        }
        Self::rebuilt(self.nodes)
    }

    /// The operations in the order in which they run.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node whose output is the network's.
    pub fn output(&self) -> &Node {
        self.nodes.last().expect("a graph has at least its images")
    }

    /// Channels, height and width of the images.
    pub fn input(&self) -> [usize; 3] {
        let shape = &self.nodes[0].shape;
        [shape[0], shape[1], shape[2]]
    }

    /// The nodes that are layers in the sense of summaries, with their numbers.
    pub fn layers(&self) -> impl Iterator<Item = (usize, &Node)> {
        self.nodes.iter().enumerate().filter(|(_, node)| node.operation.is_layer())
    }

    /// Names layers and parameters: `layers` and `parameters` by the identities in the module it was recorded from.
    pub fn named(mut self, layers: &HashMap<u64, String>, parameters: &HashMap<u64, String>) -> Self {
        for node in &mut self.nodes {
            node.name = node.layer.and_then(|layer| layers.get(&layer).cloned()).unwrap_or_default();
            for parameter in &mut node.parameters {
                parameter.name = parameters.get(&parameter.id).cloned().unwrap_or_default();
            }
        }
        self
    }

    /// The receptive field of each node's output.
    pub fn receptive_fields(&self) -> Vec<ReceptiveField> {
        let mut fields: Vec<ReceptiveField> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let inputs = node.inputs.iter().map(|input| fields[*input]);
            let joined = inputs.reduce(ReceptiveField::union).unwrap_or(ReceptiveField::PIXEL);
            fields.push(joined.through(&node.operation));
        }
        fields
    }

    /// The nodes that use each node's output.
    pub fn users(&self) -> Vec<Vec<usize>> {
        let mut users = vec![Vec::new(); self.nodes.len()];
        for (number, node) in self.nodes.iter().enumerate() {
            node.inputs.iter().for_each(|input| users[*input].push(number));
        }
        users
    }

    /// The node that gives the output of a layer or block, `layer2` or `features.5`: the last node of that name, and
    /// what follows it until the next layer starts (its sum, gate, concatenation, shuffle and activation).
    pub fn end_of(&self, name: &str) -> Option<usize> {
        let within =
            |layer: &str| layer.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        let last = self.nodes.iter().rposition(|node| within(&node.name))?;
        let follows = |node: &Node| {
            use Operation::*;
            let joins = matches!(
                node.operation,
                Add | Gate | Concat | ChannelShuffle { .. } | Activation(_) | Scale(_) | StochasticDepth { .. }
            );
            node.name.is_empty() && joins
        };
        Some(last + self.nodes[last + 1..].iter().take_while(|node| follows(node)).count())
    }
}
