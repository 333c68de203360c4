use burn::config::Config;
use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::{DType, Device, Tensor};
use convzoo_kernels::extension::batch_norm_train;

use crate::features::{Composite, FeatureMap, Features, Segment};
use crate::strategy::{keeping, like, recomputing};
use crate::{Activation, BatchNorm2d, ConvUnitConfig, Init, Norm, Pool, PoolConfig, PreActUnit};

/// Configures a [`DenseLayer`].
#[derive(Config, Debug)]
pub struct DenseLayerConfig {
    /// Input channels.
    pub inputs: usize,
    /// Growth rate: the channels that the layer adds.
    pub growth_rate: usize,
    /// Width of the 1×1 convolution before it, in growth rates; `None` leaves it out.
    pub bottleneck: Option<usize>,
    /// Dropout probability of the new features.
    #[config(default = 0.0)]
    pub dropout: f64,
    /// Weight initialization.
    #[config(default = "Init::KaimingNormalFanIn")]
    pub init: Init,
}

/// Computes a few new features from those of all layers before it: norm, ReLU, 3×3 convolution, after a 1×1 bottleneck
/// of the same order in DenseNet-B ([Huang et al., 2016](https://arxiv.org/abs/1608.06993)).
#[derive(Module, Debug)]
pub struct DenseLayer {
    bottleneck: Option<PreActUnit>,
    conv: PreActUnit,
    dropout: Dropout,
}

impl DenseLayerConfig {
    /// Makes the layer; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> DenseLayer {
        let unit = |inputs, outputs, size| {
            ConvUnitConfig::square(inputs, outputs, size)
                .padded(size / 2)
                .with_batch_norm()
                .with_init(self.init)
                .init_preact(device)
        };
        let width = self.bottleneck.map(|factor| factor * self.growth_rate);
        DenseLayer {
            bottleneck: width.map(|width| unit(self.inputs, width, 1)),
            conv: unit(width.unwrap_or(self.inputs), self.growth_rate, 3),
            dropout: DropoutConfig::new(self.dropout).init(),
        }
    }
}

impl DenseLayer {
    /// `[batch, inputs, height, width]` to the new features `[batch, growth_rate, height, width]`.
    pub fn forward<M: FeatureMap>(&self, features: M) -> M {
        features.segment(self)
    }

    /// [`forward`](Self::forward) of the features in parts, recomputing in the backward pass.
    fn forward_parts(&self, features: &[Standardized]) -> Tensor<4> {
        let new = match &self.bottleneck {
            Some(bottleneck) => {
                let narrow = Standardized::new(unit_of_parts(bottleneck, features));
                unit_of_parts(&self.conv, &[narrow])
            }
            None => unit_of_parts(&self.conv, features),
        };
        new.dropout(&self.dropout)
    }

    /// Whether all norms use batch statistics.
    fn trains(&self) -> bool {
        let units = self.bottleneck.iter().chain([&self.conv]);
        units.map(batch_norm).all(|norm| norm.is_some_and(|norm| norm.training.is_enabled()))
    }
}

impl Segment for DenseLayer {
    fn pass<M: FeatureMap>(&self, features: M) -> M {
        let features = match &self.bottleneck {
            Some(bottleneck) => bottleneck.forward(features),
            None => features,
        };
        self.conv.forward(features).dropout(&self.dropout)
    }
}

/// Configures a [`DenseBlock`].
#[derive(Config, Debug)]
pub struct DenseBlockConfig {
    /// Input channels.
    pub inputs: usize,
    /// Number of layers.
    pub layers: usize,
    /// Growth rate: the channels that each layer adds.
    pub growth_rate: usize,
    /// Width of the layers' 1×1 convolutions, in growth rates; `None` leaves them out.
    pub bottleneck: Option<usize>,
    /// Dropout probability of the new features.
    #[config(default = 0.0)]
    pub dropout: f64,
    /// Whether training recomputes normalized features rather than keep a copy for every layer.
    #[config(default = false)]
    pub memory_efficient: bool,
    /// Weight initialization.
    #[config(default = "Init::KaimingNormalFanIn")]
    pub init: Init,
}

