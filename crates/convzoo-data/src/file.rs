//! Reading files that may be anything.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use crate::error::DataError;

/// Opens a regular file and says how long it is; anything else might never end.
pub(crate) fn open(path: &Path) -> Result<(File, u64), DataError> {
    // Asked before opening, because opening a pipe waits for its writer.
    let metadata = fs::metadata(path).map_err(DataError::io("open", path))?;
    if !metadata.is_file() {
        return Err(DataError::malformed(path, "it is not a regular file"));
    }
    let file = File::open(path).map_err(DataError::io("open", path))?;
    Ok((file, metadata.len()))
}

/// The contents of a regular file of at most `most` bytes: neither a device without an end nor a pipe without a writer
/// is read.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>, DataError> {
    let (file, length) = open(path)?;
    let mut bytes = Vec::new();
    if length <= most {
        // It may have grown since.
        file.take(most + 1).read_to_end(&mut bytes).map_err(DataError::io("read", path))?;
    }
    if length.max(bytes.len() as u64) > most {
        return Err(DataError::malformed(path, format!("it is longer than {most} bytes")));
    }
    Ok(bytes)
}
