//! What a training pass keeps for its backward pass, chosen tensor by tensor.
//!
//! Burn lets each tensor say whether cheap operations on it (sums, products, ReLU) are recomputed in the backward pass
//! or their results kept; all operands of an operation must say the same.

use burn::tensor::{GradientCheckpointingStrategy, Tensor};

/// What cheap operations make of the answer is recomputed.
pub(crate) fn recomputing<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    tensor.autodiff().with_gradient_checkpointing_strategy(GradientCheckpointingStrategy::Balanced)
}

/// What operations make of the answer is kept, as far as the backward pass needs it.
pub(crate) fn keeping<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    tensor.autodiff().with_gradient_checkpointing_strategy(GradientCheckpointingStrategy::Disabled)
}

/// The answer says what `model` says.
pub(crate) fn like<const D: usize, const E: usize>(tensor: Tensor<D>, model: &Tensor<E>) -> Tensor<D> {
    match model.gradient_checkpointing_strategy() {
        Some(strategy) => tensor.autodiff().with_gradient_checkpointing_strategy(strategy),
        None => tensor.without_autodiff(),
    }
}
