use burn::tensor::activation::relu;
use burn::tensor::{Int, Tensor};
use convzoo_blocks::{Observer, Step, observe};
use convzoo_report::{Grid, ReportError};
use image::RgbImage;
use image::imageops::{FilterType, resize};

use super::layers::find_layer;
use super::{Map, VisualizeError, layers};
use crate::{Classifier, LayerSummary};

/// The feature maps of a layer for an image.
#[derive(Debug, Clone)]
pub struct Features {
    /// The layer.
    pub layer: LayerSummary,
    /// A map for each channel.
    pub maps: Vec<Map>,
}

/// A layer's strongest channel for an image: the one whose positive numbers have the largest mean.
#[derive(Debug, Clone)]
pub struct Glimpse {
    /// The layer.
    pub layer: LayerSummary,
    /// The channel.
    pub channel: usize,
    /// Its map.
    pub map: Map,
}

/// The feature maps of a layer for an image `[1, channels, height, width]`: its output before its activation.
pub fn features<N: Classifier>(network: &N, image: Tensor<4>, layer: &str) -> Result<Features, VisualizeError> {
    let [_, channels, height, width] = image.dims();
    let layer = find_layer(&layers(network, [channels, height, width])?, layer)?.clone();
    let outputs = outputs(network, image, |node, output| (node == layer.node()).then_some(output));
    let output = outputs.into_iter().next().expect("a pass runs the same layers on shapes as on values");
    Ok(Features { layer: layer.summary, maps: maps(output)? })
}

/// The strongest channel of every layer for an image `[1, channels, height, width]`, in the order of their calls.
/// Normalization layers are left out, and so is what has one value per channel.
pub fn overview<N: Classifier>(network: &N, image: Tensor<4>) -> Result<Vec<Glimpse>, VisualizeError> {
    let [_, channels, height, width] = image.dims();
    let mut layers = layers(network, [channels, height, width])?;
    let normalizes = |kind: &str| kind.ends_with("Norm") || kind.ends_with("Norm2d");
    layers.retain(|layer| layer.output()[1..] != [1, 1] && !normalizes(layer.summary.kind));
    let strongest = outputs(network, image, |node, output| {
        let [_, channels, height, width] = output.dims();
        layers.iter().any(|layer| layer.node() == node).then(|| {
            let strength = relu(output.clone().reshape([channels, height * width])).mean_dim(1);
            let channel = strength.argmax(0);
            (channel.clone(), output.select(1, channel.reshape([1])))
        })
    });
    let glimpse = |(layer, (channel, map)): (super::SeenLayer, (Tensor<2, Int>, Tensor<4>))| {
        let channel: Vec<i64> = channel.try_into_vec_as()?;
        Ok(Glimpse { layer: layer.summary, channel: channel[0] as usize, map: maps(map)?.remove(0) })
    };
    layers.into_iter().zip(strongest).map(glimpse).collect()
}

/// What `choose` takes of the outputs of the graph's nodes, in the order in which they run.
fn outputs<N: Classifier, T>(network: &N, image: Tensor<4>, choose: impl Fn(usize, Tensor<4>) -> Option<T>) -> Vec<T> {
    struct Outputs<F, T>(F, Vec<T>);

    impl<T, F: Fn(usize, Tensor<4>) -> Option<T>> Observer for Outputs<F, T> {
        fn output(&mut self, step: Step, output: Tensor<4>) -> Tensor<4> {
            self.1.extend((self.0)(step.node, output.clone()));
            output
        }
    }
    let mut outputs = Outputs(choose, Vec::new());
    let network = network.valid();
    observe(&mut outputs, image.without_autodiff(), |image| network.forward(image));
    outputs.1
}

/// The channels of `[1, channels, height, width]`.
fn maps(output: Tensor<4>) -> Result<Vec<Map>, VisualizeError> {
    let [_, _, height, width] = output.dims();
    let values: Vec<f32> = output.try_into_vec_as()?;
    let map = |values: &[f32]| Map { height, width, values: values.to_vec() };
    Ok(values.chunks_exact(height * width).map(map).collect())
}

impl Features {
    /// The `count` channels with the strongest activation, the strongest first: by the mean of what is positive.
    pub fn strongest(&self, count: usize) -> Vec<usize> {
        let strengths: Vec<_> = self.maps.iter().map(Map::strength).collect();
        let mut channels: Vec<_> = (0..strengths.len()).collect();
        channels.sort_by(|&a, &b| strengths[b].total_cmp(&strengths[a]));
        channels.truncate(count);
        channels
    }

    /// The maps of these channels side by side, each stretched over all colours, labelled with the channel and its
    /// largest number.
    pub fn grid(&self, channels: &[usize]) -> Result<RgbImage, ReportError> {
        let side = if self.maps.first().is_some_and(|map| map.height as u32 > LARGE / 2) { LARGE } else { SMALL };
        let label = |channel: usize| format!("ch {channel}: {}", short(self.maps[channel].range().1));
        let tile = |grid: Grid, &channel: &usize| grid.tile(label(channel), tile(&self.maps[channel].picture(), side));
        channels.iter().fold(Grid::new(columns(channels.len(), side)), tile).image()
    }
}

/// Sides of tiles, in pixels.
pub(super) const SMALL: u32 = 80;
pub(super) const LARGE: u32 = 128;

/// The columns that make a grid of `count` tiles about as wide as a page.
pub(super) fn columns(count: usize, side: u32) -> u32 {
    const PAGE: u32 = 940;
    let most = PAGE / (side + 6);
    // A few tiles come in rows of equal length, where they can.
    let rows = (count as u32).div_ceil(most).max(1);
    (count as u32).div_ceil(rows)
}

/// A number as a label, to three digits or the units.
pub fn short(value: f32) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// A picture as a tile: small ones are magnified so that their pixels show.
pub(super) fn tile(picture: &RgbImage, side: u32) -> RgbImage {
    let longest = picture.width().max(picture.height()).max(1);
    let scale = f64::from(side) / f64::from(longest);
    let filter = if longest <= side { FilterType::Nearest } else { FilterType::Triangle };
    let scaled = |length: u32| ((f64::from(length) * scale).round() as u32).max(1);
    resize(picture, scaled(picture.width()), scaled(picture.height()), filter)
}

impl Glimpse {
    /// The strongest channels of many layers as one strip, wrapped into rows.
    pub fn strip(glimpses: &[Self]) -> Result<RgbImage, ReportError> {
        let strip = glimpses.iter().fold(Grid::new(columns(glimpses.len(), LARGE)), |grid, glimpse| {
            grid.tile(format!("{}\nch {}", glimpse.layer.name, glimpse.channel), tile(&glimpse.map.picture(), LARGE))
        });
        strip.image()
    }
}
