//! Weights that come with the crate.

use burn::tensor::Device;
use convzoo_models::weights::{Checkpoint, WeightsError};
use convzoo_models::{Network, Options, create_from};

/// `best.safetensors` of `convzoo train --device flex`.
const LENET5_DIGITS: &[u8] = include_bytes!("../weights/lenet5-digits.safetensors");

/// LeNet-5, trained on the embedded digits: something to run on out of the box. It is right about 354 of the 360
/// digits held out (`convzoo train --device flex` says so).
pub fn lenet5_digits(device: &Device) -> Result<Network, WeightsError> {
    create_from("lenet5", Checkpoint::from_safetensors(LENET5_DIGITS)?, &Options::default(), device)
}
