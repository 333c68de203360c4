//! Loading and saving weights, by the names of PyTorch's state dicts.
//!
//! [`load`] tells PyTorch's checkpoints, safetensors (quantized ones, too), Burn's own pack, ONNX and compressed files apart by content and
//! matches entries against the names that the network's tree gives ([`Classifier::reference_name`]); wrappers
//! (`state_dict`, `model`, `module.`) and `num_batches_tracked` are ignored. [`save`] writes safetensors that
//! `load_state_dict` takes.

mod compressed;
mod quantized;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use burn::store::burn_pack::{Error as PackError, Reader, Tensor as PackTensor, Writer};
use burn::store::pytorch::PytorchReader;
use burn::store::pytorch_reader::PickleValue;
use burn::store::{ModuleAdapter, ModuleContext, ModuleSnapshot, ModuleStore, PytorchStore, SafetensorsStore, bridge};
use burn::tensor::{DType, TensorData};
pub use compressed::{compressed, save_compressed, tensors, with_tensors};
use convzoo_onnx::{Contents, ExportError};
pub use quantized::save_quantized;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use thiserror::Error;

use crate::names::{name_tree, optional_layer};
use crate::onnx::OnnxFile;
use crate::quantize::Quantization;
use crate::{Classifier, ModelError, Options, Preprocessing};

/// Why weights cannot be read or written.
#[derive(Debug, Error)]
pub enum WeightsError {
    /// The file cannot be opened or read.
    #[error("cannot read {}: {source}", told(.path))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is none of the known formats.
    #[error("{} is no PyTorch checkpoint, safetensors file, Burn pack, ONNX file or file of compressed weights", told(.path))]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// The pickle names what no tensor needs. Nothing in it was run: names are compared, never called.
    #[error("{} is refused: it names {name}, and weights are tensors only", told(.path))]
    Refused {
        /// The file.
        path: PathBuf,
        /// What it names, as Python spells it.
        name: String,
    },
    /// The file is damaged.
    #[error("{} is damaged or cut short: {reason}", told(.path))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the reader says.
        reason: String,
    },
    /// The weights belong to another network.
    #[error("these weights do not fit the network:{mismatch}")]
    Mismatch {
        /// What differs.
        mismatch: Mismatch,
    },
    /// A tensor holds NaN or an infinity.
    #[error("{}: the tensor '{name}' holds {value} (element {index}); the training that wrote it has diverged, or the file is damaged", told(.path))]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// NaN, or an infinity.
        value: f32,
        /// Where, in the order of the file.
        index: usize,
    },
    /// A tensor holds a number that 16 bits cannot.
    #[error(
        "'{name}' holds {value} (element {index}), beyond the largest 16-bit number, 65504; keep the weights in 32 bits"
    )]
    BeyondHalf {
        /// The tensor.
        name: String,
        /// The first such value.
        value: f32,
        /// Where, in row-major order.
        index: usize,
    },
    /// There is no such network, or it has no such option.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The network cannot be written as ONNX.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The file cannot be written.
    #[error("cannot write {}: {reason}", told(.path))]
    Write {
        /// The file.
        path: PathBuf,
        /// What the writer says.
        reason: String,
    },
}

/// How a file's entries differ from a network's state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mismatch {
    /// In the network, not in the file.
    pub missing: Vec<String>,
    /// In the file, not in the network.
    pub unexpected: Vec<String>,
    /// In both, with the network's shape and the file's.
    pub misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
    /// In both, of a type that is no floating-point number.
    pub mistyped: Vec<(String, String)>,
}

/// A path on one line, without what would steer a terminal.
fn told(path: &Path) -> String {
    let escape = |character: char| match character.is_control() {
        true => character.escape_default().collect(),
        false => String::from(character),
    };
    path.display().to_string().chars().map(escape).collect()
}

impl Mismatch {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        fn rows(f: &mut std::fmt::Formatter, title: &str, rows: &[String]) -> std::fmt::Result {
            const SHOWN: usize = 8;
            if rows.is_empty() {
                return Ok(());
            }
            write!(f, "\n  {title} ({}): {}", rows.len(), rows[..rows.len().min(SHOWN)].join(", "))?;
            if rows.len() > SHOWN { write!(f, ", and {} more", rows.len() - SHOWN) } else { Ok(()) }
        }
        let misshapen = self.misshapen.iter().map(|(name, own, theirs)| format!("{name} is {own:?}, here {theirs:?}"));
        let mistyped = self.mistyped.iter().map(|(name, dtype)| format!("{name} is {dtype}"));
        rows(f, "missing", &self.missing)?;
        rows(f, "unexpected", &self.unexpected)?;
        rows(f, "of another shape", &misshapen.collect::<Vec<_>>())?;
        rows(f, "not floating-point", &mistyped.collect::<Vec<_>>())
    }
}

