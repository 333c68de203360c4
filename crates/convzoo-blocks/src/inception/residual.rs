use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;

use super::{BranchConfig, Inception, InceptionConfig};
use crate::features::{FeatureMap, Segment};
use crate::{Activation, ConvUnit, ConvUnitConfig, Scale};

/// Configures an [`InceptionResidual`] module.
#[derive(Config, Debug)]
pub struct InceptionResidualConfig {
    /// Input and output channels.
    pub channels: usize,
    /// What is added to the input, before its projection to `channels`.
    pub mixed: InceptionConfig,
    /// What the projection is multiplied by before it is added.
    #[config(default = 1.0)]
    pub scale: f64,
    /// Activation after the sum.
    #[config(default = "Activation::Relu")]
    pub activation: Activation,
}

impl InceptionResidualConfig {
    /// Inception-ResNet-A of the v2 network, Figure 16, also known as block35 for its feature maps.
    pub fn a(channels: usize) -> Self {
        let path = || BranchConfig::new(channels);
        let branches =
            vec![path().conv(32, 1), path().conv(32, 1).conv(32, 3), path().conv(32, 1).conv(48, 3).conv(64, 3)];
        Self::new(channels, InceptionConfig::new(branches).with_batch_norm(1e-3)).with_scale(0.17)
    }

    /// Inception-ResNet-B of the v2 network, Figure 17, also known as block17.
    pub fn b(channels: usize) -> Self {
        let path = || BranchConfig::new(channels);
        let branches = vec![path().conv(192, 1), path().conv(128, 1).factor(160, [1, 7]).factor(192, [7, 1])];
        Self::new(channels, InceptionConfig::new(branches).with_batch_norm(1e-3)).with_scale(0.1)
    }

    /// Inception-ResNet-C of the v2 network, Figure 19, also known as block8.
    pub fn c(channels: usize) -> Self {
        let path = || BranchConfig::new(channels);
        let branches = vec![path().conv(192, 1), path().conv(192, 1).factor(224, [1, 3]).factor(256, [3, 1])];
        Self::new(channels, InceptionConfig::new(branches).with_batch_norm(1e-3)).with_scale(0.2)
    }

    /// Makes the module; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> InceptionResidual {
        InceptionResidual {
            mixed: self.mixed.init(device),
            // Not normalized, so that the sum keeps its scale: hence the factor.
            project: ConvUnitConfig::square(self.mixed.outputs(), self.channels, 1).linear().init(device),
            scale: self.scale,
            activation: self.activation,
        }
    }
}

/// An Inception module as the residual of its input, scaled down so that wide networks train stably
/// ([Szegedy et al., 2016](https://arxiv.org/abs/1602.07261), Section 3.3).
#[derive(Module, Debug)]
pub struct InceptionResidual {
    mixed: Inception,
    project: ConvUnit,
    scale: f64,
    #[module(skip)]
    activation: Activation,
}

impl InceptionResidual {
    /// Keeps the shape, `[batch, channels, height, width]`.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M {
        input.segment(self)
    }
}

impl Segment for InceptionResidual {
    fn pass<M: FeatureMap>(&self, input: M) -> M {
        let residual = self.project.forward(self.mixed.forward(input.clone()));
        (input + residual.layer(&Scale(self.scale))).activation(self.activation)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Tensor;

    use super::*;

    #[test]
    fn the_residual_is_scaled() {
        let device = Device::flex();
        let config = InceptionResidualConfig::a(320).with_activation(Activation::Identity);
        let module = config.init(&device);
        let unscaled = InceptionResidual { scale: 1.0, ..module.clone() };
        let input = Tensor::<4>::ones([1, 320, 3, 3], &device);
        let residual = |module: InceptionResidual| module.forward(input.clone()) - input.clone();
        let difference = residual(module) - residual(unscaled).mul_scalar(0.17);
        assert!(difference.abs().max().into_scalar::<f32>() < 1e-5);
    }
}
