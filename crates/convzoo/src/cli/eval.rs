use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use burn::tensor::{Device, Tensor};
use convzoo::data::{Dataset, Part, Relabelled, Selection, escaped, evenly_spaced, shown};
use convzoo::report::{Chart, write_png};
use convzoo::train::{ClassFigures, Ensemble, Evaluation, Member, Views, evaluate_ensemble};
use convzoo::{Classifier, Inference, Network};
use serde::Serialize;

use super::claim::{Kind, claim};
use super::ensemble;
use super::names::{DATA, MODELS};
use super::output::{FormatArgs, print, progress, table, tell};
use super::select::{
    CALIBRATED, DataArgs, DeviceArgs, NetworkArgs, PrecisionArgs, batches, load, model_of, preprocess, with_labels,
};

/// Arguments of `eval`.
#[derive(clap::Args)]
pub struct Args {
    /// The network [default: what the weights say]
    #[arg(value_parser = MODELS, hide_possible_values = true)]
    model: Option<String>,
    #[arg(long = "model", hide = true, conflicts_with = "model")]
    named: Option<String>,
    /// Its weights: a file (PyTorch's .pth/.pt/.th, safetensors, ONNX, Burn's pack or a compressed one, told apart by
    /// content), or the name of published ones such as imagenet1k_v1, which are downloaded into the cache
    #[arg(long, value_name = "FILE|NAME", value_hint = clap::ValueHint::FilePath, required_unless_present = "ensemble")]
    weights: Option<OsString>,
    /// Instead of one network, several, whose probabilities are averaged: the weights of each, after the network's name
    /// and `=` where they do not say it
    #[arg(long, value_name = "[MODEL=]FILE|NAME", num_args = 1.., conflicts_with_all = ["weights", "model", "named"])]
    ensemble: Vec<OsString>,
    /// Names of the classes, where the weights' file has none: a file with a line each, or `imagenet` for those of
    /// ImageNet [default: the weights' own; without any, class n of the data is output n]
    #[arg(long, value_name = "FILE|imagenet", value_hint = clap::ValueHint::FilePath)]
    labels: Option<PathBuf>,
    /// The data set: digits, mnist, fashion-mnist, cifar10, cifar100 or folder
    #[arg(long, value_name = "DATASET", value_parser = DATA, hide_possible_values = true)]
    data: String,
    /// Which of its images. Of a data set without test images, `test` is the fifth that training holds out
    #[arg(long, value_enum, default_value_t = SplitArg::Test)]
    split: SplitArg,
    #[command(flatten)]
    source: DataArgs,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    /// Images per batch
    #[arg(long = "batch", alias = "batch-size", value_name = "N", default_value_t = 32,
        value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch_size: u32,
    /// Average the probabilities over ten crops of each image: corners and centre, and their mirror images
    #[arg(long)]
    ten_crop: bool,
    /// Show precision, recall and F1 of each class and the classes it is most often confused with
    #[arg(long)]
    confusion: bool,
    /// Draw the confusion matrix, as a PNG file
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    confusion_png: Option<PathBuf>,
    #[command(flatten)]
    format: FormatArgs,
}

pub const EXAMPLES: &str = "Examples:
  convzoo eval --weights runs/lenet5-digits/best.safetensors --data digits --confusion
  convzoo eval --weights best.safetensors --data folder --data-dir new --split all
  convzoo eval resnet50 --weights imagenet1k_v2 --data folder --data-dir imagenet
  convzoo eval --ensemble runs/a/best.safetensors runs/b/best.safetensors --data digits";

/// `--split`.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum SplitArg {
    /// All images
    All,
    /// Those to train on
    Train,
    /// Those in the folder `val`
    Val,
    /// Those to test on
    Test,
}

impl SplitArg {
    fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        }
    }

    fn part(self) -> Part {
        match self {
            Self::All => Part::All,
            Self::Train => Part::Train,
            Self::Val => Part::Val,
            Self::Test => Part::Test,
        }
    }
}

