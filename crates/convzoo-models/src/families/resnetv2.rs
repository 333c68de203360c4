//! ResNet v2, the pre-activation ResNet: He, Zhang, Ren, Sun, *Identity Mappings in Deep Residual Networks*,
//! [arXiv:1603.05027](https://arxiv.org/abs/1603.05027), 2016; on ImageNet as timm has it, with the stride on the
//! 3×3 convolution and a 1×1 convolution as classifier.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;
use convzoo_blocks::{
    BottleneckConfig, ConvUnit, ConvUnitConfig, DropPath, FeatureMap, GlobalPool, GlobalPooling, Init, Norm,
    NormConfig, Pool, PoolConfig, PreActBottleneck,
};

use crate::names::rename;
use crate::registry::{Build, Opt, Sizes, Variant};
use crate::{Classifier, Interpolation, Options, Preprocessing};

const fn variant(name: &'static str, config: fn() -> ResNetV2Config) -> Variant {
    Variant {
        name,
        family: "preact_resnet",
        year: 2016,
        paper: "https://arxiv.org/abs/1603.05027",
        input: [3, 224, 224],
        classes: 1000,
        sizes: Sizes::From(1),
        takes: &[Opt::DropPath],
        weights: &[],
        build: Build::ResNetV2(config),
    }
}

pub(crate) const VARIANTS: &[Variant] = &[
    variant("resnetv2_50", || ResNetV2Config::new([3, 4, 6, 3])),
    variant("resnetv2_101", || ResNetV2Config::new([3, 4, 23, 3])),
];

/// Configures a [`ResNetV2`].
#[derive(Config, Debug)]
pub struct ResNetV2Config {
    /// Blocks in each of the four stages.
    pub depths: [usize; 4],
    /// Channels of each stage.
    #[config(default = "[256, 512, 1024, 2048]")]
    pub widths: [usize; 4],
    /// Number of classes.
    #[config(default = 1000)]
    pub classes: usize,
    /// Channels of the images.
    #[config(default = 3)]
    pub channels: usize,
    /// Global pooling before the classifier.
    #[config(default = "GlobalPooling::Average")]
    pub global_pool: GlobalPooling,
    /// Drop path rate of the last block; it decreases linearly to 0 for earlier blocks.
    #[config(default = 0.0)]
    pub drop_path: f64,
}

/// A strided 7×7 convolution, a max-pooling, four stages of pre-activation bottlenecks, the normalization and
/// activation that the last of them lacks, global average pooling, a 1×1 convolution to the classes.
#[derive(Module, Debug)]
pub struct ResNetV2 {
    stem: ConvUnit,
    pool: Pool,
    stages: Vec<Vec<PreActBottleneck>>,
    norm: Norm,
    global_pool: GlobalPool,
    fc: ConvUnit,
}

impl ResNetV2Config {
    pub(crate) fn with_options(self, options: &Options) -> Self {
        let drop_path = options.drop_path.unwrap_or(self.drop_path);
        self.with_drop_path(drop_path)
    }

    /// Makes the network; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> ResNetV2 {
        let mut rates = DropPath::linear_decay(self.drop_path, self.depths.iter().sum());
        let mut inputs = 64;
        let stages = (0..4).map(|stage| {
            let outputs = self.widths[stage];
            let blocks = rates.by_ref().take(self.depths[stage]).enumerate().map(|(i, rate)| {
                let stride = if i == 0 && stage > 0 { 2 } else { 1 };
                let channels = [std::mem::replace(&mut inputs, outputs), outputs];
                let config = BottleneckConfig::new(channels, outputs / 4).with_stride(stride);
                config.with_drop_path(rate).init_preact(device)
            });
            blocks.collect::<Vec<_>>()
        });
        let stages = stages.collect();
        let stem = ConvUnitConfig::square(self.channels, 64, 7).strided(2).padded(3).with_bias(false).linear();
        let fc = ConvUnitConfig::square(inputs, self.classes, 1).linear();
        ResNetV2 {
            stem: stem.with_init(Init::KaimingNormalFanOut).init(device),
            pool: PoolConfig::max(3, 2).with_padding([1, 1]).init(),
            stages,
            norm: NormConfig::BATCH.init(inputs, device),
            global_pool: self.global_pool.init(),
            fc: fc.with_init(Init::Normal(0.01)).init(device),
        }
    }
}

impl Classifier for ResNetV2 {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        let x = self.pool.forward(self.stem.forward(images));
        let x = self.stages.iter().flatten().fold(x, |x, block| block.forward(x));
        self.norm.forward(x).relu()
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.fc.forward(self.global_pool.forward(features)).flatten()
    }

    fn replace_head(self, classes: usize) -> Self {
        let fc = self.fc.replace_outputs(classes).expect("the classifier is a plain 1×1 convolution");
        Self { fc, ..self }
    }

    /// timm's for the published weights.
    fn preprocessing(&self) -> Preprocessing {
        Preprocessing {
            size: [224; 2],
            resize: Some(235),
            interpolation: Interpolation::Bicubic,
            mean: [0.5; 3],
            std: [0.5; 3],
        }
    }

    /// timm's names.
    fn reference_name(&self, path: &[&str]) -> String {
        match path {
            ["pool", tensor] => rename(&["stem.pool"], tensor),
            ["global_pool", tensor] => rename(&["head.global_pool.pool"], tensor),
            ["fc", "conv", tensor] => rename(&["head.fc"], tensor),
            ["stages", stage, block, "shortcut", "conv", tensor] => {
                rename(&["stages", stage, "blocks", block, "downsample.conv"], tensor)
            }
            ["stages", stage, block, conv, part, tensor] => {
                let layer = if *part == "norm" { conv.replace("conv", "norm") } else { (*conv).to_owned() };
                rename(&["stages", stage, "blocks", block, &layer], tensor)
            }
            _ => path.join("."),
        }
    }
}
