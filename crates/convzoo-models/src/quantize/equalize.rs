use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use burn::tensor::Tensor;
use convzoo_blocks::Activation;
use convzoo_blocks::graph::{Graph, Node, Operation};

use super::calibrate::{Compiled, Images};
use super::{InferenceError, QuantizeError};
use crate::Network;
use crate::weights::{tensors, with_tensors};

impl Network {
    /// Cross-layer equalization ([Nagel et al., 2019](https://arxiv.org/abs/1906.04721)), before the network is
    /// [quantized](Self::quantize): where all that a layer's outputs reach are depthwise convolutions, through nothing but
    /// ReLUs, pooling and rearrangements, each output is divided by its range on the images, batches
    /// `[batch, channels, height, width]` of one size, and the weights that it is multiplied by are multiplied by that. The
    /// channels of the value between, which share a scale in bytes, then have one range, and the logits stay, up to rounding.
    ///
    /// A depthwise convolution's weights take any factor into the scale of their output, so that nothing is lost. The
    /// paper divides by the root of the ratio of both ranges, and between all layers; with a scale for each output, what other
    /// layers' values gain so, their weights lose.
    ///
    /// Returns the network and the layers whose outputs were divided, of which there may be none.
    ///
    /// # Errors
    /// There are no such images, or the kernels do not take the network.
    pub fn equalize(&self, images: &[Tensor<4>]) -> Result<(Self, Vec<String>), QuantizeError> {
        self.check_images(images)?;
        let images = Images::new(images)?;
        let compiled = Compiled::new(self, images.shape)?;
        let links = links(&compiled.graph);
        let ranges = channel_ranges(&compiled, &images)?;
        // An output that is always 0 stays as it is.
        let factor = |range: &f32| if range.is_normal() { f64::from(*range) } else { 1.0 };
        let factors: BTreeMap<usize, Vec<f64>> =
            links.keys().map(|layer| (*layer, ranges[*layer].iter().map(factor).collect())).collect();
        let names = links.keys().map(|layer| compiled.graph.nodes()[*layer].name.clone()).collect();
        Ok((divided(self, &compiled.graph, &links, &factors)?, names))
    }
}

/// The network with the outputs of some layers divided by factors that the weights after them are multiplied by.
fn divided(
    network: &Network,
    graph: &Graph,
    links: &BTreeMap<usize, Vec<Link>>,
    factors: &BTreeMap<usize, Vec<f64>>,
) -> Result<Network, QuantizeError> {
    let mut tensors = tensors(network)?;
    let places: HashMap<String, usize> =
        tensors.iter().enumerate().map(|(place, tensor)| (tensor.name.clone(), place)).collect();
    let mut multiply = |name: &str, range: Range<usize>, factor: f64| {
        if let Some(values) = places.get(name).and_then(|place| tensors[*place].values.get_mut(range)) {
            values.iter_mut().for_each(|value| *value = (f64::from(*value) * factor) as f32);
        }
    };
    for (layer, factors) in factors {
        let node = &graph.nodes()[*layer];
        // Weight and bias; a norm's statistics stay.
        for parameter in node.parameters.iter().take(2) {
            let each = parameter.elements() / factors.len().max(1);
            for (output, factor) in factors.iter().enumerate() {
                multiply(&parameter.name, output * each..(output + 1) * each, 1.0 / factor);
            }
        }
        for Link { output, user, input } in &links[layer] {
            let weight = &graph.nodes()[*user].parameters[0];
            // Each input has its own outputs.
            let each = weight.elements() / graph.nodes()[graph.nodes()[*user].inputs[0]].shape[0].max(1);
            multiply(&weight.name, input * each..(input + 1) * each, factors[*output]);
        }
    }
    Ok(with_tensors(network.clone(), &tensors)?)
}

/// An input of a depthwise convolution that is an output of another layer.
struct Link {
    /// The output.
    output: usize,
    /// The node that takes it.
    user: usize,
    /// As which of its inputs.
    input: usize,
}

