use std::collections::{BTreeMap, HashMap};

use burn::tensor::Tensor;
use convzoo_blocks::graph::Graph;
use convzoo_kernels::engine::{CompiledNetwork, EngineValue, EngineWeight, compile};
use convzoo_kernels::quantized::calibration::{Calibration, Histogram};
use convzoo_kernels::quantized::{ByteScale, WeightScales};
use convzoo_kernels::{KernelError, Precision, Values};
use serde::Serialize;

use super::{BITS, LayerScales, Quantization, QuantizeError, QuantizeOptions, value_names};
use crate::fused::{values, weights_of};
use crate::weights::{tensors, with_tensors};
use crate::{Classifier, InferenceError, Network};

/// What quantizing a network costs, as signal-to-noise ratios in decibels: 10 · log₁₀ (Σ x² / Σ (x − x̂)²), x in floats and x̂
/// in bytes, over a few of the images. Six decibels more are half the error.
#[derive(Clone, Debug, Serialize)]
pub struct QuantizeReport {
    /// Images that were compared on.
    pub images: usize,
    /// Of the logits.
    pub logits: f64,
    /// The layers with weights, in their order.
    pub layers: Vec<LayerReport>,
}

/// What a layer costs.
#[derive(Clone, Debug, Serialize)]
pub struct LayerReport {
    /// Its name.
    pub name: String,
    /// How many weights it has.
    pub weights: usize,
    /// Whether it computes in bytes.
    pub int8: bool,
    /// Of its output, with its norm, sum and activation, in the quantized network.
    pub output: f64,
    /// Of the network's logits where this layer alone is in bytes: the lower, the more it hurts. None for one that is kept.
    pub alone: Option<f64>,
}

/// Images that the report compares on.
const COMPARED: usize = 4;

impl Network {
    /// Quantizes the network: chooses scales by what its values are for some images, batches
    /// `[batch, channels, height, width]` of one size, prepared as it wants them, and rounds its weights to bytes. The result
    /// computes in bytes with [`Precision::Int8`](crate::Precision), elsewhere in floats with the rounded weights.
    ///
    /// # Errors
    /// There are no such images, a layer to keep does not exist, or the kernels do not take the network.
    pub fn quantize(&self, images: &[Tensor<4>], options: &QuantizeOptions) -> Result<Self, QuantizeError> {
        self.check_images(images)?;
        rounded(self.clone(), calibrate(self, images, options)?)
    }

    /// What the network loses in bytes, from this one in floats to the same one [quantized](Self::quantize), on the first
    /// few of some images, batches as for quantizing.
    ///
    /// # Errors
    /// There are no images, the other network is not quantized, or the kernels do not take the network.
    pub fn quantize_report(&self, quantized: &Self, images: &[Tensor<4>]) -> Result<QuantizeReport, QuantizeError> {
        self.check_images(images)?;
        let images = Images::new(images)?;
        let quantization = quantized.quantization().ok_or(InferenceError::NotQuantized)?;
        Compiled::new(self, images.shape)?.report(&images, quantization)
    }

    /// Refuses images that the network does not take.
    pub(super) fn check_images(&self, images: &[Tensor<4>]) -> Result<(), QuantizeError> {
        let [_, input @ ..] = images.first().ok_or(QuantizeError::NoImages)?.dims();
        Ok(self.check_input(input)?)
    }
}

/// The scales of a network's weights and of its values on some images, as [`Network::quantize`] finds them.
///
/// # Errors
/// There are no such images, a layer to keep does not exist, or the kernels do not take the network.
pub fn calibrate<N: Classifier>(
    network: &N,
    images: &[Tensor<4>],
    options: &QuantizeOptions,
) -> Result<Quantization, QuantizeError> {
    if !BITS.contains(&options.weight_bits) {
        return Err(QuantizeError::Bits(options.weight_bits));
    }
    let images = Images::new(images)?;
    let compiled = Compiled::new(network, images.shape)?;
    compiled.check_kept(options)?;
    let observed = compiled.observe(&images, options.calibration)?;
    Ok(compiled.quantization(&observed, options))
}

/// The network with its weights rounded as its scales say.
pub(super) fn rounded<N: Classifier>(network: N, quantization: Quantization) -> Result<N, QuantizeError> {
    let mut tensors = tensors(&network)?;
    for tensor in &mut tensors {
        let layer = tensor.name.strip_suffix(".weight").and_then(|layer| quantization.layers.get(layer));
        if let Some(LayerScales { weights, .. }) = layer {
            tensor.values = weights.numbers(&weights.bytes(&tensor.values));
        }
    }
    Ok(with_tensors(network, &tensors)?.with_quantization(Some(quantization)))
}

/// Images one by one.
pub(super) struct Images {
    /// `[1, channels, height, width]`.
    pub shape: [usize; 4],
    batches: Vec<Values>,
}

