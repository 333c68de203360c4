//! Writing weights, in the reference's names.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::store::burn_pack::{Tensor as PackTensor, Writer};
use burn::store::{ModuleAdapter, ModuleContext, ModuleSnapshot, ModuleStore, SafetensorsStore, bridge};
use burn::tensor::DType;

use super::scratch::Scratch;
use super::{METADATA_KEY, WeightsError};
use crate::Classifier;
use crate::names::name_tree;

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

/// Gives each tensor the reference's name, and the precision asked for, on its way to a file.
#[derive(Clone)]
pub(super) struct Rename {
    names: HashMap<String, String>,
    precision: Precision,
}

impl Rename {
    pub fn of<N: Classifier>(network: &N, precision: Precision) -> Self {
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
