use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use convzoo_blocks::{Activation, FeatureMap};
use serde::{Deserialize, Serialize};

pub(crate) use crate::families::Build;
use crate::families::{FAMILIES, Family};
use crate::quantize::Quantization;
use crate::weights::{Checkpoint, Metadata, WeightsError};
use crate::{
    Classifier, FeatureInfo, Inference, InferenceError, ModelError, Outputs, Precision, Preprocessing, Published,
    StateEntry, Summary, feature_info, features, names, summarize,
};

/// One named network: what is known of it before it is made.
pub struct Variant {
    /// The name it is created by.
    pub name: &'static str,
    /// The family it belongs to, as `list --family` names it.
    pub family: &'static str,
    /// Year of the paper.
    pub year: u16,
    /// Where the paper is.
    pub paper: &'static str,
    /// Channels, height and width of the images it was made for.
    pub input: [usize; 3],
    /// Classes it was made for.
    pub classes: usize,
    /// Which other images it takes.
    pub sizes: Sizes,
    /// The options it takes besides classes and channels.
    pub takes: &'static [Opt],
    /// The published weights of its family; [`published`](crate::published) gives its own.
    pub weights: &'static [Published],
    /// Its configuration.
    pub(crate) build: Build,
}

/// Which image sizes a network takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizes {
    /// Any whose sides are no smaller than this.
    From(usize),
    /// Any whose sides are multiples of this: parallel strided layers agree on even feature maps only.
    MultiplesOf(usize),
    /// Only the variant's own: fully-connected layers follow a feature map that is not pooled to a fixed size.
    Fixed,
}

/// Options that only some networks take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opt {
    /// [`Options::dropout`].
    Dropout,
    /// [`Options::drop_path`].
    DropPath,
    /// [`Options::activation`].
    Activation,
    /// [`Options::batch_norm`].
    BatchNorm,
    /// [`Options::memory_efficient`].
    MemoryEfficient,
}

impl Opt {
    const fn name(self) -> &'static str {
        match self {
            Self::Dropout => "dropout",
            Self::DropPath => "drop_path",
            Self::Activation => "activation",
            Self::BatchNorm => "batch_norm",
            Self::MemoryEfficient => "memory_efficient",
        }
    }
}

/// How a network differs from its variant; `None` leaves the reference's value.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// Number of classes.
    pub classes: Option<usize>,
    /// Channels of the images.
    pub channels: Option<usize>,
    /// Dropout probability before the classifier and auxiliary classifiers, or within a wide residual block, 0 to
    /// below 1.
    pub dropout: Option<f64>,
    /// Drop path rate of the last residual block, or of a fractal's local paths, 0 to below 1.
    pub drop_path: Option<f64>,
    /// The activation of LeNet's layers.
    pub activation: Option<Activation>,
    /// Whether to use batch normalization, where reference and paper differ.
    pub batch_norm: Option<bool>,
    /// Whether to recompute rather than keep what dense blocks concatenate.
    pub memory_efficient: Option<bool>,
}

impl Options {
    /// The options with another number of classes.
    pub fn with_classes(self, classes: usize) -> Self {
        Self { classes: Some(classes), ..self }
    }

    /// The options with another number of input channels.
    pub fn with_channels(self, channels: usize) -> Self {
        Self { channels: Some(channels), ..self }
    }

    fn set(&self) -> impl Iterator<Item = Opt> {
        let set = [
            self.dropout.map(|_| Opt::Dropout),
            self.drop_path.map(|_| Opt::DropPath),
            self.activation.map(|_| Opt::Activation),
            self.batch_norm.map(|_| Opt::BatchNorm),
            self.memory_efficient.map(|_| Opt::MemoryEfficient),
        ];
        set.into_iter().flatten()
    }
}

/// What overrides a variant's configuration: the options, with classes and channels filled in.
pub(crate) struct Spec<'a> {
    pub classes: usize,
    pub channels: usize,
    pub options: &'a Options,
}