impl Images {
    pub fn new(batches: &[Tensor<4>]) -> Result<Self, QuantizeError> {
        let [_, channels, height, width] = batches.first().ok_or(QuantizeError::NoImages)?.dims();
        for batch in batches {
            let [_, found @ ..] = batch.dims();
            if found != [channels, height, width] {
                return Err(QuantizeError::Sizes { expected: [channels, height, width], found });
            }
        }
        let images = batches.iter().map(|batch| values(batch.clone())).collect::<Result<Vec<_>, _>>()?;
        let images = Self { shape: [1, channels, height, width], batches: images };
        if images.iter().next().is_none() { Err(QuantizeError::NoImages) } else { Ok(images) }
    }

    pub fn iter(&self) -> impl Iterator<Item = &[f32]> {
        let image: usize = self.shape.iter().product();
        self.batches.iter().flat_map(move |batch| batch.chunks_exact(image.max(1)))
    }
}

/// A network in floats.
pub(super) struct Compiled {
    pub graph: Graph,
    pub engine: CompiledNetwork,
    pub values: Vec<EngineValue>,
    pub names: Vec<String>,
    /// `[1, channels, height, width]`.
    pub shape: [usize; 4],
}

/// What its values are on some images, by place.
struct Observed {
    /// Values that share their numbers share a scale.
    scales: Vec<ByteScale>,
    /// The mean of each channel of each value.
    means: Vec<Vec<f64>>,
}

impl Compiled {
    pub fn new<N: Classifier>(network: &N, shape: [usize; 4]) -> Result<Self, QuantizeError> {
        let [_, channels, height, width] = shape;
        Self::of_graph(network, network.graph([channels, height, width])?)
    }

    /// The same by a graph of the network.
    pub fn of_graph<N: Classifier>(network: &N, graph: Graph) -> Result<Self, QuantizeError> {
        let [channels, height, width] = graph.input();
        let shape = [1, channels, height, width];
        let weights: HashMap<u64, Values> = weights_of(network);
        let last = graph.nodes().len() - 1;
        let engine = compile(&graph, last, Precision::F32, |parameter| weights.get(&parameter.id).cloned());
        let engine = engine.map_err(InferenceError::from)?;
        let (values, names) = (engine.values(), value_names(&graph, &engine));
        Ok(Self { graph, engine, values, names, shape })
    }

    /// The layers that can compute in bytes: place, name and weight.
    fn layers(&self) -> impl Iterator<Item = (usize, &str, &EngineWeight)> {
        self.values.iter().enumerate().filter_map(|(place, value)| {
            let layer = self.graph.nodes().get(*value.layers.first()? as usize)?;
            Some((place, layer.name.as_str(), value.weight.as_ref()?))
        })
    }

    fn check_kept(&self, options: &QuantizeOptions) -> Result<(), QuantizeError> {
        let known = || self.layers().map(|(_, name, _)| name.to_owned()).collect::<Vec<_>>();
        match options.keep.iter().find(|keep| !self.layers().any(|(_, name, _)| name == *keep)) {
            Some(layer) => Err(QuantizeError::Layer { layer: layer.clone(), known: known() }),
            None => Ok(()),
        }
    }

    /// For each value the first of those whose numbers are the same: what only moves numbers has its inputs'.
    fn groups(&self) -> Vec<usize> {
        let mut groups: Vec<usize> = (0..self.values.len()).collect();
        for (place, value) in self.values.iter().enumerate().filter(|(_, value)| value.moves) {
            for input in &value.inputs {
                let (one, other) = (groups[place], groups[*input]);
                let joined = one.min(other);
                groups.iter_mut().filter(|group| **group == one || **group == other).for_each(|group| *group = joined);
            }
        }
        groups
    }

    /// Runs the network on the images, first for ranges, then for how often numbers are where in them.
    fn observe(&self, images: &Images, calibration: Calibration) -> Result<Observed, QuantizeError> {
        let (groups, count) = (self.groups(), images.iter().count());
        let mut ranges = vec![[0.0f32; 2]; self.values.len()];
        let mut means: Vec<Vec<f64>> = vec![Vec::new(); self.values.len()];
        let mut not_finite = None;
        for (image, numbers) in images.iter().enumerate() {
            let see = |value: usize, [_, channels, height, width]: [usize; 4], numbers: &[f32]| {
                let [low, high] = &mut ranges[groups[value]];
                let means = &mut means[value];
                means.resize(channels, 0.0);
                for (mean, plane) in means.iter_mut().zip(numbers.chunks_exact((height * width).max(1))) {
                    let mut sum = 0.0f32;
                    for x in plane {
                        (*low, *high, sum) = (low.min(*x), high.max(*x), sum + *x);
                    }
                    *mean += f64::from(sum) / (plane.len() * count) as f64;
                    if !sum.is_finite() {
                        not_finite.get_or_insert((value, image));
                    }
                }
            };
            self.engine.observe(self.shape, numbers, see).map_err(InferenceError::from)?;
        }
        if let Some((value, image)) = not_finite {
            return Err(QuantizeError::NotFinite { value: self.names[value].clone(), image });
        }
        let mut histograms: Vec<Histogram> = ranges.iter().map(|[low, high]| Histogram::new(*low, *high)).collect();
        if calibration != Calibration::MinMax {
            for numbers in images.iter() {
                let see = |value: usize, _, numbers: &[f32]| {
                    if !self.values[value].moves {
                        histograms[groups[value]].add(numbers);
                    }
                };
                self.engine.observe(self.shape, numbers, see).map_err(InferenceError::from)?;
            }
        }
        let scales: HashMap<usize, ByteScale> =
            groups.iter().map(|group| (*group, histograms[*group].scale(calibration))).collect();
        Ok(Observed { scales: groups.iter().map(|group| scales[group]).collect(), means })
    }

