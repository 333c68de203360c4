//! Depthwise convolutions on planes: each channel with a kernel of its own, forward and backward.
//!
//! A plane lies among zeros in scratch memory, its cells divided by the phases of the stride ([`Planes`]): so a tap lies at
//! one distance from all cells of the output, vectors run on over the ends of rows, and what they compute there is left out.
//! The gradient of the input is the same of the output's gradient, spread by the stride, with the kernel turned around; the
//! gradient of a tap is a dot product of two such planes.
#![allow(unsafe_code)]

use crate::conv::ConvShape;
use crate::gemm::ChannelAffine;
use crate::memory::{Shared, filled, part_mut, with_scratch};
use crate::number::Number;
use crate::parallel;
use crate::simd::{Isa, Kernel, MAX_LANES, Simd};

/// A depthwise convolution of a batch of images of one size.
#[derive(Clone, Copy)]
pub(super) struct DepthwisePass {
    isa: Isa,
    shape: ConvShape,
    batch: usize,
    input: [usize; 2],
    output: [usize; 2],
}

/// Vectors of outputs whose sums run side by side.
const VECTORS: usize = 6;

/// Taps of a row whose gradients are summed side by side.
const TAPS: usize = 6;

/// Values that are read beyond a plane at most.
const SLACK: usize = VECTORS * MAX_LANES;

/// Where the cells of a plane lie: `[row phase][column phase][row][column]`.
#[derive(Clone, Copy)]
struct Planes {
    phases: [usize; 2],
    rows: usize,
    columns: usize,
}

impl Planes {
    /// For outputs of `grid` that a kernel makes in steps.
    fn new(grid: [usize; 2], kernel: [usize; 2], phases: [usize; 2]) -> Self {
        let [rows, columns] = [0, 1].map(|i| grid[i] + (kernel[i] - 1) / phases[i]);
        Self { phases, rows, columns }
    }

    fn len(&self) -> usize {
        self.phases[0] * self.phases[1] * self.rows * self.columns + SLACK
    }

    /// Where a cell lies that is so many rows and columns from the first.
    #[inline(always)]
    fn at(&self, [row, column]: [usize; 2]) -> usize {
        let [y, x] = self.phases;
        ((row % y * x + column % x) * self.rows + row / y) * self.columns + column / x
    }

    /// Puts a plane of `size` among zeros: its first cell `first` rows and columns from the first, each next one `step`
    /// further. What lies beyond the last row or column is left out.
    #[inline(always)]
    fn put<N: Number>(&self, plane: &[N], size: [usize; 2], first: [usize; 2], step: [usize; 2], to: &mut [f32]) {
        to.fill(0.0);
        let room = [self.rows * self.phases[0], self.columns * self.phases[1]];
        let [rows, columns] = [0, 1].map(|i| size[i].min(room[i].saturating_sub(first[i]).div_ceil(step[i])));
        for (y, from) in plane.chunks_exact(size[1]).enumerate().take(rows) {
            let row = first[0] + y * step[0];
            match (self.phases[1], step[1]) {
                (1, 1) => {
                    let to = to[self.at([row, first[1]])..].iter_mut();
                    to.zip(&from[..columns]).for_each(|(to, value)| *to = value.value());
                }
                // Strides of 2 in loops that become vectors: every other value to each phase,
                (2, 1) => {
                    let (pairs, rest) = from[..columns].as_chunks::<2>();
                    let starts = [0, 1].map(|phase| self.at([row, first[1] + phase]));
                    for (phase, start) in starts.into_iter().enumerate() {
                        to[start..].iter_mut().zip(pairs).for_each(|(to, pair)| *to = pair[phase].value());
                    }
                    if let [last] = rest {
                        to[starts[0] + pairs.len()] = last.value();
                    }
                }
                // and a zero after each value, one of them perhaps where the next row starts.
                (1, 2) => {
                    let (pairs, _) = to[self.at([row, first[1]])..].as_chunks_mut::<2>();
                    pairs.iter_mut().zip(&from[..columns]).for_each(|(pair, value)| *pair = [value.value(), 0.0]);
                }
                (phases, step) => {
                    // Where each phase of the row starts.
                    for phase in 0..phases.min(columns) {
                        let mut at = self.at([row, first[1] + phase * step]);
                        for value in from[..columns].iter().skip(phase).step_by(phases) {
                            to[at] = value.value();
                            at += step;
                        }
                    }
                }
            }
        }
    }
}

