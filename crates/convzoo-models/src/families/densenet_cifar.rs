//! DenseNet for CIFAR: Huang, Liu, van der Maaten, Weinberger, *Densely Connected Convolutional Networks*,
//! [arXiv:1608.06993](https://arxiv.org/abs/1608.06993), 2016, table 2: depth and growth rate k give the name.
//!
//! 1.0M, 7.0M and, with bottlenecks and compression, 0.8M parameters. Trained without augmentation, the paper drops
//! features with probability 0.2 ([`Options::dropout`](crate::Options::dropout)).

use burn::module::Module;
use burn::tensor::Device;
use convzoo_blocks::{AdaptiveAvgPool2d, BatchNorm2d, BatchNorm2dConfig, ConvUnit, ConvUnitConfig, DenseBlock, DenseBlockConfig, FeatureMap, Init, Linear, LinearConfig, Transition, TransitionConfig};

use super::densenet::{BOTTLENECK, dense_names, forward_dense};
use crate::registry::{Opt, Sizes, Spec, Variant};
use crate::{Classifier, NameRules, Preprocessing};

/// Depth, growth rate, and whether layers have bottlenecks and transitions compress (BC).
const TABLE: &[(&str, usize, usize, bool)] =
    &[("densenet40_k12", 40, 12, false), ("densenet100_k12", 100, 12, false), ("densenet_bc100_k12", 100, 12, true)];

/// As the authors' Torch code draws convolutions.
const INIT: Init = Init::KaimingNormalFanOut;

const fn variant(name: &'static str) -> Variant {
    Variant {
        name,
        family: "densenet",
        year: 2016,
        paper: "https://arxiv.org/abs/1608.06993",
        input: [3, 32, 32],
        classes: 10,
        sizes: Sizes::From(4),
        takes: &[Opt::Dropout, Opt::MemoryEfficient],
        weights: &[],
        build: |spec, device| DenseNetCifar::new(spec, device).into(),
    }
}

pub(crate) const VARIANTS: &[Variant] =
    &[variant("densenet40_k12"), variant("densenet100_k12"), variant("densenet_bc100_k12")];

/// Three dense blocks of equal depth.
#[derive(Module, Debug)]
pub struct DenseNetCifar {
    stem: ConvUnit,
    blocks: Vec<DenseBlock>,
    transitions: Vec<Transition>,
    norm: BatchNorm2d,
    avgpool: AdaptiveAvgPool2d,
    classifier: Linear,
}

impl DenseNetCifar {
    fn new(spec: &Spec, device: &Device) -> Self {
        let row = TABLE.iter().find(|(name, ..)| *name == spec.name);
        let &(_, depth, growth_rate, bc) = row.expect("variants stand in the table");
        // The first convolution, two transitions and the classifier count too; a layer with bottleneck counts twice.
        let layers = (depth - 4) / 3 / if bc { 2 } else { 1 };
        let width = if bc { 2 * growth_rate } else { 16 };
        let mut blocks = Vec::new();
        let mut transitions = Vec::new();
        let mut channels = width;
        for _ in 0..3 {
            if !blocks.is_empty() {
                let compressed = if bc { channels / 2 } else { channels };
                transitions.push(TransitionConfig::new([channels, compressed]).with_init(INIT).init(device));
                channels = compressed;
            }
            let block = DenseBlockConfig::new(channels, layers, growth_rate)
                .with_bottleneck(bc.then_some(BOTTLENECK))
                .with_dropout(spec.options.dropout.unwrap_or(0.0))
                .with_memory_efficient(spec.options.memory_efficient.unwrap_or(false))
                .with_init(INIT);
            blocks.push(block.init(device));
            channels = block.outputs();
        }
        Self {
            // Every dense layer begins with a norm of its own: none follows the first convolution.
            stem: ConvUnitConfig::square(spec.channels, width, 3)
                .padded(1)
                .with_bias(false)
                .linear()
                .with_init(INIT)
                .init(device),
            blocks,
            transitions,
            norm: BatchNorm2dConfig::new(channels).init(device),
            avgpool: AdaptiveAvgPool2d::new([1, 1]),
            classifier: LinearConfig::new(channels, spec.classes).with_init(Init::TorchZeroBias).init(device),
        }
    }
}

impl Classifier for DenseNetCifar {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        let x = self.stem.forward(images);
        self.norm.forward(forward_dense(&self.blocks, &self.transitions, x)).relu()
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.classifier.forward(self.avgpool.forward(features).flatten())
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { classifier: self.classifier.replace_outputs(classes), ..self }
    }

    fn preprocessing(&self) -> Preprocessing {
        Preprocessing::small(32)
    }

    /// As torchvision names the larger ones.
    fn names(&self) -> NameRules {
        dense_names(&self.blocks).rule(r"^stem\.conv", "features.conv0").rule(r"^norm", "features.norm4")
    }
}
