use burn::module::{Module, Param, ParamId};
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor};
use convzoo_graph::{Operation, Parameter};
use convzoo_kernels::extension::channel_scale;

use crate::features::{FeatureMap, Layer, weight};

/// A learned factor for each channel of a residual branch, small at first, so that a deep network starts near the
/// identity ([Touvron et al., 2021](https://arxiv.org/abs/2103.17239)).
#[derive(Module, Debug)]
pub struct LayerScale {
    /// `[channels, 1, 1]`.
    pub scale: Param<Tensor<3>>,
}

impl LayerScale {
    /// Makes the layer with one `value` for all channels.
    pub fn new(channels: usize, value: f64, device: &Device) -> Self {
        Self { scale: Initializer::Constant { value }.init([channels, 1, 1], device) }
    }

    /// Keeps the shape, `[batch, channels, height, width]`.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M {
        input.layer(self)
    }
}

impl Layer<4> for LayerScale {
    fn operation(&self) -> Operation {
        Operation::LayerScale
    }

    fn compute(&self, input: Tensor<4>) -> Tensor<4> {
        channel_scale(input, self.scale.val())
    }

    fn id(&self) -> Option<ParamId> {
        Some(self.scale.id)
    }

    fn parameters(&self) -> Vec<Parameter> {
        vec![weight(&self.scale)]
    }
}
