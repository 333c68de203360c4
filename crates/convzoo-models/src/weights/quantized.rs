//! Quantized weights in safetensors: bytes, their scales, and the scales of values.
//!
//! Beside the tensors of a network's state, whose names and shapes are as ever, the file has
//!
//! - `LAYER.weight` as I8, from −127 to 127, where the layer computes in bytes;
//! - `LAYER.weight_scale`, F32 `[outputs]`: a weight is its byte times the scale of its output;
//! - `LAYER.output_correction`, F32 `[outputs]`, if there is one: added to the layer's outputs in bytes, norm included;
//! - `VALUE.output_scale`, F32 `[2]`: the scale and the zero point of a value's unsigned bytes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use burn::store::bridge;
use burn::store::burn_pack::{Error as PackError, Tensor as PackTensor};
use burn::tensor::{DType, TensorData};
use serde_json::{Map, Value, json};

use super::{METADATA_KEY, Scratch, WeightsError, tensors};
use crate::Classifier;
use crate::quantize::{ByteScale, LayerScales, Quantization, WeightScales};

const WEIGHT: &str = ".weight";
const WEIGHT_SCALE: &str = ".weight_scale";
const CORRECTION: &str = ".output_correction";
const OUTPUT_SCALE: &str = ".output_scale";

/// Saves a network that was [quantized](crate::Network::quantize): about a quarter of the size, and read like any weights.
///
/// # Errors
/// It was not quantized, or the file cannot be written.
pub fn save_quantized<N: Classifier>(network: &N, path: &Path) -> Result<(), WeightsError> {
    let write = |reason: String| WeightsError::Write { path: path.to_owned(), reason };
    let quantization = network.quantization().ok_or_else(|| write("the network is not quantized".to_owned()))?;
    let bytes = file(network, quantization)?;
    let scratch = Scratch::beside(path).map_err(|error| write(error.to_string()))?;
    let put = |bytes: &[u8]| -> io::Result<()> {
        let mut file = File::create(&scratch.file)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    put(&bytes).map_err(|error| write(error.to_string()))?;
    scratch.publish().map_err(|error| write(error.to_string()))
}

/// A tensor of the file.
struct Entry {
    shape: Vec<usize>,
    dtype: &'static str,
    bytes: Vec<u8>,
}

impl Entry {
    fn floats(shape: Vec<usize>, values: &[f32]) -> Self {
        Self { shape, dtype: "F32", bytes: values.iter().flat_map(|value| value.to_le_bytes()).collect() }
    }
}

/// The same network makes the same bytes each time.
fn file<N: Classifier>(network: &N, quantization: &Quantization) -> Result<Vec<u8>, WeightsError> {
    let mut entries = BTreeMap::new();
    for tensor in tensors(network)? {
        let layer = tensor.name.strip_suffix(WEIGHT).and_then(|layer| Some((layer, quantization.layers.get(layer)?)));
        let Some((layer, LayerScales { weights, correction })) = layer else {
            entries.insert(tensor.name, Entry::floats(tensor.shape, &tensor.values));
            continue;
        };
        let outputs = vec![weights.0.len()];
        entries.insert(format!("{layer}{WEIGHT_SCALE}"), Entry::floats(outputs.clone(), &weights.0));
        if let Some(correction) = correction {
            entries.insert(format!("{layer}{CORRECTION}"), Entry::floats(outputs, correction));
        }
        let bytes = weights.bytes(&tensor.values).into_iter().map(|byte| byte as u8).collect();
        entries.insert(tensor.name.clone(), Entry { shape: tensor.shape, dtype: "I8", bytes });
    }
    for (value, ByteScale { scale, zero }) in &quantization.values {
        entries.insert(format!("{value}{OUTPUT_SCALE}"), Entry::floats(vec![2], &[*scale, f32::from(*zero)]));
    }
    let mut header = Map::new();
    if let Some(metadata) = network.metadata() {
        header.insert("__metadata__".to_owned(), json!({ METADATA_KEY: metadata.to_json() }));
    }
    // Floats first, so that all of them are aligned.
    let mut ordered: Vec<(&String, &Entry)> = entries.iter().collect();
    ordered.sort_by_key(|(_, entry)| entry.dtype != "F32");
    let mut end = 0;
    for (name, Entry { shape, dtype, bytes }) in &ordered {
        let start = end;
        end += bytes.len();
        header.insert((*name).clone(), json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] }));
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    ordered.iter().for_each(|(_, entry)| file.extend(&entry.bytes));
    Ok(file)
}

