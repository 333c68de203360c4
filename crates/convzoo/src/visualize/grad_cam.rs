use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use convzoo_blocks::{Observer, Rectification, Step, observe};

use super::gradient::{backward, score, tracked};
use super::layers::find_layer;
use super::{Colours, Map, SeenLayer, VisualizeError, gradient, layers};
use crate::Classifier;

/// Which regions of an image `[1, channels, height, width]` contribute to a class's score: the channels of a layer,
/// weighted by the mean of their gradient, summed and rectified
/// ([Selvaraju et al., 2016](https://arxiv.org/abs/1610.02391)).
///
/// Without a `layer` it is the last feature map, activated, before the classifier; where a network has pooled that to a
/// single cell, the last layer with more. Of a layer that is named it is the output before its activation. The map has
/// the layer's size.
pub fn grad_cam<N: Classifier>(
    network: &N,
    image: Tensor<4>,
    class: usize,
    layer: Option<&str>,
) -> Result<Map, VisualizeError> {
    let [_, channels, height, width] = image.dims();
    let (network, image) = (network.valid(), image.without_autodiff());
    let layers = layers(&network, [channels, height, width])?;
    let (maps, logits) = match layer {
        Some(name) => through_layer(&network, image, find_layer(&layers, name)?),
        None => {
            let maps = tracked(network.forward_features(image.clone()));
            let has_places = |layer: &&SeenLayer| layer.output()[1..] != [1, 1];
            match layers.iter().rfind(has_places) {
                Some(layer) if maps.dims()[2..] == [1, 1] => through_layer(&network, image, layer),
                _ => (maps.clone(), network.forward_head(maps)),
            }
        }
    };
    let [_, _, height, width] = maps.dims();
    if height * width == 1 {
        return Err(VisualizeError::NoMap { layer: layer.unwrap_or("the last feature map").to_owned() });
    }
    let weights = backward(score(logits, class)?, &maps).mean_dims(&[2, 3]);
    let map = relu((maps.without_autodiff() * weights).sum_dim(1));
    Map::from_tensor(map.reshape([height, width]))
}

/// A layer's output, from which gradients are tracked on, and the logits.
fn through_layer<N: Classifier>(network: &N, image: Tensor<4>, layer: &SeenLayer) -> (Tensor<4>, Tensor<2>) {
    struct Track {
        node: usize,
        output: Option<Tensor<4>>,
    }

    impl Observer for Track {
        fn output(&mut self, step: Step, output: Tensor<4>) -> Tensor<4> {
            match step.node == self.node {
                true => self.output.insert(tracked(output)).clone(),
                false => output,
            }
        }
    }
    let mut track = Track { node: layer.node(), output: None };
    let logits = observe(&mut track, image, |image| network.forward(image));
    (track.output.expect("a pass runs the operations of its graph"), logits)
}

/// [`grad_cam`] to the pixel: the guided gradient ([Springenberg et al., 2014](https://arxiv.org/abs/1412.6806)) where
/// the map, interpolated to the image's size, is warm.
pub fn guided_grad_cam<N: Classifier>(
    network: &N,
    image: Tensor<4>,
    class: usize,
    layer: Option<&str>,
) -> Result<Colours, VisualizeError> {
    let map = grad_cam(network, image.clone(), class, layer)?;
    let guided = gradient(network, image, class, Some(Rectification::Guided))?;
    let map = map.resized(guided.height, guided.width);
    Ok(guided.weighted(&map))
}
