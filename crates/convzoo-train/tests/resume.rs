//! A run that is stopped within an epoch and resumed is the run that was never stopped: batch norms' statistics,
//! dropout, moving averages and all.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Linear, LinearConfig};
use burn::tensor::Device;
use burn::train::Interrupter;
use convzoo_data::{Fit, InMemory, Preprocess, Splits};
use convzoo_models::blocks::{FeatureMap, Features, Opaque};
use convzoo_models::{Classifier, Network, Options, create};
use convzoo_train::{
    Event, HeldOut, Outcome, RangeTest, Recipe, Resources, RunStatus, Saving, TrainError, Trainer, recipe_names,
};

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

/// Images of 8 × 8 to train and to test on: noise, of which each class is a little brighter somewhere else.
fn noise(channels: u8, train: usize, test: usize) -> Splits {
    let (values, part) = (64 * channels, (64 * channels).div_ceil(3));
    let images = |count: usize, mut noise: u32| {
        let labels: Vec<u8> = (0..count).map(|i| (i % 3) as u8).collect();
        let pixels = labels.iter().flat_map(|label| (0..values).map(move |at| (*label, at))).map(|(label, at)| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 25) as u8 + if at / part == label { 100 } else { 0 }
        });
        let classes = ["a", "b", "c"].map(str::to_owned).into();
        Arc::new(InMemory::new((8, 8, channels.into()), pixels.collect(), labels, classes).unwrap())
    };
    Splits { name: "noise".to_owned(), train: images(train, 1), val: None, test: images(test, 2) }
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
    Trainer::new(Small::new(&device.autodiff()), noise(1, 50, 20))
        .preprocess(Preprocess::new(1, 8, 8, Fit::Resize))
        .recipe(Recipe::default().with(changes).unwrap())
        .seed(3)
        .saving(Saving { every: Some(2), keep: 3 })
        .out(out)
}

/// Runs, or resumes, until so many batches and tests are done.
fn run_until(out: &Path, resumes: bool, events: usize) -> Outcome {
    let interrupter = Interrupter::new();
    let trainer = trainer(out).interrupter(interrupter.clone());
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
fn a_run_stopped_anywhere_resumes_as_if_it_had_not_been() {
    let _alone = alone();
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
            outcome
                .record
                .epochs
                .iter()
                .map(|epoch| (epoch.train, epoch.held_out, epoch.learning_rate))
                .collect::<Vec<_>>()
        };
        assert_eq!(figures(&resumed), figures(&whole), "stopped at {stop}");
    }
    let checkpoints = std::fs::read_dir(at("whole").join("checkpoints")).unwrap().count();
    assert_eq!(checkpoints, 3, "so many were to be kept");
}

#[test]
fn a_finished_run_goes_on_for_more_epochs_as_if_it_had_begun_with_them() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    // A schedule that does not look at the run's end.
    let recipe =
        Recipe { batch_size: 8, ..Recipe::default().with([("schedule", "constant"), ("ema", "0.9")]).unwrap() };
    let run = |name: &str, epochs, resumes: bool| {
        let resources = Resources::default();
        let recipe = Recipe { epochs, ..recipe.clone() };
        let trainer = residual_trainer(residual(1), recipe, resources, &at(name));
        if resumes { trainer.resume(|_| {}) } else { trainer.start(|_| {}) }
    };
    run("whole", 3, false).unwrap();
    run("longer", 1, false).unwrap();
    let told = run("longer", 1, true).unwrap_err().to_string();
    assert!(told.contains("has ended after 1 epochs; a higher number of --epochs"), "{told}");
    let longer = run("longer", 3, true).unwrap().record;
    assert_eq!((longer.status, longer.recipe.epochs, longer.epochs.len()), (RunStatus::Finished, 3, 3));
    for file in ["last.safetensors", "best.safetensors"] {
        let read = |run: &str| std::fs::read(at(run).join(file)).unwrap();
        assert!(read("longer") == read("whole"), "{file} differs from that of the run of three epochs");
    }
    assert!(run("longer", 2, true).is_err(), "a run cannot go back");
}

