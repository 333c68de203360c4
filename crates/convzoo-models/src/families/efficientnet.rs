//! EfficientNet: Tan, Le, *EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks*,
//! [arXiv:1905.11946](https://arxiv.org/abs/1905.11946), 2019.
//!
//! And EfficientNetV2 (Tan, Le, *EfficientNetV2: Smaller Models and Faster Training*,
//! [arXiv:2104.00298](https://arxiv.org/abs/2104.00298), 2021), whose first stages have fused blocks.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;
use convzoo_blocks::{
    Activation, ConvUnit, ConvUnitConfig, FeatureMap, FusedMbConv, Init, InvertedResidual, InvertedResidualConfig,
    NormConfig, PooledHead, PooledHeadConfig, SqueezeExcitationConfig,
};

use super::mobilenet_v3::mbconv_name;
use crate::names::{index, place, rename};
use crate::registry::{Build, Opt, Sizes, Variant};
use crate::widths::make_divisible;
use crate::{Classifier, Interpolation, Options, Preprocessing, Published};

const fn efficientnet(name: &'static str, side: usize, config: fn() -> EfficientNetConfig) -> Variant {
    Variant {
        name,
        family: "efficientnet",
        year: 2019,
        paper: "https://arxiv.org/abs/1905.11946",
        input: [3, side, side],
        classes: 1000,
        sizes: Sizes::From(1),
        takes: &[Opt::Dropout, Opt::DropPath],
        weights: WEIGHTS,
        build: Build::EfficientNet(config),
    }
}

const fn v2(name: &'static str, side: usize, config: fn() -> EfficientNetConfig) -> Variant {
    let (family, paper) = ("efficientnet_v2", "https://arxiv.org/abs/2104.00298");
    Variant { family, year: 2021, paper, ..efficientnet(name, side, config) }
}

pub(crate) const VARIANTS: &[Variant] = &[
    efficientnet("efficientnet_b0", 224, || scaled(1.0, 1.0, 224, 0.2)),
    efficientnet("efficientnet_b1", 240, || scaled(1.0, 1.1, 240, 0.2)),
    efficientnet("efficientnet_b2", 288, || scaled(1.1, 1.2, 288, 0.3)),
    efficientnet("efficientnet_b3", 300, || scaled(1.2, 1.4, 300, 0.3)),
    efficientnet("efficientnet_b4", 380, || scaled(1.4, 1.8, 380, 0.4)),
    efficientnet("efficientnet_b5", 456, || scaled(1.6, 2.2, 456, 0.4).with_norm(TENSORFLOW_NORM)),
    efficientnet("efficientnet_b6", 528, || scaled(1.8, 2.6, 528, 0.5).with_norm(TENSORFLOW_NORM)),
    efficientnet("efficientnet_b7", 600, || scaled(2.0, 3.1, 600, 0.5).with_norm(TENSORFLOW_NORM)),
    v2("efficientnet_v2_s", 384, || EfficientNetConfig::v2(&V2_S, 384, 0.2)),
    v2("efficientnet_v2_m", 480, || EfficientNetConfig::v2(&V2_M, 480, 0.3)),
    v2("efficientnet_v2_l", 480, || EfficientNetConfig::v2(&V2_L, 480, 0.4)),
];

/// Published by torchvision.
const WEIGHTS: &[Published] = &[
    Published::new("efficientnet_b0", "imagenet1k_v1", "efficientnet_b0_rwightman-7f5810bc.pth", 77.692, 93.532, 256)
        .bicubic(),
    Published::new("efficientnet_b1", "imagenet1k_v1", "efficientnet_b1_rwightman-bac287d4.pth", 78.642, 94.186, 256)
        .cropped(240)
        .bicubic(),
    Published::new("efficientnet_b1", "imagenet1k_v2", "efficientnet_b1-c27df63c.pth", 79.838, 94.934, 255)
        .cropped(240),
    Published::new("efficientnet_b2", "imagenet1k_v1", "efficientnet_b2_rwightman-c35c1473.pth", 80.608, 95.31, 288)
        .cropped(288)
        .bicubic(),
    Published::new("efficientnet_b3", "imagenet1k_v1", "efficientnet_b3_rwightman-b3899882.pth", 82.008, 96.054, 320)
        .cropped(300)
        .bicubic(),
    Published::new("efficientnet_b4", "imagenet1k_v1", "efficientnet_b4_rwightman-23ab8bcd.pth", 83.384, 96.594, 384)
        .cropped(380)
        .bicubic(),
    Published::new("efficientnet_b5", "imagenet1k_v1", "efficientnet_b5_lukemelas-1a07897c.pth", 83.444, 96.628, 456)
        .cropped(456)
        .bicubic(),
    Published::new("efficientnet_b6", "imagenet1k_v1", "efficientnet_b6_lukemelas-24a108a5.pth", 84.008, 96.916, 528)
        .cropped(528)
        .bicubic(),
    Published::new("efficientnet_b7", "imagenet1k_v1", "efficientnet_b7_lukemelas-c5b4e57e.pth", 84.122, 96.908, 600)
        .cropped(600)
        .bicubic(),
    Published::new("efficientnet_v2_s", "imagenet1k_v1", "efficientnet_v2_s-dd5fe13b.pth", 84.228, 96.878, 384)
        .cropped(384),
    Published::new("efficientnet_v2_m", "imagenet1k_v1", "efficientnet_v2_m-dc08266a.pth", 85.112, 97.156, 480)
        .cropped(480),
    Published::new("efficientnet_v2_l", "imagenet1k_v1", "efficientnet_v2_l-59c71312.pth", 85.808, 97.788, 480)
        .cropped(480)
        .bicubic()
        .halves(),
];

