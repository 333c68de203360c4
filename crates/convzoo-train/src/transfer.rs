use std::collections::{HashMap, HashSet};

use burn::lr_scheduler::constant::ConstantLr;
use burn::lr_scheduler::module_lr_scheduler::{ModuleLearningRate, ModuleLrScheduler};
use burn::module::{Flag, Module, ModuleMapper, Param, ParamGroup, ParamId};
use burn::tensor::Tensor;
use convzoo_models::{Classifier, layer_names, summarize, summarize_features};
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// Transfer learning: which layers of a trained network are trained further, and at which learning rates.
///
/// Layers stand in *stages*, in the order that images pass them: all whose names agree up to the first part with a
/// number, such as `layer3` of a ResNet or `features.5` of a SqueezeNet, with the norms after a convolution in its stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Transfer {
    /// The layer or block, named as `convzoo summary` names it, up to which all weights stay as they are, or `backbone`
    /// for all before the head. Batch norms there keep their statistics, and dropout in stages that are
    /// frozen as a whole is off: a frozen layer computes as in evaluation.
    pub freeze: Option<String>,
    /// Gradual unfreezing ([Howard and Ruder, 2018](https://arxiv.org/abs/1801.06146)): the last frozen stage thaws
    /// after this many epochs, the one before it after as many again, and so on.
    pub unfreeze_every: Option<usize>,
    /// What the rate of each stage is, as a share of that of the stage after it; 1 for the same rate everywhere.
    pub layer_decay: f64,
}

impl Default for Transfer {
    fn default() -> Self {
        Self { freeze: None, unfreeze_every: None, layer_decay: 1.0 }
    }
}

/// Every layer before the head.
const BACKBONE: &str = "backbone";

impl Transfer {
    /// Refuses what makes no sense for any network.
    pub fn check(&self) -> Result<(), TrainError> {
        let refuse = |field, value: String, expected| Err(TrainError::Recipe { field, value, expected });
        match self {
            Self { layer_decay: decay, .. } if !(*decay > 0.0 && *decay <= 1.0) => {
                refuse("transfer.layer_decay", decay.to_string(), "above 0 and at most 1")
            }
            Self { unfreeze_every: Some(0), .. } => refuse("transfer.unfreeze_every", "0".to_owned(), "at least 1"),
            Self { unfreeze_every: Some(epochs), freeze: None, .. } => {
                refuse("transfer.unfreeze_every", epochs.to_string(), "used with transfer.freeze")
            }
            _ => Ok(()),
        }
    }

    /// Whether all before the head is frozen throughout.
    pub fn freezes_backbone(&self) -> bool {
        self.freeze.as_deref() == Some(BACKBONE) && self.unfreeze_every.is_none()
    }

    /// What it means for `network`, for images of `input`, `[channels, height, width]`.
    pub(crate) fn plan<N: Classifier>(&self, network: &N, input: [usize; 3]) -> Result<Plan, TrainError> {
        let layers = summarize(network, input)?.layers;
        let names: Vec<&str> = layers.iter().map(|layer| layer.name.as_str()).collect();
        let frozen = match self.freeze.as_deref() {
            None => 0,
            Some(BACKBONE) => summarize_features(network, input)?.layers.len(),
            Some(name) => {
                let within =
                    |layer: &str| layer.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
                names.iter().rposition(|layer| within(layer)).map_or(0, |last| last + 1)
            }
        };
        if let (Some(name), 0) = (&self.freeze, frozen) {
            return Err(unknown(name, &names));
        }
        let frozen: HashSet<&str> = names.iter().copied().take(frozen).collect();

        let mut stages: Vec<Stage> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for layer in &layers {
            let name = stage_of(&layer.name);
            // Norms and what has no parameters go with what they follow.
            let follows = layer.params == 0 || layer.kind.starts_with("BatchNorm");
            let at = match places.get(name) {
                Some(&at) => at,
                None if follows && !stages.is_empty() => stages.len() - 1,
                None => {
                    stages.push(Stage { ids: Vec::new(), whole: true });
                    stages.len() - 1
                }
            };
            places.insert(name, at);
            stages[at].whole &= layer.params == 0 || frozen.contains(layer.name.as_str());
        }
        let summarized: HashSet<&str> = names.iter().copied().collect();
        for (id, layer) in layer_names(network) {
            let Some(&at) = places.get(stage_of(&layer)) else { continue };
            let stage = &mut stages[at];
            // Dropout and the like are in no summary, and go with their stage.
            let unseen = !summarized.contains(layer.as_str());
            stage.ids.push((id, frozen.contains(layer.as_str()) || unseen && stage.whole));
        }
        stages.retain(|stage| !stage.ids.is_empty());
        Ok(Plan { stages, unfreeze_every: self.unfreeze_every, layer_decay: self.layer_decay })
    }
}

