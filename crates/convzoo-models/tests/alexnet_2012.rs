//! AlexNet of 2012 and its successor of 2013, by their papers' tables.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod common;

use burn::tensor::{Device, Distribution, Tensor};
use common::{maps, moments};
use convzoo_blocks::LocalResponseNorm;
use convzoo_models::{Options, create};

#[test]
fn alexnet_has_the_papers_maps_and_parameters() {
    let network = create("alexnet_2012", &Options::default(), &Device::flex()).unwrap();
    let summary = network.summary(network.input()).unwrap();
    // "60 million parameters"; groups of two halve what convolutions 2, 4 and 5 would have.
    assert_eq!(summary.params, 60_965_224);
    let expected = [[96, 55], [96, 27], [256, 27], [256, 13], [384, 13], [384, 13], [256, 13], [256, 6]];
    assert_eq!(maps(&summary, &["Conv2d", "MaxPool2d"]), expected);
    let names: Vec<_> = summary.layers.iter().map(|layer| layer.name.as_str()).collect();
    let order = "conv1 norm1 pool1 conv2 norm2 pool2 conv3 conv4 conv5 pool5 fc6 fc7 fc8";
    assert_eq!(names, order.split(' ').collect::<Vec<_>>());
}

#[test]
fn alexnet_is_initialized_as_the_paper_says() {
    let network = create("alexnet_2012", &Options::default(), &Device::flex()).unwrap();
    for (layer, bias) in [("conv1", 0.0), ("conv2", 1.0), ("conv3", 0.0), ("conv4", 1.0), ("conv5", 1.0)] {
        assert_eq!(moments(&network, &format!("{layer}.bias")), [bias, 0.0], "{layer}");
        let [mean, deviation] = moments(&network, &format!("{layer}.weight"));
        assert!(mean.abs() < 5e-4 && (deviation - 0.01).abs() < 5e-4, "{layer}: {mean} ± {deviation}");
    }
    for (layer, bias) in [("fc6", 1.0), ("fc7", 1.0), ("fc8", 0.0)] {
        assert_eq!(moments(&network, &format!("{layer}.bias")), [bias, 0.0], "{layer}");
    }
}

#[test]
fn responses_are_normalized_without_dividing_alpha() {
    let device = Device::flex();
    let (size, alpha, beta, k) = (5, 1e-4, 0.75, 2.0);
    let input = Tensor::<4>::random([1, 9, 1, 1], Distribution::Uniform(10.0, 100.0), &device);
    let norm = LocalResponseNorm::new(size, size as f64 * alpha, beta, k);
    let output: Vec<f32> = norm.forward(input.clone()).into_data().try_into_vec().unwrap();
    let x: Vec<f64> = input.into_data().iter().collect();
    for (i, found) in output.iter().enumerate() {
        let window = &x[i.saturating_sub(2)..(i + 3).min(9)];
        let expected = x[i] / (k + alpha * window.iter().map(|x| x * x).sum::<f64>()).powf(beta);
        assert!((f64::from(*found) - expected).abs() < 1e-4 * expected, "channel {i}: {found}, not {expected}");
    }
}

#[test]
fn zfnet_has_the_papers_maps() {
    let network = create("zfnet", &Options::default(), &Device::flex()).unwrap();
    let summary = network.summary(network.input()).unwrap();
    let expected = [[96, 110], [96, 55], [256, 26], [256, 13], [384, 13], [384, 13], [256, 13], [256, 6]];
    assert_eq!(maps(&summary, &["Conv2d", "MaxPool2d"]), expected);
    assert_eq!(summary.params, 62_357_608);
    let [mean, deviation] = moments(&network, "conv2.weight");
    assert!(mean.abs() < 5e-4 && (deviation - 0.01).abs() < 5e-4);
    assert_eq!(moments(&network, "conv2.bias"), [0.0, 0.0]);
}
