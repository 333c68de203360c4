use thiserror::Error;

/// Why bytes are no file of compressed weights.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FormatError {
    /// The file is of another format.
    #[error("it is no file of compressed weights")]
    Foreign,
    /// The file is of a later version of the format.
    #[error("it is of version {0} of the format, and this program reads version {own}", own = crate::file::VERSION)]
    Version(u8),
    /// The file's list of tensors is damaged.
    #[error("{0}")]
    Header(&'static str),
    /// A tensor's bytes are damaged.
    #[error("'{name}': {reason}")]
    Tensor {
        /// The tensor.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
}
