use std::collections::{HashMap, HashSet};

use burn::module::{ModuleMapper, Param};
use burn::tensor::Tensor;
use convzoo_blocks::graph::Graph;
use convzoo_blocks::{Observer, Step, observe};
use convzoo_kernels::quantized::{ByteScale, WeightScales};

use super::calibrate::{Compiled, rounded};
use super::{LayerScales, Quantization, QuantizeError};
use crate::{Classifier, InferenceError, Outputs, Predict, record};

/// Passes of a network in floats whose weights and values are rounded where the engine has bytes, for training
/// ([Jacob et al., 2017](https://arxiv.org/abs/1712.05877)): what they give is, up to the order of sums, what the network
/// computes in bytes.
///
/// Rounding has the gradient of the identity (*straight-through*); values beyond the range of their bytes have none. The
/// scales of weights are those of the weights at hand. Norms train as ever: weights are rounded before a norm is folded into
/// them, which with a scale for each output is the same as after.
#[derive(Clone, Debug)]
pub struct Simulation {
    /// The layers that compute in bytes, and the scales of values.
    quantization: Quantization,
    weight_bits: u32,
    /// The weights of those layers, by their ids.
    weights: HashSet<u64>,
    /// The scales of nodes in the graphs of `forward` and of `forward_train`.
    inference: HashMap<usize, ByteScale>,
    training: HashMap<usize, ByteScale>,
}

impl Simulation {
    /// For a network, or copies of it, on images of `[channels, height, width]`: the layers that `quantization` has scales
    /// for, weights of so many bits, and its scales of values.
    ///
    /// # Errors
    /// The kernels do not take the network.
    pub fn new<N: Classifier>(
        network: &N,
        input: [usize; 3],
        quantization: Quantization,
        weight_bits: u32,
    ) -> Result<Self, QuantizeError> {
        let graph = network.graph(input)?;
        let is_rounded = |name: &String| quantization.layers.contains_key(name);
        let layers = graph.nodes().iter().filter(|node| is_rounded(&node.name));
        let weights = layers.filter_map(|node| Some(node.parameters.first()?.id)).collect();
        let inference = byte_nodes(network, graph, &quantization)?;
        let training = record(network, input, |images| network.forward_train(images).logits)?;
        let training = byte_nodes(network, training, &quantization)?;
        Ok(Self { quantization, weight_bits, weights, inference, training })
    }

    /// Images `[batch, channels, height, width]` to logits `[batch, classes]`.
    pub fn forward<N: Classifier>(&self, network: &N, images: Tensor<4>) -> Tensor<2> {
        let network = self.with_rounded_weights(network);
        let values = Rounding(&self.inference);
        observe(values, values.round(0, images), |images| network.forward(images))
    }

    /// The same in training, with the logits of auxiliary classifiers, which compute in floats.
    pub fn forward_train<N: Classifier>(&self, network: &N, images: Tensor<4>) -> Outputs {
        let network = self.with_rounded_weights(network);
        let values = Rounding(&self.training);
        let mut auxiliary = Vec::new();
        let logits = observe(values, values.round(0, images), |images| {
            let outputs = network.forward_train(images);
            auxiliary.extend(outputs.auxiliary.iter().map(|logits| logits.tensor().clone()));
            outputs.logits
        });
        Outputs { logits, auxiliary }
    }

    /// The network as something that predicts so.
    pub fn of<'a, N: Classifier>(&'a self, network: &'a N) -> Simulated<'a, N> {
        Simulated { simulation: self, network }
    }

    /// The network in bytes, as its passes here were.
    ///
    /// # Errors
    /// Its weights cannot be read or replaced.
    pub fn quantize<N: Classifier>(&self, network: N) -> Result<N, QuantizeError> {
        let mut quantization = self.quantization.clone();
        for tensor in crate::weights::tensors(&network)? {
            let layer = tensor.name.strip_suffix(".weight").and_then(|layer| quantization.layers.get_mut(layer));
            if let (Some(scales), [outputs, ..]) = (layer, tensor.shape.as_slice()) {
                let weights = WeightScales::of_bits(&tensor.values, *outputs, self.weight_bits);
                *scales = LayerScales { weights, correction: None };
            }
        }
        rounded(network, quantization)
    }

