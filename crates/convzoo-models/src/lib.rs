//! The classic convolutional networks, each defined once and numerically equal to its reference.
//!
//! [`create`] makes any of them by name; a family's file reads like its paper: citation, table of variants, network,
//! forward. All of them are [`Classifier`]s.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use convzoo_models::{Classifier, Options, create};
//!
//! let device = Device::flex();
//! let network = create("lenet5", &Options::default(), &device)?;
//! let logits = network.forward(Tensor::zeros([1, 1, 32, 32], &device));
//! assert_eq!(logits.dims(), [1, 10]);
//! # Ok::<(), convzoo_models::ModelError>(())
//! ```

mod checkpointing;
mod classifier;
mod error;
pub mod families;
mod fused;
pub mod imagenet;
mod names;
pub mod onnx;
mod published;
pub mod quantize;
mod registry;
mod stages;
mod summary;
pub mod weights;
mod widths;

pub use checkpointing::checkpointed_bytes;
pub use classifier::{Classifier, Interpolation, Outputs, Preprocessing, record};
pub use convzoo_blocks as blocks;
pub use error::ModelError;
pub use fused::{Fused, FusedProfile, FusedStage, Inference, InferenceError, Precision, Predict};
pub use names::{StateEntry, layer_names, tensor_names};
pub use published::{Published, SERVER, published};
pub use registry::*;
pub use stages::{FeatureInfo, feature_info, features};
pub use summary::{LayerSummary, Summary, summarize, summarize_features};
