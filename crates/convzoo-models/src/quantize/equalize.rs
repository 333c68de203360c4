use std::collections::{BTreeMap, BTreeSet, HashMap};

use burn::tensor::Tensor;
use convzoo_blocks::Activation;
use convzoo_blocks::graph::{Graph, Node, Operation};

use super::calibrate::{Compiled, Images};
use super::{InferenceError, QuantizeError};
use crate::Network;
use crate::weights::{tensors, with_tensors};

/// Rounds of the fixed-point iteration, and the change of a factor at which it ends.
const ROUNDS: usize = 50;
const SETTLED: f64 = 1e-4;

impl Network {
    /// Cross-layer equalization ([Nagel et al., 2019](https://arxiv.org/abs/1906.04721)), before the network is
    /// [quantized](Self::quantize): where a layer's outputs reach other layers through nothing but ReLUs, pooling and
    /// rearrangements, each is divided by a factor that the inputs of those layers are multiplied by. The logits stay, up to
    /// rounding.
    ///
    /// The channels of a value share a scale in bytes, a layer's outputs do not. So the range of a channel on the images,
    /// batches `[batch, channels, height, width]` of one size, is made equal to the range of the weights that it is multiplied by;
    /// before depthwise convolutions, whose weights take any factor into their own scale, all channels get the same range.
    ///
    /// Returns the network and the layers whose outputs were scaled, of which there may be none.
    ///
    /// # Errors
    /// There are no such images, or the kernels do not take the network.
    pub fn equalize(&self, images: &[Tensor<4>]) -> Result<(Self, Vec<String>), QuantizeError> {
        let images = Images::new(images)?;
        let compiled = Compiled::new(self, images.shape)?;
        let mut tensors = tensors(self)?;
        let places: HashMap<String, usize> =
            tensors.iter().enumerate().map(|(place, tensor)| (tensor.name.clone(), place)).collect();
        let ranges = channel_ranges(&compiled, &images)?;
        let weight =
            |node: &Node| -> Option<&[f32]> { Some(&tensors[*places.get(&node.parameters.first()?.name)?].values) };
        let links = links(&compiled.graph);
        let factors = factors(&compiled.graph, &links, &ranges, &weight);

        for (layer, factors) in &factors {
            let node = &compiled.graph.nodes()[*layer];
            // Weight and bias; a norm's statistics stay.
            for parameter in node.parameters.iter().take(2) {
                let values = &mut tensors[places[&parameter.name]].values;
                let each = values.len() / factors.len();
                for (values, factor) in values.chunks_exact_mut(each).zip(factors) {
                    values.iter_mut().for_each(|value| *value = (f64::from(*value) / factor) as f32);
                }
            }
            for link in &links[layer] {
                let user = &compiled.graph.nodes()[link.user];
                let values = &mut tensors[places[&user.parameters[0].name]].values;
                for place in Filters::of(user, values.len()).column(link.input) {
                    values[place] = (f64::from(values[place]) * factors[link.output]) as f32;
                }
            }
        }
        let names = factors.keys().map(|layer| compiled.graph.nodes()[*layer].name.clone()).collect();
        Ok((with_tensors(self.clone(), &tensors)?, names))
    }
}

/// An input of a convolution or a linear layer that is an output of another layer.
struct Link {
    /// The output.
    output: usize,
    /// The node that takes it.
    user: usize,
    /// As which of its inputs.
    input: usize,
}

