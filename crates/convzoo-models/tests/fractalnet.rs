//! FractalNet: the paper's table 1, and drop path in the whole network.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod common;

use burn::tensor::{Device, Distribution, Tensor};
use common::maps;
use convzoo_models::{Classifier, Options, create};

#[test]
fn fractalnet_has_the_papers_depth_and_parameters() {
    let network = create("fractalnet20", &Options::default(), &Device::flex()).unwrap();
    let summary = network.summary(network.input()).unwrap();
    let millions = summary.params as f64 / 1e6;
    assert!((millions - 38.6).abs() < 0.05, "{millions:.2}M");
    assert_eq!(maps(&summary, &["MaxPool2d"]), [[64, 16], [128, 8], [256, 4], [512, 2], [512, 1]]);
    // The longest path: four 3×3 convolutions in each of five blocks.
    let deepest = summary.layers.iter().filter(|layer| layer.name.contains("columns.2.") && layer.kind == "Conv2d");
    assert_eq!(deepest.count(), 20);
    // Receptive fields follow the longest path too: 1 + 8 in the first block, then poolings.
    let first = summary.layers.iter().find(|layer| layer.kind == "MaxPool2d").unwrap();
    assert_eq!(first.receptive_field, [Some(10); 2]);
}

#[test]
fn paths_drop_in_training_and_not_in_inference() {
    let logits = |device: &Device, drop_path| {
        let options = Options { dropout: Some(0.0), drop_path: Some(drop_path), ..Options::default() };
        let network = common::filled("fractalnet20", &options, device);
        let images = Tensor::random([2, 3, 32, 32], Distribution::Default, device);
        [0, 1, 2, 3, 4, 5].map(|_| network.forward(images.clone()).into_data().try_into_vec::<f32>().unwrap())
    };
    let device = Device::flex();
    let inference = logits(&device, 0.5);
    assert!(inference.iter().all(|logits| *logits == inference[0]));
    let training = device.autodiff();
    training.seed(5);
    let dropping = logits(&training, 0.5);
    assert!(dropping.iter().any(|logits| *logits != dropping[0]));
    let whole = logits(&training, 0.0);
    assert!(whole.iter().all(|logits| *logits == whole[0]));
}
