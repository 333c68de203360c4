use burn::nn::Dropout;
use burn::tensor::Tensor;
use convzoo_graph::Operation;

use crate::features::Layer;

/// Burn's dropout: the identity outside of training.
impl<const D: usize> Layer<D> for Dropout {
    fn operation(&self) -> Operation {
        Operation::Dropout { probability: self.prob }
    }

    fn compute(&self, input: Tensor<D>) -> Tensor<D> {
        self.forward(input)
    }
}
