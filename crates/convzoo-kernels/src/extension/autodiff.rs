use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::retro_forward::RetroForward;
use burn::backend::autodiff::checkpoint::state::BackwardStates;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::ops::{ActivationOps, FloatTensorOps, ModuleOps};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, AutodiffBackend, Backend, TensorMetadata};
use burn::tensor::Shape;
use burn::tensor::ops::{ConvOptions, MaxPoolOptions};

use super::compose;
use super::operations::{Gradients, Normalisation, Operations};
use crate::elementwise::Activation;
use crate::pool::PoolShape;
use crate::train::Descent;

/// A batch normalisation as the backward pass remembers it: the statistics, and which nodes the parameters are.
#[derive(Clone, Debug)]
struct Normalised<B: Backend> {
    input: NodeId,
    scale: NodeId,
    shift: NodeId,
    mean: FloatTensor<B>,
    variance: FloatTensor<B>,
    epsilon: f64,
    relu: bool,
}

impl<B: Gradients, C: CheckpointStrategy> Operations for Autodiff<B, C> {
    fn convolve(input: FloatTensor<Self>, weight: FloatTensor<Self>, options: ConvOptions<2>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Convolve;

        impl<B: Gradients> Backward<B, 2> for Convolve {
            type State = (NodeId, NodeId, ConvOptions<2>);

            fn backward(self, ops: Ops<Self::State, 2>, grads: &mut grads::Gradients, checkpointer: &mut Checkpointer) {
                let (input, weight, options) = ops.state;
                let gradient = grads.consume::<B>(&ops.node);
                let input: FloatTensor<B> = checkpointer.retrieve_node_output(input);
                let weight: FloatTensor<B> = checkpointer.retrieve_node_output(weight);
                let [of_input, of_weight] = ops.parents;
                if let Some(node) = of_input {
                    let values = B::convolve_input(input.clone(), weight.clone(), gradient.clone(), options.clone());
                    grads.register::<B>(node.id, values);
                }
                if let Some(node) = of_weight {
                    grads.register::<B>(node.id, B::convolve_weight(input, weight, gradient, options));
                }
            }
        }

        match Convolve.prepare::<C>([input.node(), weight.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = (prep.checkpoint(&input), prep.checkpoint(&weight), options.clone());
                prep.finish(state, B::convolve(input.into_primitive(), weight.into_primitive(), options))
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(B::convolve(input.into_primitive(), weight.into_primitive(), options))
            }
        }
    }

