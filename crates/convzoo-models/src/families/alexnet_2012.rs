//! AlexNet as it won ILSVRC 2012: Krizhevsky, Sutskever, Hinton, *ImageNet Classification with Deep Convolutional
//! Neural Networks*,
//! [NIPS 2012](https://papers.nips.cc/paper/2012/hash/c399862d3b9d6b76c8436e924a68c45b-Abstract.html).
//!
//! Two towers, one on each GPU, connected in the third convolution only: convolutions 2, 4 and 5 have two groups.
//! The paper speaks of 224×224 images; its 55×55 feature maps need 227×227.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;
use convzoo_blocks::{
    ClassifierHead, ClassifierHeadConfig, ConvUnit, ConvUnitConfig, FeatureMap, Init, LocalResponseNorm, Pool,
    PoolConfig,
};

use crate::names::{index, rename};
use crate::registry::{Build, Opt, Sizes, Variant};
use crate::{Classifier, Options, Preprocessing};

pub(crate) const VARIANTS: &[Variant] = &[Variant {
    name: "alexnet_2012",
    family: "alexnet",
    year: 2012,
    paper: "https://papers.nips.cc/paper/2012/hash/c399862d3b9d6b76c8436e924a68c45b-Abstract.html",
    input: [3, 227, 227],
    classes: 1000,
    sizes: Sizes::Fixed,
    takes: &[Opt::Dropout],
    weights: &[],
    build: Build::AlexNet2012(AlexNet2012Config::new),
}];

/// Configures an [`AlexNet2012`] for images of 227×227.
#[derive(Config, Debug)]
pub struct AlexNet2012Config {
    /// Number of classes.
    #[config(default = 1000)]
    pub classes: usize,
    /// Channels of the images.
    #[config(default = 3)]
    pub channels: usize,
    /// Dropout probability after each hidden fully-connected layer.
    #[config(default = 0.5)]
    pub dropout: f64,
    /// Towers: 2 as in the paper, with 60,965,224 parameters; 1 as courses show it, with 62,378,344.
    #[config(default = 2)]
    pub groups: usize,
}

/// Five convolutions in two towers, three overlapping max-poolings, three fully-connected layers.
#[derive(Module, Debug)]
pub struct AlexNet2012 {
    conv1: ConvUnit,
    norm1: LocalResponseNorm,
    pool1: Pool,
    conv2: ConvUnit,
    norm2: LocalResponseNorm,
    pool2: Pool,
    conv3: ConvUnit,
    conv4: ConvUnit,
    conv5: ConvUnit,
    pool5: Pool,
    classifier: ClassifierHead,
}

impl AlexNet2012Config {
    pub(crate) fn with_options(self, options: &Options) -> Self {
        let dropout = options.dropout.unwrap_or(self.dropout);
        self.with_dropout(dropout)
    }

    /// Makes the network; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> AlexNet2012 {
        // Biases of 1 where that gives the ReLUs positive inputs early in training.
        let [zero, one] = [0.0, 1.0].map(|bias| Init::NormalBias { std: 0.01, bias });
        let conv = |inputs, outputs, size| ConvUnitConfig::square(inputs, outputs, size).with_init(zero);
        let towers = |inputs, outputs, size| conv(inputs, outputs, size).with_groups(self.groups).with_init(one);
        let pool = || PoolConfig::max(3, 2).init();
        AlexNet2012 {
            conv1: conv(self.channels, 96, 11).strided(4).init(device),
            norm1: LocalResponseNorm::alexnet(),
            pool1: pool(),
            conv2: towers(96, 256, 5).padded(2).init(device),
            norm2: LocalResponseNorm::alexnet(),
            pool2: pool(),
            conv3: conv(256, 384, 3).padded(1).init(device),
            conv4: towers(384, 384, 3).padded(1).init(device),
            conv5: towers(384, 256, 3).padded(1).init(device),
            pool5: pool(),
            classifier: ClassifierHeadConfig::new(vec![256 * 6 * 6, 4096, 4096, self.classes])
                .with_dropout(self.dropout)
                .with_dropout_first(false)
                .with_init(one)
                .with_last_init(Some(zero))
                .init(device),
        }
    }
}

impl Classifier for AlexNet2012 {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        let x = self.pool1.forward(self.norm1.forward(self.conv1.forward(images)));
        let x = self.pool2.forward(self.norm2.forward(self.conv2.forward(x)));
        let x = self.conv4.forward(self.conv3.forward(x));
        self.pool5.forward(self.conv5.forward(x))
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.classifier.forward(features.flatten())
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { classifier: self.classifier.replace_classes(classes), ..self }
    }

    fn preprocessing(&self) -> Preprocessing {
        Preprocessing { size: [227; 2], ..Preprocessing::IMAGENET }
    }

    fn reference_name(&self, path: &[&str]) -> String {
        caffe_name(path)
    }
}

/// Caffe's names: `conv1` … `conv5`, `fc6` … `fc8`.
pub(super) fn caffe_name(path: &[&str]) -> String {
    match path {
        [conv, "conv", tensor] => rename(&[conv], tensor),
        ["classifier", "layers", layer, tensor] => rename(&[["fc6", "fc7", "fc8"][index(layer)]], tensor),
        _ => path.join("."),
    }
}