#[test]
fn a_range_test_trains_at_rising_rates_until_the_loss_has_risen() {
    let _alone = alone();
    let recipe = short(&Recipe::default().with([("optimizer", "sgd"), ("accumulation", "2")]).unwrap());
    let at = tempfile::tempdir().unwrap();
    let find = |steps| {
        let trainer = residual_trainer(residual(1), recipe.clone(), Resources::default(), &at.path().join("run"));
        let test = RangeTest { lowest: 1e-4, highest: 100.0, steps };
        let mut told = 0;
        (trainer.range_test(&test, |step| told = step).unwrap(), told)
    };
    let (range, told) = find(40);
    assert_eq!(told, range.steps.len());
    assert!((2..40).contains(&told), "{told} steps: it has not ended at a loss that rose");
    assert!(range.steps.windows(2).all(|pair| pair[0].rate < pair[1].rate), "{range:?}");
    let suggested = range.suggested.expect("the loss has risen");
    assert!((suggested * 10.0 - range.lowest_loss).abs() < 1e-12 && suggested < 10.0, "{range:?}");
    assert_eq!(find(40).0, range, "the same seed is another test");
    assert!(!at.path().join("run").exists(), "it has left a run");
    let page = range.page("rates").unwrap().html();
    assert!(page.contains("<svg") && page.contains("smoothed"), "{page}");
}

#[test]
fn a_run_with_validation_images_chooses_by_them_and_measures_the_test_once() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let trainer = |out: &Path, share| {
        let device = Device::flex();
        device.seed(5);
        let recipe = Recipe { epochs: 3, batch_size: 8, ema: Some(0.5), ..Recipe::default() };
        Trainer::new(Small::new(&device.autodiff()), noise(1, 50, 20).hold_out(share, 7).unwrap())
            .preprocess(Preprocess::new(1, 8, 8, Fit::Resize))
            .recipe(recipe)
            .out(out)
    };
    let whole = trainer(&at("whole"), 0.2).start(|_| {}).unwrap();
    let record = &whole.record;
    assert_eq!((record.train_images, record.val_images, record.test_images), (41, Some(9), 20));
    assert!(record.epochs.iter().all(|epoch| matches!(epoch.held_out, HeldOut::Val(_))), "{:?}", record.epochs);
    let test = record.test.expect("the test is measured at the end");
    assert_eq!(record.tested(), Some(test));
    assert_eq!((test.accuracy * 20.0).fract(), 0.0, "{} is no share of 20 images", test.accuracy);
    let page = std::fs::read_to_string(at("whole/report.html")).unwrap();
    assert!(page.contains("were measured once") && page.contains("9 to choose by"), "{page}");
    let table = std::fs::read_to_string(at("whole/metrics.csv")).unwrap();
    assert!(table.contains("val_accuracy") && !table.contains("test_accuracy"), "{table}");

    let interrupter = Interrupter::new();
    let stop = interrupter.clone();
    let mut batches = 0;
    let stopped = trainer(&at("stopped"), 0.2).interrupter(interrupter).start(move |event| {
        batches += usize::from(matches!(event, Event::Progress(_)));
        if batches == 9 {
            stop.stop(None);
        }
    });
    assert!(stopped.unwrap().record.test.is_none(), "a run that has not ended has measured the test");
    // Another part of the images to choose by is another run.
    let told = trainer(&at("stopped"), 0.4).resume(|_| {}).unwrap_err().to_string();
    assert!(told.contains("41 images to train on"), "{told}");
    let resumed = trainer(&at("stopped"), 0.2).resume(|_| {}).unwrap();
    assert_eq!(resumed.record.test, Some(test));
    let read = |run: &str| std::fs::read(at(run).join("best.safetensors")).unwrap();
    assert!(read("stopped") == read("whole"), "the best weights differ");
}

