//! Grad-CAM ([Selvaraju et al., 2016](https://arxiv.org/abs/1610.02391)) at the last feature map before the classifier:
//! from there to the logits there are only linear layers, poolings and activations, whose gradients are short.

use convzoo_graph::{Activation, Node, Operation, Window};

use crate::error::within;
use crate::{Network, WebError};

/// Which regions speak for a class: one number, 0 or more, for each pixel of the feature map of `node`.
#[derive(Debug)]
pub struct Map {
    /// The node whose channels are weighted.
    pub node: usize,
    /// Rows and columns.
    pub size: [usize; 2],
    /// Row by row.
    pub values: Vec<f32>,
}

/// The channels of the last feature map, each weighted by the mean gradient of the class's logit, summed and rectified.
///
/// # Errors
/// The network has no such class, no feature map of more than one pixel before its classifier, or a layer after it whose
/// gradient is not taken here.
pub fn grad_cam(network: &mut Network, input: &[f32], class: usize) -> Result<Map, WebError> {
    let head = head(network);
    let node = network.graph.nodes()[head[0]].inputs[0];
    let [channels, height, width] = <[usize; 3]>::try_from(network.graph.nodes()[node].shape.as_slice())
        .ok()
        .filter(|[_, height, width]| height * width > 1)
        .ok_or(WebError::Unsuited("the feature map before the classifier is a single pixel"))?;
    let maps = network.output(node, input)?;

    let mut values = vec![maps];
    for &node in &head {
        let last = values.last().map_or(&[][..], Vec::as_slice);
        values.push(forward(network, node, last)?);
    }
    let classes = values.last().map_or(0, Vec::len);
    let mut gradient = vec![0.0; classes];
    gradient[within("class", class, classes)?] = 1.0;
    for (&node, value) in head.iter().zip(&values).rev() {
        gradient = backward(network, node, value, &gradient)?;
    }

    let pixels = height * width;
    let mut map = vec![0.0; pixels];
    for channel in 0..channels {
        let plane = channel * pixels..(channel + 1) * pixels;
        let weight = gradient[plane.clone()].iter().sum::<f32>() / pixels as f32;
        map.iter_mut().zip(&values[0][plane]).for_each(|(sum, value)| *sum += weight * value);
    }
    map.iter_mut().for_each(|value| *value = value.max(0.0));
    Ok(Map { node, size: [height, width], values: map })
}

/// The nodes from the last feature map on, to the logits.
fn head(network: &Network) -> Vec<usize> {
    let nodes = network.graph.nodes();
    let mixes = |node: &Node| matches!(&node.operation, Operation::Linear { .. }) || is_pointwise(&node.operation);
    let belongs = |node: &Node| match &node.operation {
        Operation::Flatten
        | Operation::Dropout { .. }
        | Operation::AdaptiveAvgPool2d { .. }
        | Operation::GlobalMaxPool2d => true,
        // An activation of a feature map that is not the classifier's is part of that map.
        Operation::Activation(_) => node.inputs.first().is_some_and(|input| mixes(&nodes[*input])),
        _ => mixes(node),
    };
    let mut head = Vec::new();
    let mut at = nodes.len() - 1;
    while at > 0 && (head.is_empty() || belongs(&nodes[at])) {
        head.insert(0, at);
        at = nodes[at].inputs.first().copied().unwrap_or(0);
    }
    head
}

/// A convolution that mixes channels of one pixel.
fn is_pointwise(operation: &Operation) -> bool {
    matches!(operation, Operation::Conv2d { window, groups: 1, .. } if *window == Window::square(1))
}

/// Pixels of a shape's channels; a vector has one.
fn pixels(shape: &[usize]) -> usize {
    shape.iter().skip(1).product()
}

const UNSUITED: WebError = WebError::Unsuited("the gradient of a layer after the last feature map is not taken here");

