use std::path::Path;

use burn::lr_scheduler::constant::ConstantLr;
use burn::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamConfig, ModuleOptimizer, SgdConfig};
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// How a network is trained. A recipe file is this in TOML; what it leaves out stays at its default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// Passes over the training images.
    pub epochs: usize,
    /// Images per step.
    pub batch_size: usize,
    /// What turns gradients into steps.
    pub optimizer: Optimizer,
    /// The rate at the start.
    pub learning_rate: f64,
    /// How the rate goes on.
    pub schedule: Schedule,
    /// Momentum of SGD.
    pub momentum: f64,
    /// L2 penalty on all parameters.
    pub weight_decay: f64,
    /// Share of the target that is spread over all classes.
    pub label_smoothing: f64,
    /// Weight of each auxiliary classifier's loss, for networks that have them.
    pub auxiliary_weight: f64,
}

/// What turns gradients into steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimizer {
    /// Stochastic gradient descent with momentum, as PyTorch counts it: no dampening.
    Sgd,
    /// Kingma and Ba's, β 0.9 and 0.999.
    Adam,
}

/// How the learning rate goes on from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// It stays.
    Constant,
    /// It falls along half a cosine to zero at the last step.
    Cosine,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            epochs: 20,
            batch_size: 64,
            optimizer: Optimizer::Sgd,
            learning_rate: 0.05,
            schedule: Schedule::Cosine,
            momentum: 0.9,
            weight_decay: 0.0,
            label_smoothing: 0.0,
            auxiliary_weight: 0.3,
        }
    }
}

impl Recipe {
    /// Reads a recipe file.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let text = std::fs::read_to_string(path).map_err(TrainError::io("read", path))?;
        toml::from_str(&text)
            .map_err(|error| TrainError::RecipeFile { path: path.to_owned(), reason: error.to_string() })
    }

    /// Refuses what makes no sense.
    pub fn check(&self) -> Result<(), TrainError> {
        let refuse = |field, value: &dyn ToString, expected| {
            Err(TrainError::Recipe { field, value: value.to_string(), expected })
        };
        let share = "at least 0 and below 1";
        match self {
            Self { epochs: 0, .. } => refuse("epochs", &0, "at least 1"),
            Self { batch_size: 0, .. } => refuse("batch_size", &0, "at least 1"),
            // Burn's schedules take no larger rate than 1.
            Self { learning_rate: rate, .. } if !(*rate > 0.0 && *rate <= 1.0) => {
                refuse("learning_rate", rate, "above 0 and at most 1")
            }
            Self { momentum, .. } if !(0.0..1.0).contains(momentum) => refuse("momentum", momentum, share),
            Self { weight_decay, .. } if !(0.0..=1.0).contains(weight_decay) => {
                refuse("weight_decay", weight_decay, "from 0 to 1")
            }
            Self { label_smoothing, .. } if !(0.0..1.0).contains(label_smoothing) => {
                refuse("label_smoothing", label_smoothing, share)
            }
            Self { auxiliary_weight, .. } if !(0.0..=10.0).contains(auxiliary_weight) => {
                refuse("auxiliary_weight", auxiliary_weight, "from 0 to 10")
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn optimizer(&self) -> ModuleOptimizer {
        let decay = (self.weight_decay > 0.0).then(|| WeightDecayConfig::new(self.weight_decay as f32));
        match self.optimizer {
            Optimizer::Sgd => {
                let momentum = MomentumConfig::new().with_momentum(self.momentum).with_dampening(0.0);
                let momentum = (self.momentum > 0.0).then_some(momentum);
                SgdConfig::new().with_momentum(momentum).with_weight_decay(decay).init()
            }
            // PyTorch's epsilon.
            Optimizer::Adam => AdamConfig::new().with_epsilon(1e-8).with_weight_decay(decay).init(),
        }
    }

    /// The learning rate over `steps` steps.
    pub(crate) fn scheduler(&self, steps: usize) -> ModuleLrScheduler {
        match self.schedule {
            Schedule::Constant => ConstantLr::new(self.learning_rate).into(),
            Schedule::Cosine => CosineAnnealingLrSchedulerConfig::new(self.learning_rate, steps)
                .init()
                .expect("`check` has refused rates that the schedule does not take"),
        }
    }
}
