//! Which network, with which weights.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use burn::module::Module;
use burn::tensor::Device;
use convzoo::blocks::Activation;
use convzoo::data::Source;
use convzoo::{Network, Options, create, data, imagenet, pretrained, published, variant, variants};
use serde::{Deserialize, Serialize};

use super::super::names::MODELS;
use super::super::output::tell;
use super::{DeviceArgs, host};

/// Where help lists what not every network has.
const NETWORK: &str = "Network options";

/// A network and its weights, which must be named.
#[derive(clap::Args)]
pub struct WeightsArgs {
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

impl WeightsArgs {
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
                let host = host()?;
                host.seed(0);
                create(model.unwrap_or(DIGITS), &options, &host)?.to_device(&device)
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