/// All named networks, family by family.
pub fn variants() -> impl Iterator<Item = &'static Variant> {
    FAMILIES.iter().copied().flatten()
}

/// The variant of this name, or an error that says the nearest names.
pub fn variant(name: &str) -> Result<&'static Variant, ModelError> {
    variants().find(|variant| variant.name == name).ok_or_else(|| {
        let asked = name.to_lowercase();
        let mut near: Vec<_> = variants()
            .map(|variant| (strsim::normalized_damerau_levenshtein(&asked, variant.name), variant.name))
            .filter(|&(similarity, near)| similarity > 0.5 || near.starts_with(&asked) && !asked.is_empty())
            .collect();
        near.sort_by(|a, b| b.0.total_cmp(&a.0));
        let nearest = near.into_iter().take(3).map(|(_, name)| name).collect();
        ModelError::Unknown { name: name.to_owned(), nearest }
    })
}

/// The most classes that a network is made for: fifty times ImageNet-21k's, so that no mistyped number asks for
/// terabytes.
pub const MOST_CLASSES: usize = 1 << 20;

/// The most input channels that a network is made for: more than hyperspectral images have.
pub const MOST_CHANNELS: usize = 1 << 12;

/// Whether the network called `name` can be made for, or its head replaced by one of, `classes`.
pub fn check_classes(name: &'static str, classes: usize) -> Result<(), ModelError> {
    match classes {
        0 => Err(ModelError::NoClasses { name }),
        1..=MOST_CLASSES => Ok(()),
        count => Err(ModelError::TooMany { name, what: "classes", count, most: MOST_CLASSES }),
    }
}

/// Makes the network of this name on `device`. Weights are initialized as in its reference, on first use.
pub fn create(name: &str, options: &Options, device: &Device) -> Result<Network, ModelError> {
    let variant = variant(name)?;
    let name = variant.name;
    if let Some(option) = options.set().find(|option| !variant.takes.contains(option)) {
        let takes = ["classes", "channels"].into_iter().chain(variant.takes.iter().map(|option| option.name()));
        return Err(ModelError::Option { name, option: option.name(), takes: takes.collect() });
    }
    for (option, value) in [("dropout", options.dropout), ("drop_path", options.drop_path)] {
        if let Some(value) = value.filter(|value| !(0.0..1.0).contains(value)) {
            let expected = "at least 0 and below 1";
            return Err(ModelError::Value { option, value: value.to_string(), expected });
        }
    }
    let classes = options.classes.unwrap_or(variant.classes);
    let channels = options.channels.unwrap_or(variant.input[0]);
    check_classes(name, classes)?;
    if channels == 0 {
        return Err(ModelError::NoChannels { name });
    }
    if channels > MOST_CHANNELS {
        return Err(ModelError::TooMany { name, what: "input channels", count: channels, most: MOST_CHANNELS });
    }
    let family = variant.build.init(&Spec { classes, channels, options }, device);
    Ok(Network {
        family,
        variant: Known(variant),
        classes,
        channels,
        options: options.clone(),
        labels: Vec::new(),
        preprocessing: None,
        quantization: None,
    })
}

