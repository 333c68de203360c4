use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use convzoo::data::{Filter, Image};
use convzoo::{Inference, Prediction, classify_prepared, classify_ten_crops, prepare};
use image::{DynamicImage, RgbImage};
use serde::Serialize;

use super::images::{OrientationArgs, Source, expand};
use super::output::{FormatArgs, cell, print, progress, table, tell_wrong, told};
use super::select::{PrecisionArgs, TrainedArgs, first_inputs, split_model};
#[cfg(unix)]
use super::terminal;

/// Arguments of `predict`.
#[derive(clap::Args)]
pub struct Args {
    /// The network [default: what the weights say; without weights lenet5 for digits], then images: files, folders
    /// (the images in them or, where there are none, in the folders directly in them), patterns such as
    /// 'photos/*.jpg', or - for standard input
    #[arg(required = true, value_name = "[MODEL] IMAGE|DIR", value_hint = clap::ValueHint::AnyPath)]
    images: Vec<OsString>,
    #[arg(long, hide = true)]
    model: Option<String>,
    #[command(flatten)]
    trained: TrainedArgs,
    /// Classes to show per image
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    top: u32,
    /// Leave out classes of a lower probability, 0 to 1
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = probability)]
    threshold: f32,
    /// Images per batch
    #[arg(long = "batch", alias = "batch-size", value_name = "N", default_value_t = 8,
        value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch_size: u32,
    /// Average over ten crops of each image
    #[arg(long)]
    ten_crop: bool,
    #[command(flatten)]
    orientation: OrientationArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    /// Show each image in the terminal, before its classes: in full where the terminal can (kitty, iTerm2), else in
    /// coloured half characters
    #[arg(long, conflicts_with_all = ["json", "csv"])]
    show: bool,
    #[command(flatten)]
    format: FormatArgs,
}

pub const EXAMPLES: &str = "Examples:
  convzoo predict digit.png                                handwritten digits
  convzoo predict squeezenet1_1 photos --weights imagenet1k_v1
  convzoo predict photo.jpg --weights runs/lenet5-folder/best.safetensors --json
  convzoo predict photos --threshold 0.5 --csv > photos.csv
  curl -s https://example.org/digit.png | convzoo predict -";

fn probability(text: &str) -> Result<f32, String> {
    let probability = text.parse().ok().filter(|probability| (0.0..=1.0).contains(probability));
    probability.ok_or_else(|| "expected a probability, from 0 to 1".to_owned())
}

/// Columns of `--csv`, a row for each class of each image. An image without classes has one row, too.
const COLUMNS: [&str; 6] = ["image", "rank", "class", "label", "probability", "error"];

#[derive(Serialize)]
#[serde(untagged)]
enum Answer {
    Right { image: String, top: Vec<Prediction> },
    Wrong { image: String, error: String },
}

impl Answer {
    /// Its rows of [`COLUMNS`].
    fn records(&self) -> Vec<[String; COLUMNS.len()]> {
        let none = String::new;
        match self {
            Self::Wrong { image, error } => vec![[image.clone(), none(), none(), none(), none(), error.clone()]],
            Self::Right { image, top } if top.is_empty() => {
                vec![[image.clone(), none(), none(), none(), none(), none()]]
            }
            Self::Right { image, top } => {
                let record = |(place, prediction): (usize, &Prediction)| {
                    let Prediction { class, label, probability } = prediction;
                    let rank = (place + 1).to_string();
                    let label = cell(label.as_ref());
                    [image.clone(), rank, class.to_string(), label, probability.to_string(), none()]
                };
                top.iter().enumerate().map(record).collect()
            }
        }
    }
}

/// Lines of the terminal that an image takes.
const SHOWN_LINES: u32 = 12;

/// The longest side of a picture that is kept to be shown in so many lines.
const SHOWN_SIDE: usize = 512;

