use std::path::{Path, PathBuf};

use convzoo_data::DataError;
use convzoo_models::ModelError;
use convzoo_models::weights::WeightsError;
use thiserror::Error;

/// Why a run cannot start, or why it ended early.
#[derive(Debug, Error)]
pub enum TrainError {
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// An image of the data is damaged.
    #[error("{0}; replace the file, or leave such images out with --skip-corrupt")]
    Corrupt(DataError),
    /// The network does not fit the data.
    #[error(transparent)]
    Model(#[from] ModelError),
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
    /// A recipe file that is not one.
    #[error("{} is no recipe: {reason}", .path.display())]
    RecipeFile {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        reason: String,
    },
    /// The network tells other numbers of classes apart than the data has.
    #[error("the network tells {network} classes apart and the data has {data}")]
    Classes {
        /// Of the network.
        network: usize,
        /// Of the data.
        data: usize,
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
    /// The folder holds no run.
    #[error("{} holds no run that could be resumed: {reason}", .path.display())]
    NotResumable {
        /// The folder.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// The run has done all its epochs.
    #[error("the run in {} has finished its {epochs} epochs", .path.display())]
    Finished {
        /// The folder.
        path: PathBuf,
        /// Its epochs.
        epochs: usize,
    },
    /// The loss is no number any more.
    #[error(
        "the loss became {loss} in epoch {epoch}; a smaller --learning-rate (now {learning_rate}) usually helps. \
         The epochs before are kept"
    )]
    Diverged {
        /// NaN or infinite.
        loss: f64,
        /// The epoch it happened in.
        epoch: usize,
        /// The recipe's rate.
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