    fn convolve_biased(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct ConvolveBiased;

        impl<B: Gradients> Backward<B, 3> for ConvolveBiased {
            type State = (NodeId, NodeId, FloatTensor<B>, ConvOptions<2>);

            fn backward(self, ops: Ops<Self::State, 3>, grads: &mut grads::Gradients, checkpointer: &mut Checkpointer) {
                let (input, weight, bias, options) = ops.state;
                let gradient = grads.consume::<B>(&ops.node);
                let input: FloatTensor<B> = checkpointer.retrieve_node_output(input);
                let weight: FloatTensor<B> = checkpointer.retrieve_node_output(weight);
                let [of_input, of_weight, of_bias] = ops.parents;
                if let Some(node) = of_bias {
                    grads.register::<B>(node.id, B::convolve_bias(input.clone(), bias, gradient.clone()));
                }
                if let Some(node) = of_input {
                    let values = B::convolve_input(input.clone(), weight.clone(), gradient.clone(), options.clone());
                    grads.register::<B>(node.id, values);
                }
                if let Some(node) = of_weight {
                    grads.register::<B>(node.id, B::convolve_weight(input, weight, gradient, options));
                }
            }
        }

        let nodes = [input.node(), weight.node(), bias.node()];
        match ConvolveBiased.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let (of_input, of_weight) = (prep.checkpoint(&input), prep.checkpoint(&weight));
                let bias = bias.into_primitive();
                let state = (of_input, of_weight, bias.clone(), options.clone());
                let (input, weight) = (input.into_primitive(), weight.into_primitive());
                prep.finish(state, B::convolve_biased(input, weight, bias, options))
            }
            OpsKind::UnTracked(prep) => {
                let (input, weight) = (input.into_primitive(), weight.into_primitive());
                prep.finish(B::convolve_biased(input, weight, bias.into_primitive(), options))
            }
        }
    }

    fn convolve_affine(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        relu: bool,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        let output = Self::convolve(input, weight, options);
        let channels = scale.primitive().shape()[0];
        let shape = Shape::new([1, channels, 1, 1]);
        let output = Self::float_mul(output, Self::float_reshape(scale, shape.clone()));
        let output = Self::float_add(output, Self::float_reshape(shift, shape));
        if relu { Self::relu(output) } else { output }
    }

    fn normalise(
        input: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        epsilon: f64,
        relu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        #[derive(Debug)]
        struct Normalise;

        impl<B: Gradients> Backward<B, 3> for Normalise {
            type State = Normalised<B>;

            fn backward(self, ops: Ops<Self::State, 3>, grads: &mut grads::Gradients, checkpointer: &mut Checkpointer) {
                let gradient = grads.consume::<B>(&ops.node);
                let Normalised { input, scale, shift, mean, variance, epsilon, relu } = ops.state;
                let input = checkpointer.retrieve_node_output(input);
                let scale = checkpointer.retrieve_node_output(scale);
                let shift = checkpointer.retrieve_node_output(shift);
                let normalisation = Normalisation { scale, shift, mean, variance, epsilon, relu };
                let values = B::normalise_backward(input, normalisation, gradient);
                for (node, values) in ops.parents.into_iter().zip(values) {
                    if let Some(node) = node {
                        grads.register::<B>(node.id, values);
                    }
                }
            }
        }

        /// Where memory is saved, the output is not kept: its input and its statistics make it once more.
        #[derive(Debug)]
        struct Again<B: Backend>(Normalised<B>);

        impl<B: Gradients> RetroForward for Again<B> {
            fn forward(&self, states: &mut BackwardStates, output: NodeId) {
                let Normalised { input, scale, shift, mean, variance, epsilon, relu } = self.0.clone();
                let input = states.get_state::<FloatTensor<B>>(&input);
                let scale = states.get_state::<FloatTensor<B>>(&scale);
                let shift = states.get_state::<FloatTensor<B>>(&shift);
                states.save(output, B::normalise_by(input, scale, shift, mean, variance, epsilon, relu));
            }
        }

        let primitives = [&input, &scale, &shift].map(|tensor| tensor.primitive().clone());
        let [of_input, of_scale, of_shift] = primitives;
        let (output, mean, variance) = B::normalise(of_input, of_scale, of_shift, epsilon, relu);
        let state = Normalised {
            input: input.id(),
            scale: scale.id(),
            shift: shift.id(),
            mean: mean.clone(),
            variance: variance.clone(),
            epsilon,
            relu,
        };
        let output = match Normalise
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

    fn normalise_by(
        input: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        epsilon: f64,
        relu: bool,
    ) -> FloatTensor<Self> {
        let output = Self::batch_norm(input, scale, shift, mean, variance, epsilon);
        if relu { Self::relu(output) } else { output }
    }

    fn add_rectified(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Add;

        impl<B: Gradients> Backward<B, 2> for Add {
            type State = FloatTensor<B>;

            fn backward(self, ops: Ops<Self::State, 2>, grads: &mut grads::Gradients, _: &mut Checkpointer) {
                let gradient = grads.consume::<B>(&ops.node);
                let gradient = B::add_rectified_backward(ops.state, gradient);
                for node in ops.parents.into_iter().flatten() {
                    grads.register::<B>(node.id, gradient.clone());
                }
            }
        }

        // The output is kept in any case: the layers that follow need it.
        match Add.prepare::<C>([a.node(), b.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let output = B::add_rectified(a.into_primitive(), b.into_primitive());
                prep.finish(output.clone(), output)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::add_rectified(a.into_primitive(), b.into_primitive())),
        }
    }

    fn largest(input: FloatTensor<Self>, options: MaxPoolOptions<2>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Largest;

        impl<B: Gradients> Backward<B, 1> for Largest {
            type State = (NodeId, MaxPoolOptions<2>, IntTensor<B>);

            fn backward(self, ops: Ops<Self::State, 1>, grads: &mut grads::Gradients, checkpointer: &mut Checkpointer) {
                let (input, options, indices) = ops.state;
                let gradient = grads.consume::<B>(&ops.node);
                let input = checkpointer.retrieve_node_output(input);
                if let [Some(node)] = ops.parents {
                    grads.register::<B>(node.id, B::largest_backward(input, options, indices, gradient));
                }
            }
        }

        match Largest.prepare::<C>([input.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let node = prep.checkpoint(&input);
                let (output, indices) = B::largest_where(input.into_primitive(), options.clone());
                prep.finish((node, options, indices), output)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::largest(input.into_primitive(), options)),
        }
    }

    fn averaged(input: FloatTensor<Self>, shape: PoolShape) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Averaged;

        impl<B: Gradients> Backward<B, 1> for Averaged {
            type State = (Shape, PoolShape);

            fn backward(self, ops: Ops<Self::State, 1>, grads: &mut grads::Gradients, _: &mut Checkpointer) {
                let (input, shape) = ops.state;
                let gradient = grads.consume::<B>(&ops.node);
                if let [Some(node)] = ops.parents {
                    grads.register::<B>(node.id, B::averaged_backward(input, shape, gradient));
                }
            }
        }

        match Averaged.prepare::<C>([input.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let input = input.into_primitive();
                prep.finish((input.shape(), shape), B::averaged(input, shape))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::averaged(input.into_primitive(), shape)),
        }
    }

    fn squashed(input: FloatTensor<Self>, function: Activation) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Squashed;

        impl<B: Gradients> Backward<B, 1> for Squashed {
            type State = (FloatTensor<B>, Activation);

            fn backward(self, ops: Ops<Self::State, 1>, grads: &mut grads::Gradients, _: &mut Checkpointer) {
                let (output, function) = ops.state;
                let gradient = grads.consume::<B>(&ops.node);
                if let [Some(node)] = ops.parents {
                    grads.register::<B>(node.id, B::squashed_backward(output, function, gradient));
                }
            }
        }

        match Squashed.prepare::<C>([input.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let output = B::squashed(input.into_primitive(), function);
                prep.finish((output.clone(), function), output)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::squashed(input.into_primitive(), function)),
        }
    }

    fn connect(input: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Connect;

        impl<B: Gradients> Backward<B, 3> for Connect {
            type State = (NodeId, NodeId);

            fn backward(self, ops: Ops<Self::State, 3>, grads: &mut grads::Gradients, checkpointer: &mut Checkpointer) {
                let (input, weight) = ops.state;
                let gradient = grads.consume::<B>(&ops.node);
                let input: FloatTensor<B> = checkpointer.retrieve_node_output(input);
                let weight: FloatTensor<B> = checkpointer.retrieve_node_output(weight);
                let [of_input, of_weight, of_bias] = ops.parents;
                if let Some(node) = of_input {
                    grads.register::<B>(node.id, B::connect_input(weight, gradient.clone()));
                }
                if let Some(node) = of_weight {
                    grads.register::<B>(node.id, B::connect_weight(input, gradient.clone()));
                }
                if let Some(node) = of_bias {
                    grads.register::<B>(node.id, B::linear_bias_backward(gradient));
                }
            }
        }

        match Connect.prepare::<C>([input.node(), weight.node(), bias.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = (prep.checkpoint(&input), prep.checkpoint(&weight));
                let (input, weight) = (input.into_primitive(), weight.into_primitive());
                prep.finish(state, B::connect(input, weight, bias.into_primitive()))
            }
            OpsKind::UnTracked(prep) => {
                let (input, weight) = (input.into_primitive(), weight.into_primitive());
                prep.finish(B::connect(input, weight, bias.into_primitive()))
            }
        }
    }

    fn descend(
        param: FloatTensor<Self>,
        velocity: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        rule: Descent,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        compose::<Self>(param, velocity, gradient, rule)
    }
}
