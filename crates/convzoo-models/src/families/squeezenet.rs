//! SqueezeNet: Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer, *SqueezeNet: AlexNet-level accuracy with 50x fewer
//! parameters and <0.5MB model size*, [arXiv:1602.07360](https://arxiv.org/abs/1602.07360), 2016; 1.1 is the authors'
//! later version with 2.3 times fewer multiply-adds.

use burn::config::Config;
use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::Device;
use convzoo_blocks::{
    ConvUnit, ConvUnitConfig, FeatureMap, Fire, FireConfig, GlobalPool, GlobalPooling, Init, Pool, PoolConfig,
};

use crate::names::{index, rename};
use crate::registry::{Build, Opt, Sizes, Variant};
use crate::{Classifier, Options, Published};

const fn variant(name: &'static str, smallest: usize, config: fn() -> SqueezeNetConfig) -> Variant {
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
        build: Build::SqueezeNet(config),
    }
}

pub(crate) const VARIANTS: &[Variant] = &[
    variant("squeezenet1_0", 21, || SqueezeNetConfig::new(96, 7, [3, 4, 1])),
    variant("squeezenet1_1", 17, || SqueezeNetConfig::new(64, 3, [2, 2, 4])),
];

/// Published by torchvision.
const WEIGHTS: &[Published] = &[
    Published::new("squeezenet1_0", "imagenet1k_v1", "squeezenet1_0-b66bff10.pth", 58.092, 80.42, 256),
    Published::new("squeezenet1_1", "imagenet1k_v1", "squeezenet1_1-b8a52dc0.pth", 58.178, 80.624, 256),
];

/// Channels of the squeeze layer and of each expand layer, for the eight fire modules.
const FIRES: [[usize; 2]; 8] = [[16, 64], [16, 64], [32, 128], [32, 128], [48, 192], [48, 192], [64, 256], [64, 256]];

/// Configures a [`SqueezeNet`].
#[derive(Config, Debug)]
pub struct SqueezeNetConfig {
    /// Channels of the first convolution.
    pub width: usize,
    /// Height and width of its kernel.
    pub kernel_size: usize,
    /// How many of the eight fire modules follow each of three poolings.
    pub depths: [usize; 3],
    /// Number of classes.
    #[config(default = 1000)]
    pub classes: usize,
    /// Channels of the images.
    #[config(default = 3)]
    pub channels: usize,
    /// Global pooling of the classes' maps.
    #[config(default = "GlobalPooling::Average")]
    pub global_pool: GlobalPooling,
    /// Dropout probability before the last convolution.
    #[config(default = 0.5)]
    pub dropout: f64,
}

/// A convolution, three stages of fire modules, and a convolution to the classes in place of a fully-connected layer.
#[derive(Module, Debug)]
pub struct SqueezeNet {
    stem: ConvUnit,
    stages: Vec<FireStage>,
    dropout: Dropout,
    classifier: ConvUnit,
    avgpool: GlobalPool,
}

/// Max pooling that halves the feature map, and fire modules.
#[derive(Module, Debug)]
struct FireStage {
    pool: Pool,
    fires: Vec<Fire>,
}

impl SqueezeNetConfig {
    pub(crate) fn with_options(self, options: &Options) -> Self {
        let dropout = options.dropout.unwrap_or(self.dropout);
        self.with_dropout(dropout)
    }

    /// Makes the network; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> SqueezeNet {
        let mut inputs = self.width;
        let mut fires = FIRES.into_iter().map(|[squeeze, expand]| {
            let fire = FireConfig::new(inputs, squeeze, expand).init(device);
            inputs = 2 * expand;
            fire
        });
        let stages = self.depths.map(|depth| FireStage {
            pool: PoolConfig::max(3, 2).with_ceil_mode(true).init(),
            fires: fires.by_ref().take(depth).collect(),
        });
        SqueezeNet {
            stem: ConvUnitConfig::square(self.channels, self.width, self.kernel_size)
                .strided(2)
                .with_init(Init::KaimingUniform)
                .init(device),
            stages: stages.into(),
            dropout: DropoutConfig::new(self.dropout).init(),
            classifier: ConvUnitConfig::square(512, self.classes, 1).with_init(Init::Normal(0.01)).init(device),
            avgpool: self.global_pool.init(),
        }
    }
}

impl Classifier for SqueezeNet {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        self.stages.iter().fold(self.stem.forward(images), |x, stage| {
            let x = stage.pool.forward(x);
            stage.fires.iter().fold(x, |x, fire| fire.forward(x))
        })
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        let maps = self.classifier.forward(features.dropout(&self.dropout));
        self.avgpool.forward(maps).flatten()
    }

    fn replace_head(self, classes: usize) -> Self {
        let classifier = self.classifier.replace_outputs(classes).expect("the classifier is a plain 1×1 convolution");
        Self { classifier, ..self }
    }

    /// torchvision numbers convolution, activation, poolings and fire modules in one sequence, `features`.
    fn reference_name(&self, path: &[&str]) -> String {
        let start = |stage: &str| 2 + self.stages[..index(stage)].iter().map(|s| 1 + s.fires.len()).sum::<usize>();
        let feature = |number: usize| format!("features.{number}");
        match path {
            ["stem", "conv", tensor] => rename(&["features.0"], tensor),
            ["stages", stage, "pool", tensor] => rename(&[&feature(start(stage))], tensor),
            ["stages", stage, "fires", fire, conv, "conv", tensor] => {
                rename(&[&feature(start(stage) + 1 + index(fire)), conv], tensor)
            }
            ["classifier", "conv", tensor] => rename(&["classifier.1"], tensor),
            ["avgpool", tensor] => rename(&["classifier.3"], tensor),
            _ => path.join("."),
        }
    }
}
