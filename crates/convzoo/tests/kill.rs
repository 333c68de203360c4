//! Runs by every recipe and option, killed or stopped at any moment, resumed and compared with undisturbed ones: the
//! weights are the same, bit for bit. A few here; `cargo xtask kill` makes hundreds.

#![cfg(unix)]
#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod support;

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use convzoo::train::{Recipe, recipe_names};
use serde_json::Value;
use support::{json, signal, temp};

/// What a run is started with besides [`TRAIN`], and what it has to be told again when it is resumed.
struct Case {
    name: String,
    options: Vec<&'static str>,
    again: Vec<&'static str>,
}

const EPOCHS: f64 = 2.0;

/// [`EPOCHS`] of LeNet-5 on the embedded digits, a checkpoint after every fifth step.
const TRAIN: [&str; 9] =
    ["train", "lenet5", "--json", "--epochs", "2", "--batch-size", "64", "--checkpoint-every", "5"];
const RESUME: [&str; 6] = ["train", "--json", "--checkpoint-every", "5", "--resume", "killed"];

/// What a frozen backbone is to have learned.
const WEIGHTS: [&str; 2] = ["--weights", concat!(env!("CARGO_MANIFEST_DIR"), "/weights/lenet5-digits.safetensors")];

/// Options beside the recipes: every optimizer and schedule, and all that groups parameters, averages, mixes, freezes, weighs or chooses.
const OPTIONS: [&str; 29] = [
    "--optimizer sgd --momentum 0",
    "--optimizer adam --lr 0.001",
    "--optimizer adamw --lr 0.001 --weight-decay 0.1 --set decay_all=false",
    "--optimizer rmsprop --lr 0.001 --set optimizer.centered=true",
    "--schedule constant",
    "--schedule linear",
    "--schedule step --set schedule.every=1",
    "--schedule one-cycle",
    "--schedule plateau --set schedule.patience=0",
    "--weight-decay 0.05 --set decay_all=false",
    "--freeze c1",
    "--freeze c3 --set augment.random_crop=2",
    "--freeze backbone",
    "--freeze backbone --cache 0",
    "--freeze backbone --set mixup=0.2",
    "--freeze backbone --set transfer.unfreeze_every=1",
    "--set transfer.layer_decay=0.5",
    "--set accumulation=3 --set clip_norm=1",
    "--set ema=0.9",
    "--set mixup=0.4 --set cutmix=1",
    "--set label_smoothing=0.1 --set warmup_epochs=0.5",
    "--set augment.random_rotation=10 --set augment.random_erasing=0.5",
    "--set monitor=loss --set early_stopping=1",
    "--activation relu --set ema=0.99 --set accumulation=2",
    "--val-split 0.1 --set class_weights=balanced",
    "--val-split 0.2 --freeze backbone",
    "--set quantization.weight_bits=4 --set ema=0.9",
    "--workers 3 --keep 1",
    "--device flex,flex --set accumulation=2",
];

fn cases() -> Vec<Case> {
    let recipes = recipe_names().map(|name| {
        let recipe = Recipe::named(name).unwrap();
        // There are two epochs.
        let warmup = if recipe.warmup_epochs > 1.0 { &["--set", "warmup_epochs=1"][..] } else { &[] };
        [&["--recipe", name], warmup].concat()
    });
    let options = OPTIONS.map(|text| text.split(' ').collect::<Vec<_>>());
    let case = |mut options: Vec<&'static str>| {
        let name = options.join(" ");
        if options.iter().any(|option| ["transfer_head", "backbone", "quantization.weight_bits=4"].contains(option)) {
            options.extend(WEIGHTS);
        }
        if !options.contains(&"--device") {
            options.extend(["--device", "flex"]);
        }
        // All is remembered but the use of the machine.
        const MACHINE: [&str; 3] = ["--cache", "--keep", "--workers"];
        let again = options.windows(2).filter(|pair| MACHINE.contains(&pair[0])).flatten().copied().collect();
        Case { name, options, again }
    };
    recipes.chain(options).map(case).collect()
}

/// How a run is disturbed.
#[derive(Debug, Clone, Copy)]
enum Disturbance {
    /// By a signal, at once or as soon as a share of what is left has been trained.
    Signal(&'static str),
    /// Killed while a checkpoint is being written.
    InWrite,
}

const DISTURBANCES: [Disturbance; 6] = [
    Disturbance::Signal("KILL"),
    Disturbance::InWrite,
    Disturbance::Signal("INT"),
    Disturbance::Signal("KILL"),
    Disturbance::Signal("TERM"),
    Disturbance::Signal("HUP"),
];

/// Numbers that are the same each time, so that a failure repeats but for the machine's pace.
struct Chance(u64);

impl Chance {
    fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / f64::from(1_u32 << 31)
    }
}

