//! VGG: Simonyan, Zisserman, *Very Deep Convolutional Networks for Large-Scale Image Recognition*,
//! [arXiv:1409.1556](https://arxiv.org/abs/1409.1556), 2014; with batch normalization as torchvision adds it.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;
use convzoo_blocks::{
    AdaptiveAvgPool2d, ClassifierHead, ClassifierHeadConfig, FeatureMap, Init, NormConfig, VggBlock, VggBlockConfig,
};

use crate::names::{index, place, rename};
use crate::registry::{Build, Opt, Sizes, Variant};
use crate::{Classifier, Options, Published};

const fn variant(name: &'static str, config: fn() -> VggConfig) -> Variant {
    Variant {
        name,
        family: "vgg",
        year: 2014,
        paper: "https://arxiv.org/abs/1409.1556",
        input: [3, 224, 224],
        classes: 1000,
        sizes: Sizes::From(32),
        takes: &[Opt::Dropout],
        weights: WEIGHTS,
        build: Build::Vgg(config),
    }
}

/// The paper's configurations A, B, D and E, without batch normalization and with.
pub(crate) const VARIANTS: &[Variant] = &[
    variant("vgg11", || VggConfig::new([1, 1, 2, 2, 2])),
    variant("vgg13", || VggConfig::new([2, 2, 2, 2, 2])),
    variant("vgg16", || VggConfig::new([2, 2, 3, 3, 3])),
    variant("vgg19", || VggConfig::new([2, 2, 4, 4, 4])),
    variant("vgg11_bn", || VggConfig::new([1, 1, 2, 2, 2]).with_batch_norm(true)),
    variant("vgg13_bn", || VggConfig::new([2, 2, 2, 2, 2]).with_batch_norm(true)),
    variant("vgg16_bn", || VggConfig::new([2, 2, 3, 3, 3]).with_batch_norm(true)),
    variant("vgg19_bn", || VggConfig::new([2, 2, 4, 4, 4]).with_batch_norm(true)),
];

/// Published by torchvision.
const WEIGHTS: &[Published] = &[
    Published::new("vgg11", "imagenet1k_v1", "vgg11-8a719046.pth", 69.02, 88.628, 256),
    Published::new("vgg13", "imagenet1k_v1", "vgg13-19584684.pth", 69.928, 89.246, 256),
    Published::new("vgg16", "imagenet1k_v1", "vgg16-397923af.pth", 71.592, 90.382, 256),
    Published::new("vgg19", "imagenet1k_v1", "vgg19-dcbb9e9d.pth", 72.376, 90.876, 256),
    Published::new("vgg11_bn", "imagenet1k_v1", "vgg11_bn-6002323d.pth", 70.37, 89.81, 256),
    Published::new("vgg13_bn", "imagenet1k_v1", "vgg13_bn-abd245e5.pth", 71.586, 90.374, 256),
    Published::new("vgg16_bn", "imagenet1k_v1", "vgg16_bn-6c64b313.pth", 73.36, 91.516, 256),
    Published::new("vgg19_bn", "imagenet1k_v1", "vgg19_bn-c79401a0.pth", 74.218, 91.842, 256),
];

/// Configures a [`Vgg`].
#[derive(Config, Debug)]
pub struct VggConfig {
    /// Convolutions in each of the five blocks.
    pub depths: [usize; 5],
    /// Channels of each block.
    #[config(default = "[64, 128, 256, 512, 512]")]
    pub widths: [usize; 5],
    /// Number of classes.
    #[config(default = 1000)]
    pub classes: usize,
    /// Channels of the images.
    #[config(default = 3)]
    pub channels: usize,
    /// Dropout probability after each hidden fully-connected layer.
    #[config(default = 0.5)]
    pub dropout: f64,
    /// Batch normalization after each convolution.
    #[config(default = false)]
    pub batch_norm: bool,
    /// Local response normalization after the first block's convolutions: configuration A-LRN, with A's depths.
    #[config(default = false)]
    pub response_norm: bool,
    /// 1×1 for the last convolution of the last three blocks: configuration C, with D's depths.
    #[config(default = false)]
    pub one_by_one: bool,
}

/// Five blocks and three fully-connected layers.
#[derive(Module, Debug)]
pub struct Vgg {
    blocks: Vec<VggBlock>,
    avgpool: AdaptiveAvgPool2d,
    classifier: ClassifierHead,
    #[module(skip)]
    config: VggConfig,
}

impl VggConfig {
    pub(crate) fn with_options(self, options: &Options) -> Self {
        let dropout = options.dropout.unwrap_or(self.dropout);
        self.with_dropout(dropout)
    }

    /// Makes the network; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> Vgg {
        let blocks = (0..5).map(|i| {
            let inputs = if i == 0 { self.channels } else { self.widths[i - 1] };
            VggBlockConfig::new([inputs, self.widths[i]], self.depths[i])
                .with_norm(self.batch_norm.then_some(NormConfig::BATCH))
                .with_response_norm(self.response_norm && i == 0)
                .with_last_kernel(if self.one_by_one && i > 1 { 1 } else { 3 })
                .init(device)
        });
        Vgg {
            blocks: blocks.collect(),
            avgpool: AdaptiveAvgPool2d::new([7, 7]),
            classifier: ClassifierHeadConfig::new(vec![self.widths[4] * 7 * 7, 4096, 4096, self.classes])
                .with_dropout(self.dropout)
                .with_dropout_first(false)
                .with_init(Init::Normal(0.01))
                .init(device),
            config: self.clone(),
        }
    }
}

impl Classifier for Vgg {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        self.blocks.iter().fold(images, |x, block| block.forward(x))
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.classifier.forward(self.avgpool.forward(features).flatten())
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { classifier: self.classifier.replace_classes(classes), ..self }
    }

    /// torchvision numbers convolutions, norms, activations and poolings in one sequence, `features`.
    fn reference_name(&self, path: &[&str]) -> String {
        let VggConfig { depths, batch_norm, response_norm, .. } = self.config;
        let per_conv = if batch_norm { 3 } else { 2 };
        let lrn = usize::from(response_norm);
        let start = |block: usize| {
            let before = depths[..block].iter().map(|depth| depth * per_conv + 1).sum::<usize>();
            if block > 0 { before + lrn } else { before }
        };
        let feature = |number: usize, tensor: &str| rename(&["features", &number.to_string()], tensor);
        match path {
            ["blocks", block, "convs", conv, part, tensor] => {
                feature(start(index(block)) + index(conv) * per_conv + place(part), tensor)
            }
            ["blocks", block, "norm", tensor] => {
                let block = index(block);
                feature(start(block) + depths[block] * per_conv, tensor)
            }
            ["blocks", block, "pool", tensor] => {
                let block = index(block);
                let norm = if block == 0 { lrn } else { 0 };
                feature(start(block) + depths[block] * per_conv + norm, tensor)
            }
            ["classifier", "layers", layer, tensor] => rename(&["classifier", ["0", "3", "6"][index(layer)]], tensor),
            _ => path.join("."),
        }
    }
}
