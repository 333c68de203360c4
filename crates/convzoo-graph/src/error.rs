use thiserror::Error;

/// Why a network has no graph for an input.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum GraphError {
    /// An operation does not take its inputs.
    #[error("operation {node} of the network, {kind}: {reason}")]
    Shape {
        /// The node, counted from the images at 0.
        node: usize,
        /// What it computes.
        kind: &'static str,
        /// What is wrong.
        reason: String,
    },
}
