use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use burn::module::{Module, ModuleDisplay};
use burn::tensor::{Tensor, TensorData};
use convzoo_data::{Preprocess, evenly_spaced};
use convzoo_models::quantize::{self, BITS, ByteScale, QuantizeOptions, Simulation};
use convzoo_models::{Classifier, weights};
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::checkpoint::State;
use crate::run::Job;

/// Quantization-aware training ([Jacob et al., 2017](https://arxiv.org/abs/1712.05877)): passes round weights and values as
/// the network in bytes does, and gradients go straight through the rounding. The scales of values are found before the first
/// step, as [`Network::quantize`](convzoo_models::Network::quantize) finds them, and stay; those of weights follow the weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuantizationAware {
    /// Bits of a weight, from 2 to 8.
    pub weight_bits: u32,
    /// Layers that compute in floats all the same, by their names.
    pub keep: Vec<String>,
    /// How many of the training images, evenly spaced, scales are found on.
    pub images: usize,
}

impl Default for QuantizationAware {
    fn default() -> Self {
        Self { weight_bits: 8, keep: Vec::new(), images: 256 }
    }
}

impl QuantizationAware {
    /// Refuses what makes no sense for any network.
    pub fn check(&self) -> Result<(), TrainError> {
        let refuse = |field, value: String, expected| Err(TrainError::Recipe { field, value, expected });
        match self {
            Self { weight_bits: bits, .. } if !BITS.contains(bits) => {
                refuse("quantization.weight_bits", bits.to_string(), "from 2 to 8")
            }
            Self { images: images @ (0 | 65537..), .. } => {
                refuse("quantization.images", images.to_string(), "from 1 to 65536")
            }
            _ => Ok(()),
        }
    }
}

/// The scale and the zero point of each value.
pub(crate) type Scales = BTreeMap<String, (f32, u8)>;

impl Job {
    /// The state with its passes rounded to bytes, where the recipe asks for it, by the scales that it has or, at the
    /// beginning, by new ones.
    pub fn in_bytes<N: Classifier + ModuleDisplay + 'static>(
        &self,
        mut state: State<N>,
        preprocess: &Preprocess,
    ) -> Result<State<N>, TrainError> {
        let Some(recipe) = &self.recipe.quantization else { return Ok(state) };
        let network = state.model.valid().network;
        let options = QuantizeOptions {
            weight_bits: recipe.weight_bits,
            keep: recipe.keep.clone(),
            correct_bias: false,
            ..QuantizeOptions::default()
        };
        // The layers' names come from the network, whatever the images.
        let images = if state.position.scales.is_none() { recipe.images } else { 1 };
        let mut quantization = quantize::calibrate(&network, &self.calibration_images(preprocess, images)?, &options)?;
        let found = quantization.values.iter().map(|(name, scale)| (name.clone(), (scale.scale, scale.zero)));
        let scales = state.position.scales.get_or_insert_with(|| found.collect());
        let scale =
            |(name, (scale, zero)): (&String, &(f32, u8))| (name.clone(), ByteScale { scale: *scale, zero: *zero });
        quantization.values = scales.iter().map(scale).collect();
        let Preprocess { channels, height, width, .. } = *preprocess;
        let simulation = Simulation::new(&network, [channels, height, width], quantization, recipe.weight_bits)?;
        Ok(state.in_bytes(&Arc::new(simulation)))
    }

    /// Evenly spaced training images as the network's input, one by one.
    fn calibration_images(&self, preprocess: &Preprocess, most: usize) -> Result<Vec<Tensor<4>>, TrainError> {
        let (data, &Preprocess { channels, height, width, .. }) = (&self.data.train, preprocess);
        let image = |place: usize| -> Result<_, TrainError> {
            let input = preprocess.apply(&data.get(place)?.image);
            Ok(Tensor::from_data(TensorData::new(input, [1, channels, height, width]), &self.device))
        };
        evenly_spaced(data.len(), most).map(image).collect()
    }
}

/// Writes the network in bytes, as training saw it, into its run's folder. Networks that cannot be told to compute in bytes,
/// which those of the zoo can, have no such file.
pub(crate) fn save<N: Classifier>(network: &N, simulation: &Simulation, folder: &Path) -> Result<(), TrainError> {
    let quantized = simulation.quantize(network.clone())?;
    match quantized.quantization() {
        Some(_) => Ok(weights::save_quantized(&quantized, &folder.join("best-int8.safetensors"))?),
        None => Ok(()),
    }
}
