//! The network of a CIFAR-10 speed record.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod common;

use burn::tensor::{Device, Tensor};
use common::{maps, moments};
use convzoo_models::{Classifier, Fused, Options, Precision, create};

#[test]
fn airbench94_is_the_papers_network() {
    let device = Device::flex();
    let network = create("airbench94", &Options::default(), &device).unwrap();
    let summary = network.summary(network.input()).unwrap();
    // The paper's 1.97 million, in seven convolutions and a linear layer.
    assert_eq!(summary.params, 1_972_802);
    let convolutions = [[24, 31], [64, 31], [64, 15], [256, 15], [256, 7], [256, 7], [256, 3]];
    assert_eq!(maps(&summary, &["Conv2d"]), convolutions);
    assert_eq!(maps(&summary, &["MaxPool2d"]), [[64, 15], [256, 7], [256, 3]]);
    for name in ["0.bias", "2.conv1.weight", "2.norm1.weight", "4.conv2.weight", "4.norm2.running_var", "7.weight"] {
        assert!(network.state().iter().any(|entry| entry.name == name), "no tensor is named {name}");
    }
}

#[test]
fn airbench94_begins_with_identities_and_small_logits() {
    let device = Device::flex();
    let network = create("airbench94", &Options::default(), &device).unwrap();
    // All 256 outputs pass an input on: 256 ones among 256 · 256 · 9 values.
    let [mean, deviation] = moments(&network, "4.conv1.weight");
    let ones = 256.0 / (256.0 * 256.0 * 9.0_f64);
    assert!((mean - ones).abs() < 1e-6 && (deviation - ones.sqrt()).abs() < 1e-5, "{mean} ± {deviation}");
    // Of 64 outputs the first 24, the others as PyTorch draws them: uniform in ±1/√(24 · 9).
    let [_, deviation] = moments(&network, "2.conv1.weight");
    let (drawn, ones): (f64, f64) = (40.0 / 64.0 / (3.0 * 216.0), 24.0 / 64.0 / 216.0);
    assert!((deviation - (drawn + ones).sqrt()).abs() < 1e-3, "{deviation}");
    let images = Tensor::<4>::ones([2, 3, 32, 32], &device);
    let logits = network.forward(images.clone());
    assert!(logits.clone().abs().max().into_scalar::<f32>() < 1.0);
    // Compiled it computes the same, at another size too.
    let fused = Fused::new(&network, [3, 32, 32], Precision::F32).unwrap();
    let difference = (fused.forward(images).unwrap() - logits).abs().max().into_scalar::<f32>();
    assert!(difference < 1e-5, "compiled, logits differ by {difference:e}");
    assert_eq!(network.forward(Tensor::ones([1, 3, 9, 40], &device)).dims(), [1, 10]);
}
