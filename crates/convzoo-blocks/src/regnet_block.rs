use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;

use crate::features::{FeatureMap, Segment};
use crate::{ConvUnit, ConvUnitConfig, Init, SqueezeExcitation, SqueezeExcitationConfig};

/// Configures a [`RegNetBlock`].
#[derive(Config, Debug)]
pub struct RegNetBlockConfig {
    /// Input and output channels.
    pub channels: [usize; 2],
    /// Channels of each group of the 3×3 convolution.
    pub group_width: usize,
    /// Stride of the 3×3 convolution.
    #[config(default = 1)]
    pub stride: usize,
    /// Channels between the layers of the squeeze-and-excitation after it, which makes the block a Y block.
    pub squeezed: Option<usize>,
    /// Weight initialization.
    #[config(default = "Init::KaimingNormalFanOut")]
    pub init: Init,
}

/// The X block of [RegNet](https://arxiv.org/abs/2003.13678), a residual bottleneck with groups that is as wide inside as
/// outside; with squeeze-and-excitation, the Y block.
#[derive(Module, Debug)]
pub struct RegNetBlock {
    proj: Option<ConvUnit>,
    a: ConvUnit,
    b: ConvUnit,
    se: Option<SqueezeExcitation>,
    c: ConvUnit,
}

impl RegNetBlockConfig {
    /// Makes the block; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> RegNetBlock {
        let [inputs, outputs] = self.channels;
        let conv = |inputs, size: usize| {
            let config = ConvUnitConfig::square(inputs, outputs, size).padded(size / 2).with_batch_norm();
            config.with_init(self.init)
        };
        let shape_changes = self.stride != 1 || inputs != outputs;
        let groups = outputs / self.group_width;
        let squeeze = |squeezed| SqueezeExcitationConfig::new(outputs, squeezed).with_init(self.init).init(device);
        RegNetBlock {
            proj: shape_changes.then(|| conv(inputs, 1).strided(self.stride).linear().init(device)),
            a: conv(inputs, 1).init(device),
            b: conv(outputs, 3).strided(self.stride).with_groups(groups).init(device),
            se: self.squeezed.map(squeeze),
            c: conv(outputs, 1).linear().init(device),
        }
    }
}

impl RegNetBlock {
    /// `[batch, inputs, height, width]` to `[batch, outputs, ⌈height / stride⌉, ⌈width / stride⌉]`.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M {
        input.segment(self)
    }
}

impl Segment for RegNetBlock {
    fn pass<M: FeatureMap>(&self, input: M) -> M {
        let [input, start] = input.fork();
        let shortcut = match &self.proj {
            Some(proj) => proj.forward(start),
            None => start,
        };
        let x = self.b.forward(self.a.forward(input));
        let x = match &self.se {
            Some(se) => se.forward(x),
            None => x,
        };
        self.c.forward(x).add_relu(shortcut)
    }
}