#[derive(Serialize)]
struct Document<'a> {
    model: String,
    data: &'a str,
    split: SplitArg,
    images: usize,
    correct: usize,
    top1: f64,
    top5: f64,
    loss: f64,
    seconds: f64,
    classes: Vec<Class<'a>>,
    confusion: &'a [Vec<usize>],
    /// The networks of an ensemble, each alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ensemble: Vec<Alone>,
}

/// A network of an ensemble by itself.
#[derive(Serialize)]
struct Alone {
    model: &'static str,
    weights: String,
    correct: usize,
    top1: f64,
    top5: f64,
    loss: f64,
}

/// Columns of `--csv`, in one row.
const COLUMNS: [&str; 9] = ["model", "data", "split", "images", "correct", "top1", "top5", "loss", "seconds"];

/// Columns of `--confusion --csv`: a row for each pair that there is an image of.
const CONFUSION: [&str; 3] = ["class", "predicted", "images"];

#[derive(Serialize)]
struct Class<'a> {
    name: &'a str,
    /// Its recall.
    accuracy: Option<f64>,
    precision: Option<f64>,
    f1: Option<f64>,
}

/// Measures a network on images of a data set.
pub fn run(args: &Args) -> Result<ExitCode> {
    if let Some(folder) = args.confusion_png.as_ref().and_then(|path| path.parent())
        && !folder.as_os_str().is_empty()
        && !folder.is_dir()
    {
        bail!("there is no folder {} for --confusion-png", folder.display());
    }
    if let Some(path) = &args.confusion_png {
        claim("--confusion-png", path, Kind::Png)?;
    }
    let (_, device) = args.device.open()?;
    let networks = args.networks(&device)?;
    let network = networks[0].1.network();
    let Selection { data, which, held_out_of } = args.source.select(&args.data, args.split.part())?;
    let test = with_classes_of(network, data, &args.data)?;
    tell_unnamed(network);
    let classes = test.classes();
    let prepare = |(_, other): &(String, Inference)| {
        let other = other.network();
        Ok((preprocess(other, &other.preprocessing(), &*test)?, ensemble::outputs(network, other)?))
    };
    let prepared = networks.iter().map(prepare).collect::<Result<Vec<_>>>()?;
    let members = networks.iter().zip(&prepared).map(|((_, network), (preprocess, outputs))| {
        let outputs = outputs.clone();
        Member { network, preprocess, outputs }
    });
    let members: Vec<_> = members.collect();
    let bar = progress(test.len(), "images");
    let count = |images: usize| bar.set_position(images as u64);
    let views = if args.ten_crop { Views::TenCrops } else { Views::Centre };
    let batch_size = args.batch_size as usize;
    let Ensemble { together: evaluation, alone } =
        evaluate_ensemble(&members, Arc::clone(&test), views, batch_size, &device, count)?;
    bar.finish_and_clear();
    let model = names(&networks);

    if let Some(path) = &args.confusion_png {
        let title = format!("{model} on {}: {} of {}", args.data, evaluation.correct, evaluation.images);
        write_png(&evaluation.matrix(title, classes).image()?, path)?;
    }
    let class = |(name, of): (_, ClassFigures)| {
        let ClassFigures { precision, recall: accuracy, f1, .. } = of;
        Class { name, accuracy, precision, f1 }
    };
    let by_class = classes.iter().map(String::as_str).zip(evaluation.by_class()).map(class).collect();
    let alone = networks.iter().zip(&alone).map(|((weights, network), evaluation)| Alone {
        model: network.network().name(),
        weights: weights.clone(),
        correct: evaluation.correct,
        top1: evaluation.top1(),
        top5: evaluation.top5(),
        loss: evaluation.loss,
    });
    let document = Document {
        model,
        data: &args.data,
        split: args.split,
        images: evaluation.images,
        correct: evaluation.correct,
        top1: evaluation.top1(),
        top5: evaluation.top5(),
        loss: evaluation.loss,
        seconds: evaluation.seconds,
        classes: by_class,
        confusion: &evaluation.confusion,
        ensemble: if args.ensemble.is_empty() { Vec::new() } else { alone.collect() },
    };
    let text = || {
        print(&said(&document, &which))?;
        if args.confusion {
            print(&confusion(&evaluation, classes))?;
        }
        if let (Some(all), "folder") = (held_out_of.filter(|_| args.source.split_seed.is_none()), args.data.as_str()) {
            tell(&format!(
                "note: the folder has no test images of its own, so these are {which}; if the network was trained on none \
                 of its images, --split all measures all {all}"
            ));
        }
        Ok(())
    };
    match args.confusion {
        true => args.format.print(&document, CONFUSION, pairs(&evaluation, classes), text)?,
        false => args.format.print(&document, COLUMNS, [document.record()], text)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Says so where classes cannot be found by name.
pub fn tell_unnamed(network: &Network) {
    if network.labels().is_empty() {
        tell("note: the weights do not name their classes; class n of the data is taken as output n");
    }
}

impl Args {
    /// Some of the images, for a network that is to be quantized.
    fn calibration(&self, network: &Network) -> Result<Vec<Tensor<4>>> {
        let data = self.source.select(&self.data, self.split.part())?.data;
        let preprocess = preprocess(network, &network.preprocessing(), &*data)?;
        let places = evenly_spaced(data.len(), CALIBRATED);
        let inputs = places.map(|place| Ok(preprocess.apply(&data.get(place)?.image)));
        Ok(batches(network, inputs.collect::<Result<Vec<_>>>()?))
    }

    /// The networks to measure, with what their weights are called.
    fn networks(&self, device: &Device) -> Result<Vec<(String, Inference)>> {
        let one = self.model.as_deref().or(self.named.as_deref());
        let weights = self.weights.as_deref().map(|weights| Ok((one, weights)));
        let given = weights.into_iter().chain(self.ensemble.iter().map(|entry| ensemble::split(entry)));
        let network = |given: Result<(Option<&str>, &OsStr)>| {
            let (model, weights) = given?;
            let model = model_of(model, weights)?;
            let network = load(model, weights, self.source.offline, &self.network.options(), device)?;
            let network = match &self.labels {
                Some(labels) => with_labels(network, labels)?,
                None => network,
            };
            Ok((shown(Path::new(weights)), self.precision.for_inference(network, |network| self.calibration(network))?))
        };
        given.map(network).collect()
    }
}

impl Document<'_> {
    /// Its [`COLUMNS`].
    fn record(&self) -> [String; COLUMNS.len()] {
        [
            self.model.clone(),
            self.data.to_owned(),
            self.split.name().to_owned(),
            self.images.to_string(),
            self.correct.to_string(),
            self.top1.to_string(),
            self.top5.to_string(),
            self.loss.to_string(),
            self.seconds.to_string(),
        ]
    }
}

/// The networks of a measurement, each once.
fn names(networks: &[(String, Inference)]) -> String {
    let mut names: Vec<_> = networks.iter().map(|(_, network)| network.network().name()).collect();
    names.dedup();
    names.join(" + ")
}

/// The measurement in a line, after one for each network of an ensemble.
fn said(document: &Document, which: &str) -> String {
    let Document { model, data, images, seconds, ensemble, .. } = document;
    let figures = |correct: usize, top1: f64, top5: f64, loss: f64| {
        let (top1, top5) = (100.0 * top1, 100.0 * top5);
        format!("{correct} of {images} right, top-1 {top1:.2}%, top-5 {top5:.2}%, loss {loss:.4}")
    };
    let alone = ensemble.iter().map(|Alone { model, weights, correct, top1, top5, loss }| {
        format!("{model} alone, {}: {}\n", escaped(weights), figures(*correct, *top1, *top5, *loss))
    });
    let (rate, together) = (*images as f64 / seconds, if ensemble.is_empty() { "" } else { "together, " });
    let all = figures(document.correct, document.top1, document.top5, document.loss);
    let line = format!("{model} on {data}, {which}: {together}{all} ({seconds:.1} s, {rate:.0} images/s)");
    alone.collect::<String>() + &line
}

/// The [`CONFUSION`] of an evaluation.
fn pairs<'a>(
    evaluation: &'a Evaluation,
    classes: &'a [String],
) -> impl Iterator<Item = [String; CONFUSION.len()]> + 'a {
    evaluation.confusion.iter().zip(classes).flat_map(move |(row, class)| {
        let counted = row.iter().zip(classes).filter(|(images, _)| **images > 0);
        counted.map(move |(images, predicted)| [class.clone(), predicted.clone(), images.to_string()])
    })
}

