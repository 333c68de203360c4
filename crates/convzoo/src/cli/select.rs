//! What commands have in common: choosing a device, a network and data.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Once;

use anyhow::{Context, Result, anyhow, bail};
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use convzoo::blocks::Activation;
use convzoo::data::{Part, Selection, Source, Splits, readable};
use convzoo::device::{self, DeviceName};
use convzoo::quantize::QuantizeOptions;
use convzoo::{
    Classifier, Inference, InferenceError, Network, Options, Precision, Preprocessing, create, data, imagenet, prepare,
    pretrained, published, variant, variants,
};
use convzoo_kernels::Isa;
use convzoo_kernels::extension::{self, Kernels};
use serde::{Deserialize, Serialize};

use super::images::{OrientationArg, Source as ImageSource};
use super::names::MODELS;
use super::output::{count, tell};

/// `--device`.
#[derive(clap::Args, Clone)]
pub struct DeviceArgs {
    /// Where to compute: flex, ndarray, tch, wgpu[:N], cuda[:N] or ws://HOST:PORT[#N] [default: the best one present]
    #[arg(long, alias = "devices", value_name = "DEVICE")]
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
    /// Whether they were asked for or against.
    pub fn asked(&self) -> Option<bool> {
        self.kernels.map(|switch| switch == Switch::On)
    }

    /// Has flex compute as was asked for, and makes the threads to do it.
    pub fn apply(&self) -> Result<()> {
        make_threads()?;
        extension::choose(match self.kernels {
            Some(Switch::On) => Kernels::Convzoo,
            Some(Switch::Off) => Kernels::Burn,
            None => Kernels::from_environment()?,
        })?;
        Isa::detect()?;
        Ok(())
    }
}

