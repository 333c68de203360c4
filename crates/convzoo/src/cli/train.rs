use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use burn::tensor::Device;
use burn::train::Interrupter;
use convzoo::data::Splits;
use convzoo::device::DeviceName;
use convzoo::train::{
    Epoch, Event, HeldOut, Measures, Outcome, Progress, RangeTest, Recipe, Resources, RunRecord, Saving, Trainer,
    recipe_names,
};
use convzoo::{Classifier, Network, Preprocessing, Variant, create, variant};
use indicatif::{HumanDuration, ProgressBar};
use serde::{Deserialize, Serialize};

use super::bench::batch_size::{Tried, fastest};
use super::bench::machine::available_bytes;
use super::claim::{Kind, claim};
use super::names::{DATA, MODELS, RECIPES};
use super::output::{bytes, count, print, print_json, progress, quoted, tell, training_progress};
use super::runs::latest;
use super::select::{DataArgs, DevicesArgs, NetworkArgs, load, model_of, preprocess};
use super::signals::stop_on_signal;

/// Arguments of `train`.
#[derive(clap::Args)]
pub struct Args {
    /// The network [default: what --weights say, else lenet5]
    #[arg(value_parser = MODELS, hide_possible_values = true)]
    model: Option<String>,
    #[arg(long = "model", hide = true, conflicts_with = "model")]
    named: Option<String>,
    /// The data set: digits, mnist, fashion-mnist, cifar10, cifar100 or folder [default: digits]
    #[arg(long, value_name = "DATASET", value_parser = DATA, hide_possible_values = true)]
    data: Option<String>,
    #[command(flatten)]
    source: DataArgs,
    /// Hold this share of the training images out and choose the best epoch by them: of each class, chosen by
    /// --split-seed; the test images are then measured once, at the end [default: the data's own validation images, else
    /// the test images]
    #[arg(long, value_name = "SHARE")]
    val_split: Option<f64>,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    devices: DevicesArgs,
    /// Weights to start from: a file, or the name of published ones; for other classes than the data's, the network
    /// gets a new head [default: initialized as in the paper]
    #[arg(long, value_name = "FILE|NAME", value_hint = clap::ValueHint::FilePath)]
    weights: Option<OsString>,
    /// How to train: a recipe's name (`convzoo recipes` lists them), or a file in TOML; the options below override it
    /// [default: that of the network's paper; with --weights transfer_head if the head is new, else transfer]
    #[arg(long, value_name = "NAME|FILE", value_parser = RECIPES, hide_possible_values = true)]
    recipe: Option<String>,
    #[command(flatten)]
    overrides: Overrides,
    /// Random seed of the first weights, the order of the images, their augmentation and dropout
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Folder of the run [default: a new one under runs/]
    #[arg(short, long, alias = "output", value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    out: Option<PathBuf>,
    /// Resume the run in this folder, or the latest under runs/, which remembers all but the device and the four options
    /// below; with a higher number of --epochs, also one that has finished
    #[arg(long, value_name = "DIR", num_args = 0..=1, value_hint = clap::ValueHint::DirPath, conflicts_with_all = [
        "model", "named", "data", "data_dir", "offline", "split_seed", "val_split", "skip_corrupt", "activation", "batch_norm", "dropout",
        "drop_path", "memory_efficient", "weights", "recipe", "batch_size", "optimizer", "learning_rate",
        "schedule", "momentum", "weight_decay", "label_smoothing", "auxiliary_weight", "freeze", "set", "seed", "out", "name", "tags",
    ])]
    resume: Option<Option<PathBuf>>,
    /// In place of a run, find a learning rate: train for up to 100 steps at rates that rise from 1e-6 to 10, until the loss
    /// has risen, and suggest one
    #[arg(long, conflicts_with_all = ["resume", "out", "name", "tags", "checkpoint_every", "dashboard"])]
    find_lr: bool,
    /// With --find-lr: write a page with the loss over the rates
    #[arg(long, value_name = "FILE", requires = "find_lr", value_hint = clap::ValueHint::FilePath)]
    html: Option<PathBuf>,
    /// What to call the run, and its folder under runs/ [default: the network and the data]
    #[arg(long, value_name = "NAME", value_parser = run_name)]
    name: Option<String>,
    /// A word to find the run by (`convzoo runs --tag WORD`). May be given often
    #[arg(long = "tag", value_name = "WORD")]
    tags: Vec<String>,
    /// Write a checkpoint every so many steps, besides those at the epochs' ends [default: none]
    #[arg(long, value_name = "STEPS")]
    checkpoint_every: Option<usize>,
    /// Keep the last so many checkpoints
    #[arg(long, value_name = "N", default_value_t = Saving::default().keep)]
    keep: usize,
    /// Threads that make batches [default: as many as there are cores, two to eight]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    workers: Option<u16>,
    /// Memory for decoded images, or for a frozen backbone's features of them, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    cache: u32,
    /// Show burn-train's dashboard in the terminal while it trains, in place of a line per epoch
    #[arg(long, conflicts_with = "json")]
    dashboard: bool,
    // What is the default now had to be asked for.
    #[arg(long, hide = true, conflicts_with = "dashboard")]
    plain: bool,
    /// Print the run's record as JSON at the end, and the lines on standard error
    #[arg(long)]
    json: bool,
}

