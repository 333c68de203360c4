use std::collections::BTreeMap;

use convzoo_compress::{Archive, MAGIC};
use convzoo_kernels::Values;
use convzoo_kernels::quantized::{ByteScale, WeightScales};
use half::{bf16, f16};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::WebError;
use crate::network::Preparation;

/// A tensor of a file of weights.
pub struct Tensor {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values, row-major.
    pub values: Values,
}

/// What a file that convzoo wrote says of its network.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct About {
    /// The network's name.
    pub model: String,
    /// The names of its classes.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Whether its classes are called as ImageNet's.
    #[serde(default)]
    pub imagenet: bool,
    /// How images are prepared, where that is not the network's own way.
    #[serde(default)]
    pub preprocessing: Option<Preparation>,
}

/// The tensors of a file, by their names in the reference's state dict.
#[derive(Default)]
pub struct Weights {
    /// What the file says of its network, if anything.
    pub about: Option<About>,
    /// The tensors.
    pub tensors: BTreeMap<String, Tensor>,
}

/// What `convzoo quantize` calls its tensors: weights in bytes, their scales, and what only bytes are computed with.
const WEIGHT: &str = ".weight";
const WEIGHT_SCALE: &str = ".weight_scale";
const OF_BYTES: [&str; 2] = [".output_scale", ".output_correction"];

/// What other programs put before every name.
const WRAPPERS: [&str; 2] = ["module.", "model."];

impl Weights {
    /// Reads a file of safetensors, what `convzoo quantize` wrote among them, or of `convzoo compress`, told apart by their
    /// contents.
    ///
    /// # Errors
    /// It is of another format, or damaged.
    pub fn read(bytes: &[u8]) -> Result<Self, WebError> {
        let mut weights = match bytes.starts_with(MAGIC) {
            true => Self::compressed(bytes)?,
            false => Self::safetensors(bytes)?,
        };
        for wrapper in WRAPPERS {
            if weights.tensors.keys().all(|name| name.starts_with(wrapper)) {
                let tensors = std::mem::take(&mut weights.tensors);
                let bare = tensors.into_iter().map(|(name, tensor)| (name[wrapper.len()..].to_owned(), tensor));
                weights.tensors = bare.collect();
            }
        }
        Ok(weights)
    }

    fn compressed(bytes: &[u8]) -> Result<Self, WebError> {
        let archive = Archive::read(bytes.to_vec())?;
        let tensor = |(index, entry): (usize, &convzoo_compress::Entry)| {
            let values = archive.values(index)?.into();
            Ok((entry.name.clone(), Tensor { shape: entry.shape.clone(), values }))
        };
        let tensors = archive.entries().iter().enumerate().map(tensor).collect::<Result<_, WebError>>()?;
        Ok(Self { about: serde_json::from_str(archive.text()).ok(), tensors })
    }

    fn safetensors(bytes: &[u8]) -> Result<Self, WebError> {
        let (head, rest) = bytes.split_first_chunk::<8>().ok_or(WebError::Format)?;
        let header = usize::try_from(u64::from_le_bytes(*head)).ok().and_then(|length| rest.split_at_checked(length));
        let (header, data) = header.filter(|(header, _)| header.starts_with(b"{")).ok_or(WebError::Format)?;
        let header: BTreeMap<String, Value> =
            serde_json::from_slice(header).map_err(|error| WebError::Damaged(error.to_string()))?;
        let (mut weights, mut in_bytes) = (Self::default(), Vec::new());
        for (name, entry) in header {
            if name == "__metadata__" {
                let text = entry.get("convzoo").and_then(Value::as_str).unwrap_or_default();
                weights.about = serde_json::from_str(text).ok();
            } else if let Some(tensor) = tensor(&name, &entry, data)? {
                if let (Some("I8"), Some(layer)) = (entry["dtype"].as_str(), name.strip_suffix(WEIGHT)) {
                    in_bytes.push(layer.to_owned());
                }
                weights.tensors.insert(name, tensor);
            }
        }
        if !in_bytes.is_empty() {
            weights.tensors.retain(|name, _| !OF_BYTES.iter().any(|suffix| name.ends_with(suffix)));
        }
        in_bytes.iter().try_for_each(|layer| weights.dequantize(layer))?;
        Ok(weights)
    }

    /// Makes a layer's weights in bytes the floats that they stand for: in WebAssembly floats are the faster ones.
    fn dequantize(&mut self, layer: &str) -> Result<(), WebError> {
        let damaged = |problem: &str| WebError::Damaged(format!("'{layer}{WEIGHT}' is bytes {problem}"));
        let scale = self.tensors.remove(&format!("{layer}{WEIGHT_SCALE}"));
        let weight = self.tensors.get_mut(&format!("{layer}{WEIGHT}"));
        let (Some(scale), Some(weight)) = (scale, weight) else { return Err(damaged("without a scale")) };
        let is_scale = |scale: &f32| ByteScale { scale: *scale, zero: 0 }.is_valid();
        if weight.shape.first() != Some(&scale.values.len()) || !scale.values.iter().all(is_scale) {
            return Err(damaged("without a scale for each output"));
        }
        let bytes: Vec<i8> = weight.values.iter().map(|byte| *byte as i8).collect();
        if bytes.contains(&i8::MIN) {
            return Err(damaged("and holds -128; they go from -127 to 127"));
        }
        weight.values = WeightScales(scale.values.to_vec()).numbers(&bytes).into();
        Ok(())
    }
}

/// An entry of a safetensors header.
#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

/// A tensor of floats, or of bytes as floats; counters, which inference has no use for, are none.
fn tensor(name: &str, entry: &Value, data: &[u8]) -> Result<Option<Tensor>, WebError> {
    let damaged = |problem: &str| WebError::Damaged(format!("'{name}' {problem}"));
    let Entry { dtype, shape, data_offsets: [from, to] } =
        Entry::deserialize(entry).map_err(|error| damaged(&error.to_string()))?;
    let bytes = data.get(from..to).ok_or_else(|| damaged("lies beyond the end of the file"))?;
    let values: Vec<f32> = match dtype.as_str() {
        "F32" => bytes.chunks_exact(4).map(|v| f32::from_le_bytes([v[0], v[1], v[2], v[3]])).collect(),
        "F16" => bytes.chunks_exact(2).map(|v| f16::from_le_bytes([v[0], v[1]]).to_f32()).collect(),
        "BF16" => bytes.chunks_exact(2).map(|v| bf16::from_le_bytes([v[0], v[1]]).to_f32()).collect(),
        "I8" => bytes.iter().map(|byte| f32::from(*byte as i8)).collect(),
        _ => return Ok(None),
    };
    match shape.iter().try_fold(1usize, |product, side| product.checked_mul(*side)) == Some(values.len()) {
        true => Ok(Some(Tensor { shape, values: values.into() })),
        false => Err(damaged("does not have as many values as its shape says")),
    }
}
