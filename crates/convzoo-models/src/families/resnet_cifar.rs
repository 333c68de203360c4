//! The residual networks of 32×32 images, CIFAR's: three stages that halve the map twice.
//!
//! - ResNet: He, Zhang, Ren, Sun, *Deep Residual Learning for Image Recognition*,
//!   [arXiv:1512.03385](https://arxiv.org/abs/1512.03385), 2015, section 4.2, with shortcuts of option A; names and
//!   initialisation as in Y. Idelbayev's PyTorch networks, whose weights are published. The plain networks are the
//!   same section's: the same layers without shortcuts.
//! - Stochastic depth: Huang, Sun, Liu, Sedra, Weinberger, *Deep Networks with Stochastic Depth*,
//!   [arXiv:1603.09382](https://arxiv.org/abs/1603.09382), 2016.
//! - Pre-activation: He, Zhang, Ren, Sun, *Identity Mappings in Deep Residual Networks*,
//!   [arXiv:1603.05027](https://arxiv.org/abs/1603.05027), 2016.
//! - Wide: Zagoruyko, Komodakis, *Wide Residual Networks*,
//!   [arXiv:1605.07146](https://arxiv.org/abs/1605.07146), 2016.
//! - ResNeXt: Xie, Girshick, Dollár, Tu, He, *Aggregated Residual Transformations for Deep Neural Networks*,
//!   [arXiv:1611.05431](https://arxiv.org/abs/1611.05431), 2016, section 5.3.

use burn::module::Module;
use burn::tensor::Device;
use convzoo_blocks::{AdaptiveAvgPool2d, BasicBlockConfig, BottleneckConfig, ConvUnit, ConvUnitConfig, DropPath, FeatureMap, Init, Linear, LinearConfig, Norm, NormConfig, ResidualBlock, ShortcutKind};

use crate::registry::{Opt, Sizes, Spec, Variant};
use crate::{Classifier, NameRules, Preprocessing};

/// What the stages are made of.
#[derive(Clone, Copy)]
enum Block {
    /// Option A.
    Basic,
    /// No shortcuts.
    Plain,
    /// Option A.
    PreActBasic,
    /// Option B, the stride on the first 1×1 convolution.
    PreActBottleneck,
    /// Pre-activation, option B.
    Wide,
    /// Option B; groups of the 3×3 convolution, and the channels of each in the first stage.
    ResNeXt { groups: usize, width: usize },
}

use Block::*;

/// Blocks per stage, channels of the stem and of the first stage, kind of block, probability of dropping the last
/// block. From stage to stage channels double.
const DESIGNS: &[(&str, usize, [usize; 2], Block, f64)] = &[
    ("resnet20_cifar", 3, [16, 16], Basic, 0.0),
    ("resnet32_cifar", 5, [16, 16], Basic, 0.0),
    ("resnet44_cifar", 7, [16, 16], Basic, 0.0),
    ("resnet56_cifar", 9, [16, 16], Basic, 0.0),
    ("resnet110_cifar", 18, [16, 16], Basic, 0.0),
    ("resnet1202_cifar", 200, [16, 16], Basic, 0.0),
    ("plain20_cifar", 3, [16, 16], Plain, 0.0),
    ("plain56_cifar", 9, [16, 16], Plain, 0.0),
    ("resnet110_stochastic_depth", 18, [16, 16], Basic, 0.5),
    ("preact_resnet110_cifar", 18, [16, 16], PreActBasic, 0.0),
    ("preact_resnet164_cifar", 18, [16, 64], PreActBottleneck, 0.0),
    ("preact_resnet1001_cifar", 111, [16, 64], PreActBottleneck, 0.0),
    ("wide_resnet28_10", 4, [16, 160], Wide, 0.0),
    ("resnext29_8x64d", 3, [64, 256], ResNeXt { groups: 8, width: 64 }, 0.0),
];

const fn variant(
    name: &'static str,
    family: &'static str,
    year: u16,
    paper: &'static str,
    takes: &'static [Opt],
) -> Variant {
    Variant {
        name,
        family,
        year,
        paper,
        input: [3, 32, 32],
        classes: 10,
        sizes: Sizes::From(1),
        takes,
        weights: &[],
        build: |spec, device| CifarResNet::new(spec, device).into(),
    }
}

const fn resnet(name: &'static str) -> Variant {
    variant(name, "resnet", 2015, "https://arxiv.org/abs/1512.03385", &[Opt::DropPath])
}

const fn plain(name: &'static str) -> Variant {
    variant(name, "resnet", 2015, "https://arxiv.org/abs/1512.03385", &[])
}

const fn preact(name: &'static str) -> Variant {
    variant(name, "preact_resnet", 2016, "https://arxiv.org/abs/1603.05027", &[Opt::DropPath])
}

pub(crate) const VARIANTS: &[Variant] = &[
    resnet("resnet20_cifar"),
    resnet("resnet32_cifar"),
    resnet("resnet44_cifar"),
    resnet("resnet56_cifar"),
    resnet("resnet110_cifar"),
    resnet("resnet1202_cifar"),
    plain("plain20_cifar"),
    plain("plain56_cifar"),
    variant(
        "resnet110_stochastic_depth",
        "stochastic_depth",
        2016,
        "https://arxiv.org/abs/1603.09382",
        &[Opt::DropPath],
    ),
    preact("preact_resnet110_cifar"),
    preact("preact_resnet164_cifar"),
    preact("preact_resnet1001_cifar"),
    variant(
        "wide_resnet28_10",
        "wide_resnet",
        2016,
        "https://arxiv.org/abs/1605.07146",
        &[Opt::Dropout, Opt::DropPath],
    ),
    variant("resnext29_8x64d", "resnext", 2016, "https://arxiv.org/abs/1611.05431", &[Opt::DropPath]),
];

