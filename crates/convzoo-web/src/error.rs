use convzoo_compress::FormatError;
use convzoo_data::DataError;
use convzoo_graph::GraphError;
use convzoo_kernels::KernelError;
use convzoo_kernels::engine::CompileError;
use thiserror::Error;

/// Why a request has no answer.
#[derive(Debug, Error)]
pub enum WebError {
    /// The request or description is no JSON, or not of the kind that is expected.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// A file of weights in a format that is not read here.
    #[error(
        "this is neither safetensors nor a file of `convzoo compress`; `convzoo convert` makes one of a .pth or .onnx file"
    )]
    Format,
    /// A file of weights is damaged.
    #[error("the file of weights is damaged: {0}")]
    Damaged(String),
    /// A compressed file of weights is damaged.
    #[error("the file of weights is damaged: {0}")]
    Compressed(#[from] FormatError),
    /// Weights are not those of the network.
    #[error("these are not the weights of {model}: {problem}")]
    Weights {
        /// The network.
        model: String,
        /// The first tensors that are missing or have another shape.
        problem: String,
    },
    /// An image cannot be read.
    #[error(transparent)]
    Image(#[from] DataError),
    /// An image's pixels do not go with its size.
    #[error("{0} bytes are not the pixels of an image of this size")]
    Pixels(usize),
    /// The network's graph cannot be.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The network cannot be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The network does not take the image.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// There is no network, image or weight yet.
    #[error("there is no {0} yet")]
    Missing(&'static str),
    /// A number is beyond what it counts.
    #[error("there is no {what} {number}: there are {count}")]
    Range {
        /// What is counted, from 0.
        what: &'static str,
        /// What was asked for.
        number: usize,
        /// How many there are.
        count: usize,
    },
    /// What is asked for is not there for this operation.
    #[error("{0}")]
    Unsuited(&'static str),
}

/// `number`, where it is below `count`.
pub(crate) fn within(what: &'static str, number: usize, count: usize) -> Result<usize, WebError> {
    if number < count { Ok(number) } else { Err(WebError::Range { what, number, count }) }
}
