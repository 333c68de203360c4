use burn::config::Config;
use burn::module::{Flag, Module, Param, ParamId, RunningState};
use burn::nn::{GroupNorm, GroupNormConfig, Initializer};
use burn::tensor::{Device, Tensor};
use convzoo_graph::{Activation, Operation, Parameter};
use convzoo_kernels::extension::{batch_norm, batch_norm_train};

use crate::checkpointing::is_second_pass;
use crate::features::{Composite, FeatureMap, Features, Layer, statistic, weight};
use crate::layer_norm::{LayerNorm2d, LayerNorm2dConfig};

/// The normalization of a conv unit.
///
/// Group, layer and instance normalization differ in how many parts an image's channels are divided into: some, one, or
/// as many as there are. All three are Burn's [`GroupNorm`], whose γ and β are per channel. (Burn's own layer
/// normalization takes the last dimension alone, which of feature maps is a row of pixels.)
#[derive(Config, Debug, Copy, PartialEq)]
pub enum NormConfig {
    /// Batch normalization.
    Batch {
        /// Added to the variance.
        epsilon: f64,
        /// PyTorch's momentum: the new batch's share in the running statistics.
        momentum: f64,
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
    /// Group normalization ([Wu and He, 2018](https://arxiv.org/abs/1803.08494)): one mean and variance for each image
    /// and each of `groups` equal parts of its channels.
    Group {
        /// Parts; they divide the channels.
        groups: usize,
        /// Added to the variance.
        epsilon: f64,
    },
    /// Layer normalization ([Ba, Kiros, Hinton, 2016](https://arxiv.org/abs/1607.06450)): one mean and variance for each
    /// image.
    Layer {
        /// Added to the variance.
        epsilon: f64,
    },
    /// Instance normalization ([Ulyanov, Vedaldi, Lempitsky, 2016](https://arxiv.org/abs/1607.08022)): one mean and
    /// variance for each channel of each image.
    Instance {
        /// Added to the variance.
        epsilon: f64,
    },
    /// Layer normalization as [ConvNeXt](https://arxiv.org/abs/2201.03545) has it: one mean and variance for each pixel, over
    /// its channels.
    PixelLayer {
        /// Added to the variance.
        epsilon: f64,
    },
}

impl NormConfig {
    /// Batch normalization with epsilon 1e-5 and momentum 0.1, PyTorch's defaults.
    pub const BATCH: Self = Self::batch(1e-5);

    /// Batch normalization with this epsilon and PyTorch's momentum, 0.1.
    pub const fn batch(epsilon: f64) -> Self {
        Self::Batch { epsilon, momentum: 0.1 }
    }

    /// Makes the normalization layer for `channels` channels.
    ///
    /// # Panics
    ///
    /// If the groups do not divide the channels, as Burn's [`GroupNormConfig::init`] does.
    pub fn init(&self, channels: usize, device: &Device) -> Norm {
        let group =
            |groups, epsilon| Norm::Group(GroupNormConfig::new(groups, channels).with_epsilon(epsilon).init(device));
        match *self {
            Self::Batch { epsilon, momentum } => {
                let config = BatchNorm2dConfig::new(channels).with_epsilon(epsilon).with_momentum(momentum);
                Norm::Batch(config.init(device))
            }
            Self::LocalResponse { size, alpha, beta, k } => {
                Norm::LocalResponse(LocalResponseNorm::new(size, alpha, beta, k))
            }
            Self::Group { groups, epsilon } => group(groups, epsilon),
            Self::Layer { epsilon } => group(1, epsilon),
            Self::Instance { epsilon } => group(channels, epsilon),
            Self::PixelLayer { epsilon } => {
                Norm::PixelLayer(LayerNorm2dConfig::new(channels).with_epsilon(epsilon).init(device))
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
    /// Group normalization, and layer and instance normalization as its extremes.
    Group(GroupNorm),
    /// Layer normalization of each pixel.
    PixelLayer(LayerNorm2d),
}

impl Norm {
    /// Keeps the shape, `[batch, channels, height, width]`.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M {
        match self {
            Self::Batch(norm) => norm.forward(input),
            Self::LocalResponse(norm) => norm.forward(input),
            Self::Group(norm) => input.layer(norm),
            Self::PixelLayer(norm) => norm.forward(input),
        }
    }

    /// [`forward`](Self::forward) and the activation after it, fused where possible.
    pub fn forward_activated<M: FeatureMap>(&self, input: M, activation: Activation) -> M {
        match self {
            Self::Batch(norm) => input.composite(&NormActivation { norm, activation }),
            _ => self.forward(input).activation(activation),
        }
    }
}

/// A batch norm and an activation, fused.
struct NormActivation<'a> {
    norm: &'a BatchNorm2d,
    activation: Activation,
}

impl Composite for NormActivation<'_> {
    fn compose<M: FeatureMap>(&self, input: M) -> M {
        self.norm.forward(input).activation(self.activation)
    }

