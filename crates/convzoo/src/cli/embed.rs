use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use burn::tensor::Tensor;
use convzoo::data::{Image, shown};
use convzoo::embed::{FeatureFile, FeatureRows, FusedEmbedding, Plane, embed, project};
use convzoo::visualize::View;
use convzoo::{InferenceError, Network, Precision};
use convzoo_report::{Chart, Page, Scatter, write_png};
use serde::Serialize;

use super::claim::{Kind, claim};
use super::images::{OrientationArgs, Source, expand};
use super::output::{count, print, print_json, progress, tell_wrong, told};
use super::select::{PrecisionArgs, TrainedArgs, first_inputs, on_kernels, split_model};

/// Arguments of `embed`.
#[derive(clap::Args)]
pub struct Args {
    /// The network [default: what the weights say], then images: files, folders of images, patterns such as
    /// 'photos/*.jpg', or - for standard input
    #[arg(required = true, value_name = "[MODEL] IMAGE|DIR", value_hint = clap::ValueHint::AnyPath)]
    images: Vec<OsString>,
    #[arg(long, hide = true)]
    model: Option<String>,
    #[command(flatten)]
    trained: TrainedArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    /// File to write the features to, [images, features]: .safetensors or .npy
    #[arg(short, long, alias = "output", value_name = "FILE", default_value = "features.safetensors",
        value_hint = clap::ValueHint::FilePath)]
    out: PathBuf,
    /// Also draw the plane in which the features differ most (PCA), coloured by class, as a PNG and a page beside the
    /// file. The class is the folder that an image lies in, if images lie in several, else the predicted one
    #[arg(long)]
    plot: bool,
    /// Images per batch
    #[arg(long = "batch", alias = "batch-size", value_name = "N", default_value_t = 8,
        value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch_size: u32,
    #[command(flatten)]
    orientation: OrientationArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub const EXAMPLES: &str = "Examples:
  convzoo embed squeezenet1_1 photos --weights imagenet1k_v1 --plot
  convzoo embed 'photos/*.jpg' --weights best.safetensors --out features.npy";

#[derive(Serialize)]
struct Document<'a> {
    model: &'a str,
    features: [usize; 2],
    out: &'a Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    plot: Option<Plot>,
    images: Vec<Answer>,
}

#[derive(Serialize)]
struct Plot {
    page: PathBuf,
    picture: PathBuf,
    explained: [f64; 2],
}

/// What became of an image. Those with a row stand in the file in this order.
#[derive(Serialize)]
#[serde(untagged)]
enum Answer {
    Row { image: String, row: usize, class: String },
    Wrong { image: String, error: String },
}

