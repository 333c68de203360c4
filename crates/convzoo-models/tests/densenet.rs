//! DenseNet: the paper's tables 1 and 2.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod common;

use burn::tensor::Device;
use common::{maps, moments};
use convzoo_models::{Options, create};

#[test]
fn depths_growth_rates_and_sizes_are_the_papers() {
    let device = Device::flex();
    // Depth of the name, growth rate, channels of the last feature map, millions of parameters.
    for (name, depth, growth_rate, channels, millions) in [
        ("densenet121", 121, 32, 1024, 7.98),
        ("densenet169", 169, 32, 1664, 14.15),
        ("densenet201", 201, 32, 1920, 20.01),
        ("densenet161", 161, 48, 2208, 28.68),
        ("densenet40_k12", 40, 12, 448, 1.0),
        ("densenet100_k12", 100, 12, 1168, 7.0),
        ("densenet_bc100_k12", 100, 12, 342, 0.8),
    ] {
        let network = create(name, &Options::default(), &device).unwrap();
        let summary = network.summary(network.input()).unwrap();
        let weighted = summary.layers.iter().filter(|layer| ["Conv2d", "Linear"].contains(&layer.kind)).count();
        assert_eq!(weighted, depth, "{name}: depth");
        let grown = summary.layers.iter().filter(|layer| layer.name.ends_with("conv2"));
        assert!(grown.clone().all(|layer| layer.output[0] == growth_rate), "{name}: growth rate");
        let last = summary.layers.iter().rfind(|layer| layer.kind == "BatchNorm2d").unwrap();
        assert_eq!(last.output[0], channels, "{name}: last map");
        let precision = if millions > 7.5 { 0.005 } else { 0.05 };
        let found = summary.params as f64 / 1e6;
        assert!((found - millions).abs() < precision, "{name}: {found:.3}M parameters, not {millions}M");
    }
}

#[test]
fn maps_halve_between_the_blocks() {
    let network = create("densenet_bc100_k12", &Options::default(), &Device::flex()).unwrap();
    let summary = network.summary(network.input()).unwrap();
    // 24 + 16·12 = 216 channels, halved; 108 + 192 = 300, halved.
    assert_eq!(maps(&summary, &["AvgPool2d"]), [[108, 16], [150, 8]]);
    let network = create("densenet40_k12", &Options::default(), &Device::flex()).unwrap();
    let summary = network.summary(network.input()).unwrap();
    assert_eq!(maps(&summary, &["AvgPool2d"]), [[160, 16], [304, 8]]);
}

#[test]
fn densenet_is_initialized_as_the_reference() {
    let network = create("densenet121", &Options::default(), &Device::flex()).unwrap();
    for (layer, fan_in) in [("features.conv0", 3 * 49), ("features.denseblock1.denselayer1.conv2", 128 * 9)] {
        let [_, deviation] = moments(&network, &format!("{layer}.weight"));
        assert!((deviation / (2.0 / fan_in as f64).sqrt() - 1.0).abs() < 0.03, "{layer}: {deviation}");
    }
    assert_eq!(moments(&network, "features.norm5.weight"), [1.0, 0.0]);
    assert_eq!(moments(&network, "classifier.bias"), [0.0, 0.0]);
    let [_, deviation] = moments(&network, "classifier.weight");
    assert!((deviation * (3.0f64 * 1024.0).sqrt() - 1.0).abs() < 0.03);
}
