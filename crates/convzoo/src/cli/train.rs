use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use burn::train::Interrupter;
use convzoo::train::{Epoch, Optimizer, Outcome, Recipe, RunRecord, Schedule, Trainer};
use convzoo::{Classifier, Network, create, variant, weights};
use serde::{Deserialize, Serialize};

use super::output::{print, print_json};
use super::select::{DataArgs, DeviceArgs, NetworkArgs, preprocess};

/// Arguments of `train`.
#[derive(clap::Args)]
pub struct Args {
    /// The network [default: lenet5]
    model: Option<String>,
    /// The data set: digits, mnist, fashion-mnist, cifar10, cifar100 or folder [default: digits]
    #[arg(long, value_name = "DATASET")]
    data: Option<String>,
    #[command(flatten)]
    source: DataArgs,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Weights to start from, of the same network and classes [default: drawn as the paper draws them]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Recipe file in TOML; the options below override it
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
    /// What the first weights, the order of the images and dropout come from
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Folder of the run [default: a new one under runs/]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with the run in this folder, which remembers all but the device
    #[arg(long, value_name = "DIR", conflicts_with_all = [
        "model", "data", "data_dir", "offline", "split_seed", "activation", "batch_norm", "dropout", "drop_path",
        "memory_efficient",         "weights", "recipe", "epochs", "batch_size", "optimizer", "learning_rate", "schedule", "momentum",
        "weight_decay", "label_smoothing", "auxiliary_weight", "seed", "out",
    ])]
    resume: Option<PathBuf>,
    /// Print the run's record as JSON at the end, and no dashboard
    #[arg(long)]
    json: bool,
    /// Print a line per epoch instead of the dashboard
    #[arg(long)]
    plain: bool,
}

/// What overrides the recipe.
#[derive(clap::Args)]
struct Overrides {
    /// Passes over the training images [default: 20]
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// Images per step [default: 64]
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// What turns gradients into steps [default: sgd]
    #[arg(long, value_name = "sgd|adam", value_parser = optimizer)]
    optimizer: Option<Optimizer>,
    /// Learning rate at the start [default: 0.05]
    #[arg(long, visible_alias = "lr", value_name = "RATE", allow_negative_numbers = true)]
    learning_rate: Option<f64>,
    /// How the learning rate goes on [default: cosine]
    #[arg(long, value_name = "constant|cosine", value_parser = schedule)]
    schedule: Option<Schedule>,
    /// Momentum of SGD [default: 0.9]
    #[arg(long, value_name = "M", allow_negative_numbers = true)]
    momentum: Option<f64>,
    /// L2 penalty on all parameters [default: 0]
    #[arg(long, value_name = "W", allow_negative_numbers = true)]
    weight_decay: Option<f64>,
    /// Share of the target spread over all classes [default: 0]
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    label_smoothing: Option<f64>,
    /// Weight of each auxiliary classifier's loss [default: 0.3]
    #[arg(long, value_name = "W", allow_negative_numbers = true)]
    auxiliary_weight: Option<f64>,
}

fn optimizer(text: &str) -> Result<Optimizer, String> {
    match text {
        "sgd" => Ok(Optimizer::Sgd),
        "adam" => Ok(Optimizer::Adam),
        _ => Err("expected sgd or adam".to_owned()),
    }
}

fn schedule(text: &str) -> Result<Schedule, String> {
    match text {
        "constant" => Ok(Schedule::Constant),
        "cosine" => Ok(Schedule::Cosine),
        _ => Err("expected constant or cosine".to_owned()),
    }
}

impl Overrides {
    fn apply(&self, recipe: &mut Recipe) {
        fn set<T: Copy>(field: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *field = value;
            }
        }
        set(&mut recipe.epochs, self.epochs);
        set(&mut recipe.batch_size, self.batch_size);
        set(&mut recipe.optimizer, self.optimizer);
        set(&mut recipe.learning_rate, self.learning_rate);
        set(&mut recipe.schedule, self.schedule);
        set(&mut recipe.momentum, self.momentum);
        set(&mut recipe.weight_decay, self.weight_decay);
        set(&mut recipe.label_smoothing, self.label_smoothing);
        set(&mut recipe.auxiliary_weight, self.auxiliary_weight);
    }
}

/// What makes the same network and data again.
#[derive(Clone, Serialize, Deserialize)]
struct Setup {
    model: String,
    data: String,
    source: DataArgs,
    network: NetworkArgs,
}

/// Trains, or goes on training.
pub fn run(args: &Args) -> Result<ExitCode> {
    let dashboard = !args.json && !args.plain && io::stdout().is_terminal();
    let trainer = match &args.resume {
        Some(folder) => resumed(args, folder, dashboard)?,
        None => fresh(args, dashboard)?,
    };
    let (out, name) = (trainer.out.clone(), trainer.network.name());
    if !dashboard {
        eprintln!(
            "{name} on {}: {} images to train on, {} to test on, {} epochs, device {}, folder {}",
            trainer.data.name,
            trainer.data.train.len(),
            trainer.data.test.len(),
            trainer.recipe.epochs,
            trainer.device_name,
            out.display(),
        );
    }
    stop_on_signal(&trainer.interrupter)?;
    let images = trainer.data.train.len();
    let report = move |epoch: &Epoch, record: &RunRecord| {
        if !dashboard {
            eprintln!("{}", line(epoch, record.recipe.epochs, images));
        }
    };
    let outcome = if args.resume.is_some() { trainer.resume(report) } else { trainer.start(report) }?;
    if args.json {
        print_json(&outcome.record)?;
    } else {
        print(&closing(&outcome, &out, name))?;
    }
    Ok(if outcome.interrupted { ExitCode::from(130) } else { ExitCode::SUCCESS })
}