/// Makes the network of this name with the weights of a checkpoint, for the classes and channels that the
/// checkpoint has, and the options that it stores where `options` says nothing.
pub fn create_from(
    name: &str,
    checkpoint: Checkpoint,
    options: &Options,
    device: &Device,
) -> Result<Network, WeightsError> {
    let remembered = checkpoint.metadata().filter(|metadata| metadata.model == name).cloned().unwrap_or_default();
    let Metadata { options: remembered, labels, preprocessing, .. } = remembered;
    let preprocessing = preprocessing.map(|preprocessing| preprocessing.checked(checkpoint.path())).transpose()?;
    let options = Options {
        dropout: options.dropout.or(remembered.dropout),
        drop_path: options.drop_path.or(remembered.drop_path),
        activation: options.activation.or(remembered.activation),
        batch_norm: options.batch_norm.or(remembered.batch_norm),
        memory_efficient: options.memory_efficient.or(remembered.memory_efficient),
        ..options.clone()
    };
    // A network made for the defaults tells which tensors hold the classes and the channels.
    let probe = create(name, &options, device)?;
    let summary = summarize(&probe, probe.input())?;
    let weighted = || summary.layers.iter().filter(|layer| matches!(layer.kind, "Conv2d" | "Linear"));
    let classes = weighted().next_back().and_then(|layer| checkpoint.dimension(&layer.name, 0));
    let channels = weighted().next().and_then(|layer| checkpoint.dimension(&layer.name, 1));
    let options = Options {
        classes: options.classes.or(classes).filter(|&classes| classes > 0),
        channels: options.channels.or(channels).filter(|&channels| channels > 0),
        ..options
    };
    let same = options.classes.is_none_or(|classes| classes == probe.classes)
        && options.channels.is_none_or(|channels| channels == probe.channels);
    let network = if same { probe } else { create(name, &options, device)? };
    let network = checkpoint.apply(network)?;
    let network = if labels.is_empty() { network } else { network.with_labels(labels)? };
    Ok(match preprocessing {
        Some(preprocessing) => network.with_preprocessing(preprocessing),
        None => network,
    })
}

/// A network of the zoo, made by [`create`].
#[derive(Module, Debug)]
pub struct Network {
    family: Family,
    #[module(skip)]
    variant: Known,
    classes: usize,
    channels: usize,
    #[module(skip)]
    options: Options,
    #[module(skip)]
    labels: Vec<String>,
    #[module(skip)]
    preprocessing: Option<Preprocessing>,
    #[module(skip)]
    quantization: Option<Arc<Quantization>>,
}

/// A variant of the registry, as a field of a module.
#[derive(Clone, Copy)]
struct Known(&'static Variant);

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.name)
    }
}

impl Network {
    /// What the registry knows of it.
    pub fn variant(&self) -> &'static Variant {
        self.variant.0
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.variant.0.name
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The names of its classes, if it knows them.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// A class for display: its label, or its number where the network knows no labels.
    pub fn class_name(&self, class: usize) -> String {
        self.labels.get(class).cloned().unwrap_or_else(|| format!("class {class}"))
    }

    /// The network with names for its classes, which its weights files will store.
    ///
    /// # Errors
    /// There are more or fewer names than classes.
    pub fn with_labels(self, labels: Vec<String>) -> Result<Self, ModelError> {
        let (name, classes) = (self.name(), self.classes);
        if labels.len() != classes {
            return Err(ModelError::Labels { name, classes, labels: labels.len() });
        }
        Ok(Self { labels, ..self })
    }

    /// The network with another preprocessing than its family's, for weights that were trained so; its weights files
    /// will store it.
    pub fn with_preprocessing(self, preprocessing: Preprocessing) -> Self {
        let preprocessing = Some(preprocessing).filter(|other| *other != self.family.preprocessing());
        Self { preprocessing, ..self }
    }

    /// The network in its fastest form for inference on its device, in 32 bits.
    ///
    /// # Errors
    /// It cannot be fused where it should be.
    pub fn for_inference(self) -> Result<Inference, InferenceError> {
        Inference::new(self, Precision::F32)
    }

    /// Channels, height and width of the images it was made for, or that its weights were trained for.
    pub fn input(&self) -> [usize; 3] {
        let [_, height, width] = self.variant.0.input;
        let own = [height, width];
        let size = self.preprocessing.map(|preprocessing| preprocessing.size);
        let [height, width] = size.filter(|size| self.check_size(*size).is_ok()).unwrap_or(own);
        [self.channels, height, width]
    }

