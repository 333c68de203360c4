//! Claiming names for files that are to be written: nothing is replaced that convzoo did not write as the same kind.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};
use convzoo::report::is_report;
use convzoo::weights::Checkpoint;

use super::output::tell;

/// A kind of file that convzoo writes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A picture.
    Png,
    /// A chart, drawn as lines or pixels.
    Chart,
    /// A drawing of a network.
    Drawing,
    /// A page.
    Page,
    /// Features of images.
    Features,
    /// An array.
    Array,
    /// A network's logits.
    Logits,
    /// A network's weights.
    Weights,
    /// A network's weights, compressed.
    Compressed,
    /// A network's weights in bytes.
    Quantized,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Png => "picture",
            Self::Chart => "chart",
            Self::Drawing => "drawing",
            Self::Page => "page",
            Self::Features => "file of features",
            Self::Array => "array",
            Self::Logits => "file of logits",
            Self::Weights | Self::Compressed | Self::Quantized => "file of weights",
        }
    }

    /// What names of such files end in; nothing where any name will do.
    fn extensions(self) -> &'static [&'static str] {
        match self {
            Self::Png => &["png"],
            Self::Chart => &["svg", "png"],
            Self::Drawing => &["svg", "html", "dot", "json"],
            Self::Page => &["html", "htm"],
            Self::Features => &["safetensors", "npy"],
            Self::Array => &["npy"],
            Self::Weights => &["safetensors", "bpk", "onnx", "czc"],
            Self::Compressed => &["czc"],
            Self::Quantized => &["safetensors"],
            Self::Logits => &[],
        }
    }

    /// Whether convzoo wrote the file at `path` as this kind.
    fn written(self, path: &Path) -> io::Result<bool> {
        match self {
            Self::Png | Self::Chart | Self::Drawing | Self::Page => is_report(path),
            Self::Features => Ok(is_array(path)? || holds_only(path, "features")?),
            Self::Array => is_array(path),
            Self::Logits => holds_only(path, "logits"),
            Self::Weights | Self::Compressed | Self::Quantized => {
                Ok(Checkpoint::open(path).is_ok_and(|weights| weights.metadata().is_some()))
            }
        }
    }
}

/// Refuses a name, given as `option`, that does not end as its kind does, and one under which there is something else
/// than an empty file or what convzoo wrote as this kind.
pub fn claim(option: &str, path: &Path, kind: Kind) -> Result<()> {
    let extensions = kind.extensions();
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    if !extensions.is_empty() && !extensions.contains(&extension) {
        bail!("{option}: {} must end in .{}", path.display(), extensions.join(" or ."));
    }
    let metadata = match fs::metadata(path) {
        // A link to nowhere, or nothing: writing tells what else is wrong.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata.with_context(|| format!("{option}: looking at {}", path.display()))?,
    };
    let ours = metadata.is_file()
        && (metadata.len() == 0
            || kind.written(path).with_context(|| format!("{option}: reading {}", path.display()))?);
    if !ours {
        let kind = kind.name();
        bail!(
            "{option}: {} is there already and is no {kind} that convzoo wrote; name another file, or remove it first",
            path.display()
        );
    }
    if kind == Kind::Page && metadata.len() > 0 {
        tell(&format!("note: {} of an earlier run is replaced; {option} names another place", path.display()));
    }
    Ok(())
}

/// Whether a file is an array as convzoo writes them: NumPy's format, little-endian f32, rows first.
fn is_array(path: &Path) -> io::Result<bool> {
    let mut head = Vec::new();
    File::open(path)?.take(128).read_to_end(&mut head)?;
    let text = String::from_utf8_lossy(&head);
    Ok(head.starts_with(b"\x93NUMPY") && text.contains("'descr': '<f4'") && text.contains("'fortran_order': False"))
}

/// Whether a file is safetensors with the tensor `name` and nothing else.
fn holds_only(path: &Path, name: &str) -> io::Result<bool> {
    /// Far more than a header of one tensor.
    const MOST: u64 = 1 << 16;
    let mut file = File::open(path)?;
    let mut length = [0; 8];
    if file.read_exact(&mut length).is_err() {
        return Ok(false);
    }
    let length = u64::from_le_bytes(length);
    if length > MOST {
        return Ok(false);
    }
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header)?;
    let header: serde_json::Value = serde_json::from_slice(&header).unwrap_or_default();
    let mut names =
        header.as_object().into_iter().flat_map(|header| header.keys()).filter(|key| *key != "__metadata__");
    Ok(names.next().is_some_and(|key| key == name) && names.next().is_none())
}
