use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use burn::tensor::Device;
use convzoo::weights::{self, Checkpoint, Precision};
use convzoo::{Classifier, create_from};

use super::output::print;
use super::select::NetworkArgs;

/// Arguments of `convert`.
#[derive(clap::Args)]
pub struct Args {
    /// The network whose weights they are
    model: String,
    /// Weights of any format: PyTorch's .pth/.pt/.th, safetensors or Burn's pack
    input: PathBuf,
    /// File to write: NAME.safetensors in the reference's names, or NAME.bpk for Burn
    output: PathBuf,
    /// Write half precision
    #[arg(long)]
    f16: bool,
    /// Exchange the head for a fresh one of N classes
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
    if args.replace_head == Some(0) {
        bail!("{} needs at least one class", args.model);
    }
    let device = Device::default();
    let checkpoint = Checkpoint::open(&args.input)?;
    let mut network = create_from(&args.model, checkpoint, &args.network.options(), &device)
        .with_context(|| format!("loading {} into {}", args.input.display(), args.model))?;
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
