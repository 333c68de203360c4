//! IDX, the format of MNIST and its relatives: a magic number, the sizes, then bytes; gzipped or not.

use std::io::{self, BufReader, Read, Seek};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::error::DataError;
use crate::file;

/// The largest contents that are read, three times those of the largest relative of MNIST (EMNIST, 640 MB). It bounds
/// what a small compressed file can unfold to.
const MOST_BYTES: u64 = 2 << 30;

/// Deflate packs no more than this many bytes into one, so a header that promises more lies.
const MOST_DEFLATED: u64 = 1032;

/// The contents of an IDX file of bytes: `dims[0]` entries of `dims[1..]` each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Idx {
    pub dims: Vec<usize>,
    pub data: Vec<u8>,
}

/// Reads the IDX file at `path`, which must hold bytes in `rank` dimensions. Whether it is gzipped is told by its
/// first bytes.
pub(crate) fn read(path: &Path, rank: u8) -> Result<Idx, DataError> {
    let (mut file, length) = file::open(path)?;
    let mut magic = Vec::new();
    file.by_ref().take(2).read_to_end(&mut magic).map_err(DataError::io("read", path))?;
    file.rewind().map_err(DataError::io("read", path))?;
    if magic == [0x1f, 0x8b] {
        let decoder = MultiGzDecoder::new(BufReader::new(file));
        let corrupt = |source| DataError::Gzip { path: path.to_path_buf(), source };
        parse(decoder, length.saturating_mul(MOST_DEFLATED), path, rank, &corrupt)
    } else {
        let broken = |source| DataError::Io { doing: "read", path: path.to_path_buf(), source };
        parse(file, length, path, rank, &broken)
    }
}

/// Reads an IDX file from `reader`, which can hold no more than `most` bytes. Nothing is allocated by what the header
/// says: the bytes themselves are read first, and one too many or too few is an error.
fn parse(
    mut reader: impl Read,
    most: u64,
    path: &Path,
    rank: u8,
    failed: &dyn Fn(io::Error) -> DataError,
) -> Result<Idx, DataError> {
    let malformed = |problem: String| DataError::malformed(path, problem);
    let header_length = 4 + 4 * usize::from(rank);
    let mut header = Vec::with_capacity(header_length);
    reader.by_ref().take(header_length as u64).read_to_end(&mut header).map_err(failed)?;

    let magic = [0, 0, 8, rank];
    if header.len() >= 4 && header[..4] != magic {
        let hint = match header[..4] {
            [0, 0, 8, 1] => "; these are labels",
            [0, 0, 8, 3] => "; these are images",
            _ => "",
        };
        return Err(malformed(format!("it starts with {:02x?} where IDX has {magic:02x?}{hint}", &header[..4])));
    }
    if header.len() < header_length {
        return Err(malformed(format!("it ends after {} of its header's {header_length} bytes", header.len())));
    }

    let dims: Vec<u64> = header[4..]
        .chunks_exact(4)
        .map(|size| u64::from(u32::from_be_bytes([size[0], size[1], size[2], size[3]])))
        .collect();
    let promised = dims.iter().try_fold(1, |product: u64, &size| product.checked_mul(size));
    let promised = promised
        .filter(|&bytes| bytes <= MOST_BYTES)
        .ok_or_else(|| malformed(format!("its header promises {} bytes, beyond any data set's", product(&dims))))?;
    if promised > most.saturating_sub(header_length as u64) {
        return Err(malformed(format!("its header promises {} bytes, more than the file can hold", product(&dims))));
    }
    if dims[0] == 0 {
        return Err(DataError::Empty { path: path.to_path_buf() });
    }
    if promised == 0 {
        return Err(malformed(format!("its images have no pixels ({})", product(&dims[1..]))));
    }

    let mut data = Vec::new();
    // One byte more than promised, to notice what should not be there and to reach the checksum after the last byte.
    reader.take(promised + 1).read_to_end(&mut data).map_err(failed)?;
    if data.len() as u64 != promised {
        let found = if data.len() as u64 > promised { "more".to_owned() } else { format!("only {}", data.len()) };
        return Err(malformed(format!("its header promises {} bytes, it holds {found}", product(&dims))));
    }
    Ok(Idx { dims: dims.iter().map(|&size| size as usize).collect(), data })
}

/// `60000 × 28 × 28`
fn product(dims: &[u64]) -> String {
    dims.iter().map(u64::to_string).collect::<Vec<_>>().join(" × ")
}
