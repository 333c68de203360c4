//! The network of `fixtures/make.py`.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use convzoo_blocks::{AdaptiveAvgPool2d, ConvUnit, ConvUnitConfig, Linear, LinearConfig};
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
    fn forward_features(&self, images: Tensor<4>) -> Tensor<4> {
        self.unit.forward(images)
    }

    fn forward_head(&self, features: Tensor<4>) -> Tensor<2> {
        self.fc.forward(self.pool.forward(features).flatten(1, 3))
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { fc: self.fc.replace_outputs(classes), ..self }
    }
}
