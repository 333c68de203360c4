use burn::config::Config;
use burn::module::{Module, Param, ParamId};
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor};
use convzoo_graph::{Operation, Parameter};
use convzoo_kernels::extension::layer_norm2d;

use crate::features::{FeatureMap, Layer, weight};

/// Configures a [`LayerNorm2d`].
#[derive(Config, Debug)]
pub struct LayerNorm2dConfig {
    /// Channels.
    pub channels: usize,
    /// Added to the variance.
    #[config(default = 1e-6)]
    pub epsilon: f64,
}

/// Layer normalization ([Ba et al., 2016](https://arxiv.org/abs/1607.06450)) over the channels of each pixel, as
/// [ConvNeXt](https://arxiv.org/abs/2201.03545) has it: the same in training and inference.
#[derive(Module, Debug)]
pub struct LayerNorm2d {
    /// γ, `[channels]`.
    pub weight: Param<Tensor<1>>,
    /// β, `[channels]`.
    pub bias: Param<Tensor<1>>,
    epsilon: f64,
}

impl LayerNorm2dConfig {
    /// Makes the layer: γ 1, β 0.
    pub fn init(&self, device: &Device) -> LayerNorm2d {
        LayerNorm2d {
            weight: Initializer::Ones.init([self.channels], device),
            bias: Initializer::Zeros.init([self.channels], device),
            epsilon: self.epsilon,
        }
    }
}

impl LayerNorm2d {
    /// Keeps the shape, `[batch, channels, height, width]`.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M {
        input.layer(self)
    }
}

impl Layer<4> for LayerNorm2d {
    fn operation(&self) -> Operation {
        Operation::LayerNorm2d { epsilon: self.epsilon }
    }

    fn compute(&self, input: Tensor<4>) -> Tensor<4> {
        layer_norm2d(input, self.weight.val(), self.bias.val(), self.epsilon)
    }

    fn id(&self) -> Option<ParamId> {
        Some(self.weight.id)
    }

    fn parameters(&self) -> Vec<Parameter> {
        vec![weight(&self.weight), weight(&self.bias)]
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;

    #[test]
    fn every_pixel_has_mean_zero_and_deviation_one_over_its_channels() {
        let device = Device::flex();
        let maps = Tensor::<4>::random([2, 40, 3, 5], Distribution::Normal(5.0, 3.0), &device);
        let normed = LayerNorm2dConfig::new(40).init(&device).forward(maps);
        let largest = |x: Tensor<4>| x.abs().max().into_scalar::<f32>();
        assert!(largest(normed.clone().mean_dim(1)) < 1e-5, "a mean is not zero");
        assert!(largest(normed.square().mean_dim(1) - 1.0) < 1e-4, "a variance is not one");
    }
}
