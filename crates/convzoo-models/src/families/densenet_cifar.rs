//! DenseNet for CIFAR: Huang, Liu, van der Maaten, Weinberger, *Densely Connected Convolutional Networks*,
//! [arXiv:1608.06993](https://arxiv.org/abs/1608.06993), 2016, table 2: depth and growth rate k give the name.
//!
//! 1.0M, 7.0M and, with bottlenecks and compression, 0.8M parameters. Trained without augmentation, the paper uses
//! dropout of 0.2 ([`Options::dropout`](crate::Options::dropout)).

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;
use convzoo_blocks::{
    BatchNorm2d, BatchNorm2dConfig, ConvUnit, ConvUnitConfig, DenseBlock, DenseBlockConfig, FeatureMap, GlobalPooling,
    Init, PooledHead, PooledHeadConfig, Transition, TransitionConfig,
};

use super::densenet::{dense_name, forward_dense};
use crate::names::rename;
use crate::registry::{Build, Opt, Sizes, Variant};
use crate::{Classifier, Options, Preprocessing};

const fn variant(name: &'static str, config: fn() -> CifarDenseNetConfig) -> Variant {
    Variant {
        name,
        family: "densenet",
        year: 2016,
        paper: "https://arxiv.org/abs/1608.06993",
        input: [3, 32, 32],
        classes: 10,
        sizes: Sizes::From(4),
        takes: &[Opt::Dropout, Opt::MemoryEfficient],
        weights: &[],
        build: Build::CifarDenseNet(config),
    }
}

pub(crate) const VARIANTS: &[Variant] = &[
    variant("densenet40_k12", || CifarDenseNetConfig::new(40, 12)),
    variant("densenet100_k12", || CifarDenseNetConfig::new(100, 12)),
    variant("densenet_bc100_k12", || CifarDenseNetConfig::new(100, 12).with_bc(true)),
];

/// The initialization of convolutions in the authors' Torch code.
const INIT: Init = Init::KaimingNormalFanOut;

/// Configures a [`CifarDenseNet`].
#[derive(Config, Debug)]
pub struct CifarDenseNetConfig {
    /// Layers in all, 3 · n + 4.
    pub depth: usize,
    /// Growth rate: the channels that each layer adds.
    pub growth_rate: usize,
    /// Whether layers have bottlenecks and transitions compress: the form BC.
    #[config(default = false)]
    pub bc: bool,
    /// Number of classes.
    #[config(default = 10)]
    pub classes: usize,
    /// Channels of the images.
    #[config(default = 3)]
    pub channels: usize,
    /// Global pooling before the classifier.
    #[config(default = "GlobalPooling::Average")]
    pub global_pool: GlobalPooling,
    /// Dropout probability of the new features.
    #[config(default = 0.0)]
    pub dropout: f64,
    /// Whether training recomputes normalized features rather than keep a copy for every layer.
    #[config(default = false)]
    pub memory_efficient: bool,
}

/// Three dense blocks of equal depth.
#[derive(Module, Debug)]
pub struct CifarDenseNet {
    stem: ConvUnit,
    blocks: Vec<DenseBlock>,
    transitions: Vec<Transition>,
    norm: BatchNorm2d,
    head: PooledHead,
}

impl CifarDenseNetConfig {
    pub(crate) fn with_options(self, options: &Options) -> Self {
        let dropout = options.dropout.unwrap_or(self.dropout);
        let memory_efficient = options.memory_efficient.unwrap_or(self.memory_efficient);
        self.with_dropout(dropout).with_memory_efficient(memory_efficient)
    }

    /// Makes the network; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> CifarDenseNet {
        // The first convolution, two transitions and the classifier count too; a layer with bottleneck counts twice.
        let layers = (self.depth - 4) / 3 / if self.bc { 2 } else { 1 };
        let width = if self.bc { 2 * self.growth_rate } else { 16 };
        let mut blocks = Vec::new();
        let mut transitions = Vec::new();
        let mut channels = width;
        for _ in 0..3 {
            if !blocks.is_empty() {
                let compressed = if self.bc { channels / 2 } else { channels };
                transitions.push(TransitionConfig::new([channels, compressed]).with_init(INIT).init(device));
                channels = compressed;
            }
            let block = DenseBlockConfig::new(channels, layers, self.growth_rate)
                .with_bottleneck(self.bc.then_some(4))
                .with_dropout(self.dropout)
                .with_memory_efficient(self.memory_efficient)
                .with_init(INIT);
            blocks.push(block.init(device));
            channels = block.outputs();
        }
        // Every dense layer starts with a norm of its own: none follows the first convolution.
        let stem = ConvUnitConfig::square(self.channels, width, 3).padded(1).with_bias(false).linear();
        CifarDenseNet {
            stem: stem.with_init(INIT).init(device),
            blocks,
            transitions,
            norm: BatchNorm2dConfig::new(channels).init(device),
            head: PooledHeadConfig::new(channels, self.classes)
                .with_global_pool(self.global_pool)
                .with_init(Init::TorchZeroBias)
                .init(device),
        }
    }
}

impl Classifier for CifarDenseNet {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        let x = self.stem.forward(images);
        self.norm.forward(forward_dense(&self.blocks, &self.transitions, x)).relu()
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.head.forward(features)
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { head: self.head.replace_classes(classes), ..self }
    }

    fn preprocessing(&self) -> Preprocessing {
        Preprocessing::small(32)
    }

    /// As torchvision names the larger ones.
    fn reference_name(&self, path: &[&str]) -> String {
        match path {
            ["stem", "conv", tensor] => rename(&["features.conv0"], tensor),
            ["norm", tensor] => rename(&["features.norm4"], tensor),
            _ => dense_name(path),
        }
    }
}