/// Layers whose outputs reach convolutions and linear layers through positively homogeneous operations on each channel and
/// nothing else, by their nodes, with where each output goes.
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
            Conv2d { .. } | Linear { .. } if !is_shared(node) => {
                for (input, (layer, output)) in first.iter().enumerate().filter_map(|(i, origin)| Some((i, (*origin)?)))
                {
                    links.entry(layer).or_default().push(Link { output, user: number, input });
                }
                own()
            }
            BatchNorm2d { .. } if !is_shared(node) => {
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

/// How the weights of a convolution or a linear layer lie: `[outputs, inputs / groups, taps]`.
struct Filters {
    outputs: usize,
    groups: usize,
    /// Inputs of an output.
    inputs: usize,
    taps: usize,
}

impl Filters {
    fn of(node: &Node, weights: usize) -> Self {
        let (outputs, groups, taps) = match &node.operation {
            Operation::Conv2d { outputs, window, groups, .. } => (*outputs, *groups, window.kernel.iter().product()),
            _ => (node.shape[0], 1, 1),
        };
        Self { outputs, groups, inputs: weights / (outputs * taps).max(1), taps }
    }

    /// Whether each output has one input, so that its own scale takes any factor.
    fn is_depthwise(&self) -> bool {
        self.inputs == 1
    }

    /// The weights that an input is multiplied by.
    fn column(&self, input: usize) -> impl Iterator<Item = usize> {
        let (group_outputs, taps, inputs) = (self.outputs / self.groups, self.taps, self.inputs);
        let first = input / inputs * group_outputs;
        (first..first + group_outputs).flat_map(move |output| {
            (output * inputs + input % inputs) * taps..(output * inputs + input % inputs + 1) * taps
        })
    }

    /// The largest magnitude of the weights that each input is multiplied by, those of each output divided by a factor.
    fn ranges(&self, weight: &[f32], factors: Option<&Vec<f64>>) -> Vec<f64> {
        let mut ranges = vec![0.0f64; self.groups * self.inputs];
        for (output, filter) in weight.chunks_exact(self.inputs * self.taps).enumerate() {
            let factor = factors.map_or(1.0, |factors| factors[output]);
            let first = output / (self.outputs / self.groups) * self.inputs;
            for (range, taps) in ranges[first..].iter_mut().zip(filter.chunks_exact(self.taps)) {
                let largest = taps.iter().fold(0.0f32, |largest, weight| largest.max(weight.abs()));
                *range = range.max(f64::from(largest) / factor);
            }
        }
        ranges
    }
}

/// The largest magnitude of each channel of each value.
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

/// What each output of the layers is divided by: √(its range / the range of the weights that it is multiplied by), or its
/// range where these are depthwise convolutions'. Of an output that is always 0 or is not used, 1.
fn factors<'a>(
    graph: &Graph,
    links: &BTreeMap<usize, Vec<Link>>,
    ranges: &[Vec<f32>],
    weight: &impl Fn(&Node) -> Option<&'a [f32]>,
) -> BTreeMap<usize, Vec<f64>> {
    let taken = |layer: &usize| !ranges[*layer].is_empty() && ranges[*layer].len() == graph.nodes()[*layer].shape[0];
    let mut factors: BTreeMap<usize, Vec<f64>> =
        links.keys().filter(|layer| taken(layer)).map(|layer| (*layer, vec![1.0; ranges[*layer].len()])).collect();
    let layers: Vec<usize> = factors.keys().copied().collect();
    // A layer's factors change the weights that those of the layers before it depend on.
    for _ in 0..ROUNDS {
        let mut change = 0.0f64;
        for layer in &layers {
            let mut columns: HashMap<usize, Vec<f64>> = HashMap::new();
            let mut weights: Vec<Option<f64>> = vec![None; ranges[*layer].len()];
            for Link { output, user, input } in &links[layer] {
                let node = &graph.nodes()[*user];
                let Some(values) = weight(node) else { continue };
                let filters = Filters::of(node, values.len());
                if filters.is_depthwise() {
                    continue;
                }
                let columns = columns.entry(*user).or_insert_with(|| filters.ranges(values, factors.get(user)));
                let range = weights[*output].get_or_insert(0.0);
                *range = range.max(columns[*input]);
            }
            let used: BTreeSet<usize> = links[layer].iter().map(|link| link.output).collect();
            let found = ranges[*layer].iter().zip(&weights).enumerate().map(|(output, (range, weights))| {
                let range = f64::from(*range);
                let factor = match weights {
                    Some(weights) => (range / weights).sqrt(),
                    None => range,
                };
                if used.contains(&output) && (1e-6..1e6).contains(&factor) { factor } else { 1.0 }
            });
            let found: Vec<f64> = found.collect();
            let old = factors.insert(*layer, found.clone()).unwrap_or_default();
            change = found.iter().zip(&old).fold(change, |change, (new, old)| change.max((new / old).ln().abs()));
        }
        if change < SETTLED {
            break;
        }
    }
    factors
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;
    use crate::{Classifier, Options, create};

    /// Networks whose layers are joined through norms, ReLUs, depthwise and grouped convolutions, shuffles, concatenations,
    /// pooling, or before them.
    const NETWORKS: [(&str, usize); 7] = [
        ("mnasnet0_5", 64),
        ("shufflenet_v2_x0_5", 64),
        ("squeezenet1_1", 64),
        ("vgg11_bn", 32),
        ("resnext50_32x4d", 32),
        ("resnet20_cifar", 32),
        ("densenet40_k12", 32),
    ];

    fn random(name: &str, side: usize) -> (Network, Tensor<4>) {
        let device = Device::flex();
        device.seed(3);
        let network = create(name, &Options::default().with_classes(10), &device).unwrap();
        (network, Tensor::random([2, 3, side, side], Distribution::Normal(0.0, 1.0), &device))
    }

    #[test]
    fn the_logits_stay_and_ranges_agree() {
        for (name, side) in NETWORKS {
            let (network, images) = random(name, side);
            let batches = std::slice::from_ref(&images);
            let (equalized, layers) = network.equalize(batches).unwrap();
            assert!(!layers.is_empty(), "{name}: nothing was equalized");
            let before = network.forward(images.clone());
            let square = |tensor: Tensor<2>| tensor.square().sum().into_scalar::<f32>();
            let error = (square(equalized.forward(images.clone()) - before.clone()) / square(before)).sqrt();
            assert!(error < 1e-5, "{name}: logits differ by {error:.1e} relative");

            // What would be done to it once more is nothing.
            let images = Images::new(batches).unwrap();
            let compiled = Compiled::new(&equalized, images.shape).unwrap();
            let tensors = tensors(&equalized).unwrap();
            let weight = |node: &Node| {
                let weight = node.parameters.first()?;
                Some(tensors.iter().find(|tensor| tensor.name == weight.name)?.values.as_slice())
            };
            let ranges = channel_ranges(&compiled, &images).unwrap();
            let factors = factors(&compiled.graph, &links(&compiled.graph), &ranges, &weight);
            assert_eq!(factors.len(), layers.len());
            for (layer, factors) in factors {
                let (layer, ranges) = (&compiled.graph.nodes()[layer].name, &ranges[layer]);
                let largest = ranges.iter().copied().fold(0.0, f32::max);
                // What remains of a channel by cancellation is as its sum is rounded.
                let counted = factors.into_iter().enumerate().filter(|(output, _)| ranges[*output] > 1e-3 * largest);
                for (output, factor) in counted {
                    let differ = format!("{name}: the ranges of output {output} of {layer} differ by {factor}");
                    assert!((factor - 1.0).abs() < 0.01, "{differ}");
                }
            }
        }
    }

    #[test]
    fn only_what_nothing_else_needs_is_scaled() {
        let layers = |name: &str, side| {
            let (network, images) = random(name, side);
            network.equalize(&[images]).unwrap().1
        };
        let blocks: Vec<String> =
            (1..=3).flat_map(|stage| (0..3).map(move |block| format!("layer{stage}.{block}.bn1"))).collect();
        assert_eq!(layers("resnet20_cifar", 32), blocks, "the second norm of a block is added to its input");
        let mobilenet = layers("mobilenet_v2", 64);
        let is_linear = |layer: &String| layer.ends_with(".conv.2") || layer.ends_with(".conv.3");
        assert!(mobilenet.iter().all(is_linear), "ReLU6 is not homogeneous: {mobilenet:?}");
        let device = Device::flex();
        let lenet = create("lenet5", &Options::default(), &device).unwrap();
        let (_, layers) = lenet.equalize(&[Tensor::ones([1, 1, 32, 32], &device)]).unwrap();
        assert!(layers.is_empty(), "tanh is not homogeneous: {layers:?}");
    }
}
