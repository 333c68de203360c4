//! The kernels. Sums and statistics are in `f32` whatever the feature maps are in.

#![allow(clippy::too_many_arguments)] // a kernel is given each buffer by itself

use burn_cubecl::cubecl;
use cubecl::prelude::*;
use cubecl::std::FastDivmod;

/// Where the values of feature maps lie: one after another, in the order `[batch, channels, pixels]` or, with the channels
/// last, `[batch × pixels, channels]`.
#[derive(CubeType, CubeLaunch)]
pub struct Maps {
    channels: usize,
    pixels: usize,
    by_channels: FastDivmod<usize>,
    by_pixels: FastDivmod<usize>,
    /// Values of a channel.
    count: usize,
    #[cube(comptime)]
    channels_last: bool,
}

#[cube]
impl Maps {
    /// The channel of a value.
    fn channel(&self, place: usize) -> usize {
        if comptime!(self.channels_last) {
            self.by_channels.modulo(place)
        } else {
            self.by_channels.modulo(self.by_pixels.div(place))
        }
    }

    /// Where the value of this number in a channel lies.
    fn place(&self, channel: usize, number: usize) -> usize {
        if comptime!(self.channels_last) {
            number * self.channels + channel
        } else {
            let (image, pixel) = self.by_pixels.div_mod(number);
            (image * self.channels + channel) * self.pixels + pixel
        }
    }
}

/// Which part of a channel's values a unit adds up, where a cube has `lanes` channels, side by side, and as many workers
/// for each as its `units` give. Cubes are counted by groups of channels in x and by parts of their values in y.
#[derive(CubeType)]
struct Share {
    lane: usize,
    worker: usize,
    channel: usize,
    first: usize,
    step: usize,
}

#[cube]
fn share(#[comptime] lanes: usize, #[comptime] units: usize) -> Share {
    let workers = comptime!(units / lanes);
    let lane = UNIT_POS as usize % lanes;
    let worker = UNIT_POS as usize / lanes;
    Share {
        lane,
        worker,
        channel: CUBE_POS_X as usize * lanes + lane,
        first: CUBE_POS_Y as usize * workers + worker,
        step: CUBE_COUNT_Y as usize * workers,
    }
}

/// Adds up two values over the workers of each channel, into `sums`, `[2, parts, channels]`.
#[cube]
fn add_up(
    first: f32,
    second: f32,
    sums: &mut [f32],
    channels: usize,
    share: &Share,
    #[comptime] lanes: usize,
    #[comptime] units: usize,
) {
    let unit = UNIT_POS as usize;
    let mut shared = Shared::<[f32]>::new_slice(comptime!(2 * units));
    shared[unit] = first;
    shared[units + unit] = second;
    sync_cube();
    let mut half = comptime!(units / lanes / 2).runtime();
    while half > 0 {
        if share.worker < half {
            let other = unit + half * lanes;
            shared[unit] += shared[other];
            shared[units + unit] += shared[units + other];
        }
        sync_cube();
        half /= 2;
    }
    if share.worker == 0 && share.channel < channels {
        let part = CUBE_POS_Y as usize;
        let parts = CUBE_COUNT_Y as usize;
        sums[part * channels + share.channel] = shared[share.lane];
        sums[(parts + part) * channels + share.channel] = shared[units + share.lane];
    }
}

/// Sums over parts of each channel: of the distances from its first value, which is near enough to its mean that nothing
/// cancels, and of their squares. `[2, parts, channels]`.
#[cube(launch)]
pub fn moment_sums<T: Float>(
    input: &[T],
    sums: &mut [f32],
    maps: &Maps,
    #[comptime] lanes: usize,
    #[comptime] units: usize,
    #[define(T)] _dtype: ElemType,
) {
    let share = share(lanes, units);
    let mut sum = 0.0f32;
    let mut squares = 0.0f32;
    if share.channel < maps.channels {
        let pivot = f32::cast_from(input[maps.place(share.channel, 0)]);
        let mut number = share.first;
        while number < maps.count {
            let distance = f32::cast_from(input[maps.place(share.channel, number)]) - pivot;
            sum += distance;
            squares += distance * distance;
            number += share.step;
        }
    }
    add_up(sum, squares, sums, maps.channels, &share, lanes, units);
}

/// Mean and biased variance of each channel, from [`moment_sums`].
#[cube(launch)]
pub fn moments<T: Float>(
    input: &[T],
    sums: &[f32],
    mean: &mut [f32],
    variance: &mut [f32],
    maps: &Maps,
    parts: usize,
    #[define(T)] _dtype: ElemType,
) {
    let channel = ABSOLUTE_POS;
    if channel < maps.channels {
        let mut sum = 0.0f32;
        let mut squares = 0.0f32;
        for part in 0..parts {
            sum += sums[part * maps.channels + channel];
            squares += sums[(parts + part) * maps.channels + channel];
        }
        let share = 1.0f32 / f32::cast_from(maps.count);
        let distance = sum * share;
        mean[channel] = f32::cast_from(input[maps.place(channel, 0)]) + distance;
        variance[channel] = max(squares * share - distance * distance, 0.0f32);
    }
}

