//! Weights in convzoo-compress's file, and as plain arrays for what compresses them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::store::burn_pack::{Error as PackError, Tensor as PackTensor};
use burn::store::{ModuleSnapshot, bridge};
use burn::tensor::{DType, Shape, TensorData};
use convzoo_compress::{Archive, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::save::Rename;
use super::{Checkpoint, Metadata, Precision, Scratch, WeightsError};
use crate::{Classifier, imagenet};

/// What the file says of its network: as other files do, but for options that are not set, and for the thousand names of
/// ImageNet's classes, which would be a fiftieth of SqueezeNet's.
#[derive(Serialize, Deserialize)]
struct About {
    #[serde(flatten)]
    metadata: Metadata,
    /// Whether its classes are called as ImageNet's, and `labels` is empty.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    imagenet: bool,
}

impl About {
    fn of(metadata: Metadata) -> Self {
        match metadata.labels == imagenet::class_names() {
            true => Self { metadata: Metadata { labels: Vec::new(), ..metadata }, imagenet: true },
            false => Self { metadata, imagenet: false },
        }
    }

    fn to_json(&self) -> String {
        fn without_null(value: Value) -> Value {
            match value {
                Value::Object(fields) => {
                    let set = fields.into_iter().filter(|(_, value)| !value.is_null());
                    Value::Object(set.map(|(name, value)| (name, without_null(value))).collect())
                }
                other => other,
            }
        }
        without_null(serde_json::to_value(self).expect("names, numbers and flags are JSON")).to_string()
    }

    fn metadata(self) -> Metadata {
        match self.imagenet {
            true => Metadata { labels: imagenet::class_names(), ..self.metadata },
            false => self.metadata,
        }
    }
}

/// The tensors of a compressed file, each decoded when it is used, and what it says of its network.
pub(super) fn open(path: &Path) -> Result<(BTreeMap<String, PackTensor>, Option<Metadata>), WeightsError> {
    let bytes = fs::read(path).map_err(|source| WeightsError::Read { path: path.to_owned(), source })?;
    let damaged = |reason: String| WeightsError::Damaged { path: path.to_owned(), reason };
    let archive = Arc::new(Archive::read(bytes).map_err(|error| damaged(error.to_string()))?);
    let metadata = serde_json::from_str(archive.text()).ok().map(About::metadata);
    let tensors = archive.entries().iter().enumerate().map(|(index, entry)| {
        let (archive, shape) = (Arc::clone(&archive), Shape::from(entry.shape.clone()));
        let declared = shape.clone();
        let decode = move || {
            let values = archive.values(index).map_err(|error| PackError::ValidationError(error.to_string()))?;
            Ok(TensorData::new(values, declared.clone()))
        };
        (entry.name.clone(), bridge::deferred(entry.name.clone(), DType::F32, shape, None, decode))
    });
    Ok((tensors.collect(), metadata))
}

/// Every tensor of `network`'s state, in the reference's names.
///
/// # Errors
/// A tensor cannot be read back from its device.
pub fn tensors<N: Classifier>(network: &N) -> Result<Vec<Tensor>, WeightsError> {
    let tensors = network.collect(None, Some(Box::new(Rename::of(network, Precision::Full))), true);
    let read = |tensor: PackTensor| {
        let (name, shape) = (tensor.name.clone(), tensor.shape.to_vec());
        let path = PathBuf::from("the network");
        let unreadable = |error: PackError| WeightsError::Damaged { path, reason: format!("'{name}': {error}") };
        let values = bridge::into_data(tensor).map_err(unreadable)?.iter::<f32>().collect();
        Ok(Tensor { name: name.clone(), shape, values })
    };
    tensors.into_iter().map(read).collect()
}

/// Puts tensors, as [`tensors`] gives them, into `network`.
///
/// # Errors
/// They are not those of the network.
pub fn with_tensors<N: Classifier>(network: N, tensors: &[Tensor]) -> Result<N, WeightsError> {
    let pack = |tensor: &Tensor| {
        let data = TensorData::new(tensor.values.clone(), tensor.shape.clone());
        bridge::from_data(data, tensor.name.clone(), None)
    };
    Checkpoint::from_tensors(tensors.iter().map(pack)).apply(network)
}

/// The bytes of `network`'s weights as [`save_compressed`] writes them.
pub fn compressed<N: Classifier>(network: &N) -> Result<Vec<u8>, WeightsError> {
    let text = network.metadata().map(|metadata| About::of(metadata).to_json()).unwrap_or_default();
    Ok(convzoo_compress::write(&text, &tensors(network)?))
}

/// Saves `network` in convzoo-compress's file, without loss: weights that are zero or share values take few bytes, others
/// as many as in any file. The same weights make the same bytes each time.
pub fn save_compressed<N: Classifier>(network: &N, path: &Path) -> Result<(), WeightsError> {
    let bytes = compressed(network)?;
    let write = |error: io::Error| WeightsError::Write { path: path.to_owned(), reason: error.to_string() };
    let scratch = Scratch::beside(path).map_err(write)?;
    let mut file = File::create(&scratch.file).map_err(write)?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(write)?;
    scratch.publish().map_err(write)
}
