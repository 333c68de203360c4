//! ConvNeXt: Liu, Mao, Wu, Feichtenhofer, Darrell, Xie, *A ConvNet for the 2020s*,
//! [arXiv:2201.03545](https://arxiv.org/abs/2201.03545), 2022.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;
use convzoo_blocks::{
    AdaptiveAvgPool2d, ConvNextBlock, ConvNextBlockConfig, ConvUnit, ConvUnitConfig, FeatureMap, Init, LayerNorm2d,
    LayerNorm2dConfig, Linear, LinearConfig, NormConfig, PreActUnit,
};

use crate::names::{index, rename};
use crate::registry::{Build, Opt, Sizes, Variant};
use crate::{Classifier, Options, Preprocessing, Published};

const fn variant(name: &'static str, config: fn() -> ConvNextConfig) -> Variant {
    Variant {
        name,
        family: "convnext",
        year: 2022,
        paper: "https://arxiv.org/abs/2201.03545",
        input: [3, 224, 224],
        classes: 1000,
        sizes: Sizes::From(32),
        takes: &[Opt::DropPath],
        weights: WEIGHTS,
        build: Build::ConvNext(config),
    }
}

pub(crate) const VARIANTS: &[Variant] = &[
    variant("convnext_tiny", || ConvNextConfig::new([96, 192, 384, 768], [3, 3, 9, 3])),
    variant("convnext_small", || ConvNextConfig::new([96, 192, 384, 768], [3, 3, 27, 3]).with_drop_path(0.4)),
    variant("convnext_base", || ConvNextConfig::new([128, 256, 512, 1024], [3, 3, 27, 3]).with_drop_path(0.5)),
    variant("convnext_large", || ConvNextConfig::new([192, 384, 768, 1536], [3, 3, 27, 3]).with_drop_path(0.5)),
];

/// Published by torchvision.
const WEIGHTS: &[Published] = &[
    Published::new("convnext_tiny", "imagenet1k_v1", "convnext_tiny-983f1562.pth", 82.52, 96.146, 236),
    Published::new("convnext_small", "imagenet1k_v1", "convnext_small-0c510722.pth", 83.616, 96.65, 230),
    Published::new("convnext_base", "imagenet1k_v1", "convnext_base-6075fbad.pth", 84.062, 96.87, 232),
    Published::new("convnext_large", "imagenet1k_v1", "convnext_large-ea097f82.pth", 84.414, 96.976, 232),
];

const INIT: Init = Init::Normal(0.02);

const NORM: NormConfig = NormConfig::PixelLayer { epsilon: 1e-6 };

/// Configures a [`ConvNext`].
#[derive(Config, Debug)]
pub struct ConvNextConfig {
    /// Channels of the stages.
    pub widths: [usize; 4],
    /// Blocks of the stages.
    pub depths: [usize; 4],
    /// Drop path rate of the last block; the first's is 0.
    #[config(default = 0.1)]
    pub drop_path: f64,
    /// Number of classes.
    #[config(default = 1000)]
    pub classes: usize,
    /// Channels of the images.
    #[config(default = 3)]
    pub channels: usize,
}

/// A convolution of patches, four stages of blocks, each but the first after a convolution that halves the feature map,
/// global average pooling, one linear layer.
#[derive(Module, Debug)]
pub struct ConvNext {
    stem: ConvUnit,
    stages: Vec<Vec<ConvNextBlock>>,
    downsamplings: Vec<PreActUnit>,
    avgpool: AdaptiveAvgPool2d,
    norm: LayerNorm2d,
    classifier: Linear,
}

impl ConvNextConfig {
    pub(crate) fn with_options(self, options: &Options) -> Self {
        let drop_path = options.drop_path.unwrap_or(self.drop_path);
        self.with_drop_path(drop_path)
    }

    /// Makes the network; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> ConvNext {
        let patches = |inputs, outputs, size| {
            let config = ConvUnitConfig::square(inputs, outputs, size).strided(size).linear();
            config.with_norm(Some(NORM)).with_init(INIT)
        };
        let last = self.depths.iter().sum::<usize>().max(2) - 1;
        let mut rates = (0..).map(|block| self.drop_path * f64::from(block) / last as f64);
        let stages = [0, 1, 2, 3].map(|stage| {
            let config = ConvNextBlockConfig::new(self.widths[stage]).with_init(INIT);
            let blocks = rates.by_ref().take(self.depths[stage]);
            blocks.map(|rate| config.clone().with_drop_path(rate).init(device)).collect::<Vec<_>>()
        });
        let [.., features] = self.widths;
        ConvNext {
            stem: patches(self.channels, self.widths[0], 4).init(device),
            stages: stages.into(),
            downsamplings: self
                .widths
                .windows(2)
                .map(|pair| patches(pair[0], pair[1], 2).init_preact(device))
                .collect(),
            avgpool: AdaptiveAvgPool2d::new([1, 1]),
            norm: LayerNorm2dConfig::new(features).init(device),
            classifier: LinearConfig::new(features, self.classes).with_init(INIT).init(device),
        }
    }
}

impl Classifier for ConvNext {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        self.stages.iter().enumerate().fold(self.stem.forward(images), |x, (i, stage)| {
            let x = match i.checked_sub(1) {
                Some(before) => self.downsamplings[before].forward(x),
                None => x,
            };
            stage.iter().fold(x, |x, block| block.forward(x))
        })
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.classifier.forward(self.norm.forward(self.avgpool.forward(features)).flatten())
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { classifier: self.classifier.replace_outputs(classes), ..self }
    }

    fn preprocessing(&self) -> Preprocessing {
        Preprocessing { resize: Some(236), ..Preprocessing::IMAGENET }
    }

    /// torchvision numbers downsamplings and stages in one sequence, `features`, and the layers of a block in another.
    fn reference_name(&self, path: &[&str]) -> String {
        match path {
            ["stem", "conv", tensor] => rename(&["features.0.0"], tensor),
            ["stem", "norm", tensor] => rename(&["features.0.1"], tensor),
            ["downsamplings", number, part, tensor] => {
                let place = if *part == "norm" { "0" } else { "1" };
                rename(&[&format!("features.{}", 2 * index(number) + 2), place], tensor)
            }
            ["stages", stage, block, rest @ ..] => {
                let block = format!("features.{}.{block}", 2 * index(stage) + 1);
                match rest {
                    ["depthwise", "conv", tensor] => rename(&[&block, "block.0"], tensor),
                    ["depthwise", "norm", tensor] => rename(&[&block, "block.2"], tensor),
                    ["expand", tensor] => rename(&[&block, "block.3"], tensor),
                    ["project", tensor] => rename(&[&block, "block.5"], tensor),
                    ["layer_scale", ..] => rename(&[&block], "layer_scale"),
                    _ => rename(&[&block], &rest.join(".")),
                }
            }
            ["norm", tensor] => rename(&["classifier.0"], tensor),
            ["classifier", tensor] => rename(&["classifier.2"], tensor),
            _ => path.join("."),
        }
    }
}
