//! ResNet: He, Zhang, Ren, Sun, *Deep Residual Learning for Image Recognition*,
//! [arXiv:1512.03385](https://arxiv.org/abs/1512.03385), 2015; with torchvision's stride on the 3×3 convolution of a
//! bottleneck.
//!
//! And its descendants on ImageNet: ResNeXt (Xie, Girshick, Dollár, Tu, He, *Aggregated Residual Transformations for
//! Deep Neural Networks*, [arXiv:1611.05431](https://arxiv.org/abs/1611.05431), 2016), whose bottlenecks have groups,
//! and Wide ResNet (Zagoruyko, Komodakis, *Wide Residual Networks*,
//! [arXiv:1605.07146](https://arxiv.org/abs/1605.07146), 2016), whose bottlenecks are twice as wide inside.

use burn::module::Module;
use burn::tensor::Device;
use convzoo_blocks::{AdaptiveAvgPool2d, BasicBlockConfig, BottleneckConfig, ConvUnit, ConvUnitConfig, DropPath, FeatureMap, Init, Linear, LinearConfig, Pool, PoolConfig, ResidualBlock};

use crate::registry::{Opt, Sizes, Spec, Variant};
use crate::{Classifier, NameRules, Published};

/// What the stages are made of.
#[derive(Clone, Copy)]
enum Block {
    Basic,
    /// The 3×3 convolution's groups, and the channels of each in the first stage.
    Bottleneck {
        groups: usize,
        width: usize,
    },
}

const BASIC: Block = Block::Basic;

const fn bottleneck(groups: usize, width: usize) -> Block {
    Block::Bottleneck { groups, width }
}

/// Blocks in each of the four stages, and their kind.
const DESIGNS: &[(&str, [usize; 4], Block)] = &[
    ("resnet18", [2, 2, 2, 2], BASIC),
    ("resnet34", [3, 4, 6, 3], BASIC),
    ("resnet50", [3, 4, 6, 3], bottleneck(1, 64)),
    ("resnet101", [3, 4, 23, 3], bottleneck(1, 64)),
    ("resnet152", [3, 8, 36, 3], bottleneck(1, 64)),
    ("resnext50_32x4d", [3, 4, 6, 3], bottleneck(32, 4)),
    ("resnext101_32x8d", [3, 4, 23, 3], bottleneck(32, 8)),
    ("resnext101_64x4d", [3, 4, 23, 3], bottleneck(64, 4)),
    ("wide_resnet50_2", [3, 4, 6, 3], bottleneck(1, 128)),
    ("wide_resnet101_2", [3, 4, 23, 3], bottleneck(1, 128)),
];

/// Channels of a basic block in each stage; a bottleneck ends in four times as many.
const WIDTHS: [usize; 4] = [64, 128, 256, 512];

/// Published by torchvision.
const WEIGHTS: &[Published] = &[
    Published::new("resnet18", "imagenet1k_v1", "resnet18-f37072fd.pth", 69.758, 89.078, 256),
    Published::new("resnet34", "imagenet1k_v1", "resnet34-b627a593.pth", 73.314, 91.42, 256),
    Published::new("resnet50", "imagenet1k_v1", "resnet50-0676ba61.pth", 76.13, 92.862, 256),
    Published::new("resnet50", "imagenet1k_v2", "resnet50-11ad3fa6.pth", 80.858, 95.434, 232),
    Published::new("resnet101", "imagenet1k_v1", "resnet101-63fe2227.pth", 77.374, 93.546, 256),
    Published::new("resnet101", "imagenet1k_v2", "resnet101-cd907fc2.pth", 81.886, 95.78, 232),
    Published::new("resnet152", "imagenet1k_v1", "resnet152-394f9c45.pth", 78.312, 94.046, 256),
    Published::new("resnet152", "imagenet1k_v2", "resnet152-f82ba261.pth", 82.284, 96.002, 232),
    Published::new("resnext50_32x4d", "imagenet1k_v1", "resnext50_32x4d-7cdf4587.pth", 77.618, 93.698, 256),
    Published::new("resnext50_32x4d", "imagenet1k_v2", "resnext50_32x4d-1a0047aa.pth", 81.198, 95.34, 232),
    Published::new("resnext101_32x8d", "imagenet1k_v1", "resnext101_32x8d-8ba56ff5.pth", 79.312, 94.526, 256),
    Published::new("resnext101_32x8d", "imagenet1k_v2", "resnext101_32x8d-110c445d.pth", 82.834, 96.228, 232),
    Published::new("resnext101_64x4d", "imagenet1k_v1", "resnext101_64x4d-173b62eb.pth", 83.246, 96.454, 232),
    Published::new("wide_resnet50_2", "imagenet1k_v1", "wide_resnet50_2-95faca4d.pth", 78.468, 94.086, 256),
    Published::new("wide_resnet50_2", "imagenet1k_v2", "wide_resnet50_2-9ba9bcbe.pth", 81.602, 95.758, 232),
    Published::new("wide_resnet101_2", "imagenet1k_v1", "wide_resnet101_2-32ee1156.pth", 78.848, 94.284, 256),
    Published::new("wide_resnet101_2", "imagenet1k_v2", "wide_resnet101_2-d733dc28.pth", 82.51, 96.02, 232),
];

