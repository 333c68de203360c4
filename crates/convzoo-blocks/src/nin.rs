use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;

use crate::features::{FeatureMap, Segment};
use crate::{ConvUnit, ConvUnitConfig, Init};

/// Configures a [`NinBlock`].
#[derive(Config, Debug)]
pub struct NinBlockConfig {
    /// Input channels.
    pub inputs: usize,
    /// Channels of the spatial convolution and of the two 1×1 after it.
    pub widths: [usize; 3],
    /// Height and width of the spatial convolution's kernel.
    pub kernel_size: usize,
    /// Stride of the spatial convolution.
    #[config(default = 1)]
    pub stride: usize,
    /// Zero padding of the spatial convolution.
    #[config(default = 0)]
    pub padding: usize,
    /// Weight initialization.
    #[config(default = "Init::Torch")]
    pub init: Init,
}

/// A convolution whose linear filters are replaced by a small perceptron at every position: a spatial convolution and
/// two 1×1, each with ReLU ([Lin et al., 2013](https://arxiv.org/abs/1312.4400)).
#[derive(Module, Debug)]
pub struct NinBlock {
    conv: ConvUnit,
    cccp1: ConvUnit,
    cccp2: ConvUnit,
}

impl NinBlockConfig {
    /// Makes the block; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> NinBlock {
        let [spatial, hidden, outputs] = self.widths;
        let conv = |inputs, outputs, size| ConvUnitConfig::square(inputs, outputs, size).with_init(self.init);
        NinBlock {
            conv: conv(self.inputs, spatial, self.kernel_size).strided(self.stride).padded(self.padding).init(device),
            cccp1: conv(spatial, hidden, 1).init(device),
            cccp2: conv(hidden, outputs, 1).init(device),
        }
    }
}

impl NinBlock {
    /// `[batch, inputs, height, width]` to `[batch, widths[2], height', width']`.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M {
        input.segment(self)
    }

    /// Replaces the last 1×1 convolution with a new one of `outputs` channels, for a block that ends in class scores.
    pub fn replace_outputs(self, outputs: usize) -> Self {
        let last = self.cccp2.replace_outputs(outputs).expect("the block's last unit is a plain 1×1 convolution");
        Self { cccp2: last, ..self }
    }
}

impl Segment for NinBlock {
    fn pass<M: FeatureMap>(&self, input: M) -> M {
        self.cccp2.forward(self.cccp1.forward(self.conv.forward(input)))
    }
}