/// A checkpoint's tensors by name, wrappers stripped; each is read from the file when it is used.
pub struct Checkpoint {
    /// Where it is from, for errors.
    path: PathBuf,
    tensors: BTreeMap<String, PackTensor>,
    metadata: Option<Metadata>,
    /// The operations around the tensors, where the file has some.
    onnx: Option<OnnxFile>,
    /// The scales of a quantized network.
    quantization: Option<Quantization>,
}

/// What a file stores of its network besides the tensors.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// The network's name.
    pub model: String,
    /// How it differs from its variant; classes and channels are left to the tensors.
    #[serde(default)]
    pub options: Options,
    /// The names of its classes, if it knows them.
    #[serde(default)]
    pub labels: Vec<String>,
    /// How images become its input, where that is not as its family has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preprocessing: Option<Preprocessing>,
}

impl Metadata {
    fn to_json(&self) -> String {
        serde_json::to_string(self).expect("names, numbers and flags are JSON")
    }
}

/// The one key that the metadata is stored under: a map of several would be written in another order each time, and the
/// same weights would make different files.
const METADATA_KEY: &str = "convzoo";

impl Checkpoint {
    /// Opens a checkpoint of any known format.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let damaged = |reason: String| WeightsError::Damaged { path: path.to_owned(), reason };
        let format = sniff(path)?;
        let length = path.metadata().map_or(0, |metadata| metadata.len());
        let (mut metadata, mut onnx) = (None, None);
        let tensors = match format {
            Format::Safetensors => {
                let read = |source| WeightsError::Read { path: path.to_owned(), source };
                let mut file = File::open(path).map_err(read)?;
                let header = SafetensorsHeader::read(&mut file).map_err(damaged)?;
                metadata = header.metadata();
                let file = Arc::new(Mutex::new(file));
                let store = SafetensorsStore::from_file(path).map_indices_contiguous(false);
                tensors_of(store).map(|tensors| header.seek(tensors, &file))
            }
            Format::Compressed => {
                let (tensors, text) = compressed::open(path)?;
                metadata = text;
                Ok(tensors)
            }
            Format::Pytorch => {
                if let Some(name) = foreign_name(path).map_err(damaged)? {
                    return Err(WeightsError::Refused { path: path.to_owned(), name });
                }
                tensors_of(PytorchStore::from_file(path).map_indices_contiguous(false)).and_then(|tensors| {
                    // A view may repeat one number, a compressed storage expand, to any size.
                    match tensors.values().find(|tensor| tensor.byte_len() as u64 > length) {
                        Some(tensor) => Err(format!("'{}' claims more bytes than the file has", tensor.name)),
                        None => Ok(tensors),
                    }
                })
            }
            // The reader would make room for it first.
            Format::Burnpack { metadata } if u64::from(metadata) > length => {
                Err(format!("its header claims {metadata} bytes"))
            }
            Format::Burnpack { .. } => {
                let pack = Reader::from_file_exact(path).map_err(|error| damaged(error.to_string()))?;
                metadata = pack.metadata().get(METADATA_KEY).and_then(|text| serde_json::from_str(text).ok());
                let tensors = pack.into_tensors().map_err(|error| error.to_string());
                tensors.map(|tensors| tensors.into_iter().map(|tensor| (tensor.name.clone(), owned(tensor))).collect())
            }
            Format::Onnx => {
                let file = OnnxFile::open(path)?;
                metadata = file.metadata();
                let tensors = file.tensors()?;
                onnx = Some(file);
                Ok(tensors)
            }
        };
        let (tensors, quantization) = quantized::split(unwrap_names(tensors.map_err(damaged)?)).map_err(damaged)?;
        Ok(Self { path: path.to_owned(), tensors, metadata, onnx, quantization })
    }

    /// A checkpoint in safetensors bytes, such as a program embeds.
    pub fn from_safetensors(bytes: &[u8]) -> Result<Self, WeightsError> {
        let path = PathBuf::from("embedded weights");
        let damaged = |reason: String| WeightsError::Damaged { path: path.clone(), reason };
        let header = SafetensorsHeader::read(&mut &*bytes).map_err(damaged)?;
        let store = SafetensorsStore::from_bytes(Some(bytes.to_vec())).map_indices_contiguous(false);
        let tensors = tensors_of(store).map_err(damaged)?;
        let tensors = header.seek(tensors, &Arc::new(Mutex::new(io::Cursor::new(bytes.to_vec()))));
        let (tensors, quantization) = quantized::split(unwrap_names(tensors)).map_err(damaged)?;
        Ok(Self { path, tensors, metadata: header.metadata(), onnx: None, quantization })
    }

    /// Where it is from, for errors.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Names and shapes of all tensors.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shape.as_slice()))
    }

    /// A checkpoint of tensors in memory.
    pub fn from_tensors(tensors: impl IntoIterator<Item = PackTensor>) -> Self {
        let tensors = tensors.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
        Self { path: PathBuf::from("the tensors"), tensors, metadata: None, onnx: None, quantization: None }
    }

    /// One dimension of a layer's weight: the first counts its outputs, the second its inputs.
    pub(crate) fn dimension(&self, layer: &str, dimension: usize) -> Option<usize> {
        if let Some(size) = self.onnx.as_ref().and_then(|file| file.dimension(dimension)) {
            return Some(size);
        }
        let weight = self.tensors.get(&format!("{layer}.weight"))?;
        // An empty tensor can claim any size and none of it is in the file.
        if weight.shape.contains(&0) { None } else { weight.shape.get(dimension).copied() }
    }

    /// What the file stores of its network besides the tensors, if convzoo wrote it.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }

    /// Puts the tensors into `network`, converted to f32, or says what does not fit and changes nothing.
    pub fn apply<N: Classifier>(mut self, network: N) -> Result<N, WeightsError> {
        self.respell(&network);
        let state = name_tree(&network).state;
        let mut mismatch = Mismatch::default();
        if let Some(file) = self.onnx.take() {
            let (tensors, unexpected) = file.weights(&network)?;
            mismatch.unexpected = unexpected;
            // What the forward pass does not use has its name at best.
            self.tensors.retain(|name, _| state.iter().any(|entry| entry.name == *name));
            self.tensors.extend(tensors);
        }
        let in_file = |layer: &str| self.tensors.keys().any(|name| optional_layer(&network, name) == Some(layer));
        let absent = |name: &str| optional_layer(&network, name).is_some_and(|layer| !in_file(layer));
        let absent: HashSet<_> = state.iter().map(|entry| entry.name.clone()).filter(|name| absent(name)).collect();

        let mut found = Vec::new();
        let not_finite = Arc::default();
        for entry in state.into_iter().filter(|entry| !absent.contains(&entry.name)) {
            let Some(tensor) = self.tensors.remove(&entry.name) else {
                mismatch.missing.push(entry.name);
                continue;
            };
            let shape = tensor.shape.to_vec();
            if !tensor.dtype.is_float() {
                mismatch.mistyped.push((entry.name, format!("{:?}", tensor.dtype)));
            } else if shape != entry.shape {
                mismatch.misshapen.push((entry.name, entry.shape, shape));
            } else {
                found.push(finite(tensor, entry.path, &not_finite));
            }
        }
        mismatch.unexpected.extend(self.tensors.into_keys());
        if !mismatch.is_empty() {
            return Err(WeightsError::Mismatch { mismatch });
        }
        let mut network = network;
        let result = network.apply(found, None, None, true);
        let not_finite: Option<Misfit> = not_finite.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (not_finite, result.errors.first()) {
            (Some(Misfit { name, value, index }), _) => {
                Err(WeightsError::NotFinite { path: self.path, name, value, index })
            }
            (None, Some(error)) => Err(WeightsError::Damaged { path: self.path, reason: error.to_string() }),
            (None, None) => Ok(network.with_quantization(self.quantization)),
        }
    }

    /// Gives tensors with older names the network's.
    fn respell<N: Classifier>(&mut self, network: &N) {
        let tensors = std::mem::take(&mut self.tensors).into_iter();
        let spelled = tensors.map(|(name, tensor)| (network.respell(&name), tensor));
        self.tensors = spelled.collect();
    }
}

