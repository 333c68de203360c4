//! Network In Network: the authors' Caffe models.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod common;

use burn::tensor::{Device, Tensor};
use common::{maps, moments};
use convzoo_models::{Classifier, Options, create};

#[test]
fn nin_is_the_published_model() {
    let network = create("nin", &Options::default(), &Device::flex()).unwrap();
    let summary = network.summary(network.input()).unwrap();
    assert_eq!(summary.params, 7_595_176);
    assert_eq!(summary.layers.iter().filter(|layer| layer.kind == "Conv2d").count(), 12);
    let pooled = [[96, 27], [256, 13], [384, 6], [1000, 1]];
    assert_eq!(maps(&summary, &["MaxPool2d", "AdaptiveAvgPool2d"]), pooled);
}

#[test]
fn nin_cifar_is_the_published_model() {
    let device = Device::flex();
    let network = create("nin_cifar", &Options::default(), &device).unwrap();
    let summary = network.summary(network.input()).unwrap();
    // The paper's 0.97M.
    assert_eq!(summary.params, 966_986);
    let widths = [[192, 32], [160, 32], [96, 32], [192, 16], [192, 16], [192, 16], [192, 8], [192, 8], [10, 8]];
    assert_eq!(maps(&summary, &["Conv2d"]), widths);
    assert_eq!(maps(&summary, &["MaxPool2d", "AvgPool2d"]), [[96, 16], [192, 8]]);
    let [mean, deviation] = moments(&network, "cccp2.weight");
    assert!(mean.abs() < 3e-3 && (deviation - 0.05).abs() < 3e-3);
    let logits = network.forward(Tensor::ones([2, 3, 32, 32], &device));
    assert!(logits.into_data().iter::<f32>().all(|logit| logit >= 0.0 && logit.is_finite()));
}
