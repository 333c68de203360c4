use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, bail};
use convzoo::Classifier;
use convzoo::report::{Chart, write_png};
use convzoo::train::{Evaluation, Views, evaluate};
use serde::Serialize;

use super::claim::{Kind, claim};
use super::output::{print, print_json, progress, table};
use super::select::{DataArgs, DeviceArgs, LinearArgs, NetworkArgs, load, preprocess};

/// Arguments of `eval`.
#[derive(clap::Args)]
pub struct Args {
    /// The network
    model: String,
    /// Its weights: a file (PyTorch's .pth/.pt/.th, safetensors or Burn's pack, told apart by content), or the name of
    /// published ones such as imagenet1k_v1, which are downloaded into the cache
    #[arg(long, value_name = "FILE|NAME")]
    weights: OsString,
    /// The data set: digits, mnist, fashion-mnist, cifar10, cifar100 or folder; its test part is used
    #[arg(long, value_name = "DATASET")]
    data: String,
    #[command(flatten)]
    source: DataArgs,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    linear: LinearArgs,
    /// Images per batch
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch_size: u32,
    /// Average the probabilities over ten crops of each image: corners and centre, and their mirror images
    #[arg(long)]
    ten_crop: bool,
    /// Show the accuracy of each class and the classes it is most often confused with
    #[arg(long)]
    confusion: bool,
    /// Draw the confusion matrix, as a PNG file
    #[arg(long, value_name = "FILE")]
    confusion_png: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    model: &'a str,
    data: &'a str,
    images: usize,
    correct: usize,
    top1: f64,
    top5: f64,
    loss: f64,
    seconds: f64,
    classes: Vec<Class<'a>>,
    confusion: &'a [Vec<usize>],
}

#[derive(Serialize)]
struct Class<'a> {
    name: &'a str,
    accuracy: Option<f64>,
}

/// Measures a network on the test part of a data set.
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
    let network = load(&args.model, &args.weights, args.source.offline, &args.network.options(), &device)?;
    let inference = args.linear.for_inference(network)?;
    let network = inference.network();
    let data = args.source.open(&args.data)?;
    let classes = data.classes();
    if classes.len() != network.classes() {
        let (own, name) = (network.classes(), &args.data);
        bail!("the weights have {own} classes and '{name}' has {}", classes.len());
    }
    let preprocess = preprocess(network, &network.preprocessing(), &*data.test)?;
    let bar = progress(data.test.len(), "images");
    let count = |images: usize| bar.set_position(images as u64);
    let views = if args.ten_crop { Views::TenCrops } else { Views::Centre };
    let (test, batch_size) = (Arc::clone(&data.test), args.batch_size as usize);
    let evaluation = evaluate(&inference, test, &preprocess, views, batch_size, &device, count)?;
    bar.finish_and_clear();

    if let Some(path) = &args.confusion_png {
        let title = format!("{} on {}: {} of {}", network.name(), args.data, evaluation.correct, evaluation.images);
        write_png(&evaluation.matrix(title, classes).image()?, path)?;
    }
    if args.json {
        let accuracy = evaluation.class_accuracy();
        let classes = classes.iter().zip(accuracy).map(|(name, accuracy)| Class { name, accuracy });
        print_json(&Document {
            model: network.name(),
            data: &args.data,
            images: evaluation.images,
            correct: evaluation.correct,
            top1: evaluation.top1(),
            top5: evaluation.top5(),
            loss: evaluation.loss,
            seconds: evaluation.seconds,
            classes: classes.collect(),
            confusion: &evaluation.confusion,
        })?;
    } else {
        let rate = evaluation.images as f64 / evaluation.seconds;
        print(&format!(
            "{} on {}: {} of {} right, top-1 {:.2}%, top-5 {:.2}%, loss {:.4} ({:.1} s, {rate:.0} images/s)",
            network.name(),
            args.data,
            evaluation.correct,
            evaluation.images,
            100.0 * evaluation.top1(),
            100.0 * evaluation.top5(),
            evaluation.loss,
            evaluation.seconds,
        ))?;
        if args.confusion {
            print(&confusion(&evaluation, classes))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Per class: its accuracy, and the classes that its images are most often confused with.
fn confusion(evaluation: &Evaluation, classes: &[String]) -> String {
    let rows = evaluation.class_accuracy().into_iter().zip(&evaluation.confusion).enumerate();
    let rows = rows.map(|(class, (accuracy, row))| {
        let mut mistaken: Vec<_> = (0..row.len()).filter(|&other| other != class && row[other] > 0).collect();
        mistaken.sort_by_key(|&other| std::cmp::Reverse(row[other]));
        let mistaken = mistaken.iter().take(3).map(|&other| format!("{} ({})", classes[other], row[other]));
        vec![
            classes[class].clone(),
            row.iter().sum::<usize>().to_string(),
            accuracy.map_or("-".to_owned(), |accuracy| format!("{:.2}%", 100.0 * accuracy)),
            mistaken.collect::<Vec<_>>().join(", "),
        ]
    });
    format!("\n{}", table(&["class", "images", "accuracy", "confused with"], &[1, 2], rows.collect()))
}