/// A value that a tensor must not hold.
struct Misfit {
    name: String,
    value: f32,
    index: usize,
}

/// A tensor in f32 under the network's `path`, refused when it is read if a value of it is not finite; which one is
/// then in `misfit`, for what the store makes of the refusal is text.
fn finite(tensor: PackTensor, path: String, misfit: &Arc<Mutex<Option<Misfit>>>) -> PackTensor {
    let (shape, misfit) = (tensor.shape.clone(), Arc::clone(misfit));
    bridge::deferred(path, DType::F32, shape, None, move || {
        let data = bridge::to_data(&tensor)?.convert_dtype(DType::F32);
        let found = match data.as_slice::<f32>() {
            Ok(values) => values.iter().position(|value| !value.is_finite()).map(|index| (index, values[index])),
            // Unaligned bytes are read one number at a time.
            Err(_) => data.iter::<f32>().enumerate().find(|(_, value)| !value.is_finite()),
        };
        if let Some((index, value)) = found {
            let found = Misfit { name: tensor.name.clone(), value, index };
            misfit.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(found);
            return Err(PackError::ValidationError(format!("'{}' holds {value}", tensor.name)));
        }
        Ok(data)
    })
}

/// Loads the weights in `path` into `network`.
pub fn load<N: Classifier>(network: N, path: &Path) -> Result<N, WeightsError> {
    Checkpoint::open(path)?.apply(network)
}

