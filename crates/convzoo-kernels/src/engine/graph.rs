use std::sync::Arc;

use super::fold::fold;
use super::network::CompiledNetwork;
use super::node::{ConvNode, Node, Op};
use crate::blocked::layer_norm::LayerNorm;
use crate::conv::ConvShape;
use crate::elementwise::{Activation, ScaleShift};
use crate::linear::Linear;
use crate::lrn::LocalResponse;
use crate::pool::PoolShape;
use crate::{Isa, KernelError, Precision, Values};

/// A tensor that an operation of a graph makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Value(pub(super) usize);

/// The operations of a network, each on what earlier ones made.
///
/// Shapes are checked when the network is planned for an input's. A value of another graph is an error then, or a panic
/// where this graph has no such value.
pub struct Graph {
    nodes: Vec<Node>,
    precision: Precision,
}

impl Graph {
    /// An empty graph over images of so many channels.
    pub fn new(channels: usize) -> Self {
        let images =
            Node { op: Op::Input(channels), inputs: Vec::new(), layers: Vec::new(), number: None, bytes: None };
        Self { nodes: vec![images], precision: Precision::F32 }
    }

    /// The same graph, whose weights and activations are kept in a precision. A [`Linear`] keeps its own weights.
    pub fn in_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// The images.
    pub fn input(&self) -> Value {
        Value(0)
    }

    /// A convolution with a weight `[outputs, inputs / groups, height, width]` and a bias `[outputs]`.
    ///
    /// # Errors
    /// The shape is invalid, or the slices do not have it.
    pub fn conv(
        &mut self,
        input: Value,
        shape: ConvShape,
        weight: impl Into<Values>,
        bias: Option<Vec<f32>>,
    ) -> Result<Value, KernelError> {
        let weight = weight.into();
        shape.check(&weight, bias.as_deref())?;
        let activation = Activation::Identity;
        Ok(self.push(Op::Conv(ConvNode { shape, weight, scale: None, bias, activation }), &[input]))
    }

    /// A scale and a shift for each channel.
    pub fn scale_shift(&mut self, input: Value, affine: ScaleShift) -> Value {
        self.push(Op::Elementwise { affine: Some(affine), activation: Activation::Identity }, &[input])
    }

    /// An element-wise function.
    pub fn activation(&mut self, input: Value, activation: Activation) -> Value {
        self.push(Op::Elementwise { affine: None, activation }, &[input])
    }

    /// The sum of tensors of one shape.
    pub fn add(&mut self, inputs: &[Value]) -> Value {
        self.push(Op::Elementwise { affine: None, activation: Activation::Identity }, inputs)
    }

    /// The concatenation along channels.
    pub fn concat(&mut self, inputs: &[Value]) -> Value {
        self.push(Op::Concat, inputs)
    }

    /// Some channels, in any order, each by its number.
    pub fn channels(&mut self, input: Value, channels: impl IntoIterator<Item = usize>) -> Value {
        self.push(Op::Gather(channels.into_iter().map(|channel| (0, channel)).collect()), &[input])
    }

    /// Each channel of a tensor multiplied by that of a gate, `[batch, channels, 1, 1]`.
    pub fn gate(&mut self, input: Value, gate: Value) -> Value {
        self.push(Op::Gate, &[input, gate])
    }

    /// Pooling.
    pub fn pool(&mut self, input: Value, shape: PoolShape) -> Value {
        self.push(Op::Pool(shape), &[input])
    }

    /// Local response normalization.
    pub fn local_response(&mut self, input: Value, norm: LocalResponse) -> Value {
        self.push(Op::LocalResponse(norm), &[input])
    }

    /// Layer normalization over the channels of each pixel.
    pub fn layer_norm(&mut self, input: Value, norm: LayerNorm) -> Value {
        self.push(Op::LayerNorm(norm), &[input])
    }

    /// `[batch, channels, height, width]` to `[batch, channels · height · width]`, in that order.
    pub fn flatten(&mut self, input: Value) -> Value {
        self.push(Op::Flatten, &[input])
    }

    /// A fully-connected layer on vectors.
    pub fn linear(&mut self, input: Value, linear: Linear) -> Value {
        self.push(Op::Linear { linear: Arc::new(linear), activation: Activation::Identity }, &[input])
    }

    /// Says which layer makes a value, by a number that a [profile](super::ExecutionPlan::profile) reports.
    pub fn label(&mut self, value: Value, layer: u64) {
        self.nodes[value.0].layers.push(layer);
    }

    /// Numbers the operation that makes a value, for [`EngineValue::number`](super::EngineValue::number); the first number
    /// stays.
    pub fn number(&mut self, value: Value, operation: u64) {
        self.nodes[value.0].number.get_or_insert(operation);
    }

    /// The network that makes `output`: what follows a convolution or a linear layer is folded into it, and what
    /// `output` does not need is dropped.
    ///
    /// # Errors
    /// `CONVZOO_ISA` names no instruction set of this processor.
    pub fn finish(self, output: Value) -> Result<CompiledNetwork, KernelError> {
        self.finish_for(output, Isa::detect()?)
    }

    /// [`finish`](Self::finish) for a given instruction set of this processor.
    ///
    /// # Errors
    /// The graph has no such value.
    pub fn finish_for(self, output: Value, isa: Isa) -> Result<CompiledNetwork, KernelError> {
        if output.0 >= self.nodes.len() {
            return Err(KernelError::Missing("such value in the graph"));
        }
        let (nodes, places) = fold(self.nodes, output.0);
        Ok(CompiledNetwork::new(isa, self.precision, nodes, places))
    }

    fn push(&mut self, op: Op, inputs: &[Value]) -> Value {
        let inputs: Vec<usize> = inputs.iter().map(|value| value.0).collect();
        assert!(inputs.iter().all(|input| *input < self.nodes.len()), "a value of another graph");
        self.nodes.push(Node { op, inputs, layers: Vec::new(), number: None, bytes: None });
        Value(self.nodes.len() - 1)
    }
}
