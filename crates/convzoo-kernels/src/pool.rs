//! Pooling: the maximum or the mean over windows.
#![allow(unsafe_code)]

use crate::rows::{ByRows, Place, RowKernel};
use crate::simd::Simd;
use crate::{Isa, KernelError, Layout, Operation};

/// What is taken of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    /// The maximum, or NaN where the window has one; padding does not count.
    Max,
    /// The mean.
    Average {
        /// Whether padding counts, as zeros.
        count_include_pad: bool,
    },
}

#[cfg(feature = "flex")]
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
        /// What is taken of each.
        kind: PoolKind,
        /// Height and width of the window.
        kernel: [usize; 2],
        /// Steps between windows.
        stride: [usize; 2],
        /// Rows and columns on each side.
        padding: [usize; 2],
        /// Whether a last window may hang over the end.
        ceil: bool,
    },
    /// The mean over as many windows as the output has cells, as equal as can be.
    Adaptive([usize; 2]),
}

impl PoolShape {
    /// Height and width of the output for an input's.
    ///
    /// # Errors
    /// No window fits, or the shape makes no sense.
    pub fn output(&self, size: [usize; 2]) -> Result<[usize; 2], KernelError> {
        Ok([self.windows(0, size)?.len(), self.windows(1, size)?.len()])
    }

    /// Whether it takes maxima.
    pub(crate) fn is_max(&self) -> bool {
        matches!(self, Self::Sliding { kind: PoolKind::Max, .. })
    }

    /// The windows in one direction.
    pub(crate) fn windows(&self, direction: usize, size: [usize; 2]) -> Result<Vec<Window>, KernelError> {
        let wrong = |what| Err(KernelError::Window { operation: "pooling", what });
        let cells = size[direction];
        match *self {
            Self::Adaptive(output) => {
                let outputs = output[direction];
                if outputs == 0 || cells == 0 {
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
                let room = (cells + 2 * padding).checked_sub(kernel);
                let room = room.ok_or(KernelError::TooSmall { operation: "pooling", size })?;
                let mut last = if ceil { room.div_ceil(stride) } else { room / stride };
                // A window must begin on the image or on the padding in front of it.
                if last * stride >= cells + padding {
                    last -= 1;
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
                Ok((0..=last).map(window).collect())
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

/// Pooling of one layout into another; any halos.
///
/// # Errors
/// The layouts do not fit each other or the shape.
pub fn pool(
    isa: Isa,
    shape: &PoolShape,
    input: Layout,
    output: Layout,
    threads: usize,
) -> Result<Box<dyn Operation>, KernelError> {
    let size = [input.height, input.width];
    let [height, width] = shape.output(size)?;
    let (left, right) = ([input.channels, height, width], [output.channels, output.height, output.width]);
    if left != right || input.batch != output.batch {
        return Err(KernelError::Shapes { operation: "pooling", left, right });
    }
    let kernel = Pool {
        isa,
        max: shape.is_max(),
        rows: shape.windows(0, size)?,
        columns: shape.windows(1, size)?,
        input,
        output,
    };
    Ok(Box::new(ByRows::new(kernel, threads)))
}

struct Pool {
    isa: Isa,
    max: bool,
    rows: Vec<Window>,
    columns: Vec<Window>,
    input: Layout,
    output: Layout,
}

impl RowKernel for Pool {
    fn isa(&self) -> Isa {
        self.isa
    }

    fn inputs(&self) -> Vec<Layout> {
        vec![self.input]
    }

    fn output(&self) -> Layout {
        self.output
    }

    #[inline(always)]
    unsafe fn row<S: Simd>(&self, at: Place, inputs: &[*const f32], output: *mut f32) {
        let rows = self.rows[at.row];
        // SAFETY: windows lie on the image, and the pointers are valid for the layouts.
        unsafe {
            let input = inputs[0].add(self.input.at(at.image, at.block, 0));
            for (x, columns) in self.columns.iter().enumerate() {
                let mut total = S::splat(if self.max { f32::NEG_INFINITY } else { 0.0 });
                for row in rows.start..rows.end {
                    let mut pixel = input.add(row * self.input.row() + columns.start * S::LANES);
                    for _ in columns.start..columns.end {
                        let value = S::load(pixel);
                        total = if self.max { S::max_or_nan(total, value) } else { S::add(total, value) };
                        pixel = pixel.wrapping_add(S::LANES);
                    }
                }
                if !self.max {
                    total = S::div(total, S::splat(rows.divisor * columns.divisor));
                }
                S::store(output.add(x * S::LANES), total);
            }
        }
    }
}
