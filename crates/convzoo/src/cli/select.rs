//! What commands have in common: choosing a device, a network and data.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use burn::tensor::Device;
use convzoo::blocks::Activation;
use convzoo::data::{Source, Splits};
use convzoo::device::{self, DeviceName};
use convzoo::{
    Inference, LinearPrecision, Network, Options, Preprocessing, create, data, imagenet, pretrained, variant,
};
use convzoo_kernels::Isa;
use convzoo_kernels::extension::{self, Kernels};
use serde::{Deserialize, Serialize};

use super::images::OrientationArg;
use super::output::tell;

/// `--device`.
#[derive(clap::Args, Clone)]
pub struct DeviceArgs {
    /// Where to compute: flex, ndarray, tch, wgpu[:N], cuda[:N] or ws://HOST:PORT[#N] [default: the best one present]
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceName>,
    #[command(flatten)]
    pub kernels: KernelsArgs,
}

/// `--kernels`.
#[derive(clap::Args, Clone, Copy)]
pub struct KernelsArgs {
    /// Whether flex computes with convzoo's kernels or its own [default: what the environment's CONVZOO_KERNELS says, else
    /// on]
    #[arg(long, value_enum)]
    kernels: Option<Switch>,
}

impl KernelsArgs {
    /// Has flex compute as was asked for.
    pub fn apply(&self) -> Result<()> {
        extension::choose(match self.kernels {
            Some(Switch::On) => Kernels::Convzoo,
            Some(Switch::Off) => Kernels::Burn,
            None => Kernels::from_environment()?,
        })?;
        Isa::detect()?;
        Ok(())
    }
}

/// On or off.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq)]
pub enum Switch {
    /// On
    On,
    /// Off
    Off,
}

/// `--linear`.
#[derive(clap::Args, Clone, Copy)]
pub struct LinearArgs {
    /// Type in which fully-connected layers keep their weights; f16 is half the memory to read, on flex with its kernels
    #[arg(long, value_enum, default_value_t = Linear::F32)]
    linear: Linear,
}

/// The type of fully-connected layers' weights.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Linear {
    /// 32 bits
    #[default]
    F32,
    /// 16 bits, each weight exact to one part in 2048
    F16,
}

impl Linear {
    /// The network in its fastest form, with such layers.
    pub fn for_inference(self, network: Network) -> Result<Inference> {
        let precision = match self {
            Self::F32 => LinearPrecision::Single,
            Self::F16 => LinearPrecision::Half,
        };
        let inference = Inference::new(network, precision)?;
        if self == Self::F16 && inference.fused().is_none() {
            bail!("--linear f16 needs --device flex with its kernels on");
        }
        Ok(inference)
    }
}

impl LinearArgs {
    /// The network in its fastest form, as was asked for.
    pub fn for_inference(self, network: Network) -> Result<Inference> {
        self.linear.for_inference(network)
    }
}

impl DeviceArgs {
    /// Opens the device that was asked for, else the best one, with the kernels that were asked for.
    pub fn open(&self) -> Result<(DeviceName, Device)> {
        self.kernels.apply()?;
        let name = match &self.device {
            Some(name) => name.clone(),
            None => best()?,
        };
        let device = name.open()?;
        Ok((name, device))
    }
}

fn best() -> Result<DeviceName> {
    device::best().ok_or_else(|| anyhow!("this build has no device that is present"))
}

/// `--device`, for one or several.
#[derive(clap::Args, Clone)]
pub struct DevicesArgs {
    /// Where to compute: flex, ndarray, tch, wgpu[:N], cuda[:N] or ws://HOST:PORT[#N], or several with commas between
    /// [default: the best one present]
    #[arg(long, value_name = "DEVICE,…", value_delimiter = ',')]
    pub device: Vec<DeviceName>,
    #[command(flatten)]
    pub kernels: KernelsArgs,
}

impl DevicesArgs {
    /// The devices that were asked for, else the best one.
    pub fn names(&self) -> Result<Vec<DeviceName>> {
        match self.device.as_slice() {
            [] => Ok(vec![best()?]),
            names => Ok(names.to_vec()),
        }
    }
}

