use convzoo_data::DataError;
use convzoo_models::InferenceError;
use convzoo_models::weights::WeightsError;
use convzoo_train::TrainError;
use thiserror::Error;

/// Why a network cannot be compressed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CompressError {
    /// A plan's value makes no sense.
    #[error("{field} must be {expected}, not {value}")]
    Value {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A plan names a layer that the network does not have, or that has no weights to compress.
    #[error("{field} names the layer '{layer}', and the network's layers with weights are {known}")]
    Layer {
        /// The field.
        field: &'static str,
        /// What it names.
        layer: String,
        /// The layers there are.
        known: String,
    },
    /// A plan's text cannot be read.
    #[error("{0}")]
    Plan(String),
    /// The plan trains or measures, and there is no data.
    #[error("{0} needs data: name a data set")]
    NoData(&'static str),
    /// Codebooks are to be fine-tuned, and a layer's weights share no values.
    #[error("the weights of '{0}' share no values that could be fine-tuned; give a number of bits")]
    NotShared(String),
    /// Training was stopped.
    #[error("stopped")]
    Interrupted,
    /// Training failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// Weights do not fit or cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// Images cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The network cannot be run.
    #[error(transparent)]
    Inference(#[from] InferenceError),
}