/// The images of `data`, each with the label that its class has in `network`, found by name where the network knows
/// its classes' names.
pub fn with_classes_of(network: &Network, data: Arc<dyn Dataset>, name: &str) -> Result<Arc<dyn Dataset>> {
    let (own, theirs) = (network.labels(), data.classes());
    // Folders called by WordNet's numbers, sorted, are ImageNet's classes in their order.
    let is_number = |class: &String| class.len() == 9 && class.starts_with('n') && class[1..].parse::<u32>().is_ok();
    if own.is_empty() || theirs.len() == own.len() && theirs.iter().all(is_number) {
        if theirs.len() != network.classes() {
            bail!(
                "the weights have {} classes without names, and '{name}' has {}; --labels FILE names them",
                network.classes(),
                theirs.len()
            );
        }
        return Ok(data);
    }
    if own == theirs {
        return Ok(data);
    }
    let labels = theirs.iter().map(|class| own.iter().position(|own| alike(own, class))).collect::<Vec<_>>();
    let unknown: Vec<_> = theirs.iter().zip(&labels).filter(|(_, at)| at.is_none()).map(|(class, _)| class).collect();
    if let Some(first) = unknown.first() {
        bail!(
            "'{name}' has the class '{}', which the weights do not know\n  '{name}' has {}: {}\n  the weights know {}: {}",
            escaped(first),
            theirs.len(),
            listed(theirs),
            own.len(),
            listed(own),
        );
    }
    let labels = labels.into_iter().flatten().collect();
    Ok(Arc::new(Relabelled::new(data, own.to_vec(), labels).context("each class has a label")?))
}

