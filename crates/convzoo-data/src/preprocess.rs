//! From an image to a network's input.

use std::borrow::Cow;

use crate::image::{Filter, Image};

/// An image that grew beyond this many pixels on the way to its crop is cropped first instead: only images
/// thinner than any photograph do, and resizing them whole would take gigabytes.
const MOST_RESIZED_PIXELS: usize = 1 << 26;

/// How an image of any size comes to the network's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Resized to exactly the input's size, whatever its proportions.
    Resize,
    /// Its shorter side resized to `shorter`, then the middle cut out: what ImageNet networks are evaluated with.
    ResizeCrop {
        /// The shorter side's length before the crop, 256 for most networks.
        shorter: usize,
    },
    /// Put in the middle of a black canvas, unscaled; what does not fit is cut off.
    Pad,
}

/// How an image becomes a network's input: fitted to its size, converted to its channels, divided by 255 and
/// normalized, as torchvision's `Resize`, `CenterCrop`, `ToTensor` and `Normalize` do it.
///
/// ```
/// use convzoo_data::{Fit, Image, Preprocess};
/// let digit = Image::new(28, 28, 1, vec![255; 784]).unwrap();
/// let input = Preprocess::new(1, 32, 32, Fit::Pad).apply(&digit);
/// assert_eq!(input.len(), 32 * 32);
/// assert_eq!((input[0], input[2 * 32 + 2]), (0.0, 1.0));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocess {
    /// The input's channels: 1 (grey) or 3 (red, green, blue).
    pub channels: usize,
    /// The input's rows.
    pub height: usize,
    /// The input's columns.
    pub width: usize,
    /// How an image comes to that size.
    pub fit: Fit,
    /// The filter that resizing uses.
    pub filter: Filter,
    /// The mean of each channel, subtracted after dividing by 255; grey uses the first.
    pub mean: [f32; 3],
    /// The standard deviation of each channel, by which the difference is divided; grey uses the first.
    pub std: [f32; 3],
}

impl Preprocess {
    /// How `image` and all of its kind become the input, `[channels, height, width]`, of a network that was made for
    /// images of `size`, `[height, width]`, with the shorter side resized to `resize` before the centre crop.
    ///
    /// Without `resize`, as networks for small images have it, they stay as they are: one that is smaller is put on a
    /// black canvas when it fits with a narrow border (MNIST's 28 on LeNet's 32), and scaled otherwise.
    pub fn for_network(
        [channels, height, width]: [usize; 3],
        size: [usize; 2],
        resize: Option<usize>,
        image: &Image,
    ) -> Self {
        let narrow = |side: usize, input: usize| (side..=side + 4).contains(&input);
        let fit = match resize {
            Some(shorter) => Fit::ResizeCrop { shorter: shorter * height.min(width) / size[0].min(size[1]) },
            None if narrow(image.height, height) && narrow(image.width, width) => Fit::Pad,
            None => Fit::Resize,
        };
        Self::new(channels, height, width, fit)
    }

    /// The mean of ImageNet's channels.
    pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
    /// The standard deviation of ImageNet's channels.
    pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

    /// A bilinear fit to `channels` × `height` × `width`, with values from 0 to 1.
    pub fn new(channels: usize, height: usize, width: usize, fit: Fit) -> Self {
        Self { channels, height, width, fit, filter: Filter::Bilinear, mean: [0.0; 3], std: [1.0; 3] }
    }

    /// What most ImageNet networks are evaluated with: the shorter side to 256, the middle 224 × 224, normalized by
    /// ImageNet's statistics.
    pub fn imagenet() -> Self {
        Self::new(3, 224, 224, Fit::ResizeCrop { shorter: 256 }).normalized(Self::IMAGENET_MEAN, Self::IMAGENET_STD)
    }

    /// The same, with `mean` subtracted and divided by `std`.
    pub fn normalized(self, mean: [f32; 3], std: [f32; 3]) -> Self {
        Self { mean, std, ..self }
    }

    /// The same, resizing with `filter`.
    pub fn with_filter(self, filter: Filter) -> Self {
        Self { filter, ..self }
    }

