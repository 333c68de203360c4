//! The network of a CIFAR-10 speed record: Jordan, *94% on CIFAR-10 in 3.29 Seconds on a Single GPU*,
//! [arXiv:2404.00498](https://arxiv.org/abs/2404.00498), 2024, section 3.1. Its line of records goes back to D. Page's and
//! T. Balsam's networks.
//!
//! Built like VGG, but short: it is to learn in few passes over the images rather than to be good after many. Its first
//! convolution is trained like the others here; the paper computes it from the training images and freezes it.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;
use convzoo_blocks::{
    Activation, ConvUnit, ConvUnitConfig, FeatureMap, GlobalPool, GlobalPooling, Init, Linear, LinearConfig, Norm,
    NormConfig, Pool, PoolConfig, Scale,
};

use crate::names::{index, rename};
use crate::registry::{Build, Sizes, Variant};
use crate::{Classifier, Options, Preprocessing};

pub(crate) const VARIANTS: &[Variant] = &[Variant {
    name: "airbench94",
    family: "airbench",
    year: 2024,
    paper: "https://arxiv.org/abs/2404.00498",
    input: [3, 32, 32],
    classes: 10,
    sizes: Sizes::From(9),
    takes: &[],
    weights: &[],
    build: Build::Airbench(AirbenchConfig::new),
}];

/// What the pooled features are multiplied by, so that training begins with small logits.
const SCALE: f64 = 1.0 / 9.0;

/// Configures an [`Airbench`].
#[derive(Config, Debug)]
pub struct AirbenchConfig {
    /// Channels of the first convolution: twice the values of a patch of 2×2 pixels in three colours.
    #[config(default = 24)]
    pub stem: usize,
    /// Channels of each block.
    #[config(default = "[64, 256, 256]")]
    pub widths: [usize; 3],
    /// Number of classes.
    #[config(default = 10)]
    pub classes: usize,
    /// Channels of the images.
    #[config(default = 3)]
    pub channels: usize,
}

/// A 2×2 convolution, three blocks that halve the feature map, global max pooling, one linear layer.
#[derive(Module, Debug)]
pub struct Airbench {
    stem: ConvUnit,
    blocks: Vec<AirbenchBlock>,
    pool: GlobalPool,
    fc: Linear,
}

/// Two 3×3 convolutions, a max pooling after the first; each ends in batch normalization and GELU.
#[derive(Module, Debug)]
pub struct AirbenchBlock {
    conv1: ConvUnit,
    pool: Pool,
    norm1: Norm,
    conv2: ConvUnit,
}

impl AirbenchConfig {
    pub(crate) fn with_options(self, _: &Options) -> Self {
        self
    }

    /// Makes the network; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> Airbench {
        let mut inputs = self.stem;
        let blocks =
            self.widths.map(|outputs| AirbenchBlock::new(std::mem::replace(&mut inputs, outputs), outputs, device));
        Airbench {
            stem: ConvUnitConfig::square(self.channels, self.stem, 2).with_activation(Activation::Gelu).init(device),
            blocks: blocks.into(),
            pool: GlobalPooling::Max.init(),
            fc: LinearConfig::new(inputs, self.classes).init(device),
        }
    }
}

impl AirbenchBlock {
    fn new(inputs: usize, outputs: usize, device: &Device) -> Self {
        let conv = |inputs| {
            let config = ConvUnitConfig::square(inputs, outputs, 3).padded(1).with_bias(false);
            config.with_init(Init::TorchIdentity)
        };
        Self {
            conv1: conv(inputs).linear().init(device),
            pool: PoolConfig::max(2, 2).init(),
            norm1: NormConfig::BATCH.init(outputs, device),
            conv2: conv(outputs).with_batch_norm().with_activation(Activation::Gelu).init(device),
        }
    }

    /// `[batch, inputs, height, width]` to `[batch, outputs, height / 2, width / 2]`.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M {
        let pooled = self.pool.forward(self.conv1.forward(input));
        self.conv2.forward(self.norm1.forward_activated(pooled, Activation::Gelu))
    }
}

impl Classifier for Airbench {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        self.blocks.iter().fold(self.stem.forward(images), |x, block| block.forward(x))
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.fc.forward(self.pool.forward(features).layer(&Scale(SCALE)).flatten())
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { fc: self.fc.replace_outputs(classes), ..self }
    }

    fn preprocessing(&self) -> Preprocessing {
        Preprocessing::small(32)
    }

    /// The authors number the layers in one sequence: convolution, GELU, blocks, pooling, flattening, linear layer.
    fn reference_name(&self, path: &[&str]) -> String {
        match path {
            ["stem", "conv", tensor] => rename(&["0"], tensor),
            ["blocks", block, layer, rest @ ..] => {
                let block = (index(block) + 2).to_string();
                match (*layer, rest) {
                    ("conv2", ["norm", tensor]) => rename(&[&block, "norm2"], tensor),
                    (conv, ["conv", tensor]) => rename(&[&block, conv], tensor),
                    (layer, rest) => rename(&[&block, layer], &rest.join(".")),
                }
            }
            ["pool", tensor] => rename(&["5"], tensor),
            ["fc", tensor] => rename(&["7"], tensor),
            _ => path.join("."),
        }
    }
}
