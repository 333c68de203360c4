//! The ReLU whose backward pass follows a rule of its own in place of the derivative.
//!
//! No composition of differentiable operations does that: what the rules make of the gradient depends on the gradient's
//! sign. So this is an operation of Burn's backends with a backward pass of its own, the same on all of them.

// The last of the backends stays until Burn removes it.
#![allow(deprecated)]

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;

use crate::backends::by_default_on_all_backends;
use crate::observe::Rectification;

/// max(0, x), with `rule` for the backward pass.
pub(crate) fn relu<const D: usize>(input: Tensor<D>, rule: Rectification) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Rectifier>::rectify(input.into_dispatch(), rule))
}

/// Implemented for the backends of this build, and for their autodiff forms, where the rule matters.
#[backend_extension(
    Autodiff,
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    LibTorch: cfg(feature = "tch"),
    Cube: cfg(any(feature = "wgpu", feature = "cuda")),
    Remote: cfg(feature = "remote")
)]
trait Rectifier: Backend {
    fn rectify(input: FloatTensor<Self>, rule: Rectification) -> FloatTensor<Self> {
        let _ = rule;
        Self::relu(input)
    }
}

by_default_on_all_backends!(Rectifier);

impl<B: Backend + Rectifier, C: CheckpointStrategy> Rectifier for Autodiff<B, C> {
    fn rectify(input: FloatTensor<Self>, rule: Rectification) -> FloatTensor<Self> {
        let (input, node) = input.into_parts();
        let output = B::relu(input);
        match Rectify.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let mask = (rule == Rectification::Guided).then(|| output.clone());
                prep.finish(mask, output)
            }
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }
}

#[derive(Debug)]
struct Rectify;

impl<B: Backend> Backward<B, 1> for Rectify {
    /// The output, where its zeros block the gradient.
    type State = Option<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        unary::<B, _>(ops.parents, ops.node, grads, |grad| {
            let positive = B::relu(grad);
            match ops.state {
                Some(output) => B::relu_backward(output, positive),
                None => positive,
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::features::Features;
    use crate::observe::{Observer, observe};

    struct Rule(Option<Rectification>);

    impl Observer for Rule {
        fn rectification(&self) -> Option<Rectification> {
            self.0
        }
    }

    /// The gradient of Σ w·relu(x) by a rule.
    fn gradient(rule: Option<Rectification>, device: &Device) -> Vec<f32> {
        let x = Tensor::<1>::from_floats([1.0, 2.0, -1.0, -2.0], device).autodiff().require_grad();
        let w = Tensor::<1>::from_floats([3.0, -4.0, 5.0, -6.0], device);
        let map = observe(Rule(rule), x.clone().reshape([1, 4, 1, 1]), |x| x.relu());
        let sum = (map.reshape([4]) * w).sum();
        x.grad(&sum.backward()).unwrap().into_data().try_into_vec().unwrap()
    }

    #[test]
    fn each_rule_blocks_the_gradient_it_should() {
        let devices = [
            Device::flex(),
            #[cfg(feature = "ndarray")]
            Device::ndarray(),
        ];
        for device in devices {
            assert_eq!(gradient(None, &device), [3.0, -4.0, 0.0, 0.0]);
            assert_eq!(gradient(Some(Rectification::Deconvnet), &device), [3.0, 0.0, 5.0, 0.0]);
            assert_eq!(gradient(Some(Rectification::Guided), &device), [3.0, 0.0, 0.0, 0.0]);
        }
    }

    #[test]
    fn the_forward_pass_is_the_same_with_and_without_autodiff() {
        for device in [Device::flex(), Device::flex().autodiff(), Device::flex().autodiff().gradient_checkpointing()] {
            let x = Tensor::<1>::from_floats([1.5, -0.5], &device);
            let rectified = relu(x, Rectification::Deconvnet);
            assert_eq!(rectified.without_autodiff().into_data().try_into_vec::<f32>().unwrap(), [1.5, 0.0]);
        }
    }
}
