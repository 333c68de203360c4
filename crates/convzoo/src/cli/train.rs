use std::collections::VecDeque;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use burn::tensor::Device;
use burn::train::Interrupter;
use convzoo::device::DeviceName;
use convzoo::train::{Epoch, Event, Outcome, Progress, Recipe, Resources, RunRecord, Saving, Trainer, recipe_names};
use convzoo::{Classifier, Network, Preprocessing, Variant, create, variant};
use indicatif::{HumanDuration, ProgressBar};
use serde::{Deserialize, Serialize};

use super::output::{print, print_json, training_progress};
use super::select::{DataArgs, DevicesArgs, NetworkArgs, load, preprocess};

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
    devices: DevicesArgs,
    /// Weights to start from: a file, or the name of published ones; for other classes than the data's, the network
    /// gets a new head [default: drawn as the paper draws them]
    #[arg(long, value_name = "FILE|NAME")]
    weights: Option<String>,
    /// How to train: a recipe's name, or a file in TOML; the options below override it [default: that of the network's
    /// family, which the papers trained it by]
    #[arg(long, value_name = "NAME|FILE")]
    recipe: Option<String>,
    #[command(flatten)]
    overrides: Overrides,
    /// What the first weights, the order of the images, their augmentation and dropout come from
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Folder of the run [default: a new one under runs/]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with the run in this folder, which remembers all but the device and the four options below
    #[arg(long, value_name = "DIR", conflicts_with_all = [
        "model", "data", "data_dir", "offline", "split_seed", "skip_corrupt", "activation", "batch_norm", "dropout",
        "drop_path", "memory_efficient", "weights", "recipe", "epochs", "batch_size", "optimizer", "learning_rate",
        "schedule", "momentum", "weight_decay", "label_smoothing", "auxiliary_weight", "freeze", "set", "seed", "out",
    ])]
    resume: Option<PathBuf>,
    /// Write a checkpoint every so many steps, besides those at the epochs' ends
    #[arg(long, value_name = "STEPS")]
    checkpoint_every: Option<usize>,
    /// Keep the last so many checkpoints
    #[arg(long, value_name = "N", default_value_t = Saving::default().keep)]
    keep: usize,
    /// Threads that make batches [default: as many as there are cores, two to eight]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    workers: Option<u16>,
    /// Memory for decoded images, or for what a frozen backbone answers to them, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    cache: u32,
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
    /// Passes over the training images
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// Images per batch
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// What turns gradients into steps: sgd, adam, adamw or rmsprop
    #[arg(long, value_name = "KIND")]
    optimizer: Option<String>,
    /// The highest learning rate
    #[arg(long, visible_alias = "lr", value_name = "RATE", allow_negative_numbers = true)]
    learning_rate: Option<f64>,
    /// How the learning rate goes on: constant, step, multi-step, cosine, linear, one-cycle or plateau
    #[arg(long, value_name = "KIND")]
    schedule: Option<String>,
    /// Momentum of sgd or rmsprop
    #[arg(long, value_name = "M", allow_negative_numbers = true)]
    momentum: Option<f64>,
    /// L2 penalty, or adamw's decoupled decay
    #[arg(long, value_name = "W", allow_negative_numbers = true)]
    weight_decay: Option<f64>,
    /// Share of the target spread over all classes
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    label_smoothing: Option<f64>,
    /// Weight of each auxiliary classifier's loss
    #[arg(long, value_name = "W", allow_negative_numbers = true)]
    auxiliary_weight: Option<f64>,
    /// Leave the weights as they are up to this layer or block, named as `convzoo summary` names it, or `backbone` for
    /// all in front of the head
    #[arg(long, value_name = "LAYER")]
    freeze: Option<String>,
    /// Any field of the recipe, as in its file: `ema=0.999`, `schedule.milestones=[30,60]`, `augment.random_crop=4`;
    /// `none` takes the default. May be given often
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    set: Vec<(String, String)>,
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, such as ema=0.999")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

impl Overrides {
    /// As changes of a recipe, those of `--set` last.
    fn changes(&self, network: &NetworkArgs) -> Vec<(String, String)> {
        fn text<T: ToString>(value: &Option<T>) -> Option<String> {
            value.as_ref().map(T::to_string)
        }
        let named = [
            ("epochs", text(&self.epochs)),
            ("batch_size", text(&self.batch_size)),
            ("optimizer", self.optimizer.clone()),
            ("learning_rate", text(&self.learning_rate)),
            ("schedule", self.schedule.clone()),
            ("optimizer.momentum", text(&self.momentum)),
            ("weight_decay", text(&self.weight_decay)),
            ("label_smoothing", text(&self.label_smoothing)),
            ("auxiliary_weight", text(&self.auxiliary_weight)),
            ("transfer.freeze", self.freeze.clone()),
            ("dropout", text(&network.dropout)),
            ("drop_path", text(&network.drop_path)),
        ];
        let named = named.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        named.chain(self.set.iter().cloned()).collect()
    }
}

