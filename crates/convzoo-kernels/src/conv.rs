//! The shape of a convolution. The computation: on blocks of channels in [`blocked::conv`](crate::blocked::conv),
//! on planes, forward and backward, in [`planar::ConvPass`](crate::planar::ConvPass).

use crate::KernelError;
use crate::error::check_length;
use convzoo_graph::arithmetic::Slide;

/// A convolution's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvShape {
    /// Input and output channels.
    pub channels: [usize; 2],
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Stride, vertical and horizontal.
    pub stride: [usize; 2],
    /// Zero padding on each side, vertical and horizontal.
    pub padding: [usize; 2],
    /// Dilation: the spacing between kernel elements.
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
        let windows = |i: usize| {
            let slide = Slide { kernel: self.kernel[i], stride: self.stride[i], dilation: self.dilation[i] };
            slide.output(size[i], [self.padding[i]; 2], false)
        };
        match [windows(0), windows(1)] {
            [0, _] | [_, 0] => Err(KernelError::TooSmall { operation: "convolution", size }),
            output => Ok(output),
        }
    }

    /// Multiply-adds for one image of this size.
    pub fn macs(&self, size: [usize; 2]) -> Result<usize, KernelError> {
        let [height, width] = self.output(size)?;
        Ok(height * width * self.weights())
    }

    /// Values of the weight, `[outputs, inputs / groups, height, width]`.
    pub fn weights(&self) -> usize {
        self.channels[1] * self.group_channels()[0] * self.taps()
    }

    /// Taps of the kernel.
    pub(crate) fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Input and output channels of a group.
    pub(crate) fn group_channels(&self) -> [usize; 2] {
        self.channels.map(|channels| channels / self.groups)
    }

    /// Whether Winograd's method computes it: 3×3, stride 1, dilation 1, one group.
    pub(crate) fn suits_winograd(&self) -> bool {
        (self.kernel, self.stride, self.dilation, self.groups) == ([3; 2], [1; 2], [1; 2], 1)
    }

    pub(crate) fn check(&self, weight: &[f32], bias: Option<&[f32]>) -> Result<(), KernelError> {
        self.check_sizes()?;
        check_length("a convolution's weight", self.weights(), weight)?;
        bias.map_or(Ok(()), |bias| check_length("a convolution's bias", self.channels[1], bias))
    }

    /// Refuses a window of no pixels, and groups that channels do not divide into.
    pub(crate) fn check_sizes(&self) -> Result<(), KernelError> {
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
        Ok(())
    }
}
