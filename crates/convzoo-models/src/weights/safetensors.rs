//! Where the tensors of a safetensors file are.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::{Arc, Mutex, PoisonError};

use burn::store::bridge;
use burn::store::burn_pack::{Error as PackError, Tensor as PackTensor};
use burn::tensor::TensorData;
use serde::Deserialize;

use super::{METADATA_KEY, Metadata};

/// What the safetensors format allows for its header.
const MAX_HEADER: u64 = 100_000_000;

/// Where a safetensors file says its tensors are, and its metadata.
#[derive(Deserialize)]
pub(super) struct Header {
    #[serde(default, rename = "__metadata__")]
    strings: HashMap<String, String>,
    #[serde(flatten)]
    entries: HashMap<String, Entry>,
    /// Where the header ends and offsets count from.
    #[serde(skip)]
    end: u64,
}

#[derive(Deserialize)]
struct Entry {
    data_offsets: [u64; 2],
}

impl Header {
    pub fn read(file: &mut impl Read) -> Result<Self, String> {
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
    pub fn metadata(&self) -> Option<Metadata> {
        self.strings.get(METADATA_KEY).and_then(|text| serde_json::from_str(text).ok())
    }

    /// The tensors of the store, which has checked them, read from where they are: the store would parse the whole
    /// header again for each of them.
    pub fn seek<F: Read + Seek + Send + 'static>(
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
