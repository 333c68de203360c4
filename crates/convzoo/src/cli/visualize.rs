mod channels;
mod heat;
mod sheet;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{ValueEnum, value_parser};
use convzoo::{Network, Prediction};
use serde::Serialize;

use self::sheet::Sheet;
use super::images::{OrientationArgs, Source, expand};
use super::output::{print, print_json, tell_wrong, told};
use super::select::{TrainedArgs, split_model};

/// Arguments of `visualize`.
#[derive(clap::Args)]
pub struct Args {
    /// The network [default: what the weights say], then images: files, folders of images, or patterns such as
    /// 'photos/*.jpg'; none for filters
    #[arg(value_name = "[MODEL] IMAGE|DIR", value_hint = clap::ValueHint::AnyPath)]
    images: Vec<OsString>,
    #[arg(long, hide = true)]
    model: Option<String>,
    #[command(flatten)]
    trained: TrainedArgs,
    /// What to show
    #[arg(long, value_enum)]
    what: What,
    /// The layer, by its name in `convzoo summary` [default: features shows all of them, filters the first convolution,
    /// deconvnet the last one, gradcam and guided-gradcam the last feature map]
    #[arg(long, value_name = "NAME")]
    layer: Option<String>,
    /// The class to explain, counted from 0 [default: the most probable one]
    #[arg(long, value_name = "N")]
    class: Option<usize>,
    /// Channels to show: features, filters, deconvnet
    #[arg(long, value_name = "N,N…", value_delimiter = ',')]
    channels: Vec<usize>,
    /// How many channels to show, the strongest first [default: deconvnet 9, the others all]
    #[arg(long, value_name = "K", conflicts_with = "channels", value_parser = value_parser!(u16).range(1..))]
    top: Option<u16>,
    /// Side of the covered square: occlusion [default: a quarter of the image's]
    #[arg(long, value_name = "PIXELS")]
    window: Option<usize>,
    /// Pixels between the positions of the covered square: occlusion [default: half of the window]
    #[arg(long, value_name = "PIXELS")]
    stride: Option<usize>,
    #[command(flatten)]
    orientation: OrientationArgs,
    /// Also write the numbers that the pictures show, and the network's input, as .npy
    #[arg(long)]
    raw: bool,
    /// Folder to write PNG files and the page WHAT.html to
    #[arg(short, long, alias = "output", value_name = "DIR", default_value = "visualize",
        value_hint = clap::ValueHint::DirPath)]
    out: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub const EXAMPLES: &str = "Examples:
  convzoo visualize squeezenet1_1 photo.jpg --weights imagenet1k_v1 --what gradcam
  convzoo visualize lenet5 --what filters --layer c3
  convzoo visualize photo.jpg --weights best.safetensors --what features --out features";

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Feature maps of a layer, or the strongest one of each layer
    Features,
    /// The kernels of a convolution
    Filters,
    /// Deconvnet: what in the images excites the channels of a layer, projected back to the pixels
    Deconvnet,
    /// Grad-CAM: regions that contribute to a class's score
    Gradcam,
    /// Guided Grad-CAM: the same, at the resolution of the pixels
    GuidedGradcam,
    /// Saliency: pixels that change a class's score most
    Saliency,
    /// Occlusion: how much of a class's probability is lost when a part is covered
    Occlusion,
}

impl What {
    /// The options that it takes besides those that all take.
    fn takes(self) -> &'static [&'static str] {
        match self {
            Self::Features => &["--layer", "--channels", "--top", "--raw"],
            Self::Filters | Self::Deconvnet => &["--layer", "--channels", "--top"],
            Self::Gradcam | Self::GuidedGradcam => &["--class", "--layer", "--raw"],
            Self::Saliency => &["--class", "--raw"],
            Self::Occlusion => &["--class", "--window", "--stride", "--raw"],
        }
    }

    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

#[derive(Serialize)]
struct Document<'a> {
    model: &'a str,
    what: String,
    page: Option<PathBuf>,
    images: Vec<Answer>,
    files: Vec<PathBuf>,
}

/// What became of an image.
#[derive(Serialize)]
#[serde(untagged)]
enum Answer {
    Shown {
        image: String,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        top: Vec<Prediction>,
        #[serde(skip_serializing_if = "Option::is_none")]
        explained: Option<Prediction>,
    },
    Wrong {
        image: String,
        error: String,
    },
}

/// Visualizes a network.
pub fn run(args: &Args) -> Result<ExitCode> {
    check(args)?;
    let (model, images) = split_model(args.model.as_deref(), &args.images)?;
    let sources = match (args.what, images.is_empty()) {
        (What::Filters, false) => bail!("filters are the weights': name no images"),
        (What::Filters, true) => Vec::new(),
        _ => expand(images, args.orientation)?,
    };
    let network = args.trained.network(model)?;
    let title = |what: &str| format!("{what} {}", network.name());
    let (answers, sheet) = match args.what {
        What::Features => channels::features(args, &network, &sources, &title("Feature maps of"))?,
        What::Filters => (Vec::new(), channels::filters(args, &network, &title("Filters of"))?),
        What::Deconvnet => channels::deconvnet(args, &network, &sources, &title("What excites the channels of"))?,
        _ => heat::explain(args, &network, &sources, &title("What a class's score depends on in"))?,
    };
    finish(args, &network, answers, sheet)
}

/// Refuses options that mean nothing to what is asked for.
fn check(args: &Args) -> Result<()> {
    let set = [
        ("--layer", args.layer.is_some()),
        ("--class", args.class.is_some()),
        ("--channels", !args.channels.is_empty()),
        ("--top", args.top.is_some()),
        ("--window", args.window.is_some()),
        ("--stride", args.stride.is_some()),
        ("--raw", args.raw),
    ];
    let (takes, name) = (args.what.takes(), args.what.name());
    match set.iter().find(|(option, set)| *set && !takes.contains(option)) {
        Some((option, _)) => bail!("{option} means nothing to {name}, which takes {}", takes.join(", ")),
        None => Ok(()),
    }
}

/// Writes the page, if there is anything on it, and tells what was written.
fn finish(args: &Args, network: &Network, images: Vec<Answer>, sheet: Sheet) -> Result<ExitCode> {
    let (page, files) = sheet.finish(&args.what.name())?;
    let failed = images.iter().any(|answer| matches!(answer, Answer::Wrong { .. }));
    if args.json {
        print_json(&Document { model: network.name(), what: args.what.name(), page, images, files })?;
    } else {
        tell_wrong(images.iter().filter_map(|answer| match answer {
            Answer::Wrong { image, error } => Some((image.as_str(), error.as_str())),
            Answer::Shown { .. } => None,
        }));
        let pictures = if files.len() == 1 { "1 file".to_owned() } else { format!("{} files", files.len()) };
        match page {
            Some(page) => print(&format!("{} and {pictures} beside it", page.display()))?,
            None => return Ok(ExitCode::FAILURE),
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What is told of an image that failed.
fn wrong(source: &Source, error: &anyhow::Error) -> Answer {
    Answer::Wrong { image: source.name(), error: told(error) }
}
