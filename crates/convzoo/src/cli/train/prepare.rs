//! From arguments, or a run's folder, to a trainer.

use std::collections::VecDeque;
use std::path::Path;

use anyhow::{Context, Result, bail};
use burn::tensor::Device;
use convzoo::data::Splits;
use convzoo::device::DeviceName;
use convzoo::train::{Recipe, Resources, RunRecord, Saving, Trainer, recipe_names};
use convzoo::{Classifier, Network, Preprocessing, Variant, checkpointed_bytes, create, variant};
use serde::{Deserialize, Serialize};

use super::super::bench::batch_size::{Tried, fastest};
use super::super::bench::machine::available_bytes;
use super::super::output::{bytes, count, tell};
use super::super::select::{DataArgs, NetworkArgs, host, load, model_of, preprocess};
use super::Args;
use super::overrides::BatchSize;

/// A run that can start, and what is said of it.
pub struct Prepared {
    pub trainer: Trainer<Network>,
    /// All that the first line tells but the folder.
    pub opening: String,
    /// The recipe's learning rate.
    pub rate: f64,
}

/// A run from its beginning.
pub fn fresh(args: &Args) -> Result<Prepared> {
    let model = args.model.as_deref().or(args.named.as_deref());
    let model = match (&args.weights, model) {
        (Some(weights), model) => model_of(model, weights)?,
        (None, model) => variant(model.unwrap_or("lenet5"))?.name,
    };
    let mut setup = Setup {
        model: model.to_owned(),
        data: args.data.clone().unwrap_or_else(|| "digits".to_owned()),
        source: args.source.clone(),
        val_split: args.val_split,
        network: args.network.clone(),
        pretrained: None,
    };
    let changes = args.overrides.changes(&args.network);
    let recipe_for = |start| -> Result<_> {
        let (recipe, name) = recipe(args.recipe.as_deref(), variant(model)?, start)?;
        let recipe = recipe.with(changes.iter().map(|(key, value)| (key.as_str(), value.as_str())))?;
        recipe.check()?;
        Ok((recipe, name))
    };
    // What is wrong with the recipe is told before weights and data are opened; the head decides on nothing that the
    // network is made by.
    let (recipe, _) = recipe_for(if args.weights.is_some() { Start::NewHead } else { Start::Scratch })?;
    setup.network = NetworkArgs { dropout: recipe.dropout, drop_path: recipe.drop_path, ..setup.network };
    if args.weights.is_none() && recipe.transfer.freezes_backbone() {
        bail!(
            "this recipe freezes all layers before the head, and without --weights they are random; name the weights to \
             start from, or another recipe"
        );
    }
    if args.weights.is_none() && recipe.quantization.is_some() {
        bail!(
            "this recipe finds the scales of bytes before it trains, and without --weights the network is random; train it \
             without quantization first, and name its weights"
        );
    }
    let devices = Devices::open(args.devices.names()?)?;
    let data = setup.data()?;
    let pretrained = match &args.weights {
        Some(weights) => {
            let (offline, device) = (setup.source.offline, host()?.autodiff());
            Some(load(model, weights, offline, &setup.network.options(), &device)?)
        }
        None => None,
    };
    let (mut recipe, name) = recipe_for(Start::of(pretrained.as_ref(), data.classes()))?;
    if args.overrides.batch_size == Some(BatchSize::Auto) {
        recipe.batch_size = fastest_batch(args, model, pretrained.as_ref(), &data, &recipe, &devices.names[0])?;
    }
    let how = How { recipe, name, seed: args.seed };
    if let Some(network) = &pretrained {
        setup.pretrained = Some(Pretrained { channels: network.input()[0], resize: network.preprocessing().resize });
        // What the file remembers of its network, a resumed run has to know without the file.
        let remembered = network.metadata().unwrap_or_default().options;
        setup.network = setup.network.or(&remembered);
    }
    let folder = args.name.clone().unwrap_or_else(|| format!("{}-{}", setup.model, setup.data));
    let prepared = prepare(args, devices, data, &setup, pretrained, how)?;
    let trainer = match &args.out {
        Some(out) => prepared.trainer.out(out),
        None => prepared.trainer.out_in("runs", folder),
    };
    let trainer = args.name.iter().fold(trainer.tags(&args.tags), |trainer, name| trainer.name(name));
    Ok(Prepared { trainer, ..prepared })
}

