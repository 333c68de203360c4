//! The way from an image to an input, against Pillow's arithmetic written out.

#![allow(clippy::unwrap_used)] // also in helpers

mod common;

use common::Noise;
use convzoo_data::{Filter, Fit, Image, Preprocess};

fn noise(width: usize, height: usize, channels: usize) -> Image {
    let pixels = Noise((width * 31 + height) as u64).bytes(width * height * channels);
    Image::new(width, height, channels, pixels).unwrap()
}

/// Pillow's `resize` for bytes: a filter widened by the scale, in fixed point of 22 bits, rows first, each pass
/// rounded to bytes.
fn pillow(image: &Image, width: usize, height: usize, filter: Filter) -> Image {
    let rows = pass(image, width, filter);
    transpose(&pass(&transpose(&rows), height, filter))
}

fn pass(image: &Image, out: usize, filter: Filter) -> Image {
    let (support, kernel): (f64, fn(f64) -> f64) = match filter {
        Filter::Bilinear => (1.0, |x| (1.0 - x.abs()).max(0.0)),
        Filter::Bicubic => (2.0, |x| {
            let (a, x) = (-0.5, x.abs());
            if x < 1.0 {
                ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
            } else if x < 2.0 {
                (((x - 5.0) * x + 8.0) * x - 4.0) * a
            } else {
                0.0
            }
        }),
    };
    let scale = image.width as f64 / out as f64;
    let stretch = scale.max(1.0);
    let reach = support * stretch;
    let mut pixels = vec![0; out * image.height * image.channels];
    for x in 0..out {
        let centre = (x as f64 + 0.5) * scale;
        let first = (centre - reach + 0.5).max(0.0) as usize;
        let end = ((centre + reach + 0.5) as usize).min(image.width);
        let weights: Vec<f64> = (first..end).map(|i| kernel((i as f64 - centre + 0.5) / stretch)).collect();
        let sum: f64 = weights.iter().sum();
        let weights: Vec<i64> = weights.iter().map(|w| (w / sum * f64::from(1 << 22)).round() as i64).collect();
        for y in 0..image.height {
            for c in 0..image.channels {
                let pixel = |i: usize| i64::from(image.pixels[(y * image.width + i) * image.channels + c]);
                let total: i64 = weights.iter().zip(first..).map(|(w, i)| w * pixel(i)).sum();
                pixels[(y * out + x) * image.channels + c] = ((total + (1 << 21)) >> 22).clamp(0, 255) as u8;
            }
        }
    }
    Image::new(out, image.height, image.channels, pixels).unwrap()
}

fn transpose(image: &Image) -> Image {
    let mut pixels = Vec::new();
    for x in 0..image.width {
        for y in 0..image.height {
            let start = (y * image.width + x) * image.channels;
            pixels.extend_from_slice(&image.pixels[start..start + image.channels]);
        }
    }
    Image::new(image.height, image.width, image.channels, pixels).unwrap()
}

/// How many values of a hundred differ from Pillow's, and by how much at most.
fn difference(image: &Image, (width, height): (usize, usize), filter: Filter) -> (f64, u8) {
    let (ours, theirs) = (image.resize(width, height, filter), pillow(image, width, height, filter));
    let differences: Vec<u8> = ours.pixels.iter().zip(&theirs.pixels).map(|(a, b)| a.abs_diff(*b)).collect();
    let differing = differences.iter().filter(|&&d| d > 0).count();
    (100.0 * differing as f64 / differences.len() as f64, differences.into_iter().max().unwrap())
}

#[test]
fn resizing_is_pillows() {
    for (from, to) in [((500, 375), (341, 256)), ((100, 100), (224, 224)), ((8, 8), (32, 32)), ((37, 91), (20, 13))] {
        for channels in [1, 3] {
            for filter in [Filter::Bilinear, Filter::Bicubic] {
                let (percent, most) = difference(&noise(from.0, from.1, channels), to, filter);
                // Pillow's weights have 22 bits, the library's 16: a rounding now and then.
                let bound = if filter == Filter::Bilinear { 1 } else { 2 };
                assert!(
                    percent < 1.5 && most <= bound,
                    "{from:?} to {to:?}, {filter:?}: {percent:.2}% differ, by at most {most}"
                );
            }
        }
    }
}

#[test]
fn a_part_is_resized_as_its_window() {
    for channels in [1, 3] {
        let image = noise(37, 29, channels);
        for part in [[0, 0, 37, 29], [5, 3, 20, 20], [30, 20, 7, 9], [0, 28, 37, 1]] {
            for size in [[16, 16], [20, 20], [part[2], 8], [8, part[3]], [50, 40]] {
                let [left, top, width, height] = part;
                let window = image.window(left as isize, top as isize, width, height);
                let expected = window.resize(size[0], size[1], Filter::Bicubic);
                assert!(image.part_resized(part, size, Filter::Bicubic) == expected, "{part:?} to {size:?}");
            }
        }
    }
}

