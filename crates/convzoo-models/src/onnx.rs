//! Networks as ONNX files, and weights from such files, convzoo's or those of PyTorch's exporters.
//!
//! ```
//! use burn::tensor::Device;
//! use convzoo_models::{Options, create};
//!
//! let network = create("lenet5", &Options::default(), &Device::flex())?;
//! let folder = tempfile::tempdir()?;
//! network.to_onnx().save(&folder.path().join("lenet5.onnx"))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use burn::store::bridge;
use burn::store::burn_pack::{Error as PackError, Tensor as PackTensor};
use burn::tensor::{DType, TensorData};
use convzoo_blocks::graph::{Graph, Parameter};
use convzoo_kernels::Values;
use convzoo_onnx::{
    Contents, ElementType, ExportError, MOST_BYTES, Model, Norms, Place, Source, Stored, export, export_quantized,
};

use crate::fused::{in_bytes, weights_of};
use crate::registry::MOST_CHANNELS;
use crate::weights::{Metadata, Scratch, WeightsError, check_file};
use crate::{Classifier, ModelError, Network};

/// The metadata entry with the network's name and options.
const NETWORK_KEY: &str = "convzoo";
/// The metadata entry with the names of the classes, a JSON array.
const LABELS_KEY: &str = "labels";
/// The metadata entry with the preprocessing, a JSON object.
const PREPROCESSING_KEY: &str = "preprocessing";

/// The largest side of images that a file may have a network recorded for.
const MOST_PIXELS: usize = 1 << 14;

/// How a network is written as an ONNX file.
///
/// The file takes batches of any size of images of one size, `input`, `[batch, channels, height, width]`, and gives
/// `logits`, `[batch, classes]`. Tensors are called as in the state dict, operations as their layers. Its metadata has
/// the preprocessing (`preprocessing`, JSON: `size`, `resize`, `interpolation`, `mean`, `std`), the names of the classes,
/// where the network knows them (`labels`, a JSON array), and what convzoo itself wants to know (`convzoo`).
///
/// A network that was [quantized](Network::quantize) is written in bytes, by pairs of `QuantizeLinear` and
/// `DequantizeLinear`: weights as signed bytes with a scale for each output, values as unsigned bytes where
/// [`Precision::Int8`](crate::Precision) rounds them, biases as 32-bit integers.
pub struct OnnxExport<'a, N> {
    network: &'a N,
    input: [usize; 3],
    norms: Norms,
}

impl Network {
    /// The network as an ONNX file for images of [its size](Self::input), batch norms folded into convolutions.
    pub fn to_onnx(&self) -> OnnxExport<'_, Self> {
        OnnxExport::new(self, self.input())
    }
}

impl<'a, N: Classifier> OnnxExport<'a, N> {
    /// A network as an ONNX file for images of `[channels, height, width]`, batch norms folded into convolutions.
    pub fn new(network: &'a N, input: [usize; 3]) -> Self {
        Self { network, input, norms: Norms::Folded }
    }

    /// With all batch norms as operations of their own, as they are in the state dict; not for quantized networks.
    pub fn keep_norms(self) -> Self {
        Self { norms: Norms::Kept, ..self }
    }

    /// For images of another size.
    pub fn for_images(self, input: [usize; 3]) -> Self {
        Self { input, ..self }
    }

