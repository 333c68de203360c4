//! The parameters of pooling. The computation: on blocks of channels in [`blocked::pool`](crate::blocked::pool), on
//! planes, forward and backward, in [`planar::MaxPoolPass`](crate::planar::MaxPoolPass) and
//! [`planar::AveragePoolPass`](crate::planar::AveragePoolPass).

use crate::{KernelError, Layout};
use convzoo_graph::arithmetic::Slide;

/// Max or average pooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    /// The maximum, or NaN where the window has one; padding does not count.
    Max,
    /// The mean.
    Average {
        /// Whether padding counts, as zeros (`count_include_pad`).
        count_include_pad: bool,
    },
}

#[cfg(feature = "extension")]
impl PoolKind {
    /// Whether padding counts.
    pub(crate) fn counts_padding(self) -> bool {
        matches!(self, Self::Average { count_include_pad: true })
    }
}

/// Windows over an image, as PyTorch's pooling layers have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolShape {
    /// Windows that slide.
    Sliding {
        /// Max or average.
        kind: PoolKind,
        /// Height and width of the window.
        kernel: [usize; 2],
        /// Stride, vertical and horizontal.
        stride: [usize; 2],
        /// Padding on each side, vertical and horizontal.
        padding: [usize; 2],
        /// Whether a last window may extend past the end (`ceil_mode`).
        ceil: bool,
    },
    /// Windows that divide the image (adaptive pooling).
    Adaptive {
        /// Max or average.
        kind: PoolKind,
        /// Height and width of the output; `[1, 1]` is global pooling.
        output: [usize; 2],
    },
}

impl PoolShape {
    /// Adaptive average pooling to `output`, height and width.
    pub fn adaptive_average(output: [usize; 2]) -> Self {
        Self::Adaptive { kind: PoolKind::Average { count_include_pad: false }, output }
    }

    /// Global max pooling.
    pub fn global_max() -> Self {
        Self::Adaptive { kind: PoolKind::Max, output: [1, 1] }
    }

    /// Height and width of the output for an input's.
    ///
    /// # Errors
    /// No window fits, or the shape is invalid.
    pub fn output(&self, size: [usize; 2]) -> Result<[usize; 2], KernelError> {
        Ok([self.windows(0, size)?.len(), self.windows(1, size)?.len()])
    }

    /// Whether it is max pooling.
    pub(crate) fn is_max(&self) -> bool {
        matches!(self, Self::Sliding { kind: PoolKind::Max, .. } | Self::Adaptive { kind: PoolKind::Max, .. })
    }

    /// The windows on an input's rows and on its columns, where they make this output.
    pub(crate) fn between(&self, input: &Layout, output: &Layout) -> Result<[Vec<Window>; 2], KernelError> {
        let size = [input.height, input.width];
        let windows = [self.windows(0, size)?, self.windows(1, size)?];
        let [height, width] = [windows[0].len(), windows[1].len()];
        output.check_equal("pooling", &[Layout { height, width, ..*input }])?;
        Ok(windows)
    }

    /// The windows in one direction.
    pub(crate) fn windows(&self, direction: usize, size: [usize; 2]) -> Result<Vec<Window>, KernelError> {
        let wrong = |what| Err(KernelError::Window { operation: "pooling", what });
        let cells = size[direction];
        if cells == 0 {
            return wrong("no cells");
        }
        match *self {
            Self::Adaptive { output, .. } => {
                let outputs = output[direction];
                if outputs == 0 {
                    return wrong("no cells");
                }
                let window = |i: usize| {
                    let (start, end) = (i * cells / outputs, ((i + 1) * cells).div_ceil(outputs));
                    Window { start, end, divisor: (end - start) as f32 }
                };
                Ok((0..outputs).map(window).collect())
            }
            Self::Sliding { kind, kernel, stride, padding, ceil } => {
                let (kernel, stride, padding) = (kernel[direction], stride[direction], padding[direction]);
                match () {
                    _ if kernel == 0 => return wrong("a window of no cells"),
                    _ if stride == 0 => return wrong("a stride of zero"),
                    _ if padding > kernel / 2 => return wrong("padding wider than half of its window"),
                    _ => {}
                }
                let windows = Slide { kernel, stride, dilation: 1 }.output(cells, [padding; 2], ceil);
                if windows == 0 {
                    return Err(KernelError::TooSmall { operation: "pooling", size });
                }
                let window = |i: usize| {
                    let (start, end) = (i * stride, (i * stride + kernel).min(cells + 2 * padding));
                    let all = end - start;
                    let (start, end) = (start.max(padding) - padding, (end - padding).min(cells));
                    let counted = match kind {
                        PoolKind::Average { count_include_pad: true } => all,
                        _ => end - start,
                    };
                    Window { start, end, divisor: counted as f32 }
                };
                Ok((0..windows).map(window).collect())
            }
        }
    }
}

/// Cells `start..end` of the input, and what their sum is divided by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Window {
    pub start: usize,
    pub end: usize,
    pub divisor: f32,
}
