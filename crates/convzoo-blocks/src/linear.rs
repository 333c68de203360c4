use burn::config::Config;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use crate::Init;
use crate::observe::{self, Layer};
use crate::trace::{self, Scope};

/// Configures a [`Linear`].
#[derive(Config, Debug)]
pub struct LinearConfig {
    /// Features in.
    pub inputs: usize,
    /// Features out.
    pub outputs: usize,
    /// How the weights begin.
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
    /// Makes the layer; its weights are drawn when first used.
    pub fn init(&self, device: &Device) -> Linear {
        Linear {
            weight: self.init.weight([self.outputs, self.inputs], device),
            bias: self.init.bias(self.outputs, self.inputs, device),
            init: self.init,
        }
    }
}

impl Linear {
    /// `[batch, inputs]` to `[batch, outputs]`.
    pub fn forward(&self, input: Tensor<2>) -> Tensor<2> {
        let describe = |[batch, _]: [usize; 2]| {
            let [outputs, inputs] = self.weight.lazy_shape().dims();
            let layer = Layer::new("Linear", self.weight.id, outputs * inputs + outputs);
            (layer.with_macs(outputs * inputs).seeing_all(), [batch, outputs])
        };
        let compute = |input| {
            observe::layer(input, describe, |input| {
                convzoo_kernels::extension::linear(input, self.weight.val(), self.bias.val())
            })
        };
        trace::layer("Linear", input, compute, |Scope { graph, precision, .. }, input| {
            let [_, inputs] = self.weight.lazy_shape().dims::<2>();
            let (weight, bias) =
                (trace::values(self.weight.val(), "Linear")?, trace::values(self.bias.val(), "Linear")?);
            let linear = convzoo_kernels::linear::Linear::new(weight, bias.to_vec(), inputs, precision)?;
            Ok(graph.linear(input, linear))
        })
    }

    /// A fresh layer of `outputs` features for the same inputs, its weights drawn as this one's were.
    pub fn replace_outputs(self, outputs: usize) -> Self {
        let [_, inputs] = self.weight.lazy_shape().dims();
        LinearConfig::new(inputs, outputs).with_init(self.init).init(&self.weight.lazy_device())
    }
}