/// Classifies images. One that cannot be read does not stop the others.
pub fn run(args: &Args) -> Result<ExitCode> {
    if args.show && !io::stdout().is_terminal() {
        bail!("--show draws in a terminal, and standard output is none");
    }
    let (model, images) = split_model(args.model.as_deref(), &args.images)?;
    let network = args.trained.network(model)?;
    let images = expand(images, args.orientation)?;
    let network = args.precision.for_inference(network, |network| first_inputs(network, &images))?;
    let config = args.show.then(show_config);
    let bar = progress(images.len(), "images");
    let mut answers = Vec::new();
    for chunk in images.chunks(args.batch_size as usize) {
        let read: Vec<_> = chunk.iter().map(|source| read(args, &network, source)).collect();
        let (inputs, seen) = split(read);
        let mut predictions = classify_prepared(&network, &inputs, args.top as usize)?.into_iter();
        for (source, seen) in chunk.iter().zip(seen) {
            let image = source.name();
            let (answer, picture) = match seen {
                Ok(Seen { top, picture }) => {
                    let mut top = top.or_else(|| predictions.next()).unwrap_or_default();
                    top.retain(|prediction| prediction.probability >= args.threshold);
                    (Answer::Right { image, top }, picture)
                }
                Err(error) => (Answer::Wrong { image, error: told(&error) }, None),
            };
            if let (Some(config), Some(picture)) = (&config, picture) {
                bar.suspend(|| show(picture, config, &answer))?;
            }
            answers.push(answer);
        }
        bar.inc(chunk.len() as u64);
    }
    bar.finish_and_clear();

    let failed = answers.iter().any(|answer| matches!(answer, Answer::Wrong { .. }));
    args.format.print(&answers, COLUMNS, answers.iter().flat_map(Answer::records), || {
        if !args.show && answers.iter().any(|answer| matches!(answer, Answer::Right { .. })) {
            print(&text(&answers))?;
        }
        tell_wrong(answers.iter().filter_map(|answer| match answer {
            Answer::Wrong { image, error } => Some((image.as_str(), error.as_str())),
            Answer::Right { .. } => None,
        }));
        Ok(())
    })?;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What is kept of an image that was read until its pass: next to nothing, however large it is.
struct Seen {
    /// Its classes, where they are known already: ten crops make a pass of their own.
    top: Option<Vec<Prediction>>,
    /// A picture to show, where that was asked for.
    picture: Option<Image>,
}

/// Reads an image and makes the network's input of it, unless it is classified at once.
fn read(args: &Args, network: &Inference, source: &Source) -> Result<(Option<Vec<f32>>, Seen)> {
    let image = source.read()?;
    let picture = args.show.then(|| thumbnail(&image));
    if args.ten_crop {
        let top = Some(classify_ten_crops(network, &image, args.top as usize)?);
        return Ok((None, Seen { top, picture }));
    }
    Ok((Some(prepare(network.network(), &image)), Seen { top: None, picture }))
}

/// The inputs of a pass, and what is known of each image besides.
fn split(read: Vec<Result<(Option<Vec<f32>>, Seen)>>) -> (Vec<Vec<f32>>, Vec<Result<Seen>>) {
    let mut inputs = Vec::new();
    let seen = read.into_iter().map(|read| {
        read.map(|(input, seen)| {
            inputs.extend(input);
            seen
        })
    });
    let seen = seen.collect();
    (inputs, seen)
}

fn thumbnail(image: &Image) -> Image {
    let longest = image.width.max(image.height);
    let side = |side: usize| (side * SHOWN_SIDE / longest).max(1);
    match longest <= SHOWN_SIDE {
        true => image.clone(),
        false => image.resize(side(image.width), side(image.height), Filter::Bilinear),
    }
}

/// How images are drawn. Only a terminal that replies is asked whether it draws in full.
fn show_config() -> viuer::Config {
    #[cfg(unix)]
    let use_kitty = terminal::replies();
    #[cfg(not(unix))]
    let use_kitty = false;
    viuer::Config { height: Some(SHOWN_LINES), absolute_offset: false, use_kitty, ..viuer::Config::default() }
}

/// Draws an image in the terminal, and its classes below.
fn show(image: Image, config: &viuer::Config, answer: &Answer) -> Result<()> {
    let (width, height) = (image.width as u32, image.height as u32);
    let picture = RgbImage::from_raw(width, height, image.to_rgb().pixels).context("an image without its pixels")?;
    viuer::print(&DynamicImage::ImageRgb8(picture), config).context("drawing in the terminal")?;
    print(&text(std::slice::from_ref(answer)))
}

fn text(answers: &[Answer]) -> String {
    let mut rows = Vec::new();
    for answer in answers {
        let Answer::Right { image, top } = answer else { continue };
        if top.is_empty() {
            rows.push(vec![image.clone(), "-".to_owned(), "none is as probable".to_owned()]);
        }
        for (i, prediction) in top.iter().enumerate() {
            let name = if i == 0 { image.clone() } else { String::new() };
            rows.push(vec![name, format!("{:.2}%", 100.0 * prediction.probability), prediction.name()]);
        }
    }
    table(&["image", "probability", "class"], &[1], rows)
}
