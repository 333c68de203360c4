use burn::tensor::Tensor;
use image::imageops::{FilterType, resize};
use image::{ImageBuffer, Luma, Rgb, RgbImage};

use super::VisualizeError;

/// A number for every position of an image, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Map {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// `height · width` numbers.
    pub values: Vec<f32>,
}

/// From nothing to much, on dark grounds and light ones.
const SCALE: [[u8; 3]; 6] =
    [[68, 1, 84], [65, 68, 135], [42, 120, 142], [34, 168, 132], [122, 209, 81], [253, 231, 37]];

/// From warm to hot, to lie over photographs.
const HEAT: [[u8; 3]; 5] = [[66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]];

/// How much of a photograph the hottest position hides.
const COVER: f32 = 0.8;

impl Map {
    pub(super) fn from_tensor(map: Tensor<2>) -> Result<Self, VisualizeError> {
        let [height, width] = map.dims();
        Ok(Self { height, width, values: map.try_into_vec_as()? })
    }

    /// The smallest and the largest number; zeros without any.
    pub fn range(&self) -> (f32, f32) {
        let finite = || self.values.iter().copied().filter(|value| value.is_finite());
        finite().next().map_or((0.0, 0.0), |first| {
            finite().fold((first, first), |(low, high), value| (low.min(value), high.max(value)))
        })
    }

    /// The mean of what is positive: how strongly a channel is activated.
    pub fn strength(&self) -> f32 {
        self.values.iter().map(|value| value.max(0.0)).sum::<f32>() / self.values.len().max(1) as f32
    }

    /// The map without its extremes: numbers above the one that `share` (0 to 1) of all are below become that one. What
    /// single pixels stand out of would show nothing else.
    pub fn clipped(mut self, share: f64) -> Self {
        let most = quantile(self.values.clone(), share);
        self.values.iter_mut().for_each(|value| *value = value.min(most));
        self
    }

    /// The map with `low`…`high` stretched to 0…1; where those are the same, 0 everywhere.
    fn stretched(&self, low: f32, high: f32) -> ImageBuffer<Luma<f32>, Vec<f32>> {
        let scale = if high > low { 1.0 / (high - low) } else { 0.0 };
        ImageBuffer::from_fn(self.width as u32, self.height as u32, |x, y| {
            let value = (self.values[y as usize * self.width + x as usize] - low) * scale;
            Luma([if value.is_finite() { value.clamp(0.0, 1.0) } else { 0.0 }])
        })
    }

    /// The map in colours, from its smallest number (dark violet) to its largest (yellow), a pixel a position.
    pub fn picture(&self) -> RgbImage {
        let (low, high) = self.range();
        let map = self.stretched(low, high);
        RgbImage::from_fn(map.width(), map.height(), |x, y| Rgb(between(&SCALE, map.get_pixel(x, y).0[0])))
    }

    /// The map as a heatmap over a photograph, interpolated: the hotter, the larger the number. What is not positive
    /// stays cold.
    pub fn over(&self, photograph: &RgbImage) -> RgbImage {
        let heat = self.stretched(0.0, self.range().1);
        let heat = resize(&heat, photograph.width(), photograph.height(), FilterType::Triangle);
        RgbImage::from_fn(photograph.width(), photograph.height(), |x, y| {
            let (heat, pixel) = (heat.get_pixel(x, y).0[0].clamp(0.0, 1.0), photograph.get_pixel(x, y).0);
            let hot = between(&HEAT, heat);
            let grey = pixel.iter().map(|&value| f32::from(value)).sum::<f32>() / 3.0;
            Rgb(std::array::from_fn(|i| {
                // Colours of the photograph are muted, so that those of the heat stand out.
                let faded = 0.5 * f32::from(pixel[i]) + 0.5 * grey;
                (faded + COVER * heat * (f32::from(hot[i]) - faded)).round() as u8
            }))
        })
    }

    /// The map at another size, interpolated bilinearly between its positions' centres, its smallest and largest number
    /// where interpolation reaches them.
    pub fn resized(&self, height: usize, width: usize) -> Self {
        let (low, high) = self.range();
        let resized = resize(&self.stretched(low, high), width as u32, height as u32, FilterType::Triangle);
        let values = resized.into_raw().into_iter().map(|value| low + value * (high - low)).collect();
        Self { height, width, values }
    }
}

/// The colours of [`Map::picture`], from the smallest number on the left to the largest.
pub fn scale_bar() -> RgbImage {
    bar(&SCALE)
}

/// The colours of [`Map::over`], from cold on the left to hot.
pub fn heat_bar() -> RgbImage {
    bar(&HEAT)
}

fn bar(scale: &[[u8; 3]]) -> RgbImage {
    const WIDTH: u32 = 320;
    const HEIGHT: u32 = 14;
    RgbImage::from_fn(WIDTH, HEIGHT, |x, _| Rgb(between(scale, x as f32 / (WIDTH - 1) as f32)))
}

/// The number that `share` of `values` are below.
pub(super) fn quantile(mut values: Vec<f32>, share: f64) -> f32 {
    if values.is_empty() {
        return 0.0;
    }
    let place = (share * (values.len() - 1) as f64).round() as usize;
    let place = place.min(values.len() - 1);
    *values.select_nth_unstable_by(place, f32::total_cmp).1
}

/// A colour at `at`, 0…1, between those of a scale.
fn between(scale: &[[u8; 3]], at: f32) -> [u8; 3] {
    let place = at.clamp(0.0, 1.0) * (scale.len() - 1) as f32;
    let first = (place as usize).min(scale.len() - 2);
    let share = place - first as f32;
    std::array::from_fn(|i| {
        let [from, to] = [scale[first][i], scale[first + 1][i]].map(f32::from);
        (from + share * (to - from)).round() as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_interpolated_between_the_centres_of_its_places() {
        let map = Map { height: 1, width: 2, values: vec![-2.0, 2.0] };
        // As torch.nn.functional.interpolate(mode="bilinear", align_corners=False).
        let wide = map.resized(1, 4);
        for (value, expected) in wide.values.iter().zip([-2.0, -1.0, 1.0, 2.0]) {
            assert!((value - expected).abs() < 1e-5, "{:?}", wide.values);
        }
    }

    #[test]
    fn extremes_are_clipped() {
        let map = Map { height: 1, width: 5, values: vec![9.0, 1.0, -3.0, 2.0, 0.0] };
        assert_eq!(map.clone().clipped(0.75).values, [2.0, 1.0, -3.0, 2.0, 0.0]);
        assert_eq!(map.clone().clipped(1.0), map);
        assert_eq!(map.strength(), 2.4);
    }

    #[test]
    fn the_hottest_place_hides_most_of_the_photograph() {
        let photograph = RgbImage::from_pixel(2, 1, Rgb([100; 3]));
        let over = Map { height: 1, width: 2, values: vec![-1.0, 3.0] }.over(&photograph);
        assert_eq!(over.get_pixel(0, 0), &Rgb([100; 3]));
        assert_eq!(over.get_pixel(1, 0), &Rgb([222, 224, 151]));
        let flat = Map { height: 1, width: 1, values: vec![f32::NAN] };
        assert_eq!(flat.over(&photograph), photograph);
        assert_eq!(flat.picture().get_pixel(0, 0), &Rgb(SCALE[0]));
    }
}
