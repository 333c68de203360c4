//! Convolutions: direct, depthwise and by Winograd's method, each with bias, sum and ReLU in the same pass.

mod depthwise;
mod direct;
pub(crate) mod tile;
pub(crate) mod winograd;

use std::sync::Arc;

pub use depthwise::Depthwise;
pub use direct::Direct;
pub use winograd::{Tile, Winograd};

use crate::rows::ByRows;
use crate::{Isa, KernelError, Layout, Operation};

/// A convolution's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvShape {
    /// Channels in and out.
    pub channels: [usize; 2],
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Steps between windows.
    pub stride: [usize; 2],
    /// Rows and columns of zeros on each side.
    pub padding: [usize; 2],
    /// Distance between the kernel's taps.
    pub dilation: [usize; 2],
    /// Groups that channels are divided into.
    pub groups: usize,
}

impl ConvShape {
    /// A square kernel, stride 1, no padding.
    pub fn square(inputs: usize, outputs: usize, size: usize) -> Self {
        Self {
            channels: [inputs, outputs],
            kernel: [size; 2],
            stride: [1; 2],
            padding: [0; 2],
            dilation: [1; 2],
            groups: 1,
        }
    }

    /// Height and width of the output for an input's.
    ///
    /// # Errors
    /// The window does not fit.
    pub fn output(&self, size: [usize; 2]) -> Result<[usize; 2], KernelError> {
        let mut output = [0; 2];
        for (i, output) in output.iter_mut().enumerate() {
            let reach = (self.kernel[i] - 1) * self.dilation[i];
            let room = (size[i] + 2 * self.padding[i]).checked_sub(reach + 1);
            let room = room.ok_or(KernelError::TooSmall { operation: "convolution", size })?;
            *output = room / self.stride[i] + 1;
        }
        Ok(output)
    }

    /// Multiply-adds for one image of this size.
    pub fn macs(&self, size: [usize; 2]) -> Result<usize, KernelError> {
        let [height, width] = self.output(size)?;
        Ok(height * width * self.weights())
    }

    /// Values of the weight, `[outputs, inputs / groups, height, width]`.
    pub fn weights(&self) -> usize {
        self.channels[1] * self.group_inputs() * self.kernel[0] * self.kernel[1]
    }

    fn group_inputs(&self) -> usize {
        self.channels[0] / self.groups
    }

    pub(crate) fn check(&self, weight: &[f32], bias: Option<&[f32]>) -> Result<(), KernelError> {
        let zero = |what| Err(KernelError::Window { operation: "convolution", what });
        let [inputs, outputs] = self.channels;
        match self {
            _ if inputs == 0 || outputs == 0 => return zero("no channels"),
            _ if self.kernel.contains(&0) => return zero("a kernel of no taps"),
            _ if self.stride.contains(&0) => return zero("a stride of zero"),
            _ if self.dilation.contains(&0) => return zero("a dilation of zero"),
            _ if self.groups == 0 => return zero("no groups"),
            _ => {}
        }
        if !inputs.is_multiple_of(self.groups) || !outputs.is_multiple_of(self.groups) {
            return Err(KernelError::Groups { channels: self.channels, groups: self.groups });
        }
        length("a convolution's weight", self.weights(), weight)?;
        bias.map_or(Ok(()), |bias| length("a convolution's bias", outputs, bias))
    }
}

pub(crate) fn length(what: &'static str, expected: usize, values: &[f32]) -> Result<(), KernelError> {
    match values.len() {
        found if found == expected => Ok(()),
        found => Err(KernelError::Length { what, expected, found }),
    }
}

/// How a convolution is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// As it is written, on blocks of channels.
    Direct,
    /// As it is written, on an input in the usual order: for the few channels of an image.
    Planar,
    /// Channel by channel, for as many groups as channels.
    Depthwise,
    /// By Winograd's minimal filtering, 3×3 kernels only.
    Winograd(Tile),
}

/// A convolution whose weights are packed for one algorithm.
#[derive(Clone)]
pub enum Conv {
    /// [`Algorithm::Direct`] and [`Algorithm::Planar`].
    Direct(Arc<Direct>),
    /// [`Algorithm::Depthwise`].
    Depthwise(Arc<Depthwise>),
    /// [`Algorithm::Winograd`].
    Winograd(Arc<Winograd>),
}

/// What follows a convolution in the same pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue {
    /// The layout of a tensor added to the output, which is then the second input.
    pub sum: Option<Layout>,
    /// Whether a ReLU follows.
    pub relu: bool,
}

