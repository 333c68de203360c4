//! Forward passes with hooks on each layer's input and output: for feature maps, gradients at a layer, times.

use std::cell::{Cell, RefCell};
use std::ops::Add;

use burn::module::ParamId;
use burn::tensor::{Device, Tensor};
use convzoo_graph::{Activation, Operation};
use convzoo_kernels::extension;

use crate::features::{FeatureMap, FeatureVector, Features, Layer};
use crate::rectify;

/// Watches a forward pass, operation by operation, and may replace its tensors. Vectors `[batch, features]` come as
/// `[batch, features, 1, 1]`.
pub trait Observer {
    /// Takes the input of a layer and returns the input that the layer uses.
    fn input(&mut self, _: Step, input: Tensor<4>) -> Tensor<4> {
        input
    }

    /// Takes the output of an operation and returns the output that the network uses.
    fn output(&mut self, _: Step, output: Tensor<4>) -> Tensor<4> {
        output
    }

    /// Whether a training pass leaves out paths at random where that changes which operations there are, as a fractal's
    /// drop path does; otherwise all are live.
    fn drops_paths(&self) -> bool {
        true
    }

    /// The rule of the backward pass at each ReLU, where that is not its derivative.
    fn rectification(&self) -> Option<Rectification> {
        None
    }
}

impl<O: Observer> Observer for &mut O {
    fn input(&mut self, step: Step, input: Tensor<4>) -> Tensor<4> {
        (**self).input(step, input)
    }
    fn output(&mut self, step: Step, output: Tensor<4>) -> Tensor<4> {
        (**self).output(step, output)
    }
    fn drops_paths(&self) -> bool {
        (**self).drops_paths()
    }
    fn rectification(&self) -> Option<Rectification> {
        (**self).rectification()
    }
}

/// An operation of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its node in the graph of the pass, as [`Symbol::record`](crate::Symbol::record) numbers them.
    pub node: usize,
    /// The layer, where it has an id in the module tree.
    pub layer: Option<ParamId>,
    /// PyTorch's name for the kind of layer.
    pub kind: &'static str,
}

/// Which part of a gradient passes a ReLU in the backward pass. Other activations and operations keep their true
/// gradient. The device's backend must be among this crate's features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rectification {
    /// The positive part of the gradient, whatever the input: the projections of
    /// [Zeiler and Fergus, 2013](https://arxiv.org/abs/1311.2901), which rectify in the backward pass as in the
    /// forward.
    Deconvnet,
    /// The positive part of the gradient, where the input was positive, too: guided backpropagation
    /// ([Springenberg et al., 2014](https://arxiv.org/abs/1412.6806)).
    Guided,
}

/// A tensor whose forward pass is observed.
#[derive(Clone)]
pub struct Observed<'a, const D: usize> {
    tensor: Tensor<D>,
    pass: &'a Pass<'a>,
}

/// State shared by the tensors of one pass.
struct Pass<'a> {
    nodes: Cell<usize>,
    observer: &'a RefCell<dyn Observer + 'a>,
}

/// Runs `pass` on `images`, `[batch, channels, height, width]`, under an observer.
pub fn observe<const D: usize>(
    observer: impl Observer,
    images: Tensor<4>,
    pass: impl for<'a> FnOnce(Observed<'a, 4>) -> Observed<'a, D>,
) -> Tensor<D> {
    let observer = RefCell::new(observer);
    let shared = Pass { nodes: Cell::new(0), observer: &observer };
    pass(Observed { tensor: images, pass: &shared }).tensor
}

impl<'a, const D: usize> Observed<'a, D> {
    /// The tensor itself.
    pub fn tensor(&self) -> &Tensor<D> {
        &self.tensor
    }

    fn step(&self, layer: Option<ParamId>, kind: &'static str) -> Step {
        let node = self.pass.nodes.get() + 1;
        self.pass.nodes.set(node);
        Step { node, layer, kind }
    }

    /// An operation's output, as the observer returns it.
    fn show<const O: usize>(&self, step: Step, output: Tensor<O>) -> Observed<'a, O> {
        let mut observer = self.pass.observer.borrow_mut();
        let tensor = as_map(output, |map| observer.output(step, map));
        Observed { tensor, pass: self.pass }
    }
}

/// Has `change` work on the tensor as on a feature map.
fn as_map<const D: usize>(tensor: Tensor<D>, change: impl FnOnce(Tensor<4>) -> Tensor<4>) -> Tensor<D> {
    let dims: [usize; D] = tensor.dims();
    let mut map_dims = [1; 4];
    map_dims[..D].copy_from_slice(&dims);
    change(tensor.reshape(map_dims)).reshape(dims)
}

impl<const D: usize> Add for Observed<'_, D> {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let step = self.step(None, Operation::Add.kind());
        let sum = self.tensor.clone() + other.tensor;
        self.show(step, sum)
    }
}

impl<const D: usize> Features<D> for Observed<'_, D> {
    fn layer(self, layer: &impl Layer<D>) -> Self {
        let operation = layer.operation();
        let step = self.step(layer.id(), operation.kind());
        let rule = self.pass.observer.borrow().rectification();
        let input = as_map(self.tensor.clone(), |map| self.pass.observer.borrow_mut().input(step, map));
        let output = match (operation, rule) {
            (Operation::Activation(Activation::Relu), Some(rule)) => rectify::relu(input, rule),
            _ => layer.compute(input),
        };
        self.show(step, output)
    }
}

impl<'a> FeatureMap for Observed<'a, 4> {
    type Vector = Observed<'a, 2>;

    fn dims(&self) -> [usize; 4] {
        self.tensor.dims()
    }

    fn training_device(&self) -> Option<Device> {
        self.tensor.training_device().filter(|_| self.pass.observer.borrow().drops_paths())
    }

    fn concat(maps: Vec<Self>) -> Self {
        let first = maps.first().expect("at least one map is concatenated").clone();
        let step = first.step(None, Operation::Concat.kind());
        first.show(step, Tensor::cat(maps.into_iter().map(|map| map.tensor).collect(), 1))
    }

    fn gate(self, gate: Self) -> Self {
        let step = self.step(None, Operation::Gate.kind());
        let gated = extension::gate(self.tensor.clone(), gate.tensor);
        self.show(step, gated)
    }

    fn flatten(self) -> Observed<'a, 2> {
        let step = self.step(None, Operation::Flatten.kind());
        self.show(step, self.tensor.clone().flatten(1, 3))
    }
}

impl FeatureVector for Observed<'_, 2> {}
