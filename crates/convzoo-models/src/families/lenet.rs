//! LeNet-5: LeCun, Bottou, Bengio, Haffner, *Gradient-Based Learning Applied to Document Recognition*, 1998.
//!
//! As courses teach it: average pooling without weights, every map of C3 connected to every map of S2, and a linear
//! output layer in place of radial basis functions: 61,706 parameters on one channel, 62,006 on three.

use burn::module::Module;
use burn::tensor::Device;
use convzoo_blocks::{Activation, ClassifierHead, ClassifierHeadConfig, ConvUnit, ConvUnitConfig, FeatureMap, Pool, PoolConfig};

use crate::registry::{Opt, Sizes, Spec, Variant};
use crate::{Classifier, NameRules, Preprocessing};

pub(crate) const VARIANTS: &[Variant] = &[Variant {
    name: "lenet5",
    family: "lenet",
    year: 1998,
    paper: "http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf",
    input: [1, 32, 32],
    classes: 10,
    sizes: Sizes::Fixed,
    takes: &[Opt::Activation],
    weights: &[],
    build: |spec, device| LeNet5::new(spec, device).into(),
}];

const NAMES: &[(&str, &str)] = &[
    (r"^(c\d)\.conv", "$1"),
    (r"^classifier\.layers\.0", "c5"),
    (r"^classifier\.layers\.1", "f6"),
    (r"^classifier\.layers\.2", "output"),
];

/// C1, S2, C3, S4, C5, F6 and the output layer.
#[derive(Module, Debug)]
pub struct LeNet5 {
    c1: ConvUnit,
    s2: Pool,
    c3: ConvUnit,
    s4: Pool,
    classifier: ClassifierHead,
}

impl LeNet5 {
    fn new(spec: &Spec, device: &Device) -> Self {
        let activation = spec.options.activation.unwrap_or(Activation::Tanh);
        let conv =
            |inputs, outputs| ConvUnitConfig::square(inputs, outputs, 5).with_activation(activation).init(device);
        Self {
            c1: conv(spec.channels, 6),
            s2: PoolConfig::avg(2, 2).init(),
            c3: conv(6, 16),
            s4: PoolConfig::avg(2, 2).init(),
            // C5's 120 maps of 1×1 are fully connected to S4's 16 maps of 5×5.
            classifier: ClassifierHeadConfig::new(vec![400, 120, 84, spec.classes])
                .with_dropout(0.0)
                .with_activation(activation)
                .init(device),
        }
    }
}

impl Classifier for LeNet5 {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        let x = self.s2.forward(self.c1.forward(images));
        self.s4.forward(self.c3.forward(x))
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.classifier.forward(features.flatten())
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { classifier: self.classifier.replace_classes(classes), ..self }
    }

    /// The paper's names for its layers.
    fn names(&self) -> NameRules {
        NameRules::table(NAMES)
    }

    /// MNIST's mean and deviation, in place of the paper's background of −0.1 and foreground of 1.175.
    fn preprocessing(&self) -> Preprocessing {
        Preprocessing { mean: [0.1307; 3], std: [0.3081; 3], ..Preprocessing::small(32) }
    }
}
