//! The network of `fixtures/make.py`.

use burn::module::Module;
use burn::tensor::Device;
use convzoo_blocks::{AdaptiveAvgPool2d, ConvUnit, ConvUnitConfig, FeatureMap, Linear, LinearConfig};
use convzoo_models::Classifier;

#[derive(Module, Debug)]
pub struct Tiny {
    unit: ConvUnit,
    pool: AdaptiveAvgPool2d,
    fc: Linear,
}

impl Tiny {
    pub fn new(device: &Device) -> Self {
        Self {
            unit: ConvUnitConfig::square(3, 4, 3).strided(2).with_batch_norm().init(device),
            pool: AdaptiveAvgPool2d::new([1, 1]),
            fc: LinearConfig::new(4, 3).init(device),
        }
    }
}

impl Classifier for Tiny {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        self.unit.forward(images)
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.fc.forward(self.pool.forward(features).flatten())
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { fc: self.fc.replace_outputs(classes), ..self }
    }
}
