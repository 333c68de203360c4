//! VGG: Simonyan, Zisserman, *Very Deep Convolutional Networks for Large-Scale Image Recognition*,
//! [arXiv:1409.1556](https://arxiv.org/abs/1409.1556), 2014; with batch normalisation as torchvision adds it.

use burn::module::Module;
use burn::tensor::Device;
use convzoo_blocks::{AdaptiveAvgPool2d, ClassifierHead, ClassifierHeadConfig, FeatureMap, Init, NormConfig, VggBlock, VggBlockConfig};

use crate::registry::{Opt, Sizes, Spec, Variant};
use crate::{Classifier, NameRules, Published};

/// Convolutions in each of the five blocks: the paper's configurations A, B, D and E.
const DEPTHS: &[(&str, [usize; 5])] =
    &[("vgg11", [1, 1, 2, 2, 2]), ("vgg13", [2, 2, 2, 2, 2]), ("vgg16", [2, 2, 3, 3, 3]), ("vgg19", [2, 2, 4, 4, 4])];

/// Channels of each block.
const WIDTHS: [usize; 5] = [64, 128, 256, 512, 512];

/// Published by torchvision.
const WEIGHTS: &[Published] = &[
    Published::new("vgg11", "imagenet1k_v1", "vgg11-8a719046.pth", 69.02, 88.628, 256),
    Published::new("vgg13", "imagenet1k_v1", "vgg13-19584684.pth", 69.928, 89.246, 256),
    Published::new("vgg16", "imagenet1k_v1", "vgg16-397923af.pth", 71.592, 90.382, 256),
    Published::new("vgg19", "imagenet1k_v1", "vgg19-dcbb9e9d.pth", 72.376, 90.876, 256),
    Published::new("vgg11_bn", "imagenet1k_v1", "vgg11_bn-6002323d.pth", 70.37, 89.81, 256),
    Published::new("vgg13_bn", "imagenet1k_v1", "vgg13_bn-abd245e5.pth", 71.586, 90.374, 256),
    Published::new("vgg16_bn", "imagenet1k_v1", "vgg16_bn-6c64b313.pth", 73.36, 91.516, 256),
    Published::new("vgg19_bn", "imagenet1k_v1", "vgg19_bn-c79401a0.pth", 74.218, 91.842, 256),
];

const fn variant(name: &'static str) -> Variant {
    Variant {
        name,
        family: "vgg",
        year: 2014,
        paper: "https://arxiv.org/abs/1409.1556",
        input: [3, 224, 224],
        classes: 1000,
        sizes: Sizes::From(32),
        takes: &[Opt::Dropout],
        weights: WEIGHTS,
        build: |spec, device| Vgg::new(spec, device).into(),
    }
}

pub(crate) const VARIANTS: &[Variant] = &[
    variant("vgg11"),
    variant("vgg13"),
    variant("vgg16"),
    variant("vgg19"),
    variant("vgg11_bn"),
    variant("vgg13_bn"),
    variant("vgg16_bn"),
    variant("vgg19_bn"),
];

/// Five blocks and three fully-connected layers.
#[derive(Module, Debug)]
pub struct Vgg {
    blocks: Vec<VggBlock>,
    avgpool: AdaptiveAvgPool2d,
    classifier: ClassifierHead,
    #[module(skip)]
    depths: [usize; 5],
    batch_norm: bool,
}

impl Vgg {
    fn new(spec: &Spec, device: &Device) -> Self {
        let plain = spec.name.trim_end_matches("_bn");
        let batch_norm = plain != spec.name;
        let (_, depths) = DEPTHS.iter().find(|(name, _)| *name == plain).expect("variants stand in the table");
        let blocks = (0..5).map(|i| {
            let inputs = if i == 0 { spec.channels } else { WIDTHS[i - 1] };
            VggBlockConfig::new([inputs, WIDTHS[i]], depths[i])
                .with_norm(batch_norm.then_some(NormConfig::BATCH))
                .init(device)
        });
        Self {
            blocks: blocks.collect(),
            avgpool: AdaptiveAvgPool2d::new([7, 7]),
            classifier: ClassifierHeadConfig::new(vec![512 * 7 * 7, 4096, 4096, spec.classes])
                .with_dropout(spec.options.dropout.unwrap_or(0.5))
                .with_dropout_first(false)
                .with_init(Init::Normal(0.01))
                .init(device),
            depths: *depths,
            batch_norm,
        }
    }
}

impl Classifier for Vgg {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        self.blocks.iter().fold(images, |x, block| block.forward(x))
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.classifier.forward(self.avgpool.forward(features).flatten())
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { classifier: self.classifier.replace_classes(classes), ..self }
    }

    /// torchvision numbers convolutions, norms, activations and poolings in one sequence, `features`.
    fn names(&self) -> NameRules {
        let mut rules = NameRules::table(&[
            (r"^classifier\.layers\.0", "classifier.0"),
            (r"^classifier\.layers\.1", "classifier.3"),
            (r"^classifier\.layers\.2", "classifier.6"),
        ]);
        let mut index = 0;
        for (block, depth) in self.depths.iter().enumerate() {
            for conv in 0..*depth {
                let unit = format!(r"^blocks\.{block}\.convs\.{conv}");
                rules = rules.rule(format!(r"{unit}\.conv"), format!("features.{index}"));
                if self.batch_norm {
                    rules = rules.rule(format!(r"{unit}\.norm"), format!("features.{}", index + 1));
                }
                index += if self.batch_norm { 3 } else { 2 };
            }
            rules = rules.rule(format!(r"^blocks\.{block}\.pool"), format!("features.{index}"));
            index += 1;
        }
        rules
    }
}