/// Layers each of which takes the features of all layers before it.
///
/// The plain form keeps, for the backward pass, three tensors as wide as each layer's whole input: the concatenation,
/// its normalization and the ReLU of that. Over a block of L layers that grows with L².
///
/// The memory-saving form ([Pleiss et al., 2017](https://arxiv.org/abs/1707.06990)) keeps each feature twice, as it is
/// and standardized, whatever number of layers reads it. Batch normalization works channel by channel, so a feature's
/// standardized form serves all layers, each with a scale, shift and ReLU of its own; those are recomputed in the
/// backward pass, and a convolution of a concatenation is a sum of convolutions, so that none is ever made. Memory
/// grows with L, and no statistic is computed twice. Outputs, gradients and running statistics are the plain form's but
/// for the order of summation. It takes effect in training; observed, the block runs in its plain form, so that every
/// layer shows.
#[derive(Module, Debug)]
pub struct DenseBlock {
    /// From the first to the last.
    pub layers: Vec<DenseLayer>,
    memory_efficient: bool,
}

impl DenseBlockConfig {
    /// Makes the block; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> DenseBlock {
        let layer = |i| {
            DenseLayerConfig::new(self.inputs + i * self.growth_rate, self.growth_rate)
                .with_bottleneck(self.bottleneck)
                .with_dropout(self.dropout)
                .with_init(self.init)
                .init(device)
        };
        DenseBlock { layers: (0..self.layers).map(layer).collect(), memory_efficient: self.memory_efficient }
    }

    /// Output channels.
    pub fn outputs(&self) -> usize {
        self.inputs + self.layers * self.growth_rate
    }
}

impl DenseBlock {
    /// `[batch, inputs, height, width]` to `[batch, inputs + layers · growth_rate, height, width]`.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M {
        // In the memory-saving form a block is one segment; else each layer is.
        if self.memory_efficient { input.segment(self) } else { self.compose(input) }
    }

    fn forward_recomputing(&self, input: Tensor<4>) -> Tensor<4> {
        let mut features = vec![keeping(input.clone())];
        let mut standardized = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            standardized.extend(features.last().cloned().map(Standardized::new));
            features.push(layer.forward_parts(&standardized));
        }
        like(Tensor::cat(features, 1), &input)
    }
}

impl Composite for DenseBlock {
    fn compose<M: FeatureMap>(&self, input: M) -> M {
        self.layers.iter().fold(input, |features, layer| {
            let new = layer.forward(features.clone());
            M::concat(vec![features, new])
        })
    }

    fn compute(&self, input: Tensor<4>) -> Tensor<4> {
        let training = input.device().is_autodiff() && self.layers.iter().all(DenseLayer::trains);
        match self.memory_efficient && training {
            true => self.forward_recomputing(input),
            false => self.compose(input),
        }
    }
}

impl Segment for DenseBlock {
    fn pass<M: FeatureMap>(&self, input: M) -> M {
        input.composite(self)
    }
}

/// A feature map normalized to mean 0 and variance 1 per channel, and the statistics it had.
struct Standardized {
    map: Tensor<4>,
    mean: Tensor<1>,
    variance: Tensor<1>,
}

impl Standardized {
    /// The zoo's dense networks all add PyTorch's default to the variance.
    const EPSILON: f64 = 1e-5;

    fn new(features: Tensor<4>) -> Self {
        let ([_, channels, ..], device) = (features.dims(), features.device());
        // Of 16 bits, statistics are computed in 32.
        let wide = if features.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        let (scale, shift) = (Tensor::ones([channels], (&device, wide)), Tensor::zeros([channels], (&device, wide)));
        let result = batch_norm_train(features, scale, shift, Self::EPSILON, Activation::Identity);
        Self { map: result.output, mean: result.mean, variance: result.variance }
    }
}

/// A pre-activation unit over parts of its input, which keeps none of what it computes from them.
fn unit_of_parts(unit: &PreActUnit, parts: &[Standardized]) -> Tensor<4> {
    let norm = batch_norm(unit).expect("a layer that trains has batch norms");
    let (scale, shift) = (norm.weight.val(), norm.bias.val());
    let join = |statistics: Vec<Tensor<1>>| like(Tensor::cat(statistics, 0), &scale);
    let mean = join(parts.iter().map(|part| part.mean.clone()).collect());
    let variance = join(parts.iter().map(|part| part.variance.clone()).collect());
    let [batch, _, height, width] = parts[0].map.dims();
    norm.remember(mean, variance, batch * height * width);

    let mut first = 0;
    let activated = parts.iter().map(|part| {
        let (channels, numbers) = (part.map.dims()[1], part.map.dtype());
        let own = |values: &Tensor<1>| {
            recomputing(values.clone().narrow(0, first, channels).reshape([1, channels, 1, 1])).cast(numbers)
        };
        let normalized = recomputing(part.map.clone()) * own(&scale) + own(&shift);
        first += channels;
        keeping(match unit.activation {
            // Burn's own, which computes it once more in the backward pass; the kernel's keeps its output.
            Activation::Relu => burn::tensor::activation::relu(normalized),
            other => normalized.activation(other),
        })
    });
    unit.convolve_parts(activated.collect())
}

