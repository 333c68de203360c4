use burn::nn::Dropout;
use burn::tensor::{Distribution, Tensor};
use convzoo_graph::Operation;

use crate::checkpointing::drawn;
use crate::features::Layer;

/// Burn's dropout: the identity outside of training.
impl<const D: usize> Layer<D> for Dropout {
    fn operation(&self) -> Operation {
        Operation::Dropout { probability: self.prob }
    }

    /// [`Dropout::forward`], which drops the same when a segment is computed again.
    fn compute(&self, input: Tensor<D>) -> Tensor<D> {
        if self.prob == 0.0 || !self.training.is_enabled() || !input.device().is_autodiff() {
            return input;
        }
        let kept = 1.0 - self.prob;
        let mask = drawn(|| input.random_like(Distribution::Bernoulli(kept)));
        input * mask * (1.0 / kept)
    }
}
