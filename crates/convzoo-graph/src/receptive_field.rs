use serde::Serialize;

use crate::{Operation, Window};

/// The receptive field of an element of a feature map, in pixels of the image, `[vertical, horizontal]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ReceptiveField {
    /// Size in pixels. `None`: all of the image.
    pub size: [Option<usize>; 2],
    /// Pixels between the centers of neighboring elements' fields.
    pub stride: [usize; 2],
    /// Center of the first element's field; negative where it is in the padding.
    pub center: [f64; 2],
}

impl ReceptiveField {
    /// The receptive field of a pixel of the image: itself.
    pub const PIXEL: Self = Self { size: [Some(1); 2], stride: [1; 2], center: [0.0; 2] };

    /// The receptive field after an operation on a feature map with this one.
    pub(crate) fn through(self, operation: &Operation) -> Self {
        match operation {
            Operation::Conv2d { window, .. }
            | Operation::MaxPool2d { window, .. }
            | Operation::AvgPool2d { window, .. } => self.through_window(*window),
            Operation::PadShortcut { stride, .. } => self.through_window(Window::square(1).strided(*stride)),
            // Each window covers a part of the feature map; only a single one covers all of it. A vector is of all pixels.
            Operation::AdaptiveAvgPool2d { output: [1, 1] } | Operation::GlobalMaxPool2d | Operation::Flatten => {
                self.all()
            }
            // It may depend on any pixel.
            Operation::Opaque { .. } => self.all(),
            _ => self,
        }
    }

    fn through_window(mut self, window: Window) -> Self {
        for i in 0..2 {
            let reach = (window.kernel[i] - 1) * window.dilation[i];
            self.size[i] = self.size[i].map(|size| size + reach * self.stride[i]);
            self.center[i] += (reach as f64 / 2.0 - window.padding[i] as f64) * self.stride[i] as f64;
            self.stride[i] *= window.stride[i];
        }
        self
    }

    fn all(mut self) -> Self {
        self.size = [None; 2];
        self
    }

    /// The receptive field of a sum or concatenation: the union of both.
    pub(crate) fn union(mut self, other: Self) -> Self {
        for i in 0..2 {
            self.size[i] = self.size[i].zip(other.size[i]).map(|(a, b)| {
                let (half_a, half_b) = ((a - 1) as f64 / 2.0, (b - 1) as f64 / 2.0);
                let first = (self.center[i] - half_a).min(other.center[i] - half_b);
                let last = (self.center[i] + half_a).max(other.center[i] + half_b);
                self.center[i] = (first + last) / 2.0;
                (last - first).round() as usize + 1
            });
            self.stride[i] = self.stride[i].max(other.stride[i]);
        }
        self
    }
}