impl DepthwisePass {
    /// None unless each of several channels has a kernel of its own, without dilation, and no window lies in the padding.
    pub fn new(isa: Isa, shape: ConvShape, batch: usize, input: [usize; 2], output: [usize; 2]) -> Option<Self> {
        let [inputs, outputs] = shape.channels;
        let near = (0..2).all(|i| shape.padding[i] < shape.kernel[i]);
        let suits = inputs > 1 && inputs == outputs && shape.groups == inputs && shape.dilation == [1, 1] && near;
        suits.then_some(Self { isa, shape, batch, input, output })
    }

    /// The output.
    pub fn forward<N: Number>(&self, input: &[N], weight: &[f32], affine: ChannelAffine) -> Vec<N> {
        let ConvShape { kernel, stride, padding, .. } = self.shape;
        let planes = Planes::new(self.output, kernel, stride);
        let put = Put { planes, size: self.input, first: padding, step: [1, 1] };
        self.correlate(input, weight, put, self.output, affine)
    }

    /// The gradient of the input from that of the output.
    pub fn backward_input<N: Number>(&self, gradient: &[N], weight: &[f32]) -> Vec<N> {
        let ConvShape { kernel, stride, padding, .. } = self.shape;
        let turned: Vec<f32> =
            weight.chunks_exact(self.shape.taps()).flat_map(|kernel| kernel.iter().rev().copied()).collect();
        let first = [0, 1].map(|i| kernel[i] - 1 - padding[i]);
        let planes = Planes::new(self.input, kernel, [1, 1]);
        let put = Put { planes, size: self.output, first, step: stride };
        self.correlate(gradient, &turned, put, self.input, ChannelAffine::default())
    }

    /// Slides each channel's kernel over its planes.
    fn correlate<N: Number>(
        &self,
        from: &[N],
        weight: &[f32],
        put: Put,
        grid: [usize; 2],
        affine: ChannelAffine,
    ) -> Vec<N> {
        let (channels, taps, kernel) = (self.shape.channels[0], self.shape.taps(), self.shape.kernel);
        let (size, cells) = (put.size[0] * put.size[1], grid[0] * grid[1]);
        let offsets: Vec<usize> = offsets(&put.planes, kernel);
        // SAFETY: every plane is written by the task that has it.
        unsafe {
            filled(self.batch * channels * cells, |to| {
                let to = Shared(to);
                // Planes are small: a task has several.
                let (planes, tasks) = (self.batch * channels, (self.batch * channels).min(16 * parallel::threads()));
                parallel::for_each(tasks, |task| {
                    for plane in parallel::piece(planes, tasks, task) {
                        let channel = plane % channels;
                        let (from, weight) = (&from[plane * size..][..size], &weight[channel * taps..][..taps]);
                        let to = part_mut(&to, plane * cells, cells);
                        N::call(self.isa, Slide { from, weight, put, grid, offsets: &offsets, affine, channel, to });
                    }
                });
            })
        }
    }

    /// The gradient of the weight from that of the output.
    pub fn backward_weight<N: Number>(&self, input: &[N], gradient: &[N]) -> Vec<f32> {
        let (channels, taps, kernel) = (self.shape.channels[0], self.shape.taps(), self.shape.kernel);
        let planes = Planes::new(self.output, kernel, self.shape.stride);
        let offsets: Vec<usize> = offsets(&planes, kernel);
        // SAFETY: every kernel is written by the task that has its channel.
        unsafe {
            filled(channels * taps, |to| {
                let to = Shared(to);
                parallel::for_each(channels, |channel| {
                    let to = part_mut(&to, channel * taps, taps);
                    let pass = self;
                    N::call(self.isa, Gradient { pass, input, gradient, planes, offsets: &offsets, channel, to });
                });
            })
        }
    }
}

/// Where the taps lie in planes, relative to an output's place.
fn offsets(planes: &Planes, kernel: [usize; 2]) -> Vec<usize> {
    (0..kernel[0]).flat_map(|row| (0..kernel[1]).map(move |column| planes.at([row, column]))).collect()
}

/// How a plane is put among zeros.
#[derive(Clone, Copy)]
struct Put {
    planes: Planes,
    size: [usize; 2],
    first: [usize; 2],
    step: [usize; 2],
}