/// Random numbers are a device's, and tests run at the same time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A residual network of several stages, its parameters drawn from `seed`.
fn residual(seed: u64) -> Network {
    let device = Device::flex();
    device.seed(seed);
    let options = Options { drop_path: Some(0.2), ..Options::default().with_classes(3) };
    let network = create("resnet20_cifar", &options, &device.autodiff()).unwrap();
    // They are drawn when they are first used.
    drop(network.clone().into_record());
    network
}

/// Three epochs by `recipe` in `out`, each of three batches and two of the test.
fn residual_trainer(network: Network, recipe: Recipe, resources: Resources, out: &Path) -> Trainer<Network> {
    Trainer::new(network, noise(3, 24, 9))
        .preprocess(Preprocess::new(3, 8, 8, Fit::Resize))
        .recipe(recipe)
        .seed(3)
        .resources(resources)
        .out(out)
}

/// Compares a run by `recipe` that was stopped and resumed twice, within the first epoch and within the second, with
/// one that nothing disturbed.
fn resumes_as_if_undisturbed(name: &str, recipe: &Recipe, resources: &Resources) {
    let folder = tempfile::tempdir().unwrap();
    let at = |run: &str| folder.path().join(run);
    let start = residual(1);
    let whole = residual_trainer(start.clone(), recipe.clone(), resources.clone(), &at("whole")).start(|_| {}).unwrap();
    assert_eq!(whole.record.status, RunStatus::Finished, "{name}");
    let run = |network: Network, resumes: bool, events: usize| {
        let interrupter = Interrupter::new();
        let trainer = residual_trainer(network, recipe.clone(), resources.clone(), &at("stopped"));
        let trainer = trainer.interrupter(interrupter.clone());
        let mut seen = 0;
        let report = move |event: Event| {
            seen += usize::from(matches!(event, Event::Progress(_)));
            if seen == events {
                interrupter.stop(None);
            }
        };
        if resumes { trainer.resume(report) } else { trainer.start(report) }.unwrap()
    };
    assert!(run(start, false, 1).interrupted, "{name}: the first stop was not heard");
    // All that a resumed run knows of the parameters comes from its checkpoint.
    assert!(run(residual(2), true, 6).interrupted, "{name}: the second stop was not heard");
    assert!(!run(residual(4), true, usize::MAX).interrupted, "{name}");
    let in_bytes = recipe.quantization.is_some().then_some("best-int8.safetensors");
    for file in ["last.safetensors", "best.safetensors"].into_iter().chain(in_bytes) {
        let read = |run: &str| std::fs::read(at(run).join(file)).unwrap();
        assert!(read("stopped") == read("whole"), "{name}: {file} differs from that of the undisturbed run");
    }
}

fn with_cache(cache: usize) -> Resources {
    Resources { cache, ..Resources::default() }
}

/// What makes a run of the recipe a short one.
fn short(recipe: &Recipe) -> Recipe {
    let accumulation = recipe.accumulation.min(2);
    let warmup_epochs = recipe.warmup_epochs.min(1.0);
    Recipe { epochs: 3, batch_size: 8, accumulation, warmup_epochs, ..recipe.clone() }
}

#[test]
fn every_recipe_resumes_as_if_undisturbed() {
    let _alone = alone();
    for name in recipe_names() {
        resumes_as_if_undisturbed(name, &short(&Recipe::named(name).unwrap()), &with_cache(1 << 20));
    }
}

