//! Image files: JPEG, PNG, WebP, BMP, and the first frame of a GIF.

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};
use jpeg_decoder::PixelFormat;
use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::file;
use crate::image::Image;

/// The extensions of the files that [`load_image`] reads, in lower case.
pub const EXTENSIONS: &[&str] = &["jpg", "jpeg", "png", "webp", "bmp", "gif"];

/// The largest file that is read.
const MOST_BYTES: u64 = 256 << 20;

/// The largest image that is decoded: a little more than the largest cameras make, and half a gigabyte of colours.
const MOST_PIXELS: u64 = 1 << 27;

/// The most bytes that a PNG's colour profile and texts may take once they are decompressed. Profiles of displays and
/// printers have a few megabytes at most; a larger one is passed over.
const MOST_METADATA: u64 = 32 << 20;

/// The most scans of a progressive JPEG. Encoders write about ten; each costs a pass over the whole image, and takes
/// only a few bytes of the file.
const MOST_SCANS: usize = 100;

/// What to do with the orientation that a camera has noted in an image's EXIF data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Orientation {
    /// Turn and mirror the image as it says, so that it is upright: what people see.
    #[default]
    Apply,
    /// Leave the pixels as they are stored: what torchvision's and Pillow's loaders give.
    Ignore,
}

/// Reads the image file at `path`, upright. Errors name it.
pub fn load_image(path: &Path) -> Result<Image, DataError> {
    load_image_oriented(path, Orientation::Apply)
}

/// [`load_image`], with the camera's orientation applied or ignored.
pub fn load_image_oriented(path: &Path, orientation: Orientation) -> Result<Image, DataError> {
    decode_oriented(&file::read(path, MOST_BYTES)?, orientation).map_err(|error| named(error, path))
}

/// Reads the image file at `path` as [`decode_for_training`] does.
pub(crate) fn load_for_training(
    path: &Path,
    orientation: Orientation,
    shortest: Option<usize>,
) -> Result<Image, DataError> {
    decode_for_training(&file::read(path, MOST_BYTES)?, orientation, shortest).map_err(|error| named(error, path))
}

/// The error of an image's contents, with its file.
fn named(error: DataError, path: &Path) -> DataError {
    match error {
        DataError::Image { problem, .. } => DataError::Image { path: Some(path.to_path_buf()), problem },
        error => error,
    }
}

/// Decodes an image file's contents; the format is told by them. The camera's orientation is applied, transparency
/// dropped, and 16 bits cut to 8, as Pillow's `convert("RGB")` does; grey images keep their one channel.
pub fn decode(bytes: &[u8]) -> Result<Image, DataError> {
    decode_oriented(bytes, Orientation::Apply)
}

/// [`decode`], with the camera's orientation applied or ignored.
pub fn decode_oriented(bytes: &[u8], orientation: Orientation) -> Result<Image, DataError> {
    decode_by(bytes, orientation, Reading::AsLibjpeg)
}

/// [`decode_oriented`], by the quickest decoder: a JPEG's values differ by a few levels from the other's, and one whose
/// shorter side would still have `shortest` pixels is read at a half, a quarter or an eighth of its size.
pub fn decode_for_training(
    bytes: &[u8],
    orientation: Orientation,
    shortest: Option<usize>,
) -> Result<Image, DataError> {
    decode_by(bytes, orientation, Reading::Quickly { shortest })
}

/// How JPEGs are decoded.
#[derive(Clone, Copy)]
enum Reading {
    /// As near to libjpeg as there is a decoder for.
    AsLibjpeg,
    /// As quickly, perhaps at a part of the size that leaves the shorter side so long.
    Quickly { shortest: Option<usize> },
}

impl Reading {
    /// What an image's sides are divided by.
    fn divisor(self, width: u32, height: u32) -> u32 {
        let Self::Quickly { shortest: Some(shortest) } = self else { return 1 };
        let fits = |divisor: &u32| (width.min(height) / divisor) as usize >= shortest;
        [8, 4, 2].into_iter().find(fits).unwrap_or(1)
    }
}