/// Normalizes, scales and shifts; perhaps a ReLU follows.
#[cube(launch)]
pub fn normalize<T: Float, P: Float>(
    input: &[T],
    scale: &[P],
    shift: &[P],
    mean: &[f32],
    variance: &[f32],
    output: &mut [T],
    maps: &Maps,
    epsilon: f32,
    #[comptime] relu: bool,
    #[define(T, P)] _dtypes: [ElemType; 2],
) {
    if ABSOLUTE_POS < output.len() {
        let channel = maps.channel(ABSOLUTE_POS);
        let factor = f32::cast_from(scale[channel]) * (variance[channel] + epsilon).inverse_sqrt();
        let distance = f32::cast_from(input[ABSOLUTE_POS]) - mean[channel];
        let mut value = distance * factor + f32::cast_from(shift[channel]);
        if comptime!(relu) {
            value = max(value, 0.0f32);
        }
        output[ABSOLUTE_POS] = T::cast_from(value);
    }
}

/// What the backward pass of [`normalize`] starts from: the normalized value, and the gradient of what comes before the
/// ReLU.
#[cube]
fn before_relu<T: Float, P: Float>(
    input: T,
    gradient: T,
    scale: P,
    shift: P,
    mean: f32,
    deviation: f32,
    #[comptime] relu: bool,
) -> (f32, f32) {
    let normalized = (f32::cast_from(input) - mean) * deviation;
    let mut gradient = f32::cast_from(gradient);
    if comptime!(relu) {
        let passes = normalized * f32::cast_from(scale) + f32::cast_from(shift) > 0.0f32;
        gradient = select(passes, gradient, 0.0f32);
    }
    (normalized, gradient)
}

/// Sums over parts of each channel, `[2, parts, channels]`: of the gradient, and of its products with the normalized values.
#[cube(launch)]
pub fn gradient_sums<T: Float, P: Float>(
    input: &[T],
    scale: &[P],
    shift: &[P],
    mean: &[f32],
    variance: &[f32],
    gradient: &[T],
    sums: &mut [f32],
    maps: &Maps,
    epsilon: f32,
    #[comptime] relu: bool,
    #[comptime] lanes: usize,
    #[comptime] units: usize,
    #[define(T, P)] _dtypes: [ElemType; 2],
) {
    let share = share(lanes, units);
    let mut sum = 0.0f32;
    let mut products = 0.0f32;
    if share.channel < maps.channels {
        let (factor, summand, center) = (scale[share.channel], shift[share.channel], mean[share.channel]);
        let deviation = (variance[share.channel] + epsilon).inverse_sqrt();
        let mut number = share.first;
        while number < maps.count {
            let place = maps.place(share.channel, number);
            let (normalized, gradient) =
                before_relu::<T, P>(input[place], gradient[place], factor, summand, center, deviation, relu);
            sum += gradient;
            products += gradient * normalized;
            number += share.step;
        }
    }
    add_up(sum, products, sums, maps.channels, &share, lanes, units);
}

/// Adds up the parts of [`gradient_sums`]: the gradients of shift and scale.
#[cube(launch)]
pub fn add_parts(sums: &[f32], first: &mut [f32], second: &mut [f32], parts: usize) {
    let channels = first.len();
    if ABSOLUTE_POS < channels {
        let mut sum = 0.0f32;
        let mut products = 0.0f32;
        for part in 0..parts {
            sum += sums[part * channels + ABSOLUTE_POS];
            products += sums[(parts + part) * channels + ABSOLUTE_POS];
        }
        first[ABSOLUTE_POS] = sum;
        second[ABSOLUTE_POS] = products;
    }
}

/// The gradient of the input, from those of shift and scale.
#[cube(launch)]
pub fn normalize_backward<T: Float, P: Float>(
    input: &[T],
    scale: &[P],
    shift: &[P],
    mean: &[f32],
    variance: &[f32],
    gradient: &[T],
    shift_gradient: &[f32],
    scale_gradient: &[f32],
    output: &mut [T],
    maps: &Maps,
    epsilon: f32,
    #[comptime] relu: bool,
    #[define(T, P)] _dtypes: [ElemType; 2],
) {
    if ABSOLUTE_POS < output.len() {
        let channel = maps.channel(ABSOLUTE_POS);
        let (factor, summand) = (scale[channel], shift[channel]);
        let deviation = (variance[channel] + epsilon).inverse_sqrt();
        let (normalized, gradient) = before_relu::<T, P>(
            input[ABSOLUTE_POS],
            gradient[ABSOLUTE_POS],
            factor,
            summand,
            mean[channel],
            deviation,
            relu,
        );
        let means = (shift_gradient[channel] + normalized * scale_gradient[channel]) / f32::cast_from(maps.count);
        output[ABSOLUTE_POS] = T::cast_from((gradient - means) * deviation * f32::cast_from(factor));
    }
}

/// max(0, a + b).
#[cube(launch)]
pub fn add_relu<T: Float>(a: &[T], b: &[T], output: &mut [T], #[define(T)] _dtype: ElemType) {
    if ABSOLUTE_POS < output.len() {
        let sum = f32::cast_from(a[ABSOLUTE_POS]) + f32::cast_from(b[ABSOLUTE_POS]);
        output[ABSOLUTE_POS] = T::cast_from(max(sum, 0.0f32));
    }
}

/// The gradient where the output is above zero.
#[cube(launch)]
pub fn add_relu_backward<T: Float>(output: &[T], gradient: &[T], result: &mut [T], #[define(T)] _dtype: ElemType) {
    if ABSOLUTE_POS < result.len() {
        let passes = f32::cast_from(output[ABSOLUTE_POS]) > 0.0f32;
        result[ABSOLUTE_POS] = T::cast_from(select(passes, f32::cast_from(gradient[ABSOLUTE_POS]), 0.0f32));
    }
}
