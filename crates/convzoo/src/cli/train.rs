mod follow;
mod overrides;
mod prepare;

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use burn::train::Interrupter;
use convzoo::train::{Event, RangeTest, Saving};
use follow::{Lines, closing};
pub use follow::{epoch_line, show};
use overrides::Overrides;
use prepare::{Prepared, fresh, resumed};

use super::claim::{Kind, claim};
use super::names::{DATA, MODELS, RECIPES};
use super::output::{print, print_json, progress, tell, training_progress};
use super::runs::latest;
use super::select::{DataArgs, DevicesArgs, NetworkArgs};
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
        "schedule", "momentum", "weight_decay", "label_smoothing", "auxiliary_weight", "checkpointing", "freeze", "set", "seed", "out", "name", "tags",
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
  convzoo train resnet20_cifar --data cifar10 --recipe cifar10_fast
  convzoo train lenet5 --data folder --data-dir photos     a folder for each class
  convzoo train squeezenet1_1 --weights imagenet1k_v1 --data folder --data-dir photos
                                                           fine-tune: a new head on a trained network
  convzoo train --weights runs/squeezenet1_1-folder/best.safetensors --data folder --data-dir photos
                                                           then all of it
  convzoo train --weights runs/lenet5-digits/best.safetensors --set quantization.weight_bits=4
                                                           as it is in bytes, its weights in 4 bits
  convzoo train resnet20_cifar --data cifar10 --find-lr --html rates.html
  convzoo train --resume                                   the latest run, where it was stopped
  convzoo train --resume runs/lenet5-digits --epochs 40    more epochs of a run that has finished";

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
