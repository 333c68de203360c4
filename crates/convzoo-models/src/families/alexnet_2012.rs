//! AlexNet as it won ILSVRC 2012: Krizhevsky, Sutskever, Hinton, *ImageNet Classification with Deep Convolutional
//! Neural Networks*,
//! [NIPS 2012](https://papers.nips.cc/paper/2012/hash/c399862d3b9d6b76c8436e924a68c45b-Abstract.html).
//!
//! Two towers, one on each GPU, that see each other's maps in the third convolution only: convolutions 2, 4 and 5 have
//! two groups. The paper speaks of 224×224 images; its 55×55 maps need 227×227.

use burn::module::Module;
use burn::tensor::Device;
use convzoo_blocks::{ClassifierHead, ClassifierHeadConfig, ConvUnit, ConvUnitConfig, FeatureMap, Init, LocalResponseNorm, Pool, PoolConfig};

use crate::registry::{Opt, Sizes, Spec, Variant};
use crate::{Classifier, NameRules, Preprocessing};

pub(crate) const VARIANTS: &[Variant] = &[Variant {
    name: "alexnet_2012",
    family: "alexnet",
    year: 2012,
    paper: "https://papers.nips.cc/paper/2012/hash/c399862d3b9d6b76c8436e924a68c45b-Abstract.html",
    input: [3, 227, 227],
    classes: 1000,
    sizes: Sizes::Fixed,
    takes: &[Opt::Dropout],
    weights: &[],
    build: |spec, device| AlexNet2012::new(spec, device).into(),
}];

/// Caffe's names: `conv1` … `conv5`, `fc6` … `fc8`.
pub(super) const NAMES: &[(&str, &str)] = &[
    (r"^(conv\d)\.conv", "$1"),
    (r"^classifier\.layers\.0", "fc6"),
    (r"^classifier\.layers\.1", "fc7"),
    (r"^classifier\.layers\.2", "fc8"),
];

/// The paper's normalisation: x / (k + α Σx²)^β with k = 2, n = 5, α = 1e-4, β = 0.75.
pub(super) fn local_response_norm() -> LocalResponseNorm {
    // The layer divides α by the number of channels in the window; the paper does not.
    LocalResponseNorm::new(5, 5.0 * 1e-4, 0.75, 2.0)
}

/// Five convolutions in two towers, three overlapping max-poolings, three fully-connected layers.
#[derive(Module, Debug)]
pub struct AlexNet2012 {
    conv1: ConvUnit,
    norm1: LocalResponseNorm,
    pool1: Pool,
    conv2: ConvUnit,
    norm2: LocalResponseNorm,
    pool2: Pool,
    conv3: ConvUnit,
    conv4: ConvUnit,
    conv5: ConvUnit,
    pool5: Pool,
    classifier: ClassifierHead,
}

impl AlexNet2012 {
    fn new(spec: &Spec, device: &Device) -> Self {
        // Biases of 1 where that keeps the ReLUs of early training alive.
        let [dark, bright] = [0.0, 1.0].map(|bias| Init::NormalBias { std: 0.01, bias });
        let conv = |inputs, outputs, size| ConvUnitConfig::square(inputs, outputs, size).with_init(dark);
        let towers = |inputs, outputs, size| conv(inputs, outputs, size).with_groups(2).with_init(bright);
        let pool = || PoolConfig::max(3, 2).init();
        Self {
            conv1: conv(spec.channels, 96, 11).strided(4).init(device),
            norm1: local_response_norm(),
            pool1: pool(),
            conv2: towers(96, 256, 5).padded(2).init(device),
            norm2: local_response_norm(),
            pool2: pool(),
            conv3: conv(256, 384, 3).padded(1).init(device),
            conv4: towers(384, 384, 3).padded(1).init(device),
            conv5: towers(384, 256, 3).padded(1).init(device),
            pool5: pool(),
            classifier: ClassifierHeadConfig::new(vec![256 * 6 * 6, 4096, 4096, spec.classes])
                .with_dropout(spec.options.dropout.unwrap_or(0.5))
                .with_dropout_first(false)
                .with_init(bright)
                .with_last_init(Some(dark))
                .init(device),
        }
    }
}

impl Classifier for AlexNet2012 {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        let x = self.pool1.forward(self.norm1.forward(self.conv1.forward(images)));
        let x = self.pool2.forward(self.norm2.forward(self.conv2.forward(x)));
        let x = self.conv4.forward(self.conv3.forward(x));
        self.pool5.forward(self.conv5.forward(x))
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.classifier.forward(features.flatten())
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { classifier: self.classifier.replace_classes(classes), ..self }
    }

    fn preprocessing(&self) -> Preprocessing {
        Preprocessing { size: [227; 2], ..Preprocessing::IMAGENET }
    }

    fn names(&self) -> NameRules {
        NameRules::table(NAMES)
    }
}
