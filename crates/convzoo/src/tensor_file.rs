//! Single tensors in safetensors files: what goes in and out of [`Classifier::forward`](crate::Classifier::forward)
//! when another program is at the other end.

use std::path::{Path, PathBuf};

use burn::module::{Module, Param};
use burn::store::{ModuleSnapshot, ModuleStore, SafetensorsStore, bridge};
use burn::tensor::{DType, Device, Tensor};
use thiserror::Error;

use crate::weights::{check_file, open_to_others};

/// Why a tensor cannot be read or written.
#[derive(Debug, Error)]
pub enum TensorFileError {
    /// The file is missing or damaged, or cannot be written.
    #[error("{}: {reason}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the store says.
        reason: String,
    },
    /// The file holds no such tensor.
    #[error("{} holds no tensor '{name}', but {}", .path.display(), .found.join(", "))]
    Missing {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        name: &'static str,
        /// What is there.
        found: Vec<String>,
    },
    /// The tensor is no batch of images.
    #[error("the tensor '{name}' in {} must be floating-point [N, C, H, W] without empty sides, and is {dtype} {shape:?}", .path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: &'static str,
        /// Its type.
        dtype: String,
        /// Its shape.
        shape: Vec<usize>,
    },
}

/// Reads the tensor `name`, `[batch, channels, height, width]`, as f32.
pub fn read(path: &Path, name: &'static str, device: &Device) -> Result<Tensor<4>, TensorFileError> {
    let failed = |reason: String| TensorFileError::File { path: path.to_owned(), reason };
    check_file(path).map_err(|error| failed(error.to_string()))?;
    let mut store = SafetensorsStore::from_file(path).map_indices_contiguous(false);
    let tensors = store.get_all_tensors().map_err(|error| failed(error.to_string()))?;
    let Some(tensor) = tensors.get(name) else {
        let found = tensors.keys().cloned().collect();
        return Err(TensorFileError::Missing { path: path.to_owned(), name, found });
    };
    let shape = tensor.shape.to_vec();
    if shape.len() != 4 || shape.contains(&0) || !tensor.dtype.is_float() {
        let dtype = format!("{:?}", tensor.dtype);
        return Err(TensorFileError::Shape { path: path.to_owned(), name, dtype, shape });
    }
    let data = bridge::to_data(tensor).map_err(|error| failed(error.to_string()))?;
    Ok(Tensor::from_data(data.convert_dtype(DType::F32), device))
}

/// Writes `logits`, `[batch, classes]`, in one step: the file is whole or not there.
pub fn write(path: &Path, logits: Tensor<2>) -> Result<(), TensorFileError> {
    /// The store writes modules: this one is a tensor.
    #[derive(Module, Debug)]
    struct Output {
        logits: Param<Tensor<2>>,
    }
    let mut store = SafetensorsStore::from_file(path).overwrite(true);
    let failed = |reason: String| TensorFileError::File { path: path.to_owned(), reason };
    let output = Output { logits: Param::from_tensor(logits) };
    output.save_into(&mut store).map_err(|error| failed(error.to_string()))?;
    open_to_others(path).map_err(|error| failed(error.to_string()))
}
