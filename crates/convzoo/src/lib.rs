//! The classic convolutional networks on Burn's backends.
//!
//! [`create`] makes a network by name on a device that is chosen at run time ([`device`]), [`create_pretrained`] one with
//! published weights, [`classify`] classifies an image; [`weights`] brings what PyTorch users have.
//!
//! | feature | adds |
//! |---|---|
//! | `flex`, `ndarray`, `tch`, `wgpu`, `cuda`, `remote` | the device of that name |
//! | `train` | `train`: recipes, the training loop, evaluation; `compress`: Deep Compression |
//! | `visualize` | `visualize`, `draw` and `report`: Grad-CAM and other visualizations, networks as pictures, charts, pages |
//! | `cli` | the program `convzoo`, and all that it needs of these |
//!
//! Without default features, a device's feature alone is what a program needs that classifies images.
//!
//! ```
//! use convzoo::{Classifier, Options, create, device};
//! use burn::tensor::Tensor;
//!
//! let device = device::open("flex")?;
//! let network = create("squeezenet1_1", &Options::default().with_classes(10), &device)?;
//! let logits = network.forward(Tensor::zeros([1, 3, 64, 64], &device));
//! assert_eq!(logits.dims(), [1, 10]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod classify;
#[cfg(feature = "train")]
pub mod compress;
pub mod device;
#[cfg(feature = "visualize")]
pub mod draw;
pub mod embed;
#[cfg(feature = "remote")]
mod front;
mod preprocess;
pub mod pretrained;
pub mod tensor_file;
#[cfg(feature = "visualize")]
pub mod visualize;

pub use burn;
pub use classify::{
    ClassifyError, Prediction, classify, classify_batch, classify_file, classify_prepared, classify_ten_crops, prepare,
};
pub use convzoo_data as data;
pub use convzoo_graph as graph;
pub use convzoo_models::*;
#[cfg(feature = "visualize")]
pub use convzoo_report as report;
#[cfg(feature = "train")]
pub use convzoo_train as train;
pub use preprocess::preprocess;
pub use pretrained::create_pretrained;
