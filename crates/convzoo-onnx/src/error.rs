use std::io;

use thiserror::Error;

/// Why a network cannot be exported.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ExportError {
    /// An operation that ONNX has no name for.
    #[error("'{name}' (operation {node} of the network) cannot be exported: the graph knows its name only")]
    Opaque {
        /// The node of the graph.
        node: usize,
        /// What the operation is called.
        name: String,
    },
    /// A layer's weights are not there.
    #[error("operation {node} of the network, {kind}, lacks its weights")]
    Weights {
        /// The node of the graph.
        node: usize,
        /// What it computes.
        kind: &'static str,
    },
    /// Norms of a quantized network are to be kept.
    #[error(
        "a quantized network's norms are part of its weights in bytes and cannot be kept apart; without bytes they can: \
         convert it to .safetensors first, and that to .onnx"
    )]
    NormsInBytes,
}

/// Why a file cannot be read as ONNX.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The system cannot read it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It breaks the format.
    #[error("{reason} (byte {at})")]
    Malformed {
        /// Where, in bytes from the start of the message.
        at: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// Something in it is larger than in any network.
    #[error("something of {length} bytes is more than the {most} that may be there (byte {at})")]
    TooLarge {
        /// Where.
        at: u64,
        /// Its size.
        length: u64,
        /// What is allowed.
        most: u64,
    },
    /// There are more of some thing than in any network.
    #[error("it has more than {most} {what}")]
    TooMany {
        /// What there are many of.
        what: &'static str,
        /// What is allowed.
        most: usize,
    },
}
