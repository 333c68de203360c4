use burn::tensor::Tensor;
use convzoo_graph::Operation;

use crate::features::Layer;

/// Multiplication by a constant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale(pub f64);

impl<const D: usize> Layer<D> for Scale {
    fn operation(&self) -> Operation {
        Operation::Scale(self.0)
    }

    fn compute(&self, input: Tensor<D>) -> Tensor<D> {
        input.mul_scalar(self.0)
    }
}