fn drafts(run: &Path) -> usize {
    let entries = fs::read_dir(run.join("checkpoints")).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b".draft")).count()
}

fn start(folder: &Path, arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_convzoo"));
    command.args(arguments).current_dir(folder).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
}

/// Epochs trained, by the newest checkpoint: `EPOCH-BATCHES`, of some twenty batches.
fn trained(run: &Path) -> f64 {
    let entries = fs::read_dir(run.join("checkpoints")).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let epochs = names.filter_map(|name| {
        let (epoch, batches) = name.split_once('-')?;
        Some(epoch.parse::<f64>().ok()? - 1.0 + (batches.parse::<f64>().ok()? / 20.0).min(0.99))
    });
    epochs.fold(0.0, f64::max)
}

/// Disturbs a run up to three times, resumes it each time; how often it was disturbed before it ended.
fn disturbed(folder: &Path, case: &Case, chance: &mut Chance, first: usize) -> usize {
    let run = folder.join("killed");
    let mut hits = 0;
    for at in 0..3 {
        let arguments = match run.join("run.json").exists() {
            true => [&RESUME[..], &case.again].concat(),
            false => [&TRAIN[..], &case.options, &["--out", "killed"]].concat(),
        };
        let begun = trained(&run);
        let moment = begun + 0.6 * chance.share() * (EPOCHS - begun);
        let mut child = start(folder, &arguments);
        while trained(&run) < moment && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        match DISTURBANCES[(first + at) % DISTURBANCES.len()] {
            Disturbance::Signal(name) if child.try_wait().unwrap().is_none() => signal(&child, name),
            Disturbance::Signal(_) => {}
            Disturbance::InWrite => {
                while drafts(&run) == 0 && child.try_wait().unwrap().is_none() {}
                let _ = child.kill();
            }
        }
        hits += usize::from(!child.wait().unwrap().success());
        if status(&run).as_deref() == Some("finished") {
            break;
        }
    }
    hits
}

fn status(run: &Path) -> Option<String> {
    let record: Value = serde_json::from_slice(&fs::read(run.join("run.json")).ok()?).unwrap();
    Some(record["status"].as_str()?.to_owned())
}

/// Makes so many disturbed runs, by the cases from `from` on, in turns; how often they were disturbed.
fn survive(runs: usize, from: usize) -> usize {
    let (folder, cases) = (temp(), cases());
    let (mut chance, mut hits) = (Chance(0x2545_F491_4F6C_DD1D), 0);
    let mut whole = HashSet::new();
    for run in 0..runs {
        let number = (from + run) % cases.len();
        let case = &cases[number];
        let undisturbed = folder.path().join(format!("whole-{number}"));
        if whole.insert(number) {
            json(folder.path(), &[&TRAIN[..], &case.options, &["--out", undisturbed.to_str().unwrap()]].concat());
        }
        let killed = folder.path().join("killed");
        hits += disturbed(folder.path(), case, &mut chance, run);
        match status(&killed).as_deref() {
            Some("finished") => {}
            Some(_) => drop(json(folder.path(), &[&RESUME[..], &case.again].concat())),
            None => drop(json(folder.path(), &[&TRAIN[..], &case.options, &["--out", "killed"]].concat())),
        }
        for file in ["last.safetensors", "best.safetensors"] {
            let read = |run: &Path| fs::read(run.join(file)).unwrap();
            assert!(read(&killed) == read(&undisturbed), "run {run}, {}: {file} differs", case.name);
        }
        let left = fs::read_dir(&killed).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let left: Vec<_> = left.filter(|name| name.starts_with(".tmp")).collect();
        assert!(left.is_empty() && drafts(&killed) == 0, "run {run}, {}: {left:?} and drafts are left", case.name);
        fs::remove_dir_all(&killed).unwrap();
    }
    println!("{runs} runs of {} settings, disturbed {hits} times: all as undisturbed", cases.len().min(runs));
    hits
}

#[test]
fn disturbed_runs_end_as_undisturbed_ones() {
    // A recipe with groups, one that freezes, and options from each end of the list.
    let from = |is: fn(&str) -> bool| cases().iter().position(|case| is(&case.name)).unwrap();
    let hits = survive(2, from(|name| name.ends_with("cifar10_fast")))
        + survive(2, from(|name| name.ends_with("transfer_head")))
        + survive(2, from(|name| name.starts_with("--freeze backbone --cache")))
        + survive(1, from(|name| name.starts_with("--device")));
    assert!(hits > 0, "every run ended before it was disturbed");
}

#[test]
#[ignore = "takes many minutes; cargo xtask kill runs it"]
fn many_disturbed_runs_end_as_undisturbed_ones() {
    let runs = std::env::var("CONVZOO_KILLS").map_or(200, |runs| runs.parse().unwrap());
    assert!(survive(runs, 0) * 2 > runs, "most runs ended before they were disturbed");
}
