//! What the registry says of each network is true of it.

use burn::tensor::Device;
use convzoo_models::{Options, Sizes, create, summarize, variants};

#[test]
fn the_smallest_images_are_the_smallest_that_pass() {
    for variant in variants() {
        let Sizes::From(minimum) = variant.sizes else { continue };
        let network = create(variant.name, &Options::default(), &Device::flex()).unwrap();
        let passes = |side: usize| {
            let summary = summarize(&network, [variant.input[0], side, side]);
            summary.layers.iter().all(|layer| !layer.output.contains(&0))
        };
        assert!(passes(minimum), "{} does not take {minimum}×{minimum}", variant.name);
        assert!(minimum == 1 || !passes(minimum - 1), "{} takes less than {minimum}×{minimum}", variant.name);
    }
}
