//! Augmentation: each image is changed at random in every epoch.

use std::borrow::Cow;

use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::image::Image;
use crate::operation::Operation;
use crate::preprocess::Preprocess;

/// What is done to training images, each field under torchvision's name for it; the default does nothing.
///
/// The order is that of the fields. Geometry and colours change bytes, as torchvision changes Pillow images, with what
/// is uncovered black and bilinear interpolation throughout; then comes what [`Preprocess`] does, and erasing last.
///
/// ```
/// use convzoo_data::{Augment, Fit, Image, Preprocess};
/// let cifar = Augment { random_crop: Some(4), random_horizontal_flip: 0.5, ..Augment::default() };
/// let image = Image::new(32, 32, 3, vec![200; 32 * 32 * 3]).unwrap();
/// let preprocess = Preprocess::new(3, 32, 32, Fit::Resize);
/// let view = cifar.view(&image, &preprocess, 7);
/// assert_eq!(view.len(), preprocess.len());
/// assert_eq!(view, cifar.view(&image, &preprocess, 7));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augment {
    /// Cuts out this share of the image's area or more, with sides of 3:4 to 4:3, and resizes it to the input; 0.08 for
    /// ImageNet. Takes the place of resizing and of `random_crop`.
    pub random_resized_crop: Option<f64>,
    /// Surrounds the resized image with this many black pixels and cuts the input out anywhere: 4 for CIFAR, 2 for
    /// shifts of up to two pixels, 0 for AlexNet's 227 of 256.
    pub random_crop: Option<usize>,
    /// Probability of a horizontal flip.
    pub random_horizontal_flip: f64,
    /// Flips each image horizontally in every other epoch, those of [`View::odd_turn`], in place of flips by chance: two
    /// epochs in a row show each image both ways ([Jordan, 2024](https://arxiv.org/abs/2404.00498), section 3.6).
    pub alternating_flip: bool,
    /// Rotates by up to this many degrees either way.
    pub random_rotation: f64,
    /// One of fourteen operations at a strength, both by chance
    /// ([Müller and Hutter, 2021](https://arxiv.org/abs/2103.10158)): `TrivialAugmentWide`.
    pub trivial_augment: bool,
    /// Some of fourteen operations ([Cubuk et al., 2020](https://arxiv.org/abs/1909.13719)).
    pub rand_augment: Option<RandAugment>,
    /// Changes to brightness, contrast, saturation and hue, in an order by chance.
    pub color_jitter: ColorJitter,
    /// Standard deviation of the noise along the principal components of ImageNet's colours, 0.1 for AlexNet
    /// ([Krizhevsky et al., 2012](https://papers.nips.cc/paper/2012/hash/c399862d3b9d6b76c8436e924a68c45b-Abstract.html)).
    pub pca_lighting: f64,
    /// Probability of erasing a rectangle of 2 to 33% of the input, to the mean colour
    /// ([Zhong et al., 2017](https://arxiv.org/abs/1708.04896)).
    pub random_erasing: f64,
}

/// Which of an image's views is meant; a seed alone is a view of an even turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// What the view's random numbers begin with.
    pub seed: u64,
    /// Whether the image has its odd turn, in which [`Augment::alternating_flip`] flips it.
    pub odd_turn: bool,
}

impl From<u64> for View {
    fn from(seed: u64) -> Self {
        Self { seed, odd_turn: false }
    }
}

/// How many operations, and how strong.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandAugment {
    /// Operations, one after another.
    pub operations: usize,
    /// Their strength, 0 to 30.
    pub magnitude: usize,
}

impl Default for RandAugment {
    fn default() -> Self {
        Self { operations: 2, magnitude: 9 }
    }
}

/// How far colours may change: by factors of 1 − x to 1 + x, the hue by −x to x of the colour circle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ColorJitter {
    /// Of all values.
    pub brightness: f64,
    /// Of differences from the mean grey.
    pub contrast: f64,
    /// Of differences from a pixel's own grey.
    pub saturation: f64,
    /// At most a half.
    pub hue: f64,
}

/// Strengths that the policies know, weakest and strongest included.
const STRENGTHS: usize = 31;

/// Attempts to find a rectangle of a random area and shape within the image.
const ATTEMPTS: usize = 10;

