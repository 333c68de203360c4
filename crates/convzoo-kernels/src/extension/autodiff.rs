//! The backward passes of the kernels' operations, for Burn's autodiff.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, TensorMetadata};
use burn::tensor::ops::{ConvOptions, MaxPoolOptions};
use burn::tensor::{DType, Shape};

use super::kernel_ops::{KernelGradients, KernelOps};
use crate::elementwise::Activation;
use crate::planar::activation_keeps_output;
use crate::pool::PoolShape;

/// What the backward pass of a convolution keeps.
#[derive(Clone, Debug)]
struct TrackedConv {
    input: NodeId,
    weight: NodeId,
    options: ConvOptions<2>,
}

impl TrackedConv {
    /// Registers the gradients of input and weight, and of a bias that has one.
    fn register<B: KernelGradients>(
        self,
        [of_input, of_weight, of_bias]: [Option<NodeId>; 3],
        bias: Option<FloatTensor<B>>,
        gradient: FloatTensor<B>,
        grads: &mut grads::Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let input: FloatTensor<B> = checkpointer.retrieve_node_output(self.input);
        let weight: FloatTensor<B> = checkpointer.retrieve_node_output(self.weight);
        if let Some((node, bias)) = of_bias.zip(bias) {
            grads.register::<B>(node, B::kernel_conv2d_bias_backward(input.clone(), bias, gradient.clone()));
        }
        if let Some(node) = of_input {
            let (input, weight, options) = (input.clone(), weight.clone(), self.options.clone());
            grads.register::<B>(node, B::kernel_conv2d_x_backward(input, weight, gradient.clone(), options));
        }
        if let Some(node) = of_weight {
            grads.register::<B>(node, B::kernel_conv2d_weight_backward(input, weight, gradient, self.options));
        }
    }
}

/// The concatenation along channels.
fn concat<B: KernelGradients, C: CheckpointStrategy, const N: usize>(
    maps: [FloatTensor<Autodiff<B, C>>; N],
) -> FloatTensor<Autodiff<B, C>> {
    #[derive(Debug)]
    struct Concat;

    impl<B: KernelGradients, const N: usize> Backward<B, N> for Concat {
        /// The parts' channels.
        type State = [usize; N];

        fn backward(self, ops: Ops<Self::State, N>, grads: &mut grads::Gradients, _: &mut Checkpointer) {
            let gradient = grads.consume::<B>(&ops.node);
            let mut before = 0;
            for (node, channels) in ops.parents.into_iter().zip(ops.state) {
                if let Some(node) = node {
                    grads.register::<B>(node.id, B::kernel_concat_backward(gradient.clone(), before, channels));
                }
                before += channels;
            }
        }
    }

    let (nodes, channels) = (maps.each_ref().map(|map| map.node()), maps.each_ref().map(|map| map.shape()[1]));
    let maps = maps.into_iter().map(|map| map.into_primitive()).collect();
    match Backward::<B, N>::prepare::<C>(Concat, nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(channels, B::kernel_concat(maps)),
        OpsKind::UnTracked(prep) => prep.finish(B::kernel_concat(maps)),
    }
}

impl<B: KernelGradients, C: CheckpointStrategy> KernelOps for Autodiff<B, C> {
    fn kernel_conv2d(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Conv2d;

        impl<B: KernelGradients> Backward<B, 2> for Conv2d {
            type State = TrackedConv;

            fn backward(self, ops: Ops<Self::State, 2>, grads: &mut grads::Gradients, checkpointer: &mut Checkpointer) {
                let gradient = grads.consume::<B>(&ops.node);
                let [input, weight] = ops.parents.map(|node| node.map(|node| node.id));
                ops.state.register::<B>([input, weight, None], None, gradient, grads, checkpointer);
            }
        }

        match Conv2d.prepare::<C>([input.node(), weight.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let (of_input, of_weight) = (prep.checkpoint(&input), prep.checkpoint(&weight));
                let state = TrackedConv { input: of_input, weight: of_weight, options: options.clone() };
                prep.finish(state, B::kernel_conv2d(input.into_primitive(), weight.into_primitive(), options))
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(B::kernel_conv2d(input.into_primitive(), weight.into_primitive(), options))
            }
        }
    }

