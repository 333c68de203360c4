use convzoo_compress::{Sizes, Tensor, sizes};
use serde::Serialize;

/// A layer's weights as they are stored.
#[derive(Clone, Debug, Serialize)]
pub struct Layer {
    /// Its name; that of the tensor without `.weight`.
    pub name: String,
    /// How many weights it has.
    pub weights: usize,
    /// How many of them are not zero.
    pub left: usize,
    /// How many values other than zero they have.
    pub values: usize,
    /// Bytes as 32-bit numbers.
    pub bytes: usize,
    /// Bytes as 32-bit numbers that are not zero, with the gaps between them.
    pub pruned: usize,
    /// Bytes with indices into a codebook in place of the numbers.
    pub shared: usize,
    /// Bytes with Huffman codes, in the file.
    pub coded: usize,
}

/// Whether a tensor is one whose weights are pruned and shared: of a convolution or a fully-connected layer. Biases and
/// norms are few, and stay.
pub(super) fn is_compressed(tensor: &Tensor) -> bool {
    tensor.shape.len() >= 2 && tensor.name.ends_with(WEIGHT)
}

const WEIGHT: &str = ".weight";

/// The name of the layer that a weight belongs to.
pub(super) fn layer_of(tensor: &Tensor) -> &str {
    tensor.name.strip_suffix(WEIGHT).unwrap_or(&tensor.name)
}

/// What each layer takes after each step, and in the last row all biases and norms.
pub fn layers(tensors: &[Tensor]) -> Vec<Layer> {
    let row = |tensor: &Tensor| {
        let Sizes { raw, pruned, shared, coded } = sizes(&tensor.values);
        let left = tensor.values.iter().filter(|value| **value != 0.0);
        let mut values: Vec<u32> = left.clone().map(|value| value.to_bits()).collect();
        values.sort_unstable();
        values.dedup();
        let (name, weights) = (layer_of(tensor).to_owned(), tensor.values.len());
        Layer { name, weights, left: left.count(), values: values.len(), bytes: raw, pruned, shared, coded }
    };
    let (weights, others): (Vec<_>, Vec<_>) = tensors.iter().partition(|tensor| is_compressed(tensor));
    let mut rows: Vec<Layer> = weights.into_iter().map(row).collect();
    let others = others.into_iter().map(row).reduce(|all, one| Layer {
        name: all.name,
        weights: all.weights + one.weights,
        left: all.left + one.left,
        values: all.values + one.values,
        bytes: all.bytes + one.bytes,
        pruned: all.pruned + one.pruned,
        shared: all.shared + one.shared,
        coded: all.coded + one.coded,
    });
    rows.extend(others.map(|others| Layer { name: "biases, norms".to_owned(), ..others }));
    rows
}
