#![allow(unsafe_code)]

use super::{filled, plane_at};
use crate::operation::Shared;
use crate::parallel;
use crate::simd::Isa;

/// Max pooling of planes of one size, which remembers each window's largest pixel.
#[derive(Clone, Copy, Debug)]
pub struct MaxPoolPass {
    /// The instruction set.
    pub isa: Isa,
    /// Planes: images times channels.
    pub planes: usize,
    /// Height and width of the input.
    pub input: [usize; 2],
    /// Height and width of the output.
    pub output: [usize; 2],
    /// Height and width of the window.
    pub kernel: [usize; 2],
    /// Steps between windows.
    pub stride: [usize; 2],
    /// Rows and columns on each side that no window finds anything in.
    pub padding: [usize; 2],
}

impl MaxPoolPass {
    /// The largest pixel of each window, and which of the plane's it is.
    ///
    /// # Panics
    /// A slice's length is not that of its shape, or a window lies wholly in the padding; so below.
    pub fn forward(&self, input: &[f32]) -> (Vec<f32>, Vec<i32>) {
        let (from_plane, to_plane) = (self.input.iter().product(), self.output.iter().product::<usize>());
        assert_eq!(input.len(), self.planes * from_plane, "input of {self:?}");
        let mut indices: Vec<i32> = Vec::with_capacity(self.planes * to_plane);
        let to_indices = Shared(indices.as_mut_ptr());
        // SAFETY: every plane is written by the task that has it.
        let output = unsafe {
            filled(self.planes * to_plane, |output| {
                let output = Shared(output);
                parallel::for_each(self.planes, |plane| {
                    let values = plane_at(&output, plane * to_plane, to_plane);
                    let indices = std::slice::from_raw_parts_mut(to_indices.get().add(plane * to_plane), to_plane);
                    self.pool(&input[plane * from_plane..][..from_plane], values, indices);
                });
            })
        };
        // SAFETY: as above.
        unsafe { indices.set_len(self.planes * to_plane) };
        (output, indices)
    }

    /// The gradient of the input from that of the output and the indices that [`forward`](Self::forward) answered with.
    pub fn backward(&self, indices: &[i32], gradient: &[f32]) -> Vec<f32> {
        let (to_plane, from_plane) = (self.input.iter().product(), self.output.iter().product::<usize>());
        assert_eq!(gradient.len(), self.planes * from_plane, "gradient of {self:?}");
        assert_eq!(indices.len(), gradient.len(), "indices of {self:?}");
        // SAFETY: every plane is written by the task that has it.
        unsafe {
            filled(self.planes * to_plane, |output| {
                let output = Shared(output);
                parallel::for_each(self.planes, |plane| {
                    let to = plane_at(&output, plane * to_plane, to_plane);
                    to.fill(0.0);
                    let range = plane * from_plane..(plane + 1) * from_plane;
                    for (&index, g) in indices[range.clone()].iter().zip(&gradient[range]) {
                        to[index as usize] += g;
                    }
                });
            })
        }
    }

    fn pool(&self, plane: &[f32], values: &mut [f32], indices: &mut [i32]) {
        let Self { input: [height, width], output: [_, columns], kernel, stride, padding, .. } = *self;
        let window = |i: usize, cell: usize| {
            let start = cell * stride[i];
            start.saturating_sub(padding[i])..(start + kernel[i]).saturating_sub(padding[i]).min([height, width][i])
        };
        for (cell, (value, index)) in values.iter_mut().zip(indices).enumerate() {
            let (rows, across) = (window(0, cell / columns), window(1, cell % columns));
            let first = rows.start * width + across.start;
            (*value, *index) = (plane[first], first as i32);
            for y in rows {
                for x in across.clone() {
                    let pixel = plane[y * width + x];
                    // What is no number stays.
                    if pixel > *value || pixel.is_nan() {
                        (*value, *index) = (pixel, (y * width + x) as i32);
                    }
                }
            }
        }
    }
}
