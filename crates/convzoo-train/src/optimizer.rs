use burn::module::{Module, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::optim::decay::WeightDecayConfig;
use burn::optim::{AdamConfig, AdamWConfig, ModuleOptimizer, Optimizer as Rule, RmsPropConfig};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::recipe::Wants;
use crate::{Recipe, Sgd, TrainError};

/// What turns gradients into steps, with PyTorch's rules and defaults.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Optimizer {
    /// Stochastic gradient descent without dampening.
    Sgd {
        /// Momentum factor.
        #[serde(default = "point_nine")]
        momentum: f64,
        /// Whether to use Nesterov momentum.
        #[serde(default)]
        nesterov: bool,
    },
    /// Kingma and Ba's, [arXiv:1412.6980](https://arxiv.org/abs/1412.6980), 2014.
    Adam {
        /// Coefficients of the running averages of the gradient and of its square.
        #[serde(default = "betas")]
        betas: [f64; 2],
        /// Added to the denominator for numerical stability.
        #[serde(default = "epsilon")]
        epsilon: f64,
    },
    /// Adam with decoupled weight decay, [arXiv:1711.05101](https://arxiv.org/abs/1711.05101), 2017.
    AdamW {
        /// As Adam's.
        #[serde(default = "betas")]
        betas: [f64; 2],
        /// As Adam's.
        #[serde(default = "epsilon")]
        epsilon: f64,
    },
    /// Hinton's, with ε added to the root as in PyTorch; TensorFlow adds it under the root.
    RmsProp {
        /// Smoothing constant: the coefficient of the running average of the squared gradient.
        #[serde(default = "alpha")]
        alpha: f64,
        /// Added to the denominator for numerical stability.
        #[serde(default = "epsilon")]
        epsilon: f64,
        /// Momentum factor.
        #[serde(default)]
        momentum: f64,
        /// Whether to divide by an estimate of the gradient's standard deviation.
        #[serde(default)]
        centered: bool,
    },
}

fn point_nine() -> f64 {
    0.9
}

fn betas() -> [f64; 2] {
    [0.9, 0.999]
}

fn epsilon() -> f64 {
    1e-8
}

fn alpha() -> f64 {
    0.99
}

impl Optimizer {
    pub(crate) fn check(&self, wants: Wants) -> Result<(), TrainError> {
        let share = |field, value: f64| wants(field, &value, "at least 0 and below 1", (0.0..1.0).contains(&value));
        let positive = |field, value: f64| wants(field, &value, "above 0 and at most 1", value > 0.0 && value <= 1.0);
        match *self {
            Self::Sgd { momentum, nesterov } => {
                share("optimizer.momentum", momentum)?;
                wants("optimizer.nesterov", &nesterov, "false without momentum", !nesterov || momentum > 0.0)
            }
            Self::Adam { betas, epsilon } | Self::AdamW { betas, epsilon } => {
                betas.into_iter().try_for_each(|beta| share("optimizer.betas", beta))?;
                positive("optimizer.epsilon", epsilon)
            }
            Self::RmsProp { alpha, epsilon, momentum, .. } => {
                share("optimizer.alpha", alpha)?;
                share("optimizer.momentum", momentum)?;
                positive("optimizer.epsilon", epsilon)
            }
        }
    }
}

impl Recipe {
    /// The optimizer of `module`'s parameters.
    pub(crate) fn optimizer<M: Module>(&self, module: &M) -> ModuleOptimizer {
        let penalty = |decay: f64| (decay > 0.0).then(|| WeightDecayConfig::new(decay as f32));
        match self.optimizer {
            Optimizer::Sgd { momentum, nesterov } => {
                self.grouped(module, |weight_decay| Sgd { momentum, nesterov, weight_decay })
            }
            Optimizer::Adam { betas: [beta_1, beta_2], epsilon } => {
                let config = AdamConfig::new()
                    .with_beta_1(beta_1 as f32)
                    .with_beta_2(beta_2 as f32)
                    .with_epsilon(epsilon as f32);
                self.grouped(module, |decay| config.clone().with_weight_decay(penalty(decay)).build())
            }
            Optimizer::AdamW { betas: [beta_1, beta_2], epsilon } => {
                let config = AdamWConfig::new()
                    .with_beta_1(beta_1 as f32)
                    .with_beta_2(beta_2 as f32)
                    .with_epsilon(epsilon as f32);
                self.grouped(module, |decay| config.clone().with_weight_decay(decay as f32).build())
            }
            Optimizer::RmsProp { alpha, epsilon, momentum, centered } => {
                let config = RmsPropConfig::new()
                    .with_alpha(alpha as f32)
                    .with_epsilon(epsilon as f32)
                    .with_momentum(momentum as f32)
                    .with_centered(centered);
                self.grouped(module, |decay| config.clone().with_weight_decay(penalty(decay)).build())
            }
        }
    }

    /// One rule for all parameters, or another without decay for those that are spared it.
    fn grouped<M: Module, R: Rule>(&self, module: &M, rule: impl Fn(f64) -> R) -> ModuleOptimizer {
        let optimizer = ModuleOptimizer::from(rule(self.weight_decay));
        if self.decay_all || self.weight_decay == 0.0 {
            return optimizer;
        }
        let mut spared = OneDimensional(Vec::new());
        module.visit(&mut spared);
        optimizer.with_group(ParamGroup::from_ids(spared.0), rule(0.0), None)
    }
}