pub const EXAMPLES: &str = "Examples:
  convzoo train                                            LeNet-5 on the digits of the program
  convzoo train resnet20_cifar --data cifar10 --recipe cifar10
  convzoo train lenet5 --data folder --data-dir photos     a folder for each class
  convzoo train squeezenet1_1 --weights imagenet1k_v1 --data folder --data-dir photos
                                                           fine-tune: a new head on a trained network
  convzoo train --weights runs/squeezenet1_1-folder/best.safetensors --data folder --data-dir photos
                                                           then all of it
  convzoo train resnet20_cifar --data cifar10 --find-lr --html rates.html
  convzoo train --resume                                   the latest run, where it was stopped
  convzoo train --resume runs/lenet5-digits --epochs 40    more epochs of a run that has finished";

/// Where help lists what a recipe has a value for.
const RECIPE: &str = "Options that override the recipe";

/// What overrides the recipe.
#[derive(clap::Args)]
struct Overrides {
    /// Passes over the training images
    #[arg(long, value_name = "N", help_heading = RECIPE)]
    epochs: Option<usize>,
    /// Images per batch, or `auto` for the size of 8, 16, 32 … up to 1024 and a tenth of the images that trains fastest here,
    /// found by trying
    #[arg(long = "batch", alias = "batch-size", value_name = "N|auto", help_heading = RECIPE)]
    batch_size: Option<BatchSize>,
    /// The optimizer: sgd, adam, adamw or rmsprop
    #[arg(long, value_name = "KIND", help_heading = RECIPE)]
    optimizer: Option<String>,
    /// The highest learning rate
    #[arg(long, visible_alias = "lr", value_name = "RATE", allow_negative_numbers = true, help_heading = RECIPE)]
    learning_rate: Option<f64>,
    /// The learning-rate schedule: constant, step, multi-step, cosine, linear, one-cycle or plateau
    #[arg(long, value_name = "KIND", help_heading = RECIPE)]
    schedule: Option<String>,
    /// Momentum of sgd or rmsprop
    #[arg(long, value_name = "M", allow_negative_numbers = true, help_heading = RECIPE)]
    momentum: Option<f64>,
    /// L2 penalty, or adamw's decoupled decay
    #[arg(long, value_name = "W", allow_negative_numbers = true, help_heading = RECIPE)]
    weight_decay: Option<f64>,
    /// Label smoothing: the share of the target spread over all classes
    #[arg(long, value_name = "S", allow_negative_numbers = true, help_heading = RECIPE)]
    label_smoothing: Option<f64>,
    /// Weight of each auxiliary classifier's loss
    #[arg(long, value_name = "W", allow_negative_numbers = true, help_heading = RECIPE)]
    auxiliary_weight: Option<f64>,
    /// Freeze the weights up to this layer or block, named as `convzoo summary` names it, or `backbone` for all
    /// before the head
    #[arg(long, value_name = "LAYER", help_heading = RECIPE)]
    freeze: Option<String>,
    /// Any field of the recipe, as in its file: `ema=0.999`, `schedule.milestones=[30,60]`, `augment.random_crop=4`;
    /// `none` takes the default. May be given often
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value, help_heading = RECIPE)]
    set: Vec<(String, String)>,
}

