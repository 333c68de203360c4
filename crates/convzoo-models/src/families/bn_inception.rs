//! BN-Inception, also Inception v2: Ioffe, Szegedy, *Batch Normalization: Accelerating Deep Network Training by
//! Reducing Internal Covariate Shift*, [arXiv:1502.03167](https://arxiv.org/abs/1502.03167), 2015.
//!
//! The network of the paper's Figure 5 as its Caffe port has it, whose weights are the published ones: convolutions
//! have a bias in front of the norm, and the pool projections of 4c and 4d are 128 wide where the figure says 96.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::Device;
use convzoo_blocks::{AdaptiveAvgPool2d, ConvUnit, ConvUnitConfig, FeatureMap, Features, Inception, InceptionConfig, Linear, LinearConfig, NormConfig, Pool, PoolConfig};

use crate::registry::{Opt, Sizes, Spec, Variant};
use crate::{Classifier, NameRules, Preprocessing};

pub(crate) const VARIANTS: &[Variant] = &[Variant {
    name: "bn_inception",
    family: "bn_inception",
    year: 2015,
    paper: "https://arxiv.org/abs/1502.03167",
    input: [3, 224, 224],
    classes: 1000,
    // Modules 3c and 4e halve by convolutions beside a pooling, which agree on even maps only.
    sizes: Sizes::MultiplesOf(32),
    takes: &[Opt::Dropout],
    weights: &[],
    build: |spec, device| BnInception::new(spec, device).into(),
}];

/// A module, by its widths.
enum Widths {
    /// 1×1, 3×3 reduce, 3×3, double 3×3 reduce, double 3×3, projection of the mean.
    Mean([usize; 6]),
    /// The same with the maximum in place of the mean.
    Max([usize; 6]),
    /// Halves the map: 3×3 reduce, 3×3, double 3×3 reduce, double 3×3; the maximum passes through.
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

/// The Caffe port's names, behind those of the modules. A halving module has no 1×1 path.
const NAMES: &[(&str, &str)] = &[
    (r"^conv1", "conv1_7x7_s2"),
    (r"^conv2_reduce", "conv2_3x3_reduce"),
    (r"^conv2\.", "conv2_3x3."),
    (r"^pool(\d)", "pool${1}_3x3_s2"),
    (r"\.branches\.\d\.pool", "_pool"),
    (r"^(inception_3c|inception_4e)\.branches\.1", "$1.branches.2"),
    (r"^(inception_3c|inception_4e)\.branches\.0", "$1.branches.1"),
    (r"\.branches\.0\.convs\.0", "_1x1"),
    (r"\.branches\.1\.convs\.0", "_3x3_reduce"),
    (r"\.branches\.1\.convs\.1", "_3x3"),
    (r"\.branches\.2\.convs\.0", "_double_3x3_reduce"),
    (r"\.branches\.2\.convs\.([12])", "_double_3x3_$1"),
    (r"\.branches\.3\.convs\.0", "_pool_proj"),
    (r"\.conv\.", "."),
    (r"\.norm\.", "_bn."),
    (r"^avgpool", "global_pool"),
    (r"^fc", "last_linear"),
];

/// Three convolutions, ten Inception modules of 3×3 convolutions, one fully-connected layer.
#[derive(Module, Debug)]
pub struct BnInception {
    conv1: ConvUnit,
    pool1: Pool,
    conv2_reduce: ConvUnit,
    conv2: ConvUnit,
    pool2: Pool,
    inception: Vec<Inception>,
    avgpool: AdaptiveAvgPool2d,
    dropout: Dropout,
    fc: Linear,
}

impl BnInception {
    fn new(spec: &Spec, device: &Device) -> Self {
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
        Self {
            inception: inception.collect(),
            conv1: conv(spec.channels, 64, 7).strided(2).init(device),
            pool1: pool(),
            conv2_reduce: conv(64, 64, 1).init(device),
            conv2: conv(64, 192, 3).init(device),
            pool2: pool(),
            avgpool: AdaptiveAvgPool2d::new([1, 1]),
            dropout: DropoutConfig::new(spec.options.dropout.unwrap_or(0.0)).init(),
            fc: LinearConfig::new(1024, spec.classes).init(device),
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
        let features = self.avgpool.forward(features).flatten();
        self.fc.forward(features.layer(&self.dropout))
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { fc: self.fc.replace_outputs(classes), ..self }
    }

    /// The published weights take 0…255 with these means, and channels in the order blue, green, red: reverse the
    /// inputs of their first convolution to use them on images as they come here.
    fn preprocessing(&self) -> Preprocessing {
        let mean = [128.0 / 255.0, 117.0 / 255.0, 104.0 / 255.0];
        Preprocessing { mean, std: [1.0 / 255.0; 3], ..Preprocessing::IMAGENET }
    }

    fn names(&self) -> NameRules {
        let modules = MODULES.iter().enumerate().fold(NameRules::default(), |rules, (index, (name, _))| {
            rules.rule(format!(r"^inception\.{index}\."), format!("inception_{name}."))
        });
        NAMES.iter().fold(modules, |rules, &(from, to)| rules.rule(from, to))
    }
}
