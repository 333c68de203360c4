//! Inception-ResNet-v2: Szegedy, Ioffe, Vanhoucke, Alemi, *Inception-v4, Inception-ResNet and the Impact of Residual
//! Connections on Learning*, [arXiv:1602.07261](https://arxiv.org/abs/1602.07261), 2016; as timm has it, whose stem is
//! Inception v3's and whose modules are twice as many as the paper's.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::Device;
use convzoo_blocks::{Activation, AdaptiveAvgPool2d, ConvUnit, ConvUnitConfig, FeatureMap, Features, Inception, InceptionConfig, InceptionResidual, InceptionResidualConfig, Linear, LinearConfig, NormConfig, Pool, PoolConfig};

use crate::registry::{Opt, Sizes, Spec, Variant};
use crate::{Classifier, Interpolation, NameRules, Preprocessing};

pub(crate) const VARIANTS: &[Variant] = &[Variant {
    name: "inception_resnet_v2",
    family: "inception_resnet_v2",
    year: 2016,
    paper: "https://arxiv.org/abs/1602.07261",
    input: [3, 299, 299],
    classes: 1000,
    sizes: Sizes::From(75),
    takes: &[Opt::Dropout],
    weights: &[],
    build: |spec, device| InceptionResNetV2::new(spec, device).into(),
}];

/// timm's names: a path of one layer has no number of its own.
const NAMES: &[(&str, &str)] = &[
    (r"^conv(\d[ab])", "conv2d_$1"),
    (r"^maxpool(\da)", "maxpool_$1"),
    (r"^mixed(\d[ab])", "mixed_$1"),
    (r"^block35", "repeat"),
    (r"^block17", "repeat_1"),
    (r"^block8", "repeat_2"),
    (r"^last", "block8"),
    (r"\.mixed\.branches", ".branches"),
    (r"\.project\.conv", ".conv2d"),
    (r"^(mixed_5b)\.branches\.3\.pool", "$1.branch3.0"),
    (r"^(mixed_5b)\.branches\.3\.convs\.0", "$1.branch3.1"),
    (r"\.branches\.(\d)\.pool", ".branch$1"),
    (r"^(mixed_7a)\.branches\.0\.convs", "$1.branch0"),
    (r"\.branches\.0\.convs\.0", ".branch0"),
    (r"\.branches\.(\d)\.convs", ".branch$1"),
    (r"\.norm\b", ".bn"),
    (r"^avgpool", "global_pool.pool"),
    (r"^fc", "classif"),
];

/// A stem as Inception v3's, ten residual modules A, twenty B, ten C with reductions between them, and one
/// fully-connected layer.
#[derive(Module, Debug)]
pub struct InceptionResNetV2 {
    conv1a: ConvUnit,
    conv2a: ConvUnit,
    conv2b: ConvUnit,
    maxpool3a: Pool,
    conv3b: ConvUnit,
    conv4a: ConvUnit,
    maxpool5a: Pool,
    mixed5b: Inception,
    block35: Vec<InceptionResidual>,
    mixed6a: Inception,
    block17: Vec<InceptionResidual>,
    mixed7a: Inception,
    block8: Vec<InceptionResidual>,
    last: InceptionResidual,
    conv7b: ConvUnit,
    avgpool: AdaptiveAvgPool2d,
    dropout: Dropout,
    fc: Linear,
}

impl InceptionResNetV2 {
    fn new(spec: &Spec, device: &Device) -> Self {
        let norm = NormConfig::Batch { epsilon: 1e-3 };
        let conv = |inputs, outputs, size| {
            ConvUnitConfig::square(inputs, outputs, size).with_norm(Some(norm)).with_bias(false)
        };
        let pool = || PoolConfig::max(3, 2).init();
        let repeat = |times: usize, block: InceptionResidualConfig| -> Vec<InceptionResidual> {
            (0..times).map(|_| block.init(device)).collect()
        };
        Self {
            conv1a: conv(spec.channels, 32, 3).strided(2).init(device),
            conv2a: conv(32, 32, 3).init(device),
            conv2b: conv(32, 64, 3).padded(1).init(device),
            maxpool3a: pool(),
            conv3b: conv(64, 80, 1).init(device),
            conv4a: conv(80, 192, 3).init(device),
            maxpool5a: pool(),
            mixed5b: InceptionConfig::resnet_stem(192).init(device),
            block35: repeat(10, InceptionResidualConfig::a(320)),
            mixed6a: InceptionConfig::reduction_a(320, [256, 256, 384, 384]).init(device),
            block17: repeat(20, InceptionResidualConfig::b(1088)),
            mixed7a: InceptionConfig::resnet_reduction_b(1088).init(device),
            block8: repeat(9, InceptionResidualConfig::c(2080)),
            // The last sum is neither scaled nor rectified.
            last: InceptionResidualConfig::c(2080).with_scale(1.0).with_activation(Activation::Identity).init(device),
            conv7b: conv(2080, 1536, 1).init(device),
            avgpool: AdaptiveAvgPool2d::new([1, 1]),
            dropout: DropoutConfig::new(spec.options.dropout.unwrap_or(0.0)).init(),
            fc: LinearConfig::new(1536, spec.classes).init(device),
        }
    }
}

impl Classifier for InceptionResNetV2 {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        let repeat = |blocks: &[InceptionResidual], x: M| blocks.iter().fold(x, |x, block| block.forward(x));
        let x = self.conv2b.forward(self.conv2a.forward(self.conv1a.forward(images)));
        let x = self.conv4a.forward(self.conv3b.forward(self.maxpool3a.forward(x)));
        let x = repeat(&self.block35, self.mixed5b.forward(self.maxpool5a.forward(x)));
        let x = repeat(&self.block17, self.mixed6a.forward(x));
        let x = repeat(&self.block8, self.mixed7a.forward(x));
        self.conv7b.forward(self.last.forward(x))
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        let features = self.avgpool.forward(features).flatten();
        self.fc.forward(features.layer(&self.dropout))
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { fc: self.fc.replace_outputs(classes), ..self }
    }

    fn preprocessing(&self) -> Preprocessing {
        Preprocessing {
            size: [299; 2],
            resize: Some(333),
            interpolation: Interpolation::Bicubic,
            mean: [0.5; 3],
            std: [0.5; 3],
        }
    }

    fn names(&self) -> NameRules {
        NameRules::table(NAMES)
    }
}