/// Those of the networks whose weights came from TensorFlow.
const TENSORFLOW_NORM: NormConfig = NormConfig::Batch { epsilon: 1e-3, momentum: 0.01 };

/// Table 1 of the first paper: expansion, kernel, stride, channels, blocks.
const B0: [Stage; 7] = [
    Stage::mbconv(1, 3, 1, 16, 1),
    Stage::mbconv(6, 3, 2, 24, 2),
    Stage::mbconv(6, 5, 2, 40, 2),
    Stage::mbconv(6, 3, 2, 80, 3),
    Stage::mbconv(6, 5, 1, 112, 3),
    Stage::mbconv(6, 5, 2, 192, 4),
    Stage::mbconv(6, 3, 1, 320, 1),
];

/// Table 4 of the second paper.
const V2_S: [Stage; 6] = [
    Stage::fused(1, 1, 24, 2),
    Stage::fused(4, 2, 48, 4),
    Stage::fused(4, 2, 64, 4),
    Stage::mbconv(4, 3, 2, 128, 6),
    Stage::mbconv(6, 3, 1, 160, 9),
    Stage::mbconv(6, 3, 2, 256, 15),
];

const V2_M: [Stage; 7] = [
    Stage::fused(1, 1, 24, 3),
    Stage::fused(4, 2, 48, 5),
    Stage::fused(4, 2, 80, 5),
    Stage::mbconv(4, 3, 2, 160, 7),
    Stage::mbconv(6, 3, 1, 176, 14),
    Stage::mbconv(6, 3, 2, 304, 18),
    Stage::mbconv(6, 3, 1, 512, 5),
];

const V2_L: [Stage; 7] = [
    Stage::fused(1, 1, 32, 4),
    Stage::fused(4, 2, 64, 7),
    Stage::fused(4, 2, 96, 7),
    Stage::mbconv(4, 3, 2, 192, 10),
    Stage::mbconv(6, 3, 1, 224, 19),
    Stage::mbconv(6, 3, 2, 384, 25),
    Stage::mbconv(6, 3, 1, 640, 7),
];

/// Blocks of one width.
#[derive(Config, Debug, Copy)]
pub struct Stage {
    /// Whether they are fused.
    pub fused: bool,
    /// Expanded channels for each input channel.
    pub expansion: usize,
    /// Height and width of the kernel.
    pub kernel_size: usize,
    /// Stride of the first block.
    pub stride: usize,
    /// Output channels.
    pub channels: usize,
    /// Number of blocks.
    pub depth: usize,
}

impl Stage {
    /// MBConvs.
    pub const fn mbconv(expansion: usize, kernel_size: usize, stride: usize, channels: usize, depth: usize) -> Self {
        Self { fused: false, expansion, kernel_size, stride, channels, depth }
    }

    /// Fused MBConvs with 3×3 kernels.
    pub const fn fused(expansion: usize, stride: usize, channels: usize, depth: usize) -> Self {
        Self { fused: true, ..Self::mbconv(expansion, 3, stride, channels, depth) }
    }
}

/// The compound scaling of the first paper: B0 with other width, depth and images.
fn scaled(width: f64, depth: f64, side: usize, dropout: f64) -> EfficientNetConfig {
    let scaled = |channels: usize| make_divisible(channels as f64 * width, 8);
    let stages = B0.map(|stage| Stage {
        channels: scaled(stage.channels),
        depth: (stage.depth as f64 * depth).ceil() as usize,
        ..stage
    });
    let features = 4 * stages[stages.len() - 1].channels;
    EfficientNetConfig::new(scaled(32), stages.into(), features, side).with_dropout(dropout)
}

/// Configures an [`EfficientNet`].
#[derive(Config, Debug)]
pub struct EfficientNetConfig {
    /// Channels of the first convolution.
    pub width: usize,
    /// The blocks.
    pub stages: Vec<Stage>,
    /// Channels of the last convolution.
    pub features: usize,
    /// Height and width of the images.
    pub side: usize,
    /// Batch normalization.
    #[config(default = "NormConfig::BATCH")]
    pub norm: NormConfig,
    /// Number of classes; 0 leaves the linear layer out.
    #[config(default = 1000)]
    pub classes: usize,
    /// Channels of the images.
    #[config(default = 3)]
    pub channels: usize,
    /// Dropout probability before the linear layer.
    #[config(default = 0.2)]
    pub dropout: f64,
    /// Drop path rate that blocks from the first, at 0, rise to.
    #[config(default = 0.2)]
    pub drop_path: f64,
}

