//! ResNet: He, Zhang, Ren, Sun, *Deep Residual Learning for Image Recognition*,
//! [arXiv:1512.03385](https://arxiv.org/abs/1512.03385), 2015; with torchvision's stride on the 3×3 convolution of a
//! bottleneck.
//!
//! And its descendants on ImageNet: ResNeXt (Xie, Girshick, Dollár, Tu, He, *Aggregated Residual Transformations for
//! Deep Neural Networks*, [arXiv:1611.05431](https://arxiv.org/abs/1611.05431), 2016), whose bottlenecks have groups,
//! and Wide ResNet (Zagoruyko, Komodakis, *Wide Residual Networks*,
//! [arXiv:1605.07146](https://arxiv.org/abs/1605.07146), 2016), whose bottlenecks are twice as wide inside.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;
use convzoo_blocks::{
    BasicBlockConfig, BottleneckConfig, ConvUnit, ConvUnitConfig, DropPath, FeatureMap, GlobalPooling, Init, Pool,
    PoolConfig, PooledHead, PooledHeadConfig, ResidualBlock,
};

use crate::names::rename;
use crate::registry::{Build, Opt, Sizes, Variant};
use crate::{Classifier, Options, Published};

const fn resnet(name: &'static str, config: fn() -> ResNetConfig) -> Variant {
    Variant {
        name,
        family: "resnet",
        year: 2015,
        paper: "https://arxiv.org/abs/1512.03385",
        input: [3, 224, 224],
        classes: 1000,
        sizes: Sizes::From(1),
        takes: &[Opt::DropPath],
        weights: WEIGHTS,
        build: Build::ResNet(config),
    }
}

const fn resnext(name: &'static str, config: fn() -> ResNetConfig) -> Variant {
    Variant { family: "resnext", year: 2016, paper: "https://arxiv.org/abs/1611.05431", ..resnet(name, config) }
}

const fn wide(name: &'static str, config: fn() -> ResNetConfig) -> Variant {
    Variant { family: "wide_resnet", year: 2016, paper: "https://arxiv.org/abs/1605.07146", ..resnet(name, config) }
}

pub(crate) const VARIANTS: &[Variant] = &[
    resnet("resnet18", || ResNetConfig::new([2, 2, 2, 2], ResNetBlock::Basic)),
    resnet("resnet34", || ResNetConfig::new([3, 4, 6, 3], ResNetBlock::Basic)),
    resnet("resnet50", || ResNetConfig::new([3, 4, 6, 3], ResNetBlock::BOTTLENECK)),
    resnet("resnet101", || ResNetConfig::new([3, 4, 23, 3], ResNetBlock::BOTTLENECK)),
    resnet("resnet152", || ResNetConfig::new([3, 8, 36, 3], ResNetBlock::BOTTLENECK)),
    resnext("resnext50_32x4d", || ResNetConfig::new([3, 4, 6, 3], ResNetBlock::bottleneck(32, 4))),
    resnext("resnext101_32x8d", || ResNetConfig::new([3, 4, 23, 3], ResNetBlock::bottleneck(32, 8))),
    resnext("resnext101_64x4d", || ResNetConfig::new([3, 4, 23, 3], ResNetBlock::bottleneck(64, 4))),
    wide("wide_resnet50_2", || ResNetConfig::new([3, 4, 6, 3], ResNetBlock::bottleneck(1, 128))),
    wide("wide_resnet101_2", || ResNetConfig::new([3, 4, 23, 3], ResNetBlock::bottleneck(1, 128))),
];

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

/// Configures a [`ResNet`].
///
/// ```
/// use burn::tensor::Device;
/// use convzoo_models::families::resnet::{ResNetBlock, ResNetConfig};
///
/// // One block a stage: a ResNet-10.
/// let network = ResNetConfig::new([1, 1, 1, 1], ResNetBlock::Basic).with_classes(10).init(&Device::default());
/// ```
#[derive(Config, Debug)]
pub struct ResNetConfig {
    /// Blocks in each of the four stages.
    pub depths: [usize; 4],
    /// The block of all stages.
    pub block: ResNetBlock,
    /// Channels of a basic block in each stage; a bottleneck ends in four times as many.
    #[config(default = "[64, 128, 256, 512]")]
    pub widths: [usize; 4],
    /// Number of classes; 0 leaves the linear layer out.
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
    /// Whether γ of each block's last norm is initialized to 0, so that every block starts as the identity.
    #[config(default = false)]
    pub zero_init: bool,
}

