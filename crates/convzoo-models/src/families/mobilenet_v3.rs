//! MobileNetV3: Howard, Sandler, Chu, Chen, Chen, Tan, Wang, Zhu, Pang, Vasudevan, Le, Adam, *Searching for MobileNetV3*,
//! [arXiv:1905.02244](https://arxiv.org/abs/1905.02244), 2019.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;
use convzoo_blocks::{
    Activation, AdaptiveAvgPool2d, ClassifierHead, ClassifierHeadConfig, ConvUnit, ConvUnitConfig, FeatureMap, Init,
    InvertedResidual, InvertedResidualConfig, NormConfig, SqueezeExcitationConfig,
};

use crate::names::{index, place, rename};
use crate::registry::{Build, Opt, Sizes, Variant};
use crate::widths::make_divisible;
use crate::{Classifier, Options, Published};

const fn variant(name: &'static str, config: fn() -> MobileNetV3Config) -> Variant {
    Variant {
        name,
        family: "mobilenet_v3",
        year: 2019,
        paper: "https://arxiv.org/abs/1905.02244",
        input: [3, 224, 224],
        classes: 1000,
        sizes: Sizes::From(1),
        takes: &[Opt::Dropout],
        weights: WEIGHTS,
        build: Build::MobileNetV3(config),
    }
}

pub(crate) const VARIANTS: &[Variant] = &[
    variant("mobilenet_v3_small", || MobileNetV3Config::new(SMALL.into(), 1024)),
    variant("mobilenet_v3_large", || MobileNetV3Config::new(LARGE.into(), 1280)),
];

/// Published by torchvision.
const WEIGHTS: &[Published] = &[
    Published::new("mobilenet_v3_large", "imagenet1k_v1", "mobilenet_v3_large-8738ca79.pth", 74.042, 91.34, 256),
    Published::new("mobilenet_v3_large", "imagenet1k_v2", "mobilenet_v3_large-5c1a4163.pth", 75.274, 92.566, 232),
    Published::new("mobilenet_v3_small", "imagenet1k_v1", "mobilenet_v3_small-047dcff4.pth", 67.668, 87.402, 256),
];

/// Table 2 of the paper.
const SMALL: [Bneck; 11] = [
    bneck(3, 16, 16, true, RE, 2),
    bneck(3, 72, 24, false, RE, 2),
    bneck(3, 88, 24, false, RE, 1),
    bneck(5, 96, 40, true, HS, 2),
    bneck(5, 240, 40, true, HS, 1),
    bneck(5, 240, 40, true, HS, 1),
    bneck(5, 120, 48, true, HS, 1),
    bneck(5, 144, 48, true, HS, 1),
    bneck(5, 288, 96, true, HS, 2),
    bneck(5, 576, 96, true, HS, 1),
    bneck(5, 576, 96, true, HS, 1),
];

/// Table 1 of the paper.
const LARGE: [Bneck; 15] = [
    bneck(3, 16, 16, false, RE, 1),
    bneck(3, 64, 24, false, RE, 2),
    bneck(3, 72, 24, false, RE, 1),
    bneck(5, 72, 40, true, RE, 2),
    bneck(5, 120, 40, true, RE, 1),
    bneck(5, 120, 40, true, RE, 1),
    bneck(3, 240, 80, false, HS, 2),
    bneck(3, 200, 80, false, HS, 1),
    bneck(3, 184, 80, false, HS, 1),
    bneck(3, 184, 80, false, HS, 1),
    bneck(3, 480, 112, true, HS, 1),
    bneck(3, 672, 112, true, HS, 1),
    bneck(5, 672, 160, true, HS, 2),
    bneck(5, 960, 160, true, HS, 1),
    bneck(5, 960, 160, true, HS, 1),
];

const RE: Activation = Activation::Relu;
const HS: Activation = Activation::Hardswish;

/// A row of the paper's tables: a block, without its inputs.
#[derive(Config, Debug, Copy)]
pub struct Bneck {
    /// Height and width of the depthwise kernel.
    pub kernel_size: usize,
    /// Channels in the middle.
    pub expanded: usize,
    /// Output channels.
    pub outputs: usize,
    /// Whether it has squeeze-and-excitation.
    pub squeezes: bool,
    /// Its activation.
    pub activation: Activation,
    /// Its stride.
    pub stride: usize,
}