/// A strided convolution, stages of MBConvs, a 1×1 convolution, global average pooling, one linear layer.
#[derive(Module, Debug)]
pub struct EfficientNet {
    stem: ConvUnit,
    stages: Vec<Vec<Block>>,
    last: ConvUnit,
    head: PooledHead,
    side: usize,
}

/// A block of any stage.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // nearly all are MBConvs
enum Block {
    MbConv(InvertedResidual),
    Fused(FusedMbConv),
}

impl EfficientNetConfig {
    fn v2(stages: &[Stage], side: usize, dropout: f64) -> Self {
        let config = Self::new(stages[0].channels, stages.into(), 1280, side);
        config.with_norm(NormConfig::batch(1e-3)).with_dropout(dropout)
    }

    pub(crate) fn with_options(self, options: &Options) -> Self {
        let dropout = options.dropout.unwrap_or(self.dropout);
        let drop_path = options.drop_path.unwrap_or(self.drop_path);
        self.with_dropout(dropout).with_drop_path(drop_path)
    }

    /// Makes the network; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> EfficientNet {
        let conv = |inputs, outputs, size: usize| {
            let config = ConvUnitConfig::square(inputs, outputs, size).padded(size / 2).with_bias(false);
            config.with_norm(Some(self.norm)).with_activation(Activation::Silu).with_init(Init::KaimingNormalFanOut)
        };
        let total: usize = self.stages.iter().map(|stage| stage.depth).sum();
        let mut rates = (0..total).map(|block| self.drop_path * block as f64 / total as f64);
        let mut inputs = self.width;
        let stages = self.stages.iter().map(|stage| {
            let blocks = rates.by_ref().take(stage.depth).enumerate().map(|(i, rate)| {
                let channels = [std::mem::replace(&mut inputs, stage.channels), stage.channels];
                self.block(stage, channels, i == 0, rate, device)
            });
            blocks.collect()
        });
        let stages: Vec<Vec<Block>> = stages.collect();
        let head = PooledHeadConfig::new(self.features, self.classes).with_dropout(self.dropout);
        EfficientNet {
            stem: conv(self.channels, self.width, 3).strided(2).init(device),
            stages,
            last: conv(inputs, self.features, 1).init(device),
            head: head.with_init(Init::UniformFanOut(1.0)).init(device),
            side: self.side,
        }
    }

    fn block(&self, stage: &Stage, channels: [usize; 2], first: bool, rate: f64, device: &Device) -> Block {
        let expanded = stage.expansion * channels[0];
        let squeeze = SqueezeExcitationConfig::new(expanded, (channels[0] / 4).max(1));
        let config = InvertedResidualConfig::new(channels, expanded)
            .with_kernel_size(stage.kernel_size)
            .with_stride(if first { stage.stride } else { 1 })
            .with_squeeze(Some(squeeze.with_activation(Activation::Silu)))
            .with_activation(Activation::Silu)
            .with_norm(self.norm)
            .with_drop_path(rate);
        match stage.fused {
            true => Block::Fused(config.init_fused(device)),
            false => Block::MbConv(config.init(device)),
        }
    }
}

impl Classifier for EfficientNet {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        let blocks = self.stages.iter().flatten().fold(self.stem.forward(images), |x, block| match block {
            Block::MbConv(block) => block.forward(x),
            Block::Fused(block) => block.forward(x),
        });
        self.last.forward(blocks)
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.head.forward(features)
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { head: self.head.replace_classes(classes), ..self }
    }

    fn preprocessing(&self) -> Preprocessing {
        let (size, resize) = ([self.side; 2], Some(self.side));
        Preprocessing { size, resize, interpolation: Interpolation::Bicubic, ..Preprocessing::IMAGENET }
    }

    /// torchvision numbers convolution, stages and convolution in one sequence, `features`.
    fn reference_name(&self, path: &[&str]) -> String {
        match path {
            ["stem", unit, tensor] => rename(&["features.0", &place(unit).to_string()], tensor),
            ["last", unit, tensor] => rename(&[&format!("features.{}.{}", self.stages.len() + 1, place(unit))], tensor),
            ["stages", stage, block, rest @ .., tensor] => {
                let part = match (&self.stages[index(stage)][index(block)], rest) {
                    (Block::MbConv(block), _) => mbconv_name(block, rest),
                    (Block::Fused(_), ["project", unit]) => format!("1.{}", place(unit)),
                    (Block::Fused(_), [.., unit]) => format!("0.{}", place(unit)),
                    (Block::Fused(_), []) => String::new(),
                };
                rename(&[&format!("features.{}.{block}.block", index(stage) + 1), &part], tensor)
            }
            ["head", "pool", tensor] => rename(&["avgpool"], tensor),
            ["head", "fc", tensor] => rename(&["classifier.1"], tensor),
            _ => path.join("."),
        }
    }
}