fn shows_dashboard(args: &Args) -> bool {
    !args.json && !args.plain && io::stdout().is_terminal()
}

/// What makes the same network and data again.
#[derive(Clone, Serialize, Deserialize)]
struct Setup {
    model: String,
    data: String,
    source: DataArgs,
    network: NetworkArgs,
    /// What the weights that it started from have decided.
    #[serde(default)]
    pretrained: Option<Pretrained>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Pretrained {
    channels: usize,
    resize: Option<usize>,
}

/// Trains, or goes on training.
pub fn run(args: &Args) -> Result<ExitCode> {
    args.devices.kernels.apply()?;
    let trainer = match &args.resume {
        Some(folder) => resumed(args, folder)?,
        None => fresh(args)?,
    };
    let dashboard = trainer.dashboard;
    let (out, name) = (trainer.out.clone(), trainer.network.name());
    if !dashboard {
        eprintln!(
            "{name} on {}: {} images to train on, {} to test on, {} epochs, recipe {}, device {}, folder {}",
            trainer.data.name,
            trainer.data.train.len(),
            trainer.data.test.len(),
            trainer.recipe.epochs,
            trainer.recipe_name.as_deref().unwrap_or("default"),
            trainer.device_name,
            out.display(),
        );
    }
    stop_on_signal(&trainer.interrupter)?;
    let bar = training_progress(!dashboard);
    let shown = bar.clone();
    let report = move |event: Event| match event {
        Event::Backbone(images, total) => {
            shown.set_length(total as u64);
            shown.set_position(images as u64);
            shown.set_prefix("backbone");
        }
        Event::Progress(progress) => show(&shown, &progress),
        Event::Epoch(epoch, record) if !dashboard => {
            let line = line(epoch, record.recipe.epochs);
            shown.suspend(|| eprintln!("{line}"));
        }
        Event::Damaged(error) => shown.suspend(|| eprintln!("{error}; going on from the one before")),
        Event::Unreported(error) => shown.suspend(|| eprintln!("the run is done but for its report: {error}")),
        _ => {}
    };
    let outcome = if args.resume.is_some() { trainer.resume(report) } else { trainer.start(report) };
    bar.finish_and_clear();
    let outcome = outcome?;
    if args.json {
        print_json(&outcome.record)?;
    } else {
        print(&closing(&outcome, &out, name))?;
    }
    Ok(if outcome.interrupted { ExitCode::from(130) } else { ExitCode::SUCCESS })
}

/// The recipe that was asked for, else that of the network's family, and its name.
fn recipe(asked: Option<&str>, variant: &Variant) -> Result<(Recipe, Option<String>)> {
    let recipe = match asked {
        None => Recipe::name_for(variant).map_or(Ok(Recipe::default()), Recipe::named)?,
        Some(name) if recipe_names().any(|known| known == name) => Recipe::named(name)?,
        // What looks like a file is one.
        Some(file) if Path::new(file).exists() || file.contains(['.', '/', '\\']) => Recipe::read(Path::new(file))?,
        Some(name) => Recipe::named(name)?,
    };
    Ok((recipe, asked.or_else(|| Recipe::name_for(variant)).map(str::to_owned)))
}

fn fresh(args: &Args) -> Result<Trainer<Network>> {
    let variant = variant(args.model.as_deref().unwrap_or("lenet5"))?;
    let (recipe, recipe_name) = recipe(args.recipe.as_deref(), variant)?;
    let changes = args.overrides.changes(&args.network);
    let recipe = recipe.with(changes.iter().map(|(key, value)| (key.as_str(), value.as_str())))?;
    recipe.check()?;
    let network = NetworkArgs { dropout: recipe.dropout, drop_path: recipe.drop_path, ..args.network.clone() };
    let mut setup = Setup {
        model: variant.name.to_owned(),
        data: args.data.clone().unwrap_or_else(|| "digits".to_owned()),
        source: args.source.clone(),
        network,
        pretrained: None,
    };
    let devices = Devices::open(args.devices.names()?)?;
    let pretrained = match &args.weights {
        Some(weights) => {
            let (offline, options) = (setup.source.offline, setup.network.options());
            Some(load(&setup.model, weights, offline, &options, &devices.first.clone().autodiff())?)
        }
        None => None,
    };
    setup.pretrained = pretrained
        .as_ref()
        .map(|network| Pretrained { channels: network.input()[0], resize: network.preprocessing().resize });
    let out = match &args.out {
        Some(out) => out.clone(),
        None => new_folder(&format!("{}-{}", setup.model, setup.data)),
    };
    let mut trainer = trainer(args, devices, &setup, pretrained, recipe, args.seed, out)?;
    trainer.recipe_name = recipe_name;
    Ok(trainer)
}

fn resumed(args: &Args, folder: &Path) -> Result<Trainer<Network>> {
    let record = RunRecord::read(folder)?;
    let setup: Setup = serde_json::from_value(record.setup)
        .with_context(|| format!("{} is of another program or version", folder.join("run.json").display()))?;
    let names = match args.devices.device.as_slice() {
        [] => record.device.split(',').map(str::parse).collect::<Result<_, _>>()?,
        names => names.to_vec(),
    };
    let devices = Devices::open(names)?;
    let mut trainer = trainer(args, devices, &setup, None, record.recipe, record.seed, folder.to_owned())?;
    trainer.recipe_name = record.recipe_name;
    Ok(trainer)
}

/// Devices to train on.
struct Devices {
    names: String,
    first: Device,
    others: Vec<Device>,
}

impl Devices {
    fn open(names: Vec<DeviceName>) -> Result<Self> {
        let mut devices = names.iter().map(DeviceName::open).collect::<Result<VecDeque<_>, _>>()?;
        let first = devices.pop_front().context("there is no device to train on")?;
        let names = names.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        Ok(Self { names, first, others: devices.into() })
    }
}

fn trainer(
    args: &Args,
    devices: Devices,
    setup: &Setup,
    pretrained: Option<Network>,
    recipe: Recipe,
    seed: u64,
    out: PathBuf,
) -> Result<Trainer<Network>> {
    let Devices { names, first: device, others } = devices;
    let data = setup.source.open(&setup.data)?;
    let image = data.train.get(0).context("reading the first image; --skip-corrupt leaves out what is damaged")?.image;
    let mut options = setup.network.options();
    let classes = data.classes().len();
    options.classes = Some(classes);
    options.channels = Some(setup.pretrained.as_ref().map_or(image.channels, |pretrained| pretrained.channels));
    device.seed(seed);
    let network = match pretrained {
        Some(network) if network.classes() == classes => network,
        Some(network) => network.replace_head(classes),
        None => create(&setup.model, &options, &device.clone().autodiff())?,
    };
    let network = match &setup.pretrained {
        Some(pretrained) => {
            let preprocessing = Preprocessing { resize: pretrained.resize, ..network.preprocessing() };
            network.with_preprocessing(preprocessing)
        }
        None => network,
    };
    network.check_input(network.input())?;
    let network = network.with_labels(data.classes().to_vec())?;
    let preprocess = preprocess(&network, &network.preprocessing(), &*data.train)?;
    Ok(Trainer {
        network,
        data,
        preprocess,
        recipe,
        recipe_name: None,
        seed,
        device,
        device_name: names,
        out,
        saving: Saving { every: args.checkpoint_every, keep: args.keep },
        resources: Resources {
            more_devices: others,
            workers: args.workers.map(usize::from),
            cache: (args.cache as usize) << 20,
        },
        command: std::env::args().collect(),
        setup: serde_json::to_value(setup).context("writing down the run's setup")?,
        dashboard: shows_dashboard(args),
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
        eprintln!("stopping after this step; --resume goes on from there");
        interrupter.stop(Some("stopped by the user"));
    })
    .map_err(|error| anyhow!("cannot listen for Ctrl-C: {error}"))
}

fn line(epoch: &Epoch, epochs: usize) -> String {
    format!(
        "epoch {:>3}/{epochs}  train loss {:.4} accuracy {:6.2}%  test loss {:.4} accuracy {:6.2}%  {:.1} s  {:.0} images/s",
        epoch.epoch,
        epoch.train.loss,
        100.0 * epoch.train.accuracy,
        epoch.test.loss,
        100.0 * epoch.test.accuracy,
        epoch.seconds,
        epoch.images_per_second,
    )
}

fn show(bar: &ProgressBar, progress: &Progress) {
    let Progress { epoch, testing, images, total, images_per_second, seconds_left } = *progress;
    if bar.length() != Some(total as u64) {
        bar.set_position(0);
        bar.set_length(total as u64);
    }
    bar.set_position(images as u64);
    bar.set_prefix(format!("epoch {epoch} {}", if testing { "test " } else { "train" }));
    let left = HumanDuration(Duration::from_secs_f64(seconds_left.min(1e9)));
    bar.set_message(format!("{images_per_second:.0} images/s, {left} left"));
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
    let (epochs, recipe) = (outcome.record.epochs.len(), &outcome.record.recipe);
    if let (false, Some(patience)) = (outcome.interrupted || epochs == recipe.epochs, recipe.early_stopping) {
        text += &format!("stopped after {epochs} epochs, {patience} of them without a better one\n");
    }
    if outcome.interrupted {
        text += &format!("stopped; go on with: convzoo train --resume {}\n", out.display());
    } else {
        let weights = out.join("best.safetensors");
        let data = data_options(&outcome.record.setup);
        text += &format!("curves and mistakes in {}\n", out.join("report.html").display());
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
