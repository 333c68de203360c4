use std::collections::{HashMap, HashSet};
use std::ops::Deref;

use convzoo_graph::{Graph, Node, Operation, Parameter, Quantized};

use crate::ExportError;
use crate::model::{Content, Model, Tensor};
use crate::proto::{attribute, attribute_type, data_type, dimension, graph as fields, node as node_fields};
use crate::proto::{shape, tensor_type, value_info, value_type};
use crate::wire::Message;

/// What becomes of batch norms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Norms {
    /// Those after convolutions become part of them: fewer operations, the same output.
    #[default]
    Folded,
    /// All stay, with every tensor of the state dict.
    Kept,
}

/// A network as an ONNX model, for batches of any size of the graph's images. `values` gives each parameter of the graph.
///
/// Tensors have the names of the state dict, operations those of their layers; a folded batch norm leaves its
/// convolution with a bias. The input is called `input`, `[batch, channels, height, width]`, the output `logits`.
///
/// # Errors
/// The graph has an opaque operation, or `values` lacks a parameter.
pub fn export<V: Deref<Target = [f32]>>(
    graph: &Graph,
    norms: Norms,
    values: impl FnMut(&Parameter) -> Option<V>,
) -> Result<Model<V>, ExportError> {
    let folded = if norms == Norms::Folded { folded(graph) } else { HashMap::new() };
    Exporter::new(graph, values, folded, Quantized::default()).model()
}

/// A network in bytes as an ONNX model, as [`export`] writes others with their norms folded.
///
/// Each value that is bytes is followed by a `QuantizeLinear` and a `DequantizeLinear`. Weights in bytes are signed, with a
/// `LAYER.weight_scale` for each output, and biases 32-bit integers with the scale of the products that they are added to;
/// both come through a `DequantizeLinear` of their own. Runtimes turn such pairs into operations on bytes.
///
/// # Errors
/// The graph has an opaque operation, or `values` lacks a parameter.
pub fn export_quantized<V: Deref<Target = [f32]>>(
    graph: &Graph,
    quantized: Quantized,
    values: impl FnMut(&Parameter) -> Option<V>,
) -> Result<Model<V>, ExportError> {
    Exporter::new(graph, values, folded(graph), quantized).model()
}

impl<V> Model<V> {
    /// The model with an entry of metadata: runtimes show those as `metadata_props`.
    pub fn with_metadata(mut self, key: &str, value: &str) -> Self {
        self.metadata.push((key.to_owned(), value.to_owned()));
        self
    }
}

/// The name of the images.
const INPUT: &str = "input";
/// The name of the network's output.
const OUTPUT: &str = "logits";

/// Convolutions by the batch norms that can be folded into them: the convolution's only user, of weights that no other
/// layer has.
fn folded(graph: &Graph) -> HashMap<usize, usize> {
    let (nodes, users) = (graph.nodes(), graph.users());
    let mut layers_of: HashMap<u64, usize> = HashMap::new();
    for parameter in nodes.iter().flat_map(|node| &node.parameters) {
        *layers_of.entry(parameter.id).or_default() += 1;
    }
    let own = |node: &Node| node.parameters.iter().all(|parameter| layers_of[&parameter.id] == 1);
    let foldable = |(number, node): (usize, &Node)| {
        let conv = *node.inputs.first()?;
        let is_pair = matches!(node.operation, Operation::BatchNorm2d { .. })
            && matches!(nodes[conv].operation, Operation::Conv2d { .. });
        (is_pair && users[conv] == [number] && own(&nodes[conv])).then_some((number, conv))
    };
    nodes.iter().enumerate().filter_map(foldable).collect()
}

/// A value of the graph's edge: its name and shape, the batch left open.
fn value(name: &str, dims: &[usize]) -> Message {
    let batch = Message::default().text(dimension::DIM_PARAM, "batch");
    let sizes = dims.iter().map(|size| Message::default().int(dimension::DIM_VALUE, *size as i64));
    let dims = std::iter::once(batch).chain(sizes);
    let shape = dims.fold(Message::default(), |shape, size| shape.message(shape::DIM, &size));
    let tensor = Message::default().int(tensor_type::ELEM_TYPE, i64::from(data_type::FLOAT));
    let kind = Message::default().message(value_type::TENSOR_TYPE, &tensor.message(tensor_type::SHAPE, &shape));
    Message::default().text(value_info::NAME, name).message(value_info::TYPE, &kind)
}

/// A model in the making.
pub(crate) struct Exporter<'a, V, F> {
    pub graph: &'a Graph,
    values: F,
    /// Convolutions by the batch norms that are folded into them.
    pub folded: HashMap<usize, usize>,
    /// What is computed in bytes; empty where all is floats.
    pub quantized: Quantized,
    /// The names of what bytes stand for, by the values that were rounded to them.
    pub rounded: HashMap<usize, String>,
    /// The names of the outputs of the graph's nodes so far.
    pub outputs: Vec<String>,
    fields: Message,
    tensors: Vec<Tensor<V>>,
    /// Names that are taken.
    names: HashSet<String>,
}

impl<'a, V: Deref<Target = [f32]>, F: FnMut(&Parameter) -> Option<V>> Exporter<'a, V, F> {
    fn new(graph: &'a Graph, values: F, folded: HashMap<usize, usize>, quantized: Quantized) -> Self {
        Self {
            graph,
            values,
            folded,
            quantized,
            rounded: HashMap::new(),
            outputs: Vec::with_capacity(graph.nodes().len()),
            fields: Message::default(),
            tensors: Vec::new(),
            names: HashSet::from([INPUT.to_owned(), OUTPUT.to_owned()]),
        }
    }