const NAMES: &[(&str, &str)] = &[
    (r"conv(\d)\.conv", "conv${1}"),
    (r"conv(\d)\.norm", "bn${1}"),
    (r"shortcut\.conv", "shortcut.0"),
    (r"shortcut\.norm", "shortcut.1"),
    (r"^norm", "bn1"),
];

/// A 3×3 convolution, three stages of residual blocks, the mean of the map, one linear layer.
#[derive(Module, Debug)]
pub struct CifarResNet {
    conv1: ConvUnit,
    layer1: Vec<ResidualBlock>,
    layer2: Vec<ResidualBlock>,
    layer3: Vec<ResidualBlock>,
    /// What a last pre-activation block lacks.
    norm: Option<Norm>,
    avgpool: AdaptiveAvgPool2d,
    linear: Linear,
}

impl CifarResNet {
    fn new(spec: &Spec, device: &Device) -> Self {
        let &(_, depth, [stem, first], block, drop_path) =
            DESIGNS.iter().find(|(name, ..)| *name == spec.name).expect("variants stand in the table");
        let last_rate = spec.options.drop_path.unwrap_or(drop_path);
        let dropout = spec.options.dropout.unwrap_or(0.0);

        let mut rates = DropPath::linear_decay(last_rate, 3 * depth);
        let mut inputs = stem;
        let [layer1, layer2, layer3] = [0, 1, 2].map(|stage| {
            let outputs = first << stage;
            let blocks = rates.by_ref().take(depth).enumerate().map(|(i, drop_path)| {
                let stride = if i == 0 && stage > 0 { 2 } else { 1 };
                let channels = [std::mem::replace(&mut inputs, outputs), outputs];
                let is_first = i == 0 && stage == 0;
                block.init(Place { channels, stage, stride, is_first, dropout, drop_path }, device)
            });
            blocks.collect::<Vec<_>>()
        });

        let conv1 = ConvUnitConfig::square(spec.channels, stem, 3).padded(1).with_init(block.conv_init());
        let conv1 = if block.is_preact() { conv1.with_bias(false).linear() } else { conv1.with_batch_norm() };
        let [mut linear, biased] =
            block.linear_init().map(|init| LinearConfig::new(inputs, spec.classes).with_init(init).init(device));
        linear.bias = biased.bias;
        Self {
            conv1: conv1.init(device),
            layer1,
            layer2,
            layer3,
            norm: block.is_preact().then(|| NormConfig::BATCH.init(inputs, device)),
            avgpool: AdaptiveAvgPool2d::new([1, 1]),
            linear,
        }
    }
}

/// A block's place in the network.
struct Place {
    channels: [usize; 2],
    stage: usize,
    stride: usize,
    is_first: bool,
    dropout: f64,
    drop_path: f64,
}

impl Block {
    fn init(self, place: Place, device: &Device) -> ResidualBlock {
        let Place { channels, stage, stride, is_first, dropout, drop_path } = place;
        let basic = BasicBlockConfig::new(channels)
            .with_stride(stride)
            .with_dropout(dropout)
            .with_drop_path(drop_path)
            .with_init(self.conv_init());
        let bottleneck = |width| {
            BottleneckConfig::new(channels, width)
                .with_stride(stride)
                .with_drop_path(drop_path)
                .with_init(self.conv_init())
        };
        match self {
            Basic => ResidualBlock::Basic(basic.with_shortcut(ShortcutKind::ZeroPad).init(device)),
            Plain => ResidualBlock::Plain(basic.init_plain(device)),
            PreActBasic => {
                let config = basic.with_shortcut(ShortcutKind::ZeroPad).with_shared_activation(is_first);
                ResidualBlock::PreActBasic(config.init_preact(device))
            }
            PreActBottleneck => {
                let config = bottleneck(channels[1] / 4).with_stride_first(true);
                ResidualBlock::PreActBottleneck(config.init_preact(device))
            }
            Wide => ResidualBlock::PreActBasic(basic.init_preact(device)),
            ResNeXt { groups, width } => {
                let config = bottleneck((groups * width) << stage).with_groups(groups);
                ResidualBlock::Bottleneck(config.init(device))
            }
        }
    }

    fn is_preact(self) -> bool {
        matches!(self, PreActBasic | PreActBottleneck | Wide)
    }

    /// Whether the network is one of those whose PyTorch weights are published, or built like them.
    fn follows_pytorch(self) -> bool {
        matches!(self, Basic | Plain)
    }

    /// He's normal: over the inputs in the PyTorch networks, over the outputs in the papers' own code.
    fn conv_init(self) -> Init {
        if self.follows_pytorch() { Init::KaimingNormalFanIn } else { Init::KaimingNormalFanOut }
    }

    /// Of the linear layer's weight and bias: He's normal and PyTorch's default in the PyTorch networks, Torch's
    /// default and zero in the papers' own code.
    fn linear_init(self) -> [Init; 2] {
        match self.follows_pytorch() {
            true => [Init::KaimingNormalFanIn, Init::Torch],
            false => [Init::Torch, Init::KaimingNormalFanIn],
        }
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
        self.linear.forward(self.avgpool.forward(features).flatten())
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { linear: self.linear.replace_outputs(classes), ..self }
    }

    fn preprocessing(&self) -> Preprocessing {
        Preprocessing::small(32)
    }

    fn names(&self) -> NameRules {
        NameRules::table(NAMES)
    }
}