#[test]
fn padding_centres_on_black() {
    let input = Preprocess::new(1, 32, 32, Fit::Pad).apply(&Image::new(28, 28, 1, vec![255; 784]).unwrap());
    for (i, value) in input.iter().enumerate() {
        let inside = (2..30).contains(&(i / 32)) && (2..30).contains(&(i % 32));
        assert_eq!(*value, f32::from(u8::from(inside)));
    }
}

#[test]
fn padding_and_cropping_round_as_torchvisions_center_crop() {
    let ramp = |side: usize| Image::new(side, 1, 1, (1..=side as u8).collect()).unwrap();
    assert_eq!(ramp(2).centre(5, 1).pixels, [0, 1, 2, 0, 0]);
    // Halves go to the even offset: 1 of 2 / 2 is 0, 3 / 2 is 2.
    assert_eq!(ramp(3).centre(2, 1).pixels, [1, 2]);
    assert_eq!(ramp(5).centre(2, 1).pixels, [3, 4]);
    assert_eq!(ramp(5).centre(3, 1).pixels, [2, 3, 4]);
    assert_eq!(ramp(5).centre(3, 3).pixels, [0, 0, 0, 2, 3, 4, 0, 0, 0]);
}

#[test]
fn the_shorter_side_is_resized_and_the_middle_cropped() {
    let image = noise(500, 375, 3);
    let preprocess = Preprocess::imagenet();
    let expected = image.resize(341, 256, Filter::Bilinear).window(58, 16, 224, 224);
    assert_eq!(preprocess.fitted(&image), expected);
    let tall = transpose(&image);
    assert_eq!(preprocess.fitted(&tall), tall.resize(256, 341, Filter::Bilinear).window(16, 58, 224, 224));
}

#[test]
fn values_are_planes_normalized_by_channel() {
    let image = Image::new(2, 1, 3, vec![0, 51, 255, 102, 153, 204]).unwrap();
    let values = Preprocess::new(3, 1, 2, Fit::Resize).apply(&image);
    assert_eq!(values, [0.0, 102.0 / 255.0, 51.0 / 255.0, 153.0 / 255.0, 1.0, 204.0 / 255.0]);
    let normalized = Preprocess::new(3, 1, 2, Fit::Resize).normalized([0.5, 0.0, 0.25], [0.5, 1.0, 2.0]).apply(&image);
    assert_eq!([normalized[0], normalized[2], normalized[4]], [-1.0, 0.2, 0.375]);
}

#[test]
fn grey_becomes_colour_and_colour_grey() {
    let grey = noise(3, 3, 1);
    let values = Preprocess::new(3, 3, 3, Fit::Resize).apply(&grey);
    assert_eq!(values[..9], values[9..18]);
    assert_eq!(values[..9], values[18..]);
    let colours = Image::new(4, 1, 3, vec![255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255]).unwrap();
    // Pillow: Image.convert("L")
    assert_eq!(colours.to_grey().pixels, [76, 150, 29, 255]);
    assert_eq!(Preprocess::new(1, 1, 4, Fit::Resize).apply(&colours)[3], 1.0);
}

#[test]
fn ten_crops_are_the_corners_the_middle_and_their_mirror_images() {
    let image = noise(8, 6, 1);
    let preprocess = Preprocess::new(1, 4, 4, Fit::ResizeCrop { shorter: 6 });
    let crops = preprocess.ten_crops(&image);
    let expected = |left, top| image.window(left, top, 4, 4).pixels;
    let bytes = |crop: &Vec<f32>| crop.iter().map(|v| (v * 255.0).round() as u8).collect::<Vec<_>>();
    let crops: Vec<Vec<u8>> = crops.iter().map(bytes).collect();
    assert_eq!(crops.len(), 10);
    assert_eq!(crops[..5], [expected(0, 0), expected(4, 0), expected(0, 2), expected(4, 2), expected(2, 1)]);
    assert_eq!(crops[5], image.flip().window(0, 0, 4, 4).pixels);
    assert_eq!(crops[4], bytes(&preprocess.apply(&image)));
}

#[test]
fn extreme_proportions_take_no_extreme_memory() {
    let thread = Image::new(200_000, 1, 1, vec![128; 200_000]).unwrap();
    let values = Preprocess::imagenet().apply(&thread);
    assert_eq!(values.len(), 3 * 224 * 224);
    let tall = Image::new(1, 2_000_000, 1, vec![128; 2_000_000]).unwrap();
    assert_eq!(Preprocess::new(1, 224, 224, Fit::Resize).apply(&tall), [128.0 / 255.0; 224 * 224]);
    for (width, height) in [(1, 1), (1, 7), (3, 1)] {
        for fit in [Fit::Resize, Fit::Pad, Fit::ResizeCrop { shorter: 5 }, Fit::ResizeCrop { shorter: 2 }] {
            assert_eq!(Preprocess::new(3, 4, 4, fit).apply(&noise(width, height, 3)).len(), 48);
        }
    }
}

#[test]
fn images_whose_parts_disagree_cannot_be_made() {
    assert!(Image::new(2, 2, 3, vec![0; 11]).is_none());
    assert!(Image::new(2, 2, 2, vec![0; 8]).is_none());
    assert!(Image::new(0, 2, 1, vec![]).is_none());
    assert!(Image::new(usize::MAX, 2, 3, vec![]).is_none());
}
