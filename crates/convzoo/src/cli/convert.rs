use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use burn::tensor::Device;
use convzoo::weights::{self, Precision};
use convzoo::{Classifier, check_classes, variant};

use super::claim::{Kind, claim};
use super::output::print;
use super::select::{NetworkArgs, load};

/// Arguments of `convert`.
#[derive(clap::Args)]
pub struct Args {
    /// The network whose weights they are
    model: String,
    /// Weights of any format: PyTorch's .pth/.pt/.th, safetensors or Burn's pack, or the name of published ones
    #[arg(value_name = "IN")]
    input: OsString,
    /// File to write: NAME.safetensors in the reference's names, or NAME.bpk for Burn
    #[arg(value_name = "OUT")]
    output: PathBuf,
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

/// Reads weights in one format and writes them in another.
pub fn run(args: &Args) -> Result<ExitCode> {
    let extension = args.output.extension().and_then(|extension| extension.to_str());
    let Some(format @ ("safetensors" | "bpk")) = extension else {
        bail!("{} must end in .safetensors or .bpk", args.output.display());
    };
    if let Some(classes) = args.replace_head {
        check_classes(variant(&args.model)?.name, classes)?;
    }
    claim("OUT", &args.output, Kind::Weights)?;
    let mut network = load(&args.model, &args.input, args.offline, &args.network.options(), &Device::default())?;
    if let Some(classes) = args.replace_head {
        network = network.replace_head(classes);
    }
    let precision = if args.f16 { Precision::Half } else { Precision::Full };
    match format {
        "bpk" => weights::save_pack(&network, &args.output, precision)?,
        _ => weights::save_as(&network, &args.output, precision)?,
    }
    print(&format!("{} for {} classes in {}", network.name(), network.classes(), args.output.display()))?;
    Ok(ExitCode::SUCCESS)
}