const fn bneck(
    kernel_size: usize,
    expanded: usize,
    outputs: usize,
    squeezes: bool,
    activation: Activation,
    stride: usize,
) -> Bneck {
    Bneck { kernel_size, expanded, outputs, squeezes, activation, stride }
}

/// Configures a [`MobileNetV3`].
#[derive(Config, Debug)]
pub struct MobileNetV3Config {
    /// The blocks.
    pub blocks: Vec<Bneck>,
    /// Features between the two linear layers.
    pub hidden: usize,
    /// Number of classes.
    #[config(default = 1000)]
    pub classes: usize,
    /// Channels of the images.
    #[config(default = 3)]
    pub channels: usize,
    /// Dropout probability before the last linear layer.
    #[config(default = 0.2)]
    pub dropout: f64,
}

/// A strided convolution, inverted residuals, a 1×1 convolution, global average pooling, two linear layers.
#[derive(Module, Debug)]
pub struct MobileNetV3 {
    stem: ConvUnit,
    blocks: Vec<InvertedResidual>,
    last: ConvUnit,
    avgpool: AdaptiveAvgPool2d,
    classifier: ClassifierHead,
}

const NORM: NormConfig = NormConfig::Batch { epsilon: 1e-3, momentum: 0.01 };

impl MobileNetV3Config {
    pub(crate) fn with_options(self, options: &Options) -> Self {
        let dropout = options.dropout.unwrap_or(self.dropout);
        self.with_dropout(dropout)
    }

    /// Makes the network; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> MobileNetV3 {
        let conv = |inputs, outputs, size: usize| {
            let config = ConvUnitConfig::square(inputs, outputs, size).padded(size / 2).with_bias(false);
            config.with_norm(Some(NORM)).with_activation(HS).with_init(Init::KaimingNormalFanOut)
        };
        let mut inputs = 16;
        let stem = conv(self.channels, inputs, 3).strided(2).init(device);
        let blocks =
            self.blocks.iter().map(|&Bneck { kernel_size, expanded, outputs, squeezes, activation, stride }| {
                let squeeze = SqueezeExcitationConfig::new(expanded, make_divisible((expanded / 4) as f64, 8));
                let channels = [std::mem::replace(&mut inputs, outputs), outputs];
                let config =
                    InvertedResidualConfig::new(channels, expanded).with_kernel_size(kernel_size).with_stride(stride);
                let config = config.with_squeeze(squeezes.then(|| squeeze.with_gate(Activation::Hardsigmoid)));
                config.with_activation(activation).with_norm(NORM).init(device)
            });
        let blocks: Vec<_> = blocks.collect();
        let features = 6 * inputs;
        let head = ClassifierHeadConfig::new(vec![features, self.hidden, self.classes]).with_dropout(self.dropout);
        MobileNetV3 {
            stem,
            blocks,
            last: conv(inputs, features, 1).init(device),
            avgpool: AdaptiveAvgPool2d::new([1, 1]),
            classifier: head.with_dropout_first(false).with_activation(HS).with_init(Init::Normal(0.01)).init(device),
        }
    }
}

impl Classifier for MobileNetV3 {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        self.last.forward(self.blocks.iter().fold(self.stem.forward(images), |x, block| block.forward(x)))
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.classifier.forward(self.avgpool.forward(features).flatten())
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { classifier: self.classifier.replace_classes(classes), ..self }
    }

    /// torchvision numbers convolution, blocks and convolution in one sequence, `features`.
    fn reference_name(&self, path: &[&str]) -> String {
        match path {
            ["stem", unit, tensor] => rename(&["features.0", &place(unit).to_string()], tensor),
            ["last", unit, tensor] => rename(&[&format!("features.{}.{}", self.blocks.len() + 1, place(unit))], tensor),
            ["blocks", block, rest @ .., tensor] => {
                let number = index(block);
                rename(&[&format!("features.{}.block", number + 1), &mbconv_name(&self.blocks[number], rest)], tensor)
            }
            ["classifier", "layers", layer, tensor] => rename(&["classifier", ["0", "3"][index(layer)]], tensor),
            _ => path.join("."),
        }
    }
}

/// torchvision numbers the parts of a block that are there.
pub(super) fn mbconv_name(block: &InvertedResidual, path: &[&str]) -> String {
    match path {
        ["se", layer, ..] => format!("{}.{layer}", block.place("se")),
        [part, unit] => format!("{}.{}", block.place(part), place(unit)),
        _ => path.join("."),
    }
}
