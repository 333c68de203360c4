use burn::config::Config;
use burn::tensor::{Tensor, activation};
use convzoo_kernels::{elementwise, extension};

use crate::trace::{self, Scope};
use crate::{observe, rectify};

/// The element-wise function behind a layer.
#[derive(Config, Debug, Copy, PartialEq, Eq)]
pub enum Activation {
    /// None: the layer stays linear.
    Identity,
    /// max(0, x).
    Relu,
    /// The hyperbolic tangent, LeNet's.
    Tanh,
    /// The logistic function.
    Sigmoid,
}

impl Activation {
    /// Applies the function to every element.
    pub fn forward<const D: usize>(self, input: Tensor<D>) -> Tensor<D> {
        let compute = |input| match self {
            Self::Identity => input,
            Self::Relu => match observe::rectification() {
                Some(rule) => rectify::relu(input, rule),
                None => activation::relu(input),
            },
            Self::Tanh => extension::tanh(input),
            Self::Sigmoid => extension::sigmoid(input),
        };
        trace::layer("activation", input, compute, |Scope { graph, .. }, input| {
            let function = match self {
                Self::Identity => elementwise::Activation::Identity,
                Self::Relu => elementwise::Activation::Relu,
                Self::Tanh => elementwise::Activation::Tanh,
                Self::Sigmoid => elementwise::Activation::Sigmoid,
            };
            Ok(graph.activation(input, function))
        })
    }
}