/// What is grouped is told by the parameters themselves, which a checkpoint replaces.
#[test]
fn every_option_that_groups_parameters_resumes_as_if_undisturbed() {
    let _alone = alone();
    /// What it is, the changes of the recipe, and the bytes of the cache.
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], usize);
    let cases: [Case; 18] = [
        ("a frozen layer", &[("transfer.freeze", "layer1")], 1 << 20),
        ("a frozen backbone, its features kept", &[("transfer.freeze", "backbone")], 1 << 20),
        ("a frozen backbone, its features computed anew", &[("transfer.freeze", "backbone")], 0),
        ("augmentation before a frozen backbone", &[("transfer.freeze", "backbone"), ("augment.random_crop", "1")], 0),
        ("mixing before a frozen backbone", &[("transfer.freeze", "backbone"), ("mixup", "0.4")], 1 << 20),
        ("stages that thaw", &[("transfer.freeze", "backbone"), ("transfer.unfreeze_every", "1")], 0),
        ("class weights", &[("class_weights", "balanced"), ("label_smoothing", "0.1")], 0),
        ("rates by stage", &[("transfer.layer_decay", "0.5")], 0),
        ("no decay of norms and biases", &[("weight_decay", "0.05"), ("decay_all", "false")], 0),
        (
            "no decay of norms and biases by AdamW",
            &[("optimizer", "adamw"), ("learning_rate", "0.01"), ("weight_decay", "0.5"), ("decay_all", "false")],
            0,
        ),
        (
            "no decay of norms and biases by RMSProp",
            &[("optimizer", "rmsprop"), ("learning_rate", "0.01"), ("weight_decay", "0.05"), ("decay_all", "false")],
            0,
        ),
        ("checkpointing, with paths that drop", &[("checkpointing", "true")], 0),
        (
            "checkpointing, stages that thaw",
            &[("checkpointing", "true"), ("transfer.freeze", "layer2"), ("ema", "0.9")],
            0,
        ),
        (
            "rounding to bytes",
            &[("quantization.weight_bits", "4"), ("quantization.keep", "[\"conv1\"]"), ("ema", "0.9")],
            0,
        ),
        ("bfloat16", &[("precision", "bf16"), ("ema", "0.9")], 0),
        ("f16, its loss scaled", &[("precision", "f16"), ("clip_norm", "1")], 0),
        ("a frozen backbone in bfloat16", &[("precision", "bf16"), ("transfer.freeze", "backbone")], 1 << 20),
        (
            "all at once",
            &[
                ("transfer.freeze", "layer2"),
                ("transfer.unfreeze_every", "2"),
                ("transfer.layer_decay", "0.7"),
                ("weight_decay", "0.05"),
                ("decay_all", "false"),
                ("ema", "0.9"),
                ("clip_norm", "1"),
            ],
            0,
        ),
    ];
    for (name, changes, cache) in cases {
        let recipe = Recipe::default().with(changes.iter().copied()).unwrap();
        resumes_as_if_undisturbed(name, &short(&recipe), &with_cache(cache));
    }
}

/// Random numbers, gradients and running statistics are those of a run without.
#[test]
fn a_run_with_checkpointing_ends_in_the_weights_of_one_without() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let [plain, checkpointed] = [false, true].map(|checkpointing| {
        let recipe = Recipe { checkpointing, clip_norm: Some(1.0), ..short(&Recipe::default()) };
        let out = folder.path().join(checkpointing.to_string());
        let outcome = residual_trainer(residual(1), recipe, with_cache(1 << 20), &out).start(|_| {}).unwrap();
        assert_eq!(outcome.record.recipe.checkpointing, checkpointing, "what the record remembers");
        std::fs::read(out.join("last.safetensors")).unwrap()
    });
    assert!(plain == checkpointed, "the weights differ");

    let refused = trainer(&folder.path().join("refused"));
    let told = refused.recipe(Recipe { checkpointing: true, ..Recipe::default() }).start(|_| {}).unwrap_err();
    assert!(matches!(told, TrainError::NoSegments), "{told}");
    assert!(!folder.path().join("refused").exists(), "a run that was refused has left a folder");
}

/// Gradients and statistics of three devices are added in one order, and their random numbers drawn in one.
#[test]
fn runs_on_several_devices_resume_as_if_undisturbed() {
    let _alone = alone();
    let resources = Resources { more_devices: vec![Device::flex(); 2], ..with_cache(1 << 20) };
    let changes = [
        &[][..],
        &[("accumulation", "2"), ("ema", "0.9"), ("transfer.freeze", "layer1")],
        &[("checkpointing", "true")],
    ];
    for changes in changes {
        let recipe = short(&Recipe::default().with(changes.iter().copied()).unwrap());
        resumes_as_if_undisturbed("three devices", &Recipe { batch_size: 3, ..recipe }, &resources);
    }
}
