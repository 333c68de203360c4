//! AlexNet: Krizhevsky, *One weird trick for parallelizing convolutional neural networks*,
//! [arXiv:1404.5997](https://arxiv.org/abs/1404.5997), 2014: the single-tower network that torchvision calls AlexNet.

use burn::module::Module;
use burn::tensor::Device;
use convzoo_blocks::{AdaptiveAvgPool2d, ClassifierHead, ClassifierHeadConfig, ConvUnit, ConvUnitConfig, FeatureMap, Pool, PoolConfig};

use crate::registry::{Opt, Sizes, Spec, Variant};
use crate::{Classifier, NameRules, Published};

/// Published by torchvision.
const WEIGHTS: &[Published] =
    &[Published::new("alexnet", "imagenet1k_v1", "alexnet-owt-7be5be79.pth", 56.522, 79.066, 256)];

pub(crate) const VARIANTS: &[Variant] = &[Variant {
    name: "alexnet",
    family: "alexnet",
    year: 2014,
    paper: "https://arxiv.org/abs/1404.5997",
    input: [3, 224, 224],
    classes: 1000,
    sizes: Sizes::From(63),
    takes: &[Opt::Dropout],
    weights: WEIGHTS,
    build: |spec, device| AlexNet::new(spec, device).into(),
}];

const NAMES: &[(&str, &str)] = &[
    (r"^conv1\.conv", "features.0"),
    (r"^pool1", "features.2"),
    (r"^conv2\.conv", "features.3"),
    (r"^pool2", "features.5"),
    (r"^conv3\.conv", "features.6"),
    (r"^conv4\.conv", "features.8"),
    (r"^conv5\.conv", "features.10"),
    (r"^pool5", "features.12"),
    (r"^classifier\.layers\.0", "classifier.1"),
    (r"^classifier\.layers\.1", "classifier.4"),
    (r"^classifier\.layers\.2", "classifier.6"),
];

/// Five convolutions, three overlapping max-poolings, three fully-connected layers.
#[derive(Module, Debug)]
pub struct AlexNet {
    conv1: ConvUnit,
    pool1: Pool,
    conv2: ConvUnit,
    pool2: Pool,
    conv3: ConvUnit,
    conv4: ConvUnit,
    conv5: ConvUnit,
    pool5: Pool,
    avgpool: AdaptiveAvgPool2d,
    classifier: ClassifierHead,
}

impl AlexNet {
    fn new(spec: &Spec, device: &Device) -> Self {
        let conv = |inputs, outputs, size| ConvUnitConfig::square(inputs, outputs, size);
        let pool = || PoolConfig::max(3, 2).init();
        Self {
            conv1: conv(spec.channels, 64, 11).strided(4).padded(2).init(device),
            pool1: pool(),
            conv2: conv(64, 192, 5).padded(2).init(device),
            pool2: pool(),
            conv3: conv(192, 384, 3).padded(1).init(device),
            conv4: conv(384, 256, 3).padded(1).init(device),
            conv5: conv(256, 256, 3).padded(1).init(device),
            pool5: pool(),
            avgpool: AdaptiveAvgPool2d::new([6, 6]),
            classifier: ClassifierHeadConfig::new(vec![256 * 6 * 6, 4096, 4096, spec.classes])
                .with_dropout(spec.options.dropout.unwrap_or(0.5))
                .init(device),
        }
    }
}

impl Classifier for AlexNet {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        let x = self.pool1.forward(self.conv1.forward(images));
        let x = self.pool2.forward(self.conv2.forward(x));
        let x = self.conv4.forward(self.conv3.forward(x));
        self.pool5.forward(self.conv5.forward(x))
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.classifier.forward(self.avgpool.forward(features).flatten())
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { classifier: self.classifier.replace_classes(classes), ..self }
    }

    fn names(&self) -> NameRules {
        NameRules::table(NAMES)
    }
}
