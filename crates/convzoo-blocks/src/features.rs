//! What networks compute with: feature maps and feature vectors, as tensors, as symbols or under observation.
//!
//! A network is written once, `fn forward<M: FeatureMap>(&self, images: M) -> M::Vector`, and runs on any [`FeatureMap`]:
//!
//! | feature map | what a forward pass does |
//! |---|---|
//! | Burn's `Tensor<4>` | computes, blocks in their fastest form |
//! | [`Checkpointed`](crate::Checkpointed) | computes, and keeps for the backward pass only where [segments](Segment) begin |
//! | [`Symbol`](crate::Symbol) | records the network's [`Graph`](convzoo_graph::Graph); nothing is computed |
//! | [`Observed`](crate::Observed) | computes layer by layer, and shows an [`Observer`](crate::Observer) each input and output |
//!
//! All that a pass is made of are [layers](Layer), sums, gates, concatenations and one flattening, so that a symbol can record
//! all of it. A layer has an operation in the graph ([`Layer::operation`]) and a computation ([`Layer::compute`]);
//! computation that the graph has no operation for is an [`Opaque`](crate::Opaque) layer.

use std::ops::Add;

use burn::module::{Module, ModuleVisitor, Param, ParamId, RunningState};
use burn::nn::Dropout;
use burn::tensor::{Device, Tensor};
use convzoo_graph::{Activation, Operation, Parameter};
use convzoo_kernels::extension;

use crate::Channels;

/// One operation with one input: `D` is 4 for feature maps, 2 for feature vectors.
pub trait Layer<const D: usize> {
    /// Its operation in the graph.
    fn operation(&self) -> Operation;

    /// The output, of the shape that the operation says.
    fn compute(&self, input: Tensor<D>) -> Tensor<D>;

    /// Its id in the module tree: that of its weight or, where it has none, of a flag it holds for the purpose.
    fn id(&self) -> Option<ParamId> {
        None
    }

    /// Its weights and statistics, the weight first.
    fn parameters(&self) -> Vec<Parameter> {
        Vec::new()
    }
}

/// Several layers that can be fused where no intermediate result is needed.
pub trait Composite {
    /// The layers one by one.
    fn compose<M: FeatureMap>(&self, input: M) -> M;

    /// The same output in the fastest way.
    fn compute(&self, input: Tensor<4>) -> Tensor<4> {
        self.compose(input)
    }
}

/// A part of a network that gradient checkpointing computes twice: in the forward pass, of which only the input is kept, and
/// again in the backward pass. A block's `forward` is [`FeatureMap::segment`] of itself.
///
/// What it computes depends on its input, its parameters and what it gets from [`drawn`](crate::drawn) alone, as that of this
/// crate's layers does: Burn's own dropout or batch norm, in an [`Opaque`](crate::Opaque) layer say, would draw
/// other numbers in the second pass, or count the batch twice.
pub trait Segment: Module + 'static {
    /// The layers of the segment.
    fn pass<M: FeatureMap>(&self, input: M) -> M;
}

/// Feature maps, `D` = 4, `[batch, channels, height, width]`, or feature vectors, `D` = 2, `[batch, features]`.
pub trait Features<const D: usize>: Clone + Add<Output = Self> {
    /// Applies a layer.
    fn layer(self, layer: &impl Layer<D>) -> Self;

    /// Applies an element-wise function.
    fn activation(self, function: Activation) -> Self {
        if function == Activation::Identity { self } else { self.layer(&function) }
    }

    /// max(0, x).
    fn relu(self) -> Self {
        self.activation(Activation::Relu)
    }

    /// Dropout, where it drops anything.
    fn dropout(self, layer: &Dropout) -> Self {
        if layer.prob == 0.0 { self } else { self.layer(layer) }
    }
}

/// Feature maps `[batch, channels, height, width]`.
pub trait FeatureMap: Features<4> {
    /// The feature vectors that they are flattened to.
    type Vector: FeatureVector;

    /// Batch, channels, height and width.
    fn dims(&self) -> [usize; 4];

    /// The device of a training pass, from which random numbers are drawn; `None` in inference.
    fn training_device(&self) -> Option<Device>;

    /// The concatenation along channels.
    fn concat(maps: Vec<Self>) -> Self;

    /// `[batch, channels, height, width]` to `[batch, channels · height · width]`.
    fn flatten(self) -> Self::Vector;

    /// Each channel multiplied by that of a gate, `[batch, channels, 1, 1]`.
    fn gate(self, gate: Self) -> Self;

    /// Some of the channels, `first..first + count`.
    fn channels(self, first: usize, count: usize) -> Self {
        self.layer(&Channels { first, count })
    }

    /// Applies layers that can be fused.
    fn composite(self, block: &impl Composite) -> Self {
        block.compose(self)
    }

    /// The same for two readers.
    fn fork(self) -> [Self; 2] {
        [self.clone(), self]
    }

    /// a + b of one shape.
    fn add_shortcut(self, other: Self) -> Self {
        self + other
    }

    /// Runs a part of the network that may be computed twice. In a segment, others are a part of it.
    fn segment(self, segment: &impl Segment) -> Self {
        segment.pass(self)
    }

    /// max(0, a + b).
    fn add_relu(self, other: Self) -> Self {
        (self + other).relu()
    }
}

/// Feature vectors `[batch, features]`.
pub trait FeatureVector: Features<2> {}

impl<const D: usize> Features<D> for Tensor<D> {
    fn layer(self, layer: &impl Layer<D>) -> Self {
        layer.compute(self)
    }
}

impl FeatureMap for Tensor<4> {
    type Vector = Tensor<2>;

    fn dims(&self) -> [usize; 4] {
        Tensor::dims(self)
    }

    fn training_device(&self) -> Option<Device> {
        Some(self.device()).filter(|device| device.is_autodiff())
    }

    fn concat(maps: Vec<Self>) -> Self {
        extension::concat(maps)
    }

    fn flatten(self) -> Tensor<2> {
        Tensor::flatten(self, 1, 3)
    }

    fn gate(self, gate: Self) -> Self {
        extension::gate(self, gate)
    }

    fn composite(self, block: &impl Composite) -> Self {
        block.compute(self)
    }

    fn fork(self) -> [Self; 2] {
        extension::fork(self)
    }

    fn add_shortcut(self, other: Self) -> Self {
        extension::add(self, other)
    }

    fn add_relu(self, other: Self) -> Self {
        extension::add_relu(self, other)
    }
}

impl FeatureVector for Tensor<2> {}

impl<const D: usize> Layer<D> for Activation {
    fn operation(&self) -> Operation {
        Operation::Activation(*self)
    }

    fn compute(&self, input: Tensor<D>) -> Tensor<D> {
        extension::activation(input, *self)
    }
}

/// A weight as the graph knows it, before its layer has a name.
pub(crate) fn weight<const D: usize>(param: &Param<Tensor<D>>) -> Parameter {
    let shape = param.lazy_shape().to_vec();
    Parameter { name: String::new(), shape, trainable: true, id: param.id.val() }
}

/// A statistic as the graph knows it, before its layer has a name.
pub(crate) fn statistic<const D: usize>(state: &RunningState<Tensor<D>>) -> Parameter {
    /// Only visitors are given the id of a running state.
    struct Visit(Option<Parameter>);
    impl ModuleVisitor for Visit {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0 = Some(Parameter { trainable: false, ..weight(param) });
        }
    }
    let mut visit = Visit(None);
    state.visit(&mut visit);
    visit.0.expect("a running state visits its tensor")
}