/// Collects biases and the scales and shifts of norms.
struct OneDimensional(Vec<ParamId>);

impl ModuleVisitor for OneDimensional {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if D == 1 {
            self.0.push(param.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::optim::GradientsParams;
    use burn::tensor::Device;

    use super::*;

    #[derive(Module, Debug)]
    struct Weights {
        vector: Param<Tensor<1>>,
        matrix: Param<Tensor<2>>,
    }

    /// `vector` and `matrix` after five steps down Σ(s·p − t)²/2, both begun at the same values.
    fn trained(recipe: &Recipe) -> [Vec<f32>; 2] {
        let device = Device::flex().autodiff();
        let begin = [0.5, -1.0, 2.0];
        let mut weights = Weights {
            vector: Param::from_tensor(Tensor::from_floats(begin, &device)),
            matrix: Param::from_tensor(Tensor::from_floats([begin], &device)),
        };
        let mut optimizer = recipe.optimizer(&weights);
        for _ in 0..5 {
            let scale = Tensor::<1>::from_floats([1.0, 2.0, 3.0], &device);
            let target = Tensor::<1>::from_floats([1.0, -1.0, 0.5], &device);
            let error = weights.vector.val() * scale.clone() - target.clone();
            let other = weights.matrix.val().flatten::<1>(0, 1) * scale - target;
            let loss = (error.square().sum() + other.square().sum()) * 0.5;
            let gradients = GradientsParams::from_grads(loss.backward(), &weights);
            weights = optimizer.step(recipe.learning_rate, weights, gradients);
        }
        [weights.vector.val().try_into_vec_as().unwrap(), weights.matrix.val().try_into_vec_as().unwrap()]
    }

    fn near(name: &str, own: &[f32], expected: &[f32]) {
        for (own, expected) in own.iter().zip(expected) {
            assert!((own - expected).abs() < 2e-6, "{name}: {own}, in PyTorch {expected}");
        }
    }

    /// `crates/convzoo-train/tests/torch.py` printed them, with PyTorch 2.9.0.
    #[test]
    fn optimizers_step_as_pytorchs_do() {
        use Optimizer::*;
        let epsilon = 1e-8;
        let betas = [0.9, 0.999];
        let cases: &[(&str, Optimizer, f64, f64, [f32; 3])] = &[
            ("sgd", Sgd { momentum: 0.0, nesterov: false }, 0.05, 0.0, [0.6131095, -0.66384, 0.25893545]),
            ("momentum", Sgd { momentum: 0.9, nesterov: false }, 0.05, 0.01, [0.78815526, -0.20693098, -1.0054002]),
            ("nesterov", Sgd { momentum: 0.9, nesterov: true }, 0.05, 0.01, [0.837896, -0.2902127, 0.02219835]),
            ("adam", Adam { betas, epsilon }, 0.05, 0.01, [0.7458895, -0.75396615, 1.7507011]),
            ("adamw", AdamW { betas, epsilon }, 0.05, 0.1, [0.73151004, -0.73232543, 1.7038463]),
            (
                "adamw with other betas",
                AdamW { betas: [0.8, 0.95], epsilon: 1e-3 },
                0.05,
                0.1,
                [0.72949845, -0.73424125, 1.7043214],
            ),
            (
                "rmsprop",
                RmsProp { alpha: 0.99, epsilon, momentum: 0.0, centered: false },
                0.01,
                0.01,
                [0.7773318, -0.7214363, 1.6864353],
            ),
            (
                "rmsprop with momentum",
                RmsProp { alpha: 0.9, epsilon: 1.0, momentum: 0.9, centered: false },
                0.05,
                0.0,
                [0.74582434, -0.43731397, 0.76109594],
            ),
            (
                "centered rmsprop",
                RmsProp { alpha: 0.99, epsilon, momentum: 0.0, centered: true },
                0.01,
                0.0,
                [0.7812195, -0.7187804, 1.6824908],
            ),
        ];
        for (name, optimizer, learning_rate, weight_decay, expected) in cases {
            let recipe = Recipe {
                optimizer: *optimizer,
                learning_rate: *learning_rate,
                weight_decay: *weight_decay,
                ..Recipe::default()
            };
            let [vector, matrix] = trained(&recipe);
            near(name, &vector, expected);
            near(name, &matrix, expected);
        }
    }

    #[test]
    fn biases_and_norms_are_spared_decay_on_request() {
        let adamw = Optimizer::AdamW { betas: betas(), epsilon: epsilon() };
        for optimizer in [adamw, Optimizer::Sgd { momentum: 0.9, nesterov: false }] {
            let recipe = |weight_decay, decay_all| Recipe { optimizer, weight_decay, decay_all, ..Recipe::default() };
            let [plain, _] = trained(&recipe(0.0, true));
            let [_, decayed] = trained(&recipe(0.1, true));
            let [vector, matrix] = trained(&recipe(0.1, false));
            assert_eq!(vector, plain, "{optimizer:?} decayed a parameter of one dimension");
            assert_eq!(matrix, decayed, "{optimizer:?} did not decay a matrix");
        }
    }
}