    /// Writes the file, in one step: it is whole or not there. Weights of more than two gigabytes, which no ONNX file
    /// holds, go to `FILE.data` beside it.
    ///
    /// # Errors
    /// The network does not take such images or has an operation that ONNX has not, or the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), WeightsError> {
        let model = self.model()?;
        let write = |error: io::Error| WeightsError::Write { path: path.to_owned(), reason: error.to_string() };
        let scratch = Scratch::beside(path).map_err(write)?;
        if model.bytes() <= MOST_BYTES {
            written(&scratch.file, |file| model.write(file)).map_err(write)?;
            return scratch.publish().map_err(write);
        }
        let data = data_path(path);
        if data.exists() {
            let reason = format!("its weights belong into {}, which is there already; remove it first", data.display());
            return Err(WeightsError::Write { path: path.to_owned(), reason });
        }
        let name = data.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let weights = Scratch::beside(&data).map_err(write)?;
        let both = written(&weights.file, |data| written(&scratch.file, |file| model.write_apart(file, data, &name)));
        // The weights first: a model without them is no model.
        both.and_then(|()| weights.publish()).and_then(|()| scratch.publish()).map_err(write)
    }

    /// The bytes of the file.
    ///
    /// # Errors
    /// The network does not take such images or has an operation that ONNX has not, or there are more than two gigabytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, WeightsError> {
        let model = self.model()?;
        let bytes = model.bytes();
        let write = |reason: String| WeightsError::Write { path: PathBuf::from("the ONNX file"), reason };
        if bytes > MOST_BYTES {
            return Err(write(format!(
                "its {bytes} bytes are more than the {MOST_BYTES} that ONNX allows for one file"
            )));
        }
        let mut file = Vec::with_capacity(bytes as usize);
        model.write(&mut file).map_err(|error| write(error.to_string()))?;
        Ok(file)
    }

    fn model(&self) -> Result<Model<Values>, WeightsError> {
        let graph = self.network.graph(self.input)?;
        let values = weights_of(self.network);
        let value = |parameter: &Parameter| values.get(&parameter.id).cloned();
        let model = match (self.network.quantization(), self.norms) {
            (None, norms) => export(&graph, norms, value)?,
            (Some(quantization), Norms::Folded) => {
                export_quantized(&graph, in_bytes(&graph, &values, quantization)?, value)?
            }
            (Some(_), Norms::Kept) => return Err(ExportError::NormsInBytes.into()),
        };
        let [_, height, width] = self.input;
        let preprocessing = self.network.preprocessing().with_size([height, width]);
        let json = |value: serde_json::Result<String>| value.expect("names and numbers are JSON");
        let model = model.with_metadata(PREPROCESSING_KEY, &json(serde_json::to_string(&preprocessing)));
        let Some(metadata) = self.network.metadata() else { return Ok(model) };
        let Metadata { labels, .. } = &metadata;
        let model = match labels.as_slice() {
            [] => model,
            labels => model.with_metadata(LABELS_KEY, &json(serde_json::to_string(labels))),
        };
        let own = Metadata { labels: Vec::new(), preprocessing: None, ..metadata };
        Ok(model.with_metadata(NETWORK_KEY, &json(serde_json::to_string(&own))))
    }
}

/// Writes a file through a buffer, to the disk.
fn written(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    write(&mut file)?;
    file.flush()?;
    file.get_ref().sync_all()
}

/// Where the weights go that one file has no room for.
fn data_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".data");
    PathBuf::from(name)
}

/// An ONNX file that weights are read from.
pub(crate) struct OnnxFile {
    path: PathBuf,
    contents: Contents,
    file: Arc<Mutex<File>>,
    length: u64,
}

