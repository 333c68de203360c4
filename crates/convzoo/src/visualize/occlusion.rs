use burn::tensor::activation::softmax;
use burn::tensor::{Tensor, TensorData};

use super::{Map, VisualizeError};
use crate::Classifier;

/// A square that covers a part of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occluder {
    /// Its side, in pixels.
    pub window: usize,
    /// Pixels between its positions.
    pub stride: usize,
}

/// Positions that pass the network together.
const BATCH: usize = 8;

impl Occluder {
    /// A quarter of the shorter side, moved by half of itself: what a drawing needs, within some seconds.
    pub fn for_image(height: usize, width: usize) -> Self {
        Self::of((height.min(width) / 4).max(1))
    }

    /// A square of this side, moved by half of it.
    pub fn of(window: usize) -> Self {
        Self { window, stride: window.div_ceil(2) }
    }

    /// Where it begins along a side: every stride, and flush with the end.
    fn starts(self, side: usize) -> Vec<usize> {
        let last = side - self.window;
        let mut starts: Vec<_> = (0..=last).step_by(self.stride).collect();
        if !starts.contains(&last) {
            starts.push(last);
        }
        starts
    }

    /// Planes of `[height, width]` with the square at `(top, left)` of each set to 0.
    fn cover(self, planes: &[f32], [height, width]: [usize; 2], (top, left): (usize, usize)) -> Vec<f32> {
        let mut planes = planes.to_vec();
        for plane in planes.chunks_exact_mut(height * width) {
            for row in plane.chunks_exact_mut(width).skip(top).take(self.window) {
                row[left..left + self.window].fill(0.0);
            }
        }
        planes
    }

    /// How near each row of it is to its middle, from almost 0 to 1.
    fn nearness(self) -> Vec<f32> {
        let middle = (self.window + 1) as f32 / 2.0;
        (1..=self.window).map(|row| 1.0 - (row as f32 - middle).abs() / middle).collect()
    }

    /// How many positions it takes in an image.
    pub fn positions(self, height: usize, width: usize) -> Result<usize, VisualizeError> {
        let fits = |length| (1..=height.min(width)).contains(&length);
        match fits(self.window) && fits(self.stride) {
            true => Ok(self.starts(height).len() * self.starts(width).len()),
            false => Err(VisualizeError::Occluder { window: self.window, stride: self.stride, height, width }),
        }
    }
}

/// How much of a class's probability is lost when a part of an image `[1, channels, height, width]` is covered with 0,
/// the grey that inputs are normalized around: at every pixel, the mean over the positions that cover it, each weighted
/// by how near it has the pixel to its middle ([Zeiler and Fergus, 2013](https://arxiv.org/abs/1311.2901), Section
/// 4.2). Negative where covering helps; zero where nothing covers.
///
/// `covered` is told how many positions are done.
pub fn occlusion<N: Classifier>(
    network: &N,
    image: Tensor<4>,
    class: usize,
    occluder: Occluder,
    mut covered: impl FnMut(usize),
) -> Result<Map, VisualizeError> {
    let [_, channels, height, width] = image.dims();
    occluder.positions(height, width)?;
    let network = network.valid();
    let device = image.device().without_autodiff();
    let pixels: Vec<f32> = image.without_autodiff().try_into_vec_as()?;
    let probabilities = |images: Vec<f32>, count: usize| -> Result<Vec<f32>, VisualizeError> {
        let images = Tensor::<4>::from_data(TensorData::new(images, [count, channels, height, width]), &device);
        let logits = network.forward(images);
        let [_, classes] = logits.dims();
        if class >= classes {
            return Err(VisualizeError::Class { class, classes });
        }
        Ok(softmax(logits, 1).narrow(1, class, 1).try_into_vec_as()?)
    };
    let whole = probabilities(pixels.clone(), 1)?[0];

    let columns = occluder.starts(width);
    let positions: Vec<_> =
        occluder.starts(height).into_iter().flat_map(|top| columns.iter().map(move |&left| (top, left))).collect();
    let near = occluder.nearness();
    let (mut lost, mut weights) = (vec![0f32; height * width], vec![0f32; height * width]);
    for (batch, done) in positions.chunks(BATCH).zip((0..).step_by(BATCH)) {
        let images = batch.iter().flat_map(|&position| occluder.cover(&pixels, [height, width], position)).collect();
        for (&(top, left), probability) in batch.iter().zip(probabilities(images, batch.len())?) {
            for (row, vertical) in near.iter().enumerate() {
                let first = (top + row) * width + left;
                for (column, horizontal) in near.iter().enumerate() {
                    lost[first + column] += vertical * horizontal * (whole - probability);
                    weights[first + column] += vertical * horizontal;
                }
            }
        }
        covered(done + batch.len());
    }
    let share = |(lost, &weight): (&f32, &f32)| if weight > 0.0 { lost / weight } else { 0.0 };
    let values = lost.iter().zip(&weights).map(share).collect();
    Ok(Map { height, width, values })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_square_covers_every_pixel_whatever_its_stride() {
        for (side, window, stride) in [(10, 3, 2), (10, 3, 3), (7, 7, 1), (9, 4, 4)] {
            let starts = Occluder { window, stride }.starts(side);
            assert_eq!((starts[0], starts[starts.len() - 1] + window), (0, side));
            assert!(starts.windows(2).all(|pair| pair[1] - pair[0] <= stride), "{starts:?}");
        }
        let square = Occluder { window: 2, stride: 1 };
        assert_eq!(square.cover(&[1.0; 12], [2, 3], (0, 1)), [1., 0., 0., 1., 0., 0., 1., 0., 0., 1., 0., 0.]);
        assert_eq!(Occluder { window: 3, stride: 1 }.nearness(), [0.5, 1.0, 0.5]);
        assert!(Occluder { window: 5, stride: 1 }.positions(4, 9).is_err());
        assert!(Occluder { window: 1, stride: 0 }.positions(4, 9).is_err());
        assert_eq!(Occluder::for_image(224, 224).positions(224, 224).unwrap(), 49);
    }
}
