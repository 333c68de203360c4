//! How many windows slide over the cells of one direction: the only place where an output's size is computed.

/// A window that slides along one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slide {
    /// Taps, at least 1.
    pub kernel: usize,
    /// Cells between windows, at least 1.
    pub stride: usize,
    /// Cells between taps, at least 1.
    pub dilation: usize,
}

impl Slide {
    /// Cells from the first tap to the last: (kernel − 1) · dilation + 1.
    pub fn reach(self) -> usize {
        (self.kernel - 1) * self.dilation + 1
    }

    /// Windows over `input` cells with `[begin, end]` zeros: ⌊(input + begin + end − reach) / stride⌋ + 1, or 0 where none
    /// fits.
    ///
    /// `ceil`: a last window that starts inside the input or its leading padding may hang over the end, as in pooling.
    pub fn output(self, input: usize, [begin, end]: [usize; 2], ceil: bool) -> usize {
        let overhang = if ceil { self.stride - 1 } else { 0 };
        let Some(room) = (input + begin + end + overhang).checked_sub(self.reach()) else { return 0 };
        let last = room / self.stride;
        if ceil && last * self.stride >= input + begin { last } else { last + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_as_many_as_pytorch_has() {
        // (kernel, stride, dilation), input, padding, ceil, output.
        let cases = [
            ((7, 2, 1), 224, [3, 3], false, 112),
            ((3, 2, 1), 112, [1, 1], false, 56),
            ((3, 2, 1), 112, [0, 0], true, 56),
            ((3, 1, 2), 7, [0, 0], false, 3),
            // The last window would begin in the trailing padding.
            ((2, 2, 1), 3, [1, 1], true, 2),
            // A window may be larger than the image by what it may hang over.
            ((2, 2, 1), 1, [0, 0], true, 1),
            ((7, 1, 1), 6, [0, 0], false, 0),
        ];
        for ((kernel, stride, dilation), input, padding, ceil, output) in cases {
            let slide = Slide { kernel, stride, dilation };
            assert_eq!(slide.output(input, padding, ceil), output, "{slide:?} over {input} with {padding:?}");
        }
    }
}
