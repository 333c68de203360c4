//! Drawings of convolutional networks.
//!
//! A [`Drawing`] reads a network's [`Graph`](convzoo_graph::Graph) and the names of its layers, which say what its blocks
//! are. It knows no network and no tensor library.
//!
//! ```
//! use convzoo_draw::Drawing;
//! use convzoo_graph::{Activation, Builder, Operation, Window};
//!
//! let mut graph = Builder::new([3, 32, 32]);
//! let window = Window::square(3).padded(1);
//! let maps = graph.add(Operation::Conv2d { outputs: 8, window, groups: 1, bias: true }, &[graph.input()]);
//! let maps = graph.add(Operation::Activation(Activation::Relu), &[maps]);
//! let drawing = Drawing::new("a convolution", graph.finish(maps)?);
//! assert!(drawing.svg().contains("Conv 3×3 · ReLU"));
//! # Ok::<(), convzoo_graph::GraphError>(())
//! ```

mod dot;
mod drawing;
mod error;
mod histogram;
mod label;
mod layout;
mod level;
mod page;
mod svg;
mod tree;

pub use drawing::Drawing;
pub use error::DrawError;
pub use histogram::Histogram;
pub use page::Picture;
pub use svg::STYLE;
