//! `--precision`, and what int8 finds its scales on.

use std::sync::Once;

use anyhow::Result;
use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use convzoo::quantize::QuantizeOptions;
use convzoo::{Classifier, Inference, InferenceError, Network, Precision, prepare};
use convzoo_kernels::Isa;
use convzoo_kernels::extension;

use super::super::images::Source;
use super::super::output::{count, tell};

/// `--precision`.
#[derive(clap::Args, Clone, Copy)]
pub struct PrecisionArgs {
    /// Numbers in which weights and activations are kept; others than f32 are flex's with its kernels [default: int8 of
    /// quantized weights, else f32]
    #[arg(long, value_enum)]
    precision: Option<PrecisionArg>,
}

/// The precisions of inference.
#[derive(clap::ValueEnum, Clone, Copy)]
enum PrecisionArg {
    /// 32 bits
    F32,
    /// 32 bits, weights of fully-connected layers in IEEE's 16
    LinearF16,
    /// bfloat16: 16 bits with the exponent of 32
    Bf16,
    /// Bytes; weights that are not quantized are, by scales found on the first images at hand
    Int8,
}

/// Images that `--precision int8` finds scales on.
pub const CALIBRATED: usize = 128;

impl PrecisionArgs {
    /// The precision that was asked for, else that of the weights, where the network's device has it. What this processor
    /// lacks for it is said once.
    pub fn of(self, network: &Network) -> Precision {
        static SAID: Once = Once::new();
        match self.precision {
            Some(PrecisionArg::F32) => Precision::F32,
            Some(PrecisionArg::LinearF16) => Precision::LinearF16,
            Some(PrecisionArg::Bf16) => {
                if Isa::detect().is_ok_and(|isa| !isa.multiplies_bf16()) {
                    SAID.call_once(|| {
                        tell("note: nothing here multiplies bfloat16 numbers, so that they are widened; f32 may be faster");
                    });
                }
                Precision::Bf16
            }
            Some(PrecisionArg::Int8) => Precision::Int8,
            None if network.quantization().is_some() && on_kernels(network) => Precision::Int8,
            None => Precision::F32,
        }
    }

    /// The network and its precision; it is quantized first on `images`, where that is asked for and it is not yet.
    pub fn ready(
        self,
        network: Network,
        images: impl FnOnce(&Network) -> Result<Vec<Tensor<4>>>,
    ) -> Result<(Network, Precision)> {
        let precision = self.of(&network);
        if precision != Precision::Int8 || network.quantization().is_some() {
            return Ok((network, precision));
        }
        if !on_kernels(&network) {
            return Err(InferenceError::Precision(precision).into());
        }
        let images = images(&network)?;
        let counted: usize = images.iter().map(|batch| batch.dims()[0]).sum();
        tell(&format!("note: the weights are quantized by scales found on {}", count(counted, "image")));
        Ok((network.quantize(&images, &QuantizeOptions::default())?, precision))
    }

    /// The network in its fastest form, in the precision that was asked for; images as for [`ready`](Self::ready).
    pub fn for_inference(
        self,
        network: Network,
        images: impl FnOnce(&Network) -> Result<Vec<Tensor<4>>>,
    ) -> Result<Inference> {
        let (network, precision) = self.ready(network, images)?;
        Ok(Inference::new(network, precision)?)
    }
}

/// Whether convzoo's kernels compute a network.
pub fn on_kernels(network: &Network) -> bool {
    Module::devices(network).iter().all(extension::serves)
}

/// Inputs of a network, `[channels, height, width]` each, as batches of one.
pub fn batches(network: &Network, inputs: impl IntoIterator<Item = Vec<f32>>) -> Vec<Tensor<4>> {
    let [channels, height, width] = network.input();
    let device = Module::devices(network).into_iter().next().unwrap_or_default();
    let batch = |input: Vec<f32>| Tensor::from_data(TensorData::new(input, [1, channels, height, width]), &device);
    inputs.into_iter().map(batch).collect()
}

/// The inputs that a network finds scales on, of those images that can be read.
pub fn first_inputs(network: &Network, sources: &[Source]) -> Result<Vec<Tensor<4>>> {
    let read = sources.iter().filter_map(|source| Some(prepare(network, &source.read().ok()?)));
    Ok(batches(network, read.take(CALIBRATED)))
}
