#![allow(unsafe_code)]

use crate::memory::{Shared, filled, part_mut, with_scratch};
use crate::pool::{PoolShape, Window};
use crate::simd::{Isa, Kernel, Simd};
use crate::{KernelError, parallel};

/// Average pooling of planes of one size.
#[derive(Clone, Debug)]
pub struct AveragePoolPass {
    isa: Isa,
    planes: usize,
    input: [usize; 2],
    rows: Vec<Window>,
    columns: Vec<Window>,
    /// Whether windows of 2×2 lie side by side and fill the plane.
    halving: bool,
}

impl AveragePoolPass {
    /// Of `planes` (images times channels) of `input`, `[height, width]`.
    ///
    /// # Errors
    /// No window fits, or the shape is max pooling.
    pub fn new(isa: Isa, shape: &PoolShape, planes: usize, input: [usize; 2]) -> Result<Self, KernelError> {
        if shape.is_max() {
            return Err(KernelError::Window { operation: "average pooling", what: "a maximum" });
        }
        let (rows, columns) = (shape.windows(0, input)?, shape.windows(1, input)?);
        let side_by_side = |windows: &[Window], size| {
            let pairs = (0..size).step_by(2).map(|start| Window { start, end: start + 2, divisor: 2.0 });
            pairs.eq(windows.iter().copied())
        };
        let halving = side_by_side(&rows, input[0]) && side_by_side(&columns, input[1]);
        Ok(Self { isa, planes, input, rows, columns, halving })
    }

    /// Height and width of the output.
    pub fn output(&self) -> [usize; 2] {
        [self.rows.len(), self.columns.len()]
    }

    /// The mean of each window.
    ///
    /// # Panics
    /// A slice's length is not that of its shape; so below.
    pub fn forward(&self, input: &[f32]) -> Vec<f32> {
        let (from, to) = (self.input.iter().product(), self.output().iter().product());
        // SAFETY: the instruction set comes from detection; so below.
        self.each(input, from, to, |pass, input, output| unsafe { pass.isa.call(Forward { pass, input, output }) })
    }

    /// The gradient of the input from that of the output.
    pub fn backward(&self, gradient: &[f32]) -> Vec<f32> {
        let (from, to) = (self.output().iter().product(), self.input.iter().product());
        // SAFETY: as above.
        self.each(gradient, from, to, |pass, gradient, output| unsafe {
            pass.isa.call(Backward { pass, gradient, output })
        })
    }

    /// Makes planes of `to` values from those of `from` values.
    fn each(&self, input: &[f32], from: usize, to: usize, make: impl Fn(&Self, &[f32], &mut [f32]) + Sync) -> Vec<f32> {
        assert_eq!(input.len(), self.planes * from, "values of {} planes", self.planes);
        // Planes are small: a task has several.
        let tasks = self.planes.min(8 * parallel::threads());
        // SAFETY: every plane is written by the task that has it.
        unsafe {
            filled(self.planes * to, |output| {
                let output = Shared(output);
                parallel::for_each(tasks, |task| {
                    for plane in parallel::piece(self.planes, tasks, task) {
                        make(self, &input[plane * from..][..from], part_mut(&output, plane * to, to));
                    }
                });
            })
        }
    }

    /// What a sum over a window is multiplied by, for each column, in a row.
    fn share<'a>(&'a self, row: &'a Window) -> impl Iterator<Item = (&'a Window, f32)> {
        self.columns.iter().map(|column| (column, 1.0 / (row.divisor * column.divisor)))
    }
}

struct Forward<'a> {
    pass: &'a AveragePoolPass,
    input: &'a [f32],
    output: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { pass, input, output } = self;
        let width = pass.input[1];
        if pass.halving {
            return with_scratch(input.len() / 2, |sums| {
                for (sums, rows) in sums.chunks_exact_mut(width).zip(input.chunks_exact(2 * width)) {
                    let (upper, lower) = rows.split_at(width);
                    sums.iter_mut().zip(upper).zip(lower).for_each(|((sum, upper), lower)| *sum = upper + lower);
                }
                let pairs = sums.chunks_exact(2);
                output.iter_mut().zip(pairs).for_each(|(output, pair)| *output = 0.25 * (pair[0] + pair[1]));
            });
        }
        with_scratch(width, |sums| {
            for (row, output) in pass.rows.iter().zip(output.chunks_exact_mut(pass.columns.len())) {
                sums.fill(0.0);
                for pixels in input[row.start * width..row.end * width].chunks_exact(width) {
                    sums.iter_mut().zip(pixels).for_each(|(sum, pixel)| *sum += pixel);
                }
                for ((column, share), output) in pass.share(row).zip(output) {
                    *output = share * sums[column.start..column.end].iter().sum::<f32>();
                }
            }
        });
    }
}

struct Backward<'a> {
    pass: &'a AveragePoolPass,
    gradient: &'a [f32],
    output: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { pass, gradient, output } = self;
        let width = pass.input[1];
        if pass.halving {
            return with_scratch(output.len() / 2, |shares| {
                let pairs = shares.chunks_exact_mut(2);
                pairs.zip(gradient).for_each(|(pair, gradient)| pair.fill(0.25 * gradient));
                for (rows, shares) in output.chunks_exact_mut(2 * width).zip(shares.chunks_exact(width)) {
                    rows.chunks_exact_mut(width).for_each(|row| row.copy_from_slice(shares));
                }
            });
        }
        output.fill(0.0);
        with_scratch(width, |sums| {
            for (row, gradient) in pass.rows.iter().zip(gradient.chunks_exact(pass.columns.len())) {
                sums.fill(0.0);
                for ((column, share), gradient) in pass.share(row).zip(gradient) {
                    sums[column.start..column.end].iter_mut().for_each(|sum| *sum += share * gradient);
                }
                for pixels in output[row.start * width..row.end * width].chunks_exact_mut(width) {
                    pixels.iter_mut().zip(&*sums).for_each(|(pixel, sum)| *pixel += sum);
                }
            }
        });
    }
}