/// A layer's name up to its first part with a number.
fn stage_of(layer: &str) -> &str {
    let mut end = 0;
    for part in layer.split('.') {
        end += part.len();
        if part.contains(|letter: char| letter.is_ascii_digit()) {
            return &layer[..end];
        }
        end += 1;
    }
    layer
}

fn unknown(name: &str, layers: &[&str]) -> TrainError {
    let blocks = layers.iter().flat_map(|layer| {
        let ends = layer.match_indices('.').map(|(end, _)| &layer[..end]);
        ends.chain([*layer]).collect::<Vec<_>>()
    });
    let near = |known: &str| strsim::normalized_damerau_levenshtein(name, known);
    let mut nearest: Vec<&str> = blocks.collect();
    nearest.sort_by(|a, b| near(b).total_cmp(&near(a)).then(a.cmp(b)));
    nearest.dedup();
    let nearest = nearest.into_iter().take(3).map(str::to_owned).collect();
    TrainError::Layer { name: name.to_owned(), nearest }
}

/// A network's stages, and what becomes of each.
pub(crate) struct Plan {
    /// From the images to the classes.
    stages: Vec<Stage>,
    unfreeze_every: Option<usize>,
    layer_decay: f64,
}

struct Stage {
    /// Its tensors and flags, and whether each is frozen at first.
    ids: Vec<(ParamId, bool)>,
    /// Whether all its layers are frozen at first.
    whole: bool,
}

impl Plan {
    /// `module` with what is frozen in `epoch`, counted from 1, and the rest learning.
    pub fn freeze<M: Module>(&self, module: M, epoch: usize) -> M {
        let frozen = self.frozen(epoch);
        if self.frozen(1).is_empty() {
            return module;
        }
        module.map(&mut Freeze { frozen })
    }

    fn frozen(&self, epoch: usize) -> HashSet<ParamId> {
        let thawed = self.unfreeze_every.map_or(0, |every| (epoch - 1) / every);
        let ids = |stage: &Stage| stage.ids.iter().filter(|(_, frozen)| *frozen).map(|(id, _)| *id).collect::<Vec<_>>();
        let frozen: Vec<_> = self.stages.iter().map(ids).filter(|ids| !ids.is_empty()).collect();
        let left = frozen.len().saturating_sub(thawed);
        frozen.into_iter().take(left).flatten().collect()
    }

    /// Each parameter's rate where the last stage has `rate`.
    pub fn rates(&self, rate: f64) -> ModuleLearningRate {
        if self.layer_decay == 1.0 {
            return rate.into();
        }
        let mut scheduler = ModuleLrScheduler::new(ConstantLr::new(rate));
        for (after, stage) in self.stages.iter().rev().enumerate().skip(1) {
            let ids = stage.ids.iter().map(|(id, _)| *id).collect();
            let rate = rate * self.layer_decay.powi(after as i32);
            scheduler = scheduler.with_group(ParamGroup::from_ids(ids), ConstantLr::new(rate));
        }
        scheduler.step()
    }
}

struct Freeze {
    frozen: HashSet<ParamId>,
}

