use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;

use crate::features::{FeatureMap, Segment};
use crate::{ConvUnit, ConvUnitConfig, Init, LocalResponseNorm, NormConfig, Pool, PoolConfig};

/// Configures a [`VggBlock`].
#[derive(Config, Debug)]
pub struct VggBlockConfig {
    /// Input and output channels.
    pub channels: [usize; 2],
    /// Number of convolutions.
    pub convolutions: usize,
    /// Normalization after each convolution, if any.
    pub norm: Option<NormConfig>,
    /// Height and width of the last convolution's kernel: 1 in the paper's configuration C.
    #[config(default = 3)]
    pub last_kernel: usize,
    /// Local response normalization before the pooling: the paper's configuration A-LRN.
    #[config(default = false)]
    pub response_norm: bool,
    /// Weight initialization.
    #[config(default = "Init::KaimingNormalFanOut")]
    pub init: Init,
}

/// 3×3 convolutions and 2×2 max pooling that halves the feature map
/// ([Simonyan and Zisserman, 2014](https://arxiv.org/abs/1409.1556)).
#[derive(Module, Debug)]
pub struct VggBlock {
    convs: Vec<ConvUnit>,
    norm: Option<LocalResponseNorm>,
    pool: Pool,
}

impl VggBlockConfig {
    /// Makes the block; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> VggBlock {
        let [inputs, outputs] = self.channels;
        let convs = (0..self.convolutions).map(|i| {
            let inputs = if i == 0 { inputs } else { outputs };
            let size = if i + 1 == self.convolutions { self.last_kernel } else { 3 };
            let conv = ConvUnitConfig::square(inputs, outputs, size).padded(size / 2);
            conv.with_norm(self.norm).with_init(self.init).init(device)
        });
        VggBlock {
            convs: convs.collect(),
            norm: self.response_norm.then(LocalResponseNorm::alexnet),
            pool: PoolConfig::max(2, 2).init(),
        }
    }
}

impl VggBlock {
    /// `[batch, inputs, height, width]` to `[batch, outputs, height / 2, width / 2]`.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M {
        input.segment(self)
    }
}

impl Segment for VggBlock {
    fn pass<M: FeatureMap>(&self, input: M) -> M {
        let output = self.convs.iter().fold(input, |x, conv| conv.forward(x));
        self.pool.forward(match &self.norm {
            Some(norm) => norm.forward(output),
            None => output,
        })
    }
}