/// How a network shall differ from its variant.
#[derive(clap::Args, Clone, Default, Serialize, Deserialize)]
pub struct NetworkArgs {
    /// Activation of LeNet's layers
    #[arg(long, value_enum)]
    pub activation: Option<ActivationArg>,
    /// Whether to use batch normalization, where reference and paper differ
    #[arg(long, value_name = "true|false")]
    pub batch_norm: Option<bool>,
    /// Probability of dropping a feature before the classifier
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub dropout: Option<f64>,
    /// Probability of dropping a residual or fractal path
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub drop_path: Option<f64>,
    /// Whether to recompute rather than keep what dense blocks concatenate
    #[arg(long, value_name = "true|false")]
    pub memory_efficient: Option<bool>,
}

/// The activations LeNet can be made with.
#[derive(clap::ValueEnum, Clone, Copy, Serialize, Deserialize)]
pub enum ActivationArg {
    /// The hyperbolic tangent
    Tanh,
    /// The logistic function
    Sigmoid,
    /// max(0, x)
    Relu,
    /// min(max(0, x), 6)
    Relu6,
    /// ReLU6(x + 3) / 6
    Hardsigmoid,
    /// x times its logistic function
    Silu,
    /// x times its hard sigmoid
    Hardswish,
    /// x times the normal distribution function
    Gelu,
}

impl NetworkArgs {
    /// With what `others` say where these say nothing.
    pub fn or(self, others: &Options) -> Self {
        let activation = others.activation.and_then(|activation| match activation {
            Activation::Tanh => Some(ActivationArg::Tanh),
            Activation::Sigmoid => Some(ActivationArg::Sigmoid),
            Activation::Relu => Some(ActivationArg::Relu),
            Activation::Relu6 => Some(ActivationArg::Relu6),
            Activation::Hardsigmoid => Some(ActivationArg::Hardsigmoid),
            Activation::Silu => Some(ActivationArg::Silu),
            Activation::Hardswish => Some(ActivationArg::Hardswish),
            Activation::Gelu => Some(ActivationArg::Gelu),
            // No network can be asked for one without.
            Activation::Identity => None,
        });
        Self {
            activation: self.activation.or(activation),
            batch_norm: self.batch_norm.or(others.batch_norm),
            dropout: self.dropout.or(others.dropout),
            drop_path: self.drop_path.or(others.drop_path),
            memory_efficient: self.memory_efficient.or(others.memory_efficient),
        }
    }

    /// As the library takes them.
    pub fn options(&self) -> Options {
        let activation = self.activation.map(|activation| match activation {
            ActivationArg::Tanh => Activation::Tanh,
            ActivationArg::Sigmoid => Activation::Sigmoid,
            ActivationArg::Relu => Activation::Relu,
            ActivationArg::Relu6 => Activation::Relu6,
            ActivationArg::Hardsigmoid => Activation::Hardsigmoid,
            ActivationArg::Silu => Activation::Silu,
            ActivationArg::Hardswish => Activation::Hardswish,
            ActivationArg::Gelu => Activation::Gelu,
        });
        Options {
            activation,
            batch_norm: self.batch_norm,
            dropout: self.dropout,
            drop_path: self.drop_path,
            memory_efficient: self.memory_efficient,
            ..Options::default()
        }
    }
}

