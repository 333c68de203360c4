use burn::tensor::Tensor;
use convzoo_blocks::{Observer, Rectification, observe};

use super::{Colours, Map, VisualizeError};
use crate::Classifier;

/// The gradient of a class's score (its logit) with respect to an image `[1, channels, height, width]`. With a rule it
/// is no derivative any more, but shows patterns rather than noise.
pub fn gradient<N: Classifier>(
    network: &N,
    image: Tensor<4>,
    class: usize,
    rule: Option<Rectification>,
) -> Result<Colours, VisualizeError> {
    let network = network.valid();
    let image = tracked(image);
    let logits = observe(Rule(rule), image.clone(), |image| network.forward(image));
    let gradient = backward(score(logits, class)?, &image);
    Colours::from_tensor(gradient.squeeze_dim(0))
}

/// A rule for the backward pass at each ReLU, where it is not the derivative.
struct Rule(Option<Rectification>);

impl Observer for Rule {
    fn rectification(&self) -> Option<Rectification> {
        self.0
    }
}

/// How much a pixel of an image `[1, channels, height, width]` can change a class's score: the largest magnitude of
/// the gradient over its channels ([Simonyan et al., 2013](https://arxiv.org/abs/1312.6034)).
pub fn saliency<N: Classifier>(network: &N, image: Tensor<4>, class: usize) -> Result<Map, VisualizeError> {
    Ok(gradient(network, image, class, None)?.magnitude())
}

/// The same numbers, whose gradient a backward pass keeps.
pub(super) fn tracked(tensor: Tensor<4>) -> Tensor<4> {
    tensor.without_autodiff().autodiff().require_grad()
}

/// The gradient of a number with respect to what it came from; zero, where it does not depend on that.
pub(super) fn backward(number: Tensor<1>, from: &Tensor<4>) -> Tensor<4> {
    let gradient = if number.is_tracked() { from.grad(&number.backward()) } else { None };
    gradient.unwrap_or_else(|| from.clone().without_autodiff().zeros_like())
}

/// The sum of a class's logits.
pub(super) fn score(logits: Tensor<2>, class: usize) -> Result<Tensor<1>, VisualizeError> {
    let [_, classes] = logits.dims();
    if class >= classes {
        return Err(VisualizeError::Class { class, classes });
    }
    Ok(logits.narrow(1, class, 1).sum())
}