/// The tensors of a file with those in bytes as floats, and its scales, if it has some; or what is wrong with them.
pub(super) fn split(
    tensors: BTreeMap<String, PackTensor>,
) -> Result<(BTreeMap<String, PackTensor>, Option<Quantization>), String> {
    let is_byte = |tensor: &PackTensor| matches!(tensor.dtype, DType::I8);
    if !tensors.iter().any(|(name, tensor)| name.ends_with(WEIGHT) && is_byte(tensor)) {
        return Ok((tensors, None));
    }
    let mut quantization = Quantization::default();
    let (mut rest, mut scales, mut bytes) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    for (name, tensor) in tensors {
        match name.strip_suffix(WEIGHT).map(str::to_owned) {
            Some(layer) if is_byte(&tensor) => bytes.push((layer, tensor)),
            _ if [WEIGHT_SCALE, CORRECTION, OUTPUT_SCALE].iter().any(|suffix| name.ends_with(suffix)) => {
                scales.insert(name, tensor);
            }
            _ => _ = rest.insert(name, tensor),
        }
    }
    for (layer, tensor) in bytes {
        let outputs = tensor.shape.to_vec().first().copied().unwrap_or(0);
        let mut take = |suffix: &str| {
            let name = format!("{layer}{suffix}");
            scales.remove(&name).map(|tensor| floats(&name, &tensor, outputs)).transpose()
        };
        let weights = take(WEIGHT_SCALE)?.ok_or_else(|| format!("'{layer}{WEIGHT}' is bytes without a scale"))?;
        let is_scale = |scale: &f32| ByteScale { scale: *scale, zero: 0 }.is_valid();
        if let Some(scale) = weights.iter().find(|scale| !is_scale(scale)) {
            return Err(format!("'{layer}{WEIGHT_SCALE}' holds {scale}, which is no scale"));
        }
        let correction = take(CORRECTION)?;
        let weights = WeightScales(weights);
        rest.insert(format!("{layer}{WEIGHT}"), numbers(tensor, weights.clone()));
        quantization.layers.insert(layer, LayerScales { weights, correction });
    }
    for (name, tensor) in scales {
        let Some(value) = name.strip_suffix(OUTPUT_SCALE) else {
            return Err(format!("'{name}' belongs to no weights in bytes"));
        };
        let [scale, zero] = floats(&name, &tensor, 2)?[..] else { return Err(format!("'{name}' has no zero point")) };
        let byte = ByteScale { scale, zero: zero as u8 };
        if !byte.is_valid() || f32::from(byte.zero) != zero {
            return Err(format!("'{name}' holds {scale} and {zero}, which are no scale and no byte"));
        }
        quantization.values.insert(value.to_owned(), byte);
    }
    Ok((rest, Some(quantization)))
}

/// The values of a short tensor.
fn floats(name: &str, tensor: &PackTensor, expected: usize) -> Result<Vec<f32>, String> {
    if tensor.dtype != DType::F32 || tensor.shape.to_vec() != [expected] {
        return Err(format!(
            "'{name}' is {:?} {:?} and should be F32 [{expected}]",
            tensor.dtype,
            tensor.shape.to_vec()
        ));
    }
    let data = bridge::to_data(tensor).map_err(|error| format!("'{name}': {error}"))?;
    let values: Vec<f32> = data.iter::<f32>().collect();
    match values.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(format!("'{name}' holds {value}")),
        None => Ok(values),
    }
}

/// A tensor in bytes as the floats they stand for, when it is read.
fn numbers(tensor: PackTensor, scales: WeightScales) -> PackTensor {
    let (name, shape) = (tensor.name.clone(), tensor.shape.clone());
    let declared = shape.clone();
    bridge::deferred(name, DType::F32, shape, None, move || {
        let bytes: Vec<i8> = bridge::to_data(&tensor)?.iter::<i8>().collect();
        if bytes.contains(&i8::MIN) {
            return Err(PackError::ValidationError(format!(
                "'{}' holds -128; its bytes go from -127 to 127",
                tensor.name
            )));
        }
        Ok(TensorData::new(scales.numbers(&bytes), declared.clone()))
    })
}
