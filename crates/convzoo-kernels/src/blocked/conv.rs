//! Convolutions on blocks of channels: direct, depthwise and by Winograd's method, each with bias, sum and activation in the
//! same pass.

use std::sync::Arc;

use half::bf16;

pub use super::depthwise::DepthwiseConv;
use super::depthwise::DepthwiseRows;
pub use super::direct::DirectConv;
use super::direct::DirectOperation;
use super::rows::ByRows;
pub use super::winograd::WinogradConv;
use super::winograd::WinogradOperation;
use crate::conv::ConvShape;
use crate::elementwise::Activation;
use crate::number::Numbers;
use crate::winograd::WinogradTile;
use crate::{Isa, KernelError, Layout, Operation};

/// How a convolution is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Directly, on blocks of channels.
    Direct,
    /// Directly, on an input in NCHW order: for the few channels of an image.
    Planar,
    /// Channel by channel, for as many groups as channels.
    Depthwise,
    /// By Winograd's minimal filtering, 3×3 kernels only.
    Winograd(WinogradTile),
}

/// A convolution whose weights are packed for one algorithm.
#[derive(Clone)]
pub enum Conv {
    /// [`Algorithm::Direct`] and [`Algorithm::Planar`].
    Direct(Arc<DirectConv>),
    /// [`Algorithm::Depthwise`].
    Depthwise(Arc<DepthwiseConv>),
    /// [`Algorithm::Winograd`].
    Winograd(Arc<WinogradConv>),
}

/// What is fused with a convolution and its bias.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue {
    /// The layout of a tensor added to the output, which is then the second input.
    pub sum: Option<Layout>,
    /// What follows the sum.
    pub activation: Activation,
}

impl Conv {
    /// Packs a weight `[outputs, inputs / groups, height, width]` and a bias `[outputs]`, for inputs and outputs of
    /// `numbers`. Images in NCHW order, [`Algorithm::Planar`]'s inputs, are of `f32`, and so are its weights.
    ///
    /// # Errors
    /// The shape is invalid, the slices do not have it, or the algorithm is not for it.
    pub fn new(
        isa: Isa,
        shape: ConvShape,
        algorithm: Algorithm,
        numbers: Numbers,
        weight: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Self, KernelError> {
        shape.check(weight, bias)?;
        Ok(match (algorithm, numbers) {
            (Algorithm::Direct, Numbers::F32) => {
                Self::Direct(Arc::new(DirectConv::new::<f32>(isa, shape, isa.lanes(), weight, bias)))
            }
            (Algorithm::Direct, Numbers::Bf16) => {
                Self::Direct(Arc::new(DirectConv::new::<bf16>(isa, shape, isa.lanes(), weight, bias)))
            }
            (Algorithm::Planar, _) => Self::Direct(Arc::new(DirectConv::new::<f32>(isa, shape, 1, weight, bias))),
            (Algorithm::Depthwise, Numbers::F32) => {
                Self::Depthwise(Arc::new(DepthwiseConv::new::<f32>(isa, shape, weight, bias)?))
            }
            (Algorithm::Depthwise, Numbers::Bf16) => {
                Self::Depthwise(Arc::new(DepthwiseConv::new::<bf16>(isa, shape, weight, bias)?))
            }
            (Algorithm::Winograd(tile), _) => {
                Self::Winograd(Arc::new(WinogradConv::new(isa, shape, tile, numbers, weight, bias)?))
            }
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
        let numbers = self.numbers();
        let planes = matches!(self, Self::Direct(conv) if conv.is_planar());
        let other_sum = epilogue.sum.is_some_and(|sum| sum.numbers != output.numbers);
        if input.numbers != numbers || other_sum || !planes && output.numbers != numbers {
            return Err(KernelError::Numbers { operation: "a convolution" });
        }
        let job = Job { input, output, epilogue };
        Ok(match self {
            Self::Direct(conv) => Box::new(DirectOperation::new(conv.clone(), job, threads)),
            Self::Depthwise(conv) => {
                let kernel = DepthwiseRows { conv: conv.clone(), activation: job.epilogue.activation };
                ByRows::new(kernel, conv.isa, job.inputs(), job.output, threads)?
            }
            Self::Winograd(conv) => Box::new(WinogradOperation::new(conv.clone(), job, threads)),
        })
    }

    /// Bytes of the weights as they are packed, with the zeros that fill vectors.
    pub fn weight_bytes(&self) -> usize {
        match self {
            Self::Direct(conv) => conv.weight_bytes(),
            Self::Depthwise(conv) => conv.weight_bytes(),
            Self::Winograd(conv) => conv.weight_bytes(),
        }
    }

    /// The numbers of its input.
    fn numbers(&self) -> Numbers {
        match self {
            Self::Direct(conv) => conv.numbers,
            Self::Depthwise(conv) => conv.numbers,
            Self::Winograd(conv) => conv.numbers,
        }
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
pub(super) struct Job {
    pub input: Layout,
    pub output: Layout,
    pub epilogue: Epilogue,
}

impl Job {
    pub fn inputs(&self) -> Vec<Layout> {
        [Some(self.input), self.epilogue.sum].into_iter().flatten().collect()
    }
}

/// The rows of a kernel that lie on the image for one row of the output: the first row of the input that is read, and
/// the taps `first..last`.
#[derive(Clone, Copy)]
pub(crate) struct TapRows {
    pub input: usize,
    pub first: usize,
    pub last: usize,
}

impl TapRows {
    #[inline(always)]
    pub fn new(shape: &ConvShape, height: usize, row: usize) -> Self {
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