fn forward(network: &Network, node: usize, values: &[f32]) -> Result<Vec<f32>, WebError> {
    let nodes = network.graph.nodes();
    let Node { operation, inputs, shape, .. } = &nodes[node];
    let input = nodes[inputs[0]].shape.as_slice();
    match operation {
        Operation::Flatten | Operation::Dropout { .. } => Ok(values.to_vec()),
        Operation::Activation(function) => {
            values.iter().map(|x| activated(*function, f64::from(*x)).map(|y| y as f32).ok_or(UNSUITED)).collect()
        }
        Operation::Linear { .. } | Operation::Conv2d { .. } => {
            let weight = network.parameter(node, 0).ok_or(WebError::Missing("weight"))?;
            let (pixels, channels) = (pixels(shape), input[0]);
            let bias = |output: usize| network.parameter(node, 1).map_or(0.0, |bias| bias[output]);
            let row = |output: usize| &weight[output * channels..][..channels];
            let sum = |output: usize, pixel: usize| -> f32 {
                let values = values.iter().skip(pixel).step_by(pixels);
                bias(output) + row(output).iter().zip(values).map(|(weight, value)| weight * value).sum::<f32>()
            };
            Ok((0..shape[0])
                .flat_map(|output| (0..pixels).map(move |pixel| (output, pixel)))
                .map(|(o, p)| sum(o, p))
                .collect())
        }
        Operation::AdaptiveAvgPool2d { .. } | Operation::GlobalMaxPool2d => {
            let mut output = vec![0.0; shape.iter().product()];
            pooled(operation, input, shape, values, |from, to, share| output[to] += share * values[from]);
            Ok(output)
        }
        _ => Err(UNSUITED),
    }
}

/// The gradient at a node's input `values` for the one at its output.
fn backward(network: &Network, node: usize, values: &[f32], gradient: &[f32]) -> Result<Vec<f32>, WebError> {
    let nodes = network.graph.nodes();
    let Node { operation, inputs, shape, .. } = &nodes[node];
    let input = nodes[inputs[0]].shape.as_slice();
    match operation {
        Operation::Flatten | Operation::Dropout { .. } => Ok(gradient.to_vec()),
        Operation::Activation(function) => {
            let slope =
                |x: f64| Some((activated(*function, x + STEP)? - activated(*function, x - STEP)?) / (2.0 * STEP));
            let pairs = values.iter().zip(gradient);
            pairs.map(|(x, g)| slope(f64::from(*x)).map(|slope| slope as f32 * g).ok_or(UNSUITED)).collect()
        }
        Operation::Linear { .. } | Operation::Conv2d { .. } => {
            let weight = network.parameter(node, 0).ok_or(WebError::Missing("weight"))?;
            let (pixels, channels) = (pixels(shape), input[0]);
            let mut back = vec![0.0; channels * pixels];
            for (row, gradient) in weight.chunks_exact(channels).zip(gradient.chunks_exact(pixels)) {
                for (weight, back) in row.iter().zip(back.chunks_exact_mut(pixels)) {
                    back.iter_mut().zip(gradient).for_each(|(sum, gradient)| *sum += weight * gradient);
                }
            }
            Ok(back)
        }
        Operation::AdaptiveAvgPool2d { .. } | Operation::GlobalMaxPool2d => {
            let mut back = vec![0.0; values.len()];
            pooled(operation, input, shape, values, |from, to, share| back[from] += share * gradient[to]);
            Ok(back)
        }
        _ => Err(UNSUITED),
    }
}

/// The step by which slopes are measured.
const STEP: f64 = 1e-5;

/// An activation by its definition; none of those that have no short one.
fn activated(function: Activation, x: f64) -> Option<f64> {
    let hard = (x + 3.0).clamp(0.0, 6.0) / 6.0;
    let sigmoid = 1.0 / (1.0 + (-x).exp());
    Some(match function {
        Activation::Identity => x,
        Activation::Relu => x.max(0.0),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::Tanh => x.tanh(),
        Activation::Sigmoid => sigmoid,
        Activation::Hardsigmoid => hard,
        Activation::Silu => x * sigmoid,
        Activation::Hardswish => x * hard,
        Activation::Gelu => return None,
    })
}

/// Calls `share(input, output, weight)` for every pair of places that a pooling connects.
fn pooled(
    operation: &Operation,
    input: &[usize],
    output: &[usize],
    values: &[f32],
    mut share: impl FnMut(usize, usize, f32),
) {
    let (&[channels, height, width], &[_, rows, columns]) = (input, output) else { return };
    let span = |at: usize, side: usize, parts: usize| at * side / parts..((at + 1) * side).div_ceil(parts);
    for channel in 0..channels {
        for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
            let (high, wide) = (span(row, height, rows), span(column, width, columns));
            let place = |y: usize, x: usize| (channel * height + y) * width + x;
            let window: Vec<usize> = high.flat_map(|y| wide.clone().map(move |x| place(y, x))).collect();
            let to = (channel * rows + row) * columns + column;
            match operation {
                Operation::GlobalMaxPool2d => {
                    let largest = window.iter().copied().max_by(|a, b| values[*a].total_cmp(&values[*b]));
                    largest.into_iter().for_each(|from| share(from, to, 1.0));
                }
                _ => window.iter().for_each(|from| share(*from, to, 1.0 / window.len() as f32)),
            }
        }
    }
}
