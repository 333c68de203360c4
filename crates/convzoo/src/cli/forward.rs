use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use convzoo::{Inference, Precision, Predict, tensor_file};

use super::claim::{Kind, claim};
use super::output::{print, print_json};
use super::select::{DeviceArgs, PrecisionArgs, WeightsArgs};

/// Arguments of `forward`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    trained: WeightsArgs,
    /// Never download
    #[arg(long)]
    offline: bool,
    /// Safetensors file with the tensor `input`, [N, C, H, W]
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    input: PathBuf,
    /// Safetensors file to write the tensor `logits`, [N, classes], to
    #[arg(short, long = "out", alias = "output", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    output: PathBuf,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    /// Print the shapes as JSON
    #[arg(long)]
    json: bool,
}

pub const EXAMPLES: &str = "Example:
  convzoo forward resnet18 --weights resnet18.pth --input x.safetensors --out y.safetensors";

/// Runs tensors through a network.
pub fn run(args: &Args) -> Result<ExitCode> {
    claim("--out", &args.output, Kind::Logits)?;
    let (_, device) = args.device.open()?;
    let input = tensor_file::read(&args.input, "input", &device)?;
    let network = args.trained.load(args.offline, &device)?;
    let [images, channels, height, width] = input.dims();
    network.check_input([channels, height, width])?;
    let network = match args.precision.ready(network, |_| Ok(vec![input.clone()]))? {
        // Layer by layer, on any device.
        (network, Precision::F32) => Inference::plain(network),
        (network, precision) => Inference::new(network, precision)?,
    };
    let logits = network.predict(input)?;
    let shape = logits.dims();
    tensor_file::write(&args.output, logits)?;
    if args.json {
        let document = serde_json::json!({
            "model": network.network().name(), "input": [images, channels, height, width], "logits": shape,
        });
        print_json(&document)?;
    } else {
        print(&format!("logits {shape:?} in {}", args.output.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
