//! ResNet v2, the pre-activation ResNet: He, Zhang, Ren, Sun, *Identity Mappings in Deep Residual Networks*,
//! [arXiv:1603.05027](https://arxiv.org/abs/1603.05027), 2016; on ImageNet as timm has it, with the stride on the
//! 3×3 convolution and a 1×1 convolution as classifier.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use convzoo_blocks::{
    Activation, AdaptiveAvgPool2d, BottleneckConfig, ConvUnit, ConvUnitConfig, DropPath, Init, Norm, NormConfig, Pool,
    PoolConfig, PreActBottleneck,
};

use crate::registry::{Opt, Sizes, Spec, Variant};
use crate::{Classifier, Interpolation, NameRules, Preprocessing};

/// Blocks in each of the four stages.
const DEPTHS: &[(&str, [usize; 4])] = &[("resnetv2_50", [3, 4, 6, 3]), ("resnetv2_101", [3, 4, 23, 3])];

/// Channels of each stage.
const WIDTHS: [usize; 4] = [256, 512, 1024, 2048];

const fn variant(name: &'static str) -> Variant {
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
        build: |spec, device| ResNetV2::new(spec, device).into(),
    }
}

pub(crate) const VARIANTS: &[Variant] = &[variant("resnetv2_50"), variant("resnetv2_101")];

const NAMES: &[(&str, &str)] = &[
    (r"^pool", "stem.pool"),
    (r"^stages\.(\d+)", "stages.${1}.blocks"),
    (r"conv(\d)\.conv", "conv${1}"),
    (r"conv(\d)\.norm", "norm${1}"),
    (r"shortcut\.conv", "downsample.conv"),
    (r"^global_pool", "head.global_pool.pool"),
    (r"^fc\.conv", "head.fc"),
];

/// A strided 7×7 convolution, a max-pooling, four stages of pre-activation bottlenecks, the normalisation and
/// activation that the last of them lacks, the mean of the map, a 1×1 convolution to the classes.
#[derive(Module, Debug)]
pub struct ResNetV2 {
    stem: ConvUnit,
    pool: Pool,
    stages: Vec<Vec<PreActBottleneck>>,
    norm: Norm,
    global_pool: AdaptiveAvgPool2d,
    fc: ConvUnit,
}

impl ResNetV2 {
    fn new(spec: &Spec, device: &Device) -> Self {
        let (_, depths) = DEPTHS.iter().find(|(name, _)| *name == spec.name).expect("variants stand in the table");
        let last_rate = spec.options.drop_path.unwrap_or(0.0);
        let mut rates = DropPath::linear_decay(last_rate, depths.iter().sum());
        let mut inputs = 64;
        let stages = (0..4).map(|stage| {
            let outputs = WIDTHS[stage];
            let first_stride = if stage == 0 { 1 } else { 2 };
            let strides = std::iter::once(first_stride).chain(std::iter::repeat(1)).take(depths[stage]);
            let blocks = strides.zip(rates.by_ref()).map(|(stride, rate)| {
                let channels = [std::mem::replace(&mut inputs, outputs), outputs];
                let config = BottleneckConfig::new(channels, outputs / 4).with_stride(stride);
                config.with_drop_path(rate).init_preact(device)
            });
            blocks.collect::<Vec<_>>()
        });
        let stem = ConvUnitConfig::square(spec.channels, 64, 7).strided(2).padded(3).with_bias(false).linear();
        Self {
            stem: stem.with_init(Init::KaimingNormalFanOut).init(device),
            pool: PoolConfig::max(3, 2).with_padding([1, 1]).init(),
            stages: stages.collect(),
            norm: NormConfig::BATCH.init(WIDTHS[3], device),
            global_pool: AdaptiveAvgPool2d::new([1, 1]),
            fc: ConvUnitConfig::square(WIDTHS[3], spec.classes, 1).linear().with_init(Init::Normal(0.01)).init(device),
        }
    }
}

impl Classifier for ResNetV2 {
    fn forward_features(&self, images: Tensor<4>) -> Tensor<4> {
        let x = self.pool.forward(self.stem.forward(images));
        let x = self.stages.iter().flatten().fold(x, |x, block| block.forward(x));
        Activation::Relu.forward(self.norm.forward(x))
    }

    fn forward_head(&self, features: Tensor<4>) -> Tensor<2> {
        self.fc.forward(self.global_pool.forward(features)).flatten(1, 3)
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

    fn names(&self) -> NameRules {
        NameRules::table(NAMES)
    }
}
