//! The operations that augmentation is made of, in Pillow's arithmetic: what torchvision's functions of these names do
//! to a Pillow image.

use crate::image::Image;

/// One change to an image that leaves its size, and how strong it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operation {
    /// Nothing.
    Identity,
    /// Each row moved left by this share of its height in the image.
    ShearX(f64),
    /// Each column moved up by this share of its distance from the left edge.
    ShearY(f64),
    /// Moved right by this many pixels, of which whole ones count.
    TranslateX(f64),
    /// Moved down by this many pixels, of which whole ones count.
    TranslateY(f64),
    /// Rotated about its centre, counter-clockwise, in degrees.
    Rotate(f64),
    /// All values times this factor.
    Brightness(f64),
    /// The differences from the mean grey times this factor.
    Contrast(f64),
    /// The differences from each pixel's own grey times this factor: `adjust_saturation`.
    Color(f64),
    /// The differences from a smoothed image times this factor.
    Sharpness(f64),
    /// The hue turned by this share of the colour circle.
    Hue(f64),
    /// The values' upper bits kept.
    Posterize(u32),
    /// Values from this one on inverted.
    Solarize(f64),
    /// Each channel stretched from black to white.
    AutoContrast,
    /// Each channel's histogram equalized.
    Equalize,
}

impl Operation {
    /// The image changed. What geometry uncovers is black; pixels between pixels are interpolated bilinearly.
    pub fn apply(self, image: &Image) -> Image {
        match self {
            Self::Identity => image.clone(),
            Self::ShearX(share) => affine(image, [1.0, share, 0.0, 0.0, 1.0, 0.0]),
            Self::ShearY(share) => affine(image, [1.0, 0.0, 0.0, share, 1.0, 0.0]),
            Self::TranslateX(pixels) => image.window(-(pixels as isize), 0, image.width, image.height),
            Self::TranslateY(pixels) => image.window(0, -(pixels as isize), image.width, image.height),
            Self::Rotate(degrees) => rotate(image, degrees),
            Self::Brightness(factor) => blend(image, factor, |_| 0),
            Self::Contrast(factor) => {
                let mean = mean_grey(image);
                blend(image, factor, |_| mean)
            }
            Self::Color(_) | Self::Hue(_) if image.channels == 1 => image.clone(),
            Self::Color(factor) => {
                let grey = image.to_grey().pixels;
                blend(image, factor, |at| grey[at / 3])
            }
            Self::Sharpness(factor) => {
                let smooth = smooth(image);
                blend(image, factor, |at| smooth[at])
            }
            Self::Hue(share) => turn_hue(image, share),
            Self::Posterize(bits) => {
                let lower = 0xff >> bits.min(8);
                map(image, |_| std::array::from_fn(|value| (value & !lower) as u8))
            }
            Self::Solarize(threshold) => map(image, |_| {
                std::array::from_fn(|value| if (value as f64) < threshold { value as u8 } else { 255 - value as u8 })
            }),
            Self::AutoContrast => map(image, stretched),
            Self::Equalize => map(image, evened),
        }
    }
}

/// Each channel through the table that `table` makes of its histogram.
fn map(image: &Image, table: impl Fn(&[usize; 256]) -> [u8; 256]) -> Image {
    let mut image = image.clone();
    for channel in 0..image.channels {
        let mut histogram = [0; 256];
        image.pixels[channel..].iter().step_by(image.channels).for_each(|&value| histogram[usize::from(value)] += 1);
        let table = table(&histogram);
        let values = image.pixels[channel..].iter_mut().step_by(image.channels);
        values.for_each(|value| *value = table[usize::from(*value)]);
    }
    image
}

/// The table that stretches what there is from black to white.
fn stretched(histogram: &[usize; 256]) -> [u8; 256] {
    let first = histogram.iter().position(|&count| count > 0).unwrap_or(0);
    let last = histogram.iter().rposition(|&count| count > 0).unwrap_or(0);
    if last <= first {
        return std::array::from_fn(|value| value as u8);
    }
    let scale = 255.0 / (last - first) as f64;
    let offset = -(first as f64) * scale;
    std::array::from_fn(|value| (value as f64 * scale + offset) as u8)
}

/// The table that gives every value the rank of its pixels among all.
fn evened(histogram: &[usize; 256]) -> [u8; 256] {
    let total: usize = histogram.iter().sum();
    let last = histogram.iter().rfind(|&&count| count > 0).copied().unwrap_or(0);
    let step = (total - last) / 255;
    if step == 0 {
        return std::array::from_fn(|value| value as u8);
    }
    let mut below = step / 2;
    std::array::from_fn(|value| {
        let rank = (below / step).min(255) as u8;
        below += histogram[value];
        rank
    })
}

/// Away from a degenerate image, whose value at an index of [`Image::pixels`] `other` knows, or towards it: Pillow's
/// `ImageEnhance`.
fn blend(image: &Image, factor: f64, other: impl Fn(usize) -> u8) -> Image {
    let factor = factor as f32;
    let value = |(at, &value): (usize, &u8)| {
        let other = f32::from(other(at));
        // Truncated, and cut off at black and white.
        (other + factor * (f32::from(value) - other)) as u8
    };
    Image { pixels: image.pixels.iter().enumerate().map(value).collect(), ..*image }
}