    /// A copy that shares all but the weights.
    fn with_rounded_weights<N: Classifier>(&self, network: &N) -> N {
        let most = WeightScales::most(self.weight_bits);
        network.clone().map(&mut RoundWeights { weights: &self.weights, most })
    }
}

/// A network whose passes are those of a [`Simulation`].
#[derive(Clone, Debug)]
pub struct Simulated<'a, N> {
    simulation: &'a Simulation,
    network: &'a N,
}

impl<N: Classifier> Predict for Simulated<'_, N> {
    fn predict(&self, images: Tensor<4>) -> Result<Tensor<2>, InferenceError> {
        Ok(self.simulation.forward(self.network, images))
    }
}

/// The nodes of a network's graph whose values the engine has as bytes.
fn byte_nodes<N: Classifier>(
    network: &N,
    graph: Graph,
    quantization: &Quantization,
) -> Result<HashMap<usize, ByteScale>, QuantizeError> {
    let Compiled { graph, engine, values, names, .. } = Compiled::of_graph(network, graph)?;
    let quantized = engine.quantize(&quantization.scales(&names, &graph)).map_err(InferenceError::from)?;
    let bytes = quantized.byte_values();
    // What moves bytes as they are has nothing to round.
    let is_new = |place: usize, scale: &ByteScale| {
        !values[place].moves || values[place].inputs.iter().any(|input| bytes.get(input) != Some(scale))
    };
    let new = bytes.iter().filter(|(place, scale)| is_new(**place, scale));
    Ok(new.filter_map(|(place, scale)| Some((values[*place].number? as usize, *scale))).collect())
}

/// Rounds values after the nodes that have a scale.
#[derive(Clone, Copy)]
struct Rounding<'a>(&'a HashMap<usize, ByteScale>);

impl Rounding<'_> {
    fn round(self, node: usize, value: Tensor<4>) -> Tensor<4> {
        match self.0.get(&node) {
            Some(scale) => round_value(value, *scale),
            None => value,
        }
    }
}

impl Observer for Rounding<'_> {
    fn output(&mut self, step: Step, output: Tensor<4>) -> Tensor<4> {
        self.round(step.node, output)
    }

    fn drops_paths(&self) -> bool {
        false
    }
}

struct RoundWeights<'a> {
    weights: &'a HashSet<u64>,
    most: f32,
}

impl ModuleMapper for RoundWeights<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.weights.contains(&param.id.val()) {
            true => param.map(|weight| round_weight(weight, self.most)),
            false => param,
        }
    }
}

/// What the nearest bytes of a value stand for.
fn round_value<const D: usize>(value: Tensor<D>, scale: ByteScale) -> Tensor<D> {
    let [low, high] = [0, u8::MAX].map(|byte| scale.number(byte));
    straight_through(value.clamp(low, high), |value| {
        let zero = f32::from(scale.zero);
        let bytes = value.mul_scalar(1.0 / scale.scale).add_scalar(zero).clamp(0.0, 255.0).round();
        bytes.sub_scalar(zero).mul_scalar(scale.scale)
    })
}

/// What the nearest whole numbers up to `most` stand for, of weights `[outputs, …]` with a scale for each output.
fn round_weight<const D: usize>(weight: Tensor<D>, most: f32) -> Tensor<D> {
    straight_through(weight, |weight| {
        let shape = weight.dims();
        let filters: Tensor<2> = weight.reshape([shape[0] as i64, -1]);
        let scales = filters.clone().abs().max_dim(1).div_scalar(most).clamp_min(f32::MIN_POSITIVE);
        let whole = filters.div(scales.clone()).clamp(-most, most).round();
        whole.mul(scales).reshape(shape)
    })
}