impl OnnxFile {
    /// Reads what is in a file besides the numbers.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let read = |source| WeightsError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(read)?;
        let length = file.metadata().map_err(read)?.len();
        let contents = Contents::read(BufReader::new(&file), length);
        let contents = contents.map_err(|error| damaged(path, error.to_string()))?;
        Ok(Self { path: path.to_owned(), contents, file: Arc::new(Mutex::new(file)), length })
    }

    /// What convzoo has written of the network, if it wrote the file.
    pub fn metadata(&self) -> Option<Metadata> {
        let entry = |key| self.contents.metadata(key);
        let own: Metadata = serde_json::from_str(entry(NETWORK_KEY)?).ok()?;
        let labels = entry(LABELS_KEY).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let preprocessing = entry(PREPROCESSING_KEY).and_then(|text| serde_json::from_str(text).ok());
        Some(Metadata { labels, preprocessing, ..own })
    }

    /// The classes, by the first dimension of the weights of the last layer, or the channels of the images, by the second
    /// of the first's: as the file says.
    pub fn dimension(&self, dimension: usize) -> Option<usize> {
        let size = match dimension {
            0 => *self.contents.output()?.get(1)?,
            _ => *self.contents.images()?.get(1)?,
        };
        // There is a number for each of them.
        size.filter(|size| *size as u64 <= self.length)
    }

    /// Its floating-point tensors by name.
    pub fn tensors(&self) -> Result<BTreeMap<String, PackTensor>, WeightsError> {
        let floats = self.contents.tensors().filter(|(_, tensor)| tensor.kind.is_some());
        let whole = floats.filter(|(_, tensor)| tensor.place != Place::Nowhere);
        let tensors =
            whole.map(|(name, tensor)| Ok((name.to_owned(), self.tensor(name, tensor, tensor.dims.clone(), false)?)));
        tensors.collect()
    }

    /// The tensors of a network by its names, and the names of those that layers of the file have and the network does not.
    pub fn weights<N: Classifier>(
        &self,
        network: &N,
    ) -> Result<(BTreeMap<String, PackTensor>, Vec<String>), WeightsError> {
        // Of weights in bytes there are floats only when the file is run.
        if self.contents.operations().any(|(operation, ..)| operation == "DequantizeLinear") {
            return Err(WeightsError::QuantizedOnnx { path: self.path.clone() });
        }
        let graph = self.graph(network)?;
        let weights = self.contents.weights(&graph, |name| network.respell(name));
        let mut tensors = BTreeMap::new();
        for (name, (shape, source)) in weights.found {
            let tensor = match source {
                Source::Stored { tensor, transposed } => self.tensor(&name, &tensor, shape, transposed)?,
                Source::Filled(value) => {
                    let elements = shape.iter().product();
                    bridge::from_data(TensorData::new(vec![value; elements], shape), name.clone(), None)
                }
            };
            tensors.insert(name, tensor);
        }
        Ok((tensors, weights.unexpected))
    }

    /// The network's graph for the images of the file or, where it leaves their size open, those of the network.
    fn graph<N: Classifier>(&self, network: &N) -> Result<Graph, ModelError> {
        let declared = match self.contents.images() {
            Some(&[_, channels, height, width]) => [channels, height, width],
            _ => [None; 3],
        };
        let [own_height, own_width] = network.preprocessing().size;
        let sizes = [(own_height, MOST_PIXELS), (own_width, MOST_PIXELS)];
        let channels = declared[0].filter(|channels| (1..=MOST_CHANNELS).contains(channels)).unwrap_or(3);
        let [height, width] = [0, 1].map(|i| {
            let (own, most) = sizes[i];
            declared[i + 1].filter(|side| (1..=most).contains(side)).unwrap_or(own)
        });
        network.graph([channels, height, width]).or_else(|_| network.graph([channels, own_height, own_width]))
    }

    /// A tensor of the file, read when it is used.
    fn tensor(
        &self,
        name: &str,
        tensor: &Stored,
        shape: Vec<usize>,
        transposed: bool,
    ) -> Result<PackTensor, WeightsError> {
        let damaged = |reason: String| damaged(&self.path, format!("the tensor '{name}' {reason}"));
        let kind = tensor.kind.ok_or_else(|| damaged("is of a type that weights do not come in".to_owned()))?;
        let bytes = tensor.elements().and_then(|elements| elements.checked_mul(kind.size()));
        let bytes = bytes.ok_or_else(|| damaged("is larger than any memory".to_owned()))?;
        let (file, start, length) = match &tensor.place {
            Place::Nowhere => return Err(damaged("has no numbers".to_owned())),
            Place::Here(range) => (Arc::clone(&self.file), range.start, range.end - range.start),
            Place::Beside { file, offset, length } => {
                let (file, all) = self.beside(file)?;
                (file, *offset, length.unwrap_or_else(|| all.saturating_sub(*offset)).min(all.saturating_sub(*offset)))
            }
        };
        if length != bytes as u64 {
            return Err(damaged(format!("has {length} bytes where its dimensions {:?} need {bytes}", tensor.dims)));
        }
        let (dtype, size, stored) = (dtype(kind), kind.size(), tensor.dims.clone());
        let declared = shape.clone();
        let read = move || {
            let mut values = vec![0; bytes];
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            let read = file.seek(SeekFrom::Start(start)).and_then(|_| file.read_exact(&mut values));
            read.map_err(|error| PackError::IoError(error.to_string()))?;
            let values = match stored.as_slice() {
                &[rows, columns] if transposed => transpose(&values, [rows, columns], size),
                _ => values,
            };
            Ok(TensorData::from_bytes_vec(values, declared.clone(), dtype))
        };
        Ok(bridge::deferred(name.to_owned(), dtype, shape.into(), None, read))
    }

    /// A file of weights beside this one, and its length.
    fn beside(&self, name: &str) -> Result<(Arc<Mutex<File>>, u64), WeightsError> {
        let inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !inside || name.is_empty() {
            return Err(damaged(&self.path, format!("its weights are said to be in '{name}', which is not beside it")));
        }
        let path = self.path.parent().unwrap_or(Path::new("")).join(name);
        let read = |source| WeightsError::Read { path: path.clone(), source };
        check_file(&path).map_err(read)?;
        let file = File::open(&path).map_err(read)?;
        let length = file.metadata().map_err(read)?.len();
        Ok((Arc::new(Mutex::new(file)), length))
    }
}

fn damaged(path: &Path, reason: String) -> WeightsError {
    WeightsError::Damaged { path: path.to_owned(), reason }
}

fn dtype(kind: ElementType) -> DType {
    match kind {
        ElementType::F32 => DType::F32,
        ElementType::F64 => DType::F64,
        ElementType::F16 => DType::F16,
        ElementType::Bf16 => DType::BF16,
    }
}

/// A matrix transposed, of numbers of so many bytes.
fn transpose(values: &[u8], [rows, columns]: [usize; 2], size: usize) -> Vec<u8> {
    let number = |row: usize, column: usize| &values[(row * columns + column) * size..][..size];
    (0..columns).flat_map(|column| (0..rows).flat_map(move |row| number(row, column))).copied().collect()
}
