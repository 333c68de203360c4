//! Networks that run whole: a graph of operations is folded, planned for an input's shape, and run without further
//! allocation.
//!
//! ```
//! use convzoo_kernels::conv::ConvShape;
//! use convzoo_kernels::elementwise::Activation;
//! use convzoo_kernels::engine::Graph;
//!
//! // Two 1×1 filters over one channel, and a ReLU.
//! let mut graph = Graph::new(1);
//! let input = graph.input();
//! let maps = graph.conv(input, ConvShape::square(1, 2, 1), vec![1.0, -1.0], None)?;
//! let output = graph.activation(maps, Activation::Relu);
//! let network = graph.finish(output)?;
//! assert_eq!(network.run([1, 1, 1, 2], &[3.0, -4.0])?.values, [3.0, 0.0, 0.0, 4.0]);
//! # Ok::<(), convzoo_kernels::KernelError>(())
//! ```

mod choose;
mod compile;
mod fold;
mod graph;
mod memory;
mod network;
mod plan;
mod profile;

pub use compile::{CompileError, compile};
pub use graph::{Graph, Value};
pub use network::{Network, Output};
pub use plan::Plan;
pub use profile::{Kind, Profile, Stage};
