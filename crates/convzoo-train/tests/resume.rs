//! A run that is stopped within an epoch and resumed is the run that was never stopped: batch norms' statistics,
//! dropout, moving averages and all.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::path::Path;
use std::sync::Arc;

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Linear, LinearConfig};
use burn::tensor::Device;
use burn::train::Interrupter;
use convzoo_data::{Fit, InMemory, Preprocess, Splits};
use convzoo_models::Classifier;
use convzoo_models::blocks::{FeatureMap, Features, Opaque};
use convzoo_train::{Event, Outcome, Recipe, Resources, RunStatus, Saving, Trainer};

#[derive(Module, Debug)]
struct Small {
    conv: Conv2d,
    norm: BatchNorm,
    dropout: Dropout,
    fc: Linear,
}

impl Small {
    fn new(device: &Device) -> Self {
        Self {
            conv: Conv2dConfig::new([1, 4], [3, 3]).init(device),
            norm: BatchNormConfig::new(4).init(device),
            dropout: DropoutConfig::new(0.3).init(),
            fc: LinearConfig::new(4 * 6 * 6, 3).init(device),
        }
    }
}

impl Classifier for Small {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        let norm = Opaque::new("norm", |maps| self.norm.forward(maps));
        images.layer(&self.conv).layer(&norm).relu()
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        let fc = Opaque::new("fc", |vectors| self.fc.forward(vectors)).with_output([3]);
        features.flatten().layer(&self.dropout).layer(&fc)
    }

    fn replace_head(self, _: usize) -> Self {
        self
    }
}

/// 50 images of noise to train on, of which each class is a little brighter somewhere else, and 20 to test on.
fn data() -> Splits {
    let images = |count: usize, mut noise: u32| {
        let labels: Vec<u8> = (0..count).map(|i| (i % 3) as u8).collect();
        let pixels = labels.iter().flat_map(|label| (0..64_u8).map(move |at| (*label, at))).map(|(label, at)| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 25) as u8 + if at / 22 == label { 100 } else { 0 }
        });
        let classes = ["a", "b", "c"].map(str::to_owned).into();
        Arc::new(InMemory::new((8, 8, 1), pixels.collect(), labels, classes).unwrap())
    };
    Splits { name: "noise".to_owned(), train: images(50, 1), test: images(20, 2) }
}

fn trainer(out: &Path) -> Trainer<Small> {
    let device = Device::flex();
    device.seed(5);
    let changes = [
        ("epochs", "3"),
        ("batch_size", "8"),
        ("accumulation", "2"),
        ("ema", "0.5"),
        ("schedule", "{ kind = \"plateau\", patience = 0, factor = 0.5 }"),
        ("optimizer", "adamw"),
        ("learning_rate", "0.01"),
        ("augment.random_crop", "1"),
        ("mixup", "0.2"),
    ];
    Trainer {
        network: Small::new(&device.clone().autodiff()),
        data: data(),
        preprocess: Preprocess::new(1, 8, 8, Fit::Resize),
        recipe: Recipe::default().with(changes).unwrap(),
        recipe_name: None,
        seed: 3,
        device,
        device_name: "flex".to_owned(),
        out: out.to_owned(),
        saving: Saving { every: Some(2), keep: 3 },
        resources: Resources::default(),
        command: Vec::new(),
        setup: serde_json::Value::Null,
        dashboard: false,
        interrupter: Interrupter::new(),
    }
}

/// Runs, or goes on, until so many batches and tests are done.
fn run_until(out: &Path, resumes: bool, events: usize) -> Outcome {
    let trainer = trainer(out);
    let interrupter = trainer.interrupter.clone();
    let mut seen = 0;
    let report = move |event: Event| {
        seen += usize::from(matches!(event, Event::Progress(_)));
        if seen == events {
            interrupter.stop(None);
        }
    };
    if resumes { trainer.resume(report) } else { trainer.start(report) }.unwrap()
}

#[test]
fn a_run_stopped_anywhere_goes_on_as_if_it_had_not_been() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let whole = run_until(&at("whole"), false, usize::MAX);
    assert_eq!(whole.record.status, RunStatus::Finished);
    // An epoch is of 7 batches and 3 of the test. Steps are of two batches, so some stops come a batch later.
    for stop in [1, 2, 4, 7, 8, 10, 11, 15, 19] {
        let name = format!("stopped-{stop}");
        let stopped = run_until(&at(&name), false, stop);
        assert!(stopped.interrupted && stopped.record.status == RunStatus::Interrupted, "stop {stop} was not heard");
        let resumed = run_until(&at(&name), true, usize::MAX);
        for file in ["last.safetensors", "best.safetensors"] {
            let read = |run: &str| std::fs::read(at(run).join(file)).unwrap();
            assert!(read(&name) == read("whole"), "stopped at {stop}: {file} differs");
        }
        let figures = |outcome: &Outcome| {
            outcome.record.epochs.iter().map(|epoch| (epoch.train, epoch.test, epoch.learning_rate)).collect::<Vec<_>>()
        };
        assert_eq!(figures(&resumed), figures(&whole), "stopped at {stop}");
    }
    let checkpoints = std::fs::read_dir(at("whole").join("checkpoints")).unwrap().count();
    assert_eq!(checkpoints, 3, "so many were to be kept");
}