/// A name that is one of a folder, too.
fn run_name(text: &str) -> Result<String, String> {
    let right = |letter: char| letter.is_alphanumeric() || "-_.+= ".contains(letter);
    match text.chars().all(right) && text.starts_with(char::is_alphanumeric) && text.len() <= 100 {
        true => Ok(text.to_owned()),
        false => {
            Err("a run's name has letters, digits, spaces and -_.+= and begins with one of the first two".to_owned())
        }
    }
}

/// `--batch`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BatchSize {
    Auto,
    Images(usize),
}

impl FromStr for BatchSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            _ => text.parse().map(Self::Images).map_err(|_| "expected a number of images, or auto".to_owned()),
        }
    }
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
        let images = self.batch_size.and_then(|size| match size {
            BatchSize::Images(images) => Some(images.to_string()),
            BatchSize::Auto => None,
        });
        let named = [
            ("epochs", text(&self.epochs)),
            ("batch_size", images),
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

/// What makes the same network and data again.
#[derive(Clone, Serialize, Deserialize)]
struct Setup {
    model: String,
    data: String,
    source: DataArgs,
    /// The share of the training images to choose by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    val_split: Option<f64>,
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

impl Setup {
    fn data(&self) -> Result<Splits> {
        let data = self.source.open(&self.data)?;
        match self.val_split {
            Some(share) => data.hold_out(share, self.source.split_seed.unwrap_or(0)).context("--val-split"),
            None => Ok(data),
        }
    }
}

/// A run that can start, and what is said of it.
struct Prepared {
    trainer: Trainer<Network>,
    /// All that the first line tells but the folder.
    opening: String,
    /// The recipe's learning rate.
    rate: f64,
}

/// Trains, or resumes a training.
pub fn run(args: &Args) -> Result<ExitCode> {
    if args.dashboard && !io::stdout().is_terminal() {
        bail!("--dashboard draws in a terminal, and standard output is none");
    }
    args.devices.kernels.apply()?;
    if args.find_lr {
        return find_rate(args);
    }
    let interrupter = Interrupter::new();
    let Prepared { trainer, opening, .. } = match &args.resume {
        Some(Some(folder)) => resumed(args, folder)?,
        Some(None) => resumed(args, &latest(Path::new("runs"))?)?,
        None => fresh(args)?,
    };
    stop_on_signal(&interrupter, args.dashboard)?;
    let trainer = trainer.interrupter(interrupter).dashboard(args.dashboard);
    let bar = training_progress();
    let lines = Lines { bar: bar.clone(), dashboard: args.dashboard, json: args.json };
    let report = move |event: Event| lines.tell(&event, &opening);
    let outcome = if args.resume.is_some() { trainer.resume(report) } else { trainer.start(report) };
    bar.finish_and_clear();
    let outcome = outcome?;
    if args.json {
        print_json(&outcome.record)?;
    } else if let Err(error) = print(&closing(&outcome)) {
        // The run is whole without its last words.
        tell(&format!("{error:#}"));
    }
    Ok(if outcome.interrupted { ExitCode::from(130) } else { ExitCode::SUCCESS })
}

/// Finds a learning rate, and tells it.
fn find_rate(args: &Args) -> Result<ExitCode> {
    if let Some(path) = &args.html {
        claim("--html", path, Kind::Page)?;
    }
    let Prepared { trainer, opening, rate } = fresh(args)?;
    match args.json {
        true => tell(&opening),
        false => print(&opening)?,
    }
    let interrupter = Interrupter::new();
    stop_on_signal(&interrupter, false)?;
    let test = RangeTest::default();
    let bar = progress(test.steps, "steps");
    let range = trainer.interrupter(interrupter).range_test(&test, |step| bar.set_position(step as u64));
    bar.finish_and_clear();
    let range = range?;
    if let Some(path) = &args.html {
        range.page(opening)?.write(path)?;
    }
    if args.json {
        print_json(&range)?;
        return Ok(ExitCode::SUCCESS);
    }
    let (steps, last) = (range.steps.len(), range.steps.last().map_or(0.0, |step| step.rate));
    let mut text = format!(
        "{steps} steps, at rates from {:.1e} to {last:.1e}; lowest loss at {:.1e}\n",
        test.lowest, range.lowest_loss
    );
    text += &match range.suggested {
        Some(suggested) => format!("suggested: --lr {suggested:.1e} (a tenth of that; the recipe has {rate})\n"),
        None => {
            "the loss has not risen again, so that nothing can be said of the highest rate to learn at\n".to_owned()
        }
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// How a run is followed: a line for each epoch on standard output, or on standard error where a document is to stand
/// there, and a bar.
struct Lines {
    bar: ProgressBar,
    /// Whether a dashboard has the terminal as soon as the first epoch begins.
    dashboard: bool,
    json: bool,
}

impl Lines {
    fn tell(&self, event: &Event, opening: &str) {
        match event {
            Event::Folder(folder) => self.line(&format!("{opening}, folder {}", folder.display())),
            Event::Backbone(images, total) => self.backbone(*images as u64, *total as u64),
            Event::Progress(progress) if !self.dashboard => show(&self.bar, progress),
            Event::Epoch(epoch, record) if !self.dashboard => self.line(&epoch_line(epoch, record.recipe.epochs)),
            Event::Damaged(error) => self.problem(&format!("{error}; resuming from the one before")),
            Event::Unreported(error) => self.problem(&format!("the run is done but for its report: {error}")),
            _ => {}
        }
    }

    /// A log that nobody reads, or that has no room, is no reason to stop.
    fn line(&self, text: &str) {
        self.bar.suspend(|| match self.json {
            true => tell(text),
            false => _ = print(text),
        });
    }

    fn problem(&self, text: &str) {
        self.bar.suspend(|| tell(text));
    }

    /// A frozen backbone's pass, which comes before the epochs and may take longer than all of them.
    fn backbone(&self, images: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(images);
        self.bar.set_prefix("features of the frozen backbone");
        let rate = images as f64 / self.bar.elapsed().as_secs_f64();
        let left = HumanDuration(Duration::from_secs_f64(((total - images) as f64 / rate).min(1e9)));
        self.bar.set_message(format!("{rate:.0} images/s, {left} left"));
        if images == total && self.dashboard {
            self.bar.finish_and_clear();
        }
    }
}

/// The recipe that was asked for, and its name; else the one for what is trained: of the paper that trained the network
/// from scratch, or one for weights that have learned already, with or without a head of their own.
fn recipe(asked: Option<&str>, variant: &Variant, start: Start) -> Result<(Recipe, Option<String>)> {
    let default = match start {
        Start::Scratch => Recipe::name_for(variant),
        Start::NewHead => Some("transfer_head"),
        Start::Trained => Some("transfer"),
    };
    let recipe = match asked {
        None => default.map_or(Ok(Recipe::default()), Recipe::named)?,
        Some(name) if recipe_names().any(|known| known == name) => Recipe::named(name)?,
        // What looks like a file is one.
        Some(file) if Path::new(file).exists() || file.contains(['.', '/', '\\']) => Recipe::read(Path::new(file))?,
        Some(name) => Recipe::named(name)?,
    };
    Ok((recipe, asked.or(default).map(str::to_owned)))
}

/// What a run starts from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// Random weights.
    Scratch,
    /// Weights that tell other classes apart: all but the head's.
    NewHead,
    /// Weights that tell the data's classes apart.
    Trained,
}

impl Start {
    fn of(pretrained: Option<&Network>, classes: &[String]) -> Self {
        match pretrained {
            None => Self::Scratch,
            Some(network) if has_classes(network, classes) => Self::Trained,
            Some(_) => Self::NewHead,
        }
    }
}

/// Whether a network tells these classes apart; one that does not know its classes' names, whether it has as many.
fn has_classes(network: &Network, classes: &[String]) -> bool {
    network.classes() == classes.len() && (network.labels().is_empty() || network.labels() == classes)
}

fn fresh(args: &Args) -> Result<Prepared> {
    let model = args.model.as_deref().or(args.named.as_deref());
    let model = match (&args.weights, model) {
        (Some(weights), model) => model_of(model, weights)?,
        (None, model) => variant(model.unwrap_or("lenet5"))?.name,
    };
    let mut setup = Setup {
        model: model.to_owned(),
        data: args.data.clone().unwrap_or_else(|| "digits".to_owned()),
        source: args.source.clone(),
        val_split: args.val_split,
        network: args.network.clone(),
        pretrained: None,
    };
    let changes = args.overrides.changes(&args.network);
    let recipe_for = |start| -> Result<_> {
        let (recipe, name) = recipe(args.recipe.as_deref(), variant(model)?, start)?;
        let recipe = recipe.with(changes.iter().map(|(key, value)| (key.as_str(), value.as_str())))?;
        recipe.check()?;
        Ok((recipe, name))
    };
    // What is wrong with the recipe is told before weights and data are opened; the head decides on nothing that the
    // network is made by.
    let (recipe, _) = recipe_for(if args.weights.is_some() { Start::NewHead } else { Start::Scratch })?;
    setup.network = NetworkArgs { dropout: recipe.dropout, drop_path: recipe.drop_path, ..setup.network };
    if args.weights.is_none() && recipe.transfer.freezes_backbone() {
        bail!(
            "this recipe freezes all layers before the head, and without --weights they are random; name the weights to \
             start from, or another recipe"
        );
    }
    let devices = Devices::open(args.devices.names()?)?;
    let data = setup.data()?;
    let pretrained = match &args.weights {
        Some(weights) => {
            let (offline, device) = (setup.source.offline, devices.first.clone().autodiff());
            Some(load(model, weights, offline, &setup.network.options(), &device)?)
        }
        None => None,
    };
    let (mut recipe, name) = recipe_for(Start::of(pretrained.as_ref(), data.classes()))?;
    if args.overrides.batch_size == Some(BatchSize::Auto) {
        recipe.batch_size = fastest_batch(args, model, pretrained.as_ref(), &data, &recipe, &devices.names[0])?;
    }
    let how = How { recipe, name, seed: args.seed };
    if let Some(network) = &pretrained {
        setup.pretrained = Some(Pretrained { channels: network.input()[0], resize: network.preprocessing().resize });
        // What the file remembers of its network, a resumed run has to know without the file.
        let remembered = network.metadata().unwrap_or_default().options;
        setup.network = setup.network.or(&remembered);
    }
    let folder = args.name.clone().unwrap_or_else(|| format!("{}-{}", setup.model, setup.data));
    let prepared = prepare(args, devices, data, &setup, pretrained, how)?;
    let trainer = match &args.out {
        Some(out) => prepared.trainer.out(out),
        None => prepared.trainer.out_in("runs", folder),
    };
    let trainer = args.name.iter().fold(trainer.tags(&args.tags), |trainer, name| trainer.name(name));
    Ok(Prepared { trainer, ..prepared })
}

/// The batch size that trains fastest on the first device.
fn fastest_batch(
    args: &Args,
    model: &str,
    pretrained: Option<&Network>,
    data: &Splits,
    recipe: &Recipe,
    device: &DeviceName,
) -> Result<usize> {
    /// Larger batches need other recipes.
    const MOST: usize = 1024;
    let variant = variant(model)?;
    let [_, height, width] = variant.input;
    let channels = pretrained.map_or(data.train.get(0)?.image.channels, |network| network.input()[0]);
    let most = (data.train.len() / 10).clamp(1, MOST);
    let engine = (device, args.devices.kernels.asked());
    let found = fastest(variant, [channels, height, width], data.classes().len(), engine, most, |tried| {
        let Tried { batch, result } = tried;
        tell(&match result {
            Ok((rate, Some(mib))) => format!("batch {batch:>4}: {rate:.0} images/s, {mib:.0} MiB"),
            Ok((rate, None)) => format!("batch {batch:>4}: {rate:.0} images/s"),
            Err(reason) => format!("batch {batch:>4}: {reason}"),
        });
    })?;
    let note = match recipe.batch_size == found {
        true => String::new(),
        false => format!("; the recipe's learning rate {} was chosen for {}", recipe.learning_rate, recipe.batch_size),
    };
    tell(&format!("batch {found}{note}"));
    Ok(found)
}

fn resumed(args: &Args, folder: &Path) -> Result<Prepared> {
    let RunRecord { setup, device, mut recipe, seed, recipe_name, .. } = RunRecord::read(folder)?;
    let setup: Setup = serde_json::from_value(setup)
        .with_context(|| format!("{} is of another program or version", folder.join("run.json").display()))?;
    if let Some(epochs) = args.overrides.epochs {
        recipe.epochs = epochs;
        recipe.check()?;
    }
    let names = match args.devices.device.as_slice() {
        [] => device.split(',').map(str::parse).collect::<Result<_, _>>()?,
        names => names.to_vec(),
    };
    let devices = Devices::open(names)?;
    let data = setup.data()?;
    let prepared = prepare(args, devices, data, &setup, None, How { recipe, name: recipe_name, seed })?;
    Ok(Prepared { trainer: prepared.trainer.out(folder), ..prepared })
}

/// Devices to train on.
struct Devices {
    names: Vec<DeviceName>,
    first: Device,
    others: Vec<Device>,
}

impl Devices {
    fn open(names: Vec<DeviceName>) -> Result<Self> {
        let mut devices = names.iter().map(DeviceName::open).collect::<Result<VecDeque<_>, _>>()?;
        let first = devices.pop_front().context("there is no device to train on")?;
        Ok(Self { names, first, others: devices.into() })
    }

    /// As `--device` takes them.
    fn name(&self) -> String {
        self.names.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }

    /// How many compute in this machine's memory.
    fn in_memory(&self) -> usize {
        let on_cpu = |name: &&DeviceName| matches!(name, DeviceName::Flex | DeviceName::NdArray | DeviceName::Tch);
        self.names.iter().filter(on_cpu).count()
    }
}

/// How a network is trained.
struct How {
    recipe: Recipe,
    /// The recipe's name or file.
    name: Option<String>,
    seed: u64,
}

/// The network of `setup` and the data, ready to be trained.
fn prepare(
    args: &Args,
    devices: Devices,
    data: Splits,
    setup: &Setup,
    pretrained: Option<Network>,
    How { recipe, name, seed }: How,
) -> Result<Prepared> {
    devices.first.seed(seed);
    let network = network(setup, pretrained, &data, &devices.first)?;
    check_memory(&network, &recipe, data.train.len(), devices.in_memory())?;
    let opening = format!(
        "{} on {}: {} to train on, {}{} to test on, {}, recipe {}, device {}",
        network.name(),
        data.name,
        count(data.train.len(), "image"),
        data.val.as_ref().map_or(String::new(), |val| format!("{} to choose by, ", val.len())),
        data.test.len(),
        count(recipe.epochs, "epoch"),
        name.as_deref().unwrap_or("default"),
        devices.name(),
    );
    let preprocess = preprocess(&network, &network.preprocessing(), &*data.train)?;
    let rate = recipe.learning_rate;
    let trainer = Trainer::new(network, data)
        .preprocess(preprocess)
        .recipe(recipe)
        .seed(seed)
        .device_name(devices.name())
        .device(devices.first)
        .saving(Saving { every: args.checkpoint_every, keep: args.keep })
        .resources(Resources {
            more_devices: devices.others,
            workers: args.workers.map(usize::from),
            cache: (args.cache as usize) << 20,
        })
        .setup(serde_json::to_value(setup).context("writing down the run's setup")?);
    let trainer = name.into_iter().fold(trainer, Trainer::recipe_name);
    Ok(Prepared { trainer, opening, rate })
}

/// The network of `setup` for the classes and the channels of `data`.
fn network(setup: &Setup, pretrained: Option<Network>, data: &Splits, device: &Device) -> Result<Network> {
    let image = data.train.get(0).context("reading the first image; --skip-corrupt leaves out what is damaged")?.image;
    let mut options = setup.network.options();
    let classes = data.classes().len();
    options.classes = Some(classes);
    options.channels = Some(setup.pretrained.as_ref().map_or(image.channels, |pretrained| pretrained.channels));
    let network = match pretrained {
        Some(network) if has_classes(&network, data.classes()) => network,
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
    Ok(network.with_labels(data.classes().to_vec())?)
}

/// Refuses a run that this machine's memory cannot hold, by the least that a step needs on each of so many `devices`
/// that compute in it.
fn check_memory(network: &Network, recipe: &Recipe, images: usize, devices: usize) -> Result<()> {
    let batch = recipe.batch_size.min(images);
    let summary = network.summary(network.input())?;
    // Frozen layers keep nothing for the backward pass, and memory-efficient ones recompute it.
    let keeps_all =
        recipe.transfer.freeze.is_none() && network.metadata().is_none_or(|m| m.options.memory_efficient != Some(true));
    let per_device = if keeps_all { summary.training_bytes(batch) } else { summary.inference_bytes(batch) };
    let (needed, available) = (per_device.saturating_mul(devices), available_bytes());
    if needed > available {
        bail!(
            "a step of {} on {batch} images needs at least {} of memory, and {} are free; a smaller --batch needs \
             less, and --set accumulation=N makes a step of N of them",
            network.name(),
            bytes(needed),
            bytes(available),
        );
    }
    Ok(())
}

pub fn epoch_line(epoch: &Epoch, epochs: usize) -> String {
    let (part, held_out) = (epoch.held_out.part(), epoch.held_out.measures());
    format!(
        "epoch {:>3}/{epochs}  train loss {:.4} accuracy {:6.2}%  {part} loss {:.4} accuracy {:6.2}%  {:.1} s  {:.0} images/s",
        epoch.epoch,
        epoch.train.loss,
        100.0 * epoch.train.accuracy,
        held_out.loss,
        100.0 * held_out.accuracy,
        epoch.seconds,
        epoch.images_per_second,
    )
}

pub fn show(bar: &ProgressBar, progress: &Progress) {
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

fn closing(outcome: &Outcome) -> String {
    let (mut text, out) = (String::new(), &outcome.folder);
    let (weights, run) = (out.join("best.safetensors"), &outcome.record);
    if let Some(best) = &outcome.best {
        let percent = |measures: &Measures| format!("{:.2}%", 100.0 * measures.accuracy);
        text += &format!(
            "best {} accuracy {} in epoch {}, weights in {}\n",
            best.held_out.part(),
            percent(best.held_out.measures()),
            best.epoch,
            weights.display()
        );
        let last = run.epochs.last().filter(|last| last.epoch != best.epoch);
        match (best.held_out, last) {
            (HeldOut::Test(_), Some(last)) => {
                text += &format!(
                    "chosen on the test images themselves, which flatters it a little; the last epoch has {}\n",
                    percent(last.held_out.measures())
                );
            }
            (HeldOut::Val(_), _) => {
                if let Some(test) = &run.test {
                    text += &format!("test accuracy {} of those weights, measured this once\n", percent(test));
                }
            }
            (HeldOut::Test(_), None) => {}
        }
    }
    let (epochs, recipe) = (run.epochs.len(), &run.recipe);
    if let (false, Some(patience)) = (outcome.interrupted || epochs == recipe.epochs, recipe.early_stopping) {
        text += &format!("stopped after {}, {patience} of them without a better one\n", count(epochs, "epoch"));
    }
    if outcome.interrupted {
        return text + &format!("stopped; resume it with: convzoo train --resume {}\n", quoted(out));
    }
    let (weights, data) = (quoted(&weights), data_options(&run.setup));
    text += &format!("curves and mistakes in {}\n", out.join("report.html").display());
    text += &format!("measure it with: convzoo eval --weights {weights} {data}\n");
    text + &format!("classify with it: convzoo predict IMAGE --weights {weights}\n")
}

/// The options that choose the same data again.
fn data_options(setup: &serde_json::Value) -> String {
    let Ok(Setup { data, source, .. }) = serde_json::from_value(setup.clone()) else { return String::new() };
    let mut options = format!("--data {data}");
    if let Some(folder) = source.data_dir {
        options += &format!(" --data-dir {}", quoted(&folder));
    }
    if let Some(seed) = source.split_seed {
        options += &format!(" --split-seed {seed}");
    }
    options
}
