//! MobileNetV2: Sandler, Howard, Zhu, Zhmoginov, Chen, *MobileNetV2: Inverted Residuals and Linear Bottlenecks*,
//! [arXiv:1801.04381](https://arxiv.org/abs/1801.04381), 2018.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;
use convzoo_blocks::{
    Activation, ConvUnit, ConvUnitConfig, FeatureMap, Init, InvertedResidual, InvertedResidualConfig, PooledHead,
    PooledHeadConfig,
};

use crate::names::{index, place, rename};
use crate::registry::{Build, Opt, Sizes, Variant};
use crate::widths::make_divisible;
use crate::{Classifier, Options, Published};

const fn variant(name: &'static str, config: fn() -> MobileNetV2Config) -> Variant {
    Variant {
        name,
        family: "mobilenet_v2",
        year: 2018,
        paper: "https://arxiv.org/abs/1801.04381",
        input: [3, 224, 224],
        classes: 1000,
        sizes: Sizes::From(1),
        takes: &[Opt::Dropout],
        weights: WEIGHTS,
        build: Build::MobileNetV2(config),
    }
}

pub(crate) const VARIANTS: &[Variant] = &[variant("mobilenet_v2", MobileNetV2Config::new)];

/// Published by torchvision.
const WEIGHTS: &[Published] = &[
    Published::new("mobilenet_v2", "imagenet1k_v1", "mobilenet_v2-b0353104.pth", 71.878, 90.286, 256),
    Published::new("mobilenet_v2", "imagenet1k_v2", "mobilenet_v2-7ebf99e0.pth", 72.154, 90.822, 232),
];

/// Table 2 of the paper: expansion, channels, blocks, stride of the first.
const STAGES: [[usize; 4]; 7] =
    [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 3, 2], [6, 64, 4, 2], [6, 96, 3, 1], [6, 160, 3, 2], [6, 320, 1, 1]];

/// Configures a [`MobileNetV2`].
#[derive(Config, Debug)]
pub struct MobileNetV2Config {
    /// Width multiplier.
    #[config(default = 1.0)]
    pub width: f64,
    /// Number of classes; 0 leaves the linear layer out.
    #[config(default = 1000)]
    pub classes: usize,
    /// Channels of the images.
    #[config(default = 3)]
    pub channels: usize,
    /// Dropout probability before the linear layer.
    #[config(default = 0.2)]
    pub dropout: f64,
}

/// A strided convolution, inverted residuals, a 1×1 convolution, global average pooling, one linear layer.
#[derive(Module, Debug)]
pub struct MobileNetV2 {
    stem: ConvUnit,
    blocks: Vec<InvertedResidual>,
    last: ConvUnit,
    head: PooledHead,
}

impl MobileNetV2Config {
    pub(crate) fn with_options(self, options: &Options) -> Self {
        let dropout = options.dropout.unwrap_or(self.dropout);
        self.with_dropout(dropout)
    }

    /// Makes the network; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> MobileNetV2 {
        let scaled = |channels: usize| make_divisible(channels as f64 * self.width, 8);
        let conv = |inputs, outputs, size: usize| {
            let config = ConvUnitConfig::square(inputs, outputs, size).padded(size / 2).with_batch_norm();
            config.with_activation(Activation::Relu6).with_init(Init::KaimingNormalFanOut)
        };
        let mut inputs = scaled(32);
        let stem = conv(self.channels, inputs, 3).strided(2).init(device);
        let mut blocks = Vec::new();
        for [expansion, channels, depth, stride] in STAGES {
            for block in 0..depth {
                let channels = [inputs, scaled(channels)];
                let config = InvertedResidualConfig::new(channels, expansion * inputs);
                blocks.push(config.with_stride(if block == 0 { stride } else { 1 }).init(device));
                inputs = channels[1];
            }
        }
        let features = make_divisible(1280.0 * self.width.max(1.0), 8);
        let head = PooledHeadConfig::new(features, self.classes).with_dropout(self.dropout);
        MobileNetV2 {
            stem,
            blocks,
            last: conv(inputs, features, 1).init(device),
            head: head.with_init(Init::Normal(0.01)).init(device),
        }
    }
}

impl Classifier for MobileNetV2 {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        self.last.forward(self.blocks.iter().fold(self.stem.forward(images), |x, block| block.forward(x)))
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.head.forward(features)
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { head: self.head.replace_classes(classes), ..self }
    }

    /// torchvision numbers convolution, blocks and convolution in one sequence, `features`.
    fn reference_name(&self, path: &[&str]) -> String {
        match path {
            ["stem", unit, tensor] => rename(&["features.0", &place(unit).to_string()], tensor),
            ["last", unit, tensor] => rename(&[&format!("features.{}.{}", self.blocks.len() + 1, place(unit))], tensor),
            ["blocks", block, layer, unit, tensor] => {
                let first = self.blocks[index(block)].place(layer);
                let name = match *layer {
                    "project" => format!("{}", first + place(unit)),
                    _ => format!("{first}.{}", place(unit)),
                };
                rename(&[&format!("features.{}.conv.{name}", index(block) + 1)], tensor)
            }
            ["head", "fc", tensor] => rename(&["classifier.1"], tensor),
            _ => path.join("."),
        }
    }
}
