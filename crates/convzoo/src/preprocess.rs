use convzoo_data::{Filter, Fit, Image, Preprocess};
use convzoo_models::{Interpolation, Preprocessing};

/// How `image` and all of its kind become the input, `[channels, height, width]`, of a network that says this of it.
///
/// Networks for small images take them as they are: one that is smaller is put on a black canvas when it fits with a
/// narrow border (MNIST's 28 on LeNet's 32), and scaled otherwise.
pub fn preprocess(network: &Preprocessing, [channels, height, width]: [usize; 3], image: &Image) -> Preprocess {
    let fit = match network.resize {
        Some(shorter) => {
            Fit::ResizeCrop { shorter: shorter * height.min(width) / network.size[0].min(network.size[1]) }
        }
        None if image.height + 4 >= height
            && image.width + 4 >= width
            && image.height <= height
            && image.width <= width =>
        {
            Fit::Pad
        }
        None => Fit::Resize,
    };
    let filter = match network.interpolation {
        Interpolation::Bilinear => Filter::Bilinear,
        Interpolation::Bicubic => Filter::Bicubic,
    };
    Preprocess::new(channels, height, width, fit).with_filter(filter).normalized(network.mean, network.std)
}
