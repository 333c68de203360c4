//! An image as bytes, and the few geometric operations that networks' inputs are made with.

use fast_image_resize::images::{TypedImage, TypedImageRef};
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
        // Rows before columns, with bytes in between, is Pillow's order; the library's own is the other one.
        let rows_first = width.saturating_mul(self.height) <= MOST_INTERMEDIATE_PIXELS;
        let (w, h) = if rows_first { (width, self.height) } else { (self.width, height) };
        let halfway = self.resample(w, h, filter);
        let image = halfway.as_ref().unwrap_or(self);
        image.resample(width, height, filter).or(halfway).unwrap_or_else(|| self.clone())
    }

    /// The image at another size, or nothing where it has that size.
    fn resample(&self, width: usize, height: usize, filter: Filter) -> Option<Self> {
        if (width, height) == (self.width, self.height) {
            return None;
        }
        let mut pixels = vec![0; width * height * self.channels];
        // Pixel types by name: the library's choice at run time compiles every resizer it has, for a minute.
        match self.channels {
            3 => self.resample_into::<U8x3>(width, height, &mut pixels, filter),
            _ => self.resample_into::<U8>(width, height, &mut pixels, filter),
        }
        Some(Self { width, height, channels: self.channels, pixels })
    }

    /// [`resample`](Self::resample), for pixels of the type `P`.
    fn resample_into<P: PixelTrait>(&self, width: usize, height: usize, pixels: &mut [u8], filter: Filter) {
        let fits = "an image's bytes are width * height * channels";
        let source = TypedImageRef::<P>::from_buffer(side(self.width), side(self.height), &self.pixels).expect(fits);
        let mut target = TypedImage::<P>::from_buffer(side(width), side(height), pixels).expect(fits);
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
