//! A network's weights in a file: by the names of the tensors, else by the structure of the network.

use std::collections::{BTreeMap, HashMap};

use convzoo_graph::{Graph, Node, Operation, Parameter};

use crate::layers::{Depth, FileLayer, GraphLayer, Kind, Operand, of_file, of_graph};
use crate::read::{Contents, Stored};

/// Where a network's parameters come from.
#[derive(Debug, Default)]
pub struct Weights {
    /// Shape and source of each parameter, by its name in the network. The shape is the file's where it does not fit.
    pub found: BTreeMap<String, (Vec<usize>, Source)>,
    /// Names of the tensors that layers of the file have and the network does not.
    pub unexpected: Vec<String>,
}

/// Where the values of a parameter come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// From a tensor of the file.
    Stored {
        /// The tensor.
        tensor: Stored,
        /// Whether it is the transposed matrix.
        transposed: bool,
    },
    /// One number for all.
    Filled(f32),
}

/// What tells layers without names apart.
type Key = (Kind, Vec<usize>, Depth);

impl Contents {
    /// The weights of the network with this graph. `respell` gives older names of tensors the network's.
    ///
    /// Layers are found by the names of their tensors; those without a known name are found by their place among the
    /// convolutions and linear layers and the dimensions of their weights. A batch norm that the exporter has folded into
    /// the convolution before it becomes one that adds that convolution's bias.
    pub fn weights(&self, graph: &Graph, respell: impl Fn(&str) -> String) -> Weights {
        let (layers, stored) = (of_graph(graph), of_file(self));
        let mut matching = Matching { file: self, graph, found: Weights::default() };
        let partners = matching.partners(&layers, &stored, respell);
        matching.take(&layers, &stored, &partners);
        matching.found
    }
}

struct Matching<'a> {
    file: &'a Contents,
    graph: &'a Graph,
    found: Weights,
}

