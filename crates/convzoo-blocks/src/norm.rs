use burn::config::Config;
use burn::module::{Flag, Module, Param, ParamId, RunningState};
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor};
use convzoo_graph::{Activation, Operation, Parameter};
use convzoo_kernels::extension::{batch_norm, batch_norm_train};

use crate::features::{Composite, FeatureMap, Layer, statistic, weight};

/// The normalization of a conv unit.
#[derive(Config, Debug, Copy, PartialEq)]
pub enum NormConfig {
    /// Batch normalization with this epsilon and PyTorch's momentum, 0.1.
    Batch {
        /// Added to the variance.
        epsilon: f64,
    },
    /// Local response normalization over `size` channels: x / (k + α/size · Σx²)^β.
    LocalResponse {
        /// Channels in the window.
        size: usize,
        /// α.
        alpha: f64,
        /// β.
        beta: f64,
        /// k.
        k: f64,
    },
}

impl NormConfig {
    /// Batch normalization with epsilon 1e-5, PyTorch's default.
    pub const BATCH: Self = Self::Batch { epsilon: 1e-5 };

    /// Makes the normalization layer for `channels` channels.
    pub fn init(&self, channels: usize, device: &Device) -> Norm {
        match *self {
            Self::Batch { epsilon } => Norm::Batch(BatchNorm2dConfig::new(channels).with_epsilon(epsilon).init(device)),
            Self::LocalResponse { size, alpha, beta, k } => {
                Norm::LocalResponse(LocalResponseNorm::new(size, alpha, beta, k))
            }
        }
    }
}

/// Any of the normalizations.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // nearly all are batch norms
pub enum Norm {
    /// Batch normalization.
    Batch(BatchNorm2d),
    /// Local response normalization.
    LocalResponse(LocalResponseNorm),
}

impl Norm {
    /// Keeps the shape, `[batch, channels, height, width]`.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M {
        match self {
            Self::Batch(norm) => norm.forward(input),
            Self::LocalResponse(norm) => norm.forward(input),
        }
    }

    /// [`forward`](Self::forward) and the activation after it, fused where possible.
    pub(crate) fn forward_activated<M: FeatureMap>(&self, input: M, activation: Activation) -> M {
        match self {
            Self::Batch(norm) if activation == Activation::Relu => input.composite(&NormRelu(norm)),
            _ => self.forward(input).activation(activation),
        }
    }
}

/// A batch norm and a ReLU, fused.
struct NormRelu<'a>(&'a BatchNorm2d);

impl Composite for NormRelu<'_> {
    fn compose<M: FeatureMap>(&self, input: M) -> M {
        self.0.forward(input).relu()
    }

    fn compute(&self, input: Tensor<4>) -> Tensor<4> {
        self.0.normalize(input, true)
    }
}

/// Configures a [`BatchNorm2d`].
#[derive(Config, Debug)]
pub struct BatchNorm2dConfig {
    /// Channels.
    pub channels: usize,
    /// Added to the variance.
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// PyTorch's momentum: the new batch's share in the running statistics.
    #[config(default = 0.1)]
    pub momentum: f64,
}

/// Batch normalization ([Ioffe and Szegedy, 2015](https://arxiv.org/abs/1502.03167)) with PyTorch's running statistics.
///
/// Burn's own feeds the biased batch variance to the running variance; PyTorch, and so every published network,
/// feeds the unbiased one, N / (N − 1) times as large. Fields are named as in a state dict.
#[derive(Module, Debug)]
pub struct BatchNorm2d {
    /// γ, `[channels]`.
    pub weight: Param<Tensor<1>>,
    /// β, `[channels]`.
    pub bias: Param<Tensor<1>>,
    /// Running mean, `[channels]`.
    pub running_mean: RunningState<Tensor<1>>,
    /// Running variance, unbiased, `[channels]`.
    pub running_var: RunningState<Tensor<1>>,
    /// Cleared by [`freeze`](Module::freeze): the layer then keeps its statistics.
    pub training: Param<Flag>,
    epsilon: f64,
    momentum: f64,
}

impl BatchNorm2dConfig {
    /// Makes the layer: γ 1, β 0, mean 0, variance 1.
    pub fn init(&self, device: &Device) -> BatchNorm2d {
        BatchNorm2d {
            weight: Initializer::Ones.init([self.channels], device),
            bias: Initializer::Zeros.init([self.channels], device),
            running_mean: RunningState::new(Tensor::zeros([self.channels], device)),
            running_var: RunningState::new(Tensor::ones([self.channels], device)),
            training: Param::from_bool(true),
            epsilon: self.epsilon,
            momentum: self.momentum,
        }
    }
}

