use std::path::Path;

use burn::module::Module;
use burn::tensor::Tensor;
use convzoo_blocks::graph::Graph;
use convzoo_blocks::{FeatureMap, Symbol};
use serde::{Deserialize, Serialize};

use crate::ModelError;
use crate::names;
use crate::quantize::Quantization;
use crate::weights::{Metadata, WeightsError};

/// What all networks of the zoo implement, and what a network of your own must implement to be trained, inspected and
/// compiled like them.
///
/// The forward pass is written once, for any [`FeatureMap`]: on a tensor it computes, on a
/// [`Checkpointed`](convzoo_blocks::Checkpointed) one it keeps less for the backward pass, on a [`Symbol`] it records the
/// network's graph, on an [`Observed`](convzoo_blocks::Observed) tensor it shows every layer.
pub trait Classifier: Module {
    /// Images `[batch, channels, height, width]` to the last feature map `[batch, channels', height', width']`.
    fn forward_features<M: FeatureMap>(&self, images: M) -> M;

    /// The last feature map to logits `[batch, classes]`.
    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector;

    /// Images `[batch, channels, height, width]` to logits `[batch, classes]`.
    fn forward<M: FeatureMap>(&self, images: M) -> M::Vector {
        self.forward_head(self.forward_features(images))
    }

    /// [`forward`](Self::forward) with the logits of auxiliary classifiers, where the network has them.
    fn forward_train<M: FeatureMap>(&self, images: M) -> Outputs<M::Vector> {
        Outputs { logits: self.forward(images), auxiliary: Vec::new() }
    }

    /// The operations of [`forward`](Self::forward) in inference, for images of `[channels, height, width]`, with the
    /// reference's names. Nothing is computed, and no weight is drawn.
    ///
    /// # Errors
    /// The network does not take such images.
    fn graph(&self, input: [usize; 3]) -> Result<Graph, ModelError> {
        record(self, input, |images| self.forward(images))
    }

    /// Replaces the last layer (and those of auxiliary classifiers) with newly initialized ones of `classes` outputs.
    fn replace_head(self, classes: usize) -> Self;

    /// How images become the input that published weights were trained on.
    fn preprocessing(&self) -> Preprocessing {
        Preprocessing::IMAGENET
    }

    /// What a weights file stores of the network besides its tensors.
    fn metadata(&self) -> Option<Metadata> {
        None
    }

    /// How it computes in bytes, if it was quantized.
    fn quantization(&self) -> Option<&Quantization> {
        None
    }

    /// The network with another [`quantization`](Self::quantization), or without; networks that cannot have one stay as they
    /// are.
    fn with_quantization(self, quantization: Option<Quantization>) -> Self {
        let _ = quantization;
        self
    }

    /// The reference's name of the tensor at a path of the module tree, `["conv1", "norm", "weight"]` say, where it is
    /// not the path itself. Layers without tensors have a path of their own, too, that ends in `id`.
    fn reference_name(&self, path: &[&str]) -> String {
        path.join(".")
    }

    /// The reference's name of a tensor in a file that may use an older name.
    fn respell(&self, name: &str) -> String {
        name.to_owned()
    }

    /// Layers that files may lack, since only training uses them, by the reference's names.
    fn optional_layers(&self) -> &'static [&'static str] {
        &[]
    }
}

/// The graph of a `pass` through `network`, of its features say, with the reference's names, for images of
/// `[channels, height, width]`.
///
/// # Errors
/// The network does not take such images.
pub fn record<N: Classifier, const D: usize>(
    network: &N,
    input: [usize; 3],
    pass: impl FnOnce(Symbol<4>) -> Symbol<D>,
) -> Result<Graph, ModelError> {
    Ok(names::name_graph(network, Symbol::record(input, pass)?))
}

/// What a network returns in training.
#[derive(Debug, Clone)]
pub struct Outputs<V = Tensor<2>> {
    /// `[batch, classes]`.
    pub logits: V,
    /// Logits of the auxiliary classifiers, from the first to the last in the network, each `[batch, classes]`.
    pub auxiliary: Vec<V>,
}

/// How an image becomes a network's input: resized, cropped, scaled to 0…1, normalized per channel.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Preprocessing {
    /// Height and width of the input.
    pub size: [usize; 2],
    /// Size of the shorter side after resizing, before the center crop; `None` resizes straight to `size`.
    pub resize: Option<usize>,
    /// Interpolation in resizing.
    pub interpolation: Interpolation,
    /// Mean, subtracted from each channel.
    pub mean: [f32; 3],
    /// Standard deviation, which each channel is then divided by.
    pub std: [f32; 3],
}

/// Interpolation in resizing, antialiased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// Bilinear.
    Bilinear,
    /// Bicubic.
    Bicubic,
}

impl Preprocessing {
    /// torchvision's for ImageNet: resize the shorter side to 256, center crop 224.
    pub const IMAGENET: Self = Self {
        size: [224; 2],
        resize: Some(256),
        interpolation: Interpolation::Bilinear,
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
    };

    /// For small images as they are: no resizing beyond `size`, ImageNet's mean and standard deviation.
    pub const fn small(size: usize) -> Self {
        Self { size: [size; 2], resize: None, ..Self::IMAGENET }
    }

    /// The same for inputs of another size: what images are resized to before the crop grows or shrinks alike.
    pub fn with_size(self, size: [usize; 2]) -> Self {
        let shorter = |size: [usize; 2]| size[0].min(size[1]).max(1);
        let resize = self.resize.map(|resize| resize * shorter(size) / shorter(self.size));
        Self { size, resize, ..self }
    }

    /// Refuses preprocessing that no file can mean: an empty size, a huge resize, a division by zero.
    pub(crate) fn checked(self, path: &Path) -> Result<Self, WeightsError> {
        let [height, width] = self.size;
        let smallest = height.min(width).min(MOST_PIXELS);
        let sizes = [height, width].iter().all(|side| (1..=MOST_PIXELS).contains(side))
            && self.resize.is_none_or(|shorter| (1..=MOST_RESIZED * smallest).contains(&shorter));
        let normalizes =
            self.mean.iter().all(|mean| mean.is_finite()) && self.std.iter().all(|std| std.is_finite() && *std > 0.0);
        if sizes && normalizes {
            return Ok(self);
        }
        let reason = format!("it describes an impossible preprocessing: {self:?}");
        Err(WeightsError::Damaged { path: path.to_owned(), reason })
    }
}

/// The largest side of an input that a file may ask for.
const MOST_PIXELS: usize = 1 << 14;

/// How many times its input a file may have images resized to.
const MOST_RESIZED: usize = 8;
