//! ZFNet: Zeiler, Fergus, *Visualizing and Understanding Convolutional Networks*,
//! [arXiv:1311.2901](https://arxiv.org/abs/1311.2901), 2013, figure 3.
//!
//! The figure's sizes, 224 → 110 → 55 → 26 → 13 → 6, follow from the 224×224 images that the paper names if the first
//! convolution pads one pixel and poolings let the last window extend past the edge. (A 225×225 input without padding
//! gives the same feature maps.) What the paper calls contrast normalization across feature maps, after the first two
//! poolings, is Krizhevsky's local response normalization.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;
use convzoo_blocks::{
    ClassifierHead, ClassifierHeadConfig, ConvUnit, ConvUnitConfig, FeatureMap, Init, LocalResponseNorm, Pool,
    PoolConfig,
};

use super::alexnet_2012::caffe_name;
use crate::registry::{Build, Opt, Sizes, Variant};
use crate::{Classifier, Options};

pub(crate) const VARIANTS: &[Variant] = &[Variant {
    name: "zfnet",
    family: "zfnet",
    year: 2013,
    paper: "https://arxiv.org/abs/1311.2901",
    input: [3, 224, 224],
    classes: 1000,
    sizes: Sizes::Fixed,
    takes: &[Opt::Dropout],
    weights: &[],
    build: Build::ZfNet(ZfNetConfig::new),
}];

/// Configures a [`ZfNet`] for images of 224×224.
#[derive(Config, Debug)]
pub struct ZfNetConfig {
    /// Number of classes.
    #[config(default = 1000)]
    pub classes: usize,
    /// Channels of the images.
    #[config(default = 3)]
    pub channels: usize,
    /// Dropout probability after each hidden fully-connected layer.
    #[config(default = 0.5)]
    pub dropout: f64,
}

/// AlexNet with a finer first layer, as visualizing its features suggested: 7×7 of stride 2 for 11×11 of stride 4.
#[derive(Module, Debug)]
pub struct ZfNet {
    conv1: ConvUnit,
    pool1: Pool,
    norm1: LocalResponseNorm,
    conv2: ConvUnit,
    pool2: Pool,
    norm2: LocalResponseNorm,
    conv3: ConvUnit,
    conv4: ConvUnit,
    conv5: ConvUnit,
    pool5: Pool,
    classifier: ClassifierHead,
}

impl ZfNetConfig {
    pub(crate) fn with_options(self, options: &Options) -> Self {
        let dropout = options.dropout.unwrap_or(self.dropout);
        self.with_dropout(dropout)
    }

    /// Makes the network; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> ZfNet {
        let init = Init::Normal(0.01);
        let conv = |inputs, outputs, size| ConvUnitConfig::square(inputs, outputs, size).with_init(init);
        let pool = || PoolConfig::max(3, 2).with_ceil_mode(true).init();
        ZfNet {
            conv1: conv(self.channels, 96, 7).strided(2).padded(1).init(device),
            pool1: pool(),
            norm1: LocalResponseNorm::alexnet(),
            conv2: conv(96, 256, 5).strided(2).init(device),
            pool2: pool(),
            norm2: LocalResponseNorm::alexnet(),
            conv3: conv(256, 384, 3).padded(1).init(device),
            conv4: conv(384, 384, 3).padded(1).init(device),
            conv5: conv(384, 256, 3).padded(1).init(device),
            pool5: pool(),
            classifier: ClassifierHeadConfig::new(vec![256 * 6 * 6, 4096, 4096, self.classes])
                .with_dropout(self.dropout)
                .with_dropout_first(false)
                .with_init(init)
                .init(device),
        }
    }
}

impl Classifier for ZfNet {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        let x = self.norm1.forward(self.pool1.forward(self.conv1.forward(images)));
        let x = self.norm2.forward(self.pool2.forward(self.conv2.forward(x)));
        let x = self.conv4.forward(self.conv3.forward(x));
        self.pool5.forward(self.conv5.forward(x))
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.classifier.forward(features.flatten())
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { classifier: self.classifier.replace_classes(classes), ..self }
    }

    fn reference_name(&self, path: &[&str]) -> String {
        caffe_name(path)
    }
}
