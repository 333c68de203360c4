use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use convzoo::{Classifier, tensor_file};

use super::claim::{Kind, claim};
use super::output::{print, print_json};
use super::select::{DeviceArgs, NetworkArgs, load};

/// Arguments of `forward`.
#[derive(clap::Args)]
pub struct Args {
    /// The network
    model: String,
    /// Its weights: a file (PyTorch's .pth/.pt/.th, safetensors or Burn's pack, told apart by content), or the name of
    /// published ones such as imagenet1k_v1, which are downloaded into the cache
    #[arg(long, value_name = "FILE|NAME")]
    weights: OsString,
    /// Never download
    #[arg(long)]
    offline: bool,
    /// Safetensors file with the tensor `input`, [N, C, H, W]
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Safetensors file to write the tensor `logits`, [N, classes], to
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print the shapes as JSON
    #[arg(long)]
    json: bool,
}

/// Runs tensors through a network.
pub fn run(args: &Args) -> Result<ExitCode> {
    claim("--output", &args.output, Kind::Logits)?;
    let (_, device) = args.device.open()?;
    let input = tensor_file::read(&args.input, "input", &device)?;
    let network = load(&args.model, &args.weights, args.offline, &args.network.options(), &device)?;
    let [images, channels, height, width] = input.dims();
    network.check_input([channels, height, width])?;
    let logits = network.forward(input);
    let shape = logits.dims();
    tensor_file::write(&args.output, logits)?;
    if args.json {
        let document = serde_json::json!({
            "model": network.name(), "input": [images, channels, height, width], "logits": shape,
        });
        print_json(&document)?;
    } else {
        print(&format!("logits {shape:?} in {}", args.output.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
