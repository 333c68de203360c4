//! What holds for every network, and for every mistake in asking for one.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod common;

use burn::tensor::{Device, Tensor};
use convzoo_blocks::Activation;
use convzoo_models::{
    Classifier, MOST_CHANNELS, MOST_CLASSES, ModelError, Network, Opt, Options, Sizes, create, summarize, variants,
};

/// The logits' shape, from the graph alone.
fn logits(network: &Network) -> Vec<usize> {
    network.graph(network.input()).unwrap().output().shape.clone()
}

/// Whether an image of this side passes every layer with something left of it.
fn passes(network: &Network, side: usize) -> bool {
    let input = [network.input()[0], side, side];
    summarize(network, input).is_ok()
}

#[test]
fn names_are_unique_and_spelled_in_lower_case() {
    let mut names: Vec<_> = variants().map(|variant| variant.name).collect();
    assert!(names.iter().all(|name| !name.is_empty() && name.to_lowercase() == *name));
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn every_network_takes_other_classes_and_channels() {
    let device = Device::flex();
    for variant in variants() {
        let options = Options::default().with_classes(7).with_channels(1);
        let network = create(variant.name, &options, &device).unwrap();
        assert_eq!(logits(&network), [7], "{}", variant.name);
        let network = network.replace_head(5);
        assert_eq!((logits(&network), network.classes()), (vec![5], 5), "{}", variant.name);
    }
}

#[test]
fn every_layer_has_a_name_and_every_tensor_one_of_its_own() {
    for variant in variants() {
        let network = create(variant.name, &Options::default(), &Device::flex()).unwrap();
        let summary = network.summary(variant.input).unwrap();
        assert!(summary.layers.iter().all(|layer| !layer.name.is_empty()), "{}", variant.name);
        let mut names: Vec<_> = network.state().into_iter().map(|entry| entry.name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count, "{}", variant.name);
    }
}

#[test]
fn the_smallest_size_passes_and_none_below() {
    for variant in variants() {
        let network = create(variant.name, &Options::default(), &Device::flex()).unwrap();
        assert!(passes(&network, variant.input[1]), "{} takes its own size", variant.name);
        let check = |side, expected| {
            let accepted = network.check_input([network.input()[0], side, side]).is_ok();
            assert_eq!(passes(&network, side), expected, "{} on {side}×{side}", variant.name);
            assert_eq!(accepted, expected, "{}: the check of {side}×{side}", variant.name);
        };
        match variant.sizes {
            Sizes::From(smallest) => {
                check(smallest, true);
                check(smallest - 1, false);
            }
            Sizes::MultiplesOf(unit) => {
                check(unit, true);
                check(2 * unit, true);
                check(unit / 2, false);
                check(unit + unit / 2, false);
            }
            Sizes::Fixed => check(variant.input[1], true),
        }
    }
}

#[test]
fn the_smallest_images_are_classified() {
    let device = Device::flex();
    for variant in variants() {
        let network = create(variant.name, &Options::default(), &device).unwrap();
        let (Sizes::From(side) | Sizes::MultiplesOf(side)) = variant.sizes else { continue };
        // The largest networks take seconds to initialize; their layers are those of their smaller siblings.
        if network.summary(variant.input).unwrap().params > 15_000_000 {
            continue;
        }
        let logits = network.forward(Tensor::ones([1, network.input()[0], side, side], &device));
        assert!(!logits.contains_nan().into_scalar::<bool>(), "{} on {side}×{side}", variant.name);
    }
}

#[test]
fn images_are_checked_before_anything_is_computed() {
    for variant in variants() {
        let network = create(variant.name, &Options::default(), &Device::flex()).unwrap();
        let [channels, height, width] = variant.input;
        assert_eq!(network.check_input(variant.input), Ok(()));
        let name = variant.name;
        let found = channels + 1;
        let wrong = ModelError::Channels { name, expected: channels, found };
        assert_eq!(network.check_input([found, height, width]), Err(wrong.clone()));
        assert_eq!(network.summary([found, height, width]).unwrap_err(), wrong);
        match variant.sizes {
            Sizes::From(minimum) => {
                let size = [height, minimum - 1];
                let error = ModelError::TooSmall { name, size, minimum };
                assert_eq!(network.check_input([channels, size[0], size[1]]), Err(error.clone()));
                assert!(error.to_string().contains(&format!("{minimum}×{minimum}")));
            }
            Sizes::MultiplesOf(unit) => {
                let size = [height + 1, width];
                let error = ModelError::NotMultiple { name, size, unit };
                assert_eq!(network.check_input([channels, size[0], size[1]]), Err(error));
            }
            Sizes::Fixed => {
                let size = [height + 1, width];
                let error = ModelError::FixedSize { name, size, expected: [height, width] };
                assert_eq!(network.check_input([channels, size[0], size[1]]), Err(error));
            }
        }
    }
}

#[test]
fn weights_start_as_in_the_reference() {
    // What the tests of single families leave out; the standard deviation of a uniform draw is its bound's by √3.
    let kaiming = |outputs: f64, taps: f64| (2.0 / (outputs * taps)).sqrt();
    for (name, tensor, deviation) in [
        ("mobilenet_v2", "features.18.0.weight", kaiming(1280.0, 1.0)),
        ("mobilenet_v2", "classifier.1.weight", 0.01),
        ("mobilenet_v3_small", "features.11.block.1.0.weight", kaiming(576.0, 25.0)),
        ("mobilenet_v3_small", "classifier.0.weight", 0.01),
        ("mnasnet0_5", "layers.14.weight", kaiming(1280.0, 1.0)),
        ("mnasnet0_5", "classifier.1.weight", (3f64 / 1000.0).sqrt() / 3f64.sqrt()),
        ("shufflenet_v2_x0_5", "fc.weight", (1.0 / 1024f64).sqrt() / 3f64.sqrt()),
        ("efficientnet_b0", "features.7.0.block.2.fc2.weight", kaiming(1152.0, 1.0)),
        ("efficientnet_b0", "classifier.1.weight", (1.0 / 1000f64).sqrt() / 3f64.sqrt()),
        ("regnet_y_400mf", "trunk_output.block4.block4-1.f.c.0.weight", kaiming(440.0, 1.0)),
        ("regnet_y_400mf", "fc.weight", 0.01),
        ("convnext_tiny", "features.1.0.block.3.weight", 0.02),
        ("convnext_tiny", "classifier.2.weight", 0.02),
    ] {
        let network = create(name, &Options::default(), &Device::flex()).unwrap();
        let [mean, found] = common::moments(&network, tensor);
        assert!(mean.abs() < 0.05 * deviation, "{name}: the mean of {tensor} is {mean}");
        assert!((found / deviation - 1.0).abs() < 0.05, "{name}: {tensor} deviates by {found}, not {deviation}");
    }
    let network = create("convnext_tiny", &Options::default(), &Device::flex()).unwrap();
    let [scale, _] = common::moments(&network, "features.1.0.layer_scale");
    assert!((scale - 1e-6).abs() < 1e-12, "a layer scale starts at {scale}");
}

fn refused(name: &str, options: Options) -> ModelError {
    create(name, &options, &Device::flex()).unwrap_err()
}

#[test]
fn an_unknown_name_gives_the_nearest() {
    for (asked, meant) in
        [("alexnt", "alexnet"), ("VGG16", "vgg16"), ("densenet-121", "densenet121"), ("lenet", "lenet5")]
    {
        let ModelError::Unknown { name, nearest } = refused(asked, Options::default()) else { panic!("{asked}") };
        assert_eq!(name, asked);
        assert!(nearest.contains(&meant), "{asked}: {nearest:?}");
    }
    for asked in ["", "a horse", &"resnet".repeat(1000)] {
        assert!(matches!(refused(asked, Options::default()), ModelError::Unknown { .. }));
    }
}

#[test]
fn nothing_is_made_of_zero_classes_or_channels() {
    for variant in variants() {
        let name = variant.name;
        assert_eq!(refused(name, Options::default().with_classes(0)), ModelError::NoClasses { name });
        assert_eq!(refused(name, Options::default().with_channels(0)), ModelError::NoChannels { name });
    }
}

#[test]
fn counts_that_would_overflow_or_fill_every_memory_are_refused() {
    for variant in variants() {
        let name = variant.name;
        for count in [MOST_CLASSES + 1, 4_294_967_295, usize::MAX] {
            let error = refused(name, Options::default().with_classes(count));
            assert!(matches!(error, ModelError::TooMany { what: "classes", .. }), "{name}: {error}");
            let error = refused(name, Options::default().with_channels(count));
            assert!(matches!(error, ModelError::TooMany { what: "input channels", .. }), "{name}: {error}");
        }
    }
    let most = Options::default().with_classes(MOST_CLASSES).with_channels(MOST_CHANNELS);
    let network = create("vgg11", &most, &Device::flex()).unwrap();
    let params = network.summary([MOST_CHANNELS, 32, 32]).unwrap().params;
    assert_eq!(params, 132_863_336 + (MOST_CLASSES - 1000) * 4097 + (MOST_CHANNELS - 3) * 9 * 64);
}

#[test]
fn options_that_a_network_has_no_use_for_are_refused() {
    let none = Options::default;
    for variant in variants() {
        for (option, options) in [
            (Opt::Dropout, Options { dropout: Some(0.1), ..none() }),
            (Opt::DropPath, Options { drop_path: Some(0.1), ..none() }),
            (Opt::Activation, Options { activation: Some(Activation::Relu), ..none() }),
            (Opt::BatchNorm, Options { batch_norm: Some(true), ..none() }),
            (Opt::MemoryEfficient, Options { memory_efficient: Some(true), ..none() }),
        ] {
            let made = create(variant.name, &options, &Device::flex());
            match variant.takes.contains(&option) {
                true => assert_eq!(logits(&made.unwrap()), [variant.classes], "{} with {option:?}", variant.name),
                false => assert!(matches!(made, Err(ModelError::Option { .. })), "{} with {option:?}", variant.name),
            }
        }
    }
}

#[test]
fn probabilities_are_at_least_zero_and_below_one() {
    for value in [-0.1, 1.0, 2.0, f64::NAN, f64::INFINITY] {
        let error = refused("alexnet", Options { dropout: Some(value), ..Options::default() });
        assert!(matches!(error, ModelError::Value { option: "dropout", .. }), "{error}");
        let error = refused("fractalnet20", Options { drop_path: Some(value), ..Options::default() });
        assert!(matches!(error, ModelError::Value { option: "drop_path", .. }), "{error}");
    }
}
