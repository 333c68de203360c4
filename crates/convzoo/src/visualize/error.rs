use burn::tensor::TensorReadError;
use convzoo_data::DataError;
use convzoo_models::ModelError;
use convzoo_report::ReportError;
use thiserror::Error;

/// Why something cannot be shown.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VisualizeError {
    /// The image cannot be read.
    #[error(transparent)]
    Image(#[from] DataError),
    /// The network does not take such images.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A picture cannot be drawn.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// No layer of this name.
    #[error("there is no layer '{name}'; {}", hint(.name, .nearest))]
    Layer {
        /// What was asked for.
        name: String,
        /// The layers inside a block of this name, or else those whose names are nearest.
        nearest: Vec<String>,
    },
    /// No class of this number.
    #[error("there is no class {class}: the network has {classes}, numbered from 0 to {}", .classes.saturating_sub(1))]
    Class {
        /// What was asked for.
        class: usize,
        /// How many there are.
        classes: usize,
    },
    /// No channel of this number.
    #[error("the layer '{layer}' has no channel {channel}: it has {channels}, numbered from 0")]
    Channel {
        /// The layer.
        layer: String,
        /// What was asked for.
        channel: usize,
        /// How many there are.
        channels: usize,
    },
    /// No cell at this position.
    #[error("the output of layer '{layer}' is {}×{}×{} and has no cell {cell:?}", .output[0], .output[1], .output[2])]
    Cell {
        /// The layer.
        layer: String,
        /// Channel, row and column asked for.
        cell: [usize; 3],
        /// Channels, rows and columns there are.
        output: [usize; 3],
    },
    /// A layer whose output has no height and width.
    #[error("the layer '{layer}' has one value per channel, which no picture shows; choose a layer before it")]
    NoMap {
        /// The layer.
        layer: String,
    },
    /// A layer without filters.
    #[error("the layer '{layer}' is of kind {kind} and has no filters; convolutions have: {}", .convolutions.join(", "))]
    NoFilters {
        /// The layer.
        layer: String,
        /// Its kind.
        kind: &'static str,
        /// The nearest layers that have.
        convolutions: Vec<String>,
    },
    /// An occluder that does not fit the image.
    #[error("an occluder of {window} pixels, moved by {stride}, does not fit images of {height}×{width}: both must be from 1 to {}", .height.min(.width))]
    Occluder {
        /// The covered square's side.
        window: usize,
        /// Pixels between positions.
        stride: usize,
        /// The image's rows.
        height: usize,
        /// The image's columns.
        width: usize,
    },
    /// The device failed.
    #[error("the device did not answer: {0}")]
    Device(String),
}

impl From<TensorReadError> for VisualizeError {
    fn from(error: TensorReadError) -> Self {
        Self::Device(error.to_string())
    }
}

fn hint(name: &str, nearest: &[String]) -> String {
    let inside = format!("{name}.");
    match nearest {
        [] => "`convzoo summary` names them all".to_owned(),
        names if names.iter().all(|layer| layer.starts_with(&inside)) => {
            format!("inside the block of that name are {}", names.join(", "))
        }
        names => format!("did you mean {}? `convzoo summary` names them all", names.join(", ")),
    }
}