/// One plane under its kernel.
struct Slide<'a, N> {
    from: &'a [N],
    weight: &'a [f32],
    put: Put,
    grid: [usize; 2],
    offsets: &'a [usize],
    affine: ChannelAffine<'a>,
    channel: usize,
    to: &'a mut [N],
}

impl<N: Number> Kernel for Slide<'_, N> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { from, weight, put: Put { planes, size, first, step }, grid, offsets, affine, channel, to } = self;
        let used = (grid[0] - 1) * planes.columns + grid[1];
        with_scratch(planes.len() + used + SLACK, |scratch| {
            let (cells, sums) = scratch.split_at_mut(planes.len());
            planes.put(from, size, first, step, cells);
            for start in (0..used).step_by(VECTORS * S::LANES) {
                // SAFETY: vectors reach beyond the cells and sums by less than the slack.
                unsafe {
                    let mut totals = [S::splat(0.0); VECTORS];
                    for (offset, weight) in offsets.iter().zip(weight) {
                        let (weight, cells) = (S::splat(*weight), cells.as_ptr().add(start + offset));
                        for (v, total) in totals.iter_mut().enumerate() {
                            *total = S::mul_add(S::load(cells.add(v * S::LANES)), weight, *total);
                        }
                    }
                    for (v, total) in totals.into_iter().enumerate() {
                        let total = affine.apply::<S>(channel, total);
                        S::store(sums.as_mut_ptr().add(start + v * S::LANES), total);
                    }
                }
            }
            for (to, sums) in to.chunks_exact_mut(grid[1]).zip(sums.chunks(planes.columns)) {
                to.iter_mut().zip(sums).for_each(|(to, sum)| *to = N::of(*sum));
            }
        });
    }
}

/// The gradient of one channel's kernel.
struct Gradient<'a, N> {
    pass: &'a DepthwisePass,
    input: &'a [N],
    gradient: &'a [N],
    planes: Planes,
    offsets: &'a [usize],
    channel: usize,
    to: &'a mut [f32],
}

impl<N: Number> Kernel for Gradient<'_, N> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { pass, input, gradient, planes, offsets, channel, to } = self;
        let (channels, grid) = (pass.shape.channels[0], pass.output);
        let [inputs, outputs] = [pass.input, grid].map(|size| size[0] * size[1]);
        let used = (grid[0] - 1) * planes.columns + grid[1];
        // The output's gradient lies in rows as long as the input's, with zeros between them.
        let rows = Planes { phases: [1, 1], rows: grid[0], columns: planes.columns };
        to.fill(0.0);
        with_scratch(planes.len() + rows.len(), |scratch| {
            let (cells, gradients) = scratch.split_at_mut(planes.len());
            for image in 0..pass.batch {
                let plane = image * channels + channel;
                planes.put(&input[plane * inputs..][..inputs], pass.input, pass.shape.padding, [1, 1], cells);
                rows.put(&gradient[plane * outputs..][..outputs], grid, [0, 0], [1, 1], gradients);
                let ((groups, rest), (places, others)) = (to.as_chunks_mut::<TAPS>(), offsets.as_chunks::<TAPS>());
                // SAFETY: vectors reach beyond the cells by less than the slack.
                unsafe {
                    for (to, places) in groups.iter_mut().zip(places) {
                        dots::<S, TAPS>(used, gradients.as_ptr(), cells.as_ptr(), places, to);
                    }
                    for (to, place) in rest.iter_mut().zip(others) {
                        dots::<S, 1>(used, gradients.as_ptr(), cells.as_ptr(), &[*place], std::array::from_mut(to));
                    }
                }
            }
        });
    }
}

/// Adds the products of the gradients and the cells, from some places on, to the taps' gradients.
#[inline(always)]
unsafe fn dots<S: Simd, const N: usize>(
    used: usize,
    gradients: *const f32,
    cells: *const f32,
    offsets: &[usize; N],
    to: &mut [f32; N],
) {
    // SAFETY: vectors from every place can be read, the promise of whoever called.
    unsafe {
        let mut totals = [S::splat(0.0); N];
        for i in (0..used).step_by(S::LANES) {
            let gradient = S::load(gradients.add(i));
            for (total, offset) in totals.iter_mut().zip(offsets) {
                *total = S::mul_add(S::load(cells.add(i + offset)), gradient, *total);
            }
        }
        to.iter_mut().zip(totals).for_each(|(to, total)| *to += S::sum(total));
    }
}