impl Matching<'_> {
    /// The file's layer for each of the graph's, where there is one.
    fn partners(
        &mut self,
        layers: &[GraphLayer],
        stored: &[FileLayer],
        respell: impl Fn(&str) -> String,
    ) -> Vec<Option<usize>> {
        let mut partners: Vec<Option<usize>> = vec![None; layers.len()];
        // Which of a layer's parameters has a name, and which layer.
        let mut named: HashMap<(Kind, usize, &str), usize> = HashMap::new();
        for (number, layer) in layers.iter().enumerate() {
            for (place, parameter) in self.node(layer).parameters.iter().enumerate() {
                named.insert((layer.kind, place, parameter.name.as_str()), number);
            }
        }
        let mut unnamed: BTreeMap<Key, [Vec<usize>; 2]> = BTreeMap::new();
        let mut left = Vec::new();
        for (number, layer) in stored.iter().enumerate() {
            let by_name = layer.parameters.iter().enumerate().find_map(|(place, operand)| {
                let name = respell(self.file.names.name(operand.name));
                named.get(&(layer.kind, place, name.as_str())).copied()
            });
            match by_name {
                Some(partner) if partners[partner].is_none() => partners[partner] = Some(number),
                // The same layer, used once more.
                Some(_) => {}
                None => left.push(number),
            }
        }
        for number in left {
            let layer = &stored[number];
            let dims = layer.parameters.first().map(|weight| self.dims(weight)).unwrap_or_default();
            unnamed.entry((layer.kind, alike(layer.kind, &dims), layer.depth)).or_default()[1].push(number);
        }
        for (number, layer) in layers.iter().enumerate().filter(|(number, _)| partners[*number].is_none()) {
            let weight = self.node(layer).parameters.first();
            let dims = weight.map(|weight| alike(layer.kind, &weight.shape)).unwrap_or_default();
            unnamed.entry((layer.kind, dims, layer.depth)).or_default()[0].push(number);
        }
        for ((kind, ..), [own, theirs]) in unnamed {
            if own.len() == theirs.len() {
                // Layers that only their order tells apart: PyTorch's exporters keep that of the forward pass.
                own.into_iter().zip(theirs).for_each(|(own, theirs)| partners[own] = Some(theirs));
            } else if kind != Kind::Scale {
                // Files multiply by vectors in other places, too.
                let names = theirs.iter().filter_map(|number| stored[*number].parameters.first());
                self.found.unexpected.extend(names.map(|weight| self.file.names.name(weight.name).to_owned()));
            }
        }
        partners
    }

    /// Takes the parameters of all layers.
    fn take(&mut self, layers: &[GraphLayer], stored: &[FileLayer], partners: &[Option<usize>]) {
        let users = self.graph.users();
        let (file, graph) = (self.file, self.graph);
        // Batch norms that the file does not have, by the nodes they follow.
        let mut folded: HashMap<usize, &Node> = HashMap::new();
        for (layer, partner) in layers.iter().zip(partners) {
            let node = &graph.nodes()[layer.node];
            if let (Operation::BatchNorm2d { .. }, None, [conv]) = (&node.operation, partner, node.inputs.as_slice())
                && users[*conv] == [layer.node]
            {
                folded.insert(*conv, node);
            }
        }
        for (layer, partner) in layers.iter().zip(partners) {
            let node = &graph.nodes()[layer.node];
            let Some(partner) = partner else { continue };
            let operands = &stored[*partner].parameters;
            for (parameter, operand) in node.parameters.iter().zip(operands) {
                self.put(layer.kind, parameter, operand);
            }
            let norm = folded.get(&layer.node).filter(|_| layer.kind == Kind::Weighted && operands.len() == 2);
            if let Some(norm) = norm {
                let own_bias = node.parameters.len() == 2;
                self.fill(norm, operands.get(1).filter(|_| !own_bias));
                continue;
            }
            let beyond = operands.iter().skip(node.parameters.len());
            self.found.unexpected.extend(beyond.map(|operand| file.names.name(operand.name).to_owned()));
        }
    }

    /// Takes a parameter from a tensor of the file.
    fn put(&mut self, kind: Kind, parameter: &Parameter, operand: &Operand) {
        let Some(tensor) = self.file.tensor_of(operand.tensor) else { return };
        let dims = self.dims(operand);
        let shape = if alike(kind, &dims) == alike(kind, &parameter.shape) { parameter.shape.clone() } else { dims };
        let transposed = operand.transposed && tensor.dims.len() == 2;
        let source = Source::Stored { tensor: tensor.clone(), transposed };
        self.found.found.insert(parameter.name.clone(), (shape, source));
    }

    /// Makes a batch norm the identity, or the addition of a bias.
    fn fill(&mut self, norm: &Node, bias: Option<&Operand>) {
        let Operation::BatchNorm2d { epsilon } = norm.operation else { return };
        // With ε added the variance is 1.
        let identity = [1.0, 0.0, 0.0, (1.0 - epsilon) as f32];
        for (parameter, value) in norm.parameters.iter().zip(identity) {
            let filled = (parameter.shape.clone(), Source::Filled(value));
            self.found.found.insert(parameter.name.clone(), filled);
        }
        if let (Some(bias), Some(parameter)) = (bias, norm.parameters.get(1)) {
            self.put(Kind::BatchNorm, parameter, bias);
        }
    }

    fn node(&self, layer: &GraphLayer) -> &Node {
        &self.graph.nodes()[layer.node]
    }

    /// Dimensions of a tensor as an operation takes it.
    fn dims(&self, operand: &Operand) -> Vec<usize> {
        match self.file.tensor_of(operand.tensor).map(|tensor| tensor.dims.as_slice()) {
            Some(&[rows, columns]) if operand.transposed => vec![columns, rows],
            dims => dims.unwrap_or_default().to_vec(),
        }
    }
}

/// Dimensions as far as they tell: a linear layer's are those of a convolution of one pixel, a vector's its elements.
fn alike(kind: Kind, dims: &[usize]) -> Vec<usize> {
    match (kind, dims) {
        (Kind::Weighted, [outputs, inputs]) => vec![*outputs, *inputs, 1, 1],
        (Kind::Weighted, dims) => dims.to_vec(),
        (_, dims) => dims.iter().copied().filter(|size| *size != 1).collect(),
    }
}