/// Makes the threads that the CPU computes with, where that can still be an error.
pub fn make_threads() -> Result<()> {
    use std::error::Error;
    match rayon::ThreadPoolBuilder::new().build_global() {
        // Without a source they are there already.
        Err(error) if error.source().is_some() => Err(error).context(
            "no threads can be made to compute with; fewer (RAYON_NUM_THREADS=1), or a higher limit (ulimit -u), help",
        ),
        _ => Ok(()),
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

/// `--precision`.
#[derive(clap::Args, Clone, Copy)]
pub struct PrecisionArgs {
    /// Numbers in which weights and activations are kept; others than f32 are flex's with its kernels [default: int8 of
    /// quantized weights, else f32]
    #[arg(long, value_enum)]
    precision: Option<PrecisionArg>,
}

/// The precisions of inference.
#[derive(clap::ValueEnum, Clone, Copy)]
enum PrecisionArg {
    /// 32 bits
    F32,
    /// 32 bits, weights of fully-connected layers in IEEE's 16
    LinearF16,
    /// bfloat16: 16 bits with the exponent of 32
    Bf16,
    /// Bytes; weights that are not quantized are, by scales found on the first images at hand
    Int8,
}

/// Images that `--precision int8` finds scales on.
pub const CALIBRATED: usize = 128;

impl PrecisionArgs {
    /// The precision that was asked for, else that of the weights, where the network's device has it. What this processor
    /// lacks for it is said once.
    pub fn of(self, network: &Network) -> Precision {
        static SAID: Once = Once::new();
        match self.precision {
            Some(PrecisionArg::F32) => Precision::F32,
            Some(PrecisionArg::LinearF16) => Precision::LinearF16,
            Some(PrecisionArg::Bf16) => {
                if Isa::detect().is_ok_and(|isa| !isa.multiplies_bf16()) {
                    SAID.call_once(|| {
                        tell("note: nothing here multiplies bfloat16 numbers, so that they are widened; f32 may be faster");
                    });
                }
                Precision::Bf16
            }
            Some(PrecisionArg::Int8) => Precision::Int8,
            None if network.quantization().is_some() && on_kernels(network) => Precision::Int8,
            None => Precision::F32,
        }
    }

    /// The network and its precision; it is quantized first on `images`, where that is asked for and it is not yet.
    pub fn ready(
        self,
        network: Network,
        images: impl FnOnce(&Network) -> Result<Vec<Tensor<4>>>,
    ) -> Result<(Network, Precision)> {
        let precision = self.of(&network);
        if precision != Precision::Int8 || network.quantization().is_some() {
            return Ok((network, precision));
        }
        if !on_kernels(&network) {
            return Err(InferenceError::Precision(precision).into());
        }
        let images = images(&network)?;
        let counted: usize = images.iter().map(|batch| batch.dims()[0]).sum();
        tell(&format!("note: the weights are quantized by scales found on {}", count(counted, "image")));
        Ok((network.quantize(&images, &QuantizeOptions::default())?, precision))
    }

    /// The network in its fastest form, in the precision that was asked for; images as for [`ready`](Self::ready).
    pub fn for_inference(
        self,
        network: Network,
        images: impl FnOnce(&Network) -> Result<Vec<Tensor<4>>>,
    ) -> Result<Inference> {
        let (network, precision) = self.ready(network, images)?;
        Ok(Inference::new(network, precision)?)
    }
}

/// Whether convzoo's kernels compute a network.
pub fn on_kernels(network: &Network) -> bool {
    Module::devices(network).iter().all(extension::serves)
}

/// Inputs of a network, `[channels, height, width]` each, as batches of one.
pub fn batches(network: &Network, inputs: impl IntoIterator<Item = Vec<f32>>) -> Vec<Tensor<4>> {
    let [channels, height, width] = network.input();
    let device = Module::devices(network).into_iter().next().unwrap_or_default();
    let batch = |input: Vec<f32>| Tensor::from_data(TensorData::new(input, [1, channels, height, width]), &device);
    inputs.into_iter().map(batch).collect()
}

/// The inputs that a network finds scales on, of those images that can be read.
pub fn first_inputs(network: &Network, sources: &[ImageSource]) -> Result<Vec<Tensor<4>>> {
    let read = sources.iter().filter_map(|source| Some(prepare(network, &source.read().ok()?)));
    Ok(batches(network, read.take(CALIBRATED)))
}

/// Evenly many of all, at most so many.
pub fn some_of<T>(all: &[T], most: usize) -> impl Iterator<Item = &T> {
    all.iter().step_by(all.len().div_ceil(most.max(1)).max(1))
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
    #[arg(long, alias = "devices", value_name = "DEVICE,…", value_delimiter = ',')]
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

/// Where help lists what not every network has.
const NETWORK: &str = "Network options";

/// A trained network: which, its weights, and how it differs from its variant.
#[derive(clap::Args)]
pub struct TrainedArgs {
    /// The network [default: what the weights say]
    #[arg(value_parser = MODELS, hide_possible_values = true)]
    model: Option<String>,
    #[arg(long = "model", hide = true, conflicts_with = "model")]
    named: Option<String>,
    /// Its weights: a file (PyTorch's .pth/.pt/.th, safetensors, ONNX, Burn's pack or a compressed one, told apart by
    /// content), or the name of published ones such as imagenet1k_v1, which are downloaded into the cache
    #[arg(long, value_name = "FILE|NAME", value_hint = clap::ValueHint::FilePath)]
    weights: OsString,
    #[command(flatten)]
    network: NetworkArgs,
}

impl TrainedArgs {
    /// The network with its weights.
    pub fn load(&self, offline: bool, device: &Device) -> Result<Network> {
        let model = model_of(self.model.as_deref().or(self.named.as_deref()), &self.weights)?;
        load(model, &self.weights, offline, &self.network.options(), device)
    }
}

/// How a network shall differ from its variant.
#[derive(clap::Args, Clone, Default, Serialize, Deserialize)]
pub struct NetworkArgs {
    /// Activation of LeNet's layers [default: tanh]
    #[arg(long, value_enum, help_heading = NETWORK)]
    pub activation: Option<ActivationArg>,
    /// Whether to use batch normalization, where reference and paper differ [default: as the reference]
    #[arg(long, value_name = "true|false", help_heading = NETWORK)]
    pub batch_norm: Option<bool>,
    /// Probability of dropping a feature before the classifier [default: the reference's]
    #[arg(long, value_name = "P", allow_negative_numbers = true, help_heading = NETWORK)]
    pub dropout: Option<f64>,
    /// Probability of dropping a residual or fractal path [default: the paper's]
    #[arg(long, value_name = "P", allow_negative_numbers = true, help_heading = NETWORK)]
    pub drop_path: Option<f64>,
    /// Whether to recompute rather than keep what dense blocks concatenate [default: false]
    #[arg(long, value_name = "true|false", help_heading = NETWORK)]
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
    /// Its weights: a file (PyTorch's .pth/.pt/.th, safetensors, ONNX, Burn's pack or a compressed one, told apart by
    /// content), the name of published ones such as imagenet1k_v1, which are downloaded into the cache, or `random` for
    /// those a training starts from [default for lenet5: the digits' weights that come with the program]
    #[arg(long, value_name = "FILE|NAME|random", value_hint = clap::ValueHint::FilePath)]
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
    /// What to call the weights.
    pub fn weights_name(&self) -> String {
        let given = self.weights.as_deref().map(|weights| data::escaped(&weights.to_string_lossy()).into_owned());
        given.unwrap_or_else(|| "of the digits".to_owned())
    }

    /// Makes the network `model` or, without a name, the one that its weights know themselves to be of.
    pub fn network(&self, model: Option<&str>) -> Result<Network> {
        let (_, device) = self.device.open()?;
        let options = self.options.options();
        let network = match (self.weights.as_deref(), model) {
            (Some(weights), _) if weights == "random" && !Path::new("random").exists() => {
                device.seed(0);
                create(model.unwrap_or(DIGITS), &options, &device)?
            }
            (Some(weights), _) => load(model_of(model, weights)?, weights, self.offline, &options, &device)?,
            (None, None | Some(DIGITS)) => {
                if options != Options::default() {
                    bail!("options of the network need --weights: the digits' weights were trained without them");
                }
                if model.is_none() {
                    tell(
                        "note: without --weights, this is lenet5 for handwritten digits; for photographs name a network \
                         and its weights: squeezenet1_1 --weights imagenet1k_v1",
                    );
                }
                pretrained::lenet5_digits(&device)?
            }
            (None, Some(model)) => bail!(needs_weights(variant(model)?.name)),
        };
        match &self.labels {
            Some(labels) => with_labels(network, labels),
            None => Ok(network),
        }
    }
}

/// The network that comes with weights of its own.
const DIGITS: &str = "lenet5";

fn needs_weights(model: &str) -> String {
    let names: Vec<_> = published(model).map(|weights| weights.name).collect();
    let published = match names.as_slice() {
        [] => String::new(),
        names => format!(" or the name of published ones ({}, downloaded once)", names.join(", ")),
    };
    format!("{model} needs --weights: a file{published}; only {DIGITS} comes with weights of its own")
}

/// The network's name: the given one, else the one that the weights know.
pub fn model_of(model: Option<&str>, weights: &OsStr) -> Result<&'static str> {
    if let Some(model) = model {
        return Ok(variant(model)?.name);
    }
    let path = Path::new(weights);
    if !path.exists() {
        let of: Vec<_> = variants()
            .map(|variant| variant.name)
            .filter(|model| published(model).any(|published| weights == published.name))
            .collect();
        match of.as_slice() {
            [] => bail!("there is no file {}, and no weights of this name are published", path.display()),
            models => bail!("name the network, too: {} are published for {}", path.display(), models.join(", ")),
        }
    }
    pretrained::model_of(path)?.with_context(|| {
        format!("{} does not say which network's weights it holds; name the network (`convzoo list`)", path.display())
    })
}

/// Takes the network's name off the front of what was typed as `[MODEL] IMAGE…`, unless it was `named` apart: the first
/// argument is one if a network is called so and other arguments follow. What is neither that nor there is an error.
pub fn split_model<'a>(named: Option<&'a str>, typed: &'a [OsString]) -> Result<(Option<&'a str>, &'a [OsString])> {
    let Some((first, rest)) = typed.split_first().filter(|_| named.is_none()) else { return Ok((named, typed)) };
    let Some(name) = first.to_str() else { return Ok((None, typed)) };
    if variant(name).is_ok() && (!rest.is_empty() || !Path::new(name).exists()) {
        return Ok((Some(name), rest));
    }
    // Images have extensions, patterns stars; a bare word that is not there was meant as a name.
    let is_word = !name.contains(['.', '/', '\\', '*', '?', '[']) && name != "-";
    if let (true, Err(error)) = (is_word && !Path::new(name).exists(), variant(name)) {
        bail!("'{name}' is no image and no folder, and {error}");
    }
    Ok((None, typed))
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
    /// Seed of the held-out fifth, for data that comes in one part [default: 0; of MNIST's kind the last fifth]
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
    fn source(&self) -> Source {
        Source {
            data_dir: self.data_dir.clone(),
            offline: self.offline,
            split_seed: self.split_seed,
            progress: true,
            orientation: self.orientation.library(),
            keep_unreadable: self.skip_corrupt,
            ..Source::default()
        }
    }

    /// Opens the data set called `name`, to train and test.
    pub fn open(&self, name: &str) -> Result<Splits> {
        let opening = || format!("opening the data set '{name}'");
        let splits = data::open(name, &self.source()).with_context(opening)?;
        if !self.skip_corrupt {
            return Ok(splits);
        }
        let images = splits.train.len() + splits.test.len();
        let (splits, damaged) = splits.readable().with_context(opening)?;
        tell_left_out(&damaged, images);
        Ok(splits)
    }

    /// The images of `part` of the data set called `name`.
    pub fn select(&self, name: &str, part: Part) -> Result<Selection> {
        let opening = || format!("opening the data set '{name}'");
        let selection = data::select(name, &self.source(), part).with_context(opening)?;
        if !self.skip_corrupt {
            return Ok(selection);
        }
        let images = selection.data.len();
        let (data, damaged) = readable(selection.data).with_context(opening)?;
        tell_left_out(&damaged, images);
        Ok(Selection { data, ..selection })
    }
}

fn tell_left_out(damaged: &[data::DataError], images: usize) {
    for problem in damaged {
        tell(&format!("left out: {problem}"));
    }
    if !damaged.is_empty() {
        tell(&format!("left out {} of {images} images", damaged.len()));
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

/// The network with the names of its classes: a line each in a file, or ImageNet's by the word `imagenet`.
pub fn with_labels(network: Network, path: &Path) -> Result<Network> {
    if path == Path::new("imagenet") && !path.exists() {
        return Ok(network.with_labels(imagenet::class_names())?);
    }
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