/// The run of this folder, from where it was stopped.
pub fn resumed(args: &Args, folder: &Path) -> Result<Prepared> {
    let RunRecord { setup, device, mut recipe, seed, recipe_name, .. } = RunRecord::read(folder)?;
    let setup: Setup = serde_json::from_value(setup)
        .with_context(|| format!("{} is of another program or version", folder.join("run.json").display()))?;
    if let Some(epochs) = args.overrides.epochs {
        recipe.epochs = epochs;
        recipe.check()?;
    }
    let names = match args.devices.device.as_slice() {
        [] => device.split(',').map(str::parse).collect::<Result<_, _>>()?,
        names => names.to_vec(),
    };
    let devices = Devices::open(names)?;
    let data = setup.data()?;
    let prepared = prepare(args, devices, data, &setup, None, How { recipe, name: recipe_name, seed })?;
    Ok(Prepared { trainer: prepared.trainer.out(folder), ..prepared })
}

/// What makes the same network and data again.
#[derive(Clone, Serialize, Deserialize)]
pub struct Setup {
    model: String,
    pub data: String,
    pub source: DataArgs,
    /// The share of the training images to choose by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    val_split: Option<f64>,
    network: NetworkArgs,
    /// What the weights that it started from have decided.
    #[serde(default)]
    pretrained: Option<Pretrained>,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct Pretrained {
    channels: usize,
    resize: Option<usize>,
}

impl Setup {
    fn data(&self) -> Result<Splits> {
        let data = self.source.open(&self.data)?;
        match self.val_split {
            Some(share) => data.hold_out(share, self.source.split_seed.unwrap_or(0)).context("--val-split"),
            None => Ok(data),
        }
    }
}

/// The recipe that was asked for, and its name; else the one for what is trained: of the paper that trained the network
/// from scratch, or one for weights that have learned already, with or without a head of their own.
fn recipe(asked: Option<&str>, variant: &Variant, start: Start) -> Result<(Recipe, Option<String>)> {
    let default = match start {
        Start::Scratch => Recipe::name_for(variant),
        Start::NewHead => Some("transfer_head"),
        Start::Trained => Some("transfer"),
    };
    let recipe = match asked {
        None => default.map_or(Ok(Recipe::default()), Recipe::named)?,
        Some(name) if recipe_names().any(|known| known == name) => Recipe::named(name)?,
        // What looks like a file is one.
        Some(file) if Path::new(file).exists() || file.contains(['.', '/', '\\']) => Recipe::read(Path::new(file))?,
        Some(name) => Recipe::named(name)?,
    };
    Ok((recipe, asked.or(default).map(str::to_owned)))
}

/// What a run starts from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// Random weights.
    Scratch,
    /// Weights that tell other classes apart: all but the head's.
    NewHead,
    /// Weights that tell the data's classes apart.
    Trained,
}

impl Start {
    fn of(pretrained: Option<&Network>, classes: &[String]) -> Self {
        match pretrained {
            None => Self::Scratch,
            Some(network) if has_classes(network, classes) => Self::Trained,
            Some(_) => Self::NewHead,
        }
    }
}

/// Whether a network tells these classes apart; one that does not know its classes' names, whether it has as many.
fn has_classes(network: &Network, classes: &[String]) -> bool {
    network.classes() == classes.len() && (network.labels().is_empty() || network.labels() == classes)
}

/// The batch size that trains fastest on the first device.
fn fastest_batch(
    args: &Args,
    model: &str,
    pretrained: Option<&Network>,
    data: &Splits,
    recipe: &Recipe,
    device: &DeviceName,
) -> Result<usize> {
    /// Larger batches need other recipes.
    const MOST: usize = 1024;
    let variant = variant(model)?;
    let [_, height, width] = variant.input;
    let channels = pretrained.map_or(data.train.get(0)?.image.channels, |network| network.input()[0]);
    let most = (data.train.len() / 10).clamp(1, MOST);
    let engine = (device, args.devices.kernels.asked());
    let found = fastest(
        variant,
        [channels, height, width],
        data.classes().len(),
        engine,
        recipe.checkpointing,
        most,
        |tried| {
            let Tried { batch, result } = tried;
            tell(&match result {
                Ok((rate, Some(mib))) => format!("batch {batch:>4}: {rate:.0} images/s, {mib:.0} MiB"),
                Ok((rate, None)) => format!("batch {batch:>4}: {rate:.0} images/s"),
                Err(reason) => format!("batch {batch:>4}: {reason}"),
            });
        },
    )?;
    let note = match recipe.batch_size == found {
        true => String::new(),
        false => format!("; the recipe's learning rate {} was chosen for {}", recipe.learning_rate, recipe.batch_size),
    };
    tell(&format!("batch {found}{note}"));
    Ok(found)
}

/// Devices to train on.
struct Devices {
    names: Vec<DeviceName>,
    first: Device,
    others: Vec<Device>,
}