    fn compute(&self, input: Tensor<4>) -> Tensor<4> {
        self.norm.normalize(input, self.activation)
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
    /// Keeps the shape: feature maps, `[batch, channels, height, width]`, or feature vectors, `[batch, channels]`, each
    /// of whose features is a channel (PyTorch's `BatchNorm1d`).
    ///
    /// On an autodiff device, and unless frozen, normalizes by the batch and updates the running statistics;
    /// otherwise by the running statistics.
    pub fn forward<const D: usize, F: Features<D>>(&self, input: F) -> F
    where
        Self: Layer<D>,
    {
        input.layer(self)
    }

    /// The normalization, and the activation after it.
    fn normalize(&self, input: Tensor<4>, activation: Activation) -> Tensor<4> {
        let (weight, bias) = (self.weight.val(), self.bias.val());
        if !self.is_training(&input) {
            // Copies of the layer on several devices share their statistics.
            let here = |running: &RunningState<Tensor<1>>| running.value().to_device(&input.device());
            let statistics = [here(&self.running_mean), here(&self.running_var)];
            return batch_norm(input, [weight, bias], statistics, self.epsilon, activation);
        }
        let [batch, _, height, width] = input.dims();
        let result = batch_norm_train(input, weight, bias, self.epsilon, activation);
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
    /// running statistics, once for each pass.
    pub(crate) fn remember(&self, mean: Tensor<1>, variance: Tensor<1>, count: usize) {
        if is_second_pass() {
            return;
        }
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
        self.normalize(input, Activation::Identity)
    }

    fn id(&self) -> Option<ParamId> {
        Some(self.weight.id)
    }

    fn parameters(&self) -> Vec<Parameter> {
        let [mean, var] = [&self.running_mean, &self.running_var].map(statistic);
        vec![weight(&self.weight), weight(&self.bias), mean, var]
    }
}

impl Layer<2> for BatchNorm2d {
    fn operation(&self) -> Operation {
        Operation::Opaque { name: "BatchNorm1d".to_owned(), output: None }
    }

    fn compute(&self, input: Tensor<2>) -> Tensor<2> {
        let [batch, features] = input.dims();
        self.normalize(input.reshape([batch, features, 1, 1]), Activation::Identity).reshape([batch, features])
    }

    fn id(&self) -> Option<ParamId> {
        <Self as Layer<4>>::id(self)
    }

    fn parameters(&self) -> Vec<Parameter> {
        <Self as Layer<4>>::parameters(self)
    }
}

impl<const D: usize> Layer<D> for GroupNorm {
    fn operation(&self) -> Operation {
        Operation::Opaque { name: "GroupNorm".to_owned(), output: None }
    }

    fn compute(&self, input: Tensor<D>) -> Tensor<D> {
        self.forward(input)
    }

    fn id(&self) -> Option<ParamId> {
        self.gamma.as_ref().map(|gamma| gamma.id)
    }

    fn parameters(&self) -> Vec<Parameter> {
        [&self.gamma, &self.beta].into_iter().flatten().map(weight).collect()
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

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a panic is how a test fails
mod tests {
    use burn::tensor::{Distribution, Int};

    use super::*;
    use crate::{ConvUnitConfig, Symbol};

    /// γ (x − μ) / √(σ² + ε) + β by its definition, in 64 bits: `set` tells which values share μ and σ², `channel` whose
    /// γ, 1 + channel / 2, and β, −channel, a value gets.
    fn by_definition(input: &[f32], set: impl Fn(usize) -> usize, channel: impl Fn(usize) -> usize) -> Vec<f64> {
        let mean = |i: usize, value: &dyn Fn(f64) -> f64| {
            let members = (0..input.len()).filter(|&j| set(j) == set(i)).map(|j| value(f64::from(input[j])));
            let (sum, count) = members.fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
            sum / f64::from(count)
        };
        let normalized = |i: usize| {
            let mu = mean(i, &|x| x);
            let variance = mean(i, &|x| (x - mu).powi(2));
            let (gamma, beta) = (1.0 + channel(i) as f64 / 2.0, -(channel(i) as f64));
            gamma * (f64::from(input[i]) - mu) / (variance + 1e-5).sqrt() + beta
        };
        (0..input.len()).map(normalized).collect()
    }

    fn ramp(count: i64, device: &Device) -> Tensor<1> {
        Tensor::<1, Int>::arange(0..count, device).float()
    }

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_into_vec().unwrap()
    }

    fn assert_near(name: &str, output: &[f32], expected: &[f64]) {
        assert_eq!(output.len(), expected.len(), "{name}");
        for (i, (is, should)) in output.iter().zip(expected).enumerate() {
            assert!((f64::from(*is) - should).abs() < 2e-5, "{name}: value {i} is {is}, by the definition {should}");
        }
    }

    #[test]
    fn group_layer_and_instance_norm_normalize_the_sets_of_their_definitions() {
        let device = Device::default().autodiff();
        device.seed(7);
        let input = Tensor::<4>::random([2, 4, 3, 2], Distribution::Normal(3.0, 2.0), &device);
        let inputs = values(input.clone());
        let channel = |i: usize| i / 6 % 4;
        let epsilon = 1e-5;
        /// The set of a value: an image has 24 values, a channel of it 6, and two channels are a group.
        type Set = fn(usize) -> usize;
        let cases: [(&str, NormConfig, Set); 3] = [
            ("group", NormConfig::Group { groups: 2, epsilon }, |i| i / 12),
            ("layer", NormConfig::Layer { epsilon }, |i| i / 24),
            ("instance", NormConfig::Instance { epsilon }, |i| i / 6),
        ];
        for (name, config, set) in cases {
            let Norm::Group(mut norm) = config.init(4, &device) else { panic!("{name} is no group norm") };
            norm.gamma = Some(Param::from_tensor(ramp(4, &device) / 2.0 + 1.0));
            norm.beta = Some(Param::from_tensor(-ramp(4, &device)));
            let norm = Norm::Group(norm);
            let output = values(norm.forward(input.clone()));
            assert_near(name, &output, &by_definition(&inputs, set, channel));
            // There is nothing to remember: evaluation gives the same.
            let evaluated = norm.valid().forward(input.clone().without_autodiff());
            assert_near(name, &values(evaluated), &by_definition(&inputs, set, channel));
        }
    }

    #[test]
    fn batch_norm_of_features_normalizes_columns_and_remembers_the_unbiased_variance() {
        let device = Device::default().autodiff();
        let input = Tensor::<2>::from_data([[1., 10.], [2., 10.], [3., 40.], [6., 20.]], &device);
        let inputs = values(input.clone());
        let mut norm = BatchNorm2dConfig::new(2).init(&device);
        norm.weight = Param::from_tensor(ramp(2, &device) / 2.0 + 1.0);
        norm.bias = Param::from_tensor(-ramp(2, &device));
        let output = values(norm.forward(input.clone()));
        assert_near("in training", &output, &by_definition(&inputs, |i| i % 2, |i| i % 2));

        // Means 3 and 20; squares of the differences 14 and 600, of four values; a tenth of the new, as in PyTorch.
        let [mean, variance] = [&norm.running_mean, &norm.running_var].map(|running| values(running.value_sync()));
        assert_near("running mean", &mean, &[0.3, 2.0]);
        assert_near("running variance", &variance, &[0.9 + 0.1 * 14.0 / 3.0, 0.9 + 0.1 * 600.0 / 3.0]);

        let line = |x: f32, column: usize| {
            let [gamma, beta] = [[1.0, 0.0], [1.5, -1.0]][column];
            gamma * (f64::from(x) - f64::from(mean[column])) / (f64::from(variance[column]) + 1e-5).sqrt() + beta
        };
        let expected: Vec<f64> = inputs.iter().enumerate().map(|(i, &x)| line(x, i % 2)).collect();
        let evaluated = norm.valid().forward(input.without_autodiff());
        assert_near("in evaluation", &values(evaluated), &expected);
    }

    #[test]
    fn a_conv_unit_takes_group_norm_and_its_graph_shows_it() {
        let device = Device::default();
        let norm = NormConfig::Group { groups: 4, epsilon: 1e-5 };
        let unit = ConvUnitConfig::square(3, 8, 3).with_norm(Some(norm)).with_bias(false).init(&device);
        let graph = Symbol::record([3, 8, 8], |image| unit.forward(image)).unwrap();
        let kinds: Vec<_> = graph.nodes().iter().map(|node| node.operation.kind()).collect();
        assert_eq!(kinds, ["Input", "Conv2d", "Opaque", "ReLU"]);
        let shapes: Vec<_> = graph.nodes()[2].parameters.iter().map(|parameter| parameter.shape.clone()).collect();
        assert_eq!(shapes, [[8], [8]], "γ and β are counted");
        assert_eq!(unit.forward(Tensor::<4>::ones([2, 3, 8, 8], &device)).dims(), [2, 8, 6, 6]);
    }
}
