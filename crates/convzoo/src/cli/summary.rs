use std::process::ExitCode;
use std::str::FromStr;

use anyhow::Result;
use convzoo::{MOST_CHANNELS, Summary, create, variant};
use serde::Serialize;

use super::names::MODELS;
use super::output::{bytes, fitted, print, print_json, short, thousands};
use super::select::{NetworkArgs, host};

/// Arguments of `summary`.
#[derive(clap::Args)]
pub struct Args {
    /// The network
    #[arg(value_parser = MODELS, hide_possible_values = true, required_unless_present = "named")]
    model: Option<String>,
    #[arg(long = "model", hide = true, conflicts_with = "model")]
    named: Option<String>,
    /// Size of the images, channels first [default: the network's own]
    #[arg(long, value_name = "CxHxW")]
    input: Option<InputSize>,
    /// Number of classes [default: the network's own]
    #[arg(long, value_name = "N")]
    classes: Option<usize>,
    /// Images per batch, for the estimates of memory
    #[arg(long, alias = "batch-size", value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: u32,
    #[command(flatten)]
    network: NetworkArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub const EXAMPLES: &str = "Examples:
  convzoo summary lenet5
  convzoo summary resnet18 --input 1x64x64 --classes 10 --batch 32";

/// The longest side of images that networks are made for here: sixteen times the longest that any is published for.
const MOST_SIDE: usize = 1 << 14;

/// The most values of an image: three channels of the longest sides.
const MOST_VALUES: usize = 3 << 28;

/// `3x224x224`.
#[derive(Clone, Copy)]
pub struct InputSize(pub [usize; 3]);

impl FromStr for InputSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let sizes: Vec<usize> = text.split('x').map_while(|size| size.parse().ok()).collect();
        let most = format!("{MOST_CHANNELS} channels, sides of at most {MOST_SIDE}, {MOST_VALUES} values in all");
        match sizes[..] {
            // No network has so many channels of images a few pixels wide.
            [height, width, channels @ (1 | 3 | 4)] if height >= 16 && width >= 16 => Err(format!(
                "channels come first, so this is {height} channels of {width}×{channels} pixels; \
                 {channels}x{height}x{width} was meant?"
            )),
            [channels, height, width] if text.split('x').count() == 3 => {
                let sides_fit = height.max(width) <= MOST_SIDE && channels <= MOST_CHANNELS;
                // Of numbers so small, none of the products overflows.
                let fits = sides_fit && channels * height * width <= MOST_VALUES;
                fits.then_some(Self([channels, height, width])).ok_or_else(|| format!("at most {most}"))
            }
            _ => Err(format!("expected CHANNELSxHEIGHTxWIDTH such as 3x224x224, at most {most}")),
        }
    }
}

#[derive(Serialize)]
struct Document<'a> {
    model: &'a str,
    batch: usize,
    inference_bytes: usize,
    training_bytes: usize,
    #[serde(flatten)]
    summary: Summary,
}

/// Shows a network layer by layer.
pub fn run(args: &Args) -> Result<ExitCode> {
    let known = variant(args.model.as_deref().or(args.named.as_deref()).unwrap_or_default())?;
    let InputSize(input) = args.input.unwrap_or(InputSize(known.input));
    let mut options = args.network.options();
    options.classes = args.classes;
    options.channels = Some(input[0]);
    let network = create(known.name, &options, &host()?)?;
    let summary = network.summary(input)?;
    let batch = args.batch as usize;
    let (inference_bytes, training_bytes) = (summary.inference_bytes(batch), summary.training_bytes(batch));
    if args.json {
        print_json(&Document { model: known.name, batch, inference_bytes, training_bytes, summary })?;
        return Ok(ExitCode::SUCCESS);
    }

    let rows = summary.layers.iter().map(|layer| {
        let sides: Vec<String> = layer.output.iter().map(usize::to_string).collect();
        let [size, _] = layer.receptive_field;
        let field = size.map_or("all".to_owned(), |size| size.to_string());
        vec![
            layer.name.clone(),
            layer.kind.to_owned(),
            sides.join("x"),
            thousands(layer.params),
            thousands(layer.macs),
            field,
            size.map_or(String::new(), |_| layer.receptive_stride[0].to_string()),
            size.map_or(String::new(), |_| layer.receptive_center[0].to_string()),
            bytes(layer.activation_bytes),
        ]
    });
    let header = ["layer", "kind", "output", "parameters", "multiply-adds", "field", "stride", "centre", "memory"];
    let [channels, height, width] = input;
    let text = format!(
        "{} for images of {channels}x{height}x{width}\n\n{}\nparameters     {:>14}\nmultiply-adds  {:>14}  ({} per image)\n\
         inference      {:>14}  (batch {batch}, at least)\ntraining       {:>14}  (batch {batch}, with momentum, at least)",
        known.name,
        fitted(&header, &[3, 4, 5, 6, 7, 8], &[7, 6, 8, 1], rows.collect()),
        thousands(summary.params),
        thousands(summary.macs),
        short(summary.macs),
        bytes(inference_bytes),
        bytes(training_bytes),
    );
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}
