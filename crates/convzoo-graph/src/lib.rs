//! The computation graph of a convolutional network: its operations in the order in which they run, with their inputs,
//! output shapes, layer names and parameters.
//!
//! A [`Graph`] is plain data. It knows no tensor library and no kernels, so that everything that needs a network's
//! structure reads it the same way: summaries, receptive fields, compiled inference, drawings, export. Networks record
//! theirs by a symbolic forward pass; a [`Builder`] adds operations one by one and checks their shapes.
//!
//! ```
//! use convzoo_graph::{Activation, Builder, Operation, Window};
//!
//! // A 3×3 convolution, 3 to 8 channels, on images of 32×32, and a ReLU.
//! let mut graph = Builder::new([3, 32, 32]);
//! let window = Window::square(3).padded(1);
//! let maps = graph.add(Operation::Conv2d { outputs: 8, window, groups: 1, bias: true }, &[graph.input()]);
//! let maps = graph.add(Operation::Activation(Activation::Relu), &[maps]);
//! let graph = graph.finish(maps)?;
//! assert_eq!(graph.output().shape, [8, 32, 32]);
//! assert_eq!(graph.nodes()[1].macs, 8 * 3 * 3 * 3 * 32 * 32);
//! # Ok::<(), convzoo_graph::GraphError>(())
//! ```

pub mod arithmetic;
mod builder;
mod error;
mod graph;
mod operation;
mod quantized;
mod receptive_field;

pub use builder::Builder;
pub use error::GraphError;
pub use graph::{Graph, Node, Parameter};
pub use operation::{Activation, Operation, Window};
pub use quantized::{Quantized, QuantizedLayer, QuantizedValue};
pub use receptive_field::ReceptiveField;