/// Precision of the weights in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// As they are.
    Full,
    /// In half precision, half the size.
    Half,
}

/// Saves `network` as safetensors in the reference's names, in one step: the file is whole or not there.
pub fn save<N: Classifier>(network: &N, path: &Path) -> Result<(), WeightsError> {
    save_as(network, path, Precision::Full)
}

/// [`save`] in a precision. In half precision, a value that 16 bits cannot hold is an error and nothing is written.
pub fn save_as<N: Classifier>(network: &N, path: &Path, precision: Precision) -> Result<(), WeightsError> {
    check_precision(network, precision)?;
    let write = |reason: String| WeightsError::Write { path: path.to_owned(), reason };
    let scratch = Scratch::beside(path).map_err(|error| write(error.to_string()))?;
    let store = SafetensorsStore::from_file(&scratch.file)
        .overwrite(true)
        .skip_enum_variants(true)
        .clear_metadata()
        .with_to_adapter(Rename::of(network, precision));
    let mut store = match network.metadata() {
        Some(metadata) => store.metadata(METADATA_KEY, metadata.to_json()),
        None => store,
    };
    store.collect_from(network).map_err(|error| write(error.to_string()))?;
    scratch.publish().map_err(|error| write(error.to_string()))
}

/// Saves `network` in Burn's own pack, in the reference's names too: the same bytes each time.
pub fn save_pack<N: Classifier>(network: &N, path: &Path, precision: Precision) -> Result<(), WeightsError> {
    check_precision(network, precision)?;
    let write = |reason: String| WeightsError::Write { path: path.to_owned(), reason };
    let scratch = Scratch::beside(path).map_err(|error| write(error.to_string()))?;
    let mut tensors = network.collect(None, Some(Box::new(Rename::of(network, precision))), true);
    // Burn draws these at random wherever a network is made; names are what tensors are found by.
    tensors.iter_mut().for_each(|tensor| tensor.param_id = None);
    let writer = Writer::new(tensors).auto_extension(false);
    let writer = match network.metadata() {
        Some(metadata) => writer.with_metadata(METADATA_KEY, &metadata.to_json()),
        None => writer,
    };
    writer.write_to_file(&scratch.file).map_err(|error| write(error.to_string()))?;
    scratch.publish().map_err(|error| write(error.to_string()))
}

/// Refuses values that 16 bits cannot hold, where they are to be written so: they would become infinite.
fn check_precision<N: Classifier>(network: &N, precision: Precision) -> Result<(), WeightsError> {
    if precision == Precision::Full {
        return Ok(());
    }
    for tensor in network.collect(None, Some(Box::new(Rename::of(network, Precision::Full))), true) {
        let name = tensor.name.clone();
        let unreadable = |error: String| WeightsError::Damaged { path: PathBuf::from(&name), reason: error };
        let data = bridge::into_data(tensor).map_err(|error| unreadable(error.to_string()))?;
        let halves = data.clone().convert_dtype(DType::F16);
        let pairs = data.iter::<f32>().zip(halves.iter::<f32>()).enumerate();
        let beyond = |(index, (value, half)): (usize, (f32, f32))| {
            (value.is_finite() && half.is_infinite()).then_some((index, value))
        };
        if let Some((index, value)) = pairs.filter_map(beyond).next() {
            return Err(WeightsError::BeyondHalf { name, value, index });
        }
    }
    Ok(())
}

