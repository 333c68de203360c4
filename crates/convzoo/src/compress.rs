//! Deep Compression of a network: pruning, retraining under the mask, codebooks and their fine-tuning, each a step that
//! can be left out; then [`weights::save_compressed`](crate::weights::save_compressed) codes what is left.
//!
//! ```no_run
//! use convzoo::compress::{Compression, Plan};
//! use convzoo::{Options, create, device, weights};
//!
//! let network = create("squeezenet1_0", &Options::default(), &device::open("flex")?.autodiff())?;
//! let network = weights::load(network, "squeezenet1_0.safetensors".as_ref())?;
//! let mut compression = Compression::new(network)?;
//! compression.run(&Plan::of_bits(6))?;
//! weights::save_compressed(compression.network(), "squeezenet1_0.czc".as_ref())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod layers;
mod plan;
mod steps;

pub use convzoo_compress::{Archive, Codebook, Entry, Mask, Sizes, Tensor, prune, sizes, write};
pub use error::CompressError;
pub use layers::{Layer, layers};
pub use plan::{PerLayer, Plan, Sparsity};
pub use steps::{Compression, Step, Told, Training};
