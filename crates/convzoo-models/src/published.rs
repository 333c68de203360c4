//! Weights that others have published for the networks here; each family's file lists its own.

use std::path::Path;

use burn::tensor::Device;

use crate::registry::{create_from, variant, variants};
use crate::weights::{Checkpoint, WeightsError};
use crate::{Interpolation, ModelError, Network, Options, Preprocessing, imagenet};

/// The server that torchvision's weights are on.
pub const SERVER: &str = "https://download.pytorch.org/models";

/// One set of published weights, trained on ImageNet's 1,000 classes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Published {
    /// The network.
    pub model: &'static str,
    /// The weights' name among the network's.
    pub name: &'static str,
    /// The file on [`SERVER`].
    pub file: &'static str,
    /// Top-1 accuracy on ImageNet's validation images, in percent, as torchvision states it.
    pub top1: f64,
    /// Top-5 accuracy on the same images, in percent.
    pub top5: f64,
    /// How images were preprocessed for these accuracies.
    pub preprocessing: Preprocessing,
}

impl Published {
    pub(crate) const fn new(
        model: &'static str,
        name: &'static str,
        file: &'static str,
        top1: f64,
        top5: f64,
        resize: usize,
    ) -> Self {
        let preprocessing = Preprocessing { resize: Some(resize), ..Preprocessing::IMAGENET };
        Self { model, name, file, top1, top5, preprocessing }
    }

    /// With another center crop than 224×224.
    pub(crate) const fn cropped(self, side: usize) -> Self {
        Self { preprocessing: Preprocessing { size: [side; 2], ..self.preprocessing }, ..self }
    }

    /// Resized by bicubic interpolation.
    pub(crate) const fn bicubic(self) -> Self {
        let interpolation = Interpolation::Bicubic;
        Self { preprocessing: Preprocessing { interpolation, ..self.preprocessing }, ..self }
    }

    /// Normalized by means and deviations of one half.
    pub(crate) const fn halves(self) -> Self {
        Self { preprocessing: Preprocessing { mean: [0.5; 3], std: [0.5; 3], ..self.preprocessing }, ..self }
    }

    /// The weights `name` of the network `model`, or an error that says which are published.
    pub fn find(model: &str, name: &str) -> Result<&'static Self, ModelError> {
        let model = variant(model)?.name;
        published(model).find(|weights| weights.name == name).ok_or_else(|| ModelError::Weights {
            name: model,
            weights: name.to_owned(),
            published: published(model).map(|weights| weights.name).collect(),
        })
    }

    /// The weights of `model` that are published in a file of this name, if any.
    pub fn of_file(model: &str, file: &Path) -> Option<&'static Self> {
        let name = file.file_name()?;
        published(model).find(|weights| name == weights.file)
    }

    /// The network with these weights, read from where [`file`](Self::file) was downloaded to. It knows the names of
    /// ImageNet's classes and the preprocessing that the weights were evaluated with.
    pub fn load(&self, file: &Path, options: &Options, device: &Device) -> Result<Network, WeightsError> {
        let network = create_from(self.model, Checkpoint::open(file)?, options, device)?;
        Ok(network.with_labels(imagenet::class_names())?.with_preprocessing(self.preprocessing))
    }

    /// The beginning of the file's SHA-256: torchvision's file names end in it.
    pub fn sha256(&self) -> &'static str {
        let stem = self.file.strip_suffix(".pth").unwrap_or(self.file);
        stem.rsplit_once('-').map_or("", |(_, hash)| hash)
    }
}

/// The published weights of a network, those of the paper's recipe first.
pub fn published(model: &str) -> impl Iterator<Item = &'static Published> {
    let variant = variants().find(move |variant| variant.name == model);
    variant.into_iter().flat_map(|variant| variant.weights.iter().filter(|weights| weights.model == variant.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_names_a_network_of_its_family_and_a_checksum() {
        let mut count = 0;
        for variant in variants() {
            for weights in published(variant.name) {
                count += 1;
                assert_eq!(variant.classes, 1000, "{}", weights.model);
                let hash = weights.sha256();
                assert!(
                    [8, 10].contains(&hash.len()) && hash.bytes().all(|byte| byte.is_ascii_hexdigit()),
                    "{}",
                    weights.file
                );
                assert!(weights.top1 < weights.top5 && weights.top5 < 100.0, "{}", weights.file);
            }
            for weights in variant.weights {
                let owner = crate::variant(weights.model).expect(weights.model);
                assert_eq!(owner.weights, variant.weights, "{} is in another family's table", weights.model);
            }
        }
        // torchvision 0.24 lists as many for these families.
        assert_eq!(count, 34 + 63);
    }

    #[test]
    fn weights_know_the_images_that_they_were_measured_with() {
        let of = |model: &str, name: &str| Published::find(model, name).expect(name).preprocessing;
        let first = of("efficientnet_b1", "imagenet1k_v1");
        assert_eq!((first.size, first.resize, first.interpolation), ([240; 2], Some(256), Interpolation::Bicubic));
        let second = of("efficientnet_b1", "imagenet1k_v2");
        assert_eq!((second.resize, second.interpolation), (Some(255), Interpolation::Bilinear));
        assert_eq!(of("efficientnet_v2_l", "imagenet1k_v1").mean, [0.5; 3]);
        assert_eq!(of("mobilenet_v2", "imagenet1k_v1"), Preprocessing::IMAGENET);

        // The same network for images of two sizes: its weights say which.
        let network = crate::create("regnet_y_16gf", &Options::default(), &Device::flex()).expect("it is there");
        assert_eq!(network.input(), [3, 224, 224]);
        let network = network.with_preprocessing(of("regnet_y_16gf", "imagenet1k_swag_e2e_v1"));
        assert_eq!(network.input(), [3, 384, 384]);
    }
}
