use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;

use crate::features::{FeatureMap, Segment};
use crate::{ConvUnit, ConvUnitConfig, Init};

/// Configures a [`Fire`] module.
#[derive(Config, Debug)]
pub struct FireConfig {
    /// Input channels.
    pub inputs: usize,
    /// Channels of the squeeze layer.
    pub squeeze: usize,
    /// Channels of each of the two expand layers.
    pub expand: usize,
    /// Weight initialization.
    #[config(default = "Init::KaimingUniform")]
    pub init: Init,
}

/// Squeezes the channels by a 1×1 convolution, then expands them by 1×1 and 3×3 convolutions in parallel
/// ([Iandola et al., 2016](https://arxiv.org/abs/1602.07360)).
#[derive(Module, Debug)]
pub struct Fire {
    squeeze: ConvUnit,
    expand1x1: ConvUnit,
    expand3x3: ConvUnit,
}

impl FireConfig {
    /// Makes the module; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> Fire {
        let conv = |inputs, outputs, size| ConvUnitConfig::square(inputs, outputs, size).with_init(self.init);
        Fire {
            squeeze: conv(self.inputs, self.squeeze, 1).init(device),
            expand1x1: conv(self.squeeze, self.expand, 1).init(device),
            expand3x3: conv(self.squeeze, self.expand, 3).padded(1).init(device),
        }
    }
}

impl Fire {
    /// `[batch, inputs, height, width]` to `[batch, 2 · expand, height, width]`.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M {
        input.segment(self)
    }
}

impl Segment for Fire {
    fn pass<M: FeatureMap>(&self, input: M) -> M {
        let [one, other] = self.squeeze.forward(input).fork();
        M::concat(vec![self.expand1x1.forward(one), self.expand3x3.forward(other)])
    }
}