    /// The scales of all layers but those that are kept.
    fn quantization(&self, observed: &Observed, options: &QuantizeOptions) -> Quantization {
        let mut layers = BTreeMap::new();
        for (place, name, weight) in self.layers().filter(|(_, name, _)| !options.keep.iter().any(|keep| keep == name))
        {
            let weights = WeightScales::of_bits(&weight.values, weight.outputs, options.weight_bits);
            let input = self.values[place].inputs.first().map(|input| observed.means[*input].as_slice());
            let correction = input.filter(|_| options.correct_bias).map(|means| correction(weight, &weights, means));
            layers.insert(name.to_owned(), LayerScales { weights, correction });
        }
        // The output is floats.
        let values = self.names.iter().zip(&observed.scales).take(self.names.len() - 1);
        Quantization { layers, values: values.map(|(name, scale)| (name.clone(), *scale)).collect() }
    }

    fn report(&self, images: &Images, quantization: &Quantization) -> Result<QuantizeReport, QuantizeError> {
        let outcome = |quantization: &Quantization| -> Result<Vec<Noise>, KernelError> {
            let network = self.engine.quantize(&quantization.scales(&self.names, &self.graph))?;
            let mut noise = vec![Noise::default(); self.values.len()];
            for image in images.iter().take(COMPARED) {
                let mut floats = vec![Vec::new(); self.values.len()];
                self.engine.observe(self.shape, image, |value, _, numbers| floats[value] = numbers.to_vec())?;
                network.observe(self.shape, image, |value, _, numbers| noise[value].add(&floats[value], numbers))?;
            }
            Ok(noise)
        };
        let inference = |error: KernelError| QuantizeError::Inference(error.into());
        let whole = outcome(quantization).map_err(inference)?;
        let last = self.values.len() - 1;
        let mut layers = Vec::new();
        for (place, name, weight) in self.layers() {
            let alone = match quantization.layers.get(name) {
                Some(scales) => {
                    let layers = BTreeMap::from([(name.to_owned(), scales.clone())]);
                    let alone = Quantization { layers, values: quantization.values.clone() };
                    Some(outcome(&alone).map_err(inference)?[last].ratio())
                }
                None => None,
            };
            layers.push(LayerReport {
                name: name.to_owned(),
                weights: weight.values.len(),
                int8: alone.is_some(),
                output: whole[place].ratio(),
                alone,
            });
        }
        Ok(QuantizeReport { images: images.iter().take(COMPARED).count(), logits: whole[last].ratio(), layers })
    }
}

/// What rounding the weights takes from each output on average, from the mean of each input: Σ (w − ŵ) · mean, times the
/// norm's factor. (Nagel et al., 2019, [arXiv:1906.04721](https://arxiv.org/abs/1906.04721))
fn correction(weight: &EngineWeight, scales: &WeightScales, means: &[f64]) -> Vec<f32> {
    let rounded = scales.numbers(&scales.bytes(&weight.values));
    let filter = (weight.values.len() / weight.outputs.max(1)).max(1);
    let group_inputs = (means.len() / weight.groups.max(1)).max(1);
    let taps = (filter / group_inputs).max(1);
    let group_outputs = (weight.outputs / weight.groups.max(1)).max(1);
    let filters = weight.values.chunks_exact(filter).zip(rounded.chunks_exact(filter)).enumerate();
    let shift = |(output, (weights, rounded)): (usize, (&[f32], &[f32]))| {
        let first = output / group_outputs * group_inputs;
        let lost = weights.iter().zip(rounded).enumerate().map(|(i, (weight, rounded))| {
            f64::from(weight - rounded) * means.get(first + i / taps).copied().unwrap_or(0.0)
        });
        let factor = weight.norm.as_ref().map_or(1.0, |norm| f64::from(norm[output]));
        (lost.sum::<f64>() * factor) as f32
    };
    filters.map(shift).collect()
}

/// The energies of a signal and of its noise.
#[derive(Clone, Copy, Default)]
struct Noise {
    signal: f64,
    noise: f64,
}

impl Noise {
    fn add(&mut self, floats: &[f32], bytes: &[f32]) {
        for (float, byte) in floats.iter().zip(bytes) {
            self.signal += f64::from(*float).powi(2);
            self.noise += f64::from(float - byte).powi(2);
        }
    }

    /// In decibels; of no noise at all 200, which no numbers of 32 bits reach.
    fn ratio(self) -> f64 {
        /// More than 32 bits can tell apart.
        const MOST: f64 = 200.0;
        match self.noise > 0.0 {
            true => (10.0 * (self.signal.max(f64::MIN_POSITIVE) / self.noise).log10()).min(MOST),
            false => MOST,
        }
    }
}
