use convzoo_data::{Filter, Image, Preprocess};
use convzoo_models::{Interpolation, Preprocessing};

/// How `image` and all of its kind become the input, `[channels, height, width]`, of a network that says this of it.
pub(crate) fn preprocess(network: &Preprocessing, input: [usize; 3], image: &Image) -> Preprocess {
    let filter = match network.interpolation {
        Interpolation::Bilinear => Filter::Bilinear,
        Interpolation::Bicubic => Filter::Bicubic,
    };
    let preprocess = Preprocess::for_network(input, network.size, network.resize, image);
    preprocess.with_filter(filter).normalized(network.mean, network.std)
}
