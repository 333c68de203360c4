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
    /// A fifth of the shorter side, moved by half of itself: what a drawing needs, within some seconds.
    pub fn for_image(height: usize, width: usize) -> Self {
        let window = (height.min(width) / 5).max(1);
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
/// the grey that inputs are normalised around: at every pixel, the mean over the positions that cover it
/// ([Zeiler and Fergus, 2013](https://arxiv.org/abs/1311.2901), Section 4.2). Negative where covering helps.
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
    let (mut lost, mut counts) = (vec![0f32; height * width], vec![0f32; height * width]);
    for (batch, done) in positions.chunks(BATCH).zip((0..).step_by(BATCH)) {
        let mut images = Vec::with_capacity(batch.len() * pixels.len());
        for &(top, left) in batch {
            let first = images.len();
            images.extend_from_slice(&pixels);
            for row in images[first..]
                .chunks_exact_mut(width)
                .enumerate()
                .filter(|(row, _)| (top..top + occluder.window).contains(&(row % height)))
            {
                row.1[left..left + occluder.window].fill(0.0);
            }
        }
        for (&(top, left), probability) in batch.iter().zip(probabilities(images, batch.len())?) {
            for row in top..top + occluder.window {
                let covered = row * width + left..row * width + left + occluder.window;
                lost[covered.clone()].iter_mut().for_each(|lost| *lost += whole - probability);
                counts[covered].iter_mut().for_each(|count| *count += 1.0);
            }
        }
        covered(done + batch.len());
    }
    let values = lost.iter().zip(&counts).map(|(lost, count)| lost / count.max(1.0)).collect();
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
        assert!(Occluder { window: 5, stride: 1 }.positions(4, 9).is_err());
        assert!(Occluder { window: 1, stride: 0 }.positions(4, 9).is_err());
        assert_eq!(Occluder::for_image(224, 224).positions(224, 224).unwrap(), 81 + 19);
    }
}