/// Writes penultimate features.
pub fn run(args: &Args) -> Result<ExitCode> {
    let (model, images) = split_model(args.model.as_deref(), &args.images)?;
    claim("--out", &args.out, Kind::Features)?;
    if args.plot {
        claim("--plot", &args.out.with_extension("png"), Kind::Png)?;
        claim("--plot", &args.out.with_extension("html"), Kind::Page)?;
    }
    let sources = expand(images, args.orientation)?;
    let network = args.trained.network(model)?;
    let (network, precision) = args.precision.ready(network, |network| first_inputs(network, &sources))?;
    let fused = match precision {
        Precision::F32 => None,
        precision if on_kernels(&network) => Some(FusedEmbedding::new(&network, network.input(), precision)?),
        precision => return Err(InferenceError::Precision(precision).into()),
    };
    let folders = folders(&sources);

    let bar = progress(sources.len(), "images");
    let mut file: Option<FeatureFile> = None;
    let mut answers = Vec::with_capacity(sources.len());
    for batch in sources.chunks(args.batch_size as usize) {
        let read: Vec<_> = batch.iter().map(|source| source.read().and_then(|image| input(&network, &image))).collect();
        let inputs: Vec<_> = read.iter().filter_map(|input| input.as_ref().ok().cloned()).collect();
        let mut predicted = Vec::new();
        if !inputs.is_empty() {
            let inputs = Tensor::cat(inputs, 0);
            let (features, logits) = match &fused {
                Some(fused) => fused.embed(inputs)?,
                None => embed(&network, inputs)?,
            };
            let [_, width] = features.dims();
            let file = match &mut file {
                Some(file) => file,
                none => none.insert(FeatureFile::create(&args.out, width)?),
            };
            file.push(&features.try_into_vec_as::<f32>().context("reading the device's result")?)?;
            predicted = logits.argmax(1).try_into_vec_as::<i64>().context("reading the device's result")?;
        }
        let rows = file.as_ref().map_or(0, FeatureFile::rows);
        let mut predicted = (rows - predicted.len()..).zip(predicted);
        for (source, input) in batch.iter().zip(read) {
            let image = source.name();
            answers.push(match input {
                Err(error) => Answer::Wrong { image, error: told(&error) },
                Ok(_) => {
                    let (row, class) = predicted.next().context("every image has a class")?;
                    let class = if folders { folder(source) } else { network.class_name(class as usize) };
                    Answer::Row { image, row, class }
                }
            });
        }
        bar.inc(batch.len() as u64);
    }
    bar.finish_and_clear();

    let failed = answers.iter().any(|answer| matches!(answer, Answer::Wrong { .. }));
    let rows = file.map(FeatureFile::finish).transpose()?;
    let plot = match &rows {
        Some(rows) if args.plot => Some(plot(args, &network, rows, &answers)?),
        _ => None,
    };
    let features = rows.map_or([0, 0], |rows| [rows.rows(), rows.width()]);
    if args.json {
        print_json(&Document { model: network.name(), features, out: &args.out, plot, images: answers })?;
    } else {
        tell_wrong(answers.iter().filter_map(|answer| match answer {
            Answer::Wrong { image, error } => Some((image.as_str(), error.as_str())),
            Answer::Row { .. } => None,
        }));
        let [rows, width] = features;
        if rows > 0 {
            print(&format!("{} × {width} features in {}", count(rows, "image"), args.out.display()))?;
        }
        if let Some(Plot { page, explained: [x, y], .. }) = plot {
            print(&format!("{}, where {:.0}% of their variance shows", page.display(), 100.0 * (x + y)))?;
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn input(network: &Network, image: &Image) -> Result<Tensor<4>> {
    Ok(View::new(network, image)?.input())
}

/// The name of the folder that an image lies in.
fn folder(source: &Source) -> String {
    let folder = |path: &Path| shown(Path::new(path.parent().and_then(Path::file_name).unwrap_or_default()));
    source.path().map_or_else(|| "-".to_owned(), folder)
}

/// Whether images lie in several folders, which then are their classes.
fn folders(sources: &[Source]) -> bool {
    sources.windows(2).any(|pair| folder(&pair[0]) != folder(&pair[1]))
}

/// Draws the features beside their file.
fn plot(args: &Args, network: &Network, rows: &FeatureRows, answers: &[Answer]) -> Result<Plot> {
    let each = |take: &mut dyn FnMut(&[f32])| rows.each(take);
    let plane = project(rows.width(), each).with_context(|| format!("reading {}", args.out.display()))?;
    let Plane { points, explained } = plane;
    let of_rows: Vec<_> = answers
        .iter()
        .filter_map(|answer| match answer {
            Answer::Row { class, .. } => Some(class.as_str()),
            Answer::Wrong { .. } => None,
        })
        .collect();
    let mut classes = of_rows.clone();
    classes.sort_unstable();
    classes.dedup();
    if points.len() != of_rows.len() {
        bail!("{} has changed while it was read", args.out.display());
    }
    let class = |name: &str| classes.binary_search(&name).unwrap_or_default();
    let axis = |i: usize| format!("component {}: {:.0}% of the variance", i + 1, 100.0 * explained[i]);
    let dots = points.iter().zip(&of_rows).map(|(&[x, y], name)| (x, y, class(name)));
    let title = format!("Features of {} images by {}", rows.rows(), network.name());
    let scatter = Scatter::new(title.as_str(), axis(0), axis(1), classes.iter().copied(), dots);

    let (picture, page) = (args.out.with_extension("png"), args.out.with_extension("html"));
    write_png(&scatter.image()?, &picture)?;
    let text = format!(
        "Penultimate features, {} numbers an image, projected to the plane in which they differ most. Images that lie \
         together look alike to the network.",
        rows.width()
    );
    Page::new(title).text(&text).svg(&scatter.svg()?, "").write(&page)?;
    Ok(Plot { page, picture, explained })
}