/// The block of a [`ResNetConfig`].
#[derive(Config, Debug, Copy)]
pub enum ResNetBlock {
    /// Two 3×3 convolutions.
    Basic,
    /// 1×1, 3×3, 1×1.
    Bottleneck {
        /// Groups of the 3×3 convolution.
        groups: usize,
        /// Channels of each group in the first stage.
        width: usize,
    },
}

impl ResNetBlock {
    /// The bottleneck of ResNet-50 and deeper.
    pub const BOTTLENECK: Self = Self::bottleneck(1, 64);

    /// A bottleneck whose 3×3 convolution has `groups` of `width` channels in the first stage.
    pub const fn bottleneck(groups: usize, width: usize) -> Self {
        Self::Bottleneck { groups, width }
    }
}

/// A strided 7×7 convolution, a max-pooling, four stages of residual blocks, global average pooling, one linear layer.
#[derive(Module, Debug)]
pub struct ResNet {
    conv1: ConvUnit,
    maxpool: Pool,
    layer1: Vec<ResidualBlock>,
    layer2: Vec<ResidualBlock>,
    layer3: Vec<ResidualBlock>,
    layer4: Vec<ResidualBlock>,
    head: PooledHead,
}

impl ResNetConfig {
    pub(crate) fn with_options(self, options: &Options) -> Self {
        let drop_path = options.drop_path.unwrap_or(self.drop_path);
        self.with_drop_path(drop_path)
    }

    /// Makes the network; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> ResNet {
        let mut rates = DropPath::linear_decay(self.drop_path, self.depths.iter().sum());
        let mut inputs = self.widths[0];
        let [layer1, layer2, layer3, layer4] = [0, 1, 2, 3].map(|stage| {
            let blocks = rates.by_ref().take(self.depths[stage]).enumerate().map(|(i, rate)| {
                let stride = if i == 0 && stage > 0 { 2 } else { 1 };
                let outputs = self.outputs(stage);
                let channels = [std::mem::replace(&mut inputs, outputs), outputs];
                self.block(channels, stage, stride, rate, device)
            });
            blocks.collect::<Vec<_>>()
        });
        let stem = ConvUnitConfig::square(self.channels, self.widths[0], 7).strided(2).padded(3).with_batch_norm();
        ResNet {
            conv1: stem.with_init(Init::KaimingNormalFanOut).init(device),
            maxpool: PoolConfig::max(3, 2).with_padding([1, 1]).init(),
            layer1,
            layer2,
            layer3,
            layer4,
            head: PooledHeadConfig::new(inputs, self.classes).with_global_pool(self.global_pool).init(device),
        }
    }

    /// Channels out of a stage.
    fn outputs(&self, stage: usize) -> usize {
        match self.block {
            ResNetBlock::Basic => self.widths[stage],
            ResNetBlock::Bottleneck { .. } => 4 * self.widths[stage],
        }
    }

    fn block(&self, channels: [usize; 2], stage: usize, stride: usize, rate: f64, device: &Device) -> ResidualBlock {
        match self.block {
            ResNetBlock::Basic => {
                let config = BasicBlockConfig::new(channels).with_stride(stride).with_drop_path(rate);
                ResidualBlock::Basic(config.with_zero_init(self.zero_init).init(device))
            }
            ResNetBlock::Bottleneck { groups, width } => {
                let config = BottleneckConfig::new(channels, (groups * width) << stage).with_groups(groups);
                let config = config.with_stride(stride).with_drop_path(rate);
                ResidualBlock::Bottleneck(config.with_zero_init(self.zero_init).init(device))
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
        self.head.forward(features)
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { head: self.head.replace_classes(classes), ..self }
    }

    fn reference_name(&self, path: &[&str]) -> String {
        match path {
            ["head", "pool", tensor] => rename(&["avgpool"], tensor),
            ["head", "fc", tensor] => rename(&["fc"], tensor),
            [block @ .., "shortcut", "conv", tensor] => rename(block, &format!("downsample.0.{tensor}")),
            [block @ .., "shortcut", "norm", tensor] => rename(block, &format!("downsample.1.{tensor}")),
            [block @ .., conv, "conv", tensor] => rename(block, &format!("{conv}.{tensor}")),
            [block @ .., conv, "norm", tensor] => rename(block, &format!("{}.{tensor}", conv.replace("conv", "bn"))),
            _ => path.join("."),
        }
    }
}
