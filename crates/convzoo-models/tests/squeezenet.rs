//! SqueezeNet: 50 times fewer parameters than AlexNet.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod common;

use burn::tensor::Device;
use common::{maps, moments};
use convzoo_models::{Options, create};

#[test]
fn squeezenet_has_the_papers_sizes() {
    let device = Device::flex();
    let [old, new] = ["squeezenet1_0", "squeezenet1_1"].map(|name| {
        let network = create(name, &Options::default(), &device).unwrap();
        network.summary(network.input()).unwrap()
    });
    // The paper's table 1: 1,248,424 parameters.
    assert_eq!((old.params, new.params), (1_248_424, 1_235_496));
    let ratio = old.macs as f64 / new.macs as f64;
    assert!((2.3..2.5).contains(&ratio), "1.1 has {ratio:.1} times fewer multiply-adds");
    assert_eq!(maps(&old, &["MaxPool2d"]), [[96, 54], [256, 27], [512, 13]]);
    assert_eq!(maps(&new, &["MaxPool2d"]), [[64, 55], [128, 27], [256, 13]]);
}

#[test]
fn squeezenet_is_initialized_as_the_reference() {
    let network = create("squeezenet1_1", &Options::default(), &Device::flex()).unwrap();
    // Uniform in ±√(6 / 64), whose standard deviation is that over √3.
    let [_, deviation] = moments(&network, "features.12.expand1x1.weight");
    assert!((deviation / (2.0f64 / 64.0).sqrt() - 1.0).abs() < 0.03);
    let [_, deviation] = moments(&network, "classifier.1.weight");
    assert!((deviation / 0.01 - 1.0).abs() < 0.03);
    assert_eq!(moments(&network, "classifier.1.bias"), [0.0, 0.0]);
}
