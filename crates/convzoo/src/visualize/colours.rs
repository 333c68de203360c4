use burn::tensor::Tensor;
use image::{Rgb, RgbImage};

use super::map::quantile;
use super::{Map, Patch, VisualizeError};

/// A signed number for every channel of every position of an image, such as a gradient.
#[derive(Debug, Clone, PartialEq)]
pub struct Colours {
    /// Channels.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// `channels · height · width` numbers, channel by channel, row by row.
    pub values: Vec<f32>,
}

impl Colours {
    /// Of a tensor `[channels, height, width]`.
    pub(super) fn from_tensor(values: Tensor<3>) -> Result<Self, VisualizeError> {
        let [channels, height, width] = values.dims();
        Ok(Self { channels, height, width, values: values.try_into_vec_as()? })
    }

    /// The number of largest magnitude over the channels, without its sign, at every position.
    pub fn magnitude(&self) -> Map {
        let mut values = vec![0f32; self.height * self.width];
        for plane in self.values.chunks_exact(values.len().max(1)) {
            for (largest, value) in values.iter_mut().zip(plane) {
                *largest = largest.max(value.abs());
            }
        }
        Map { height: self.height, width: self.width, values }
    }

    /// A picture in which 0 is grey and the number of largest magnitude is full. Three channels are red, green and
    /// blue; of another number, their mean is shown in grey.
    pub fn picture(&self) -> RgbImage {
        let largest = self.values.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
        let place = self.height * self.width;
        let byte = |value: f32| (127.5 + 127.5 * value / largest).round() as u8;
        RgbImage::from_fn(self.width as u32, self.height as u32, |x, y| {
            let at = y as usize * self.width + x as usize;
            let channel = |channel: usize| self.values[channel * place + at];
            Rgb(match self.channels {
                3 => std::array::from_fn(|i| byte(channel(i))),
                channels => [byte((0..channels).map(channel).sum::<f32>() / channels.max(1) as f32); 3],
            })
        })
    }

    /// The same without its extremes: magnitudes above the one that `share` (0 to 1) of all are below become that one.
    pub fn clipped(mut self, share: f64) -> Self {
        let most = quantile(self.values.iter().map(|value| value.abs()).collect(), share);
        self.values.iter_mut().for_each(|value| *value = value.clamp(-most, most));
        self
    }

    /// A part of it.
    pub fn crop(&self, patch: Patch) -> Self {
        let Patch { top, left, height, width } = patch;
        let rows =
            (0..self.channels).flat_map(|channel| (top..top + height).map(move |row| channel * self.height + row));
        let values = rows.flat_map(|row| &self.values[row * self.width + left..][..width]).copied().collect();
        Self { channels: self.channels, height, width, values }
    }

    /// Every position times the map's number there; the map has the same size.
    pub(super) fn weighted(mut self, map: &Map) -> Self {
        for plane in self.values.chunks_exact_mut(map.values.len().max(1)) {
            plane.iter_mut().zip(&map.values).for_each(|(value, weight)| *value *= weight);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_grey_and_the_largest_is_full() {
        let colours = Colours { channels: 3, height: 1, width: 2, values: vec![0.0, -2.0, 0.0, 1.0, 0.0, 2.0] };
        let picture = colours.picture();
        assert_eq!((picture.get_pixel(0, 0), picture.get_pixel(1, 0)), (&Rgb([128; 3]), &Rgb([0, 191, 255])));
        assert_eq!(colours.magnitude().values, [0.0, 2.0]);
        assert_eq!(colours.clone().clipped(0.6).values, [0.0, -1.0, 0.0, 1.0, 0.0, 1.0]);
        let right = colours.crop(Patch { top: 0, left: 1, height: 1, width: 1 });
        assert_eq!(right.values, [-2.0, 1.0, 2.0]);
    }
}