impl BatchNorm2d {
    /// Keeps the shape, `[batch, channels, height, width]`.
    ///
    /// On an autodiff device, and unless frozen, normalizes by the batch and updates the running statistics;
    /// otherwise by the running statistics.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M {
        input.layer(self)
    }

    /// The normalization, with or without a ReLU after it.
    fn normalize(&self, input: Tensor<4>, relu: bool) -> Tensor<4> {
        let (weight, bias) = (self.weight.val(), self.bias.val());
        if !self.is_training(&input) {
            // Copies of the layer on several devices share their statistics.
            let here = |running: &RunningState<Tensor<1>>| running.value().to_device(&input.device());
            let statistics = [here(&self.running_mean), here(&self.running_var)];
            return batch_norm(input, [weight, bias], statistics, self.epsilon, relu);
        }
        let [batch, _, height, width] = input.dims();
        let result = batch_norm_train(input, weight, bias, self.epsilon, relu);
        self.remember(result.mean, result.variance, batch * height * width);
        result.output
    }

    /// Whether an input is normalized by its own statistics.
    fn is_training(&self, input: &Tensor<4>) -> bool {
        input.device().is_autodiff() && self.training.is_enabled()
    }

    /// The normalization by the running statistics as a scale and a shift of each channel.
    pub(crate) fn line(&self) -> [Tensor<1>; 2] {
        let scale = self.weight.val() / self.running_var.value().add_scalar(self.epsilon).sqrt();
        let shift = self.bias.val() - self.running_mean.value() * scale.clone();
        [scale, shift]
    }

    /// Blends the mean and the biased variance, `[channels]`, of a batch with `count` values in each channel into the
    /// running statistics.
    pub(crate) fn remember(&self, mean: Tensor<1>, variance: Tensor<1>, count: usize) {
        let blend = |running: &RunningState<Tensor<1>>, batch: Tensor<1>| {
            // `value()` would miss the last update: it is only folded in by `value_sync()`.
            let old = running.value_sync().to_device(&batch.device());
            running.update(old.mul_scalar(1.0 - self.momentum).add(batch.mul_scalar(self.momentum)).detach());
        };
        let count = count as f64;
        blend(&self.running_mean, mean.detach());
        blend(&self.running_var, variance.detach().mul_scalar(count / (count - 1.0).max(1.0)));
    }
}

impl Layer<4> for BatchNorm2d {
    fn operation(&self) -> Operation {
        Operation::BatchNorm2d { epsilon: self.epsilon }
    }

    fn compute(&self, input: Tensor<4>) -> Tensor<4> {
        self.normalize(input, false)
    }

    fn id(&self) -> Option<ParamId> {
        Some(self.weight.id)
    }

    fn parameters(&self) -> Vec<Parameter> {
        let [mean, var] = [&self.running_mean, &self.running_var].map(statistic);
        vec![weight(&self.weight), weight(&self.bias), mean, var]
    }
}

/// Local response normalization
/// ([Krizhevsky et al., 2012](https://papers.nips.cc/paper/2012/hash/c399862d3b9d6b76c8436e924a68c45b-Abstract.html)).
#[derive(Module, Debug)]
pub struct LocalResponseNorm {
    id: Param<Flag>,
    size: usize,
    alpha: f64,
    beta: f64,
    k: f64,
}

impl LocalResponseNorm {
    /// Krizhevsky's: x / (k + α Σx²)^β with k = 2, α = 1e-4, β = 0.75 over 5 channels.
    pub fn alexnet() -> Self {
        // The layer divides α by the number of channels in the window; the paper does not.
        Self::new(5, 5.0 * 1e-4, 0.75, 2.0)
    }

    /// x / (k + α/size · Σx²)^β, the sum over `size` neighboring channels.
    pub fn new(size: usize, alpha: f64, beta: f64, k: f64) -> Self {
        Self { id: Param::from_bool(true), size, alpha, beta, k }
    }

    /// Keeps the shape, `[batch, channels, height, width]`.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M {
        input.layer(self)
    }
}

impl Layer<4> for LocalResponseNorm {
    fn operation(&self) -> Operation {
        let &Self { size, alpha, beta, k, .. } = self;
        Operation::LocalResponseNorm { size, alpha, beta, k }
    }

    fn compute(&self, input: Tensor<4>) -> Tensor<4> {
        let config = burn::nn::LocalResponseNormConfig::new(self.size);
        config.with_alpha(self.alpha).with_beta(self.beta).with_k(self.k).init().forward(input)
    }

    fn id(&self) -> Option<ParamId> {
        Some(self.id.id)
    }
}
