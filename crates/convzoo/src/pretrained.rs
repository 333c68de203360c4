//! Networks with their weights: those that come with the crate, those that others have published, and those in files.
//!
//! ```no_run
//! use convzoo::{classify_file, create_pretrained, device};
//!
//! let network = create_pretrained("resnet50", "imagenet1k_v2", &device::open("flex")?)?;
//! for prediction in classify_file(&network, "photo.jpg", 5)? {
//!     println!("{:6.2}%  {}", 100.0 * prediction.probability, prediction.name());
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use convzoo_data::download::{Remote, fetch};
use convzoo_data::{DataError, Source};
use convzoo_models::weights::{Checkpoint, WeightsError};
use convzoo_models::{
    ModelError, Network, Options, Published, SERVER, create_from, imagenet, published, variant, variants,
};
use thiserror::Error;

/// `best.safetensors` of `convzoo train --device flex`.
const LENET5_DIGITS: &[u8] = include_bytes!("../weights/lenet5-digits.safetensors");

/// LeNet-5, trained on the embedded digits: something to run on out of the box. It is right about 354 of the 360
/// digits held out (`convzoo train --device flex` says so).
pub fn lenet5_digits(device: &Device) -> Result<Network, WeightsError> {
    create_from("lenet5", Checkpoint::from_safetensors(LENET5_DIGITS)?, &Options::default(), device)
}

/// Why a network's weights cannot be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PretrainedError {
    /// There is no such network, or no weights of this name are published for it.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The weights are not in the cache, and may not be downloaded.
    #[error(transparent)]
    Cache(#[from] DataError),
    /// The download failed.
    #[error("downloading {file}; it may also be put into {}", .folder.display())]
    Download {
        /// The published file.
        file: &'static str,
        /// Where it belongs.
        folder: PathBuf,
        /// What went wrong.
        source: DataError,
    },
    /// The file cannot be opened.
    #[error("{}", opening(.model, .weights, .source))]
    Open {
        /// The network.
        model: &'static str,
        /// What was asked for.
        weights: String,
        /// What went wrong.
        source: Box<WeightsError>,
    },
    /// The file does not hold weights of this network.
    #[error("loading {} into {model}{}", .path.display(), .of.as_ref().map(|of| format!(" (the file says that it is of {of})")).unwrap_or_default())]
    Load {
        /// The network.
        model: &'static str,
        /// The file.
        path: PathBuf,
        /// The other network that the file says its weights are of, if it does.
        of: Option<String>,
        /// What went wrong.
        source: Box<WeightsError>,
    },
}

/// What was tried with the weights that cannot be opened. What is no file was perhaps meant as a name.
fn opening(model: &str, weights: &str, source: &WeightsError) -> String {
    let is_missing = matches!(source, WeightsError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound);
    let names: Vec<_> = published(model).map(|weights| weights.name).collect();
    match names.as_slice() {
        _ if !is_missing => format!("opening the weights '{weights}'"),
        [] => format!("'{weights}' is no file, and no weights are published for {model}"),
        names => {
            format!("'{weights}' is neither a file nor among the weights published for {model}: {}", names.join(", "))
        }
    }
}

/// The network `model` with weights that are published under the name `weights`, such as `imagenet1k_v1`; it knows the
/// names of its classes and its preprocessing. The first time, the weights are downloaded into the user's cache.
///
/// [`load`] takes options, and says where to and whether to download.
pub fn create_pretrained(model: &str, weights: &str, device: &Device) -> Result<Network, PretrainedError> {
    let published = Published::find(model, weights)?;
    let path = download(published, &Source::default())?;
    load_published(published, path, &Options::default(), device)
}

/// The network `model` with the weights in a file or, where there is no such file, with those published under this
/// name. A file that bears the name of a published one and was not written by convzoo counts as it.
///
/// Classes and channels are taken from the weights where `options` leaves them open. A thousand classes for which
/// another program's file has no names are ImageNet's.
pub fn load(
    model: &str,
    weights: impl AsRef<OsStr>,
    options: &Options,
    source: &Source,
    device: &Device,
) -> Result<Network, PretrainedError> {
    let model = variant(model)?.name;
    let weights = weights.as_ref();
    let path = Path::new(weights);
    if !path.exists()
        && let Some(Ok(published)) = weights.to_str().map(|name| Published::find(model, name))
    {
        return load_published(published, download(published, source)?, options, device);
    }
    let open = |source| {
        let (weights, source) = (weights.display().to_string(), Box::new(source));
        PretrainedError::Open { model, weights, source }
    };
    let checkpoint = Checkpoint::open(path).map_err(open)?;
    let foreign = checkpoint.metadata().is_none();
    if let (true, Some(published)) = (foreign, Published::of_file(model, path)) {
        return load_published(published, path.to_owned(), options, device);
    }
    let of = checkpoint.metadata().map(|metadata| metadata.model.clone()).filter(|of| of != model);
    let load = |source| PretrainedError::Load { model, path: path.to_owned(), of, source: Box::new(source) };
    let network = create_from(model, checkpoint, options, device).map_err(load)?;
    let classes = imagenet::class_names();
    Ok(match foreign && network.classes() == classes.len() && network.variant().classes == classes.len() {
        true => network.with_labels(classes)?,
        false => network,
    })
}

/// The network that the weights in a file are of, where the file knows: convzoo wrote it, or it bears the name of a
/// published one.
pub fn model_of(path: &Path) -> Result<Option<&'static str>, WeightsError> {
    if let Some(metadata) = Checkpoint::open(path)?.metadata() {
        return Ok(Some(variant(&metadata.model)?.name));
    }
    let of_file = |model: &&'static str| Published::of_file(model, path).is_some();
    Ok(variants().map(|variant| variant.name).find(of_file))
}

fn load_published(
    published: &Published,
    path: PathBuf,
    options: &Options,
    device: &Device,
) -> Result<Network, PretrainedError> {
    let network = published.load(&path, options, device);
    network.map_err(|source| PretrainedError::Load { model: published.model, path, of: None, source: Box::new(source) })
}

/// The file of published weights in the cache's folder `weights`, fetched from [`SERVER`], or from the mirror of
/// `source`, where it is not there.
pub fn download(published: &Published, source: &Source) -> Result<PathBuf, PretrainedError> {
    let (file, folder) = (published.file, source.cache_dir()?.join("weights"));
    let urls: Vec<_> = source.servers("weights", &[SERVER]).iter().map(|server| format!("{server}/{file}")).collect();
    if source.offline && !folder.join(file).is_file() {
        return Err(DataError::Offline { name: file.to_owned(), folder, urls }.into());
    }
    let remote = Remote { file: file.to_owned(), urls, sha256: published.sha256().to_owned(), bytes: None };
    fetch(&remote, &folder, source.progress).map_err(|source| PretrainedError::Download { file, folder, source })
}
