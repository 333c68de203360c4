use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;

use crate::features::{FeatureMap, Segment};
use crate::{
    Activation, ConvUnit, ConvUnitConfig, DropPath, DropPathConfig, Init, LayerScale, Linear, LinearConfig, NormConfig,
};

/// Configures a [`ConvNextBlock`].
#[derive(Config, Debug)]
pub struct ConvNextBlockConfig {
    /// Channels.
    pub channels: usize,
    /// What the residual branch is multiplied by at first.
    #[config(default = 1e-6)]
    pub layer_scale: f64,
    /// Drop path rate: the probability of dropping the residual branch.
    #[config(default = 0.0)]
    pub drop_path: f64,
    /// Weight initialization.
    #[config(default = "Init::Normal(0.02)")]
    pub init: Init,
}

/// The block of [ConvNeXt](https://arxiv.org/abs/2201.03545): a depthwise 7×7 convolution, a layer normalization, at each
/// pixel a fully-connected layer to four times as many channels, GELU and one back, scaled by channel, and a shortcut
/// around all.
#[derive(Module, Debug)]
pub struct ConvNextBlock {
    depthwise: ConvUnit,
    expand: Linear,
    project: Linear,
    layer_scale: LayerScale,
    drop_path: DropPath,
}

impl ConvNextBlockConfig {
    /// Makes the block; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> ConvNextBlock {
        let channels = self.channels;
        let depthwise = ConvUnitConfig::square(channels, channels, 7).padded(3).with_groups(channels).linear();
        let linear = |inputs, outputs| LinearConfig::new(inputs, outputs).with_init(self.init).init(device);
        ConvNextBlock {
            depthwise: depthwise
                .with_norm(Some(NormConfig::PixelLayer { epsilon: 1e-6 }))
                .with_init(self.init)
                .init(device),
            expand: linear(channels, 4 * channels),
            project: linear(4 * channels, channels),
            layer_scale: LayerScale::new(channels, self.layer_scale, device),
            drop_path: DropPathConfig::new(self.drop_path).init(),
        }
    }
}

impl ConvNextBlock {
    /// Keeps the shape, `[batch, channels, height, width]`.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M {
        input.segment(self)
    }
}

impl Segment for ConvNextBlock {
    fn pass<M: FeatureMap>(&self, input: M) -> M {
        let [input, start] = input.fork();
        let x = self.expand.forward(self.depthwise.forward(input)).activation(Activation::Gelu);
        let branch = self.layer_scale.forward(self.project.forward(x));
        self.drop_path.forward(branch).add_shortcut(start)
    }
}
