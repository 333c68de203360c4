//! Gradient checkpointing ([Chen et al., 2016](https://arxiv.org/abs/1604.06174)): a forward pass that keeps, of each
//! [`Segment`], only the input; the backward pass computes the segment once more before it differentiates it.

mod draws;
mod recompute;
mod tracked;

use std::ops::Add;

use burn::tensor::{Device, Tensor};

pub use self::draws::drawn;
pub(crate) use self::draws::is_second_pass;
use crate::features::{Composite, FeatureMap, Features, Layer, Segment};
use crate::strategy::like;

/// A feature map, `[batch, channels, height, width]`, on which a training pass keeps of each [`Segment`] only the input.
///
/// Outputs, gradients and running statistics are those of a pass on the tensor itself: the second pass through a segment
/// gets the random numbers of the first, and leaves running statistics alone. It takes the time of one more forward pass,
/// and the memory of the segments' inputs and of all that one segment keeps. Outside of training nothing changes. The
/// device's backend must be among this crate's features.
///
/// ```
/// use burn::optim::GradientsParams;
/// use burn::tensor::{Device, Tensor};
/// use convzoo_blocks::{Checkpointed, NinBlockConfig};
///
/// let device = Device::default().autodiff();
/// let block = NinBlockConfig::new(3, [8, 8, 4], 3).init(&device);
/// let images = Tensor::zeros([1, 3, 16, 16], &device);
/// let output = block.forward(Checkpointed::new(images)).into_tensor();
/// let gradients = GradientsParams::from_grads(output.sum().backward(), &block);
/// assert_eq!(gradients.len(), 6); // three weights and three biases
/// ```
#[derive(Clone)]
pub struct Checkpointed(Tensor<4>);

impl Checkpointed {
    /// The images of a pass, or the features where a later part of a network begins.
    pub fn new(input: Tensor<4>) -> Self {
        Self(input)
    }

    /// The tensor itself.
    pub fn into_tensor(self) -> Tensor<4> {
        self.0
    }
}

impl Add for Checkpointed {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl Features<4> for Checkpointed {
    fn layer(self, layer: &impl Layer<4>) -> Self {
        Self(layer.compute(self.0))
    }
}

impl FeatureMap for Checkpointed {
    type Vector = Tensor<2>;

    fn dims(&self) -> [usize; 4] {
        self.0.dims()
    }

    fn training_device(&self) -> Option<Device> {
        self.0.training_device()
    }

    fn concat(maps: Vec<Self>) -> Self {
        Self(FeatureMap::concat(maps.into_iter().map(Self::into_tensor).collect()))
    }

    fn gate(self, gate: Self) -> Self {
        Self(self.0.gate(gate.0))
    }

    fn flatten(self) -> Tensor<2> {
        FeatureMap::flatten(self.0)
    }

    fn composite(self, block: &impl Composite) -> Self {
        Self(block.compute(self.0))
    }

    fn fork(self) -> [Self; 2] {
        self.0.fork().map(Self)
    }

    fn add_shortcut(self, other: Self) -> Self {
        Self(self.0.add_shortcut(other.0))
    }

    fn add_relu(self, other: Self) -> Self {
        Self(self.0.add_relu(other.0))
    }

    fn segment(self, segment: &impl Segment) -> Self {
        Self(run(segment, self.0))
    }
}

/// The output of a segment, of which only the input is kept.
fn run<S: Segment>(segment: &S, input: Tensor<4>) -> Tensor<4> {
    if !input.device().is_autodiff() {
        return segment.pass(input);
    }
    let (constant, trained) = tracked::detach(segment.clone());
    let input_learns = input.is_tracked();
    // The backward pass finds its way to the segment by one of the tensors that learn: the others' gradients are
    // registered along with its own.
    let Some(reached_by) = input_learns.then(|| input.clone().into_dispatch()).or_else(|| trained.first().cloned())
    else {
        return segment.pass(input);
    };
    let kept = like(input.clone().without_autodiff(), &input);
    let (output, draws) = draws::first_pass(|| constant.pass(kept.clone()));
    let again = move |gradient| {
        let (segment, leaves) = tracked::track(constant);
        let input = if input_learns { kept.require_grad() } else { kept };
        let output = draws::second_pass(draws, || segment.pass(input.clone()));
        drop(segment);
        if !output.is_tracked() {
            // It depends on nothing that learns.
            return Vec::new();
        }
        let mut gradients = recompute::backward(output, gradient);
        let of_input = input.grad_remove(&mut gradients).map(Tensor::into_dispatch);
        std::iter::once(of_input).chain(leaves.into_iter().map(|leaf| leaf(&mut gradients))).collect()
    };
    recompute::record(reached_by, output, input_learns, trained, again)
}
