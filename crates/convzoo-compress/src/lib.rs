//! Deep Compression (Han, Mao, Dally, [arXiv:1510.00149](https://arxiv.org/abs/1510.00149)) of weights as plain arrays.
//!
//! [`prune`] zeroes the smallest weights, a [`Codebook`] has the others share a few values, [`write()`] codes what is left
//! without loss, [`Archive`] reads it back. Each step works alone, and none needs the others.
//!
//! ```
//! use convzoo_compress::{Archive, Codebook, Tensor, prune, write};
//!
//! let mut weights: Vec<f32> = (0..1000).map(|i| (i as f32).sin()).collect();
//! prune(&mut weights, 0.9);
//! let weights = Codebook::fit(&weights, 4).weights();
//! let tensor = Tensor { name: "fc.weight".into(), shape: vec![10, 100], values: weights.clone() };
//! let file = write("", &[tensor]);
//! assert!(file.len() < 250, "{} bytes", file.len());
//! assert_eq!(Archive::read(file)?.values(0)?, weights);
//! # Ok::<(), convzoo_compress::FormatError>(())
//! ```

mod bits;
mod codebook;
mod coding;
mod error;
mod file;
mod huffman;
mod prune;

pub use codebook::{Codebook, MOST_BITS};
pub use coding::Sizes;
pub use error::FormatError;
pub use file::{Archive, Entry, MAGIC, Tensor, write};
pub use prune::{Mask, prune};

/// Bytes that a tensor takes after each step of the method, losslessly.
pub fn sizes(values: &[f32]) -> Sizes {
    coding::encode(values).1
}
