//! DenseNet: Huang, Liu, van der Maaten, Weinberger, *Densely Connected Convolutional Networks*,
//! [arXiv:1608.06993](https://arxiv.org/abs/1608.06993), 2016: the networks for ImageNet, all of the form BC, with
//! bottlenecks and compression.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;
use convzoo_blocks::{
    BatchNorm2d, BatchNorm2dConfig, ConvUnit, ConvUnitConfig, DenseBlock, DenseBlockConfig, FeatureMap, GlobalPooling,
    Init, Pool, PoolConfig, PooledHead, PooledHeadConfig, Transition, TransitionConfig,
};

use crate::names::{index, rename};
use crate::registry::{Build, Opt, Sizes, Variant};
use crate::{Classifier, Options, Published};

const fn variant(name: &'static str, config: fn() -> DenseNetConfig) -> Variant {
    Variant {
        name,
        family: "densenet",
        year: 2016,
        paper: "https://arxiv.org/abs/1608.06993",
        input: [3, 224, 224],
        classes: 1000,
        sizes: Sizes::From(29),
        takes: &[Opt::Dropout, Opt::MemoryEfficient],
        weights: WEIGHTS,
        build: Build::DenseNet(config),
    }
}

pub(crate) const VARIANTS: &[Variant] = &[
    variant("densenet121", || DenseNetConfig::new([6, 12, 24, 16], 32)),
    variant("densenet161", || DenseNetConfig::new([6, 12, 36, 24], 48).with_width(96)),
    variant("densenet169", || DenseNetConfig::new([6, 12, 32, 32], 32)),
    variant("densenet201", || DenseNetConfig::new([6, 12, 48, 32], 32)),
];

/// Published by torchvision.
const WEIGHTS: &[Published] = &[
    Published::new("densenet121", "imagenet1k_v1", "densenet121-a639ec97.pth", 74.434, 91.972, 256),
    Published::new("densenet161", "imagenet1k_v1", "densenet161-8d451a50.pth", 77.138, 93.56, 256),
    Published::new("densenet169", "imagenet1k_v1", "densenet169-b2777c0a.pth", 75.6, 92.806, 256),
    Published::new("densenet201", "imagenet1k_v1", "densenet201-c1103571.pth", 76.896, 93.37, 256),
];

/// Configures a [`DenseNet`].
#[derive(Config, Debug)]
pub struct DenseNetConfig {
    /// Layers of each of the four dense blocks.
    pub depths: [usize; 4],
    /// Growth rate: the channels that each layer adds.
    pub growth_rate: usize,
    /// Channels of the first convolution.
    #[config(default = 64)]
    pub width: usize,
    /// Width of the 1×1 convolutions in growth rates (`bn_size`).
    #[config(default = 4)]
    pub bottleneck: usize,
    /// Number of classes; 0 leaves the linear layer out.
    #[config(default = 1000)]
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

/// Four dense blocks with transitions between them that halve channels and feature map.
#[derive(Module, Debug)]
pub struct DenseNet {
    stem: ConvUnit,
    pool: Pool,
    blocks: Vec<DenseBlock>,
    transitions: Vec<Transition>,
    norm: BatchNorm2d,
    head: PooledHead,
}

impl DenseNetConfig {
    pub(crate) fn with_options(self, options: &Options) -> Self {
        let dropout = options.dropout.unwrap_or(self.dropout);
        let memory_efficient = options.memory_efficient.unwrap_or(self.memory_efficient);
        self.with_dropout(dropout).with_memory_efficient(memory_efficient)
    }

    /// Makes the network; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> DenseNet {
        let mut blocks = Vec::new();
        let mut transitions = Vec::new();
        let mut channels = self.width;
        for depth in self.depths {
            if !blocks.is_empty() {
                transitions.push(TransitionConfig::new([channels, channels / 2]).init(device));
                channels /= 2;
            }
            let block = DenseBlockConfig::new(channels, depth, self.growth_rate)
                .with_bottleneck(Some(self.bottleneck))
                .with_dropout(self.dropout)
                .with_memory_efficient(self.memory_efficient);
            blocks.push(block.init(device));
            channels = block.outputs();
        }
        let stem = ConvUnitConfig::square(self.channels, self.width, 7).strided(2).padded(3).with_batch_norm();
        DenseNet {
            stem: stem.with_init(Init::KaimingNormalFanIn).init(device),
            pool: PoolConfig::max(3, 2).with_padding([1, 1]).init(),
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

impl Classifier for DenseNet {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        let x = self.pool.forward(self.stem.forward(images));
        self.norm.forward(forward_dense(&self.blocks, &self.transitions, x)).relu()
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.head.forward(features)
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { head: self.head.replace_classes(classes), ..self }
    }

    fn reference_name(&self, path: &[&str]) -> String {
        match path {
            ["stem", part, tensor] => rename(&[&format!("features.{part}0")], tensor),
            ["pool", tensor] => rename(&["features.pool0"], tensor),
            ["norm", tensor] => rename(&["features.norm5"], tensor),
            _ => dense_name(path),
        }
    }

    /// torchvision's published files are older than its names: `norm.1` for `norm1`.
    fn respell(&self, name: &str) -> String {
        match name.split_once(".denselayer") {
            Some((block, layer)) => {
                let layer = layer.replacen(".1.", "1.", 1).replacen(".2.", "2.", 1);
                format!("{block}.denselayer{layer}")
            }
            None => name.to_owned(),
        }
    }
}

/// Dense blocks with a transition after each but the last, `[batch, channels, height, width]` to
/// `[batch, channels', height', width']`.
pub(super) fn forward_dense<M: FeatureMap>(blocks: &[DenseBlock], transitions: &[Transition], input: M) -> M {
    blocks.iter().enumerate().fold(input, |x, (i, block)| {
        let x = block.forward(x);
        match transitions.get(i) {
            Some(transition) => transition.forward(x),
            None => x,
        }
    })
}

/// torchvision counts blocks, layers, norms and convolutions from one.
pub(super) fn dense_name(path: &[&str]) -> String {
    let block = |kind: &str, number: &str| format!("features.{kind}{}", index(number) + 1);
    match path {
        ["blocks", number, "layers", layer, unit, part, tensor] => {
            let unit = if *unit == "bottleneck" { 1 } else { 2 };
            let layer = format!("denselayer{}.{part}{unit}", index(layer) + 1);
            rename(&[&block("denseblock", number), &layer], tensor)
        }
        ["transitions", number, "unit", part, tensor] => rename(&[&block("transition", number), part], tensor),
        ["transitions", number, "pool", tensor] => rename(&[&block("transition", number), "pool"], tensor),
        ["head", "pool", tensor] => rename(&["avgpool"], tensor),
        ["head", "fc", tensor] => rename(&["classifier"], tensor),
        _ => path.join("."),
    }
}