/// A folder beside a file that is written, in which it and what the formats' libraries put beside it lie until it is
/// whole. It goes when the write fails, and the next write to the same file removes those of processes that were
/// killed: a lock in it tells whether its process lives.
pub(crate) struct Scratch {
    folder: TempDir,
    /// Where to write the file.
    pub file: PathBuf,
    target: PathBuf,
    _lock: File,
}

const LOCK: &str = "lock";

impl Scratch {
    pub fn beside(target: &Path) -> io::Result<Self> {
        let name =
            target.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it is no file name"))?;
        let mut prefix = name.to_owned();
        prefix.push(".");
        let around = folder_of(target);
        sweep(around, &prefix)?;
        let folder = tempfile::Builder::new().prefix(&prefix).suffix(".tmp").tempdir_in(around)?;
        // Locked before it has its name, so that nobody finds it unlocked.
        let lock = File::create(folder.path().join("locking"))?;
        // Where locks are unknown, as on some network file systems, nobody can sweep either.
        let _ = lock.try_lock();
        fs::rename(folder.path().join("locking"), folder.path().join(LOCK))?;
        Ok(Self { file: folder.path().join(name), target: target.to_owned(), _lock: lock, folder })
    }

    /// Gives the file its name, with the permissions of what it replaces, else those of this user's new files.
    pub fn publish(self) -> io::Result<()> {
        match fs::metadata(&self.target) {
            Ok(replaced) if replaced.is_file() => fs::set_permissions(&self.file, replaced.permissions())?,
            _ => open_to_others(&self.file)?,
        }
        // The writers have synced its bytes.
        fs::rename(&self.file, &self.target)?;
        #[cfg(unix)]
        File::open(folder_of(&self.target))?.sync_all()?;
        self.folder.close()
    }
}