/// A network with its weights, on its device.
#[derive(clap::Args, Clone)]
pub struct TrainedArgs {
    /// Its weights: a file (PyTorch's .pth/.pt/.th, safetensors or Burn's pack, told apart by content), the name of
    /// published ones such as imagenet1k_v1, which are downloaded into the cache, or `random` for those a training
    /// starts from [default for lenet5: the digits' weights that come with the program]
    #[arg(long, value_name = "FILE|NAME|random")]
    weights: Option<OsString>,
    /// Never download
    #[arg(long)]
    offline: bool,
    /// Names of the classes, where the weights' file has none: a file with a line each, or `imagenet` for those of
    /// ImageNet
    #[arg(long, value_name = "FILE|imagenet")]
    labels: Option<PathBuf>,
    #[command(flatten)]
    options: NetworkArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

impl TrainedArgs {
    /// Makes the network.
    pub fn network(&self, model: &str) -> Result<Network> {
        let (_, device) = self.device.open()?;
        let options = self.options.options();
        let network = match self.weights.as_deref() {
            Some(weights) if weights == "random" && !Path::new("random").exists() => {
                device.seed(0);
                create(model, &options, &device)?
            }
            Some(weights) => load(model, weights, self.offline, &options, &device)?,
            None if model == "lenet5" => {
                if options != Options::default() {
                    bail!("options of the network need --weights: the digits' weights were trained without them");
                }
                pretrained::lenet5_digits(&device)?
            }
            None => {
                variant(model)?;
                bail!("{model} needs --weights FILE; only lenet5 comes with weights of its own")
            }
        };
        match &self.labels {
            Some(name) if name == Path::new("imagenet") && !name.exists() => {
                Ok(network.with_labels(imagenet::class_names())?)
            }
            Some(file) => with_labels(network, file),
            None => Ok(network),
        }
    }
}

/// Where data comes from.
#[derive(clap::Args, Clone, Default, Serialize, Deserialize)]
pub struct DataArgs {
    /// Folder that holds the data; without it the data is downloaded into the cache
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Never download
    #[arg(long)]
    pub offline: bool,
    /// Seed of the held-out fifth, for data that comes in one part
    #[arg(long, value_name = "N")]
    pub split_seed: Option<u64>,
    /// Read all images first, and leave out those that are damaged, forbidden or links to nowhere
    #[arg(long)]
    #[serde(default)]
    pub skip_corrupt: bool,
    /// Whether to turn photographs upright, as their camera's EXIF note says, or to take their pixels as they are stored,
    /// as torchvision does
    #[arg(long, value_enum, default_value_t = OrientationArg::Apply)]
    #[serde(default)]
    pub orientation: OrientationArg,
}

impl DataArgs {
    /// Opens the data set called `name`.
    pub fn open(&self, name: &str) -> Result<Splits> {
        let source = Source {
            data_dir: self.data_dir.clone(),
            offline: self.offline,
            split_seed: self.split_seed,
            progress: true,
            orientation: self.orientation.library(),
            keep_unreadable: self.skip_corrupt,
            ..Source::default()
        };
        let opening = || format!("opening the data set '{name}'");
        let splits = data::open(name, &source).with_context(opening)?;
        if !self.skip_corrupt {
            return Ok(splits);
        }
        let images = splits.train.len() + splits.test.len();
        let (splits, damaged) = splits.readable().with_context(opening)?;
        for problem in &damaged {
            tell(&format!("left out: {problem}"));
        }
        if !damaged.is_empty() {
            tell(&format!("left out {} of {images} images", damaged.len()));
        }
        Ok(splits)
    }
}

/// How the images of `data` become `network`'s input.
pub fn preprocess(
    network: &Network,
    preprocessing: &Preprocessing,
    data: &dyn data::Dataset,
) -> Result<data::Preprocess> {
    let sample = data.get(0).context("reading the first image; --skip-corrupt leaves out what is damaged")?;
    Ok(convzoo::preprocess(preprocessing, network.input(), &sample.image))
}

/// Makes `model` with the weights in a file or, where there is no such file, those published under this name.
pub fn load(
    model: &str,
    weights: impl AsRef<OsStr>,
    offline: bool,
    options: &Options,
    device: &Device,
) -> Result<Network> {
    let source = Source { offline, progress: true, ..Source::default() };
    Ok(pretrained::load(model, weights, options, &source, device)?)
}

/// The network with the names of its classes, a line each in a file.
fn with_labels(network: Network, path: &Path) -> Result<Network> {
    let labels = lines(path)?;
    if labels.len() != network.classes() {
        bail!("{} names {} classes and the weights have {}", path.display(), labels.len(), network.classes());
    }
    Ok(network.with_labels(labels)?)
}

/// The lines of a file of names.
fn lines(path: &Path) -> Result<Vec<String>> {
    /// A hundred bytes for each of a million names.
    const MOST_BYTES: u64 = 100 << 20;
    let text = String::from_utf8(data::read_file(path, MOST_BYTES)?)
        .with_context(|| format!("reading {}: names are UTF-8 text", path.display()))?;
    Ok(text.lines().map(str::to_owned).collect())
}
