use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use burn::tensor::Device;
use convzoo::weights::{self, Precision};
use convzoo::{Classifier, check_classes};

use super::claim::{Kind, claim};
use super::output::print;
use super::select::{NetworkArgs, load, make_threads, model_of};

/// Arguments of `convert`.
#[derive(clap::Args)]
pub struct Args {
    /// The network whose weights they are [default: what the weights say]; IN, weights of any format: PyTorch's
    /// .pth/.pt/.th, safetensors, Burn's pack or a compressed file, or the name of published ones; OUT, the file to
    /// write: NAME.safetensors in the reference's names, NAME.bpk for Burn, or NAME.czc, compressed without loss
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
    #[command(flatten)]
    network: NetworkArgs,
}

pub const EXAMPLES: &str = "Examples:
  convzoo convert resnet50 resnet50-11ad3fa6.pth resnet50.safetensors
  convzoo convert resnet50 imagenet1k_v2 resnet50.safetensors --f16
  convzoo convert best.safetensors best.bpk
  convzoo convert lenet5.czc lenet5.safetensors";

/// Reads weights in one format and writes them in another.
pub fn run(args: &Args) -> Result<ExitCode> {
    let (model, input, output) = match args.files.as_slice() {
        [model, input, output] if args.model.is_none() => (model.to_str(), input, Path::new(output)),
        [input, output] => (args.model.as_deref(), input, Path::new(output)),
        _ => bail!("expected [MODEL] IN OUT"),
    };
    let extension = output.extension().and_then(|extension| extension.to_str());
    let Some(format @ ("safetensors" | "bpk" | "czc")) = extension else {
        bail!("{} must end in .safetensors, .bpk or .czc", output.display());
    };
    if format == "czc" && args.f16 {
        bail!("--f16 is for .safetensors and .bpk; a .czc is compressed by `convzoo compress --bits N`");
    }
    let model = model_of(model, input)?;
    if let Some(classes) = args.replace_head {
        check_classes(model, classes)?;
    }
    claim("OUT", output, Kind::Weights)?;
    make_threads()?;
    let mut network = load(model, input, args.offline, &args.network.options(), &Device::default())?;
    if let Some(classes) = args.replace_head {
        network = network.replace_head(classes);
    }
    let precision = if args.f16 { Precision::Half } else { Precision::Full };
    match format {
        "bpk" => weights::save_pack(&network, output, precision)?,
        "czc" => weights::save_compressed(&network, output)?,
        _ => weights::save_as(&network, output, precision)?,
    }
    print(&format!("{} for {} classes in {}", network.name(), network.classes(), output.display()))?;
    Ok(ExitCode::SUCCESS)
}
