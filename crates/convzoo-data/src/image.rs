//! An image as bytes, and the few geometric operations that networks' inputs are made with.

use std::cell::RefCell;

use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8, U8x3};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};

/// An image as bytes, rows first, channels interleaved: `pixels[(y * width + x) * channels + c]`.
///
/// Its methods panic where the fields contradict each other; [`Image::new`] makes only images whose fields agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Columns, at least 1.
    pub width: usize,
    /// Rows, at least 1.
    pub height: usize,
    /// 1 (grey) or 3 (red, green, blue).
    pub channels: usize,
    /// `height * width * channels` bytes.
    pub pixels: Vec<u8>,
}

/// Resizing takes columns first where rows first would pass through more pixels than this: images so thin that no
/// network has a use for them, which must not take gigabytes all the same.
const MOST_INTERMEDIATE_PIXELS: usize = 1 << 28;

/// The most bytes of a half resized image that a thread keeps room for.
const MOST_KEPT_BYTES: usize = 8 << 20;

thread_local! {
    /// Room for an image that is resized in one direction, used again for the next.
    static HALFWAY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The interpolation of a resized image. Both are widened when shrinking, as Pillow's and torchvision's
/// antialiased filters are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Filter {
    /// Bilinear: a triangle over the neighbouring pixels.
    #[default]
    Bilinear,
    /// Bicubic: the Catmull-Rom cubic (a = −0.5), Pillow's `BICUBIC`.
    Bicubic,
}

impl Image {
    /// An image of `pixels`, or nothing where their number, the sides or the channels cannot be.
    pub fn new(width: usize, height: usize, channels: usize, pixels: Vec<u8>) -> Option<Self> {
        let bytes = width.checked_mul(height)?.checked_mul(channels)?;
        let sides_fit = u32::try_from(width).is_ok() && u32::try_from(height).is_ok();
        (matches!(channels, 1 | 3) && bytes > 0 && bytes == pixels.len() && sides_fit).then_some(Self {
            width,
            height,
            channels,
            pixels,
        })
    }

    /// The image stretched or squeezed to exactly `width` × `height`.
    pub fn resize(&self, width: usize, height: usize, filter: Filter) -> Self {
        self.part_resized([0, 0, self.width, self.height], [width, height], filter)
    }

    /// A part of the image, `[left, top, width, height]` within it, stretched or squeezed to a size, `[width, height]`: what
    /// [`resize`](Self::resize) makes of its [`window`](Self::window).
    ///
    /// # Panics
    ///
    /// Where the part has no pixels, or leaves the image.
    pub fn part_resized(&self, part: [usize; 4], size: [usize; 2], filter: Filter) -> Self {
        let ([left, top, part_width, part_height], [width, height]) = (part, size);
        if [part_width, part_height] == size {
            return self.window(left as isize, top as isize, width, height);
        }
        // Rows before columns, with bytes in between, is Pillow's order; the library's own is the other one.
        let rows_first = width.saturating_mul(part_height) <= MOST_INTERMEDIATE_PIXELS;
        let [w, h] = if rows_first { [width, part_height] } else { [part_width, height] };
        let mut pixels = vec![0; width * height * self.channels];
        if [w, h] == size || [w, h] == [part_width, part_height] {
            self.resample(part, size, &mut pixels, filter);
        } else {
            HALFWAY.with_borrow_mut(|halfway| {
                let mut bytes = std::mem::take(halfway);
                bytes.resize(w * h * self.channels, 0);
                self.resample(part, [w, h], &mut bytes, filter);
                let image = Self { width: w, height: h, channels: self.channels, pixels: bytes };
                image.resample([0, 0, w, h], size, &mut pixels, filter);
                if image.pixels.capacity() <= MOST_KEPT_BYTES {
                    *halfway = image.pixels;
                }
            });
        }
        Self { width, height, channels: self.channels, pixels }
    }

    /// Writes a part of the image into `pixels` at another size.
    fn resample(&self, part: [usize; 4], size: [usize; 2], pixels: &mut [u8], filter: Filter) {
        // Pixel types by name: the library's choice at run time compiles every resizer it has, for a minute.
        match self.channels {
            3 => self.resample_into::<U8x3>(part, size, pixels, filter),
            _ => self.resample_into::<U8>(part, size, pixels, filter),
        }
    }

