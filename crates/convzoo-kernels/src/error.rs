use thiserror::Error;

/// Why a kernel cannot be made or run.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum KernelError {
    /// `CONVZOO_ISA` names an instruction set that is unknown or absent.
    #[error("this processor has no instruction set '{name}'; CONVZOO_ISA may be {}", .available.join(", "))]
    Isa {
        /// What was asked for.
        name: String,
        /// What there is.
        available: Vec<String>,
    },
    /// `CONVZOO_KERNELS` says neither `on` nor `off`.
    #[error("CONVZOO_KERNELS is '{0}'; it may be on or off")]
    Switch(String),
    /// Other kernels have been chosen for this process already.
    #[error("the kernels have already been chosen; choose before the first operation")]
    Chosen,
    /// A slice whose length is not what its shape says.
    #[error("{what} needs {expected} values and has {found}")]
    Length {
        /// Which slice.
        what: &'static str,
        /// Values that its shape makes.
        expected: usize,
        /// Values that it has.
        found: usize,
    },
    /// A tensor with other channels than the operation takes.
    #[error("{operation} takes {expected} channels and is given {found}")]
    Channels {
        /// The operation.
        operation: &'static str,
        /// Channels it takes.
        expected: usize,
        /// Channels it is given.
        found: usize,
    },
    /// Channels that do not divide into groups.
    #[error("{} and {} channels do not divide into {groups} groups", .channels[0], .channels[1])]
    Groups {
        /// Input and output channels.
        channels: [usize; 2],
        /// The groups.
        groups: usize,
    },
    /// A stride, dilation, group count or kernel side of zero, or padding that a window could lie in wholly.
    #[error("{operation} with {what} is invalid")]
    Window {
        /// The operation.
        operation: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// An image in which the window does not fit.
    #[error("an image of {}×{} is smaller than the window of a {operation}", .size[0], .size[1])]
    TooSmall {
        /// The operation.
        operation: &'static str,
        /// Height and width of the image.
        size: [usize; 2],
    },
    /// Tensors whose shapes must be equal and are not.
    #[error("{operation} of {left:?} and {right:?} (channels, height, width)")]
    Shapes {
        /// The operation.
        operation: &'static str,
        /// The one shape.
        left: [usize; 3],
        /// The other.
        right: [usize; 3],
    },
    /// Tensors whose numbers an operation does not take.
    #[error("{operation} of tensors in other numbers than its own")]
    Numbers {
        /// The operation.
        operation: &'static str,
    },
    /// A graph without an output, or an empty concatenation or batch.
    #[error("there is no {0}")]
    Missing(&'static str),
}

/// An error unless `values` are as many as expected.
pub(crate) fn check_length(what: &'static str, expected: usize, values: &[f32]) -> Result<(), KernelError> {
    match values.len() {
        found if found == expected => Ok(()),
        found => Err(KernelError::Length { what, expected, found }),
    }
}