/// Standard deviations of ImageNet's colours along their principal components, and those components, of red, green and
/// blue from 0 to 1.
const COLOR_DEVIATIONS: [f64; 3] = [0.2175, 0.0188, 0.0045];
const COLOR_COMPONENTS: [[f64; 3]; 3] =
    [[-0.5675, -0.5808, -0.5836], [0.7192, -0.0045, -0.6948], [0.4009, -0.8140, 0.4203]];

impl Augment {
    /// Whether it does nothing.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Refuses what makes no sense.
    pub fn check(&self) -> Result<(), DataError> {
        let jitter = self.color_jitter;
        let between = |field, value: f64, least: f64, most: f64| {
            let refuse = |expected| Err(DataError::Augment { field, value: value.to_string(), expected });
            if (least..=most).contains(&value) { Ok(()) } else { refuse(format!("from {least} to {most}")) }
        };
        if let Some(share) = self.random_resized_crop {
            between("random_resized_crop", share, 0.001, 1.0)?;
        }
        if let Some(padding) = self.random_crop {
            between("random_crop", padding as f64, 0.0, 1024.0)?;
        }
        if let Some(RandAugment { operations, magnitude }) = self.rand_augment {
            between("rand_augment.operations", operations as f64, 1.0, 14.0)?;
            between("rand_augment.magnitude", magnitude as f64, 0.0, (STRENGTHS - 1) as f64)?;
        }
        for (field, value, most) in [
            ("random_horizontal_flip", self.random_horizontal_flip, 1.0),
            ("random_rotation", self.random_rotation, 180.0),
            ("color_jitter.brightness", jitter.brightness, 10.0),
            ("color_jitter.contrast", jitter.contrast, 10.0),
            ("color_jitter.saturation", jitter.saturation, 10.0),
            ("color_jitter.hue", jitter.hue, 0.5),
            ("pca_lighting", self.pca_lighting, 10.0),
            ("random_erasing", self.random_erasing, 1.0),
        ] {
            between(field, value, 0.0, most)?;
        }
        if self.alternating_flip && self.random_horizontal_flip > 0.0 {
            let expected = "false where random_horizontal_flip is above 0: images flip one way or the other".to_owned();
            return Err(DataError::Augment { field: "alternating_flip", value: true.to_string(), expected });
        }
        Ok(())
    }

    /// The network's input, `[channels, height, width]`, for one view of `image`: always the same one for a seed and a
    /// turn.
    pub fn view(&self, image: &Image, preprocess: &Preprocess, view: impl Into<View>) -> Vec<f32> {
        let mut input = Vec::with_capacity(preprocess.len());
        self.append(image, preprocess, view, &mut input);
        input
    }

    /// Appends a [`view`](Self::view) to a batch.
    pub fn append(&self, image: &Image, preprocess: &Preprocess, view: impl Into<View>, batch: &mut Vec<f32>) {
        let View { seed, odd_turn } = view.into();
        let chance = &mut Chance(ChaCha8Rng::seed_from_u64(seed));
        let start = batch.len();
        let (image, mirrored) = self.bytes(image, preprocess, odd_turn, chance);
        preprocess.normalize_mirrored(&image, mirrored, batch);
        if chance.happens(self.random_erasing) {
            erase(&mut batch[start..], preprocess, chance);
        }
    }

    /// What the shorter side of a photograph needs for its crops to be no smaller than the input: larger ones may be read at a
    /// part of their size. Nothing where no part is cut out and resized.
    pub fn shortest_side(&self, preprocess: &Preprocess) -> Option<usize> {
        let longer = preprocess.width.max(preprocess.height) as f64;
        // The smallest crop of a square, as thin as any.
        let smallest = |share: f64| (share * 3.0 / 4.0).sqrt();
        self.random_resized_crop.map(|share| (longer / smallest(share)).ceil() as usize)
    }

