//! Networks in the browser: the page's worker asks, this answers.
//!
//! The page brings a network's *description*, which `convzoo draw NETWORK -o NETWORK.json` writes: its graph, how images
//! are prepared for it, pictures of its blocks. Weights are files as the command line reads them. The graph and the weights
//! are compiled by the same engine that the command line infers with on a CPU
//! ([`convzoo_kernels::engine`]); Burn is no part of the program, which therefore loads in a moment.
//!
//! - [`Request`]: what can be asked; a [`Session`] keeps the network and the image, and answers.
//! - [`Weights`]: tensors by name, of safetensors, quantized or not, or of `convzoo compress`.
//! - [`Network`]: a graph with weights. Any node's output is had by compiling the graph up to it.
//! - [`products`]: how one value of a feature map comes about.
//! - [`grad_cam`], [`occlusion`]: what speaks for a class.
//! - `abi`: how bytes come into WebAssembly's memory and out of it again. Everything else is plain Rust, and tested so.

#[cfg(target_arch = "wasm32")]
mod abi;
mod error;
pub mod grad_cam;
mod network;
pub mod occlusion;
pub mod products;
mod session;
mod weights;

pub use error::WebError;
pub use network::{Description, Interpolation, Network, Prediction, Preparation};
pub use session::{Answer, Request, Session};
pub use weights::{About, Tensor, Weights};
