use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use convzoo::data::{EXTENSIONS, Image, decode, load_image};
use convzoo::{Network, Prediction, classify_batch, classify_ten_crops, pretrained, variant};
use serde::Serialize;

use super::output::{print, print_json, progress, table, told};
use super::select::{DeviceArgs, NetworkArgs, load};

/// Arguments of `predict`.
#[derive(clap::Args)]
pub struct Args {
    /// Images, folders of images, patterns such as 'photos/*.jpg', or - for standard input
    #[arg(required = true, value_name = "IMAGE|DIR")]
    images: Vec<String>,
    /// The network [default: lenet5, with the digits' weights that come with the program]
    #[arg(long)]
    model: Option<String>,
    /// Its weights: a file (PyTorch's .pth/.pt/.th, safetensors or Burn's pack, told apart by content), or the name of
    /// published ones such as imagenet1k_v1, which are downloaded into the cache
    #[arg(long, value_name = "FILE|NAME")]
    weights: Option<String>,
    /// Never download
    #[arg(long)]
    offline: bool,
    /// Names of the classes, a line each, where the weights do not remember them
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
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
    network: NetworkArgs,
    #[command(flatten)]
    device: DeviceArgs,
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

/// Classifies images. One that cannot be read does not stop the others.
pub fn run(args: &Args) -> Result<ExitCode> {
    let network = network(args)?;
    let images = expand(&args.images)?;
    let bar = progress(images.len(), "images");
    let mut answers = Vec::new();
    for chunk in images.chunks(args.batch_size as usize) {
        let read: Vec<_> = chunk.iter().map(|source| source.read()).collect();
        let good: Vec<Image> = read.iter().filter_map(|image| image.as_ref().ok().cloned()).collect();
        let mut predictions = predict(args, &network, &good)?.into_iter();
        for (source, image) in chunk.iter().zip(read) {
            let name = source.name();
            answers.push(match image {
                Ok(_) => Answer::Right { image: name, top: predictions.next().unwrap_or_default() },
                Err(error) => Answer::Wrong { image: name, error: told(&error) },
            });
        }
        bar.inc(chunk.len() as u64);
    }
    bar.finish_and_clear();

    let failed = answers.iter().any(|answer| matches!(answer, Answer::Wrong { .. }));
    if args.json {
        print_json(&answers)?;
    } else {
        print(&text(&answers))?;
        for answer in &answers {
            if let Answer::Wrong { image, error } = answer {
                eprintln!("error: {image}: {error}");
            }
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn network(args: &Args) -> Result<Network> {
    let (_, device) = args.device.open()?;
    let model = args.model.as_deref().unwrap_or("lenet5");
    let network = match &args.weights {
        Some(weights) => load(model, weights, args.offline, &args.network.options(), &device)?,
        None if model == "lenet5" => pretrained::lenet5_digits(&device)?,
        None => {
            variant(model)?;
            bail!("{model} needs --weights FILE; only lenet5 comes with weights of its own")
        }
    };
    let Some(path) = &args.labels else { return Ok(network) };
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let labels: Vec<String> = text.lines().map(str::to_owned).collect();
    if labels.len() != network.classes() {
        bail!("{} names {} classes and the weights tell {} apart", path.display(), labels.len(), network.classes());
    }
    Ok(network.with_labels(labels))
}

fn predict(args: &Args, network: &Network, images: &[Image]) -> Result<Vec<Vec<Prediction>>> {
    let top = args.top as usize;
    if args.ten_crop {
        return images.iter().map(|image| Ok(classify_ten_crops(network, image, top)?)).collect();
    }
    Ok(classify_batch(network, images, top)?)
}

enum Source {
    File(PathBuf),
    StandardInput,
}

impl Source {
    fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::StandardInput => "-".to_owned(),
        }
    }

    fn read(&self) -> Result<Image> {
        match self {
            Self::File(path) => Ok(load_image(path)?),
            Self::StandardInput => {
                // As much as a file may have; `decode` refuses what is larger.
                const LIMIT: u64 = 256 << 20;
                let mut bytes = Vec::new();
                io::stdin().lock().take(LIMIT + 1).read_to_end(&mut bytes).context("reading standard input")?;
                Ok(decode(&bytes)?)
            }
        }
    }
}

/// Folders become the images in them, patterns what they match; all else stays what was typed.
fn expand(arguments: &[String]) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for argument in arguments {
        let path = Path::new(argument);
        if argument == "-" {
            sources.push(Source::StandardInput);
        } else if path.is_dir() {
            let entries = std::fs::read_dir(path).with_context(|| format!("reading {argument}"))?;
            let mut files = entries
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<Result<Vec<_>, _>>()
                .with_context(|| format!("reading {argument}"))?;
            files.retain(|file| is_image(file));
            files.sort();
            if files.is_empty() {
                bail!("{argument} holds no image ({})", EXTENSIONS.join(", "));
            }
            sources.extend(files.into_iter().map(Source::File));
        } else if argument.contains(['*', '?', '[']) && !path.exists() {
            let matches = glob::glob(argument).with_context(|| format!("'{argument}' is no pattern"))?;
            let mut files: Vec<_> = matches.filter_map(Result::ok).filter(|file| file.is_file()).collect();
            files.sort();
            if files.is_empty() {
                bail!("nothing matches {argument}");
            }
            sources.extend(files.into_iter().map(Source::File));
        } else {
            sources.push(Source::File(path.to_owned()));
        }
    }
    Ok(sources)
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_lowercase);
    path.is_file() && extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}

fn text(answers: &[Answer]) -> String {
    let mut rows = Vec::new();
    for answer in answers {
        let Answer::Right { image, top } = answer else { continue };
        for (i, prediction) in top.iter().enumerate() {
            let label = prediction.label.clone().unwrap_or_else(|| format!("class {}", prediction.class));
            let name = if i == 0 { image.clone() } else { String::new() };
            rows.push(vec![name, format!("{:.2}%", 100.0 * prediction.probability), label]);
        }
    }
    table(&["image", "certainty", "class"], &[1], rows)
}
