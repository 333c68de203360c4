//! The classic convolutional networks on every Burn backend.
//!
//! [`create`] makes a network by name on a device that is chosen at run time ([`device`]); [`weights`] brings what
//! PyTorch users have; [`train`] trains it.
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
pub mod device;
pub mod embed;
pub mod pretrained;
pub mod tensor_file;
pub mod visualize;

pub use classify::{
    ClassifyError, Prediction, classify, classify_batch, classify_file, classify_prepared, classify_ten_crops, prepare,
};
pub use convzoo_blocks as blocks;
pub use convzoo_data as data;
pub use convzoo_models::*;
pub use convzoo_report as report;
pub use convzoo_train as train;