impl Conv {
    /// Packs a weight `[outputs, inputs / groups, height, width]` and a bias `[outputs]`.
    ///
    /// # Errors
    /// The shape makes no sense, the slices do not have it, or the algorithm is not for it.
    pub fn new(
        isa: Isa,
        shape: ConvShape,
        algorithm: Algorithm,
        weight: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Self, KernelError> {
        shape.check(weight, bias)?;
        Ok(match algorithm {
            Algorithm::Direct => Self::Direct(Arc::new(Direct::new(isa, shape, isa.lanes(), weight, bias))),
            Algorithm::Planar => Self::Direct(Arc::new(Direct::new(isa, shape, 1, weight, bias))),
            Algorithm::Depthwise => Self::Depthwise(Arc::new(Depthwise::new(isa, shape, weight, bias)?)),
            Algorithm::Winograd(tile) => Self::Winograd(Arc::new(Winograd::new(isa, shape, tile, weight, bias)?)),
        })
    }

    /// The convolution of inputs `[batch, channels, height, width]` in a layout into another.
    ///
    /// The input's lanes are 1 for [`Algorithm::Planar`], else the instruction set's, as the output's are; its halo is
    /// at least the padding.
    ///
    /// # Errors
    /// The layouts are not the convolution's.
    pub fn operation(
        &self,
        input: Layout,
        output: Layout,
        epilogue: Epilogue,
        threads: usize,
    ) -> Result<Box<dyn Operation>, KernelError> {
        let shape = self.shape();
        let channels = |expected, found| match expected == found {
            true => Ok(()),
            false => Err(KernelError::Channels { operation: "convolution", expected, found }),
        };
        channels(shape.channels[0], input.channels)?;
        channels(shape.channels[1], output.channels)?;
        let [height, width] = shape.output([input.height, input.width])?;
        let made = [output.channels, height, width];
        for other in [Some(output), epilogue.sum].into_iter().flatten() {
            let right = [other.channels, other.height, other.width];
            if made != right || input.batch != other.batch {
                return Err(KernelError::Shapes { operation: "convolution", left: made, right });
            }
        }
        if input.halo < shape.padding[1] {
            return Err(KernelError::Window { operation: "convolution", what: "a halo narrower than its padding" });
        }
        let job = Job { input, output, epilogue };
        Ok(match self {
            Self::Direct(conv) => Box::new(direct::DirectOperation::new(conv.clone(), job, threads)),
            Self::Depthwise(conv) => {
                Box::new(ByRows::new(depthwise::DepthwiseRows { conv: conv.clone(), job }, threads))
            }
            Self::Winograd(conv) => Box::new(winograd::WinogradOperation::new(conv.clone(), job, threads)),
        })
    }

    /// The convolution's shape.
    pub fn shape(&self) -> ConvShape {
        match self {
            Self::Direct(conv) => conv.shape,
            Self::Depthwise(conv) => conv.shape,
            Self::Winograd(conv) => conv.shape,
        }
    }
}

/// Layouts of one use of a convolution, and what follows it.
#[derive(Clone, Copy)]
struct Job {
    input: Layout,
    output: Layout,
    epilogue: Epilogue,
}

impl Job {
    fn inputs(&self) -> Vec<Layout> {
        [Some(self.input), self.epilogue.sum].into_iter().flatten().collect()
    }
}

/// The rows of a kernel that lie on the image for one row of the output: the first row of the input that is read, and
/// the taps `first..last`.
#[derive(Clone, Copy)]
struct Rows {
    input: usize,
    first: usize,
    last: usize,
}

impl Rows {
    #[inline(always)]
    fn new(shape: &ConvShape, height: usize, row: usize) -> Self {
        let (dilation, padding) = (shape.dilation[0], shape.padding[0]);
        let top = row * shape.stride[0];
        // Tap `k` reads row `top + k * dilation - padding`.
        let first = if top >= padding { 0 } else { (padding - top).div_ceil(dilation) };
        let last = if top >= height + padding { 0 } else { (height + padding - top).div_ceil(dilation) };
        let (first, last) = (first.min(shape.kernel[0]), last.min(shape.kernel[0]));
        match first < last {
            true => Self { input: top + first * dilation - padding, first, last },
            false => Self { input: 0, first: 0, last: 0 },
        }
    }
}

/// A bias, or zeros, for whole blocks.
fn pad_bias(bias: Option<&[f32]>, outputs: usize, lanes: usize) -> crate::Buffer {
    let mut padded = crate::Buffer::zeros(outputs.next_multiple_of(lanes));
    if let Some(bias) = bias {
        padded[..outputs].copy_from_slice(bias);
    }
    padded
}
