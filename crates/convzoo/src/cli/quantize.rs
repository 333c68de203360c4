use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use burn::tensor::Tensor;
use convzoo::data::evenly_spaced;
use convzoo::quantize::{Calibration, LayerReport, QuantizeOptions};
use convzoo::{Classifier, Network, prepare, weights};
use serde::Serialize;

use super::claim::{Kind, claim};
use super::images::{OrientationArgs, expand};
use super::output::{count, print, print_json, progress, table, tell, thousands};
use super::select::{DataArgs, DeviceArgs, WeightsArgs, batches, preprocess};

/// Arguments of `quantize`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    trained: WeightsArgs,
    /// Images to find scales on, of those that the network is for: a folder, or a data set's training images (digits, mnist,
    /// fashion-mnist, cifar10, cifar100 or folder)
    #[arg(long, value_name = "DIR|DATASET", value_hint = clap::ValueHint::AnyPath)]
    calibrate: OsString,
    /// How many of them, evenly spaced
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65536))]
    images: u32,
    /// How the range that bytes cover is chosen
    #[arg(long, value_enum, default_value_t = Method::Mse)]
    method: Method,
    /// Bits of a weight, from 2 to 8; the file has a byte for each all the same
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..=8))]
    weight_bits: u32,
    /// First give one range to all channels that reach depthwise convolutions through no more than a ReLU
    #[arg(long)]
    equalize: bool,
    /// Compute this layer in floats all the same; may be given several times
    #[arg(long, value_name = "LAYER")]
    keep: Vec<String>,
    /// Leave outputs as rounding the weights shifts them
    #[arg(long)]
    no_bias_correction: bool,
    /// The file to write, which every command reads as weights
    #[arg(short, long, alias = "output", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    out: PathBuf,
    #[command(flatten)]
    source: DataArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// `--method`.
#[derive(clap::ValueEnum, Clone, Copy)]
enum Method {
    /// From the smallest number to the largest
    MinMax,
    /// All but one number in ten thousand at each end
    Percentile,
    /// Where the mean squared error of the bytes is least
    Mse,
    /// Where the distribution of the bytes differs least from the numbers'
    Entropy,
}

impl Method {
    fn calibration(self) -> Calibration {
        match self {
            Self::MinMax => Calibration::MinMax,
            Self::Percentile => Calibration::Percentile,
            Self::Mse => Calibration::MeanSquaredError,
            Self::Entropy => Calibration::Entropy,
        }
    }
}

pub const EXAMPLES: &str = "Examples:
  convzoo quantize --weights runs/lenet5-digits/best.safetensors --calibrate digits -o lenet5-int8.safetensors
  convzoo quantize squeezenet1_0 --weights squeezenet1_0.safetensors --calibrate photos -o squeezenet1_0-int8.safetensors
  convzoo quantize resnet50 --weights imagenet1k_v2 --calibrate photos --keep conv1 --keep fc -o resnet50-int8.safetensors
  convzoo eval --weights lenet5-int8.safetensors --data digits";

#[derive(Serialize)]
struct Document<'a> {
    model: &'a str,
    file: &'a Path,
    /// Images that scales were found on.
    images: usize,
    /// Layers whose outputs were equalized.
    equalized: &'a [String],
    /// Bytes of the file, and of all numbers in 32 bits.
    bytes: usize,
    uncompressed: usize,
    /// Signal-to-noise ratios in decibels, of the logits and of layers.
    logits: f64,
    layers: &'a [LayerReport],
}