    /// Whether the network takes images of `[channels, height, width]`; nothing is computed.
    pub fn check_input(&self, [channels, height, width]: [usize; 3]) -> Result<(), ModelError> {
        match channels == self.channels {
            true => self.check_size([height, width]),
            false => Err(ModelError::Channels { name: self.name(), expected: self.channels, found: channels }),
        }
    }

    fn check_size(&self, size: [usize; 2]) -> Result<(), ModelError> {
        let (name, [height, width]) = (self.name(), size);
        let [_, own_height, own_width] = self.variant.0.input;
        match self.variant.0.sizes {
            Sizes::From(minimum) if height < minimum || width < minimum => {
                Err(ModelError::TooSmall { name, size, minimum })
            }
            Sizes::MultiplesOf(unit) if size.contains(&0) || size.iter().any(|side| !side.is_multiple_of(unit)) => {
                Err(ModelError::NotMultiple { name, size, unit })
            }
            Sizes::Fixed if size != [own_height, own_width] => {
                Err(ModelError::FixedSize { name, size, expected: [own_height, own_width] })
            }
            _ => Ok(()),
        }
    }

    /// The feature maps after some layers or blocks, `[batch, channels, height, width]` each: [`features`](crate::features).
    ///
    /// # Errors
    /// The network has no such layer, or does not take such images.
    pub fn features(&self, images: Tensor<4>, names: &[&str]) -> Result<Vec<Tensor<4>>, ModelError> {
        let [_, channels, height, width] = images.dims();
        self.check_input([channels, height, width])?;
        features(self, images, names)
    }

    /// Channels and reduction of the [`features`](Self::features) after some layers or blocks.
    ///
    /// # Errors
    /// The network has no such layer.
    pub fn feature_info(&self, names: &[&str]) -> Result<Vec<FeatureInfo>, ModelError> {
        feature_info(self, self.input(), names)
    }

    /// The network layer by layer for images of `[channels, height, width]`.
    pub fn summary(&self, input: [usize; 3]) -> Result<Summary, ModelError> {
        self.check_input(input)?;
        summarize(self, input)
    }

    /// Every tensor of its state, by the reference's names.
    pub fn state(&self) -> Vec<StateEntry> {
        names::name_tree(self).state
    }
}

impl AsRef<Network> for Network {
    fn as_ref(&self) -> &Network {
        self
    }
}

impl Classifier for Network {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        self.family.forward_features(images)
    }
    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.family.forward_head(features)
    }
    fn forward<M: FeatureMap>(&self, images: M) -> M::Vector {
        self.family.forward(images)
    }
    fn forward_train<M: FeatureMap>(&self, images: M) -> Outputs<M::Vector> {
        self.family.forward_train(images)
    }
    fn replace_head(self, classes: usize) -> Self {
        Self { family: self.family.replace_head(classes), classes, labels: Vec::new(), quantization: None, ..self }
    }
    fn preprocessing(&self) -> Preprocessing {
        self.preprocessing.unwrap_or_else(|| self.family.preprocessing())
    }
    fn metadata(&self) -> Option<Metadata> {
        Some(Metadata {
            model: self.name().to_owned(),
            options: Options { classes: None, channels: None, ..self.options.clone() },
            labels: self.labels.clone(),
            preprocessing: self.preprocessing,
        })
    }
    fn quantization(&self) -> Option<&Quantization> {
        self.quantization.as_deref()
    }
    fn with_quantization(self, quantization: Option<Quantization>) -> Self {
        Self { quantization: quantization.map(Arc::new), ..self }
    }
    fn reference_name(&self, path: &[&str]) -> String {
        match path {
            ["family", path @ ..] => self.family.reference_name(path),
            _ => path.join("."),
        }
    }
    fn respell(&self, name: &str) -> String {
        self.family.respell(name)
    }
    fn optional_layers(&self) -> &'static [&'static str] {
        self.family.optional_layers()
    }
}