    /// The image at the input's size, augmented as far as bytes are, and whether its mirror image is meant.
    fn bytes<'a>(
        &self,
        image: &'a Image,
        preprocess: &Preprocess,
        odd_turn: bool,
        chance: &mut Chance,
    ) -> (Cow<'a, Image>, bool) {
        let mut image = match (self.random_resized_crop, self.random_crop) {
            (Some(least), _) => match preprocess.coloured(image) {
                Cow::Borrowed(image) => Cow::Owned(random_resized_crop(image, least, preprocess, chance)),
                Cow::Owned(image) => Cow::Owned(random_resized_crop(&image, least, preprocess, chance)),
            },
            (None, Some(padding)) => Cow::Owned(random_crop(&preprocess.roomy(image), padding, preprocess, chance)),
            (None, None) => preprocess.at_size(image),
        };
        let mirrored = chance.happens(self.random_horizontal_flip) || self.alternating_flip && odd_turn;
        if self.keeps_places() {
            return (image, mirrored);
        }
        if mirrored {
            image = Cow::Owned(image.flip());
        }
        if self.random_rotation > 0.0 {
            image = Cow::Owned(Operation::Rotate(chance.up_to(self.random_rotation)).apply(&image));
        }
        let policies = [
            self.trivial_augment.then(|| trivial_augment(chance)).map(|operation| vec![operation]),
            self.rand_augment.map(|policy| policy.operations(&image, chance)),
            Some(self.color_jitter.operations(chance)),
        ];
        for operation in policies.into_iter().flatten().flatten() {
            image = Cow::Owned(operation.apply(&image));
        }
        if self.pca_lighting > 0.0 && image.channels == 3 {
            light(image.to_mut(), self.pca_lighting, chance);
        }
        (image, false)
    }

    /// Whether nothing follows the flip that changes bytes.
    fn keeps_places(&self) -> bool {
        let policies =
            self.trivial_augment || self.rand_augment.is_some() || self.color_jitter != ColorJitter::default();
        self.random_rotation == 0.0 && !policies && self.pca_lighting == 0.0
    }
}

impl RandAugment {
    fn operations(self, image: &Image, chance: &mut Chance) -> Vec<Operation> {
        let shift = 150.0 / 331.0;
        let range = Range {
            shear: 0.3,
            translate: [shift * image.width as f64, shift * image.height as f64],
            rotate: 30.0,
            factor: 0.9,
            bits: 4.0,
        };
        (0..self.operations).map(|_| range.operation(self.magnitude, chance)).collect()
    }
}

/// One operation of torchvision's wide space.
fn trivial_augment(chance: &mut Chance) -> Operation {
    let range = Range { shear: 0.99, translate: [32.0; 2], rotate: 135.0, factor: 0.99, bits: 6.0 };
    let strength = chance.below(STRENGTHS);
    range.operation(strength, chance)
}

/// The strongest that a policy knows of each operation.
struct Range {
    shear: f64,
    translate: [f64; 2],
    rotate: f64,
    factor: f64,
    /// Cut off by posterizing.
    bits: f64,
}

impl Range {
    /// Any of the operations, at a strength below [`STRENGTHS`].
    fn operation(&self, strength: usize, chance: &mut Chance) -> Operation {
        let share = strength as f64 / (STRENGTHS - 1) as f64;
        let which = chance.below(14);
        let sign = if chance.happens(0.5) { -1.0 } else { 1.0 };
        let signed = |most: f64| sign * share * most;
        match which {
            0 => Operation::Identity,
            1 => Operation::ShearX(signed(self.shear)),
            2 => Operation::ShearY(signed(self.shear)),
            3 => Operation::TranslateX(signed(self.translate[0])),
            4 => Operation::TranslateY(signed(self.translate[1])),
            5 => Operation::Rotate(signed(self.rotate)),
            6 => Operation::Brightness(1.0 + signed(self.factor)),
            7 => Operation::Color(1.0 + signed(self.factor)),
            8 => Operation::Contrast(1.0 + signed(self.factor)),
            9 => Operation::Sharpness(1.0 + signed(self.factor)),
            10 => Operation::Posterize(8 - (share * self.bits).round_ties_even() as u32),
            11 => Operation::Solarize(255.0 * (1.0 - share)),
            12 => Operation::AutoContrast,
            _ => Operation::Equalize,
        }
    }
}

impl ColorJitter {
    fn operations(self, chance: &mut Chance) -> Vec<Operation> {
        let mut factor = |x: f64| (x > 0.0).then(|| chance.between((1.0 - x).max(0.0), 1.0 + x));
        let mut operations: Vec<_> = [
            factor(self.brightness).map(Operation::Brightness),
            factor(self.contrast).map(Operation::Contrast),
            factor(self.saturation).map(Operation::Color),
            (self.hue > 0.0).then(|| Operation::Hue(chance.up_to(self.hue))),
        ]
        .into_iter()
        .flatten()
        .collect();
        operations.shuffle(&mut chance.0);
        operations
    }
}

