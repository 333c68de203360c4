//! DenseNet: Huang, Liu, van der Maaten, Weinberger, *Densely Connected Convolutional Networks*,
//! [arXiv:1608.06993](https://arxiv.org/abs/1608.06993), 2016: the networks for ImageNet, all of the form BC, with
//! bottlenecks and compression.

use burn::module::Module;
use burn::tensor::Device;
use convzoo_blocks::{AdaptiveAvgPool2d, BatchNorm2d, BatchNorm2dConfig, ConvUnit, ConvUnitConfig, DenseBlock, DenseBlockConfig, FeatureMap, Init, Linear, LinearConfig, Pool, PoolConfig, Transition, TransitionConfig};

use crate::registry::{Opt, Sizes, Spec, Variant};
use crate::{Classifier, NameRules, Published};

/// Channels of the first convolution, growth rate, and layers of each dense block.
const TABLE: &[(&str, usize, usize, [usize; 4])] = &[
    ("densenet121", 64, 32, [6, 12, 24, 16]),
    ("densenet169", 64, 32, [6, 12, 32, 32]),
    ("densenet201", 64, 32, [6, 12, 48, 32]),
    ("densenet161", 96, 48, [6, 12, 36, 24]),
];

/// Width of the 1×1 convolutions in growth rates.
pub(super) const BOTTLENECK: usize = 4;

/// Published by torchvision.
const WEIGHTS: &[Published] = &[
    Published::new("densenet121", "imagenet1k_v1", "densenet121-a639ec97.pth", 74.434, 91.972, 256),
    Published::new("densenet161", "imagenet1k_v1", "densenet161-8d451a50.pth", 77.138, 93.56, 256),
    Published::new("densenet169", "imagenet1k_v1", "densenet169-b2777c0a.pth", 75.6, 92.806, 256),
    Published::new("densenet201", "imagenet1k_v1", "densenet201-c1103571.pth", 76.896, 93.37, 256),
];

const fn variant(name: &'static str) -> Variant {
    Variant {
        name,
        family: "densenet",
        year: 2016,
        paper: "https://arxiv.org/abs/1608.06993",
        input: [3, 224, 224],
        classes: 1000,
        sizes: Sizes::From(29),
        takes: &[Opt::Dropout, Opt::MemoryEfficient],
        weights: WEIGHTS,
        build: |spec, device| DenseNet::new(spec, device).into(),
    }
}

pub(crate) const VARIANTS: &[Variant] =
    &[variant("densenet121"), variant("densenet161"), variant("densenet169"), variant("densenet201")];

/// Four dense blocks with transitions that halve channels and map between them.
#[derive(Module, Debug)]
pub struct DenseNet {
    stem: ConvUnit,
    pool: Pool,
    blocks: Vec<DenseBlock>,
    transitions: Vec<Transition>,
    norm: BatchNorm2d,
    avgpool: AdaptiveAvgPool2d,
    classifier: Linear,
}

impl DenseNet {
    fn new(spec: &Spec, device: &Device) -> Self {
        let row = TABLE.iter().find(|(name, ..)| *name == spec.name);
        let &(_, width, growth_rate, depths) = row.expect("variants stand in the table");
        let mut blocks = Vec::new();
        let mut transitions = Vec::new();
        let mut channels = width;
        for depth in depths {
            if !blocks.is_empty() {
                transitions.push(TransitionConfig::new([channels, channels / 2]).init(device));
                channels /= 2;
            }
            let block = DenseBlockConfig::new(channels, depth, growth_rate)
                .with_bottleneck(Some(BOTTLENECK))
                .with_dropout(spec.options.dropout.unwrap_or(0.0))
                .with_memory_efficient(spec.options.memory_efficient.unwrap_or(false));
            blocks.push(block.init(device));
            channels = block.outputs();
        }
        Self {
            stem: ConvUnitConfig::square(spec.channels, width, 7)
                .strided(2)
                .padded(3)
                .with_batch_norm()
                .with_init(Init::KaimingNormalFanIn)
                .init(device),
            pool: PoolConfig::max(3, 2).with_padding([1, 1]).init(),
            blocks,
            transitions,
            norm: BatchNorm2dConfig::new(channels).init(device),
            avgpool: AdaptiveAvgPool2d::new([1, 1]),
            classifier: LinearConfig::new(channels, spec.classes).with_init(Init::TorchZeroBias).init(device),
        }
    }
}

impl Classifier for DenseNet {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        let x = self.pool.forward(self.stem.forward(images));
        self.norm.forward(forward_dense(&self.blocks, &self.transitions, x)).relu()
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.classifier.forward(self.avgpool.forward(features).flatten())
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { classifier: self.classifier.replace_outputs(classes), ..self }
    }

    fn names(&self) -> NameRules {
        dense_names(&self.blocks)
            .rule(r"^stem\.(conv|norm)", "features.${1}0")
            .rule(r"^pool", "features.pool0")
            .rule(r"^norm", "features.norm5")
            // torchvision's published files are older than its names.
            .older(r"(\.denselayer\d+\.(?:norm|conv))\.([12])\.", "$1$2.")
    }
}

/// Dense blocks with a transition behind each but the last, `[batch, channels, height, width]` to
/// `[batch, channels', height', width']`.
pub(super) fn forward_dense<M: FeatureMap>(blocks: &[DenseBlock], transitions: &[Transition], input: M) -> M {
    blocks.iter().enumerate().fold(input, |x, (i, block)| {
        let x = block.forward(x);
        match transitions.get(i) {
            Some(transition) => transition.forward(x),
            None => x,
        }
    })
}

/// torchvision counts blocks, layers, norms and convolutions from one.
pub(super) fn dense_names(blocks: &[DenseBlock]) -> NameRules {
    let mut rules = NameRules::default();
    for (i, block) in blocks.iter().enumerate() {
        rules = rules
            .rule(format!(r"^blocks\.{i}\."), format!("features.denseblock{}.", i + 1))
            .rule(format!(r"^transitions\.{i}\.(unit\.)?"), format!("features.transition{}.", i + 1));
        for layer in 0..block.layers.len() {
            let path = format!(r"^features\.denseblock{}\.layers\.{layer}\.", i + 1);
            rules = rules.rule(path, format!("features.denseblock{}.denselayer{}.", i + 1, layer + 1));
        }
    }
    rules.rule(r"\.bottleneck\.(norm|conv)", ".${1}1").rule(r"(denselayer\d+)\.conv\.(norm|conv)", "${1}.${2}2")
}
