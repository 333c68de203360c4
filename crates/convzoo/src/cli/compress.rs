use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use burn::train::Interrupter;
use convzoo::compress::{Compression, Layer, PerLayer, Plan, Sparsity, Step, Told, Training, layers};
use convzoo::data::Splits;
use convzoo::report::{Chart, Lines, Page};
use convzoo::train::Event;
use convzoo::{Classifier, Network, weights};
use serde::Serialize;

use super::claim::{Kind, claim};
use super::eval::{tell_unnamed, with_classes_of};
use super::names::DATA;
use super::output::{print, print_json, table, tell, thousands, training_progress};
use super::select::{DataArgs, DeviceArgs, WeightsArgs, preprocess};
use super::signals::stop_on_signal;
use super::train::{epoch_line, show};

/// Arguments of `compress`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    trained: WeightsArgs,
    /// The file to write, NAME.czc, which every command reads as weights
    #[arg(short, long, alias = "output", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    out: PathBuf,
    /// The share of each layer's weights to prune: one for all (0.9), by layer (c1=0.5,c5=0.95; a share without a
    /// name is for the others), or `sensitivity`, as far as each layer alone can be pruned [default: none]
    #[arg(long, value_name = "SHARE|LAYER=SHARE,…|sensitivity")]
    sparsity: Option<Sparsity>,
    /// Points of accuracy on training images that pruning one layer alone may cost, for --sparsity sensitivity
    #[arg(long, value_name = "POINTS", default_value_t = Plan::default().tolerance)]
    tolerance: f64,
    /// Prune in so many rounds, with retraining after each
    #[arg(long, value_name = "N", default_value_t = Plan::default().rounds)]
    rounds: usize,
    /// Bits of an index into a layer's codebook: one number for all layers, or by layer (4,c1=8) [default: weights
    /// share no values]
    #[arg(long, value_name = "N|LAYER=N,…")]
    bits: Option<PerLayer<u32>>,
    /// All of this and how to train, from a file in TOML
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath,
        conflicts_with_all = ["sparsity", "tolerance", "rounds", "bits", "epochs"])]
    recipe: Option<PathBuf>,
    /// Train so many epochs after each round of pruning, and as many to fine-tune codebooks [default: no training]
    #[arg(long, value_name = "N", requires = "data")]
    epochs: Option<usize>,
    /// The data to measure accuracy on and to train with: digits, mnist, fashion-mnist, cifar10, cifar100 or folder
    #[arg(long, value_name = "DATASET", value_parser = DATA, hide_possible_values = true)]
    data: Option<String>,
    #[command(flatten)]
    source: DataArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Random seed of the order of the images
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Write a page with the sizes and a plot of accuracy against size
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    report: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub const EXAMPLES: &str = "Examples:
  convzoo compress --weights best.safetensors -o best.czc             without loss
  convzoo compress squeezenet1_0 --weights squeezenet1_0.safetensors --bits 6 -o squeezenet1_0.czc
  convzoo compress --weights runs/lenet5-mnist/best.safetensors --sparsity 0.9 --bits 4 --data mnist --epochs 5 \\
                   -o lenet5.czc --report lenet5.html
  convzoo eval --weights lenet5.czc --data mnist";

#[derive(Serialize)]
struct Document<'a> {
    model: &'a str,
    file: &'a Path,
    /// Bytes of the file, and of all numbers in 32 bits.
    bytes: usize,
    uncompressed: usize,
    steps: &'a [Step],
    layers: &'a [Layer],
}

/// Compresses a network's weights.
pub fn run(args: &Args) -> Result<ExitCode> {
    claim("--out", &args.out, Kind::Compressed)?;
    if let Some(path) = &args.report {
        claim("--report", path, Kind::Page)?;
    }
    let plan = plan(args)?;
    if let (Some(what), None) = (plan.needs_data(), &args.data) {
        bail!("{what} needs images: name a data set with --data");
    }
    let (_, device) = args.device.open()?;
    let network = args.trained.load(args.source.offline, &device.clone().autodiff())?;
    let data = args.data.as_ref().map(|name| data(&network, &args.source, name)).transpose()?;
    let mut compression = Compression::new(network)?;
    plan.check(&compression.layers())?;
    if let Some(data) = data {
        let network = compression.network();
        let preprocess = preprocess(network, &network.preprocessing(), &*data.train)?;
        let (interrupter, runs) = (Interrupter::new(), PathBuf::from("runs"));
        if plan.retrain.is_some() || plan.tune.is_some() {
            stop_on_signal(&interrupter, false)?;
        }
        compression =
            compression.with_training(Training { data, preprocess, device, runs, seed: args.seed, interrupter });
    }
    let (bar, json) = (training_progress(), args.json);
    let lines = bar.clone();
    let line = move |text: String| lines.suspend(|| if json { tell(&text) } else { _ = print(&text) });
    let shown = bar.clone();
    let mut compression = compression.telling(move |told| match told {
        Told::Step(step) => line(step_line(step)),
        Told::Sensitivity(layer, share) => line(format!("{layer} alone can be pruned by {:.0}%", 100.0 * share)),
        Told::Training(Event::Epoch(epoch, record)) => line(epoch_line(epoch, record.recipe.epochs)),
        Told::Training(Event::Progress(progress)) => show(&shown, &progress),
        Told::Training(_) => {}
    });
    let result = compression.run(&plan);
    bar.finish_and_clear();
    if matches!(result, Err(convzoo::compress::CompressError::Interrupted)) {
        tell("stopped; nothing is written");
        return Ok(ExitCode::from(130));
    }
    result?;
    weights::save_compressed(compression.network(), &args.out)?;
    told(args, &compression)
}