/// Layers whose outputs reach depthwise convolutions through positively homogeneous operations on each channel and nothing
/// else, by their nodes, with where each output goes.
fn links(graph: &Graph) -> BTreeMap<usize, Vec<Link>> {
    let weight = |node: &Node| node.parameters.first().map(|weight| weight.id);
    let mut holders: HashMap<u64, usize> = HashMap::new();
    graph.nodes().iter().filter_map(weight).for_each(|id| *holders.entry(id).or_default() += 1);
    let is_shared = |node: &Node| weight(node).is_none_or(|id| holders[&id] > 1);

    let mut links: BTreeMap<usize, Vec<Link>> = BTreeMap::new();
    // Layers whose outputs are needed as they are.
    let mut fixed = BTreeSet::new();
    // For each channel, or feature, of each node the layer and its output that it stems from.
    let mut origins: Vec<Vec<Option<(usize, usize)>>> = Vec::with_capacity(graph.nodes().len());
    for (number, node) in graph.nodes().iter().enumerate() {
        use Operation::*;
        let inputs: Vec<&[_]> = node.inputs.iter().map(|input| origins[*input].as_slice()).collect();
        let first = inputs.first().copied().unwrap_or_default();
        let mut fix = || fixed.extend(inputs.iter().flat_map(|input| input.iter().flatten()).map(|(layer, _)| *layer));
        let own = || (0..node.shape[0]).map(|output| Some((number, output))).collect();
        let made: Vec<_> = match &node.operation {
            Conv2d { groups, .. } if !is_shared(node) && *groups == first.len() => {
                for (input, (layer, output)) in first.iter().enumerate().filter_map(|(i, origin)| Some((i, (*origin)?)))
                {
                    links.entry(layer).or_default().push(Link { output, user: number, input });
                }
                own()
            }
            Conv2d { .. } | Linear { .. } | BatchNorm2d { .. } if !is_shared(node) => {
                fix();
                own()
            }
            Activation(self::Activation::Identity | self::Activation::Relu)
            | MaxPool2d { .. }
            | AvgPool2d { .. }
            | AdaptiveAvgPool2d { .. }
            | GlobalMaxPool2d
            | Dropout { .. }
            | StochasticDepth { .. } => first.to_vec(),
            Concat => inputs.concat(),
            Channels { first: begin, count } => first[*begin..begin + count].to_vec(),
            ChannelShuffle { groups } => {
                let group = first.len() / groups;
                (0..first.len()).map(|channel| first[channel % groups * group + channel / groups]).collect()
            }
            Flatten => {
                let pixels = node.shape[0] / first.len().max(1);
                first.iter().flat_map(|origin| std::iter::repeat_n(*origin, pixels)).collect()
            }
            _ => {
                fix();
                vec![None; node.shape[0]]
            }
        };
        origins.push(made);
    }
    fixed.extend(origins.iter().next_back().into_iter().flatten().flatten().map(|(layer, _)| *layer));
    links.retain(|layer, _| !fixed.contains(layer));
    links
}