fn random_crop(image: &Image, padding: usize, preprocess: &Preprocess, chance: &mut Chance) -> Image {
    let &Preprocess { width, height, .. } = preprocess;
    let mut start =
        |whole: usize, part: usize| chance.below(whole + 2 * padding - part + 1) as isize - padding as isize;
    let (left, top) = (start(image.width, width), start(image.height, height));
    image.window(left, top, width, height)
}

fn random_resized_crop(image: &Image, least: f64, preprocess: &Preprocess, chance: &mut Chance) -> Image {
    let (width, height) = (image.width, image.height);
    let (size, filter) = ([preprocess.width, preprocess.height], preprocess.filter);
    match rectangle([width, height], [least, 1.0], [3.0 / 4.0, 4.0 / 3.0], chance) {
        Some(part) => image.part_resized(part, size, filter),
        None => {
            // The middle, as much of it as is not too long.
            let longest = |shorter: usize| (shorter as f64 * 4.0 / 3.0).round() as usize;
            let middle = image.centre(width.min(longest(height)), height.min(longest(width)));
            middle.resize(size[0], size[1], filter)
        }
    }
}

/// A rectangle `[left, top, width, height]` in one of `[width, height]`, of some share of its area and some ratio of
/// width to height.
fn rectangle([width, height]: [usize; 2], area: [f64; 2], ratio: [f64; 2], chance: &mut Chance) -> Option<[usize; 4]> {
    (0..ATTEMPTS).find_map(|_| {
        let area = (width * height) as f64 * chance.between(area[0], area[1]);
        let ratio = chance.between(ratio[0].ln(), ratio[1].ln()).exp();
        let [w, h] = [(area * ratio).sqrt(), (area / ratio).sqrt()].map(|side| side.round() as usize);
        let fits = (1..=width).contains(&w) && (1..=height).contains(&h);
        fits.then(|| [chance.below(width - w + 1), chance.below(height - h + 1), w, h])
    })
}

/// Zero, the mean colour, in a rectangle of normalized planes.
fn erase(planes: &mut [f32], preprocess: &Preprocess, chance: &mut Chance) {
    let &Preprocess { width, height, .. } = preprocess;
    let Some([left, top, w, h]) = rectangle([width, height], [0.02, 0.33], [0.3, 3.3], chance) else { return };
    for plane in planes.chunks_exact_mut(width * height) {
        plane.chunks_exact_mut(width).skip(top).take(h).for_each(|row| row[left..left + w].fill(0.0));
    }
}

/// One colour added to all pixels, likelier where ImageNet's differ more.
fn light(image: &mut Image, deviation: f64, chance: &mut Chance) {
    let mut color = [0.0; 3];
    for (component, size) in COLOR_COMPONENTS.iter().zip(COLOR_DEVIATIONS) {
        let amount = 255.0 * deviation * size * chance.normal();
        color.iter_mut().zip(component).for_each(|(color, share)| *color += amount * share);
    }
    for pixel in image.pixels.chunks_exact_mut(3) {
        pixel.iter_mut().zip(color).for_each(|(value, color)| *value = (f64::from(*value) + color).round() as u8);
    }
}

/// The random numbers of one view.
struct Chance(ChaCha8Rng);

impl Chance {
    fn happens(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.0.random_bool(probability)
    }

    fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }

    fn between(&mut self, least: f64, most: f64) -> f64 {
        self.0.random_range(least..=most)
    }

    fn up_to(&mut self, most: f64) -> f64 {
        self.between(-most, most)
    }

    /// Of mean 0 and deviation 1, by Box and Muller.
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.0.random::<f64>()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.0.random::<f64>()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preprocess::Fit;

    fn chance() -> Chance {
        Chance(ChaCha8Rng::seed_from_u64(3))
    }

    /// An image that tells each of its pixels apart from black and from the others.
    fn numbered(width: usize, height: usize) -> Image {
        Image::new(width, height, 1, (1..=(width * height) as u8).collect()).unwrap()
    }

    #[test]
    fn crops_reach_every_place_and_bring_black_in() {
        let image = numbered(5, 4);
        let preprocess = Preprocess::new(1, 4, 5, Fit::Resize);
        let mut chance = chance();
        let crops: std::collections::HashSet<_> =
            (0..500).map(|_| random_crop(&image, 1, &preprocess, &mut chance).pixels).collect();
        assert_eq!(crops.len(), 9, "three places each way");
        assert!(crops.contains(&image.pixels));
        assert!(crops.iter().any(|crop| crop[..5] == [0; 5]), "no crop has black above");
    }

    #[test]
    fn resized_crops_keep_to_area_and_shape() {
        let mut chance = chance();
        let mut areas = Vec::new();
        for _ in 0..2000 {
            let [left, top, width, height] =
                rectangle([100, 80], [0.08, 1.0], [0.75, 4.0 / 3.0], &mut chance).unwrap_or([0, 0, 100, 80]);
            assert!(left + width <= 100 && top + height <= 80);
            let ratio = width as f64 / height as f64;
            assert!((0.7..=1.4).contains(&ratio), "{width} × {height}");
            areas.push((width * height) as f64 / 8000.0);
        }
        let least = areas.iter().copied().fold(1.0, f64::min);
        let most = areas.iter().copied().fold(0.0, f64::max);
        assert!((0.07..0.1).contains(&least) && most > 0.9, "areas from {least} to {most}");
        // Nothing of that shape fits a thin image: its middle is taken.
        let thin = numbered(1, 100);
        let crop = random_resized_crop(&thin, 0.5, &Preprocess::new(1, 1, 1, Fit::Resize), &mut chance);
        assert_eq!(crop.pixels.len(), 1);
    }

    #[test]
    fn strengths_of_the_policies_are_torchvisions() {
        let range = Range { shear: 0.99, translate: [32.0; 2], rotate: 135.0, factor: 0.99, bits: 6.0 };
        let mut chance = chance();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..500 {
            let operation = range.operation(STRENGTHS - 1, &mut chance);
            let strongest = match operation {
                Operation::ShearX(x) | Operation::ShearY(x) => x.abs() == 0.99,
                Operation::TranslateX(x) | Operation::TranslateY(x) => x.abs() == 32.0,
                Operation::Rotate(x) => x.abs() == 135.0,
                Operation::Brightness(x) | Operation::Color(x) | Operation::Contrast(x) | Operation::Sharpness(x) => {
                    ((x - 1.0).abs() - 0.99).abs() < 1e-9
                }
                Operation::Posterize(bits) => bits == 2,
                Operation::Solarize(threshold) => threshold == 0.0,
                Operation::Identity | Operation::AutoContrast | Operation::Equalize => true,
                Operation::Hue(_) => false,
            };
            assert!(strongest, "{operation:?}");
            seen.insert(format!("{operation:?}").split('(').next().unwrap().to_owned());
        }
        assert_eq!(seen.len(), 14, "{seen:?}");
        let weakest = range.operation(0, &mut chance);
        let image = numbered(7, 5);
        if !matches!(weakest, Operation::AutoContrast | Operation::Equalize) {
            assert_eq!(weakest.apply(&image), image, "{weakest:?}");
        }
    }

    #[test]
    fn light_is_one_colour_of_the_right_size() {
        let grey = Image::new(2, 1, 3, vec![128; 6]).unwrap();
        let mut chance = chance();
        let mut squares = [0.0; 3];
        for _ in 0..2000 {
            let mut image = grey.clone();
            light(&mut image, 0.1, &mut chance);
            assert_eq!(image.pixels[..3], image.pixels[3..]);
            squares.iter_mut().zip(&image.pixels).for_each(|(sum, &value)| *sum += (f64::from(value) - 128.0).powi(2));
        }
        for (channel, sum) in squares.into_iter().enumerate() {
            let variance: f64 =
                (0..3).map(|i| (25.5 * COLOR_DEVIATIONS[i] * COLOR_COMPONENTS[i][channel]).powi(2)).sum();
            // Rounding to bytes adds a twelfth.
            let expected = (variance + 1.0 / 12.0).sqrt();
            let deviation = (sum / 2000.0).sqrt();
            assert!((deviation - expected).abs() < 0.15 * expected, "channel {channel}: {deviation}, not {expected}");
        }
    }
}
