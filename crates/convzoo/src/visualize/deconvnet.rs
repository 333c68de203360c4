use burn::tensor::{Int, Tensor, TensorData};
use convzoo_blocks::{Observer, Rectification, Step, observe};

use super::gradient::{backward, tracked};
use super::layers::find_layer;
use super::{Colours, VisualizeError, layers};
use crate::Classifier;

/// A position in the output of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// The channel.
    pub channel: usize,
    /// Row and column.
    pub at: [usize; 2],
}

/// Images that are kept for each channel: as many as Zeiler and Fergus show.
pub const PATCHES: usize = 9;

/// The cell of largest value in each channel of a layer, and the value, for each image of `[batch, channels, height,
/// width]`.
pub fn peaks<N: Classifier>(
    network: &N,
    images: Tensor<4>,
    layer: &str,
) -> Result<Vec<Vec<(Cell, f32)>>, VisualizeError> {
    let [_, channels, height, width] = images.dims();
    let node = find_layer(&layers(network, [channels, height, width])?, layer)?.node();
    let output = at_node(&network.valid(), node, images.without_autodiff(), None);
    let [_, channels, height, width] = output.dims();
    let (values, places) = output.reshape([0, channels as i64, -1]).max_dim_with_indices(2);
    let (values, places): (Vec<f32>, Vec<i64>) = (values.try_into_vec_as()?, places.try_into_vec_as()?);
    debug_assert!(places.iter().all(|&place| (place as usize) < height * width));
    let cell = |(index, (&value, &place)): (usize, (&f32, &i64))| {
        let place = place as usize;
        (Cell { channel: index % channels, at: [place / width, place % width] }, value)
    };
    let cells: Vec<_> = values.iter().zip(&places).enumerate().map(cell).collect();
    Ok(cells.chunks_exact(channels).map(<[_]>::to_vec).collect())
}

/// What of an image `[1, channels, height, width]` excited each of these cells of a layer: a projection back to its
/// pixels through the network turned around ([Zeiler and Fergus, 2013](https://arxiv.org/abs/1311.2901)). Convolutions
/// are transposed, maxima are unpooled to where they came from, and the signal is rectified at each ReLU.
///
/// That is the backward pass of a 1 in the cell with another rule at each ReLU,
/// [`Rectification::Deconvnet`], and so it goes through every network. Norms and other activations are passed by their
/// derivative.
pub fn deconvnet<N: Classifier>(
    network: &N,
    image: Tensor<4>,
    layer: &str,
    cells: &[Cell],
) -> Result<Vec<Colours>, VisualizeError> {
    let [_, channels, height, width] = image.dims();
    let layers = layers(network, [channels, height, width])?;
    let layer = find_layer(&layers, layer)?;
    let output @ [_, rows, columns] = layer.output();
    for &Cell { channel, at: [row, column] } in cells {
        let cell = [channel, row, column];
        if cell.iter().zip(output).any(|(&at, side)| at >= side) {
            return Err(VisualizeError::Cell { layer: layer.summary.name.clone(), cell, output });
        }
    }
    if cells.is_empty() {
        return Ok(Vec::new());
    }
    let network = network.valid();
    // One copy of the image for each cell: images do not mix in evaluation.
    let images = tracked(image.repeat_dim(0, cells.len()));
    let maps = at_node(&network, layer.node(), images.clone(), Some(Rectification::Deconvnet));
    let places = cells.iter().map(|cell| ((cell.channel * rows + cell.at[0]) * columns + cell.at[1]) as i64);
    let places = TensorData::new(places.collect::<Vec<_>>(), [cells.len(), 1]);
    let places = Tensor::<2, Int>::from_data(places, &images.device());
    let excited = maps.flatten::<2>(1, 3).gather(1, places).sum();
    let projections = backward(excited, &images);
    projections.split(1, 0).into_iter().map(|projection| Colours::from_tensor(projection.squeeze_dim(0))).collect()
}

/// The output of a node of the graph in a pass. After it, the pass continues without gradients.
fn at_node<N: Classifier>(network: &N, node: usize, images: Tensor<4>, rule: Option<Rectification>) -> Tensor<4> {
    struct Keep {
        node: usize,
        rule: Option<Rectification>,
        output: Option<Tensor<4>>,
    }

    impl Observer for Keep {
        fn output(&mut self, step: Step, output: Tensor<4>) -> Tensor<4> {
            match step.node == self.node {
                true => self.output.insert(output).clone().without_autodiff(),
                false => output,
            }
        }

        fn rectification(&self) -> Option<Rectification> {
            self.rule
        }
    }
    let mut keep = Keep { node, rule, output: None };
    observe(&mut keep, images, |images| network.forward(images));
    keep.output.expect("a pass runs the operations of its graph")
}

/// The images that excite each channel of a layer most, of as many as there may be: it keeps where they were and not
/// what they show.
#[derive(Debug, Clone, Default)]
pub struct Strongest {
    /// For each channel, the largest value first.
    channels: Vec<Vec<Found>>,
}

/// A cell of a layer in one of many images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    /// The image, by the number it was added under.
    pub image: usize,
    /// The cell.
    pub cell: Cell,
    /// Its value.
    pub value: f32,
}

impl Strongest {
    /// Takes what [`peaks`] says of an image.
    pub fn add(&mut self, image: usize, peaks: &[(Cell, f32)]) {
        self.channels.resize(self.channels.len().max(peaks.len()), Vec::new());
        for (best, &(cell, value)) in self.channels.iter_mut().zip(peaks) {
            let place = best.partition_point(|found| found.value >= value);
            if place < PATCHES && value.is_finite() {
                best.insert(place, Found { image, cell, value });
                best.truncate(PATCHES);
            }
        }
    }

    /// What excites a channel most, the strongest first.
    pub fn of(&self, channel: usize) -> &[Found] {
        self.channels.get(channel).map_or(&[], Vec::as_slice)
    }

    /// How many channels there are.
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// The `count` channels whose images excite them most on average, the first the most.
    pub fn channels_by_strength(&self, count: usize) -> Vec<usize> {
        let mean = |channel: usize| {
            let found = self.of(channel);
            found.iter().map(|found| found.value).sum::<f32>() / found.len().max(1) as f32
        };
        let mut channels: Vec<_> = (0..self.channels.len()).filter(|&channel| !self.of(channel).is_empty()).collect();
        channels.sort_by(|&a, &b| mean(b).total_cmp(&mean(a)));
        channels.truncate(count);
        channels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_are_kept_whatever_the_number_of_images() {
        let mut strongest = Strongest::default();
        let cell = |channel| Cell { channel, at: [0, 0] };
        for image in 0..100 {
            let value = (image * 37 % 101) as f32;
            strongest.add(image, &[(cell(0), value), (cell(1), -value), (cell(2), f32::NAN)]);
        }
        let mut values: Vec<_> = (0..100).map(|image| (image * 37 % 101) as f32).collect();
        values.sort_by(|a, b| b.total_cmp(a));
        let kept: Vec<_> = strongest.of(0).iter().map(|found| found.value).collect();
        assert_eq!(kept, values[..PATCHES]);
        assert!(strongest.of(0).iter().all(|found| (found.image * 37 % 101) as f32 == found.value));
        assert_eq!((strongest.of(1).len(), strongest.of(2).len()), (PATCHES, 0));
        assert_eq!(strongest.channels_by_strength(5), [0, 1]);
    }
}
