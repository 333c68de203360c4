use burn::tensor::{Tensor, TensorData};
use convzoo_data::Image;
use image::RgbImage;

use super::VisualizeError;
use crate::Network;
use crate::classify::{device_of, own_preprocess};

/// An image as the input of a network of the zoo: fitted to its size, normalized.
#[derive(Debug, Clone)]
pub struct View {
    image: Image,
    input: Tensor<4>,
}

impl View {
    /// Prepares `image` as the network's own preprocessing does.
    pub fn new(network: &Network, image: &Image) -> Result<Self, VisualizeError> {
        let input @ [channels, height, width] = network.input();
        network.check_input(input)?;
        let preprocess = own_preprocess(network, image);
        let image = preprocess.fitted(image);
        let mut values = Vec::with_capacity(preprocess.len());
        preprocess.normalize(&image, &mut values);
        let data = TensorData::new(values, [1, channels, height, width]);
        Ok(Self { image: image.to_rgb(), input: Tensor::from_data(data, &device_of(network)) })
    }

    /// The input, `[1, channels, height, width]`.
    pub fn input(&self) -> Tensor<4> {
        self.input.clone()
    }

    /// The input as a picture, before it is normalized.
    pub fn picture(&self) -> RgbImage {
        let (width, height) = (self.image.width as u32, self.image.height as u32);
        RgbImage::from_raw(width, height, self.image.pixels.clone())
            .expect("an image's bytes are as many as its sides say")
    }
}
