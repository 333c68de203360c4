//! SqueezeNet: Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer, *SqueezeNet: AlexNet-level accuracy with 50x fewer
//! parameters and <0.5MB model size*, [arXiv:1602.07360](https://arxiv.org/abs/1602.07360), 2016; 1.1 is the authors'
//! later version with 2.3 times fewer multiply-adds.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::{Device, Tensor};
use convzoo_blocks::{AdaptiveAvgPool2d, ConvUnit, ConvUnitConfig, Fire, FireConfig, Init, Pool, PoolConfig};

use crate::registry::{Opt, Sizes, Spec, Variant};
use crate::{Classifier, NameRules, Published};

/// Channels after the squeeze and of each expansion, for the eight fire modules.
const FIRES: [[usize; 2]; 8] = [[16, 64], [16, 64], [32, 128], [32, 128], [48, 192], [48, 192], [64, 256], [64, 256]];

/// Channels and kernel size of the first convolution, and how many fire modules stand behind each of three poolings.
const VERSIONS: &[(&str, [usize; 2], [usize; 3])] =
    &[("squeezenet1_0", [96, 7], [3, 4, 1]), ("squeezenet1_1", [64, 3], [2, 2, 4])];

/// Published by torchvision.
const WEIGHTS: &[Published] = &[
    Published::new("squeezenet1_0", "imagenet1k_v1", "squeezenet1_0-b66bff10.pth", 58.092, 80.42, 256),
    Published::new("squeezenet1_1", "imagenet1k_v1", "squeezenet1_1-b8a52dc0.pth", 58.178, 80.624, 256),
];

const fn variant(name: &'static str, smallest: usize) -> Variant {
    Variant {
        name,
        family: "squeezenet",
        year: 2016,
        paper: "https://arxiv.org/abs/1602.07360",
        input: [3, 224, 224],
        classes: 1000,
        sizes: Sizes::From(smallest),
        takes: &[Opt::Dropout],
        weights: WEIGHTS,
        build: |spec, device| SqueezeNet::new(spec, device).into(),
    }
}

pub(crate) const VARIANTS: &[Variant] = &[variant("squeezenet1_0", 21), variant("squeezenet1_1", 17)];

/// A convolution, three stages of fire modules, and a convolution to the classes in place of a fully-connected layer.
#[derive(Module, Debug)]
pub struct SqueezeNet {
    stem: ConvUnit,
    stages: Vec<Stage>,
    dropout: Dropout,
    classifier: ConvUnit,
    avgpool: AdaptiveAvgPool2d,
}

/// A maximum that halves the map, and fire modules.
#[derive(Module, Debug)]
struct Stage {
    pool: Pool,
    fires: Vec<Fire>,
}

impl SqueezeNet {
    fn new(spec: &Spec, device: &Device) -> Self {
        let version = VERSIONS.iter().find(|(name, ..)| *name == spec.name);
        let (_, [width, size], depths) = version.expect("variants stand in the table");
        let mut inputs = *width;
        let mut fires = FIRES.into_iter().map(|[squeeze, expand]| {
            let fire = FireConfig::new(inputs, squeeze, expand).init(device);
            inputs = 2 * expand;
            fire
        });
        let stages = depths.map(|depth| Stage {
            pool: PoolConfig::max(3, 2).with_ceil_mode(true).init(),
            fires: fires.by_ref().take(depth).collect(),
        });
        Self {
            stem: ConvUnitConfig::square(spec.channels, *width, *size)
                .strided(2)
                .with_init(Init::KaimingUniform)
                .init(device),
            stages: stages.into(),
            dropout: DropoutConfig::new(spec.options.dropout.unwrap_or(0.5)).init(),
            classifier: ConvUnitConfig::square(512, spec.classes, 1).with_init(Init::Normal(0.01)).init(device),
            avgpool: AdaptiveAvgPool2d::new([1, 1]),
        }
    }
}

impl Classifier for SqueezeNet {
    fn forward_features(&self, images: Tensor<4>) -> Tensor<4> {
        self.stages.iter().fold(self.stem.forward(images), |x, stage| {
            let x = stage.pool.forward(x);
            stage.fires.iter().fold(x, |x, fire| fire.forward(x))
        })
    }

    fn forward_head(&self, features: Tensor<4>) -> Tensor<2> {
        let maps = self.classifier.forward(self.dropout.forward(features));
        self.avgpool.forward(maps).flatten(1, 3)
    }

    fn replace_head(self, classes: usize) -> Self {
        let classifier = self.classifier.replace_outputs(classes).expect("the classifier is a plain 1×1 convolution");
        Self { classifier, ..self }
    }

    /// torchvision numbers convolution, activation, poolings and fire modules in one sequence, `features`.
    fn names(&self) -> NameRules {
        let mut rules = NameRules::table(&[
            (r"^stem\.conv", "features.0"),
            (r"^classifier\.conv", "classifier.1"),
            (r"^avgpool", "classifier.3"),
            (r"(squeeze|expand1x1|expand3x3)\.conv", "$1"),
        ]);
        let mut index = 2;
        for (i, stage) in self.stages.iter().enumerate() {
            rules = rules.rule(format!(r"^stages\.{i}\.pool"), format!("features.{index}"));
            for fire in 0..stage.fires.len() {
                rules =
                    rules.rule(format!(r"^stages\.{i}\.fires\.{fire}\."), format!("features.{}.", index + 1 + fire));
            }
            index += 1 + stage.fires.len();
        }
        rules
    }
}
