//! Inception-v4: Szegedy, Ioffe, Vanhoucke, Alemi, *Inception-v4, Inception-ResNet and the Impact of Residual
//! Connections on Learning*, [arXiv:1602.07261](https://arxiv.org/abs/1602.07261), 2016; as timm has it.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::Device;
use convzoo_blocks::{AdaptiveAvgPool2d, ConvUnit, ConvUnitConfig, FeatureMap, Features, Inception, InceptionConfig, Linear, LinearConfig, NormConfig};

use crate::registry::{Opt, Sizes, Spec, Variant};
use crate::{Classifier, Interpolation, NameRules, Preprocessing};

pub(crate) const VARIANTS: &[Variant] = &[Variant {
    name: "inception_v4",
    family: "inception_v4",
    year: 2016,
    paper: "https://arxiv.org/abs/1602.07261",
    input: [3, 299, 299],
    classes: 1000,
    sizes: Sizes::From(75),
    takes: &[Opt::Dropout],
    weights: &[],
    build: |spec, device| InceptionV4::new(spec, device).into(),
}];

/// timm's names, behind the numbers of `features`: a path of one layer has no number of its own.
const NAMES: &[(&str, &str)] = &[
    (r"^stem", "features"),
    (r"^(features\.3)\.branches\.0\.pool", "$1.maxpool"),
    (r"^(features\.3)\.branches\.1\.convs\.0", "$1.conv"),
    (r"^(features\.5)\.branches\.0\.convs\.0", "$1.conv"),
    (r"^(features\.5)\.branches\.1\.pool", "$1.maxpool"),
    (r"\.branches\.2\.pool", ".branch2"),
    (r"\.branches\.3\.pool", ".branch3.0"),
    (r"\.branches\.3\.convs\.0", ".branch3.1"),
    (r"^(features\.(?:4|18))\.branches\.0\.convs", "$1.branch0"),
    (r"\.branches\.0\.convs\.0", ".branch0"),
    (r"^(features\.(?:19|20|21))\.branches\.(\d)\.convs\.", "$1.branch${2}_"),
    (r"\.branches\.1\.split\.0", ".branch1_1a"),
    (r"\.branches\.1\.split\.1", ".branch1_1b"),
    (r"\.branches\.2\.split\.0", ".branch2_3a"),
    (r"\.branches\.2\.split\.1", ".branch2_3b"),
    (r"\.branches\.(\d)\.convs", ".branch$1"),
    (r"\.norm\b", ".bn"),
    (r"^avgpool", "global_pool.pool"),
    (r"^fc", "last_linear"),
];

/// A stem of three convolutions and three mixtures, four modules A, seven B, three C with reductions between them, and
/// one fully-connected layer.
#[derive(Module, Debug)]
pub struct InceptionV4 {
    stem: Vec<ConvUnit>,
    mixed: Vec<Inception>,
    avgpool: AdaptiveAvgPool2d,
    dropout: Dropout,
    fc: Linear,
}

/// Everything between the stem's convolutions and the head.
fn modules() -> Vec<InceptionConfig> {
    let mut modules =
        vec![InceptionConfig::v4_stem_a(64, 96), InceptionConfig::v4_stem_b(160), InceptionConfig::v4_stem_c(192)];
    modules.extend((0..4).map(|_| InceptionConfig::v4_a(384)));
    modules.push(InceptionConfig::reduction_a(384, [192, 224, 256, 384]));
    modules.extend((0..7).map(|_| InceptionConfig::v4_b(1024)));
    modules.push(InceptionConfig::v4_reduction_b(1024));
    modules.extend((0..3).map(|_| InceptionConfig::v4_c(1536)));
    modules
}

impl InceptionV4 {
    fn new(spec: &Spec, device: &Device) -> Self {
        let norm = NormConfig::Batch { epsilon: 1e-3 };
        let conv = |inputs, outputs| ConvUnitConfig::square(inputs, outputs, 3).with_norm(Some(norm)).with_bias(false);
        Self {
            stem: vec![
                conv(spec.channels, 32).strided(2).init(device),
                conv(32, 32).init(device),
                conv(32, 64).padded(1).init(device),
            ],
            mixed: modules().iter().map(|module| module.init(device)).collect(),
            avgpool: AdaptiveAvgPool2d::new([1, 1]),
            dropout: DropoutConfig::new(spec.options.dropout.unwrap_or(0.0)).init(),
            fc: LinearConfig::new(1536, spec.classes).init(device),
        }
    }
}

impl Classifier for InceptionV4 {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        let x = self.stem.iter().fold(images, |x, conv| conv.forward(x));
        self.mixed.iter().fold(x, |x, module| module.forward(x))
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
            resize: Some(341),
            interpolation: Interpolation::Bicubic,
            mean: [0.5; 3],
            std: [0.5; 3],
        }
    }

    fn names(&self) -> NameRules {
        let numbers = (0..self.mixed.len()).fold(NameRules::default(), |rules, index| {
            rules.rule(format!(r"^mixed\.{index}\."), format!("features.{}.", index + self.stem.len()))
        });
        NAMES.iter().fold(numbers, |rules, &(from, to)| rules.rule(from, to))
    }
}
