//! The Inception networks have the sizes their papers give, and train with their auxiliary classifiers.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod common;

use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::{Device, Int, Tensor};
use convzoo_models::{Classifier, Network, Options, Outputs, Summary, create};

fn network(name: &str, options: &Options) -> Network {
    create(name, options, &Device::flex()).unwrap()
}

fn summary(network: &Network) -> Summary {
    network.summary(network.input()).unwrap()
}

fn count(summary: &Summary, kind: &str) -> usize {
    summary.layers.iter().filter(|layer| layer.kind == kind).count()
}

/// Parameters without those of auxiliary classifiers, which are for training only.
fn tower(network: &Network) -> usize {
    let state = network.state().into_iter().filter(|entry| entry.parameter && !entry.name.starts_with("aux"));
    state.map(|entry| entry.shape.iter().product::<usize>()).sum()
}

fn paper_googlenet() -> Options {
    Options { batch_norm: Some(false), ..Options::default() }
}

#[test]
fn googlenet_of_torchvision() {
    let network = network("googlenet", &Options::default());
    let summary = summary(&network);
    assert_eq!((summary.params, tower(&network)), (13_004_888, 6_624_904));
    assert_eq!((count(&summary, "Conv2d"), count(&summary, "BatchNorm2d"), count(&summary, "Linear")), (57, 57, 1));
    assert_eq!(summary.macs, 1_498_376_192);
}

#[test]
fn googlenet_of_the_paper() {
    let network = network("googlenet", &paper_googlenet());
    let summary = summary(&network);
    // 22 layers with parameters: two in each of nine modules, three convolutions and one fully-connected layer.
    assert_eq!((count(&summary, "Conv2d"), count(&summary, "Linear")), (3 + 9 * 6, 1));
    assert_eq!((count(&summary, "BatchNorm2d"), count(&summary, "LocalResponseNorm")), (0, 2));
    // Weights as the paper's table counts them, in units of 1024, and their biases.
    assert_eq!(tower(&network), 6826 * 1024 + 448 + 8280);
    // Millions of multiply-adds in each module. The table prints 54 for 5a, which its own widths do not give.
    let macs = |name: &str| -> usize {
        summary.layers.iter().filter(|layer| layer.name.starts_with(name)).map(|layer| layer.macs).sum()
    };
    let table = [128, 304, 73, 88, 100, 119, 170, 51, 71];
    for (name, millions) in ["3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"].into_iter().zip(table) {
        let found = macs(&format!("inception{name}"));
        assert!(found.abs_diff(millions * 1_000_000) < 1_000_000, "{name}: {found}");
    }
    let output = |name: &str| summary.layers.iter().find(|layer| layer.name == name).unwrap().output.clone();
    assert_eq!(output("inception3b.branch3.1.conv"), [96, 28, 28]);
    assert_eq!(output("maxpool4"), [832, 7, 7]);
    let shape = |name: &str| network.state().into_iter().find(|entry| entry.name == name).unwrap().shape;
    assert_eq!(shape("inception3a.branch3.1.conv.weight"), [32, 16, 5, 5]);

    // Images too small for its last pooling pass too.
    let small = network.forward(Tensor::ones([1, 3, 15, 15], &Device::flex()));
    assert_eq!(small.dims(), [1, 1000]);
}

#[test]
fn bn_inception_of_caffe() {
    let network = network("bn_inception", &Options::default());
    let summary = summary(&network);
    assert_eq!(summary.params, 11_295_240);
    assert_eq!((count(&summary, "Conv2d"), count(&summary, "BatchNorm2d")), (69, 69));
    // The outputs of each module's branches; in 3c and 4e the max-pooled input passes through besides.
    let widths = |name: &str| -> usize {
        let ends = ["_1x1", "_3x3", "_double_3x3_2", "_pool_proj"].map(|end| format!("inception_{name}{end}"));
        summary.layers.iter().filter(|layer| ends.contains(&layer.name)).map(|layer| layer.output[0]).sum()
    };
    let names = ["3a", "3b", "3c", "4a", "4b", "4c", "4d", "4e", "5a", "5b"];
    assert_eq!(names.map(widths), [256, 320, 256, 576, 576, 608, 608, 448, 1024, 1024]);
    let state = network.state();
    for name in ["conv2_3x3_reduce_bn.running_var", "inception_4e_double_3x3_2.bias", "last_linear.weight"] {
        assert!(state.iter().any(|entry| entry.name == name), "{name}");
    }
}

#[test]
fn inception_v3_and_later() {
    let check = |name, params, convolutions, gigamacs| {
        let summary = summary(&network(name, &Options::default()));
        let found = (summary.params, count(&summary, "Conv2d"), summary.macs / 100_000_000);
        assert_eq!(found, (params, convolutions, gigamacs), "{name}");
    };
    check("inception_v3", 27_161_264, 94, 57);
    check("inception_v4", 42_679_816, 149, 122);
    check("inception_resnet_v2", 55_843_464, 244, 131);
}

#[test]
fn other_classes_and_channels() {
    for name in ["googlenet", "bn_inception", "inception_v3", "inception_v4", "inception_resnet_v2"] {
        let network = network(name, &Options::default().with_classes(7).with_channels(1));
        let [channels, height, width] = network.input();
        let last = |network: &Network| network.summary([channels, height, width]).unwrap().layers.pop().unwrap();
        assert_eq!((channels, last(&network).output), (1, vec![7]), "{name}");
        assert_eq!(last(&network.replace_head(5)).output, [5], "{name}");
    }
}

fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>) -> f64 {
    let device = logits.device();
    let loss = CrossEntropyLossConfig::new().init(&device).forward(logits, targets);
    f64::from(loss.into_scalar::<f32>())
}

#[test]
fn googlenet_trains_with_two_auxiliary_classifiers() {
    let device = Device::flex().autodiff();
    let options = Options { dropout: Some(0.0), ..Options::default().with_classes(10) };
    let network = common::filled("googlenet", &options, &device);
    let Outputs { logits, auxiliary } = network.forward_train(common::input([4, 3, 96, 96], &device));
    let shapes: Vec<_> = auxiliary.iter().map(Tensor::dims).collect();
    assert_eq!((logits.dims(), shapes), ([4, 10], vec![[4, 10]; 2]));

    // The first loss of torchvision's training golden.
    let targets = || Tensor::<1, Int>::from_ints([0, 1, 2, 3], &device);
    let auxiliary: f64 = auxiliary.into_iter().map(|logits| cross_entropy(logits, targets())).sum();
    let loss = cross_entropy(logits, targets()) + 0.3 * auxiliary;
    assert!((loss / 4.249_518_394_470_215 - 1.0).abs() < 1e-5, "{loss}");
}

#[test]
fn inception_v3_trains_with_one_auxiliary_classifier() {
    let device = Device::flex().autodiff();
    let network = create("inception_v3", &Options::default().with_classes(10), &device).unwrap();
    let shapes = |side| {
        let Outputs { logits, auxiliary } = network.forward_train(Tensor::ones([2, 3, side, side], &device));
        (logits.dims(), auxiliary.iter().map(Tensor::dims).collect::<Vec<_>>())
    };
    assert_eq!(shapes(299), ([2, 10], vec![[2, 10]]));
    // Too small for the auxiliary classifier's feature map.
    assert_eq!(shapes(75), ([2, 10], vec![]));
}
