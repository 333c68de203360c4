use burn::config::Config;
use burn::module::{Module, Param, ParamId};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor};
use convzoo_graph::{Operation, Parameter};
use convzoo_kernels::extension;

use crate::Init;
use crate::features::{Features, Layer, weight};

/// Configures a [`Linear`].
#[derive(Config, Debug)]
pub struct LinearConfig {
    /// Input features.
    pub inputs: usize,
    /// Output features.
    pub outputs: usize,
    /// Weight initialization.
    #[config(default = "Init::Torch")]
    pub init: Init,
}

/// A fully-connected layer that keeps its weight as state dicts do, `[outputs, inputs]`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[outputs, inputs]`.
    pub weight: Param<Tensor<2>>,
    /// `[outputs]`.
    pub bias: Param<Tensor<1>>,
    #[module(skip)]
    init: Init,
}

impl LinearConfig {
    /// Makes the layer; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> Linear {
        Linear {
            weight: self.init.weight([self.outputs, self.inputs], device),
            bias: self.init.bias(self.outputs, self.inputs, device),
            init: self.init,
        }
    }
}

impl Linear {
    /// `[batch, inputs]` to `[batch, outputs]`, or of a feature map each pixel: `[batch, inputs, height, width]` to
    /// `[batch, outputs, height, width]`.
    pub fn forward<const D: usize, F: Features<D>>(&self, input: F) -> F
    where
        Self: Layer<D>,
    {
        input.layer(self)
    }

    /// A new layer of `outputs` features for the same inputs, its weights initialized as this one's were.
    pub fn replace_outputs(self, outputs: usize) -> Self {
        let [_, inputs] = self.weight.lazy_shape().dims();
        LinearConfig::new(inputs, outputs).with_init(self.init).init(&self.weight.lazy_device())
    }
}

impl Linear {
    fn graph_operation(&self) -> Operation {
        let [outputs, _] = self.weight.lazy_shape().dims();
        Operation::Linear { outputs }
    }

    fn graph_parameters(&self) -> Vec<Parameter> {
        vec![weight(&self.weight), weight(&self.bias)]
    }
}

impl Layer<2> for Linear {
    fn operation(&self) -> Operation {
        self.graph_operation()
    }

    fn compute(&self, input: Tensor<2>) -> Tensor<2> {
        extension::linear(input, self.weight.val(), self.bias.val())
    }

    fn id(&self) -> Option<ParamId> {
        Some(self.weight.id)
    }

    fn parameters(&self) -> Vec<Parameter> {
        self.graph_parameters()
    }
}

/// At each pixel.
impl Layer<4> for Linear {
    fn operation(&self) -> Operation {
        self.graph_operation()
    }

    fn compute(&self, input: Tensor<4>) -> Tensor<4> {
        let weight = self.weight.val().unsqueeze_dims(&[2, 3]);
        extension::conv2d(input, weight, Some(self.bias.val()), ConvOptions::new([1; 2], [0; 2], [1; 2], 1))
    }

    fn id(&self) -> Option<ParamId> {
        Some(self.weight.id)
    }

    fn parameters(&self) -> Vec<Parameter> {
        self.graph_parameters()
    }
}
