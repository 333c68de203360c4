//! LeNet-5: LeCun, Bottou, Bengio, Haffner, *Gradient-Based Learning Applied to Document Recognition*, 1998.
//!
//! As courses teach it: average pooling without weights, all of C3 connected to all of S2, and a linear output layer in
//! place of radial basis functions: 61,706 parameters on one channel, 62,006 on three.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;
use convzoo_blocks::{
    Activation, ClassifierHead, ClassifierHeadConfig, ConvUnit, ConvUnitConfig, FeatureMap, Pool, PoolConfig,
};

use crate::names::{index, rename};
use crate::registry::{Build, Opt, Sizes, Variant};
use crate::{Classifier, Options, Preprocessing};

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
    build: Build::LeNet5(LeNet5Config::new),
}];

/// Configures a [`LeNet5`] for images of 32×32.
#[derive(Config, Debug)]
pub struct LeNet5Config {
    /// Number of classes.
    #[config(default = 10)]
    pub classes: usize,
    /// Channels of the images.
    #[config(default = 1)]
    pub channels: usize,
    /// The activation of all layers.
    #[config(default = "Activation::Tanh")]
    pub activation: Activation,
    /// The poolings: average as in the paper, or max.
    #[config(default = "PoolConfig::avg(2, 2)")]
    pub pool: PoolConfig,
}

/// C1, S2, C3, S4, C5, F6 and the output layer.
#[derive(Module, Debug)]
pub struct LeNet5 {
    c1: ConvUnit,
    s2: Pool,
    c3: ConvUnit,
    s4: Pool,
    classifier: ClassifierHead,
}

impl LeNet5Config {
    pub(crate) fn with_options(self, options: &Options) -> Self {
        let activation = options.activation.unwrap_or(self.activation);
        self.with_activation(activation)
    }

    /// Makes the network; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> LeNet5 {
        let conv =
            |inputs, outputs| ConvUnitConfig::square(inputs, outputs, 5).with_activation(self.activation).init(device);
        LeNet5 {
            c1: conv(self.channels, 6),
            s2: self.pool.init(),
            c3: conv(6, 16),
            s4: self.pool.init(),
            // C5's 120 feature maps of 1×1 are fully connected to S4's 16 feature maps of 5×5.
            classifier: ClassifierHeadConfig::new(vec![400, 120, 84, self.classes])
                .with_dropout(0.0)
                .with_activation(self.activation)
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
    fn reference_name(&self, path: &[&str]) -> String {
        match path {
            [conv, "conv", tensor] => rename(&[conv], tensor),
            ["classifier", "layers", layer, tensor] => rename(&[["c5", "f6", "output"][index(layer)]], tensor),
            _ => path.join("."),
        }
    }

    /// MNIST's mean and standard deviation, in place of the paper's background of −0.1 and foreground of 1.175.
    fn preprocessing(&self) -> Preprocessing {
        Preprocessing { mean: [0.1307; 3], std: [0.3081; 3], ..Preprocessing::small(32) }
    }
}