fn mean_grey(image: &Image) -> u8 {
    let grey = image.to_grey().pixels;
    let sum: u64 = grey.iter().map(|&value| u64::from(value)).sum();
    (sum as f64 / grey.len() as f64 + 0.5) as u8
}

/// The values smoothed over three by three pixels, the middle weighing five times; those at the edges as they are.
fn smooth(image: &Image) -> Vec<u8> {
    let (row, channels) = (image.width * image.channels, image.channels);
    let mut smooth = image.pixels.clone();
    for y in 1..image.height.saturating_sub(1) {
        for x in channels..row.saturating_sub(channels) {
            let at = y * row + x;
            let around: u32 = [at - row, at, at + row]
                .iter()
                .flat_map(|&at| [at - channels, at, at + channels])
                .map(|at| u32::from(image.pixels[at]))
                .sum();
            let sum = around + 4 * u32::from(image.pixels[at]);
            smooth[at] = ((2 * sum + 13) / 26) as u8;
        }
    }
    smooth
}

fn rotate(image: &Image, degrees: f64) -> Image {
    let (sin, cos) = (-degrees.to_radians()).sin_cos();
    let (x, y) = (image.width as f64 / 2.0, image.height as f64 / 2.0);
    affine(image, [cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y])
}

/// The image whose pixel at (x, y) is the given one's at (a x + b y + c, d x + e y + f).
fn affine(image: &Image, [a, b, c, d, e, f]: [f64; 6]) -> Image {
    let Image { width, height, channels, .. } = *image;
    let mut pixels = vec![0; image.pixels.len()];
    let mut targets = pixels.chunks_exact_mut(channels);
    for row in 0..height {
        for column in 0..width {
            let target = targets.next().expect("an image's bytes are width * height * channels");
            let (x, y) = (column as f64 + 0.5, row as f64 + 0.5);
            let (x, y) = (a * x + b * y + c, d * x + e * y + f);
            if !(0.0..width as f64).contains(&x) || !(0.0..height as f64).contains(&y) {
                continue;
            }
            let ([left, right], dx) = neighbours(x - 0.5, width);
            let ([above, below], dy) = neighbours(y - 0.5, height);
            let [above, below] = [above, below].map(|row| row * width);
            for (channel, target) in target.iter_mut().enumerate() {
                let value = |at: usize| f64::from(image.pixels[at * channels + channel]);
                let between = |from: f64, to: f64, share: f64| from + (to - from) * share;
                let upper = between(value(above + left), value(above + right), dx);
                let lower = between(value(below + left), value(below + right), dx);
                *target = between(upper, lower, dy) as u8;
            }
        }
    }
    Image { pixels, ..*image }
}

/// The pixels on either side of a place, of `count`, and how far it is on the way from one to the other.
fn neighbours(place: f64, count: usize) -> ([usize; 2], f64) {
    let first = place.floor();
    let clamp = |place: f64| place.clamp(0.0, (count - 1) as f64) as usize;
    ([clamp(first), clamp(first + 1.0)], place - first)
}

/// The hue turned, by way of hue, saturation and value in bytes, as Pillow keeps them.
fn turn_hue(image: &Image, share: f64) -> Image {
    let shift = (share * 255.0) as i32 as u8;
    let turn = |pixel: &[u8]| {
        let [hue, saturation, value] = to_hsv([pixel[0], pixel[1], pixel[2]]);
        from_hsv([hue.wrapping_add(shift), saturation, value])
    };
    Image { pixels: image.pixels.chunks_exact(3).flat_map(turn).collect(), ..*image }
}

fn to_hsv([red, green, blue]: [u8; 3]) -> [u8; 3] {
    let (least, most) = (red.min(green).min(blue), red.max(green).max(blue));
    if least == most {
        return [0, 0, most];
    }
    let range = f32::from(most - least);
    let [r, g, b] = [red, green, blue].map(|value| f32::from(most - value) / range);
    let sextant = if red == most {
        b - g
    } else if green == most {
        2.0 + r - b
    } else {
        4.0 + g - r
    };
    let hue = ((f64::from(sextant) / 6.0 + 1.0) % 1.0) as f32;
    let saturation = range / f32::from(most);
    [(f64::from(hue) * 255.0) as u8, (f64::from(saturation) * 255.0) as u8, most]
}

fn from_hsv([hue, saturation, value]: [u8; 3]) -> [u8; 3] {
    let place = f64::from(hue) * 6.0 / 255.0;
    let (part, saturation) = (place.fract(), f64::from(saturation) / 255.0);
    let [low, falling, rising] = [saturation, saturation * part, saturation * (1.0 - part)]
        .map(|lost| (f64::from(value) * (1.0 - lost)).round() as u8);
    match place as usize % 6 {
        0 => [value, rising, low],
        1 => [falling, value, low],
        2 => [low, value, rising],
        3 => [low, falling, value],
        4 => [rising, low, value],
        _ => [value, low, falling],
    }
}