/// The largest magnitude of each channel of each node's value.
fn channel_ranges(compiled: &Compiled, images: &Images) -> Result<Vec<Vec<f32>>, QuantizeError> {
    let mut ranges: Vec<Vec<f32>> = vec![Vec::new(); compiled.values.len()];
    for numbers in images.iter() {
        let see = |value: usize, [_, channels, height, width]: [usize; 4], numbers: &[f32]| {
            let ranges = &mut ranges[value];
            ranges.resize(channels, 0.0);
            for (range, plane) in ranges.iter_mut().zip(numbers.chunks_exact((height * width).max(1))) {
                *range = plane.iter().fold(*range, |range, x| range.max(x.abs()));
            }
        };
        compiled.engine.observe(compiled.shape, numbers, see).map_err(InferenceError::from)?;
    }
    let place = |node: usize| compiled.values.iter().position(|value| value.layers.contains(&(node as u64)));
    let of_node = |node| place(node).map(|place| ranges[place].clone()).unwrap_or_default();
    Ok((0..compiled.graph.nodes().len()).map(of_node).collect())
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;
    use crate::quantize::QuantizeOptions;
    use crate::{Classifier, Options, create};

    /// A network as it is drawn but for its norms' variances, and images. Without them the maps become small from layer
    /// to layer, and the logits are the classifier's bias, whatever is done to the rest.
    fn random(name: &str, side: usize) -> (Network, Tensor<4>) {
        let device = Device::flex();
        device.seed(3);
        let network = create(name, &Options::default().with_classes(10), &device).unwrap();
        let mut tensors = tensors(&network).unwrap();
        let variances = tensors.iter_mut().filter(|tensor| tensor.name.ends_with("running_var"));
        variances.for_each(|variance| variance.values.fill(0.2));
        let network = with_tensors(network, &tensors).unwrap();
        (network, Tensor::random([2, 3, side, side], Distribution::Normal(0.0, 1.0), &device))
    }

    /// Norms, ReLUs and depthwise convolutions; the same among shuffles; the same by the activation of some blocks alone.
    const NETWORKS: [&str; 3] = ["mnasnet0_5", "shufflenet_v2_x0_5", "mobilenet_v3_large"];

    #[test]
    fn the_logits_stay_and_ranges_agree() {
        for name in NETWORKS {
            let (network, images) = random(name, 64);
            let batches = std::slice::from_ref(&images);
            let (equalized, layers) = network.equalize(batches).unwrap();
            assert!(!layers.is_empty(), "{name}: nothing was equalized");
            let before = network.forward(images.clone());
            let square = |tensor: Tensor<2>| tensor.square().sum().into_scalar::<f32>();
            let error = (square(equalized.forward(images.clone()) - before.clone()) / square(before)).sqrt();
            assert!(error < 1e-5, "{name}: logits differ by {error:.1e} relative");

            let images = Images::new(batches).unwrap();
            let compiled = Compiled::new(&equalized, images.shape).unwrap();
            let ranges = channel_ranges(&compiled, &images).unwrap();
            for layer in links(&compiled.graph).into_keys() {
                let living = ranges[layer].iter().filter(|range| **range > 0.0);
                let layer = &compiled.graph.nodes()[layer].name;
                living.for_each(|range| assert!((range - 1.0).abs() < 0.01, "{name}: {layer} has a range of {range}"));
            }
        }
    }

    #[test]
    fn what_uneven_channels_lose_is_won_back() {
        for name in NETWORKS {
            let (network, images) = random(name, 64);
            let batches = [images];
            let images = Images::new(&batches).unwrap();
            let graph = Compiled::new(&network, images.shape).unwrap().graph;
            let links = links(&graph);
            // Outputs from an eighth to eight times of what they were, as training may leave them.
            let factor = |output: usize| 2f64.powi((output * 5 % 7) as i32 - 3);
            let uneven = |layer: &usize| (*layer, (0..graph.nodes()[*layer].shape[0]).map(factor).collect());
            let uneven = divided(&network, &graph, &links, &links.keys().map(uneven).collect()).unwrap();
            let decibels = |network: &Network| {
                let quantized = network.quantize(&batches, &QuantizeOptions::default()).unwrap();
                network.quantize_report(&quantized, &batches).unwrap().logits
            };
            let equalized = |network: &Network| decibels(&network.equalize(&batches).unwrap().0);
            let (drawn, drawn_equalized) = (decibels(&network), equalized(&network));
            let (lost, won) = (decibels(&uneven), equalized(&uneven));
            println!("{name}: {drawn:.1} dB, equalized {drawn_equalized:.1}; uneven {lost:.1} dB, equalized {won:.1}");
            assert!(lost < drawn - 1.0, "{name}: {lost:.1} dB uneven, {drawn:.1} before");
            assert!((won - drawn_equalized).abs() < 1.0, "{name}: {won:.1} dB rather than {drawn_equalized:.1}");
        }
    }

    #[test]
    fn only_what_nothing_else_needs_is_divided() {
        let layers = |name: &str, side| {
            let (network, images) = random(name, side);
            network.equalize(&[images]).unwrap().1
        };
        for (name, side) in [("mobilenet_v2", 64), ("resnet20_cifar", 32), ("squeezenet1_1", 64)] {
            let layers = layers(name, side);
            assert!(
                layers.is_empty(),
                "{name}: ReLU6 is not homogeneous, and other convolutions are dense: {layers:?}"
            );
        }
        let shuffle = layers("shufflenet_v2_x0_5", 64);
        let first = |layer: &String| layer.ends_with(".branch2.1");
        assert!(shuffle.iter().all(first), "what a shuffle gives goes to a dense convolution, too: {shuffle:?}");
    }
}
