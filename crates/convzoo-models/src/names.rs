use std::borrow::Cow;
use std::collections::HashMap;

use burn::module::{Flag, Module, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;
use regex::Regex;

/// How paths in the module tree become names in the reference's state dict: regular expressions and their
/// replacements, applied in order.
///
/// The tree cannot spell `features.0` or put a norm beside its convolution rather than inside their unit; one table
/// beside each family says what to write instead. It serves in both directions, since files are matched against the
/// names that the tree gives.
#[derive(Debug, Clone, Default)]
pub struct NameRules(Vec<(Cow<'static, str>, Cow<'static, str>)>);

impl NameRules {
    /// A table that is known beforehand.
    pub fn table(rules: &[(&'static str, &'static str)]) -> Self {
        Self(rules.iter().map(|&(from, to)| (from.into(), to.into())).collect())
    }

    /// Adds a rule.
    pub fn rule(mut self, from: impl Into<Cow<'static, str>>, to: impl Into<Cow<'static, str>>) -> Self {
        self.0.push((from.into(), to.into()));
        self
    }

    /// The same table for a module held in a field.
    pub(crate) fn inside(mut self, field: &str) -> Self {
        self.0.insert(0, (format!(r"^{field}\.").into(), "".into()));
        self
    }

    fn compile(&self) -> Vec<(Regex, &str)> {
        let regex = |from| Regex::new(from).expect("families write valid expressions, and tests use them all");
        self.0.iter().map(|(from, to)| (regex(from), &**to)).collect()
    }
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
    /// Layers by the id they are observed under.
    pub layers: HashMap<ParamId, String>,
}

/// Walks a module and spells its paths by `rules`.
pub(crate) fn name_tree<M: Module>(module: &M, rules: &NameRules) -> NamedTree {
    let mut walk = Walk::default();
    module.visit(&mut walk);
    let rules = rules.compile();
    let rename = |path: &str| {
        rules.iter().fold(path.to_owned(), |name, (from, to)| match from.replace(&name, *to) {
            Cow::Borrowed(_) => name,
            Cow::Owned(renamed) => renamed,
        })
    };
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
