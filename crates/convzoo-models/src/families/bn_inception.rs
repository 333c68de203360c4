//! BN-Inception, also Inception v2: Ioffe, Szegedy, *Batch Normalization: Accelerating Deep Network Training by
//! Reducing Internal Covariate Shift*, [arXiv:1502.03167](https://arxiv.org/abs/1502.03167), 2015.
//!
//! The network of the paper's Figure 5 as its Caffe port has it, whose weights are the published ones: convolutions
//! have a bias before the norm, and the pool projections of 4c and 4d are 128 wide where the figure says 96.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;
use convzoo_blocks::{
    ConvUnit, ConvUnitConfig, FeatureMap, GlobalPooling, Inception, InceptionConfig, NormConfig, Pool, PoolConfig,
    PooledHead, PooledHeadConfig,
};

use crate::names::{index, rename};
use crate::registry::{Build, Opt, Sizes, Variant};
use crate::{Classifier, Options, Preprocessing};

pub(crate) const VARIANTS: &[Variant] = &[Variant {
    name: "bn_inception",
    family: "bn_inception",
    year: 2015,
    paper: "https://arxiv.org/abs/1502.03167",
    input: [3, 224, 224],
    classes: 1000,
    // Modules 3c and 4e downsample by parallel convolutions and pooling, whose sizes agree on even feature maps only.
    sizes: Sizes::MultiplesOf(32),
    takes: &[Opt::Dropout],
    weights: &[],
    build: Build::BnInception(BnInceptionConfig::new),
}];

/// A module, by its widths.
enum Widths {
    /// 1×1, 3×3 reduce, 3×3, double 3×3 reduce, double 3×3, projection after average pooling.
    Mean([usize; 6]),
    /// The same with max pooling in place of average pooling.
    Max([usize; 6]),
    /// Halves the feature map: 3×3 reduce, 3×3, double 3×3 reduce, double 3×3; the max-pooled input passes through.
    Halving([usize; 4]),
}

const MODULES: &[(&str, Widths)] = &[
    ("3a", Widths::Mean([64, 64, 64, 64, 96, 32])),
    ("3b", Widths::Mean([64, 64, 96, 64, 96, 64])),
    ("3c", Widths::Halving([128, 160, 64, 96])),
    ("4a", Widths::Mean([224, 64, 96, 96, 128, 128])),
    ("4b", Widths::Mean([192, 96, 128, 96, 128, 128])),
    ("4c", Widths::Mean([160, 128, 160, 128, 160, 128])),
    ("4d", Widths::Mean([96, 128, 192, 160, 192, 128])),
    ("4e", Widths::Halving([128, 192, 192, 256])),
    ("5a", Widths::Mean([352, 192, 320, 160, 224, 128])),
    ("5b", Widths::Max([352, 192, 320, 192, 224, 128])),
];

/// Configures a [`BnInception`].
#[derive(Config, Debug)]
pub struct BnInceptionConfig {
    /// Number of classes; 0 leaves the linear layer out.
    #[config(default = 1000)]
    pub classes: usize,
    /// Channels of the images.
    #[config(default = 3)]
    pub channels: usize,
    /// Global pooling before the classifier.
    #[config(default = "GlobalPooling::Average")]
    pub global_pool: GlobalPooling,
    /// Dropout probability before the classifier.
    #[config(default = 0.0)]
    pub dropout: f64,
}

/// Three convolutions, ten Inception modules of 3×3 convolutions, one fully-connected layer.
#[derive(Module, Debug)]
pub struct BnInception {
    conv1: ConvUnit,
    pool1: Pool,
    conv2_reduce: ConvUnit,
    conv2: ConvUnit,
    pool2: Pool,
    inception: Vec<Inception>,
    head: PooledHead,
}

impl BnInceptionConfig {
    pub(crate) fn with_options(self, options: &Options) -> Self {
        let dropout = options.dropout.unwrap_or(self.dropout);
        self.with_dropout(dropout)
    }