const fn variant(name: &'static str, family: &'static str, year: u16, paper: &'static str) -> Variant {
    Variant {
        name,
        family,
        year,
        paper,
        input: [3, 224, 224],
        classes: 1000,
        sizes: Sizes::From(1),
        takes: &[Opt::DropPath],
        weights: WEIGHTS,
        build: |spec, device| ResNet::new(spec, device).into(),
    }
}

const fn resnet(name: &'static str) -> Variant {
    variant(name, "resnet", 2015, "https://arxiv.org/abs/1512.03385")
}

const fn resnext(name: &'static str) -> Variant {
    variant(name, "resnext", 2016, "https://arxiv.org/abs/1611.05431")
}

const fn wide_resnet(name: &'static str) -> Variant {
    variant(name, "wide_resnet", 2016, "https://arxiv.org/abs/1605.07146")
}

pub(crate) const VARIANTS: &[Variant] = &[
    resnet("resnet18"),
    resnet("resnet34"),
    resnet("resnet50"),
    resnet("resnet101"),
    resnet("resnet152"),
    resnext("resnext50_32x4d"),
    resnext("resnext101_32x8d"),
    resnext("resnext101_64x4d"),
    wide_resnet("wide_resnet50_2"),
    wide_resnet("wide_resnet101_2"),
];

const NAMES: &[(&str, &str)] = &[
    (r"conv(\d)\.conv", "conv${1}"),
    (r"conv(\d)\.norm", "bn${1}"),
    (r"shortcut\.conv", "downsample.0"),
    (r"shortcut\.norm", "downsample.1"),
];

/// A strided 7×7 convolution, a max-pooling, four stages of residual blocks, the mean of the map, one linear layer.
#[derive(Module, Debug)]
pub struct ResNet {
    conv1: ConvUnit,
    maxpool: Pool,
    layer1: Vec<ResidualBlock>,
    layer2: Vec<ResidualBlock>,
    layer3: Vec<ResidualBlock>,
    layer4: Vec<ResidualBlock>,
    avgpool: AdaptiveAvgPool2d,
    fc: Linear,
}

impl ResNet {
    fn new(spec: &Spec, device: &Device) -> Self {
        let (_, depths, block) =
            DESIGNS.iter().find(|(name, ..)| *name == spec.name).expect("variants stand in the table");
        let last_rate = spec.options.drop_path.unwrap_or(0.0);
        let mut rates = DropPath::linear_decay(last_rate, depths.iter().sum());
        let mut inputs = 64;
        let [layer1, layer2, layer3, layer4] = [0, 1, 2, 3].map(|stage| {
            let first_stride = if stage == 0 { 1 } else { 2 };
            let strides = std::iter::once(first_stride).chain(std::iter::repeat(1)).take(depths[stage]);
            let blocks = strides.zip(rates.by_ref()).map(|(stride, rate)| {
                let outputs = block.outputs(stage);
                block.init([std::mem::replace(&mut inputs, outputs), outputs], stage, stride, rate, device)
            });
            blocks.collect::<Vec<_>>()
        });
        let stem = ConvUnitConfig::square(spec.channels, 64, 7).strided(2).padded(3).with_batch_norm();
        Self {
            conv1: stem.with_init(Init::KaimingNormalFanOut).init(device),
            maxpool: PoolConfig::max(3, 2).with_padding([1, 1]).init(),
            layer1,
            layer2,
            layer3,
            layer4,
            avgpool: AdaptiveAvgPool2d::new([1, 1]),
            fc: LinearConfig::new(inputs, spec.classes).init(device),
        }
    }
}

impl Block {
    fn outputs(self, stage: usize) -> usize {
        match self {
            Self::Basic => WIDTHS[stage],
            Self::Bottleneck { .. } => 4 * WIDTHS[stage],
        }
    }

    fn init(self, channels: [usize; 2], stage: usize, stride: usize, rate: f64, device: &Device) -> ResidualBlock {
        match self {
            Self::Basic => {
                let config = BasicBlockConfig::new(channels).with_stride(stride);
                ResidualBlock::Basic(config.with_drop_path(rate).init(device))
            }
            Self::Bottleneck { groups, width } => {
                let config = BottleneckConfig::new(channels, (groups * width) << stage).with_groups(groups);
                ResidualBlock::Bottleneck(config.with_stride(stride).with_drop_path(rate).init(device))
            }
        }
    }
}

impl Classifier for ResNet {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        let x = self.maxpool.forward(self.conv1.forward(images));
        let blocks = [&self.layer1, &self.layer2, &self.layer3, &self.layer4].into_iter().flatten();
        blocks.fold(x, |x, block| block.forward(x))
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.fc.forward(self.avgpool.forward(features).flatten())
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { fc: self.fc.replace_outputs(classes), ..self }
    }

    fn names(&self) -> NameRules {
        NameRules::table(NAMES)
    }
}
