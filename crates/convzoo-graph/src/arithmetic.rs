//! Convolution arithmetic in one dimension: output sizes, and padding.

use std::str::FromStr;

/// Zeros around a feature map, as frameworks and papers name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// None: windows stay inside.
    Valid,
    /// As many as make the output size ⌈input / stride⌉; an odd one goes after the last element.
    Same,
    /// As many as give an output for every window that overlaps the input.
    Full,
    /// This many on each side.
    Cells(usize),
}

impl FromStr for Padding {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "valid" => Ok(Self::Valid),
            "same" => Ok(Self::Same),
            "full" => Ok(Self::Full),
            _ => text.parse().map(Self::Cells).map_err(|_| "expected valid, same, full or a number".to_owned()),
        }
    }
}

/// A sliding window in one dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slide {
    /// Kernel size, at least 1.
    pub kernel: usize,
    /// Stride, at least 1.
    pub stride: usize,
    /// Dilation, at least 1.
    pub dilation: usize,
}

impl Slide {
    /// Effective kernel size: (kernel − 1) · dilation + 1.
    pub fn reach(self) -> usize {
        (self.kernel - 1) * self.dilation + 1
    }

    /// Zeros before and after an input of size `input`.
    pub fn padding(self, input: usize, padding: Padding) -> [usize; 2] {
        match padding {
            Padding::Valid => [0, 0],
            Padding::Cells(cells) => [cells, cells],
            Padding::Full => [self.reach() - 1, self.reach() - 1],
            Padding::Same => {
                let cells = input.div_ceil(self.stride);
                let total = (cells.saturating_sub(1) * self.stride + self.reach()).saturating_sub(input);
                [total / 2, total - total / 2]
            }
        }
    }

    /// The output size for an input of size `input` with `[front, back]` zeros: ⌊(input + front + back − reach) /
    /// stride⌋ + 1, or 0 where no window fits.
    ///
    /// `ceil`: a last window that starts inside the input or its leading padding may extend past the end (`ceil_mode`).
    pub fn output(self, input: usize, [front, back]: [usize; 2], ceil: bool) -> usize {
        let overhang = if ceil { self.stride - 1 } else { 0 };
        let Some(room) = (input + front + back + overhang).checked_sub(self.reach()) else { return 0 };
        let last = room / self.stride;
        if ceil && last * self.stride >= input + front { last } else { last + 1 }
    }

    /// The padding on each side that keeps the size at stride 1; even effective kernel sizes have none.
    pub fn keeping(self) -> Option<usize> {
        (self.reach() % 2 == 1).then_some(self.reach() / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slide(kernel: usize, stride: usize, dilation: usize) -> Slide {
        Slide { kernel, stride, dilation }
    }

    #[test]
    fn the_formula_gives_what_papers_print() {
        // (slide, input, padding, ceil, output): LeNet's C1, AlexNet's first two layers, VGG, ResNet, GoogLeNet's pool.
        let cases = [
            (slide(5, 1, 1), 32, Padding::Valid, false, 28),
            (slide(11, 4, 1), 227, Padding::Valid, false, 55),
            (slide(3, 2, 1), 55, Padding::Valid, false, 27),
            (slide(3, 1, 1), 224, Padding::Same, false, 224),
            (slide(7, 2, 1), 224, Padding::Cells(3), false, 112),
            (slide(3, 2, 1), 112, Padding::Valid, true, 56),
            (slide(3, 1, 1), 6, Padding::Full, false, 8),
            (slide(3, 1, 2), 7, Padding::Valid, false, 3),
            (slide(7, 1, 1), 6, Padding::Valid, false, 0),
        ];
        for (slide, input, padding, ceil, output) in cases {
            let zeros = slide.padding(input, padding);
            assert_eq!(slide.output(input, zeros, ceil), output, "{slide:?} over {input} with {padding:?}");
        }
    }

    #[test]
    fn windows_are_as_many_as_pytorch_has() {
        // With `ceil_mode` the last window may extend past the end, but not start in the trailing padding.
        let cases = [
            (slide(3, 2, 1), 112, [1, 1], false, 56),
            (slide(2, 2, 1), 3, [1, 1], true, 2),
            (slide(2, 2, 1), 1, [0, 0], true, 1),
        ];
        for (slide, input, zeros, ceil, output) in cases {
            assert_eq!(slide.output(input, zeros, ceil), output, "{slide:?} over {input} with {zeros:?}");
        }
    }

    #[test]
    fn same_padding_divides_by_the_stride_for_any_kernel() {
        for kernel in 1..8 {
            for stride in 1..5 {
                for input in 1..20 {
                    let slide = slide(kernel, stride, 1);
                    let zeros = slide.padding(input, Padding::Same);
                    assert_eq!(slide.output(input, zeros, false), input.div_ceil(stride), "{slide:?} over {input}");
                }
            }
        }
    }

    #[test]
    fn only_odd_reaches_keep_a_size_with_equal_sides() {
        assert_eq!(slide(3, 1, 1).keeping(), Some(1));
        assert_eq!(slide(5, 1, 2).keeping(), Some(4));
        assert_eq!(slide(2, 1, 2).keeping(), Some(1));
        assert_eq!(slide(4, 1, 1).keeping(), None);
    }
}
