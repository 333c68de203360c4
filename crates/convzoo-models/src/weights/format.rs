//! Telling the formats of weights apart, and what is refused before a library reads it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use burn::store::pytorch::PytorchReader;
use burn::store::pytorch_reader::PickleValue;
use convzoo_onnx::Contents;

use super::WeightsError;

/// What a file of weights is.
pub(super) enum Format {
    Safetensors,
    Compressed,
    Pytorch,
    Burnpack {
        /// Bytes of the header's table, as it claims.
        metadata: u32,
    },
    Onnx,
}

/// The largest file that is read as weights: thirty times VGG-19's.
const MOST_BYTES: u64 = 16 << 30;

/// Refuses what is no regular file of a sane size: opening a pipe waits for its writer, a device may have no end.
pub fn check_file(path: &Path) -> io::Result<()> {
    let metadata = fs::metadata(path)?;
    let refused = |reason: String| Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    if !metadata.is_file() {
        return refused("it is not a regular file".to_owned());
    }
    match metadata.len() {
        0..=MOST_BYTES => Ok(()),
        length => refused(format!("its {length} bytes are more than the {MOST_BYTES} that are read as weights")),
    }
}

/// Tells the format by the first bytes.
pub(super) fn sniff(path: &Path) -> Result<Format, WeightsError> {
    let read = |source| WeightsError::Read { path: path.to_owned(), source };
    check_file(path).map_err(read)?;
    let mut head = Vec::new();
    File::open(path).map_err(read)?.take(16).read_to_end(&mut head).map_err(read)?;
    match head.as_slice() {
        // The length of a JSON header, then the header. It is checked first: a length can start with any byte.
        [_, _, _, _, _, _, 0, 0, b'{', ..] => Ok(Format::Safetensors),
        head if head.starts_with(convzoo_compress::MAGIC) => Ok(Format::Compressed),
        // A zip archive, or a pickle of protocol 2 or later.
        [b'P', b'K', ..] | [0x80, ..] => Ok(Format::Pytorch),
        // Its version in two bytes, then the length of its table.
        &[b'N', b'R', b'U', b'B', _, _, a, b, c, d, ..] => {
            Ok(Format::Burnpack { metadata: u32::from_le_bytes([a, b, c, d]) })
        }
        head if Contents::begin_with(head) => Ok(Format::Onnx),
        _ => Err(WeightsError::Format { path: path.to_owned() }),
    }
}

/// What a pickle names besides tensors and plain records, if anything.
pub(super) fn foreign_name(path: &Path) -> Result<Option<String>, String> {
    fn find(value: PickleValue) -> Option<String> {
        match value {
            PickleValue::List(values) => values.into_iter().find_map(find),
            PickleValue::Dict(values) => values.into_values().find_map(find),
            PickleValue::Unsupported(name) => (!is_plain(&name)).then_some(name),
            _ => None,
        }
    }
    PytorchReader::read_pickle_data(path, None).map(find).map_err(|error| error.to_string())
}

/// Whether this Python type is a tensor, a number or a record of such: what PyTorch's own `weights_only` takes, and
/// what training scripts put beside the weights, their options and a best accuracy.
fn is_plain(name: &str) -> bool {
    let (module, class) = name.rsplit_once('.').unwrap_or(("", name));
    match module {
        "" => class == "int",
        "torch" => {
            let types = ["Tensor", "Size", "device"];
            let prefixes = ["float", "bfloat", "int", "uint", "complex", "bool", "half", "double", "long", "short"];
            types.contains(&class) || class.ends_with("Storage") || prefixes.iter().any(|p| class.starts_with(p))
        }
        "torch.nn.parameter" => class == "Parameter",
        "collections" => ["OrderedDict", "Counter", "defaultdict"].contains(&class),
        "builtins" | "__builtin__" => ["set", "frozenset", "bytearray", "complex"].contains(&class),
        "numpy" => class == "dtype",
        "numpy.core.multiarray" | "numpy._core.multiarray" => ["scalar", "_reconstruct"].contains(&class),
        "_codecs" => class == "encode",
        "argparse" => class == "Namespace",
        _ => false,
    }
}
