#![allow(unsafe_code)]

use crate::memory::{Shared, filled, part_mut, with_scratch};
use crate::number::{Number, convert};
use crate::pool::{PoolKind, PoolShape};
use crate::simd::{Isa, Kernel, Simd};
use crate::{KernelError, parallel};

/// Max pooling of planes of one size, which remembers each window's largest pixel. All pixels of a window are compared, so that it
/// is for windows of a few.
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
        let places = self.places();
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
                    self.isa.call(PoolPlane { pass: self, places: &places, plane, values, indices });
                });
            })
        };
        // SAFETY: as above.
        unsafe { indices.set_len(self.planes * to_plane) };
        (output, indices)
    }

    /// Windows of a row, one at each column that has one, whatever the stride.
    fn windows(&self) -> usize {
        (self.output[1] - 1) * self.stride[1] + 1
    }

    /// Columns of a row with its padding, and as many more as vectors of windows read.
    fn pitch(&self) -> usize {
        let read = self.windows().next_multiple_of(self.isa.lanes()) + self.kernel[1] - 1;
        read.max(self.padding[1] + self.input[1])
    }

    /// Which pixel of the plane lies in each column of each row, in the padding the row's nearest.
    fn places(&self) -> Vec<i32> {
        let [height, width] = self.input;
        let column = |x: usize| x.saturating_sub(self.padding[1]).min(width - 1);
        (0..height).flat_map(|y| (0..self.pitch()).map(move |x| (y * width + column(x)) as i32)).collect()
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

/// The windows of a plane. Of their largest pixels the first is found: it is the first of its row, in the first row.
struct PoolPlane<'a, N> {
    pass: &'a MaxPoolPass,
    places: &'a [i32],
    plane: &'a [N],
    values: &'a mut [N],
    indices: &'a mut [i32],
}

impl<N: Number> Kernel for PoolPlane<'_, N> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let MaxPoolPass { input: [height, width], output: [_, columns], kernel, stride, padding, .. } = *self.pass;
        let (windows, pitch) = (self.pass.windows(), self.pass.pitch());
        let wide = windows.next_multiple_of(S::LANES);
        with_scratch(height * pitch + 2 * wide, |scratch| {
            let (lines, scratch) = scratch.split_at_mut(height * pitch);
            let (widest, widest_places) = scratch.split_at_mut(wide);
            for (line, from) in lines.chunks_exact_mut(pitch).zip(self.plane.chunks_exact(width)) {
                line[..padding[1]].fill(f32::NEG_INFINITY);
                // SAFETY: the line has room for the pixels; the processor has the instructions.
                unsafe { convert::<S, N, f32>(line[padding[1]..].as_mut_ptr(), from.as_ptr(), width) }
                line[padding[1] + width..].fill(f32::NEG_INFINITY);
            }
            let rows = self.values.chunks_exact_mut(columns).zip(self.indices.chunks_exact_mut(columns));
            for (row, (values, indices)) in rows.enumerate() {
                let top = row * stride[0];
                let window = top.saturating_sub(padding[0])..(top + kernel[0]).saturating_sub(padding[0]).min(height);
                for first in (0..windows).step_by(S::LANES) {
                    // SAFETY: lines and places have a kernel's pixels for every window, and there is room for vectors of windows.
                    unsafe {
                        let mut largest = [S::splat(0.0); 2];
                        for y in window.clone() {
                            let at = y * pitch + first;
                            let mut of_row = pixels::<S>(lines, self.places, at);
                            for next in 1..kernel[1] {
                                of_row = S::larger(pixels::<S>(lines, self.places, at + next), of_row);
                            }
                            largest = if y == window.start { of_row } else { S::larger(of_row, largest) };
                        }
                        S::store(widest.as_mut_ptr().add(first), largest[0]);
                        S::store(widest_places.as_mut_ptr().add(first), largest[1]);
                    }
                }
                let of_output = widest.iter().zip(widest_places.iter()).step_by(stride[1]);
                for ((value, index), (widest, place)) in values.iter_mut().zip(indices).zip(of_output) {
                    (*value, *index) = (N::of(*widest), place.to_bits() as i32);
                }
            }
        });
    }
}

/// Pixels, and their places' bits.
///
/// # Safety
/// The processor has `S`'s instructions, and there is a vector.
#[inline(always)]
unsafe fn pixels<S: Simd>(lines: &[f32], places: &[i32], at: usize) -> [S::Vector; 2] {
    // SAFETY: the caller's promise.
    unsafe { [S::load(lines.as_ptr().add(at)), S::load(places.as_ptr().cast::<f32>().add(at))] }
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
