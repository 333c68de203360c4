//! The residual networks of 32×32 images, CIFAR's: three stages that halve the feature map twice.
//!
//! - ResNet: He, Zhang, Ren, Sun, *Deep Residual Learning for Image Recognition*,
//!   [arXiv:1512.03385](https://arxiv.org/abs/1512.03385), 2015, section 4.2, with shortcuts of option A; names and
//!   initialization as in Y. Idelbayev's PyTorch networks, whose weights are published. The plain networks are the
//!   same section's: the same layers without shortcuts.
//! - Stochastic depth: Huang, Sun, Liu, Sedra, Weinberger, *Deep Networks with Stochastic Depth*,
//!   [arXiv:1603.09382](https://arxiv.org/abs/1603.09382), 2016.
//! - Pre-activation: He, Zhang, Ren, Sun, *Identity Mappings in Deep Residual Networks*,
//!   [arXiv:1603.05027](https://arxiv.org/abs/1603.05027), 2016.
//! - Wide: Zagoruyko, Komodakis, *Wide Residual Networks*,
//!   [arXiv:1605.07146](https://arxiv.org/abs/1605.07146), 2016.
//! - ResNeXt: Xie, Girshick, Dollár, Tu, He, *Aggregated Residual Transformations for Deep Neural Networks*,
//!   [arXiv:1611.05431](https://arxiv.org/abs/1611.05431), 2016, section 5.3.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;
use convzoo_blocks::{
    BasicBlockConfig, BottleneckConfig, ConvUnit, ConvUnitConfig, DropPath, FeatureMap, GlobalPooling, Init,
    LinearConfig, Norm, NormConfig, PooledHead, PooledHeadConfig, ResidualBlock, ShortcutKind,
};

use crate::names::rename;
use crate::registry::{Build, Opt, Sizes, Variant};
use crate::{Classifier, Options, Preprocessing};

const fn resnet(name: &'static str, config: fn() -> CifarResNetConfig) -> Variant {
    Variant {
        name,
        family: "resnet",
        year: 2015,
        paper: "https://arxiv.org/abs/1512.03385",
        input: [3, 32, 32],
        classes: 10,
        sizes: Sizes::From(1),
        takes: &[Opt::DropPath],
        weights: &[],
        build: Build::CifarResNet(config),
    }
}

const fn plain(name: &'static str, config: fn() -> CifarResNetConfig) -> Variant {
    Variant { takes: &[], ..resnet(name, config) }
}

const fn descendant(
    name: &'static str,
    family: &'static str,
    paper: &'static str,
    config: fn() -> CifarResNetConfig,
) -> Variant {
    Variant { family, year: 2016, paper, ..resnet(name, config) }
}

const fn preact(name: &'static str, config: fn() -> CifarResNetConfig) -> Variant {
    descendant(name, "preact_resnet", "https://arxiv.org/abs/1603.05027", config)
}

const fn wide(name: &'static str, config: fn() -> CifarResNetConfig) -> Variant {
    let variant = descendant(name, "wide_resnet", "https://arxiv.org/abs/1605.07146", config);
    Variant { takes: &[Opt::Dropout, Opt::DropPath], ..variant }
}

pub(crate) const VARIANTS: &[Variant] = &[
    resnet("resnet20_cifar", || CifarResNetConfig::new(3, CifarBlock::Basic)),
    resnet("resnet32_cifar", || CifarResNetConfig::new(5, CifarBlock::Basic)),
    resnet("resnet44_cifar", || CifarResNetConfig::new(7, CifarBlock::Basic)),
    resnet("resnet56_cifar", || CifarResNetConfig::new(9, CifarBlock::Basic)),
    resnet("resnet110_cifar", || CifarResNetConfig::new(18, CifarBlock::Basic)),
    resnet("resnet1202_cifar", || CifarResNetConfig::new(200, CifarBlock::Basic)),
    plain("plain20_cifar", || CifarResNetConfig::new(3, CifarBlock::Plain)),
    plain("plain56_cifar", || CifarResNetConfig::new(9, CifarBlock::Plain)),
    descendant("resnet110_stochastic_depth", "stochastic_depth", "https://arxiv.org/abs/1603.09382", || {
        CifarResNetConfig::new(18, CifarBlock::Basic).with_drop_path(0.5)
    }),
    preact("preact_resnet110_cifar", || CifarResNetConfig::new(18, CifarBlock::PreActBasic)),
    preact("preact_resnet164_cifar", || CifarResNetConfig::new(18, CifarBlock::PreActBottleneck).with_widths([16, 64])),
    preact("preact_resnet1001_cifar", || {
        CifarResNetConfig::new(111, CifarBlock::PreActBottleneck).with_widths([16, 64])
    }),
    wide("wide_resnet16_4", || CifarResNetConfig::new(2, CifarBlock::Wide).with_widths([16, 64])),
    wide("wide_resnet28_10", || CifarResNetConfig::new(4, CifarBlock::Wide).with_widths([16, 160])),
    descendant("resnext29_8x64d", "resnext", "https://arxiv.org/abs/1611.05431", || {
        CifarResNetConfig::new(3, CifarBlock::ResNeXt { groups: 8, width: 64 }).with_widths([64, 256])
    }),
];

