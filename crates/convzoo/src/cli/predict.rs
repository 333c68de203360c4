use std::io::{self, IsTerminal};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use convzoo::data::Image;
use convzoo::{Inference, Prediction, classify_batch, classify_ten_crops};
use image::{DynamicImage, RgbImage};
use serde::Serialize;

use super::images::expand;
use super::output::{print, print_json, progress, table, told};
use super::select::{LinearArgs, TrainedArgs};

/// Arguments of `predict`.
#[derive(clap::Args)]
pub struct Args {
    /// Images, folders of images, patterns such as 'photos/*.jpg', or - for standard input
    #[arg(required = true, value_name = "IMAGE|DIR")]
    images: Vec<String>,
    /// The network [default: lenet5, with the digits' weights that come with the program]
    #[arg(long)]
    model: Option<String>,
    #[command(flatten)]
    trained: TrainedArgs,
    /// Classes to show per image
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    top: u32,
    /// Images per pass
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch_size: u32,
    /// Average over ten crops of each image
    #[arg(long)]
    ten_crop: bool,
    #[command(flatten)]
    linear: LinearArgs,
    /// Show each image in the terminal, in front of its classes: in full where the terminal can (kitty, iTerm2), else in
    /// coloured half characters
    #[arg(long, conflicts_with = "json")]
    show: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Answer {
    Right { image: String, top: Vec<Prediction> },
    Wrong { image: String, error: String },
}

/// Lines of the terminal that an image takes.
const SHOWN_LINES: u32 = 12;

/// Classifies images. One that cannot be read does not stop the others.
pub fn run(args: &Args) -> Result<ExitCode> {
    if args.show && !io::stdout().is_terminal() {
        bail!("--show draws in a terminal, and standard output is none");
    }
    let network = args.trained.network(args.model.as_deref().unwrap_or("lenet5"))?;
    let images = expand(&args.images)?;
    let network = args.linear.for_inference(network)?;
    let bar = progress(images.len(), "images");
    let mut answers = Vec::new();
    for chunk in images.chunks(args.batch_size as usize) {
        let read: Vec<_> = chunk.iter().map(|source| source.read()).collect();
        let good: Vec<Image> = read.iter().filter_map(|image| image.as_ref().ok().cloned()).collect();
        let mut predictions = predict(args, &network, &good)?.into_iter();
        for (source, image) in chunk.iter().zip(read) {
            let name = source.name();
            let answer = match &image {
                Ok(_) => Answer::Right { image: name, top: predictions.next().unwrap_or_default() },
                Err(error) => Answer::Wrong { image: name, error: told(error) },
            };
            if let (true, Ok(image)) = (args.show, &image) {
                bar.suspend(|| show(image, &answer))?;
            }
            answers.push(answer);
        }
        bar.inc(chunk.len() as u64);
    }
    bar.finish_and_clear();

    let failed = answers.iter().any(|answer| matches!(answer, Answer::Wrong { .. }));
    if args.json {
        print_json(&answers)?;
    } else {
        if !args.show {
            print(&text(&answers))?;
        }
        for answer in &answers {
            if let Answer::Wrong { image, error } = answer {
                eprintln!("error: {image}: {error}");
            }
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn predict(args: &Args, network: &Inference, images: &[Image]) -> Result<Vec<Vec<Prediction>>> {
    let top = args.top as usize;
    if args.ten_crop {
        return images.iter().map(|image| Ok(classify_ten_crops(network, image, top)?)).collect();
    }
    Ok(classify_batch(network, images, top)?)
}

/// Draws an image in the terminal, and its classes below.
fn show(image: &Image, answer: &Answer) -> Result<()> {
    let (width, height) = (image.width as u32, image.height as u32);
    let picture = RgbImage::from_raw(width, height, image.to_rgb().pixels).context("an image without its pixels")?;
    let config = viuer::Config { height: Some(SHOWN_LINES), absolute_offset: false, ..viuer::Config::default() };
    viuer::print(&DynamicImage::ImageRgb8(picture), &config).context("drawing in the terminal")?;
    print(&text(std::slice::from_ref(answer)))
}

fn text(answers: &[Answer]) -> String {
    let mut rows = Vec::new();
    for answer in answers {
        let Answer::Right { image, top } = answer else { continue };
        for (i, prediction) in top.iter().enumerate() {
            let name = if i == 0 { image.clone() } else { String::new() };
            rows.push(vec![name, format!("{:.2}%", 100.0 * prediction.probability), prediction.name()]);
        }
    }
    table(&["image", "probability", "class"], &[1], rows)
}