    /// The input's number of values: `channels * height * width`.
    pub fn len(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Whether the input has no values at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The network's input, `[channels, height, width]`, for `image`.
    pub fn apply(&self, image: &Image) -> Vec<f32> {
        let mut input = Vec::with_capacity(self.len());
        self.append(image, &mut input);
        input
    }

    /// Appends the network's input for `image` to a batch.
    pub fn append(&self, image: &Image, batch: &mut Vec<f32>) {
        self.normalize(&self.at_size(image), batch);
    }

    /// The ten crops of AlexNet's evaluation: the corners and the middle, and their mirror images, in torchvision's
    /// order. Where the resized image leaves no room to move about in, all crops show the same.
    pub fn ten_crops(&self, image: &Image) -> Vec<Vec<f32>> {
        let whole = self.roomy(image);
        let right = whole.width as isize - self.width as isize;
        let bottom = whole.height as isize - self.height as isize;
        let five = |image: &Image| {
            [(0, 0), (right, 0), (0, bottom), (right, bottom)]
                .map(|(left, top)| image.window(left, top, self.width, self.height))
                .into_iter()
                .chain([image.centre(self.width, self.height)])
                .collect::<Vec<_>>()
        };
        let mut crops = five(&whole);
        crops.extend(five(&whole.flip()));
        let input = |crop: &Image| {
            let mut input = Vec::with_capacity(self.len());
            self.normalize(crop, &mut input);
            input
        };
        crops.iter().map(input).collect()
    }

    /// The image resized, or fitted where that leaves less than the input's size.
    pub(crate) fn roomy<'a>(&self, image: &'a Image) -> Cow<'a, Image> {
        let whole = self.sized(image);
        let room = whole.width >= self.width && whole.height >= self.height;
        if room { whole } else { self.at_size(image) }
    }

    /// The image at the input's size, still as bytes.
    pub fn fitted(&self, image: &Image) -> Image {
        self.at_size(image).into_owned()
    }

    /// [`fitted`](Self::fitted), without a copy of an image that is so already.
    pub(crate) fn at_size<'a>(&self, image: &'a Image) -> Cow<'a, Image> {
        let image = self.sized(image);
        match (image.width, image.height) == (self.width, self.height) {
            true => image,
            false => Cow::Owned(image.centre(self.width, self.height)),
        }
    }

    /// Appends the values of an image of the input's size, planes first, divided by 255 and normalized.
    pub fn normalize(&self, image: &Image, batch: &mut Vec<f32>) {
        self.normalize_mirrored(image, false, batch);
    }

    /// [`normalize`](Self::normalize) for the image or its mirror image.
    pub(crate) fn normalize_mirrored(&self, image: &Image, mirrored: bool, batch: &mut Vec<f32>) {
        let start = batch.len();
        batch.resize(start + self.len(), 0.0);
        for (channel, plane) in batch[start..].chunks_exact_mut(self.width * self.height).enumerate() {
            let (mean, std) = (self.mean[channel.min(2)], self.std[channel.min(2)]);
            let values: [f32; 256] = std::array::from_fn(|byte| (byte as f32 / 255.0 - mean) / std);
            let channel = channel.min(image.channels - 1);
            let rows = image.pixels.chunks_exact(self.width * image.channels);
            for (out, row) in plane.chunks_exact_mut(self.width).zip(rows) {
                let row = row.chunks_exact(image.channels).map(|pixel| values[usize::from(pixel[channel])]);
                match mirrored {
                    false => out.iter_mut().zip(row).for_each(|(out, value)| *out = value),
                    true => out.iter_mut().rev().zip(row).for_each(|(out, value)| *out = value),
                }
            }
        }
    }

    /// The image in grey where the input is; grey images get their colours only with the values.
    pub(crate) fn coloured<'a>(&self, image: &'a Image) -> Cow<'a, Image> {
        if self.channels == 1 && image.channels == 3 { Cow::Owned(image.to_grey()) } else { Cow::Borrowed(image) }
    }

    /// The image resized, not yet cropped or padded; resizing it again changes nothing.
    pub fn resized(&self, image: &Image) -> Image {
        self.sized(image).into_owned()
    }

    /// [`resized`](Self::resized), without a copy of an image that has the size already.
    fn sized<'a>(&self, image: &'a Image) -> Cow<'a, Image> {
        let image = self.coloured(image);
        let (width, height) = match self.fit {
            Fit::Pad => return image,
            Fit::Resize => (self.width, self.height),
            Fit::ResizeCrop { shorter } => scaled(&image, shorter),
        };
        if (width, height) == (image.width, image.height) {
            return image;
        }
        match self.fit {
            Fit::ResizeCrop { shorter } if width.saturating_mul(height) > MOST_RESIZED_PIXELS => {
                let side = image.width.min(image.height);
                Cow::Owned(image.centre(side, side).resize(shorter, shorter, self.filter))
            }
            _ => Cow::Owned(image.resize(width, height, self.filter)),
        }
    }
}

/// The size that brings the shorter side to `shorter`; the longer one is truncated, as torchvision's.
fn scaled(image: &Image, shorter: usize) -> (usize, usize) {
    let long = |longest: usize, shortest: usize| shorter.saturating_mul(longest) / shortest;
    if image.width <= image.height {
        (shorter, long(image.height, image.width))
    } else {
        (long(image.width, image.height), shorter)
    }
}
