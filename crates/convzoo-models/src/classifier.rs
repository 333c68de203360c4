use std::path::Path;

use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::names::NameRules;
use crate::weights::{Metadata, WeightsError};

/// What all networks of the zoo do, and what a network of your own must do to be trained and inspected like them.
pub trait Classifier: Module {
    /// Images `[batch, channels, height, width]` to the last feature map `[batch, channels', height', width']`.
    fn forward_features(&self, images: Tensor<4>) -> Tensor<4>;

    /// The last feature map to logits `[batch, classes]`.
    fn forward_head(&self, features: Tensor<4>) -> Tensor<2>;

    /// Images `[batch, channels, height, width]` to logits `[batch, classes]`.
    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.forward_head(self.forward_features(images))
    }

    /// [`forward`](Self::forward) with the logits of auxiliary classifiers, where the network has them.
    fn forward_train(&self, images: Tensor<4>) -> Outputs {
        Outputs { logits: self.forward(images), auxiliary: Vec::new() }
    }

    /// Exchanges the last layer (and those of auxiliary classifiers) for fresh ones of `classes` outputs.
    fn replace_head(self, classes: usize) -> Self;

    /// How images become the input that published weights were trained on.
    fn preprocessing(&self) -> Preprocessing {
        Preprocessing::IMAGENET
    }

    /// What a weights file remembers of the network besides its tensors.
    fn metadata(&self) -> Option<Metadata> {
        None
    }

    /// How paths in the module tree are spelled in the reference's state dict, where they differ.
    fn names(&self) -> NameRules {
        NameRules::default()
    }
}

/// What a network answers in training.
#[derive(Debug, Clone)]
pub struct Outputs {
    /// `[batch, classes]`.
    pub logits: Tensor<2>,
    /// Logits of the auxiliary classifiers, from the first to the last in the network, each `[batch, classes]`.
    pub auxiliary: Vec<Tensor<2>>,
}

/// How an image becomes a network's input: resized, cropped, scaled to 0…1, normalised per channel.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Preprocessing {
    /// Height and width of the input.
    pub size: [usize; 2],
    /// What the shorter side is resized to before the centre crop; `None` resizes straight to `size`.
    pub resize: Option<usize>,
    /// How pixels are interpolated.
    pub interpolation: Interpolation,
    /// Subtracted from each channel.
    pub mean: [f32; 3],
    /// What each channel is then divided by.
    pub std: [f32; 3],
}

/// Interpolation in resizing, antialiased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// Linear in each direction.
    Bilinear,
    /// Cubic in each direction.
    Bicubic,
}

impl Preprocessing {
    /// torchvision's for ImageNet: shorter side 256, centre crop 224.
    pub const IMAGENET: Self = Self {
        size: [224; 2],
        resize: Some(256),
        interpolation: Interpolation::Bilinear,
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
    };

    /// For small images as they are: no resizing beyond `size`, ImageNet's mean and deviation.
    pub const fn small(size: usize) -> Self {
        Self { size: [size; 2], resize: None, ..Self::IMAGENET }
    }

    /// Refuses what a file cannot mean: no size, an image blown up beyond all bounds, a division by nothing.
    pub(crate) fn checked(self, path: &Path) -> Result<Self, WeightsError> {
        let [height, width] = self.size;
        let smallest = height.min(width).min(MOST_PIXELS);
        let sizes = [height, width].iter().all(|side| (1..=MOST_PIXELS).contains(side))
            && self.resize.is_none_or(|shorter| (1..=MOST_RESIZED * smallest).contains(&shorter));
        let normalises =
            self.mean.iter().all(|mean| mean.is_finite()) && self.std.iter().all(|std| std.is_finite() && *std > 0.0);
        if sizes && normalises {
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
