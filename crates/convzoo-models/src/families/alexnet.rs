//! AlexNet: Krizhevsky, *One weird trick for parallelizing convolutional neural networks*,
//! [arXiv:1404.5997](https://arxiv.org/abs/1404.5997), 2014: the single-tower network that torchvision calls AlexNet.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;
use convzoo_blocks::{
    AdaptiveAvgPool2d, ClassifierHead, ClassifierHeadConfig, ConvUnit, ConvUnitConfig, FeatureMap, Pool, PoolConfig,
};

use crate::names::{index, rename};
use crate::registry::{Build, Opt, Sizes, Variant};
use crate::{Classifier, Options, Published};

/// Published by torchvision.
const WEIGHTS: &[Published] =
    &[Published::new("alexnet", "imagenet1k_v1", "alexnet-owt-7be5be79.pth", 56.522, 79.066, 256)];

pub(crate) const VARIANTS: &[Variant] = &[Variant {
    name: "alexnet",
    family: "alexnet",
    year: 2014,
    paper: "https://arxiv.org/abs/1404.5997",
    input: [3, 224, 224],
    classes: 1000,
    sizes: Sizes::From(63),
    takes: &[Opt::Dropout],
    weights: WEIGHTS,
    build: Build::AlexNet(AlexNetConfig::new),
}];

/// Configures an [`AlexNet`].
#[derive(Config, Debug)]
pub struct AlexNetConfig {
    /// Number of classes.
    #[config(default = 1000)]
    pub classes: usize,
    /// Channels of the images.
    #[config(default = 3)]
    pub channels: usize,
    /// Dropout probability before each hidden fully-connected layer.
    #[config(default = 0.5)]
    pub dropout: f64,
}

/// Five convolutions, three overlapping max-poolings, three fully-connected layers.
#[derive(Module, Debug)]
pub struct AlexNet {
    conv1: ConvUnit,
    pool1: Pool,
    conv2: ConvUnit,
    pool2: Pool,
    conv3: ConvUnit,
    conv4: ConvUnit,
    conv5: ConvUnit,
    pool5: Pool,
    avgpool: AdaptiveAvgPool2d,
    classifier: ClassifierHead,
}

impl AlexNetConfig {
    pub(crate) fn with_options(self, options: &Options) -> Self {
        let dropout = options.dropout.unwrap_or(self.dropout);
        self.with_dropout(dropout)
    }

    /// Makes the network; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> AlexNet {
        let conv = |inputs, outputs, size| ConvUnitConfig::square(inputs, outputs, size);
        let pool = || PoolConfig::max(3, 2).init();
        AlexNet {
            conv1: conv(self.channels, 64, 11).strided(4).padded(2).init(device),
            pool1: pool(),
            conv2: conv(64, 192, 5).padded(2).init(device),
            pool2: pool(),
            conv3: conv(192, 384, 3).padded(1).init(device),
            conv4: conv(384, 256, 3).padded(1).init(device),
            conv5: conv(256, 256, 3).padded(1).init(device),
            pool5: pool(),
            avgpool: AdaptiveAvgPool2d::new([6, 6]),
            classifier: ClassifierHeadConfig::new(vec![256 * 6 * 6, 4096, 4096, self.classes])
                .with_dropout(self.dropout)
                .init(device),
        }
    }
}

impl Classifier for AlexNet {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        let x = self.pool1.forward(self.conv1.forward(images));
        let x = self.pool2.forward(self.conv2.forward(x));
        let x = self.conv4.forward(self.conv3.forward(x));
        self.pool5.forward(self.conv5.forward(x))
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.classifier.forward(self.avgpool.forward(features).flatten())
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { classifier: self.classifier.replace_classes(classes), ..self }
    }

    /// torchvision numbers convolutions, activations and poolings in one sequence, `features`, and dropouts, linear
    /// layers and activations in another, `classifier`.
    fn reference_name(&self, path: &[&str]) -> String {
        const CONVS: [&str; 5] = ["0", "3", "6", "8", "10"];
        const LINEARS: [&str; 3] = ["1", "4", "6"];
        match path {
            ["classifier", "layers", layer, tensor] => rename(&["classifier", LINEARS[index(layer)]], tensor),
            ["pool1", tensor] => rename(&["features.2"], tensor),
            ["pool2", tensor] => rename(&["features.5"], tensor),
            ["pool5", tensor] => rename(&["features.12"], tensor),
            [conv, "conv", tensor] => rename(&["features", CONVS[index(conv) - 1]], tensor),
            _ => path.join("."),
        }
    }
}
