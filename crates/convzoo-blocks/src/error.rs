use thiserror::Error;

/// Why a unit cannot be replaced by one with another number of outputs.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error(
    "only a 1×1 convolution and its activation can be exchanged for others of {outputs} outputs, and this one {reason}"
)]
pub struct ReplaceError {
    /// The outputs asked for.
    pub outputs: usize,
    /// What the unit has that the new one would lack.
    pub reason: &'static str,
}
