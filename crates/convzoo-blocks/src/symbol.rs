use std::cell::{Cell, RefCell};
use std::ops::{Add, Range};
use std::rc::Rc;

use burn::tensor::Device;
use convzoo_graph::{Builder, Graph, GraphError, Operation};

use crate::features::{FeatureMap, FeatureVector, Features, Layer, Segment};

/// A feature map (`D` = 4) or vector (`D` = 2) of which only the node in the graph is known: operations on it are
/// recorded, and nothing is computed.
///
/// ```
/// use burn::tensor::Device;
/// use convzoo_blocks::{ConvUnitConfig, Symbol};
///
/// let unit = ConvUnitConfig::square(3, 8, 3).with_batch_norm().init(&Device::default());
/// let graph = Symbol::record([3, 32, 32], |images| unit.forward(images))?;
/// let kinds: Vec<_> = graph.nodes().iter().map(|node| node.operation.kind()).collect();
/// assert_eq!(kinds, ["Input", "Conv2d", "BatchNorm2d", "ReLU"]);
/// # Ok::<(), convzoo_blocks::graph::GraphError>(())
/// ```
#[derive(Clone)]
pub struct Symbol<const D: usize> {
    graph: Rc<RefCell<Builder>>,
    segments: Rc<Segments>,
    node: usize,
}

/// The segments of a pass.
#[derive(Default)]
struct Segments {
    /// Whether one is under way.
    inside: Cell<bool>,
    done: RefCell<Vec<Range<usize>>>,
}

impl Symbol<4> {
    /// The graph of `pass` on images of `[channels, height, width]`.
    ///
    /// # Errors
    /// An operation does not take its inputs: the images are too small, say.
    pub fn record<const D: usize>(
        input: [usize; 3],
        pass: impl FnOnce(Symbol<4>) -> Symbol<D>,
    ) -> Result<Graph, GraphError> {
        Ok(Self::record_segments(input, pass)?.0)
    }

    /// The graph of `pass`, and the nodes of each [`Segment`] that is not a part of another, in the order of the pass.
    ///
    /// # Errors
    /// An operation does not take its inputs: the images are too small, say.
    pub fn record_segments<const D: usize>(
        input: [usize; 3],
        pass: impl FnOnce(Symbol<4>) -> Symbol<D>,
    ) -> Result<(Graph, Vec<Range<usize>>), GraphError> {
        let (graph, segments) = (Rc::new(RefCell::new(Builder::new(input))), Rc::default());
        let Symbol { graph, segments, node } = pass(Self { graph, segments, node: 0 });
        let graph = graph.replace(Builder::new(input));
        Ok((graph.finish(node)?, segments.done.take()))
    }
}

impl<const D: usize> Symbol<D> {
    fn add<const O: usize>(&self, operation: Operation, inputs: &[usize]) -> Symbol<O> {
        let node = self.graph.borrow_mut().add(operation, inputs);
        Symbol { graph: Rc::clone(&self.graph), segments: Rc::clone(&self.segments), node }
    }
}

impl<const D: usize> Add for Symbol<D> {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Symbol::add(&self, Operation::Add, &[self.node, other.node])
    }
}

impl<const D: usize> Features<D> for Symbol<D> {
    fn layer(self, layer: &impl Layer<D>) -> Self {
        let id = layer.id().map(|id| id.val());
        let node = self.graph.borrow_mut().add_layer(layer.operation(), &[self.node], id, layer.parameters());
        Self { node, ..self }
    }
}

impl FeatureMap for Symbol<4> {
    type Vector = Symbol<2>;

    /// Of one image; 1×1 feature maps without channels after an operation that does not take its inputs.
    fn dims(&self) -> [usize; 4] {
        match self.graph.borrow().shape(self.node) {
            Some(&[channels, height, width]) => [1, channels, height, width],
            _ => [1, 0, 1, 1],
        }
    }

    fn training_device(&self) -> Option<Device> {
        None
    }

    fn concat(maps: Vec<Self>) -> Self {
        let nodes: Vec<usize> = maps.iter().map(|map| map.node).collect();
        let first = maps.first().expect("at least one map is concatenated");
        Symbol::add(first, Operation::Concat, &nodes)
    }

    fn gate(self, gate: Self) -> Self {
        Symbol::add(&self, Operation::Gate, &[self.node, gate.node])
    }

    fn segment(self, segment: &impl Segment) -> Self {
        if self.segments.inside.get() {
            return segment.pass(self);
        }
        let (graph, segments) = (Rc::clone(&self.graph), Rc::clone(&self.segments));
        let begin = graph.borrow().len();
        segments.inside.set(true);
        let output = segment.pass(self);
        segments.inside.set(false);
        segments.done.borrow_mut().push(begin..graph.borrow().len());
        output
    }

    fn flatten(self) -> Symbol<2> {
        Symbol::add(&self, Operation::Flatten, &[self.node])
    }
}

impl FeatureVector for Symbol<2> {}
