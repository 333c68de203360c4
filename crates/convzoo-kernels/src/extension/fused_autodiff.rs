//! The backward passes of [`FusedOps`], for Burn's autodiff.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::retro_forward::RetroForward;
use burn::backend::autodiff::checkpoint::state::BackwardStates;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend};

use super::burn_ops::BatchNorm;
use super::fused_ops::{FusedGradients, FusedOps};
use crate::elementwise::Activation;

/// What the backward pass of a batch normalization keeps: the statistics, and the parameters' nodes.
#[derive(Clone, Debug)]
struct TrackedBatchNorm<B: Backend> {
    input: NodeId,
    scale: NodeId,
    shift: NodeId,
    mean: FloatTensor<B>,
    variance: FloatTensor<B>,
    epsilon: f64,
    activation: Activation,
}

impl<B: Backend> TrackedBatchNorm<B> {
    /// The input and the normalization, of nodes' outputs.
    fn retrieve(self, mut output: impl FnMut(NodeId) -> FloatTensor<B>) -> (FloatTensor<B>, BatchNorm<B>) {
        let Self { input, scale, shift, mean, variance, epsilon, .. } = self;
        let (input, scale, shift) = (output(input), output(scale), output(shift));
        (input, BatchNorm { scale, shift, mean, variance, epsilon })
    }
}

impl<B: FusedGradients, C: CheckpointStrategy> FusedOps for Autodiff<B, C> {
    fn kernel_batch_norm_train(
        input: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        epsilon: f64,
        activation: Activation,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        #[derive(Debug)]
        struct BatchNormTrain;

        impl<B: FusedGradients> Backward<B, 3> for BatchNormTrain {
            type State = TrackedBatchNorm<B>;

            fn backward(self, ops: Ops<Self::State, 3>, grads: &mut grads::Gradients, checkpointer: &mut Checkpointer) {
                let gradient = grads.consume::<B>(&ops.node);
                let activation = ops.state.activation;
                let (input, norm) = ops.state.retrieve(|node| checkpointer.retrieve_node_output(node));
                let (input, scale, shift) = B::kernel_batch_norm_backward(input, norm, activation, gradient);
                for (node, values) in ops.parents.into_iter().zip([input, scale, shift]) {
                    if let Some(node) = node {
                        grads.register::<B>(node.id, values);
                    }
                }
            }
        }

        /// Where memory is saved, the output is not kept: its input and its statistics make it once more.
        #[derive(Debug)]
        struct Again<B: Backend>(TrackedBatchNorm<B>);

        impl<B: FusedGradients> RetroForward for Again<B> {
            fn forward(&self, states: &mut BackwardStates, output: NodeId) {
                let (input, norm) = self.0.clone().retrieve(|node| states.get_state::<FloatTensor<B>>(&node));
                let activation = self.0.activation;
                states.save(output, B::kernel_batch_norm_again(input, norm, activation));
            }
        }

        let primitives = [&input, &scale, &shift].map(|tensor| tensor.primitive().clone());
        let [of_input, of_scale, of_shift] = primitives;
        let (output, mean, variance) = B::kernel_batch_norm_train(of_input, of_scale, of_shift, epsilon, activation);
        let state = TrackedBatchNorm {
            input: input.id(),
            scale: scale.id(),
            shift: shift.id(),
            mean: mean.clone(),
            variance: variance.clone(),
            epsilon,
            activation,
        };
        let output = match BatchNormTrain
            .prepare::<C>([input.node(), scale.node(), shift.node()])
            .memory_bound()
            .retro_forward(Again::<B>(state.clone()))
            .parents([&input, &scale, &shift])
            .stateful()
        {
            OpsKind::Tracked(mut prep) => {
                for tensor in [&input, &scale, &shift] {
                    prep.checkpoint(tensor);
                }
                prep.finish(state, output)
            }
            OpsKind::UnTracked(prep) => prep.finish(output),
        };
        let constant = |values| <Self as AutodiffBackend>::from_inner(values);
        (output, constant(mean), constant(variance))
    }

    fn kernel_add_relu(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct AddRelu;

        impl<B: FusedGradients> Backward<B, 2> for AddRelu {
            type State = FloatTensor<B>;

            fn backward(self, ops: Ops<Self::State, 2>, grads: &mut grads::Gradients, _: &mut Checkpointer) {
                let gradient = grads.consume::<B>(&ops.node);
                let gradient = B::kernel_add_relu_backward(ops.state, gradient);
                for node in ops.parents.into_iter().flatten() {
                    grads.register::<B>(node.id, gradient.clone());
                }
            }
        }

        // The output is kept in any case: the layers that follow need it.
        match AddRelu.prepare::<C>([a.node(), b.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let output = B::kernel_add_relu(a.into_primitive(), b.into_primitive());
                prep.finish(output.clone(), output)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::kernel_add_relu(a.into_primitive(), b.into_primitive())),
        }
    }
}
