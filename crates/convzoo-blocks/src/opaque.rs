use burn::tensor::Tensor;
use convzoo_graph::Operation;

use crate::features::Layer;

/// Computation on tensors that the graph has no operation for. It is trained and observed like any other layer, and
/// appears in the graph under its name; a network with one cannot be compiled.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use convzoo_blocks::{FeatureMap, Opaque};
///
/// fn mish<M: FeatureMap>(x: M) -> M {
///     x.layer(&Opaque::new("mish", burn::tensor::activation::mish::<4>))
/// }
/// assert_eq!(mish(Tensor::zeros([1, 2, 3, 3], &Device::default())).dims(), [1, 2, 3, 3]);
/// ```
pub struct Opaque<F> {
    name: String,
    output: Option<Vec<usize>>,
    compute: F,
}

impl<F> Opaque<F> {
    /// Computation that keeps its input's shape.
    pub fn new(name: impl Into<String>, compute: F) -> Self {
        Self { name: name.into(), output: None, compute }
    }

    /// The shape of the output without the batch, where it is another than the input's.
    pub fn with_output(self, output: impl Into<Vec<usize>>) -> Self {
        Self { output: Some(output.into()), ..self }
    }
}

impl<const D: usize, F: Fn(Tensor<D>) -> Tensor<D>> Layer<D> for Opaque<F> {
    fn operation(&self) -> Operation {
        Operation::Opaque { name: self.name.clone(), output: self.output.clone() }
    }

    fn compute(&self, input: Tensor<D>) -> Tensor<D> {
        (self.compute)(input)
    }
}
