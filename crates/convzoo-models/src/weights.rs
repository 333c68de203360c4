//! Loading and saving weights, by the names of PyTorch's state dicts.
//!
//! [`load`] tells PyTorch's checkpoints, safetensors (quantized ones, too), Burn's own pack, ONNX and compressed files apart by content and
//! matches entries against the names that the network's tree gives ([`Classifier::reference_name`]); wrappers
//! (`state_dict`, `model`, `module.`) and `num_batches_tracked` are ignored. [`save`] writes safetensors that
//! `load_state_dict` takes.

mod compressed;
mod error;
mod format;
mod quantized;
mod safetensors;
mod save;
mod scratch;

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use burn::store::burn_pack::{Error as PackError, Reader, Tensor as PackTensor};
use burn::store::{ModuleSnapshot, ModuleStore, PytorchStore, SafetensorsStore, bridge};
use burn::tensor::{DType, TensorData};
pub use compressed::{compressed, save_compressed, tensors, with_tensors};
pub use error::{Mismatch, WeightsError};
pub use format::check_file;
use format::{Format, foreign_name, sniff};
pub use quantized::save_quantized;
pub use save::{Precision, save, save_as, save_pack};
pub(crate) use scratch::Scratch;
pub use scratch::open_to_others;
use serde::{Deserialize, Serialize};

use crate::names::{name_tree, optional_layer};
use crate::onnx::OnnxFile;
use crate::quantize::Quantization;
use crate::{Classifier, Options, Preprocessing};

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
                let header = safetensors::Header::read(&mut file).map_err(damaged)?;
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
        let header = safetensors::Header::read(&mut &*bytes).map_err(damaged)?;
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

/// A pack's tensor, read when it is used: left as it is, it would be a view into the file even in the network.
fn owned(tensor: PackTensor) -> PackTensor {
    let (name, dtype, shape) = (tensor.name.clone(), tensor.dtype, tensor.shape.clone());
    let declared = shape.clone();
    bridge::deferred(name, dtype, shape, None, move || {
        let bytes = tensor.to_bytes()?.to_vec();
        Ok(TensorData::from_bytes_vec(bytes, declared.clone(), dtype))
    })
}

fn tensors_of<S: ModuleStore>(mut store: S) -> Result<BTreeMap<String, PackTensor>, String> {
    store.get_all_tensors().cloned().map_err(|error| error.to_string())
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
