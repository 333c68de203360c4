//! Networks in bytes: which scales their weights and values have, and how these are found.
//!
//! [`Network::equalize`](crate::Network::equalize) may even out the ranges of channels first.
//! [`Network::quantize`](crate::Network::quantize) runs the network on some images, chooses a scale for each value and rounds
//! the weights; [`Network::quantize_report`](crate::Network::quantize_report) says what that costs, layer by layer. [`weights::save_quantized`](crate::weights::save_quantized)
//! writes the result, and reading it gives the same network again. Its arithmetic is that of
//! [`convzoo_kernels::quantized`].
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use convzoo_models::quantize::QuantizeOptions;
//! use convzoo_models::{Inference, Options, Precision, create};
//!
//! let device = Device::flex();
//! let network = create("lenet5", &Options::default(), &device)?;
//! // A few hundred images of those that the network is for, prepared as its input; here one that is black.
//! let images = [Tensor::zeros([1, 1, 32, 32], &device)];
//! let quantized = network.quantize(&images, &QuantizeOptions::default())?;
//! assert_eq!(network.quantize_report(&quantized, &images)?.layers.len(), 5);
//! let inference = Inference::new(quantized, Precision::Int8)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod calibrate;
mod equalize;
mod simulate;

use std::collections::{BTreeMap, HashMap};

use convzoo_blocks::graph::Graph;
use convzoo_kernels::engine::{CompiledNetwork, Scales};
pub use convzoo_kernels::quantized::calibration::Calibration;
pub use convzoo_kernels::quantized::{ByteScale, WeightScales};
use thiserror::Error;

pub use calibrate::{LayerReport, QuantizeReport, calibrate};
pub use simulate::{Simulated, Simulation};

use crate::weights::WeightsError;
use crate::{InferenceError, ModelError};

/// Bits that weights can have.
pub const BITS: std::ops::RangeInclusive<u32> = 2..=8;

/// How a network is quantized.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizeOptions {
    /// How the range of each value's bytes is chosen.
    pub calibration: Calibration,
    /// Bits of a weight, from 2 to 8. With fewer than 8 a byte uses its lowest bits alone.
    pub weight_bits: u32,
    /// Layers that compute in floats all the same, by their names.
    pub keep: Vec<String>,
    /// Whether each output is shifted back by what rounding its weights shifts it on average.
    pub correct_bias: bool,
}

impl Default for QuantizeOptions {
    fn default() -> Self {
        Self { calibration: Calibration::default(), weight_bits: 8, keep: Vec::new(), correct_bias: true }
    }
}

/// The scales of a quantized network. What has none computes in floats.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quantization {
    /// Of layers' weights, by the layers' names.
    pub layers: BTreeMap<String, LayerScales>,
    /// Of values: the images are `images`, others are called as the first layer that makes them, or by what makes them and
    /// their number.
    pub values: BTreeMap<String, ByteScale>,
}

/// The scales of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerScales {
    /// Of each output's weights.
    pub weights: WeightScales,
    /// What is added to each output, its norm folded in; none where nothing is.
    pub correction: Option<Vec<f32>>,
}

/// Why a network cannot be quantized.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum QuantizeError {
    /// There is nothing to calibrate on.
    #[error("there are no images to calibrate on")]
    NoImages,
    /// Images of several sizes.
    #[error(
        "all images to calibrate on have one size; some are {expected:?} and some {found:?} (channels, height, width)"
    )]
    Sizes {
        /// That of the first.
        expected: [usize; 3],
        /// Another.
        found: [usize; 3],
    },
    /// A value that is no number.
    #[error("'{value}' is not finite on image {image}: such a network cannot be quantized")]
    NotFinite {
        /// The value.
        value: String,
        /// Which image, counted from 0.
        image: usize,
    },
    /// More or fewer bits than weights can have.
    #[error("weights have from 2 to 8 bits, not {0}")]
    Bits(u32),
    /// A layer that is to be kept and does not exist, or has no weights that could be bytes.
    #[error("there is no layer '{layer}' to keep; the network's layers are {}", .known.join(", "))]
    Layer {
        /// What it was called.
        layer: String,
        /// The layers there are.
        known: Vec<String>,
    },
    /// The network does not take images of its size.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The network cannot be run.
    #[error(transparent)]
    Inference(#[from] InferenceError),
    /// Its weights cannot be read or replaced.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

/// The names of the values of a compiled network.
pub(crate) fn value_names(graph: &Graph, engine: &CompiledNetwork) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (number, value) in engine.values().into_iter().enumerate() {
        let layer = value.layers.first().and_then(|label| graph.nodes().get(*label as usize));
        let name = match layer.map(|layer| layer.name.as_str()) {
            _ if number == 0 => "images".to_owned(),
            Some(name) if !name.is_empty() && !names.iter().any(|other| other == name) => name.to_owned(),
            _ => format!("{}.{number}", value.kind),
        };
        names.push(name);
    }
    names
}

impl Quantization {
    /// The same by labels and places of a compiled network, whose values are called so.
    pub(crate) fn scales(&self, names: &[String], graph: &Graph) -> Scales {
        let (mut weights, mut corrections) = (HashMap::new(), HashMap::new());
        for (label, node) in graph.nodes().iter().enumerate() {
            if let Some(scales) = self.layers.get(&node.name).filter(|_| !node.name.is_empty()) {
                weights.insert(label as u64, scales.weights.clone());
                if let Some(correction) = &scales.correction {
                    corrections.insert(label as u64, correction.clone());
                }
            }
        }
        let values = names.iter().enumerate().filter_map(|(place, name)| Some((place, *self.values.get(name)?)));
        Scales { weights, corrections, values: values.collect() }
    }
}
