use burn::module::{ModuleVisitor, Param};
use burn::tensor::Tensor;
use convzoo_report::{Grid, ReportError};
use image::{Rgb, RgbImage};

use super::features::{LARGE, SMALL, columns, tile};
use super::layers::{find_layer, nearest};
use super::{Colours, VisualizeError, layers};
use crate::Classifier;

/// The kernels of a convolution.
#[derive(Debug, Clone)]
pub struct Filters {
    /// The layer's name.
    pub layer: String,
    /// A kernel for each output channel: its channels are the input's (those of its group).
    pub kernels: Vec<Colours>,
}

/// The kernels of a convolution; without a `layer`, of the first one. `input`, `[channels, height, width]`, is what
/// the network takes.
pub fn filters<N: Classifier>(network: &N, input: [usize; 3], layer: Option<&str>) -> Result<Filters, VisualizeError> {
    let layers = layers(network, input)?;
    let convolutions = || layers.iter().filter(|layer| layer.summary.kind == "Conv2d");
    let layer = match layer {
        Some(name) => find_layer(&layers, name)?,
        None => convolutions()
            .next()
            .ok_or_else(|| VisualizeError::Layer { name: "the first convolution".to_owned(), nearest: Vec::new() })?,
    };
    let (name, kind) = (layer.summary.name.clone(), layer.summary.kind);
    let graph = network.graph(input)?;
    let id = graph.nodes()[layer.node()].parameters.first().map(|parameter| parameter.id);
    let mut weight = Weight { id, found: None };
    network.visit(&mut weight);
    let Some(weight) = weight.found.filter(|_| kind == "Conv2d") else {
        let convolutions = nearest(&name, convolutions().map(|layer| layer.summary.name.clone()));
        return Err(VisualizeError::NoFilters { layer: name, kind, convolutions });
    };
    let [_, channels, height, width] = weight.dims();
    let values: Vec<f32> = weight.try_into_vec_as()?;
    let kernel = |values: &[f32]| Colours { channels, height, width, values: values.to_vec() };
    Ok(Filters { layer: name, kernels: values.chunks_exact(channels * height * width).map(kernel).collect() })
}

/// Looks for the weight of a convolution.
struct Weight {
    id: Option<u64>,
    found: Option<Tensor<4>>,
}

impl ModuleVisitor for Weight {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if Some(param.id.val()) == self.id && D == 4 {
            let weight = param.val();
            let shape: [usize; 4] = std::array::from_fn(|i| weight.dims()[i]);
            self.found = Some(weight.reshape(shape));
        }
    }
}

impl Filters {
    /// The `count` filters with the largest norms, the largest first.
    pub fn strongest(&self, count: usize) -> Vec<usize> {
        let norm = |filter: usize| self.kernels[filter].values.iter().map(|w| w * w).sum::<f32>();
        let mut filters: Vec<_> = (0..self.kernels.len()).collect();
        filters.sort_by(|&a, &b| norm(b).total_cmp(&norm(a)));
        filters.truncate(count);
        filters
    }

    /// These filters side by side, labelled with their number: in colour where they have three input channels, as a
    /// mosaic of their input channels, row by row, where they have more. Grey is 0; each filter is stretched to its
    /// largest weight.
    pub fn grid(&self, filters: &[usize]) -> Result<RgbImage, ReportError> {
        let mosaic = self.kernels.first().is_some_and(|kernel| !matches!(kernel.channels, 1 | 3));
        let side = if mosaic { LARGE } else { SMALL };
        let picture = |kernel: &Colours| if mosaic { by_channel(kernel) } else { kernel.picture() };
        let tiles = filters.iter().fold(Grid::new(columns(filters.len(), side)), |grid, &filter| {
            grid.tile(filter.to_string(), tile(&picture(&self.kernels[filter]), side))
        });
        tiles.image()
    }
}

/// What lies between the slices of a filter.
const BETWEEN: [u8; 3] = [208; 3];

/// A kernel's slices in rows that make about a square, a line apart where they are larger than a pixel.
fn by_channel(kernel: &Colours) -> RgbImage {
    let Colours { channels, height, width, .. } = *kernel;
    let gap = if height * width > 1 { 1 } else { 0 };
    let columns = (channels as f64).sqrt().ceil() as usize;
    let rows = channels.div_ceil(columns.max(1));
    let [cell_height, cell_width] = [height + gap, width + gap];
    // All slices on one scale: as one picture, they are stretched together.
    let stacked = Colours { channels: 1, height: channels * height, width, values: kernel.values.clone() }.picture();
    RgbImage::from_fn((columns * cell_width) as u32, (rows * cell_height) as u32, |x, y| {
        let (x, y) = (x as usize, y as usize);
        let (channel, row, column) = ((y / cell_height) * columns + x / cell_width, y % cell_height, x % cell_width);
        match channel < channels && row < height && column < width {
            true => *stacked.get_pixel(column as u32, (channel * height + row) as u32),
            false => Rgb(BETWEEN),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_lie_in_rows_on_one_scale() {
        let values = vec![1.0, -1.0, 0.0, 0.5, 0.0, 0.0, 0.0, -0.5, 1.0, 0.0];
        let mosaic = by_channel(&Colours { channels: 5, height: 1, width: 2, values });
        assert_eq!(mosaic.dimensions(), (9, 4));
        let at = |x, y| mosaic.get_pixel(x, y).0[0];
        assert_eq!([at(0, 0), at(1, 0), at(2, 0), at(3, 0)], [255, 0, 208, 128]);
        assert_eq!([at(1, 2), at(3, 2), at(4, 2), at(6, 2)], [64, 255, 128, 208]);
    }
}