/// Whether two names of a class differ at most in case and in what stands between words.
pub fn alike(a: &str, b: &str) -> bool {
    let plain = |name: &str| name.to_lowercase().replace(['_', '-'], " ");
    a == b || plain(a) == plain(b)
}

/// The first names of a list.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 20;
    let more = if names.len() > SHOWN { ", …" } else { "" };
    let names: Vec<_> = names.iter().take(SHOWN).map(|name| escaped(name)).collect();
    names.join(", ") + more
}

/// Per class: precision, recall, F1, and the classes that its images are most often confused with.
fn confusion(evaluation: &Evaluation, classes: &[String]) -> String {
    // Of more classes, those without images are left out.
    const MOST_ROWS: usize = 100;
    let percent = |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{:.2}%", 100.0 * share));
    let rows = evaluation.by_class().into_iter().zip(&evaluation.confusion).enumerate();
    let rows = rows.filter(|(_, (figures, _))| figures.images > 0 || classes.len() <= MOST_ROWS);
    let rows = rows.map(|(class, (figures, row))| {
        let mut mistaken: Vec<_> = (0..row.len()).filter(|&other| other != class && row[other] > 0).collect();
        mistaken.sort_by_key(|&other| std::cmp::Reverse(row[other]));
        let mistaken = mistaken.iter().take(3).map(|&other| format!("{} ({})", classes[other], row[other]));
        vec![
            classes[class].clone(),
            figures.images.to_string(),
            percent(figures.precision),
            percent(figures.recall),
            percent(figures.f1),
            mistaken.collect::<Vec<_>>().join(", "),
        ]
    });
    let header = ["class", "images", "precision", "recall", "F1", "confused with"];
    format!("\n{}", table(&header, &[1, 2, 3, 4], rows.collect()))
}