impl ModuleMapper for Freeze {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let learns = !self.frozen.contains(&param.id);
        param.set_require_grad(learns)
    }

    fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
        let learns = !self.frozen.contains(&flag.id);
        flag.with_value(learns)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};
    use convzoo_models::{Network, Options, create};

    use super::*;

    fn network(name: &str) -> Network {
        create(name, &Options::default(), &Device::flex().autodiff()).unwrap()
    }

    fn plan(network: &Network, transfer: Transfer) -> Result<Plan, TrainError> {
        transfer.plan(network, network.input())
    }

    fn freezing(layer: &str) -> Transfer {
        Transfer { freeze: Some(layer.to_owned()), ..Transfer::default() }
    }

    /// The layers whose weights are trained.
    fn learning(network: &Network, plan: &Plan, epoch: usize) -> Vec<String> {
        let frozen = plan.frozen(epoch);
        let state = network.state().into_iter().filter(|entry| entry.parameter && !frozen.contains(&entry.id));
        let mut layers: Vec<_> = state.map(|entry| entry.name.rsplit_once('.').unwrap().0.to_owned()).collect();
        layers.dedup();
        layers
    }

    #[test]
    fn layers_freeze_up_to_the_one_that_is_named() {
        let lenet = network("lenet5");
        let plan = |network, layer| plan(network, freezing(layer)).unwrap();
        assert_eq!(learning(&lenet, &plan(&lenet, "c3"), 1), ["c5", "f6", "output"]);
        let squeezenet = network("squeezenet1_0");
        for name in ["features.12", "features.12.expand3x3", "features", "backbone"] {
            assert_eq!(learning(&squeezenet, &plan(&squeezenet, name), 1), ["classifier.1"], "{name}");
        }
        let left = learning(&squeezenet, &plan(&squeezenet, "features.12.squeeze"), 1);
        assert_eq!(left, ["features.12.expand1x1", "features.12.expand3x3", "classifier.1"]);
        let resnet = network("resnet20_cifar");
        assert_eq!(learning(&resnet, &plan(&resnet, "backbone"), 1), ["linear"]);
        assert_eq!(learning(&resnet, &plan(&resnet, "layer3.2.conv1"), 1)[0], "layer3.2.bn1");
    }

    #[test]
    fn unknown_layers_suggest_the_nearest() {
        let network = network("resnet20_cifar");
        let told = plan(&network, freezing("layer4")).err().unwrap().to_string();
        assert!(told.contains("'layer4'") && told.contains("layer1") && told.contains("backbone"), "{told}");
        assert!(plan(&network, freezing("layer")).is_err(), "part of a name is no layer");
    }

    #[test]
    fn stages_thaw_from_the_last_one_on() {
        let network = network("resnet20_cifar");
        let transfer = Transfer { unfreeze_every: Some(2), ..freezing("backbone") };
        let plan = plan(&network, transfer).unwrap();
        let first = |epoch| learning(&network, &plan, epoch)[0].clone();
        let firsts: Vec<_> = (1..=10).map(first).collect();
        let stages = ["linear", "layer3.0.conv1", "layer2.0.conv1", "layer1.0.conv1", "conv1"];
        assert_eq!(firsts, stages.map(|stage| [stage, stage]).concat());
    }

    #[test]
    fn frozen_layers_keep_weights_and_statistics_and_have_no_gradients() {
        let device = Device::flex().autodiff();
        let network = network("resnet20_cifar");
        let plan = plan(&network, freezing("layer1")).unwrap();
        let network = plan.freeze(network, 1);
        let state = |network: &Network| {
            let mut values = Values(Vec::new());
            network.valid().visit(&mut values);
            values.0
        };
        let before = state(&network);
        let logits = network.forward(Tensor::random([4, 3, 32, 32], burn::tensor::Distribution::Default, &device));
        let gradients = logits.sum().backward();
        let frozen = plan.frozen(1);
        let mut with_gradients = WithGradients { gradients: &gradients, ids: HashSet::new() };
        network.visit(&mut with_gradients);
        let parameters: HashSet<_> =
            network.state().into_iter().filter(|entry| entry.parameter).map(|entry| entry.id).collect();
        let expected: HashSet<_> = parameters.difference(&frozen).copied().collect();
        assert_eq!(with_gradients.ids, expected, "other parameters have gradients than those that are trained");
        let mut moved = 0;
        for ((id, before), (_, after)) in before.iter().zip(state(&network)) {
            assert!(!frozen.contains(id) || *before == after, "a frozen layer's state has changed");
            moved += usize::from(*before != after);
        }
        assert_eq!(moved, 2 * 12, "mean and variance of the norms after layer1 follow the batch");
    }

    struct Values(Vec<(ParamId, Vec<f32>)>);

    impl burn::module::ModuleVisitor for Values {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push((param.id, param.val().try_into_vec_as().unwrap()));
        }
    }

    struct WithGradients<'a> {
        gradients: &'a burn::tensor::Gradients,
        ids: HashSet<ParamId>,
    }

    impl burn::module::ModuleVisitor for WithGradients<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.val().grad(self.gradients).is_some() {
                self.ids.insert(param.id);
            }
        }
    }

    #[test]
    fn rates_fall_from_stage_to_stage() {
        let network = network("resnet20_cifar");
        let plan = plan(&network, Transfer { layer_decay: 0.5, ..Transfer::default() }).unwrap();
        let rates = plan.rates(0.8);
        let rate = |name: &str| {
            let entry = network.state().into_iter().find(|entry| entry.name == name).unwrap();
            rates.lr_from_param(entry.id, None)
        };
        let layers = ["linear.bias", "layer3.2.conv2.weight", "layer2.0.bn1.weight", "layer1.0.conv1.weight"];
        assert_eq!(layers.map(rate), [0.8, 0.4, 0.2, 0.1]);
        assert_eq!(["conv1.weight", "bn1.bias"].map(rate), [0.05; 2], "a norm has its convolution's rate");
    }
}
