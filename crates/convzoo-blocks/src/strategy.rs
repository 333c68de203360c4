//! Burn's own gradient checkpointing: which results a forward pass keeps for its backward pass, chosen tensor by tensor.
//!
//! In Burn each tensor has a strategy: the results of cheap operations on it (sums, products, ReLU) are recomputed in
//! the backward pass or kept. All operands of an operation must have the same strategy.

use burn::tensor::{GradientCheckpointingStrategy, Tensor};

/// The tensor, with the results of cheap operations on it recomputed in the backward pass.
pub(crate) fn recomputing<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    tensor.autodiff().with_gradient_checkpointing_strategy(GradientCheckpointingStrategy::Balanced)
}

/// The tensor, with the results of operations on it kept where the backward pass needs them.
pub(crate) fn keeping<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    tensor.autodiff().with_gradient_checkpointing_strategy(GradientCheckpointingStrategy::Disabled)
}

/// The tensor with the strategy of `model`.
pub(crate) fn like<const D: usize, const E: usize>(tensor: Tensor<D>, model: &Tensor<E>) -> Tensor<D> {
    match model.gradient_checkpointing_strategy() {
        Some(strategy) => tensor.autodiff().with_gradient_checkpointing_strategy(strategy),
        None => tensor.without_autodiff(),
    }
}
