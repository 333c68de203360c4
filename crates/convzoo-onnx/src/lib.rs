//! Convolutional networks as [ONNX](https://onnx.ai) files.
//!
//! [`export`] makes a [`Model`] of a computation graph and its weights, [`export_quantized`] of one that computes in bytes;
//! the model writes itself to a file; [`Contents`] are
//! what such a file, or one of another exporter, holds, and [`Contents::weights`] finds a network's weights in it.
//!
//! ```
//! use convzoo_graph::{Activation, Builder, Operation, Window};
//! use convzoo_onnx::{Contents, Norms, export};
//!
//! // A 3×3 convolution, 3 to 8 channels, without weights, on images of 32×32, and a ReLU.
//! let mut graph = Builder::new([3, 32, 32]);
//! let window = Window::square(3).padded(1);
//! let maps = graph.add(Operation::Conv2d { outputs: 8, window, groups: 1, bias: false }, &[graph.input()]);
//! let maps = graph.add(Operation::Activation(Activation::Relu), &[maps]);
//! let graph = graph.finish(maps)?;
//! // The graph names no weights, so there is nothing to convolve with.
//! let error = export(&graph, Norms::Folded, |_| None::<Vec<f32>>).err().map(|error| error.to_string());
//! assert_eq!(error.as_deref(), Some("operation 1 of the network, Conv2d, lacks its weights"));
//! # Ok::<(), convzoo_graph::GraphError>(())
//! ```

mod bytes;
mod error;
mod export;
mod layers;
mod matching;
mod model;
mod operations;
mod proto;
mod read;
mod wire;

pub use error::{ExportError, ReadError};
pub use export::{Norms, export, export_quantized};
pub use matching::{Source, Weights};
pub use model::{MOST_BYTES, Model, OPSET};
pub use read::{Contents, ElementType, Place, Stored};
