use std::borrow::Cow;
use std::collections::HashMap;

use burn::module::{Flag, Module, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;
use regex::Regex;

use convzoo_blocks::graph::Graph;

use crate::Classifier;

/// How paths in the module tree become names in the reference's state dict: regular expressions and their
/// replacements, applied in order.
///
/// The tree cannot spell `features.0` or put a norm beside its convolution rather than inside their unit; one table
/// beside each family says what to write instead. It serves in both directions, since files are matched against the
/// names that the tree gives.
#[derive(Debug, Clone, Default)]
pub struct NameRules {
    rules: Rules,
    older: Rules,
    optional: Vec<&'static str>,
}

/// Regular expressions and what replaces their first match.
type Rules = Vec<(Cow<'static, str>, Cow<'static, str>)>;

impl NameRules {
    /// A table that is known beforehand.
    pub fn table(rules: &[(&'static str, &'static str)]) -> Self {
        let rules = rules.iter().map(|&(from, to)| (from.into(), to.into())).collect();
        Self { rules, ..Self::default() }
    }

    /// Adds a rule.
    pub fn rule(mut self, from: impl Into<Cow<'static, str>>, to: impl Into<Cow<'static, str>>) -> Self {
        self.rules.push((from.into(), to.into()));
        self
    }

    /// Adds a rule for files: from the spelling that some are published with to the reference's.
    pub fn older(mut self, from: &'static str, to: &'static str) -> Self {
        self.older.push((from.into(), to.into()));
        self
    }

    /// Says that files may lack the layer of this name altogether, since only training uses it.
    pub fn optional(mut self, layer: &'static str) -> Self {
        self.optional.push(layer);
        self
    }

    /// The same table for a module held in a field.
    pub(crate) fn inside(mut self, field: &str) -> Self {
        self.rules.insert(0, (format!(r"^{field}\.").into(), "".into()));
        self
    }

    /// How the reference spells a name of a file.
    pub(crate) fn respelling(&self) -> impl Fn(&str) -> String + use<'_> {
        let rules = compile(&self.older);
        move |name| rename(&rules, name)
    }

    /// The layer, of those that files may lack, which the tensor of this name belongs to.
    pub(crate) fn optional_layer(&self, name: &str) -> Option<&'static str> {
        let within = |layer: &str| name.strip_prefix(layer).is_some_and(|rest| rest.starts_with('.'));
        self.optional.iter().copied().find(|layer| within(layer))
    }
}

fn compile(rules: &Rules) -> Vec<(Regex, &str)> {
    let regex = |from| Regex::new(from).expect("families write valid expressions, and tests use them all");
    rules.iter().map(|(from, to)| (regex(from), &**to)).collect()
}

fn rename(rules: &[(Regex, &str)], name: &str) -> String {
    rules.iter().fold(name.to_owned(), |name, (from, to)| match from.replace(&name, *to) {
        Cow::Borrowed(_) => name,
        Cow::Owned(renamed) => renamed,
    })
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
    /// Whether training changes it by gradients; running statistics are not.
    pub parameter: bool,
}

/// A module tree with the reference's names.
pub(crate) struct NamedTree {
    /// Every tensor, in the tree's order.
    pub state: Vec<StateEntry>,
    /// Layers by the ids of their tensors and flags.
    pub layers: HashMap<ParamId, String>,
}

/// Walks a module and spells its paths by `rules`.
pub(crate) fn name_tree<M: Module>(module: &M, rules: &NameRules) -> NamedTree {
    let mut walk = Walk::default();
    module.visit(&mut walk);
    let rules = compile(&rules.rules);
    let rename = |path: &str| rename(&rules, path);
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
    name_tree(network, &network.names()).layers
}

/// Names the layers and parameters of a graph that was recorded from `network`.
pub(crate) fn name_graph<N: Classifier>(network: &N, graph: Graph) -> Graph {
    let NamedTree { state, layers } = name_tree(network, &network.names());
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
