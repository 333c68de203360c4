//! The arithmetic of one value of a feature map: the window it is computed from, and what each number of it is multiplied
//! by.

use convzoo_graph::{Node, Operation, Window};
use serde::Serialize;

use crate::error::within;
use crate::{Network, WebError};

/// How one value comes about.
#[derive(Debug, Serialize)]
pub struct Products {
    /// The window's channels, rows and columns.
    pub window: [usize; 3],
    /// The row and column of the input at which it begins; negative in the padding.
    pub start: [isize; 2],
    /// The channel of the input at which it begins: of a group, or of a pooling.
    pub channel: usize,
    /// What is added at the end.
    pub bias: Option<f32>,
    /// The result: the sum of products and bias, or the window's maximum or mean.
    pub value: f32,
    /// The window's numbers, row-major; zero in the padding.
    #[serde(skip)]
    pub values: Vec<f32>,
    /// What each is multiplied by; empty for a maximum.
    #[serde(skip)]
    pub weights: Vec<f32>,
}

/// The arithmetic of the value at `[channel, row, column]` of the output of a convolution, linear layer or pooling; `maps` is
/// its input.
///
/// # Errors
/// It is another operation, or has no such value.
pub fn products(
    network: &Network,
    node: usize,
    [channel, row, column]: [usize; 3],
    maps: &[f32],
) -> Result<Products, WebError> {
    let nodes = network.graph.nodes();
    let Node { operation, inputs, shape, .. } = &nodes[within("node", node, nodes.len())?];
    within("channel", channel, shape[0])?;
    let input = inputs.first().map_or(&[][..], |input| nodes[*input].shape.as_slice());
    let weight = || network.parameter(node, 0).ok_or(WebError::Missing("weight"));
    let bias = network.parameter(node, 1).and_then(|bias| bias.get(channel)).copied();
    match (operation, input, shape.as_slice()) {
        (Operation::Linear { .. }, [features], [_]) => {
            let weights = weight()?[channel * features..][..*features].to_vec();
            Ok(Products::sum([*features, 1, 1], [0, 0], 0, maps.to_vec(), weights, bias))
        }
        (Operation::Conv2d { window, groups, outputs, .. }, &[inputs, height, width], &[_, rows, columns]) => {
            let start = start(window, [within("row", row, rows)?, within("column", column, columns)?]);
            let (depth, [high, wide]) = (inputs / groups, window.kernel);
            let first = channel / (outputs / groups) * depth;
            let values = cut(maps, [height, width], first..first + depth, start, window);
            let weights = weight()?[channel * depth * high * wide..][..values.len()].to_vec();
            Ok(Products::sum([depth, high, wide], start, first, values, weights, bias))
        }
        (Operation::MaxPool2d { window, .. }, &[_, height, width], &[_, rows, columns]) => {
            let start = start(window, [within("row", row, rows)?, within("column", column, columns)?]);
            // What lies outside of the map never is the maximum.
            let inside = inside(start, window, [height, width]);
            let values = cut(maps, [height, width], channel..channel + 1, start, window);
            let value = values.iter().zip(&inside).filter(|(_, inside)| **inside).map(|(value, _)| *value);
            let value = value.fold(f32::NEG_INFINITY, f32::max);
            let window = [1, window.kernel[0], window.kernel[1]];
            Ok(Products { window, start, channel, bias: None, value, values, weights: Vec::new() })
        }
        (Operation::AvgPool2d { window, count_include_pad, .. }, &[_, height, width], &[_, rows, columns]) => {
            let start = start(window, [within("row", row, rows)?, within("column", column, columns)?]);
            let inside = inside(start, window, [height, width]);
            let values = cut(maps, [height, width], channel..channel + 1, start, window);
            let padded = [0, 1].map(|i| {
                // A window may extend past the padding, too.
                let end = (start[i] + window.kernel[i] as isize).min(([height, width][i] + window.padding[i]) as isize);
                (end - start[i]).max(0) as usize
            });
            let count = match count_include_pad {
                true => padded[0] * padded[1],
                false => inside.iter().filter(|inside| **inside).count(),
            };
            let share = |inside: &bool| if *inside { 1.0 / count as f32 } else { 0.0 };
            let weights = inside.iter().map(share).collect();
            Ok(Products::sum([1, window.kernel[0], window.kernel[1]], start, channel, values, weights, None))
        }
        (Operation::AdaptiveAvgPool2d { output: [1, 1] }, &[_, height, width], _) => {
            let values = maps[channel * height * width..][..height * width].to_vec();
            let weights = vec![1.0 / values.len() as f32; values.len()];
            Ok(Products::sum([1, height, width], [0, 0], channel, values, weights, None))
        }
        _ => Err(WebError::Unsuited("only convolutions, linear layers and poolings multiply and add a window")),
    }
}

impl Products {
    fn sum(
        window: [usize; 3],
        start: [isize; 2],
        channel: usize,
        values: Vec<f32>,
        weights: Vec<f32>,
        bias: Option<f32>,
    ) -> Self {
        let sum: f64 = values.iter().zip(&weights).map(|(value, weight)| f64::from(*value) * f64::from(*weight)).sum();
        let value = (sum + f64::from(bias.unwrap_or(0.0))) as f32;
        Self { window, start, channel, bias, value, values, weights }
    }
}

/// The row and column at which the window of an output begins.
fn start(window: &Window, [row, column]: [usize; 2]) -> [isize; 2] {
    let place = |i: usize, at: usize| (at * window.stride[i]) as isize - window.padding[i] as isize;
    [place(0, row), place(1, column)]
}

/// The places of a window, row by row, each `None` outside of the map.
fn places(start: [isize; 2], window: &Window, [height, width]: [usize; 2]) -> Vec<Option<usize>> {
    let along = |i: usize, side: usize| {
        let place = move |tap: usize| start[i].checked_add_unsigned(tap * window.dilation[i]);
        (0..window.kernel[i]).map(move |tap| place(tap).and_then(|at| usize::try_from(at).ok()).filter(|at| *at < side))
    };
    along(0, height).flat_map(|row| along(1, width).map(move |column| Some(row? * width + column?))).collect()
}

fn inside(start: [isize; 2], window: &Window, size: [usize; 2]) -> Vec<bool> {
    places(start, window, size).iter().map(Option::is_some).collect()
}

/// The numbers under a window on some channels of `maps`; zeros outside.
fn cut(
    maps: &[f32],
    size @ [height, width]: [usize; 2],
    channels: std::ops::Range<usize>,
    start: [isize; 2],
    window: &Window,
) -> Vec<f32> {
    let places = places(start, window, size);
    let plane = |channel: usize| &maps[channel * height * width..][..height * width];
    let under = |channel| places.iter().map(move |place| place.map_or(0.0, |place| plane(channel)[place]));
    channels.flat_map(under).collect()
}