    /// [`resample`](Self::resample), for pixels of the type `P`.
    fn resample_into<P: PixelTrait>(&self, part: [usize; 4], size: [usize; 2], pixels: &mut [u8], filter: Filter) {
        let fits = "an image's bytes are width * height * channels";
        let source = TypedImageRef::<P>::from_buffer(side(self.width), side(self.height), &self.pixels).expect(fits);
        let [left, top, width, height] = part.map(side);
        let source = TypedCroppedImage::from_ref(&source, left, top, width, height).expect("the part is in the image");
        let [width, height] = size.map(side);
        let mut target = TypedImage::<P>::from_buffer(width, height, pixels).expect(fits);
        let filter = match filter {
            Filter::Bilinear => FilterType::Bilinear,
            Filter::Bicubic => FilterType::CatmullRom,
        };
        Resizer::new()
            .resize_typed(&source, &mut target, &ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)))
            .expect("the whole source is resized, so that no crop leaves it");
    }

    /// The middle `width` × `height` of the image, with black beyond its edges; odd margins round as torchvision's.
    pub fn centre(&self, width: usize, height: usize) -> Self {
        self.window(margin(self.width, width), margin(self.height, height), width, height)
    }

    /// The `width` × `height` pixels whose top left corner is (`left`, `top`), with black beyond the image's edges.
    pub fn window(&self, left: isize, top: isize, width: usize, height: usize) -> Self {
        let channels = self.channels;
        let mut pixels = vec![0; width * height * channels];
        // The columns that both share: from `from` in the image, to `to` in the window.
        let (from, to) = (left.max(0) as usize, left.min(0).unsigned_abs());
        let shared = self.width.saturating_sub(from).min(width.saturating_sub(to)) * channels;
        for y in 0..height {
            let Some(row) = y.checked_add_signed(top).filter(|&row| row < self.height) else {
                continue;
            };
            if shared > 0 {
                let source = (row * self.width + from) * channels;
                let target = (y * width + to) * channels;
                pixels[target..target + shared].copy_from_slice(&self.pixels[source..source + shared]);
            }
        }
        Self { width, height, channels, pixels }
    }

    /// The image mirrored left to right.
    pub fn flip(&self) -> Self {
        let mut pixels = Vec::with_capacity(self.pixels.len());
        for row in self.pixels.chunks_exact(self.width * self.channels) {
            row.rchunks_exact(self.channels).for_each(|pixel| pixels.extend_from_slice(pixel));
        }
        Self { pixels, ..*self }
    }

    /// The image in grey, by Pillow's weights (ITU-R 601-2, in 16-bit fixed point).
    pub fn to_grey(&self) -> Self {
        if self.channels == 1 {
            return self.clone();
        }
        let grey = |p: &[u8]| {
            let sum = 19_595 * u32::from(p[0]) + 38_470 * u32::from(p[1]) + 7_471 * u32::from(p[2]);
            ((sum + 0x8000) >> 16) as u8
        };
        Self { channels: 1, pixels: self.pixels.chunks_exact(3).map(grey).collect(), ..*self }
    }

    /// The image with three channels; a grey one repeats its only one.
    pub fn to_rgb(&self) -> Self {
        if self.channels == 3 {
            return self.clone();
        }
        Self { channels: 3, pixels: self.pixels.iter().flat_map(|&v| [v; 3]).collect(), ..*self }
    }
}

/// Where a window of `inner` pixels starts in `outer` to be in its middle: negative where the window is larger.
fn margin(outer: usize, inner: usize) -> isize {
    if outer >= inner {
        // torchvision crops from Python's `round(difference / 2)`, which rounds halves to even …
        ((outer - inner) as f64 / 2.0).round_ties_even() as isize
    } else {
        // … and pads by the whole half.
        -(((inner - outer) / 2) as isize)
    }
}

fn side(pixels: usize) -> u32 {
    u32::try_from(pixels).expect("an image's sides fit 32 bits")
}
