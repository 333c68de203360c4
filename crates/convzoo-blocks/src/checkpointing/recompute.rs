//! The operation that stands for a segment in the autodiff graph, of Burn's backends: its backward pass runs the segment
//! again, in a graph of its own.

// The last of the backends stays until Burn removes it.
#![allow(deprecated)]

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, Backend, BackendTensor, Dispatch, DispatchKindConversion, DispatchTensor, TensorMetadata,
    backend_extension,
};
use burn::tensor::{Gradients, Shape, Tensor};

use crate::backends::by_default_on_all_backends;

/// The gradients of a segment's input, first, and of its parameters, where they have any, from that of its output.
type Again = dyn FnOnce(DispatchTensor) -> Vec<Option<DispatchTensor>> + Send;

/// Runs a segment again, once.
#[derive(Clone)]
struct SecondPass {
    again: Arc<Mutex<Option<Box<Again>>>>,
    /// Whether the tensor that the segment is reached by is its input, and not one of its parameters.
    input_learns: bool,
    /// Those that learn, in the order in which `again` has their gradients; in the graph, their nodes alone are kept.
    parameters: Vec<DispatchTensor>,
}

impl fmt::Debug for SecondPass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecondPass")
    }
}

/// `output` as what a segment gives, which is reached by its input or by one of its `parameters`.
pub(super) fn record(
    reached_by: DispatchTensor,
    output: Tensor<4>,
    input_learns: bool,
    parameters: Vec<DispatchTensor>,
    again: impl FnOnce(DispatchTensor) -> Vec<Option<DispatchTensor>> + Send + 'static,
) -> Tensor<4> {
    let segment = SecondPass { again: Arc::new(Mutex::new(Some(Box::new(again)))), input_learns, parameters };
    let output = output.into_dispatch();
    let reached_by = DispatchTensor { autodiff: output.autodiff, ..reached_by };
    Tensor::from_dispatch(<Dispatch as Recomputation>::recomputed(reached_by, output, segment))
}

/// The gradients of all that `output` depends on, from its own `gradient`.
pub(super) fn backward(output: Tensor<4>, gradient: DispatchTensor) -> Gradients {
    let root = <Dispatch as Recomputation>::root(output.into_dispatch(), gradient);
    Tensor::<1>::from_dispatch(root).backward()
}

/// Implemented for the backends of this build, and for their autodiff forms, where it matters.
#[backend_extension(
    Autodiff,
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    LibTorch: cfg(feature = "tch"),
    Cube: cfg(any(feature = "wgpu", feature = "cuda")),
    Remote: cfg(feature = "remote")
)]
trait Recomputation: Backend {
    /// The segment's output.
    fn recomputed(reached_by: FloatTensor<Self>, output: FloatTensor<Self>, segment: SecondPass) -> FloatTensor<Self> {
        let _ = (reached_by, segment);
        output
    }

    /// Where a backward pass begins that gives `output` this gradient: one number, of no meaning.
    fn root(output: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        let _ = gradient;
        Self::float_zeros(Shape::new([1]), &output.device(), output.dtype().into())
    }
}

by_default_on_all_backends!(Recomputation);

impl<B: Recomputation, C: CheckpointStrategy> Recomputation for Autodiff<B, C>
where
    DispatchTensor: DispatchKindConversion<B> + DispatchKindConversion<Autodiff<B>>,
{
    fn recomputed(
        reached_by: FloatTensor<Self>,
        output: FloatTensor<Self>,
        mut segment: SecondPass,
    ) -> FloatTensor<Self> {
        let output = output.into_primitive();
        let parameters = std::mem::take(&mut segment.parameters).into_iter().map(node::<B>).collect();
        match Recompute.prepare::<C>([reached_by.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((segment, parameters), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn root(output: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        let (output, node) = output.into_parts();
        let root = B::float_zeros(Shape::new([1]), &output.device(), output.dtype().into());
        match Root.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(gradient.into_primitive(), root),
            OpsKind::UnTracked(prep) => prep.finish(root),
        }
    }
}

/// The node of a tensor that learns.
fn node<B: Backend>(tensor: DispatchTensor) -> NodeId
where
    DispatchTensor: DispatchKindConversion<Autodiff<B>>,
{
    let tensor = <DispatchTensor as DispatchKindConversion<Autodiff<B>>>::try_into_backend(tensor);
    tensor.expect("parameters are where the input is, of the strategy that keeps").float().id()
}

#[derive(Debug)]
struct Recompute;

impl<B: Recomputation> Backward<B, 1> for Recompute
where
    DispatchTensor: DispatchKindConversion<B>,
{
    /// The parameters' nodes, whose gradients the second pass gives in the same order.
    type State = (SecondPass, Vec<NodeId>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut grads::Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let (SecondPass { again, input_learns, .. }, parameters) = ops.state;
        // A backward pass takes each of its steps once.
        let Some(again) = again.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let gradients =
            again(<DispatchTensor as DispatchKindConversion<B>>::from_backend(BackendTensor::Float(gradient)));
        let input = ops.parents.map(|node| node.map(|node| node.id).filter(|_| input_learns));
        let nodes = input.into_iter().chain(parameters.into_iter().map(Some));
        for (node, gradient) in nodes.zip(gradients).filter_map(|(node, gradient)| node.zip(gradient)) {
            let gradient = <DispatchTensor as DispatchKindConversion<B>>::try_into_backend(gradient);
            grads.register::<B>(node, gradient.expect("gradients are where the output is").float());
        }
    }
}

#[derive(Debug)]
struct Root;

impl<B: Backend> Backward<B, 1> for Root {
    /// The gradient.
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut grads::Gradients, _: &mut Checkpointer) {
        grads.consume::<B>(&ops.node);
        for node in ops.parents.into_iter().flatten() {
            grads.register::<B>(node.id, ops.state.clone());
        }
    }
}
