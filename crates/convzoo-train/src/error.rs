use std::path::{Path, PathBuf};

use convzoo_data::DataError;
use convzoo_models::quantize::QuantizeError;
use convzoo_models::weights::WeightsError;
use convzoo_models::{InferenceError, ModelError};
use convzoo_report::ReportError;
use thiserror::Error;

/// Why a run cannot start, or why it ended early.
#[derive(Debug, Error)]
pub enum TrainError {
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Images cannot be loaded.
    #[error("{0}")]
    Unread(String),
    /// An image of the data is damaged.
    #[error("{0}; replace the file, or leave such images out with --skip-corrupt")]
    Corrupt(DataError),
    /// The network does not fit the data.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The network returns no logits for the images.
    #[error(transparent)]
    Inference(#[from] InferenceError),
    /// The network cannot be quantized.
    #[error(transparent)]
    Quantize(#[from] QuantizeError),
    /// Weights cannot be read or written.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A recipe's value that makes no sense.
    #[error("{field} must be {expected}, not {value}")]
    Recipe {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A device that does not compute in the recipe's precision.
    #[error("{device} does not compute in {precision}; train in another precision or on another device")]
    Precision {
        /// The recipe's precision.
        precision: String,
        /// The device.
        device: String,
    },
    /// A layer to freeze that the network does not have.
    #[error(
        "the network has no layer or block '{name}' to freeze; {}. 'backbone' is all before the head",
        nearest_layers(.nearest)
    )]
    Layer {
        /// What was asked for.
        name: String,
        /// The nearest names there are.
        nearest: Vec<String>,
    },
    /// A recipe file that is not one.
    #[error("{} is no recipe: {reason}", .path.display())]
    RecipeFile {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        reason: String,
    },
    /// A change of a recipe that makes none.
    #[error("the recipe cannot be changed so: {reason}")]
    Override {
        /// What the parser says.
        reason: String,
    },
    /// No recipe has this name.
    #[error(
        "there is no recipe '{name}'{}; there are {}",
        .nearest.map(|nearest| format!(", did you mean {nearest}?")).unwrap_or_default(),
        .known.join(", ")
    )]
    UnknownRecipe {
        /// The name that was asked for.
        name: String,
        /// The name nearest to it, if one is near.
        nearest: Option<&'static str>,
        /// All names.
        known: Vec<&'static str>,
    },
    /// Checkpointing of a network of which nothing can be computed twice.
    #[error(
        "the network has no blocks, residual or otherwise, and no normalized convolutions that checkpointing could compute \
         twice: it would save no memory. Train it without"
    )]
    NoSegments,
    /// The network has another number of classes than the data.
    #[error("the network has {network} classes and the data {data}")]
    Classes {
        /// Of the network.
        network: usize,
        /// Of the data.
        data: usize,
    },
    /// The recipe has another number of class weights than the data has classes.
    #[error("class_weights has {weights} weights, and the data has {classes} classes")]
    ClassWeights {
        /// In the recipe.
        weights: usize,
        /// Of the data.
        classes: usize,
    },
    /// A file or folder cannot be read or written.
    #[error("cannot {verb} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The folder holds a run already.
    #[error("{} holds a run already; resume it with --resume, or choose another --out", .0.display())]
    Occupied(PathBuf),
    /// Another process has the run in this folder under way.
    #[error("{} holds a run that is under way; wait for its end, or stop it first", .0.display())]
    Running(PathBuf),
    /// The data is not what the run began with.
    #[error(
        "the data has changed since the run in {} began: {changes}. Put it back to resume the run, or begin another with \
         --weights {}",
        .path.display(),
        .path.join("last.safetensors").display()
    )]
    Changed {
        /// The run's folder.
        path: PathBuf,
        /// What is another now.
        changes: String,
    },
    /// No thread can be made.
    #[error("no thread can be made to load images: {0}. Fewer --workers, or a higher limit (ulimit -u), help")]
    Thread(std::io::Error),
    /// The folder holds no run.
    #[error("{} holds no run that could be resumed: {reason}", .path.display())]
    NotResumable {
        /// The folder.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// The run has done all its epochs, or as many as early stopping lets pass.
    #[error(
        "the run in {} has ended after {epochs} epochs; a higher number of --epochs continues it, unless early_stopping has \
         ended it",
        .path.display()
    )]
    Finished {
        /// The folder.
        path: PathBuf,
        /// Its epochs.
        epochs: usize,
    },
    /// A checkpoint cannot be written or read.
    #[error("cannot {verb} the checkpoint {}: {reason}; the earlier ones are kept", .path.display())]
    Checkpoint {
        /// What was tried.
        verb: &'static str,
        /// Its folder.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// A report cannot be drawn or written.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The loss is no number any more.
    #[error(
        "the loss on the {images} images became {loss} in epoch {epoch}, at step {step} with the learning rate {learning_rate}. A smaller \
         learning_rate, a warm-up (warmup_epochs) or clip_norm usually helps. The checkpoints before are kept"
    )]
    Diverged {
        /// Which images: training or test.
        images: &'static str,
        /// NaN or infinite.
        loss: f64,
        /// The epoch it happened in.
        epoch: usize,
        /// The optimizer's step, counted from 1 at the run's beginning.
        step: usize,
        /// The rate of that step.
        learning_rate: f64,
    },
    /// burn-train stopped on an error.
    #[error("training stopped: {0}")]
    Stopped(String),
}

impl TrainError {
    /// For `map_err` on file operations.
    pub(crate) fn io(verb: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { verb, path: path.to_owned(), source }
    }
}

fn nearest_layers(nearest: &[String]) -> String {
    match nearest {
        [] => "it has no layers with weights, normalization or pooling".to_owned(),
        _ => format!("did you mean {}? `convzoo summary` names them all", nearest.join(", ")),
    }
}