    fn kernel_conv2d_bias(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Conv2dBias;

        impl<B: KernelGradients> Backward<B, 3> for Conv2dBias {
            type State = (TrackedConv, FloatTensor<B>);

            fn backward(self, ops: Ops<Self::State, 3>, grads: &mut grads::Gradients, checkpointer: &mut Checkpointer) {
                let gradient = grads.consume::<B>(&ops.node);
                let nodes = ops.parents.map(|node| node.map(|node| node.id));
                let (conv, bias) = ops.state;
                conv.register::<B>(nodes, Some(bias), gradient, grads, checkpointer);
            }
        }

        let nodes = [input.node(), weight.node(), bias.node()];
        match Conv2dBias.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let (of_input, of_weight) = (prep.checkpoint(&input), prep.checkpoint(&weight));
                let bias = bias.into_primitive();
                let conv = TrackedConv { input: of_input, weight: of_weight, options: options.clone() };
                let state = (conv, bias.clone());
                let (input, weight) = (input.into_primitive(), weight.into_primitive());
                prep.finish(state, B::kernel_conv2d_bias(input, weight, bias, options))
            }
            OpsKind::UnTracked(prep) => {
                let (input, weight) = (input.into_primitive(), weight.into_primitive());
                prep.finish(B::kernel_conv2d_bias(input, weight, bias.into_primitive(), options))
            }
        }
    }

    fn kernel_add(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Add;

        impl<B: KernelGradients> Backward<B, 2> for Add {
            type State = ();

            fn backward(self, ops: Ops<Self::State, 2>, grads: &mut grads::Gradients, _: &mut Checkpointer) {
                let gradient = grads.consume::<B>(&ops.node);
                for node in ops.parents.into_iter().flatten() {
                    grads.register::<B>(node.id, gradient.clone());
                }
            }
        }

        match Add.prepare::<C>([a.node(), b.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((), B::kernel_add(a.into_primitive(), b.into_primitive())),
            OpsKind::UnTracked(prep) => prep.finish(B::kernel_add(a.into_primitive(), b.into_primitive())),
        }
    }

    fn kernel_concat2(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        concat::<B, C, 2>([a, b])
    }

    fn kernel_concat3(a: FloatTensor<Self>, b: FloatTensor<Self>, c: FloatTensor<Self>) -> FloatTensor<Self> {
        concat::<B, C, 3>([a, b, c])
    }

    fn kernel_concat4(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        d: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        concat::<B, C, 4>([a, b, c, d])
    }

    fn kernel_fork(input: FloatTensor<Self>) -> (FloatTensor<Self>, FloatTensor<Self>) {
        /// One of two readers.
        #[derive(Debug)]
        struct Reader;

        impl<B: KernelGradients> Backward<B, 1> for Reader {
            /// Whether the other's gradient is there.
            type State = Arc<AtomicBool>;

            fn backward(self, ops: Ops<Self::State, 1>, grads: &mut grads::Gradients, _: &mut Checkpointer) {
                let gradient = grads.consume::<B>(&ops.node);
                let [Some(node)] = ops.parents else { return };
                let second = ops.state.swap(true, Ordering::Relaxed);
                // The gradient of a leaf stays where it is when it is asked for.
                let gradient = match second && !node.parents.is_empty() {
                    true => B::kernel_add(gradient, grads.consume::<B>(&node)),
                    false => gradient,
                };
                grads.register::<B>(node.id, gradient);
            }
        }

        let state = Arc::new(AtomicBool::new(false));
        let reader = || match Reader.prepare::<C>([input.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(Arc::clone(&state), input.primitive().clone()),
            OpsKind::UnTracked(prep) => prep.finish(input.primitive().clone()),
        };
        (reader(), reader())
    }

    fn kernel_max_pool2d(input: FloatTensor<Self>, options: MaxPoolOptions<2>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct MaxPool2d;

        impl<B: KernelGradients> Backward<B, 1> for MaxPool2d {
            type State = (NodeId, MaxPoolOptions<2>, IntTensor<B>);

            fn backward(self, ops: Ops<Self::State, 1>, grads: &mut grads::Gradients, checkpointer: &mut Checkpointer) {
                let (input, options, indices) = ops.state;
                let gradient = grads.consume::<B>(&ops.node);
                let input = checkpointer.retrieve_node_output(input);
                if let [Some(node)] = ops.parents {
                    grads.register::<B>(node.id, B::kernel_max_pool2d_backward(input, options, indices, gradient));
                }
            }
        }

        match MaxPool2d.prepare::<C>([input.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let node = prep.checkpoint(&input);
                let (output, indices) = B::kernel_max_pool2d_with_indices(input.into_primitive(), options.clone());
                prep.finish((node, options, indices), output)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::kernel_max_pool2d(input.into_primitive(), options)),
        }
    }

    fn kernel_average_pool2d(input: FloatTensor<Self>, shape: PoolShape) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct AveragePool2d;

        impl<B: KernelGradients> Backward<B, 1> for AveragePool2d {
            type State = (Shape, PoolShape);

            fn backward(self, ops: Ops<Self::State, 1>, grads: &mut grads::Gradients, _: &mut Checkpointer) {
                let (input, shape) = ops.state;
                let gradient = grads.consume::<B>(&ops.node);
                if let [Some(node)] = ops.parents {
                    grads.register::<B>(node.id, B::kernel_average_pool2d_backward(input, shape, gradient));
                }
            }
        }

        match AveragePool2d.prepare::<C>([input.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let input = input.into_primitive();
                prep.finish((input.shape(), shape), B::kernel_average_pool2d(input, shape))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::kernel_average_pool2d(input.into_primitive(), shape)),
        }
    }

    fn kernel_scale(input: FloatTensor<Self>, factors: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Scale;

        impl<B: KernelGradients> Backward<B, 2> for Scale {
            type State = (NodeId, NodeId);

            fn backward(self, ops: Ops<Self::State, 2>, grads: &mut grads::Gradients, checkpointer: &mut Checkpointer) {
                let (input, factors) = ops.state;
                let gradient = grads.consume::<B>(&ops.node);
                let input: FloatTensor<B> = checkpointer.retrieve_node_output(input);
                let factors: FloatTensor<B> = checkpointer.retrieve_node_output(factors);
                let [of_input, of_factors] = ops.parents;
                if let Some(node) = of_factors {
                    let values = B::kernel_scale_factors_backward(input, factors.clone(), gradient.clone());
                    grads.register::<B>(node.id, values);
                }
                if let Some(node) = of_input {
                    grads.register::<B>(node.id, B::kernel_scale_x_backward(factors, gradient));
                }
            }
        }

        match Scale.prepare::<C>([input.node(), factors.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = (prep.checkpoint(&input), prep.checkpoint(&factors));
                prep.finish(state, B::kernel_scale(input.into_primitive(), factors.into_primitive()))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::kernel_scale(input.into_primitive(), factors.into_primitive())),
        }
    }

    fn kernel_layer_norm(
        input: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct LayerNorm;

        impl<B: KernelGradients> Backward<B, 3> for LayerNorm {
            type State = (NodeId, NodeId, f64);

            fn backward(self, ops: Ops<Self::State, 3>, grads: &mut grads::Gradients, checkpointer: &mut Checkpointer) {
                let (input, scale, epsilon) = ops.state;
                let gradient = grads.consume::<B>(&ops.node);
                let input = checkpointer.retrieve_node_output(input);
                let scale = checkpointer.retrieve_node_output(scale);
                let values = B::kernel_layer_norm_backward(input, scale, epsilon, gradient);
                for (node, values) in ops.parents.into_iter().zip(values) {
                    if let Some(node) = node {
                        grads.register::<B>(node.id, values);
                    }
                }
            }
        }

        match LayerNorm.prepare::<C>([input.node(), scale.node(), shift.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = (prep.checkpoint(&input), prep.checkpoint(&scale), epsilon);
                let (input, scale, shift) = (input.into_primitive(), scale.into_primitive(), shift.into_primitive());
                prep.finish(state, B::kernel_layer_norm(input, scale, shift, epsilon))
            }
            OpsKind::UnTracked(prep) => {
                let (input, scale, shift) = (input.into_primitive(), scale.into_primitive(), shift.into_primitive());
                prep.finish(B::kernel_layer_norm(input, scale, shift, epsilon))
            }
        }
    }

    fn kernel_activation(input: FloatTensor<Self>, function: Activation) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Elementwise;

        impl<B: KernelGradients> Backward<B, 1> for Elementwise {
            type State = (FloatTensor<B>, Activation);

            fn backward(self, ops: Ops<Self::State, 1>, grads: &mut grads::Gradients, _: &mut Checkpointer) {
                let (kept, function) = ops.state;
                let gradient = grads.consume::<B>(&ops.node);
                if let [Some(node)] = ops.parents {
                    grads.register::<B>(node.id, B::kernel_activation_backward(kept, function, gradient));
                }
            }
        }

        match Elementwise.prepare::<C>([input.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let input = input.into_primitive();
                let output = B::kernel_activation(input.clone(), function);
                let kept = if activation_keeps_output(function) { output.clone() } else { input };
                prep.finish((kept, function), output)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::kernel_activation(input.into_primitive(), function)),
        }
    }

    fn kernel_linear(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Linear;

        impl<B: KernelGradients> Backward<B, 3> for Linear {
            /// The input and the weight, and the bias's numbers.
            type State = (NodeId, NodeId, DType);

            fn backward(self, ops: Ops<Self::State, 3>, grads: &mut grads::Gradients, checkpointer: &mut Checkpointer) {
                let (input, weight, of_biases) = ops.state;
                let gradient = grads.consume::<B>(&ops.node);
                let input: FloatTensor<B> = checkpointer.retrieve_node_output(input);
                let weight: FloatTensor<B> = checkpointer.retrieve_node_output(weight);
                let [of_input, of_weight, of_bias] = ops.parents;
                if let Some(node) = of_input {
                    grads.register::<B>(node.id, B::kernel_linear_x_backward(weight.clone(), gradient.clone()));
                }
                if let Some(node) = of_weight {
                    grads.register::<B>(node.id, B::kernel_linear_weight_backward(input, weight, gradient.clone()));
                }
                if let Some(node) = of_bias {
                    let wide = gradient.dtype() != of_biases;
                    let gradient = if wide { B::float_cast(gradient, of_biases.into()) } else { gradient };
                    grads.register::<B>(node.id, B::linear_bias_backward(gradient));
                }
            }
        }

        match Linear.prepare::<C>([input.node(), weight.node(), bias.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = (prep.checkpoint(&input), prep.checkpoint(&weight), bias.primitive().dtype());
                let (input, weight) = (input.into_primitive(), weight.into_primitive());
                prep.finish(state, B::kernel_linear(input, weight, bias.into_primitive()))
            }
            OpsKind::UnTracked(prep) => {
                let (input, weight) = (input.into_primitive(), weight.into_primitive());
                prep.finish(B::kernel_linear(input, weight, bias.into_primitive()))
            }
        }
    }
}
