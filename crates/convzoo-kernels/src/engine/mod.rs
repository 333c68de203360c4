//! Compiled networks: a graph of operations is folded, planned for an input's shape, and run without further
//! allocation. To read in this order:
//!
//! - [`graph`]: what a network computes; [`node`] is an operation of it.
//! - [`fold`]: scales, sums and activations become part of the convolutions before them.
//! - [`network`]: the folded graph and its packed [`weights`]; keeps the plans of the last shapes.
//! - [`plan`]: for one shape the kernels that run, the layout ([`layouts`]) and place ([`memory`]) of each tensor, and the
//!   run itself.
//!   Which algorithm computes a convolution, [`cost`](crate::cost) says.
//! - [`quantize`]: the same network in bytes, by given scales.
//! - [`profile`]: where the time of a run goes.
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

mod compile;
mod fold;
mod graph;
mod layouts;
mod memory;
mod network;
mod node;
mod passes;
mod plan;
mod profile;
mod quantize;
mod weights;

pub use compile::{CompileError, compile};
pub use graph::{Graph, Value};
pub use network::CompiledNetwork;
pub use plan::{ExecutionPlan, Output};
pub use profile::{Profile, ProfiledStep, StepKind};
pub use quantize::{EngineValue, EngineWeight, Scales};