/// Configures a [`CifarResNet`].
#[derive(Config, Debug)]
pub struct CifarResNetConfig {
    /// Blocks in each of the three stages.
    pub depth: usize,
    /// The block of all stages.
    pub block: CifarBlock,
    /// Channels of the stem and of the first stage; from stage to stage they double.
    #[config(default = "[16, 16]")]
    pub widths: [usize; 2],
    /// Number of classes.
    #[config(default = 10)]
    pub classes: usize,
    /// Channels of the images.
    #[config(default = 3)]
    pub channels: usize,
    /// Global pooling before the classifier.
    #[config(default = "GlobalPooling::Average")]
    pub global_pool: GlobalPooling,
    /// Dropout probability between the convolutions of basic blocks.
    #[config(default = 0.0)]
    pub dropout: f64,
    /// Drop path rate of the last block; it decreases linearly to 0 for earlier blocks.
    #[config(default = 0.0)]
    pub drop_path: f64,
}

/// The block of a [`CifarResNetConfig`].
#[derive(Config, Debug, Copy)]
pub enum CifarBlock {
    /// Two 3×3 convolutions, shortcuts of option A.
    Basic,
    /// Two 3×3 convolutions, no shortcuts.
    Plain,
    /// Two 3×3 convolutions, activations first, shortcuts of option A.
    PreActBasic,
    /// 1×1, 3×3, 1×1, activations first, shortcuts of option B, the stride on the first 1×1 convolution.
    PreActBottleneck,
    /// Two 3×3 convolutions, activations first, shortcuts of option B.
    Wide,
    /// 1×1, 3×3 in groups, 1×1, shortcuts of option B.
    ResNeXt {
        /// Groups of the 3×3 convolution.
        groups: usize,
        /// Channels of each group in the first stage.
        width: usize,
    },
}

/// A 3×3 convolution, three stages of residual blocks, global average pooling, one linear layer.
#[derive(Module, Debug)]
pub struct CifarResNet {
    conv1: ConvUnit,
    layer1: Vec<ResidualBlock>,
    layer2: Vec<ResidualBlock>,
    layer3: Vec<ResidualBlock>,
    /// The norm after the last pre-activation block.
    norm: Option<Norm>,
    head: PooledHead,
}

impl CifarResNetConfig {
    pub(crate) fn with_options(self, options: &Options) -> Self {
        let (dropout, drop_path) = (options.dropout, options.drop_path);
        let dropout = dropout.unwrap_or(self.dropout);
        let drop_path = drop_path.unwrap_or(self.drop_path);
        self.with_dropout(dropout).with_drop_path(drop_path)
    }