/// Removes the scratch folders of processes that are gone.
fn sweep(folder: &Path, prefix: &OsStr) -> io::Result<()> {
    for entry in fs::read_dir(folder)?.filter_map(Result::ok) {
        let name = entry.file_name();
        let ours = name.as_encoded_bytes().starts_with(prefix.as_encoded_bytes())
            && name.as_encoded_bytes().ends_with(b".tmp");
        let lock = if ours { File::open(entry.path().join(LOCK)).ok() } else { None };
        if lock.is_some_and(|lock| lock.try_lock().is_ok()) {
            // Another process may be removing it, too.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Gives a file the permissions that new files of this user have: safetensors makes its own for the owner alone.
pub fn open_to_others(path: &Path) -> io::Result<()> {
    #[cfg(not(unix))]
    let _ = path;
    #[cfg(unix)]
    {
        let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        let sample = tempfile::Builder::new().permissions(everyone).tempfile_in(folder_of(path))?;
        std::fs::set_permissions(path, sample.as_file().metadata()?.permissions())?;
    }
    Ok(())
}

/// Gives each tensor the reference's name, and the precision asked for, on its way to a file.
#[derive(Clone)]
struct Rename {
    names: HashMap<String, String>,
    precision: Precision,
}

impl Rename {
    fn of<N: Classifier>(network: &N, precision: Precision) -> Self {
        let tree = name_tree(network);
        Self { names: tree.state.into_iter().map(|entry| (entry.path, entry.name)).collect(), precision }
    }
}

impl ModuleAdapter for Rename {
    fn adapt(&self, mut tensor: PackTensor, _: ModuleContext<'_>) -> PackTensor {
        if let Some(name) = self.names.get(&tensor.name) {
            tensor.name = name.clone();
        }
        match self.precision {
            Precision::Full => tensor,
            Precision::Half => {
                let (name, shape) = (tensor.name.clone(), tensor.shape.clone());
                bridge::map_data(tensor, name, DType::F16, shape, |data| data.convert_dtype(DType::F16))
            }
        }
    }

    fn clone_box(&self) -> Box<dyn ModuleAdapter> {
        Box::new(self.clone())
    }
}

/// Where a safetensors file says its tensors are, and its metadata.
#[derive(Deserialize)]
struct SafetensorsHeader {
    #[serde(default, rename = "__metadata__")]
    strings: HashMap<String, String>,
    #[serde(flatten)]
    entries: HashMap<String, SafetensorsEntry>,
    /// Where the header ends and offsets count from.
    #[serde(skip)]
    end: u64,
}

#[derive(Deserialize)]
struct SafetensorsEntry {
    data_offsets: [u64; 2],
}

impl SafetensorsHeader {
    fn read(file: &mut impl Read) -> Result<Self, String> {
        let mut read = || -> io::Result<Vec<u8>> {
            let mut length = [0; 8];
            file.read_exact(&mut length)?;
            let length = u64::from_le_bytes(length);
            // A lying length reads no more than there is.
            let mut header = Vec::new();
            file.take(length.min(MAX_HEADER)).read_to_end(&mut header)?;
            Ok(header)
        };
        let bytes = read().map_err(|error| error.to_string())?;
        let header: Self = serde_json::from_slice(&bytes).map_err(|error| format!("its header is no JSON: {error}"))?;
        Ok(Self { end: 8 + bytes.len() as u64, ..header })
    }

    /// Our entry in the table of strings; another program's of this name is none of ours.
    fn metadata(&self) -> Option<Metadata> {
        self.strings.get(METADATA_KEY).and_then(|text| serde_json::from_str(text).ok())
    }

    /// The tensors of the store, which has checked them, read from where they are: the store would parse the whole
    /// header again for each of them.
    fn seek<F: Read + Seek + Send + 'static>(
        &self,
        tensors: BTreeMap<String, PackTensor>,
        file: &Arc<Mutex<F>>,
    ) -> BTreeMap<String, PackTensor> {
        let seek = |(name, tensor): (String, PackTensor)| {
            let Some(entry) = self.entries.get(&name) else { return (name, tensor) };
            let (start, length) = (self.end.saturating_add(entry.data_offsets[0]), tensor.byte_len());
            let (file, shape, dtype) = (Arc::clone(file), tensor.shape.clone(), tensor.dtype);
            let read = move || {
                let mut bytes = vec![0; length];
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                let read = file.seek(SeekFrom::Start(start)).and_then(|_| file.read_exact(&mut bytes));
                read.map_err(|error| PackError::IoError(error.to_string()))?;
                Ok(TensorData::from_bytes_vec(bytes, shape.clone(), dtype))
            };
            (name.clone(), bridge::deferred(name, dtype, tensor.shape, None, read))
        };
        tensors.into_iter().map(seek).collect()
    }
}

/// A pack's tensor, read when it is used: left as it is, it would be a view into the file even in the network.
fn owned(tensor: PackTensor) -> PackTensor {
    let (name, dtype, shape) = (tensor.name.clone(), tensor.dtype, tensor.shape.clone());
    let declared = shape.clone();
    bridge::deferred(name, dtype, shape, None, move || {
        let bytes = tensor.to_bytes()?.to_vec();
        Ok(TensorData::from_bytes_vec(bytes, declared.clone(), dtype))
    })
}

/// What the safetensors format allows for its header.
const MAX_HEADER: u64 = 100_000_000;

enum Format {
    Safetensors,
    Compressed,
    Pytorch,
    Burnpack {
        /// Bytes of the header's table, as it claims.
        metadata: u32,
    },
    Onnx,
}

/// The largest file that is read as weights: thirty times VGG-19's.
const MOST_BYTES: u64 = 16 << 30;

/// Refuses what is no regular file of a sane size: opening a pipe waits for its writer, a device may have no end.
pub fn check_file(path: &Path) -> io::Result<()> {
    let metadata = fs::metadata(path)?;
    let refused = |reason: String| Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    if !metadata.is_file() {
        return refused("it is not a regular file".to_owned());
    }
    match metadata.len() {
        0..=MOST_BYTES => Ok(()),
        length => refused(format!("its {length} bytes are more than the {MOST_BYTES} that are read as weights")),
    }
}

/// Tells the format by the first bytes.
fn sniff(path: &Path) -> Result<Format, WeightsError> {
    let read = |source| WeightsError::Read { path: path.to_owned(), source };
    check_file(path).map_err(read)?;
    let mut head = Vec::new();
    File::open(path).map_err(read)?.take(16).read_to_end(&mut head).map_err(read)?;
    match head.as_slice() {
        // The length of a JSON header, then the header. It is checked first: a length can start with any byte.
        [_, _, _, _, _, _, 0, 0, b'{', ..] => Ok(Format::Safetensors),
        head if head.starts_with(convzoo_compress::MAGIC) => Ok(Format::Compressed),
        // A zip archive, or a pickle of protocol 2 or later.
        [b'P', b'K', ..] | [0x80, ..] => Ok(Format::Pytorch),
        // Its version in two bytes, then the length of its table.
        &[b'N', b'R', b'U', b'B', _, _, a, b, c, d, ..] => {
            Ok(Format::Burnpack { metadata: u32::from_le_bytes([a, b, c, d]) })
        }
        head if Contents::begin_with(head) => Ok(Format::Onnx),
        _ => Err(WeightsError::Format { path: path.to_owned() }),
    }
}

fn tensors_of<S: ModuleStore>(mut store: S) -> Result<BTreeMap<String, PackTensor>, String> {
    store.get_all_tensors().cloned().map_err(|error| error.to_string())
}

/// What a pickle names besides tensors and plain records, if anything.
fn foreign_name(path: &Path) -> Result<Option<String>, String> {
    fn find(value: PickleValue) -> Option<String> {
        match value {
            PickleValue::List(values) => values.into_iter().find_map(find),
            PickleValue::Dict(values) => values.into_values().find_map(find),
            PickleValue::Unsupported(name) => (!is_plain(&name)).then_some(name),
            _ => None,
        }
    }
    PytorchReader::read_pickle_data(path, None).map(find).map_err(|error| error.to_string())
}

/// Whether this Python type is a tensor, a number or a record of such: what PyTorch's own `weights_only` takes, and
/// what training scripts put beside the weights, their options and a best accuracy.
fn is_plain(name: &str) -> bool {
    let (module, class) = name.rsplit_once('.').unwrap_or(("", name));
    match module {
        "" => class == "int",
        "torch" => {
            let types = ["Tensor", "Size", "device"];
            let prefixes = ["float", "bfloat", "int", "uint", "complex", "bool", "half", "double", "long", "short"];
            types.contains(&class) || class.ends_with("Storage") || prefixes.iter().any(|p| class.starts_with(p))
        }
        "torch.nn.parameter" => class == "Parameter",
        "collections" => ["OrderedDict", "Counter", "defaultdict"].contains(&class),
        "builtins" | "__builtin__" => ["set", "frozenset", "bytearray", "complex"].contains(&class),
        "numpy" => class == "dtype",
        "numpy.core.multiarray" | "numpy._core.multiarray" => ["scalar", "_reconstruct"].contains(&class),
        "_codecs" => class == "encode",
        "argparse" => class == "Namespace",
        _ => false,
    }
}

/// Strips what wraps the names: `state_dict.`, `model.`, `module.`; drops counters that inference has no use for.
fn unwrap_names(mut tensors: BTreeMap<String, PackTensor>) -> BTreeMap<String, PackTensor> {
    tensors.retain(|name, _| !name.ends_with("num_batches_tracked"));
    // A file's names can nest far deeper, and each layer costs a pass.
    for _ in 0..4 {
        let Some(wrapper) = wrapper(&tensors) else { break };
        let inside = |(name, tensor): (String, _)| Some((name.strip_prefix(wrapper)?.to_owned(), tensor));
        tensors = tensors.into_iter().filter_map(inside).collect();
    }
    tensors
}

/// The outermost wrapper. What training scripts save beside the weights, such as an optimizer's state, is not in it.
fn wrapper(tensors: &BTreeMap<String, PackTensor>) -> Option<&'static str> {
    const BESIDE: [&str; 5] = ["optimizer", "lr_scheduler", "scheduler", "scaler", "model_ema"];
    let any = |wrapper: &str| tensors.keys().any(|name| name.starts_with(wrapper));
    let beside = |(name, tensor): (&String, &PackTensor)| {
        tensor.shape.is_empty() || BESIDE.contains(&name.split('.').next().unwrap_or_default())
    };
    let all = |wrapper: &str| {
        let inside = |name: &str| name.starts_with(wrapper);
        any(wrapper) && tensors.iter().all(|entry| inside(entry.0) || wrapper == "model." && beside(entry))
    };
    // No layer is called as the method is that gives a state dict; a layer may well be called `model`.
    let within = ["state_dict.", "model_state_dict."].into_iter().find(|wrapper| any(wrapper));
    within.or_else(|| ["model.", "module."].into_iter().find(|wrapper| all(wrapper)))
}
