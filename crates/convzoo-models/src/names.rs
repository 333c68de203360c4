//! From paths in the module tree to names in the reference's state dict.
//!
//! The tree cannot spell `features.0` or put a norm beside its convolution rather than inside their unit;
//! [`Classifier::reference_name`] says what to write instead. It serves in both directions, since files are matched
//! against the names that the tree gives.

use std::collections::HashMap;

use burn::module::{Flag, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;
use convzoo_blocks::graph::Graph;

use crate::Classifier;

/// The name of a tensor in a layer: `["layer1", "0"]` and `weight` to `layer1.0.weight`.
pub(crate) fn rename(layer: &[&str], tensor: &str) -> String {
    match layer {
        [] => tensor.to_owned(),
        _ => format!("{}.{tensor}", layer.join(".")),
    }
}

/// The number that a part of a path ends with: 3 of `3` and of `conv3`; 0 where there is none.
pub(crate) fn index(part: &str) -> usize {
    let digits = part.trim_start_matches(|letter: char| !letter.is_ascii_digit());
    digits.parse().unwrap_or(0)
}

/// The place of a unit's part in a sequence of convolution and norm: 0 or 1.
pub(crate) fn place(part: &str) -> usize {
    usize::from(part == "norm")
}

/// A module's number as a letter: `a` for 0.
pub(crate) fn letter(number: &str) -> char {
    char::from(b'a' + index(number) as u8)
}

/// A path whose norms are called `bn`.
pub(crate) fn bn(path: &[&str]) -> String {
    let parts: Vec<&str> = path.iter().map(|part| if *part == "norm" { "bn" } else { part }).collect();
    parts.join(".")
}

/// One tensor of a network's state.
#[derive(Debug, Clone)]
pub struct StateEntry {
    /// Its name in the reference's state dict.
    pub name: String,
    /// Its path in the module tree, enum variants left out.
    pub path: String,
    /// Its identity.
    pub id: ParamId,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Whether it is trained by gradients; running statistics are not.
    pub parameter: bool,
}

/// A module tree with the reference's names.
pub(crate) struct NamedTree {
    /// Every tensor, in the tree's order.
    pub state: Vec<StateEntry>,
    /// Layers by the ids of their tensors and flags.
    pub layers: HashMap<ParamId, String>,
}

/// Visits a network and gives its paths the reference's names.
pub(crate) fn name_tree<N: Classifier>(network: &N) -> NamedTree {
    let mut walk = Walk::default();
    network.visit(&mut walk);
    let rename = |path: &str| network.reference_name(&path.split('.').collect::<Vec<_>>());
    let layer_of = |name: &str| name.rsplit_once('.').map_or("", |(layer, _)| layer).to_owned();

    let mut layers = HashMap::new();
    for (path, id) in &walk.flags {
        layers.insert(*id, layer_of(&rename(path)));
    }
    let mut state = walk.state;
    for entry in &mut state {
        entry.name = rename(&entry.path);
        layers.insert(entry.id, layer_of(&entry.name));
    }
    NamedTree { state, layers }
}

/// The layer, in the reference's names, that each tensor and flag of `network` belongs to.
pub fn layer_names<N: Classifier>(network: &N) -> HashMap<ParamId, String> {
    name_tree(network).layers
}

/// The name, in the reference's state dict, of each tensor of `network`.
pub fn tensor_names<N: Classifier>(network: &N) -> HashMap<ParamId, String> {
    name_tree(network).state.into_iter().map(|entry| (entry.id, entry.name)).collect()
}

/// The layer, of those that files may lack, which the tensor of this name belongs to.
pub(crate) fn optional_layer<N: Classifier>(network: &N, name: &str) -> Option<&'static str> {
    let within = |layer: &str| name.strip_prefix(layer).is_some_and(|rest| rest.starts_with('.'));
    network.optional_layers().iter().copied().find(|layer| within(layer))
}

/// Names the layers and parameters of a graph that was recorded from `network`.
pub(crate) fn name_graph<N: Classifier>(network: &N, graph: Graph) -> Graph {
    let NamedTree { state, layers } = name_tree(network);
    let layers = layers.into_iter().map(|(id, name)| (id.val(), name)).collect();
    let parameters = state.into_iter().map(|entry| (entry.id.val(), entry.name)).collect();
    graph.named(&layers, &parameters)
}

#[derive(Default)]
struct Walk {
    path: Vec<String>,
    state: Vec<StateEntry>,
    flags: Vec<(String, ParamId)>,
}

impl ModuleVisitor for Walk {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        if !container_type.starts_with("Enum:") {
            self.path.push(name.to_owned());
        }
    }

    fn exit_module(&mut self, _name: &str, container_type: &str) {
        if !container_type.starts_with("Enum:") {
            self.path.pop();
        }
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        self.state.push(StateEntry {
            name: String::new(),
            parameter: !path.ends_with("running_mean") && !path.ends_with("running_var"),
            path,
            id: param.id,
            shape: param.lazy_shape().to_vec(),
        });
    }

    fn visit_flag(&mut self, flag: &Param<Flag>) {
        self.flags.push((self.path.join("."), flag.id));
    }
}