impl Devices {
    fn open(names: Vec<DeviceName>) -> Result<Self> {
        let mut devices = names.iter().map(DeviceName::open).collect::<Result<VecDeque<_>, _>>()?;
        let first = devices.pop_front().context("there is no device to train on")?;
        Ok(Self { names, first, others: devices.into() })
    }

    /// As `--device` takes them.
    fn name(&self) -> String {
        self.names.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }

    /// How many compute in this machine's memory.
    fn in_memory(&self) -> usize {
        let on_cpu = |name: &&DeviceName| matches!(name, DeviceName::Flex | DeviceName::NdArray | DeviceName::Tch);
        self.names.iter().filter(on_cpu).count()
    }
}

/// How a network is trained.
struct How {
    recipe: Recipe,
    /// The recipe's name or file.
    name: Option<String>,
    seed: u64,
}

/// The network of `setup` and the data, ready to be trained.
fn prepare(
    args: &Args,
    devices: Devices,
    data: Splits,
    setup: &Setup,
    pretrained: Option<Network>,
    How { recipe, name, seed }: How,
) -> Result<Prepared> {
    let host = host()?;
    host.seed(seed);
    let network = network(setup, pretrained, &data, &host)?;
    check_memory(&network, &recipe, data.train.len(), devices.in_memory())?;
    let opening = format!(
        "{} on {}: {} to train on, {}{} to test on, {}, recipe {}, device {}",
        network.name(),
        data.name,
        count(data.train.len(), "image"),
        data.val.as_ref().map_or(String::new(), |val| format!("{} to choose by, ", val.len())),
        data.test.len(),
        count(recipe.epochs, "epoch"),
        name.as_deref().unwrap_or("default"),
        devices.name(),
    );
    let preprocess = preprocess(&network, &network.preprocessing(), &*data.train)?;
    let rate = recipe.learning_rate;
    let trainer = Trainer::new(network, data)
        .preprocess(preprocess)
        .recipe(recipe)
        .seed(seed)
        .device_name(devices.name())
        .device(devices.first)
        .saving(Saving { every: args.checkpoint_every, keep: args.keep })
        .resources(Resources {
            more_devices: devices.others,
            workers: args.workers.map(usize::from),
            cache: (args.cache as usize) << 20,
        })
        .setup(serde_json::to_value(setup).context("writing down the run's setup")?);
    let trainer = name.into_iter().fold(trainer, Trainer::recipe_name);
    Ok(Prepared { trainer, opening, rate })
}

/// The network of `setup` for the classes and the channels of `data`.
fn network(setup: &Setup, pretrained: Option<Network>, data: &Splits, device: &Device) -> Result<Network> {
    let image = data.train.get(0).context("reading the first image; --skip-corrupt leaves out what is damaged")?.image;
    let mut options = setup.network.options();
    let classes = data.classes().len();
    options.classes = Some(classes);
    options.channels = Some(setup.pretrained.as_ref().map_or(image.channels, |pretrained| pretrained.channels));
    let network = match pretrained {
        Some(network) if has_classes(&network, data.classes()) => network,
        Some(network) => network.replace_head(classes),
        None => create(&setup.model, &options, &device.clone().autodiff())?,
    };
    let network = match &setup.pretrained {
        Some(pretrained) => {
            let preprocessing = Preprocessing { resize: pretrained.resize, ..network.preprocessing() };
            network.with_preprocessing(preprocessing)
        }
        None => network,
    };
    network.check_input(network.input())?;
    Ok(network.with_labels(data.classes().to_vec())?)
}

/// Refuses a run that this machine's memory cannot hold, by the least that a step needs on each of so many `devices`
/// that compute in it.
fn check_memory(network: &Network, recipe: &Recipe, images: usize, devices: usize) -> Result<()> {
    let batch = recipe.batch_size.min(images);
    let summary = network.summary(network.input())?;
    let checkpointed = checkpointed_bytes(network, network.input(), batch)?;
    // Frozen layers keep nothing for the backward pass, and memory-efficient ones recompute it.
    let keeps_all =
        recipe.transfer.freeze.is_none() && network.metadata().is_none_or(|m| m.options.memory_efficient != Some(true));
    let per_device = match checkpointed {
        Some(bytes) if keeps_all && recipe.checkpointing => bytes,
        _ if keeps_all => summary.training_bytes(batch),
        _ => summary.inference_bytes(batch),
    };
    let (needed, available) = (per_device.saturating_mul(devices), available_bytes());
    if needed > available {
        bail!(
            "a step of {} on {batch} images needs at least {} of memory, and {} are free; {}a smaller --batch needs \
             less, and --set accumulation=N makes a step of N of them",
            network.name(),
            bytes(needed),
            bytes(available),
            if checkpointed.is_some() && !recipe.checkpointing { "--checkpointing or " } else { "" },
        );
    }
    Ok(())
}
