//! ShuffleNet V2: Ma, Zhang, Zheng, Sun, *ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design*,
//! [arXiv:1807.11164](https://arxiv.org/abs/1807.11164), 2018.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;
use convzoo_blocks::{
    ConvUnit, ConvUnitConfig, FeatureMap, Pool, PoolConfig, PooledHead, PooledHeadConfig, ShuffleUnit,
    ShuffleUnitConfig,
};

use crate::names::{index, place, rename};
use crate::registry::{Build, Sizes, Variant};
use crate::{Classifier, Options, Published};

const fn variant(name: &'static str, config: fn() -> ShuffleNetV2Config) -> Variant {
    Variant {
        name,
        family: "shufflenet_v2",
        year: 2018,
        paper: "https://arxiv.org/abs/1807.11164",
        input: [3, 224, 224],
        classes: 1000,
        sizes: Sizes::From(1),
        takes: &[],
        weights: WEIGHTS,
        build: Build::ShuffleNetV2(config),
    }
}

pub(crate) const VARIANTS: &[Variant] = &[
    variant("shufflenet_v2_x0_5", || ShuffleNetV2Config::new([48, 96, 192], 1024)),
    variant("shufflenet_v2_x1_0", || ShuffleNetV2Config::new([116, 232, 464], 1024)),
    variant("shufflenet_v2_x1_5", || ShuffleNetV2Config::new([176, 352, 704], 1024)),
    variant("shufflenet_v2_x2_0", || ShuffleNetV2Config::new([244, 488, 976], 2048)),
];

/// Published by torchvision.
const WEIGHTS: &[Published] = &[
    Published::new("shufflenet_v2_x0_5", "imagenet1k_v1", "shufflenetv2_x0.5-f707e7126e.pth", 60.552, 81.746, 256),
    Published::new("shufflenet_v2_x1_0", "imagenet1k_v1", "shufflenetv2_x1-5666bf0f80.pth", 69.362, 88.316, 256),
    Published::new("shufflenet_v2_x1_5", "imagenet1k_v1", "shufflenetv2_x1_5-3c479a10.pth", 72.996, 91.086, 232),
    Published::new("shufflenet_v2_x2_0", "imagenet1k_v1", "shufflenetv2_x2_0-8be3c8ee.pth", 76.23, 93.006, 232),
];

/// Units of each stage, in all networks of the paper's table 5.
const DEPTHS: [usize; 3] = [4, 8, 4];

/// Configures a [`ShuffleNetV2`].
#[derive(Config, Debug)]
pub struct ShuffleNetV2Config {
    /// Channels of the stages.
    pub widths: [usize; 3],
    /// Channels of the last convolution.
    pub features: usize,
    /// Number of classes; 0 leaves the linear layer out.
    #[config(default = 1000)]
    pub classes: usize,
    /// Channels of the images.
    #[config(default = 3)]
    pub channels: usize,
}

/// A strided convolution, a max pooling, three stages of shuffle units, a 1×1 convolution, global average pooling, one
/// linear layer.
#[derive(Module, Debug)]
pub struct ShuffleNetV2 {
    conv1: ConvUnit,
    maxpool: Pool,
    stages: Vec<Vec<ShuffleUnit>>,
    conv5: ConvUnit,
    head: PooledHead,
}

impl ShuffleNetV2Config {
    pub(crate) fn with_options(self, _: &Options) -> Self {
        self
    }

    /// Makes the network; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> ShuffleNetV2 {
        let mut inputs = 24;
        let conv1 = ConvUnitConfig::square(self.channels, inputs, 3).strided(2).padded(1).with_batch_norm();
        let stages = [0, 1, 2].map(|stage| {
            let units = (0..DEPTHS[stage]).map(|unit| {
                let outputs = self.widths[stage];
                let config = ShuffleUnitConfig::new([std::mem::replace(&mut inputs, outputs), outputs]);
                config.with_stride(if unit == 0 { 2 } else { 1 }).init(device)
            });
            units.collect::<Vec<_>>()
        });
        ShuffleNetV2 {
            conv1: conv1.init(device),
            maxpool: PoolConfig::max(3, 2).with_padding([1, 1]).init(),
            stages: stages.into(),
            conv5: ConvUnitConfig::square(inputs, self.features, 1).with_batch_norm().init(device),
            head: PooledHeadConfig::new(self.features, self.classes).init(device),
        }
    }
}

impl Classifier for ShuffleNetV2 {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        let x = self.maxpool.forward(self.conv1.forward(images));
        self.conv5.forward(self.stages.iter().flatten().fold(x, |x, unit| unit.forward(x)))
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.head.forward(features)
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { head: self.head.replace_classes(classes), ..self }
    }

    /// torchvision numbers convolutions, norms and activations of a branch in one sequence.
    fn reference_name(&self, path: &[&str]) -> String {
        match path {
            ["stages", stage, unit, branch, conv, part, tensor] => {
                let first = match (*branch, *conv) {
                    (_, "conv1") | ("branch1", "depthwise") => 0,
                    ("branch1", _) => 2,
                    (_, "depthwise") => 3,
                    _ => 5,
                };
                let layer = format!("{branch}.{}", first + place(part));
                rename(&[&format!("stage{}.{unit}", index(stage) + 2), &layer], tensor)
            }
            [conv, part @ ("conv" | "norm"), tensor] => rename(&[conv, &place(part).to_string()], tensor),
            ["head", "fc", tensor] => rename(&["fc"], tensor),
            _ => path.join("."),
        }
    }
}