/// `rounded` of a value, with the gradient of the value itself.
fn straight_through<const D: usize>(value: Tensor<D>, rounded: impl FnOnce(Tensor<D>) -> Tensor<D>) -> Tensor<D> {
    if !value.device().is_autodiff() {
        return rounded(value);
    }
    let plain = value.clone().without_autodiff();
    // The difference is exactly zero, and carries the gradient.
    Tensor::from_inner(rounded(plain.clone())) + (value - Tensor::from_inner(plain))
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;
    use crate::quantize::{QuantizeOptions, calibrate};
    use crate::{Inference, Network, Options, Precision, create};

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.without_autodiff().try_into_vec_as().unwrap()
    }

    #[test]
    fn rounding_passes_gradients_within_the_range_and_none_beyond() {
        let device = Device::flex().autodiff();
        let scale = ByteScale { scale: 0.5, zero: 2 };
        let value = Tensor::<1>::from_floats([-3.0, -0.9, 0.3, 5.2, 126.4, 200.0], &device).require_grad();
        let factors = Tensor::<1>::from_floats([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &device);
        let rounded = round_value(value.clone(), scale);
        assert_eq!(values(rounded.clone()), [-1.0, -1.0, 0.5, 5.0, 126.5, 126.5]);
        let gradients = (rounded * factors).sum().backward();
        assert_eq!(values(Tensor::from_inner(value.grad(&gradients).unwrap())), [0.0, 2.0, 3.0, 4.0, 5.0, 0.0]);

        let weight = Tensor::<2>::from_floats([[0.7, -0.24, 0.05], [0.0, 0.0, 0.0]], &device).require_grad();
        let factors = Tensor::<2>::from_floats([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], &device);
        let rounded = round_weight(weight.clone(), WeightScales::most(4));
        let expected = WeightScales::of_bits(&values(weight.clone()), 2, 4);
        assert_eq!(values(rounded.clone()), expected.numbers(&expected.bytes(&values(weight.clone()))));
        let gradients = (rounded * factors.clone()).sum().backward();
        let gradient = values(Tensor::from_inner(weight.grad(&gradients).unwrap()));
        assert_eq!(gradient, values(factors), "a weight has the gradient of its rounded one");
    }

    fn simulation(network: &Network, images: &Tensor<4>, options: &QuantizeOptions) -> Simulation {
        let [_, input @ ..] = images.dims();
        let quantization = calibrate(network, std::slice::from_ref(images), options).unwrap();
        Simulation::new(network, input, quantization, options.weight_bits).unwrap()
    }

    #[test]
    fn passes_are_what_the_network_in_bytes_computes() {
        let device = Device::flex();
        // Average pooling of floats; sums; concatenations; norms before convolutions; gates; shuffles; auxiliary classifiers;
        // joins of many paths.
        for (name, side) in [
            ("lenet5", 32),
            ("resnet20_cifar", 32),
            ("squeezenet1_1", 64),
            ("densenet40_k12", 32),
            ("mobilenet_v3_small", 64),
            ("shufflenet_v2_x0_5", 64),
            ("googlenet", 64),
            ("fractalnet20", 32),
        ] {
            device.seed(4);
            let network = create(name, &Options::default().with_classes(10), &device).unwrap();
            let [channels, ..] = network.input();
            let images = Tensor::random([2, channels, side, side], Distribution::Normal(0.0, 1.0), &device);
            let simulation = simulation(&network, &images, &QuantizeOptions::default());
            let simulated = values(simulation.forward(&network, images.clone()));
            let trained = values(simulation.forward_train(&network, images.clone()).logits);
            assert_eq!(simulated, trained, "{name}: the pass in training differs");
            let floats = values(network.forward(images.clone()));
            let bytes = Inference::new(simulation.quantize(network).unwrap(), Precision::Int8).unwrap();
            let bytes = values(bytes.predict(images).unwrap());
            let square = |pairs: &mut dyn Iterator<Item = (&f32, &f32)>| {
                pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>()
            };
            let lost = square(&mut floats.iter().zip(&bytes));
            let differ = square(&mut simulated.iter().zip(&bytes));
            println!("{name}: lost {lost:.1e}, simulated but for {differ:.1e}");
            // A byte at the middle between two may go either way, and changes those after it, the more the deeper the
            // network is: without the simulation all that is lost differs, in such networks half of it may.
            let bound = if name == "fractalnet20" { 1.0 } else { 0.5 };
            assert!(
                differ <= bound * lost,
                "{name}: simulated logits differ by {differ:.1e}, {lost:.1e} is lost in bytes"
            );
        }
    }
}
