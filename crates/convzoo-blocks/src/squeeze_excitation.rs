use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;

use crate::features::FeatureMap;
use crate::{Activation, AdaptiveAvgPool2d, ConvUnit, ConvUnitConfig, Init};

/// Configures a [`SqueezeExcitation`].
#[derive(Config, Debug)]
pub struct SqueezeExcitationConfig {
    /// Channels.
    pub channels: usize,
    /// Channels between the two layers.
    pub squeezed: usize,
    /// Activation after the first layer.
    #[config(default = "Activation::Relu")]
    pub activation: Activation,
    /// Activation after the second, which makes the gates.
    #[config(default = "Activation::Sigmoid")]
    pub gate: Activation,
    /// Weight initialization.
    #[config(default = "Init::KaimingNormalFanOut")]
    pub init: Init,
}

/// Multiplies each channel by a gate that two fully-connected layers make of the means of all channels
/// ([Hu et al., 2017](https://arxiv.org/abs/1709.01507)).
#[derive(Module, Debug)]
pub struct SqueezeExcitation {
    avgpool: AdaptiveAvgPool2d,
    fc1: ConvUnit,
    fc2: ConvUnit,
}

impl SqueezeExcitationConfig {
    /// Makes the block; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> SqueezeExcitation {
        let layer = |inputs, outputs, activation| {
            let config = ConvUnitConfig::square(inputs, outputs, 1).with_activation(activation);
            config.with_init(self.init).init(device)
        };
        SqueezeExcitation {
            avgpool: AdaptiveAvgPool2d::new([1, 1]),
            fc1: layer(self.channels, self.squeezed, self.activation),
            fc2: layer(self.squeezed, self.channels, self.gate),
        }
    }
}

impl SqueezeExcitation {
    /// Keeps the shape, `[batch, channels, height, width]`.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M {
        let [input, pooled] = input.fork();
        let means = self.avgpool.forward(pooled);
        input.gate(self.fc2.forward(self.fc1.forward(means)))
    }
}