    /// Makes the network; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> BnInception {
        let conv = |inputs, outputs, size| {
            ConvUnitConfig::square(inputs, outputs, size).padded(size / 2).with_norm(Some(NormConfig::BATCH))
        };
        let pool = || PoolConfig::max(3, 2).with_ceil_mode(true).init();
        let around = |pool: PoolConfig| pool.with_padding([1, 1]);
        let mut channels = 192;
        let inception = MODULES.iter().map(|(_, widths)| {
            let config = match *widths {
                Widths::Mean(widths) => InceptionConfig::v2(channels, widths, around(PoolConfig::avg(3, 1))),
                Widths::Max(widths) => InceptionConfig::v2(channels, widths, around(PoolConfig::max(3, 1))),
                Widths::Halving(widths) => InceptionConfig::v2_reduction(channels, widths),
            };
            channels = config.outputs();
            config.with_bias(true).init(device)
        });
        BnInception {
            inception: inception.collect(),
            conv1: conv(self.channels, 64, 7).strided(2).init(device),
            pool1: pool(),
            conv2_reduce: conv(64, 64, 1).init(device),
            conv2: conv(64, 192, 3).init(device),
            pool2: pool(),
            head: PooledHeadConfig::new(1024, self.classes)
                .with_global_pool(self.global_pool)
                .with_dropout(self.dropout)
                .init(device),
        }
    }
}

impl Classifier for BnInception {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        let x = self.pool1.forward(self.conv1.forward(images));
        let x = self.pool2.forward(self.conv2.forward(self.conv2_reduce.forward(x)));
        self.inception.iter().fold(x, |x, module| module.forward(x))
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.head.forward(features)
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { head: self.head.replace_classes(classes), ..self }
    }

    /// The published weights take 0…255 with these means, and channels in the order blue, green, red: reverse the
    /// inputs of their first convolution to use them on images as they come here.
    fn preprocessing(&self) -> Preprocessing {
        let mean = [128.0 / 255.0, 117.0 / 255.0, 104.0 / 255.0];
        Preprocessing { mean, std: [1.0 / 255.0; 3], ..Preprocessing::IMAGENET }
    }

    /// The Caffe port's names: a norm has its convolution's name with `_bn`.
    fn reference_name(&self, path: &[&str]) -> String {
        let unit = |layer: &str, rest: &[&str]| match rest {
            ["norm", tensor] => rename(&[&format!("{layer}_bn")], tensor),
            [.., tensor] => rename(&[layer], tensor),
            [] => layer.to_owned(),
        };
        match path {
            ["conv1", rest @ ..] => unit("conv1_7x7_s2", rest),
            ["conv2_reduce", rest @ ..] => unit("conv2_3x3_reduce", rest),
            ["conv2", rest @ ..] => unit("conv2_3x3", rest),
            [pool @ ("pool1" | "pool2"), tensor] => rename(&[&format!("{pool}_3x3_s2")], tensor),
            ["inception", module, "branches", branch, rest @ ..] => {
                let (name, widths) = &MODULES[index(module)];
                // A module that halves the feature map has no 1×1 branch.
                let branch = index(branch) + usize::from(matches!(widths, Widths::Halving(_)));
                let (layer, rest) = branch_layer(branch, rest);
                unit(&format!("inception_{name}_{layer}"), rest)
            }
            ["head", "pool", tensor] => rename(&["global_pool"], tensor),
            ["head", "fc", tensor] => rename(&["last_linear"], tensor),
            _ => path.join("."),
        }
    }
}

/// A layer of a module, and the rest of its path.
fn branch_layer<'a, 'b>(branch: usize, path: &'b [&'a str]) -> (&'static str, &'b [&'a str]) {
    match (branch, path) {
        (_, ["pool", rest @ ..]) => ("pool", rest),
        (0, [_, _, rest @ ..]) => ("1x1", rest),
        (1, [_, "0", rest @ ..]) => ("3x3_reduce", rest),
        (1, [_, _, rest @ ..]) => ("3x3", rest),
        (2, [_, "0", rest @ ..]) => ("double_3x3_reduce", rest),
        (2, [_, "1", rest @ ..]) => ("double_3x3_1", rest),
        (2, [_, _, rest @ ..]) => ("double_3x3_2", rest),
        (_, [_, _, rest @ ..]) => ("pool_proj", rest),
        (_, rest) => ("", rest),
    }
}
