use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use convzoo::draw::{describe, drawing, histograms};
use convzoo::report::{write_dot, write_json, write_svg};
use convzoo::{Network, create, variant};
use serde::Serialize;

use super::claim::{Kind, claim};
use super::names::MODELS;
use super::output::{print, print_json};
use super::select::{NetworkArgs, host, load, model_of};
use super::summary::InputSize;

/// Arguments of `draw`.
#[derive(clap::Args)]
pub struct Args {
    /// The network [default: what the weights say]
    #[arg(value_parser = MODELS, hide_possible_values = true, required_unless_present = "weights")]
    model: Option<String>,
    /// The file: .html for a page whose blocks and layers show more on a click, .svg for a picture, .dot for Graphviz,
    /// .json for programs: the graph, how images are prepared, and pictures [default: the network's name with .html]
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    out: Option<PathBuf>,
    /// Draw only this block, opened: layer1.0, say (.svg)
    #[arg(long, value_name = "NAME")]
    block: Option<String>,
    /// Show histograms of these weights in the page: a file, or the name of published ones such as imagenet1k_v1
    #[arg(long, value_name = "FILE|NAME", value_hint = clap::ValueHint::FilePath)]
    weights: Option<OsString>,
    /// Never download
    #[arg(long)]
    offline: bool,
    /// Size of the images, channels first [default: the network's own]
    #[arg(long, value_name = "CxHxW")]
    input: Option<InputSize>,
    /// Number of classes [default: the network's own, or the weights']
    #[arg(long, value_name = "N", conflicts_with = "weights")]
    classes: Option<usize>,
    #[command(flatten)]
    network: NetworkArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub const EXAMPLES: &str = "Examples:
  convzoo draw resnet18
  convzoo draw googlenet --block inception3a -o inception.svg
  convzoo draw --weights runs/lenet5-digits/best.safetensors -o lenet.html
  convzoo draw densenet121 -o densenet.dot && dot -Tpdf densenet.dot -O";

#[derive(Serialize)]
struct Document<'a> {
    model: &'a str,
    input: [usize; 3],
    out: &'a Path,
}

/// Draws a network.
pub fn run(args: &Args) -> Result<ExitCode> {
    let model = match (&args.weights, args.model.as_deref()) {
        (Some(weights), model) => model_of(model, weights)?,
        (None, model) => variant(model.unwrap_or_default())?.name,
    };
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("{model}.html")));
    let extension = out.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    if let Some(folder) = out.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
        bail!("there is no folder {} for --out", folder.display());
    }
    claim("--out", &out, Kind::Drawing)?;
    if args.weights.is_some() && extension != "html" {
        bail!("histograms of --weights are shown by pages: --out must end in .html");
    }
    if args.block.is_some() && extension != "svg" {
        bail!("--block is drawn as a picture: --out must end in .svg");
    }
    let network = args.network(model)?;
    let input = args.input.map_or(network.input(), |InputSize(input)| input);
    let mut drawing = drawing(&network, input)?;
    if args.weights.is_some() {
        drawing = drawing.with_histograms(histograms(&network)?);
    }
    match (extension, &args.block) {
        ("dot", _) => write_dot(&drawing.dot(), &out)?,
        ("json", _) => write_json(&serde_json::to_string(&describe(&network, input)?)?, &out)?,
        ("svg", Some(block)) => write_svg(&drawing.block_svg(block)?, &out)?,
        ("svg", None) => write_svg(&drawing.svg(), &out)?,
        _ => drawing.page().write(&out)?,
    }
    match args.json {
        true => print_json(&Document { model, input, out: &out })?,
        false => print(&format!("{model} is drawn in {}", out.display()))?,
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn network(&self, model: &str) -> Result<Network> {
        let (mut options, device) = (self.network.options(), host()?);
        match &self.weights {
            Some(weights) => load(model, weights, self.offline, &options, &device),
            None => {
                options.classes = self.classes;
                options.channels = self.input.map(|InputSize([channels, ..])| channels);
                Ok(create(model, &options, &device)?)
            }
        }
    }
}