fn batch_norm(unit: &PreActUnit) -> Option<&BatchNorm2d> {
    match &unit.norm {
        Some(Norm::Batch(norm)) => Some(norm),
        _ => None,
    }
}

/// Configures a [`Transition`].
#[derive(Config, Debug)]
pub struct TransitionConfig {
    /// Input and output channels: DenseNet-C halves them.
    pub channels: [usize; 2],
    /// Weight initialization.
    #[config(default = "Init::KaimingNormalFanIn")]
    pub init: Init,
}

/// Between two dense blocks: norm, ReLU and a 1×1 convolution, then average pooling that halves the feature map.
#[derive(Module, Debug)]
pub struct Transition {
    unit: PreActUnit,
    pool: Pool,
}

impl TransitionConfig {
    /// Makes the transition; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> Transition {
        let [inputs, outputs] = self.channels;
        let unit = ConvUnitConfig::square(inputs, outputs, 1).with_batch_norm();
        Transition { unit: unit.with_init(self.init).init_preact(device), pool: PoolConfig::avg(2, 2).init() }
    }
}

impl Transition {
    /// `[batch, inputs, height, width]` to `[batch, outputs, height / 2, width / 2]`.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M {
        input.segment(self)
    }
}

impl Segment for Transition {
    fn pass<M: FeatureMap>(&self, input: M) -> M {
        self.pool.forward(self.unit.forward(input))
    }
}

#[cfg(test)]
mod tests {
    use burn::optim::GradientsParams;
    use burn::tensor::Distribution;

    use super::*;

    fn close<const D: usize>(a: Tensor<D>, b: Tensor<D>) {
        let distance = (a - b.clone()).square().sum().sqrt() / b.square().sum().sqrt();
        let distance: f32 = distance.into_scalar();
        assert!(distance < 1e-4, "{distance}");
    }

    /// Output, gradients and running statistics of a training pass.
    fn train(bottleneck: Option<usize>, device: &Device) {
        let config = DenseBlockConfig::new(6, 4, 5).with_bottleneck(bottleneck);
        let plain = config.init(device).materialize();
        let saving = DenseBlock { memory_efficient: true, ..plain.clone() };
        let input = Tensor::random([3, 6, 7, 7], Distribution::Default, device).require_grad();
        let weight = Tensor::random([3, 26, 7, 7], Distribution::Default, device);
        assert_eq!(config.outputs(), 26);

        let [a, b] = [&plain, &saving].map(|block| {
            let output = block.forward(input.clone());
            let mut grads = (output.clone() * weight.clone()).sum().backward();
            let own = GradientsParams::from_module(&mut grads, block);
            let of_weights = block.layers.iter().map(|layer| {
                let bottleneck = layer.bottleneck.as_ref().unwrap_or(&layer.conv);
                let weight = own.get::<4>(bottleneck.conv.weight.id).unwrap().flatten::<1>(0, 3);
                let scale = own.get::<1>(batch_norm(bottleneck).unwrap().weight.id).unwrap();
                let shift = own.get::<1>(batch_norm(&layer.conv).unwrap().bias.id).unwrap();
                Tensor::cat(vec![weight, scale, shift], 0)
            });
            let of_weights = Tensor::cat(of_weights.collect(), 0);
            let variance = batch_norm(&block.layers[3].conv).unwrap().running_var.value_sync();
            (output.without_autodiff(), input.grad(&grads).unwrap(), of_weights, variance.without_autodiff())
        });
        close(a.0, b.0);
        close(a.1, b.1);
        close(a.2, b.2);
        // The two share their running statistics: from 1, the same batch has gone into them twice.
        close(a.3 * 1.9 - 0.9, b.3);
    }

    #[test]
    fn the_memory_saving_form_computes_the_same() {
        for bottleneck in [Some(4), None] {
            train(bottleneck, &Device::flex().autodiff());
            train(bottleneck, &Device::flex().autodiff().gradient_checkpointing());
        }
    }
}
