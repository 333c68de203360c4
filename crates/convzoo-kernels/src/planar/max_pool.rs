#![allow(unsafe_code)]

use crate::memory::{Shared, filled, part_mut, with_scratch};
use crate::number::{Number, convert};
use crate::pool::{PoolKind, PoolShape};
use crate::simd::{Isa, Kernel, Simd};
use crate::{KernelError, parallel};

/// Max pooling of planes of one size, which remembers each window's largest pixel.
#[derive(Clone, Copy, Debug)]
pub struct MaxPoolPass {
    isa: Isa,
    /// Images times channels.
    planes: usize,
    /// Height and width of the input and of the output.
    input: [usize; 2],
    output: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
}

impl MaxPoolPass {
    /// Of `planes` (images times channels) of `input`, `[height, width]`.
    ///
    /// # Errors
    /// No window fits, or the shape is average pooling.
    pub fn new(isa: Isa, shape: &PoolShape, planes: usize, input: [usize; 2]) -> Result<Self, KernelError> {
        let PoolShape::Sliding { kind: PoolKind::Max, kernel, stride, padding, .. } = *shape else {
            return Err(KernelError::Window { operation: "max pooling", what: "a mean" });
        };
        Ok(Self { isa, planes, input, output: shape.output(input)?, kernel, stride, padding })
    }

    /// Height and width of the output.
    pub fn output(&self) -> [usize; 2] {
        self.output
    }

    /// The largest pixel of each window, and which of the plane's it is.
    ///
    /// # Panics
    /// A slice's length is not that of its shape; so below.
    pub fn forward<N: Number>(&self, input: &[N]) -> (Vec<N>, Vec<i32>) {
        let (from_plane, to_plane) = (self.input.iter().product(), self.output.iter().product::<usize>());
        assert_eq!(input.len(), self.planes * from_plane, "input of {self:?}");
        let mut indices: Vec<i32> = Vec::with_capacity(self.planes * to_plane);
        let to_indices = Shared(indices.as_mut_ptr());
        // SAFETY: every plane is written by the task that has it.
        let output = unsafe {
            filled(self.planes * to_plane, |output| {
                let output = Shared(output);
                parallel::for_each(self.planes, |plane| {
                    let values = part_mut(&output, plane * to_plane, to_plane);
                    let indices = std::slice::from_raw_parts_mut(to_indices.get().add(plane * to_plane), to_plane);
                    let plane = &input[plane * from_plane..][..from_plane];
                    self.isa.call(PoolPlane { pass: self, plane, values, indices });
                });
            })
        };
        // SAFETY: as above.
        unsafe { indices.set_len(self.planes * to_plane) };
        (output, indices)
    }

    /// The gradient of the input from that of the output and the indices that [`forward`](Self::forward) returned.
    pub fn backward<N: Number>(&self, indices: &[i32], gradient: &[N]) -> Vec<N> {
        let (to_plane, from_plane) = (self.input.iter().product(), self.output.iter().product::<usize>());
        assert_eq!(gradient.len(), self.planes * from_plane, "gradient of {self:?}");
        assert_eq!(indices.len(), gradient.len(), "indices of {self:?}");
        // SAFETY: every plane is written by the task that has it.
        unsafe {
            filled(self.planes * to_plane, |output| {
                let output = Shared(output);
                parallel::for_each(self.planes, |plane| {
                    let to = part_mut(&output, plane * to_plane, to_plane);
                    let range = plane * from_plane..(plane + 1) * from_plane;
                    self.isa.call(Spread { indices: &indices[range.clone()], gradient: &gradient[range], to });
                });
            })
        }
    }
}

/// The windows of a plane: first the largest pixel of each column of a row of windows, then of each window's columns.
struct PoolPlane<'a, N> {
    pass: &'a MaxPoolPass,
    plane: &'a [N],
    values: &'a mut [N],
    indices: &'a mut [i32],
}

impl<N: Number> Kernel for PoolPlane<'_, N> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let MaxPoolPass { input: [height, width], output: [_, columns], kernel, stride, padding, .. } = *self.pass;
        // With the padding, which nothing is smaller than and nothing comes after.
        let length = ((columns - 1) * stride[1] + kernel[1]).max(padding[1] + width);
        let mut largest = vec![f32::NEG_INFINITY; length];
        let mut places = vec![i32::MAX; length];
        // The same of windows at all columns, of which every so many is one of the output's.
        let (mut widest, mut widest_places) = (vec![0.0; length], vec![0; length]);
        let windows = (columns - 1) * stride[1] + 1;
        let rows = self.values.chunks_exact_mut(columns).zip(self.indices.chunks_exact_mut(columns));
        for (row, (values, indices)) in rows.enumerate() {
            let top = row * stride[0];
            let window = top.saturating_sub(padding[0])..(top + kernel[0]).saturating_sub(padding[0]).min(height);
            let inner = padding[1]..padding[1] + width;
            let (inner, inner_places) = (&mut largest[inner.clone()], &mut places[inner]);
            let line = &self.plane[window.start * width..][..width];
            inner.iter_mut().zip(line).for_each(|(inner, pixel)| *inner = pixel.value());
            let first = (window.start * width) as i32;
            inner_places.iter_mut().zip(first..).for_each(|(place, at)| *place = at);
            for y in window.skip(1) {
                let line = self.plane[y * width..][..width].iter().zip((y * width) as i32..);
                for ((largest, place), (&pixel, at)) in inner.iter_mut().zip(inner_places.iter_mut()).zip(line) {
                    let pixel = pixel.value();
                    // NaN stays NaN.
                    let larger = (pixel > *largest) | pixel.is_nan();
                    *largest = if larger { pixel } else { *largest };
                    *place = if larger { at } else { *place };
                }
            }
            let (widest, widest_places) = (&mut widest[..windows], &mut widest_places[..windows]);
            widest.copy_from_slice(&largest[..windows]);
            widest_places.copy_from_slice(&places[..windows]);
            for next in 1..kernel[1] {
                let nexts = largest[next..].iter().zip(&places[next..]);
                for ((value, index), (&pixel, &place)) in widest.iter_mut().zip(widest_places.iter_mut()).zip(nexts) {
                    let earlier = (pixel == *value) & (place < *index);
                    let larger = (pixel > *value) | pixel.is_nan() | earlier;
                    *value = if larger { pixel } else { *value };
                    *index = if larger { place } else { *index };
                }
            }
            let of_output = widest.iter().zip(widest_places.iter()).step_by(stride[1]);
            for ((value, index), (&widest, &place)) in values.iter_mut().zip(indices).zip(of_output) {
                (*value, *index) = (N::of(widest), place);
            }
        }
    }
}

/// The gradient of a plane: what went to a pixel is added up before it is rounded.
struct Spread<'a, N> {
    indices: &'a [i32],
    gradient: &'a [N],
    to: &'a mut [N],
}

impl<N: Number> Kernel for Spread<'_, N> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { indices, gradient, to } = self;
        with_scratch(to.len(), |sums| {
            sums.fill(0.0);
            for (&index, gradient) in indices.iter().zip(gradient) {
                sums[index as usize] += gradient.value();
            }
            // SAFETY: there are as many sums; the processor has the instructions.
            unsafe { convert::<S, f32, N>(to.as_mut_ptr(), sums.as_ptr(), sums.len()) }
        });
    }
}
