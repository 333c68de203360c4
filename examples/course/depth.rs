//! The degradation of plain networks, and residual ones beside them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use convzoo::data::{Augment, Dataset, Source, Splits, Subset, open};
use convzoo::report::{Chart, Lines};
use convzoo::train::{Epoch, Event, Recipe, RunRecord, RunStatus, Trainer};
use convzoo::{Options, create, device};

use super::show::table;

#[derive(clap::Args)]
pub struct Args {
    /// The networks
    #[arg(long, value_delimiter = ',', default_value = "plain20_cifar,plain56_cifar,resnet20_cifar,resnet56_cifar")]
    networks: Vec<String>,
    /// The data set, as `convzoo train` names it
    #[arg(long, default_value = "cifar10")]
    data: String,
    /// Its folder [default: it is downloaded]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Images to train on, and at most as many to test on, evenly taken from all [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    images: Option<u32>,
    /// Passes over the training images
    #[arg(long, value_name = "N", default_value_t = 20)]
    epochs: usize,
    /// Images per step
    #[arg(long, value_name = "N", default_value_t = 128)]
    batch_size: usize,
    /// Learning rate at the start, from which it falls along half a cosine
    #[arg(long, value_name = "RATE", default_value_t = 0.1)]
    learning_rate: f64,
    /// Crop and mirror the training images at random, as the paper does
    #[arg(long)]
    augment: bool,
    /// Where to train
    #[arg(long, default_value = "flex")]
    device: String,
    /// The folder of the runs and the curves; a run that is there already is not repeated, and one that was
    /// interrupted is resumed
    #[arg(long, value_name = "DIR", default_value = "runs/depth")]
    out: PathBuf,
}

pub fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    let mut data = open(&args.data, &Source { data_dir: args.data_dir.clone(), progress: true, ..Source::default() })?;
    if let Some(images) = args.images {
        let some = |data: Arc<dyn Dataset>| Arc::new(evenly(data, images as usize)) as Arc<dyn Dataset>;
        data = Splits { train: some(data.train), test: some(data.test), ..data };
    }
    let mut rows = Vec::new();
    let titles = ["error on the training images", "error on the test images"];
    let mut curves = titles.map(|title| Lines::new(title, "epoch", "per cent"));
    for name in &args.networks {
        let record = train(name, &data, args)?;
        let last = record.epochs.last().context("a run has at least one epoch")?;
        let [train, test] =
            [|epoch: &Epoch| error(epoch.train.accuracy), |epoch: &Epoch| error(epoch.held_out.measures().accuracy)];
        rows.push([name.clone(), format!("{:.1} %", train(last)), format!("{:.1} %", test(last))]);
        curves = [(0, train), (1, test)].map(|(i, error)| {
            curves[i].clone().series(name, record.epochs.iter().map(|epoch| (epoch.epoch as f64, error(epoch))))
        });
    }
    for (name, chart) in ["train.svg", "test.svg"].into_iter().zip(&curves) {
        let path = args.out.join(name);
        std::fs::write(&path, chart.svg()?).with_context(|| format!("writing {}", path.display()))?;
    }
    table(out, ["network", "training error", "test error"], rows)
}

/// Trains a network from scratch, or resumes its run, or reads it if it is finished.
fn train(name: &str, data: &Splits, args: &Args) -> Result<RunRecord> {
    let recipe = recipe(args);
    let setup = serde_json::json!({ "model": name, "data": args.data, "images": data.train.len() });
    let folder = args.out.join(name);
    let known = known(&folder, &setup, &recipe)?;
    if let Some(record) = known.as_ref().filter(|record| record.status == RunStatus::Finished) {
        return Ok(record.clone());
    }
    let device = device::open(&args.device)?;
    let channels = data.train.get(0)?.image.channels;
    let options = Options::default().with_classes(data.classes().len()).with_channels(channels);
    device.seed(0);
    let network = create(name, &options, &device.clone().autodiff())?;
    let trainer =
        Trainer::new(network, data.clone()).recipe(recipe).device_name(args.device.as_str()).setup(setup).out(folder);
    let (name, epochs) = (name.to_owned(), args.epochs);
    let report = move |event: Event| {
        let Event::Epoch(epoch, _) = event else { return };
        let [train, test] = [epoch.train, *epoch.held_out.measures()].map(|measures| error(measures.accuracy));
        eprintln!(
            "{name}, epoch {} of {epochs}: error {train:.1} % and {test:.1} %, {:.0} s",
            epoch.epoch, epoch.seconds
        );
    };
    let outcome = if known.is_some() { trainer.resume(report) } else { trainer.start(report) };
    Ok(outcome?.record)
}

// ANCHOR: recipe
/// How all of the networks are trained: by SGD with momentum, at a learning rate that falls along half a cosine.
fn recipe(args: &Args) -> Recipe {
    let as_paper = Augment { random_crop: Some(4), random_horizontal_flip: 0.5, ..Augment::default() };
    Recipe {
        epochs: args.epochs,
        batch_size: args.batch_size,
        learning_rate: args.learning_rate,
        weight_decay: 1e-4,
        augment: if args.augment { as_paper } else { Augment::default() },
        ..Recipe::default()
    }
}
// ANCHOR_END: recipe

/// The run that a folder holds, if it is of this setup and recipe.
fn known(folder: &Path, setup: &serde_json::Value, recipe: &Recipe) -> Result<Option<RunRecord>> {
    if !folder.join("run.json").exists() {
        return Ok(None);
    }
    let record = RunRecord::read(folder)?;
    if record.setup != *setup || record.recipe != *recipe {
        bail!("{} holds a run with other options; choose another --out", folder.display());
    }
    Ok(Some(record))
}

/// At most `count` samples, from the first to the last in even steps, so that sorted classes are all among them.
fn evenly(data: Arc<dyn Dataset>, count: usize) -> Subset {
    let (len, count) = (data.len(), count.min(data.len()));
    Subset::new(data, (0..count).map(|i| i * len / count).collect())
}

/// Per cent of the images that are classified wrongly.
fn error(accuracy: f64) -> f64 {
    100.0 * (1.0 - accuracy)
}