/// Quantizes a network's weights.
pub fn run(args: &Args) -> Result<ExitCode> {
    claim("--out", &args.out, Kind::Quantized)?;
    let (_, device) = args.device.open()?;
    let network = args.trained.load(args.source.offline, &device)?;
    let images = images(args, &network)?;
    let (network, equalized) = match args.equalize {
        true => network.equalize(&images)?,
        false => (network, Vec::new()),
    };
    if args.equalize {
        tell(&match equalized.len() {
            0 => format!(
                "note: {} has no layer before depthwise convolutions alone that could be equalized",
                network.name()
            ),
            layers => format!("equalized the outputs of {}", count(layers, "layer")),
        });
    }
    let options = QuantizeOptions {
        calibration: args.method.calibration(),
        weight_bits: args.weight_bits,
        keep: args.keep.clone(),
        correct_bias: !args.no_bias_correction,
    };
    let quantized = network.quantize(&images, &options)?;
    weights::save_quantized(&quantized, &args.out)?;
    let report = network.quantize_report(&quantized, &images)?;

    let uncompressed: usize = network.state().iter().map(|entry| 4 * entry.shape.iter().product::<usize>()).sum();
    let bytes = std::fs::metadata(&args.out).context("looking at the file that was written")?.len() as usize;
    if args.json {
        let (model, file, logits, layers) = (network.name(), args.out.as_path(), report.logits, &report.layers);
        let (images, equalized) = (images.len(), equalized.as_slice());
        print_json(&Document { model, file, images, equalized, bytes, uncompressed, logits, layers })?;
        return Ok(ExitCode::SUCCESS);
    }
    let decibels = |ratio: f64| format!("{ratio:.1}");
    let row = |layer: &LayerReport| {
        let alone = layer.alone.map_or("kept in f32".to_owned(), decibels);
        vec![layer.name.clone(), thousands(layer.weights), decibels(layer.output), alone]
    };
    let header = ["layer", "weights", "output, dB", "logits if alone, dB"];
    print(&table(&header, &[1, 2, 3], report.layers.iter().map(row).collect()))?;
    let times = uncompressed as f64 / bytes.max(1) as f64;
    print(&format!(
        "\n{} in {}: {} bytes, {times:.2} times smaller than {} as 32-bit numbers; logits {:.1} dB above their noise",
        network.name(),
        args.out.display(),
        thousands(bytes),
        thousands(uncompressed),
        report.logits,
    ))?;
    if let Some(worst) = worst(&report.layers) {
        print(&format!("most is lost in {worst}; --keep LAYER leaves one in f32"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The layers that hurt most.
fn worst(layers: &[LayerReport]) -> Option<String> {
    const NAMED: usize = 3;
    let mut hurting: Vec<(&str, f64)> =
        layers.iter().filter_map(|layer| Some((layer.name.as_str(), layer.alone?))).collect();
    hurting.sort_by(|a, b| a.1.total_cmp(&b.1));
    let names: Vec<&str> = hurting.into_iter().take(NAMED).map(|(name, _)| name).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// The images to calibrate on, as the network wants them.
fn images(args: &Args, network: &Network) -> Result<Vec<Tensor<4>>> {
    let most = args.images as usize;
    let path = Path::new(&args.calibrate);
    let mut inputs = Vec::new();
    if let Some(name) = args.calibrate.to_str().filter(|name| convzoo::data::names().contains(name) && !path.is_dir()) {
        let data = args.source.open(name)?.train;
        let preprocess = preprocess(network, &network.preprocessing(), &*data)?;
        let bar = progress(data.len().min(most), "images");
        for place in evenly_spaced(data.len(), most) {
            inputs.push(preprocess.apply(&data.get(place)?.image));
            bar.inc(1);
        }
        bar.finish_and_clear();
    } else {
        let sources = expand(std::slice::from_ref(&args.calibrate), OrientationArgs::default())?;
        let bar = progress(sources.len().min(most), "images");
        for place in evenly_spaced(sources.len(), most) {
            inputs.push(prepare(network, &sources[place].read()?));
            bar.inc(1);
        }
        bar.finish_and_clear();
    }
    if inputs.len() < most.min(32) {
        tell(&format!("note: {} are few to find scales on; a few hundred are better", count(inputs.len(), "image")));
    }
    Ok(batches(network, inputs))
}
