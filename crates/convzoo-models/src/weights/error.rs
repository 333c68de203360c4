//! What is wrong with weights.

use std::io;
use std::path::{Path, PathBuf};

use convzoo_kernels::engine::CompileError;
use convzoo_onnx::ExportError;
use thiserror::Error;

use crate::ModelError;

/// Why weights cannot be read or written.
#[derive(Debug, Error)]
pub enum WeightsError {
    /// The file cannot be opened or read.
    #[error("cannot read {}: {source}", told(.path))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is none of the known formats.
    #[error("{} is no PyTorch checkpoint, safetensors file, Burn pack, ONNX file or file of compressed weights", told(.path))]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// The pickle names what no tensor needs. Nothing in it was run: names are compared, never called.
    #[error("{} is refused: it names {name}, and weights are tensors only", told(.path))]
    Refused {
        /// The file.
        path: PathBuf,
        /// What it names, as Python spells it.
        name: String,
    },
    /// The file is damaged.
    #[error("{} is damaged or cut short: {reason}", told(.path))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the reader says.
        reason: String,
    },
    /// The weights belong to another network.
    #[error("these weights do not fit the network:{mismatch}")]
    Mismatch {
        /// What differs.
        mismatch: Mismatch,
    },
    /// A tensor holds NaN or an infinity.
    #[error("{}: the tensor '{name}' holds {value} (element {index}); the training that wrote it has diverged, or the file is damaged", told(.path))]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// NaN, or an infinity.
        value: f32,
        /// Where, in the order of the file.
        index: usize,
    },
    /// A tensor holds a number that 16 bits cannot.
    #[error(
        "'{name}' holds {value} (element {index}), beyond the largest 16-bit number, 65504; keep the weights in 32 bits"
    )]
    BeyondHalf {
        /// The tensor.
        name: String,
        /// The first such value.
        value: f32,
        /// Where, in row-major order.
        index: usize,
    },
    /// There is no such network, or it has no such option.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An ONNX file whose weights are bytes.
    #[error(
        "{} is a quantized network; weights are read from ONNX files in floats, or from what `convzoo quantize` writes",
        told(.path)
    )]
    QuantizedOnnx {
        /// The file.
        path: PathBuf,
    },
    /// The network cannot be written as ONNX.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// A quantized network that the kernels do not take.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The file cannot be written.
    #[error("cannot write {}: {reason}", told(.path))]
    Write {
        /// The file.
        path: PathBuf,
        /// What the writer says.
        reason: String,
    },
}

/// How a file's entries differ from a network's state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mismatch {
    /// In the network, not in the file.
    pub missing: Vec<String>,
    /// In the file, not in the network.
    pub unexpected: Vec<String>,
    /// In both, with the network's shape and the file's.
    pub misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
    /// In both, of a type that is no floating-point number.
    pub mistyped: Vec<(String, String)>,
}

/// A path on one line, without what would steer a terminal.
fn told(path: &Path) -> String {
    let escape = |character: char| match character.is_control() {
        true => character.escape_default().collect(),
        false => String::from(character),
    };
    path.display().to_string().chars().map(escape).collect()
}

impl Mismatch {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        fn rows(f: &mut std::fmt::Formatter, title: &str, rows: &[String]) -> std::fmt::Result {
            const SHOWN: usize = 8;
            if rows.is_empty() {
                return Ok(());
            }
            write!(f, "\n  {title} ({}): {}", rows.len(), rows[..rows.len().min(SHOWN)].join(", "))?;
            if rows.len() > SHOWN { write!(f, ", and {} more", rows.len() - SHOWN) } else { Ok(()) }
        }
        let misshapen = self.misshapen.iter().map(|(name, own, theirs)| format!("{name} is {own:?}, here {theirs:?}"));
        let mistyped = self.mistyped.iter().map(|(name, dtype)| format!("{name} is {dtype}"));
        rows(f, "missing", &self.missing)?;
        rows(f, "unexpected", &self.unexpected)?;
        rows(f, "of another shape", &misshapen.collect::<Vec<_>>())?;
        rows(f, "not floating-point", &mistyped.collect::<Vec<_>>())
    }
}
