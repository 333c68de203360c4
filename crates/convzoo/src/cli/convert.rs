use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use convzoo::weights::{self, Precision};
use convzoo::{Classifier, check_classes, create};

use super::claim::{Kind, claim};
use super::output::print;
use super::select::{NetworkArgs, host, load, make_threads, model_of};
use super::summary::InputSize;

/// Arguments of `convert`.
#[derive(clap::Args)]
pub struct Args {
    /// The network whose weights they are [default: what the weights say]; IN, weights of any format: PyTorch's
    /// .pth/.pt/.th, safetensors, Burn's pack, ONNX or a compressed file, the name of published ones, or `random` for
    /// those a training starts from; OUT, the file to write: NAME.safetensors in the reference's names, NAME.bpk for
    /// Burn, NAME.onnx, the network with its weights, in bytes where these are quantized, or NAME.czc, compressed without loss
    #[arg(required = true, num_args = 2..=3, value_names = ["[MODEL] IN", "OUT"],
        value_hint = clap::ValueHint::FilePath)]
    files: Vec<OsString>,
    #[arg(long, hide = true)]
    model: Option<String>,
    /// Never download
    #[arg(long)]
    offline: bool,
    /// Write half precision
    #[arg(long)]
    f16: bool,
    /// Replace the head with a new one for N classes
    #[arg(long, value_name = "N")]
    replace_head: Option<usize>,
    /// ONNX: keep batch norms apart [default: those after convolutions become part of them]
    #[arg(long)]
    keep_norms: bool,
    /// ONNX: size of the images, channels first [default: the network's own]
    #[arg(long, value_name = "CxHxW")]
    input: Option<InputSize>,
    #[command(flatten)]
    network: NetworkArgs,
}

pub const EXAMPLES: &str = "Examples:
  convzoo convert resnet50 resnet50-11ad3fa6.pth resnet50.safetensors
  convzoo convert resnet50 imagenet1k_v2 resnet50.safetensors --f16
  convzoo convert best.safetensors best.bpk
  convzoo convert resnet50 imagenet1k_v2 resnet50.onnx
  convzoo convert lenet5-int8.safetensors lenet5-int8.onnx
  convzoo convert lenet5.czc lenet5.safetensors";

/// Reads weights in one format and writes them in another.
pub fn run(args: &Args) -> Result<ExitCode> {
    let (model, input, output) = match args.files.as_slice() {
        [model, input, output] if args.model.is_none() => (model.to_str(), input, Path::new(output)),
        [input, output] => (args.model.as_deref(), input, Path::new(output)),
        _ => bail!("expected [MODEL] IN OUT"),
    };
    let extension = output.extension().and_then(|extension| extension.to_str());
    let Some(format @ ("safetensors" | "bpk" | "onnx" | "czc")) = extension else {
        bail!("{} must end in .safetensors, .bpk, .onnx or .czc", output.display());
    };
    match format {
        "onnx" if args.f16 => bail!("--f16 is for .safetensors and .bpk; ONNX files keep 32 bits"),
        "czc" if args.f16 => {
            bail!("--f16 is for .safetensors and .bpk; a .czc is compressed by `convzoo compress --bits N`");
        }
        "safetensors" | "bpk" | "czc" if args.keep_norms || args.input.is_some() => {
            bail!("--keep-norms and --input are for .onnx; other files hold no operations");
        }
        _ => {}
    }
    let model = model_of(model, input)?;
    if let Some(classes) = args.replace_head {
        check_classes(model, classes)?;
    }
    claim("OUT", output, Kind::Weights)?;
    make_threads()?;
    let (options, device) = (args.network.options(), host()?);
    let mut network = match input.to_str() {
        Some("random") if !Path::new(input).exists() => {
            device.seed(0);
            create(model, &options, &device)?
        }
        _ => load(model, input, args.offline, &options, &device)?,
    };
    if let Some(classes) = args.replace_head {
        network = network.replace_head(classes);
    }
    let precision = if args.f16 { Precision::Half } else { Precision::Full };
    match format {
        "bpk" => weights::save_pack(&network, output, precision)?,
        "czc" => weights::save_compressed(&network, output)?,
        "onnx" => {
            let InputSize(input) = args.input.unwrap_or(InputSize(network.input()));
            network.check_input(input)?;
            let export = network.to_onnx().for_images(input);
            let export = if args.keep_norms { export.keep_norms() } else { export };
            export.save(output)?;
        }
        _ => weights::save_as(&network, output, precision)?,
    }
    print(&format!("{} for {} classes in {}", network.name(), network.classes(), output.display()))?;
    Ok(ExitCode::SUCCESS)
}
