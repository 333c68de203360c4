//! Training a part of a network, and training on several devices: what moves, what stays, and that the way there does
//! not show in the figures.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, Tensor};
use convzoo_data::{Dataset, Fit, Preprocess, Source, Splits, Subset, open};
use convzoo_models::{Network, Options, create, weights};
use convzoo_train::{Epoch, Event, Recipe, Resources, TrainError, Trainer};

/// Some of the embedded digits.
fn digits(train: usize, test: usize) -> Splits {
    let part =
        |data: Arc<dyn Dataset>, count| -> Arc<dyn Dataset> { Arc::new(Subset::new(data, (0..count).collect())) };
    let whole = open("digits", &Source::default()).unwrap();
    Splits { train: part(whole.train, train), test: part(whole.test, test), ..whole }
}

fn network(name: &str) -> Network {
    let device = Device::flex();
    device.seed(1);
    create(name, &Options::default().with_channels(1), &device.autodiff()).unwrap()
}

fn trainer(
    network: Network,
    data: Splits,
    changes: &[(&str, &str)],
    resources: Resources,
    out: &Path,
) -> Trainer<Network> {
    Trainer::new(network, data)
        .preprocess(Preprocess::new(1, 32, 32, Fit::Resize))
        .recipe(Recipe::default().with(changes.iter().copied()).unwrap())
        .seed(3)
        .resources(resources)
        .out(out)
}

/// Every tensor by its name.
fn state(network: &Network) -> BTreeMap<String, Vec<f32>> {
    struct Values(Vec<(ParamId, Vec<f32>)>);
    impl ModuleVisitor for Values {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push((param.id, param.val().try_into_vec_as().unwrap()));
        }
    }
    let mut values = Values(Vec::new());
    network.visit(&mut values);
    let name = |id| network.state().into_iter().find(|entry| entry.id == id).unwrap().name;
    values.0.into_iter().map(|(id, values)| (name(id), values)).collect()
}

/// The stages, or layers, of which a tensor differs between two networks.
fn moved(before: &Network, after: &Network) -> Vec<String> {
    let (before, after) = (state(before), state(after));
    let differing = before.into_iter().filter(|(name, values)| after[name] != *values);
    let mut stages: Vec<_> = differing.map(|(name, _)| name.split('.').next().unwrap().to_owned()).collect();
    stages.dedup();
    stages
}

/// The epochs' losses: of training, of the test.
fn losses(epochs: &[Epoch]) -> Vec<[f64; 2]> {
    epochs.iter().map(|epoch| [epoch.train.loss, epoch.held_out.measures().loss]).collect()
}

fn near(own: &[[f64; 2]], expected: &[[f64; 2]], tolerance: f64) {
    assert_eq!(own.len(), expected.len());
    for (own, expected) in own.iter().flatten().zip(expected.iter().flatten()) {
        assert!((own - expected).abs() < tolerance * expected.abs().max(1.0), "{own} rather than {expected}");
    }
}

#[test]
fn a_frozen_backbone_stays_and_computes_each_image_once() {
    let folder = tempfile::tempdir().unwrap();
    let start = network("resnet20_cifar");
    // Drawn now, so that both runs begin with the same.
    state(&start);
    let run = |name: &str, cache| {
        let changes = [("epochs", "2"), ("batch_size", "16"), ("transfer.freeze", "backbone")];
        let resources = Resources { cache, ..Resources::default() };
        let trainer = trainer(start.clone(), digits(40, 20), &changes, resources, &folder.path().join(name));
        let computed = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&computed);
        let outcome = trainer.start(move |event| {
            if let Event::Backbone(images, total) = event {
                assert_eq!(total, 60);
                count.store(images, Ordering::Relaxed);
            }
        });
        let best =
            weights::load(network("resnet20_cifar"), &folder.path().join(name).join("last.safetensors")).unwrap();
        assert_eq!(moved(&start, &best), ["linear"], "{name}");
        (losses(&outcome.unwrap().record.epochs), computed.load(Ordering::Relaxed))
    };
    let (kept, features) = run("kept", 1 << 20);
    assert_eq!(features, 60);
    let (computed, features) = run("computed", 0);
    assert_eq!(features, 0, "there is no room for features");
    near(&kept, &computed, 1e-5);
}

#[test]
fn stages_learn_when_they_have_thawed() {
    let folder = tempfile::tempdir().unwrap();
    let start = network("resnet20_cifar");
    state(&start);
    let changes =
        [("epochs", "3"), ("batch_size", "16"), ("transfer.freeze", "backbone"), ("transfer.unfreeze_every", "1")];
    trainer(start.clone(), digits(20, 10), &changes, Resources::default(), folder.path()).start(|_| {}).unwrap();
    let last = weights::load(network("resnet20_cifar"), &folder.path().join("last.safetensors")).unwrap();
    assert_eq!(moved(&start, &last), ["layer2", "layer3", "linear"]);
}

#[test]
fn an_unknown_layer_is_told_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let changes = [("transfer.freeze", "c33")];
    let error =
        trainer(network("lenet5"), digits(20, 10), &changes, Resources::default(), &out).start(|_| {}).unwrap_err();
    assert!(matches!(&error, TrainError::Layer { nearest, .. } if nearest[0] == "c3"), "{error}");
    assert!(!out.exists());
}

#[test]
fn two_devices_train_as_one_with_the_doubled_batch() {
    let folder = tempfile::tempdir().unwrap();
    let start = network("lenet5");
    state(&start);
    let run = |name: &str, batch_size: &str, accumulation: &str, more_devices: Vec<Device>| {
        let changes = [
            ("epochs", "3"),
            ("batch_size", batch_size),
            ("accumulation", accumulation),
            ("augment.random_crop", "2"),
            ("optimizer", "adam"),
            ("learning_rate", "0.002"),
        ];
        let resources = Resources { more_devices, ..Resources::default() };
        // 405 images: the last batch of two devices is of 11 and 10.
        let outcome =
            trainer(start.clone(), digits(405, 100), &changes, resources, &folder.path().join(name)).start(|_| {});
        losses(&outcome.unwrap().record.epochs)
    };
    let one = run("one", "64", "1", Vec::new());
    near(&run("two", "32", "1", vec![Device::flex()]), &one, 1e-3);
    near(&run("two-accumulating", "16", "2", vec![Device::flex()]), &one, 1e-3);
    assert!(one[2][0] < 0.8 * one[0][0], "nothing was learnt: {one:?}");
}

#[test]
fn batch_norms_of_several_devices_share_their_statistics() {
    let folder = tempfile::tempdir().unwrap();
    let start = network("resnet20_cifar");
    state(&start);
    let resources = Resources { more_devices: vec![Device::flex()], ..Resources::default() };
    let changes = [("epochs", "1"), ("batch_size", "8"), ("ema", "0.9")];
    trainer(start.clone(), digits(32, 10), &changes, resources, folder.path()).start(|_| {}).unwrap();
    let last = weights::load(network("resnet20_cifar"), &folder.path().join("last.safetensors")).unwrap();
    let (before, after) = (state(&start), state(&last));
    for name in ["bn1.running_mean", "layer3.2.bn2.running_var"] {
        assert_ne!(before[name], after[name], "{name} has not followed the batches");
        assert!(after[name].iter().all(|value| value.is_finite()));
    }
}