    /// Makes the network; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> CifarResNet {
        let [stem, first] = self.widths;
        let mut rates = DropPath::linear_decay(self.drop_path, 3 * self.depth);
        let mut inputs = stem;
        let [layer1, layer2, layer3] = [0, 1, 2].map(|stage| {
            let outputs = first << stage;
            let blocks = rates.by_ref().take(self.depth).enumerate().map(|(i, rate)| {
                let channels = [std::mem::replace(&mut inputs, outputs), outputs];
                self.block(channels, stage, i == 0, rate, device)
            });
            blocks.collect::<Vec<_>>()
        });
        let conv1 = ConvUnitConfig::square(self.channels, stem, 3).padded(1).with_init(self.block.conv_init());
        let preact = self.block.is_preact();
        let conv1 = if preact { conv1.with_bias(false).linear() } else { conv1.with_batch_norm() };
        CifarResNet {
            conv1: conv1.init(device),
            layer1,
            layer2,
            layer3,
            norm: preact.then(|| NormConfig::BATCH.init(inputs, device)),
            head: self.head(inputs, device),
        }
    }

    /// A block of a stage, the first of it or not.
    fn block(&self, channels: [usize; 2], stage: usize, first: bool, rate: f64, device: &Device) -> ResidualBlock {
        let stride = if first && stage > 0 { 2 } else { 1 };
        let init = self.block.conv_init();
        let basic = BasicBlockConfig::new(channels).with_stride(stride).with_init(init);
        let basic = basic.with_dropout(self.dropout).with_drop_path(rate);
        let bottleneck =
            |width| BottleneckConfig::new(channels, width).with_stride(stride).with_init(init).with_drop_path(rate);
        match self.block {
            CifarBlock::Basic => ResidualBlock::Basic(basic.with_shortcut(ShortcutKind::ZeroPad).init(device)),
            CifarBlock::Plain => ResidualBlock::Plain(basic.init_plain(device)),
            CifarBlock::PreActBasic => {
                let config = basic.with_shortcut(ShortcutKind::ZeroPad).with_shared_activation(first && stage == 0);
                ResidualBlock::PreActBasic(config.init_preact(device))
            }
            CifarBlock::PreActBottleneck => {
                let config = bottleneck(channels[1] / 4).with_stride_first(true);
                ResidualBlock::PreActBottleneck(config.init_preact(device))
            }
            CifarBlock::Wide => ResidualBlock::PreActBasic(basic.init_preact(device)),
            CifarBlock::ResNeXt { groups, width } => {
                let config = bottleneck((groups * width) << stage).with_groups(groups);
                ResidualBlock::Bottleneck(config.init(device))
            }
        }
    }

    /// The linear layer's weight and bias: Kaiming normal and PyTorch's default in the PyTorch networks, Torch's
    /// default and zero in the papers' own code.
    fn head(&self, inputs: usize, device: &Device) -> PooledHead {
        let [weight, bias] = match self.block.follows_pytorch() {
            true => [Init::KaimingNormalFanIn, Init::Torch],
            false => [Init::Torch, Init::KaimingNormalFanIn],
        };
        let mut head = PooledHeadConfig::new(inputs, self.classes)
            .with_global_pool(self.global_pool)
            .with_init(weight)
            .init(device);
        if let Some(fc) = &mut head.fc {
            fc.bias = LinearConfig::new(inputs, self.classes).with_init(bias).init(device).bias;
        }
        head
    }
}

impl CifarBlock {
    fn is_preact(self) -> bool {
        matches!(self, Self::PreActBasic | Self::PreActBottleneck | Self::Wide)
    }

    /// Whether the network is one of those whose PyTorch weights are published, or built like them.
    fn follows_pytorch(self) -> bool {
        matches!(self, Self::Basic | Self::Plain)
    }

    /// Kaiming normal: `fan_in` in the PyTorch networks, `fan_out` in the papers' own code.
    fn conv_init(self) -> Init {
        if self.follows_pytorch() { Init::KaimingNormalFanIn } else { Init::KaimingNormalFanOut }
    }
}

impl Classifier for CifarResNet {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        let blocks = [&self.layer1, &self.layer2, &self.layer3].into_iter().flatten();
        let x = blocks.fold(self.conv1.forward(images), |x, block| block.forward(x));
        match &self.norm {
            Some(norm) => norm.forward(x).relu(),
            None => x,
        }
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.head.forward(features)
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { head: self.head.replace_classes(classes), ..self }
    }

    fn preprocessing(&self) -> Preprocessing {
        Preprocessing::small(32)
    }

    fn reference_name(&self, path: &[&str]) -> String {
        match path {
            ["head", "pool", tensor] => rename(&["avgpool"], tensor),
            ["head", "fc", tensor] => rename(&["linear"], tensor),
            ["norm", tensor] => rename(&["bn1"], tensor),
            [block @ .., "shortcut", "conv", tensor] => rename(block, &format!("shortcut.0.{tensor}")),
            [block @ .., "shortcut", "norm", tensor] => rename(block, &format!("shortcut.1.{tensor}")),
            [block @ .., conv, "conv", tensor] => rename(block, &format!("{conv}.{tensor}")),
            [block @ .., conv, "norm", tensor] => rename(block, &format!("{}.{tensor}", conv.replace("conv", "bn"))),
            _ => path.join("."),
        }
    }
}