fn fresh(args: &Args, dashboard: bool) -> Result<Trainer<Network>> {
    let mut recipe = match &args.recipe {
        Some(path) => Recipe::read(path)?,
        None => Recipe::default(),
    };
    args.overrides.apply(&mut recipe);
    recipe.check()?;
    let setup = Setup {
        model: variant(args.model.as_deref().unwrap_or("lenet5"))?.name.to_owned(),
        data: args.data.clone().unwrap_or_else(|| "digits".to_owned()),
        source: args.source.clone(),
        network: args.network.clone(),
    };
    let out = match &args.out {
        Some(out) => out.clone(),
        None => new_folder(&format!("{}-{}", setup.model, setup.data)),
    };
    let mut trainer = trainer(&args.device, &setup, recipe, args.seed, out, dashboard)?;
    if let Some(path) = &args.weights {
        trainer.network = weights::load(trainer.network, path)
            .with_context(|| format!("loading {} into {}", path.display(), setup.model))?;
    }
    Ok(trainer)
}

fn resumed(args: &Args, folder: &Path, dashboard: bool) -> Result<Trainer<Network>> {
    let record = RunRecord::read(folder)?;
    let setup: Setup = serde_json::from_value(record.setup)
        .with_context(|| format!("{} is of another program or version", folder.join("run.json").display()))?;
    let device = match &args.device.device {
        Some(_) => args.device.clone(),
        None => DeviceArgs { device: Some(record.device.parse()?), ..args.device.clone() },
    };
    trainer(&device, &setup, record.recipe, record.seed, folder.to_owned(), dashboard)
}

fn trainer(
    device: &DeviceArgs,
    setup: &Setup,
    recipe: Recipe,
    seed: u64,
    out: PathBuf,
    dashboard: bool,
) -> Result<Trainer<Network>> {
    let (device_name, device) = device.open()?;
    let data = setup.source.open(&setup.data)?;
    let image = data.train.get(0).context("reading the first image")?.image;
    let mut options = setup.network.options();
    options.classes = Some(data.classes().len());
    options.channels = Some(image.channels);
    device.seed(seed);
    let network = create(&setup.model, &options, &device.clone().autodiff())?;
    network.check_input(network.input())?;
    let network = network.with_labels(data.classes().to_vec());
    let preprocess = preprocess(&network, &network.preprocessing(), &*data.train)?;
    Ok(Trainer {
        network,
        data,
        preprocess,
        recipe,
        seed,
        device,
        device_name: device_name.to_string(),
        out,
        command: std::env::args().collect(),
        setup: serde_json::to_value(setup).context("writing down the run's setup")?,
        dashboard,
        interrupter: Interrupter::new(),
    })
}

/// `runs/NAME`, or with the first number behind it that is free.
fn new_folder(name: &str) -> PathBuf {
    let runs = Path::new("runs");
    let numbered = (2..).map(|number| runs.join(format!("{name}-{number}")));
    std::iter::once(runs.join(name))
        .chain(numbered)
        .find(|folder| !folder.exists())
        .expect("there is always another number")
}

/// Ctrl-C stops after the step under way; a second one stops at once.
fn stop_on_signal(interrupter: &Interrupter) -> Result<()> {
    let interrupter = interrupter.clone();
    ctrlc::set_handler(move || {
        if interrupter.should_stop() {
            std::process::exit(130);
        }
        eprintln!("stopping; the last finished epoch is kept");
        interrupter.stop(Some("stopped by the user"));
    })
    .map_err(|error| anyhow!("cannot listen for Ctrl-C: {error}"))
}

fn line(epoch: &Epoch, epochs: usize, images: usize) -> String {
    format!(
        "epoch {:>3}/{epochs}  train loss {:.4} accuracy {:6.2}%  test loss {:.4} accuracy {:6.2}%  {:.1} s  {:.0} images/s",
        epoch.epoch,
        epoch.train.loss,
        100.0 * epoch.train.accuracy,
        epoch.test.loss,
        100.0 * epoch.test.accuracy,
        epoch.seconds,
        images as f64 / epoch.seconds,
    )
}

fn closing(outcome: &Outcome, out: &Path, model: &str) -> String {
    let mut text = String::new();
    if let Some(best) = &outcome.best {
        text += &format!(
            "best test accuracy {:.2}% in epoch {}, weights in {}\n",
            100.0 * best.test.accuracy,
            best.epoch,
            out.join("best.safetensors").display(),
        );
    }
    if outcome.interrupted {
        text += &format!("stopped; go on with: convzoo train --resume {}\n", out.display());
    } else {
        let weights = out.join("best.safetensors");
        let data = data_options(&outcome.record.setup);
        text += &format!("measure it with: convzoo eval {model} --weights {} {data}\n", weights.display());
    }
    text
}

/// The options that choose the same data again.
fn data_options(setup: &serde_json::Value) -> String {
    let Ok(Setup { data, source, .. }) = serde_json::from_value(setup.clone()) else { return String::new() };
    let mut options = format!("--data {data}");
    if let Some(folder) = source.data_dir {
        options += &format!(" --data-dir {}", folder.display());
    }
    if let Some(seed) = source.split_seed {
        options += &format!(" --split-seed {seed}");
    }
    options
}