fn decode_by(bytes: &[u8], orientation: Orientation, reading: Reading) -> Result<Image, DataError> {
    if bytes.starts_with(&[0xff, 0xd8]) {
        check_jpeg(bytes)?;
    }
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(problem)?;
    let Some(format) = reader.format() else {
        return Err(problem("it is not a JPEG, PNG, WebP, BMP or GIF file"));
    };
    let mut limits = Limits::no_limits();
    // The PNG decoder counts its metadata against this limit and not its pixels, the others their buffers of pixels.
    limits.max_alloc = Some(if format == ImageFormat::Png { MOST_METADATA } else { 8 * MOST_PIXELS });
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(problem)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MOST_PIXELS {
        return Err(problem(format!("{width} × {height} pixels are more than the {MOST_PIXELS} that are decoded")));
    }
    let turned = match orientation {
        Orientation::Apply => Some(decoder.orientation().map_err(problem)?),
        Orientation::Ignore => None,
    };
    let divisor = reading.divisor(width, height);
    let is_quick = matches!(reading, Reading::Quickly { .. }) && divisor == 1;
    let decoded = if format == ImageFormat::Jpeg && !is_quick { jpeg(bytes, divisor)? } else { None };
    let mut image = match decoded {
        Some(image) => image,
        None => match DynamicImage::from_decoder(decoder) {
            Ok(image) => image,
            // What one of the decoders refuses, the other may read.
            Err(error) if is_quick && format == ImageFormat::Jpeg => jpeg(bytes, 1)?.ok_or_else(|| problem(error))?,
            Err(error) => return Err(problem(error)),
        },
    };
    if let Some(orientation) = turned {
        image.apply_orientation(orientation);
    }

    let (width, height) = (image.width() as usize, image.height() as usize);
    let byte = |&value: &u8| value;
    let high_byte = |&value: &u16| (value >> 8) as u8;
    let (channels, pixels) = match &image {
        DynamicImage::ImageLuma8(image) => (1, image.as_raw().clone()),
        DynamicImage::ImageLumaA8(image) => (1, first(image, 1, 2, byte)),
        DynamicImage::ImageLuma16(image) => (1, first(image, 1, 1, high_byte)),
        DynamicImage::ImageLumaA16(image) => (1, first(image, 1, 2, high_byte)),
        DynamicImage::ImageRgba8(image) => (3, first(image, 3, 4, byte)),
        DynamicImage::ImageRgb16(image) => (3, first(image, 3, 3, high_byte)),
        DynamicImage::ImageRgba16(image) => (3, first(image, 3, 4, high_byte)),
        _ => (3, image.into_rgb8().into_raw()),
    };
    Image::new(width, height, channels, pixels).ok_or_else(|| problem("it has no pixels"))
}

/// A JPEG in red, green and blue, through the decoder that comes nearest to libjpeg, which networks are trained and
/// measured with: its values differ from libjpeg's in 9 of 100 places, the image crate's own in 20. Its sides are divided by 1,
/// 2, 4 or 8, which saves most of the work. Nothing for grey and inks.
fn jpeg(bytes: &[u8], divisor: u32) -> Result<Option<DynamicImage>, DataError> {
    let mut decoder = jpeg_decoder::Decoder::new(bytes);
    decoder.set_max_decoding_buffer_size(4 * MOST_PIXELS as usize);
    decoder.read_info().map_err(problem)?;
    let Some(info) = decoder.info().filter(|info| info.pixel_format == PixelFormat::RGB24) else { return Ok(None) };
    let part = |side: u16| (u32::from(side).div_ceil(divisor)) as u16;
    let (width, height) = decoder.scale(part(info.width), part(info.height)).map_err(problem)?;
    let pixels = decoder.decode().map_err(problem)?;
    let image = RgbImage::from_raw(u32::from(width), u32::from(height), pixels);
    Ok(image.map(DynamicImage::ImageRgb8))
}

/// The first `kept` of each `channels` values, as bytes.
fn first<T>(values: &[T], kept: usize, channels: usize, byte: impl Fn(&T) -> u8) -> Vec<u8> {
    values.chunks_exact(channels).flat_map(|pixel| &pixel[..kept]).map(byte).collect()
}

fn problem(problem: impl ToString) -> DataError {
    DataError::Image { path: None, problem: problem.to_string() }
}

/// Refuses a JPEG file that does not come to its end marker, since decoders fill up with grey what is missing, and one
/// of more scans than any encoder writes. The markers of thumbnails, inside other segments, do not count.
fn check_jpeg(bytes: &[u8]) -> Result<(), DataError> {
    let truncated = || problem("the file is truncated");
    let (mut at, mut scans) = (2, 0);
    while let Some(offset) = bytes.get(at..).and_then(|rest| rest.iter().position(|&byte| byte == 0xff)) {
        at += offset + 1;
        match bytes.get(at) {
            // The end.
            Some(0xd9) => return Ok(()),
            // Fill bytes: the marker is still to come.
            Some(0xff) => {}
            // An escaped 255 in the data, markers without contents.
            Some(0x00 | 0x01 | 0xd0..=0xd8) => at += 1,
            // A segment, by its length; compressed data follow some, and go on to the next marker.
            Some(&marker) => {
                scans += usize::from(marker == 0xda);
                if scans > MOST_SCANS {
                    return Err(problem(format!("it has more than the {MOST_SCANS} scans that are decoded")));
                }
                let Some(&[high, low]) = bytes.get(at + 1..at + 3) else {
                    return Err(truncated());
                };
                at += 1 + usize::from(u16::from_be_bytes([high, low]));
            }
            None => return Err(truncated()),
        }
    }
    Err(truncated())
}