    fn model(mut self) -> Result<Model<V>, ExportError> {
        let graph = self.graph;
        for number in 0..graph.nodes().len() {
            let output = self.operation(number)?;
            self.outputs.push(output);
        }
        if let Some(last) = self.outputs.last().filter(|last| *last != OUTPUT).cloned() {
            self.node("Identity", &[&last], OUTPUT, Vec::new());
        }
        let fields = self
            .fields
            .text(fields::NAME, "network")
            .message(fields::INPUT, &value(INPUT, &graph.nodes()[0].shape))
            .message(fields::OUTPUT, &value(OUTPUT, &graph.output().shape));
        Ok(Model { graph: fields, tensors: self.tensors, metadata: Vec::new() })
    }

    /// The name for the output of a node of the graph: its layer's, where it has one.
    pub fn name(&mut self, number: usize) -> String {
        let node = &self.graph.nodes()[number];
        if number + 1 == self.graph.nodes().len() {
            return OUTPUT.to_owned();
        }
        let name = match node.name.as_str() {
            "" => format!("{}_{number}", node.operation.kind()),
            name => name.to_owned(),
        };
        match self.names.insert(name.clone()) {
            true => name,
            // A layer that is used twice.
            false => format!("{name}_{number}"),
        }
    }

    /// Adds an operation, called like its output.
    pub fn node(&mut self, operation: &str, inputs: &[&str], output: &str, attributes: Vec<Message>) {
        let node = Message::default()
            .texts(node_fields::INPUT, inputs.iter().copied())
            .text(node_fields::OUTPUT, output)
            .text(node_fields::NAME, output)
            .text(node_fields::OP_TYPE, operation);
        let node = attributes.iter().fold(node, |node, attribute| node.message(node_fields::ATTRIBUTE, attribute));
        self.fields = std::mem::take(&mut self.fields).message(fields::NODE, &node);
    }

    /// Adds sizes or places.
    pub fn integers(&mut self, name: String, values: Vec<i64>) -> String {
        let dims = vec![values.len()];
        self.tensor(name, dims, Content::Integers(values))
    }

    /// Adds a number; equal ones of the same name are one.
    pub fn scalar(&mut self, name: &str, value: f32) -> String {
        self.tensor(name.to_owned(), Vec::new(), Content::Made(vec![value]))
    }

    /// Adds numbers that are no parameters.
    pub fn floats(&mut self, name: String, dims: Vec<usize>, values: Vec<f32>) -> String {
        self.tensor(name, dims, Content::Made(values))
    }

    /// Adds a tensor, unless there is one of its name: layers may share theirs.
    pub fn tensor(&mut self, name: String, dims: Vec<usize>, content: Content<V>) -> String {
        if !self.has_tensor(&name) {
            self.tensors.push(Tensor { name: name.clone(), dims, content });
        }
        name
    }

    /// Whether there is a tensor of this name.
    pub fn has_tensor(&self, name: &str) -> bool {
        self.tensors.iter().any(|tensor| tensor.name == name)
    }

    /// Adds the parameters of a layer as they are, in their order.
    pub fn parameters(&mut self, number: usize) -> Result<Vec<String>, ExportError> {
        let graph = self.graph;
        let dims = |parameter: &Parameter| parameter.shape.clone();
        graph.nodes()[number].parameters.iter().map(|parameter| self.parameter(number, parameter, dims, None)).collect()
    }

    /// Adds the weight of a layer with these dimensions, its filters multiplied by factors where there are any.
    pub fn weight(
        &mut self,
        number: usize,
        dims: impl Fn(&Parameter) -> Vec<usize>,
        factors: Option<Vec<f32>>,
    ) -> Result<String, ExportError> {
        let graph = self.graph;
        match graph.nodes()[number].parameters.first() {
            Some(weight) => self.parameter(number, weight, dims, factors),
            None => Err(self.lacking(number)),
        }
    }

    fn parameter(
        &mut self,
        number: usize,
        parameter: &Parameter,
        dims: impl Fn(&Parameter) -> Vec<usize>,
        factors: Option<Vec<f32>>,
    ) -> Result<String, ExportError> {
        let dims = dims(parameter);
        let values = self.value(number, parameter)?;
        Ok(self.tensor(named(parameter), dims, Content::Weight(values, factors)))
    }

    /// The values of a parameter.
    pub fn value(&mut self, number: usize, parameter: &Parameter) -> Result<V, ExportError> {
        let values = (self.values)(parameter).filter(|values| values.len() == parameter.elements());
        values.ok_or_else(|| self.lacking(number))
    }

    /// The error of a layer without its weights.
    pub fn lacking(&self, node: usize) -> ExportError {
        ExportError::Weights { node, kind: self.graph.nodes()[node].operation.kind() }
    }
}

/// A parameter's name in the state dict, or one of its identity.
pub(crate) fn named(parameter: &Parameter) -> String {
    match parameter.name.as_str() {
        "" => format!("parameter_{}", parameter.id),
        name => name.to_owned(),
    }
}

/// An attribute that is an integer.
pub(crate) fn int(name: &str, value: i64) -> Message {
    kind(name, attribute_type::INT).int(attribute::I, value)
}

/// An attribute of several integers.
pub(crate) fn ints(name: &str, values: impl IntoIterator<Item = usize>) -> Message {
    kind(name, attribute_type::INTS).ints(attribute::INTS, values.into_iter().map(|value| value as i64))
}

/// An attribute that is a number.
pub(crate) fn float(name: &str, value: f64) -> Message {
    kind(name, attribute_type::FLOAT).float(attribute::F, value as f32)
}

fn kind(name: &str, kind: u32) -> Message {
    Message::default().text(attribute::NAME, name).int(attribute::TYPE, i64::from(kind))
}