/// The plan in a file, or what the options say.
fn plan(args: &Args) -> Result<Plan> {
    if let Some(path) = &args.recipe {
        return Ok(Plan::read(path)?);
    }
    let (sparsity, bits) = (args.sparsity.clone(), args.bits.clone());
    let plan = Plan { sparsity, bits, rounds: args.rounds, tolerance: args.tolerance, ..Plan::default() };
    Ok(match args.epochs {
        Some(epochs) => plan.trained(epochs)?,
        None => plan,
    })
}

/// The data set called `name`, with the labels that its classes have in `network`.
fn data(network: &Network, source: &DataArgs, name: &str) -> Result<Splits> {
    let data = source.open(name)?;
    let train = with_classes_of(network, Arc::clone(&data.train), name)?;
    let test = with_classes_of(network, Arc::clone(&data.test), name)?;
    tell_unnamed(network);
    Ok(Splits { train, val: None, test, ..data })
}

fn step_line(step: &Step) -> String {
    let accuracy = step.accuracy.map(|accuracy| format!("  accuracy {:6.2}%", 100.0 * accuracy)).unwrap_or_default();
    let (bytes, left) = (thousands(step.bytes), 100.0 * step.left);
    format!("{:<20} {bytes:>12} bytes  {left:5.1}% of the weights{accuracy}", step.name)
}

/// Says what came of it: on the screen or as JSON, and in a page.
fn told(args: &Args, compression: &Compression) -> Result<ExitCode> {
    let (steps, rows) = (compression.steps(), layers(compression.tensors()));
    let name = compression.network().name();
    let uncompressed: usize = rows.iter().map(|row| row.bytes).sum();
    let bytes = std::fs::metadata(&args.out).context("looking at the file that was written")?.len() as usize;
    let times = uncompressed as f64 / bytes.max(1) as f64;
    let closing = format!(
        "{name} in {}: {} bytes, {times:.1} times smaller than {} as 32-bit numbers",
        args.out.display(),
        thousands(bytes),
        thousands(uncompressed),
    );
    let cells = |row: &Layer| {
        let numbers = [row.bytes, row.pruned, row.shared, row.coded].map(thousands);
        let left = format!("{:.1}%", 100.0 * row.left as f64 / row.weights.max(1) as f64);
        [row.name.clone(), thousands(row.weights), left, thousands(row.values)].into_iter().chain(numbers).collect()
    };
    let cells: Vec<Vec<String>> = rows.iter().map(cells).collect();
    if let Some(path) = &args.report {
        let percent = |step: &Step| step.accuracy.map_or("–".to_owned(), |share| format!("{:.2}%", 100.0 * share));
        let step = |step: &Step| {
            vec![step.name.clone(), thousands(step.bytes), format!("{:.1}%", 100.0 * step.left), percent(step)]
        };
        let mut page = Page::new(format!("{name}, compressed"))
            .text(&closing)
            .heading("Step by step")
            .table(&["step", "bytes", "weights left", "accuracy"], &steps.iter().map(step).collect::<Vec<_>>());
        if steps.iter().any(|step| step.accuracy.is_some()) {
            page = page.svg(&against_size(steps).svg()?, "From right to left, step by step");
        }
        page.heading("Layer by layer, in bytes").table(&HEADER, &cells).write(path)?;
    }
    if args.json {
        let document = Document { model: name, file: &args.out, bytes, uncompressed, steps, layers: &rows };
        print_json(&document)?;
    } else {
        print(&format!("\n{}\n{closing}", table(&HEADER, &[1, 2, 3, 4, 5, 6, 7], cells)))?;
    }
    Ok(ExitCode::SUCCESS)
}

const HEADER: [&str; 8] = ["layer", "weights", "left", "values", "bytes", "pruned", "shared", "coded"];

/// Accuracy against size, step by step.
fn against_size(steps: &[Step]) -> Lines {
    let points = steps.iter().filter_map(|step| Some((step.bytes as f64 / 1e3, 100.0 * step.accuracy?)));
    Lines::new("Accuracy against size", "thousand bytes", "top-1 on the test images, %").series("steps", points)
}
