//! Image files: JPEG, PNG, WebP, BMP, and the first frame of a GIF.

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};
use jpeg_decoder::PixelFormat;

use crate::error::DataError;
use crate::file;
use crate::image::Image;

/// The extensions of the files that [`load_image`] reads, in lower case.
pub const EXTENSIONS: &[&str] = &["jpg", "jpeg", "png", "webp", "bmp", "gif"];

/// The largest file that is read.
const MOST_BYTES: u64 = 256 << 20;

/// The largest image that is decoded: a little more than the largest cameras make, and half a gigabyte of colours.
const MOST_PIXELS: u64 = 1 << 27;

/// Reads the image file at `path`. Errors name it.
pub fn load_image(path: &Path) -> Result<Image, DataError> {
    decode(&file::read(path, MOST_BYTES)?).map_err(|error| match error {
        DataError::Image { problem, .. } => DataError::Image { path: Some(path.to_path_buf()), problem },
        error => error,
    })
}

/// Decodes an image file's contents; the format is told by them. The camera's orientation is applied, transparency
/// dropped, and 16 bits cut to 8, as Pillow's `convert("RGB")` does; grey images keep their one channel.
pub fn decode(bytes: &[u8]) -> Result<Image, DataError> {
    if bytes.starts_with(&[0xff, 0xd8]) && !jpeg_ends(bytes) {
        // The decoder would fill up with grey, and nobody would notice.
        return Err(problem("the file is truncated"));
    }
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(problem)?;
    let Some(format) = reader.format() else {
        return Err(problem("it is not a JPEG, PNG, WebP, BMP or GIF file"));
    };
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(8 * MOST_PIXELS);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(problem)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MOST_PIXELS {
        return Err(problem(format!("{width} × {height} pixels are more than the {MOST_PIXELS} that are decoded")));
    }
    let orientation = decoder.orientation().map_err(problem)?;
    let jpeg = if format == ImageFormat::Jpeg { jpeg(bytes)? } else { None };
    let mut image = match jpeg {
        Some(image) => image,
        None => DynamicImage::from_decoder(decoder).map_err(problem)?,
    };
    image.apply_orientation(orientation);

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
/// measured with: its values differ from libjpeg's in 9 of 100 places, the image crate's own in 20. Nothing for grey
/// and inks.
fn jpeg(bytes: &[u8]) -> Result<Option<DynamicImage>, DataError> {
    let mut decoder = jpeg_decoder::Decoder::new(bytes);
    decoder.set_max_decoding_buffer_size(4 * MOST_PIXELS as usize);
    decoder.read_info().map_err(problem)?;
    let Some(info) = decoder.info().filter(|info| info.pixel_format == PixelFormat::RGB24) else { return Ok(None) };
    let pixels = decoder.decode().map_err(problem)?;
    let image = RgbImage::from_raw(u32::from(info.width), u32::from(info.height), pixels);
    Ok(image.map(DynamicImage::ImageRgb8))
}

/// The first `kept` of each `channels` values, as bytes.
fn first<T>(values: &[T], kept: usize, channels: usize, byte: impl Fn(&T) -> u8) -> Vec<u8> {
    values.chunks_exact(channels).flat_map(|pixel| &pixel[..kept]).map(byte).collect()
}

fn problem(problem: impl ToString) -> DataError {
    DataError::Image { path: None, problem: problem.to_string() }
}

/// Whether a JPEG file comes to its end marker. Those of thumbnails, inside other segments, do not count.
fn jpeg_ends(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(offset) = bytes.get(at..).and_then(|rest| rest.iter().position(|&byte| byte == 0xff)) {
        at += offset + 1;
        match bytes.get(at) {
            // The end.
            Some(0xd9) => return true,
            // Fill bytes: the marker is still to come.
            Some(0xff) => {}
            // An escaped 255 in the data, markers without contents.
            Some(0x00 | 0x01 | 0xd0..=0xd8) => at += 1,
            // A segment, by its length; compressed data follow some, and go on to the next marker.
            Some(_) => {
                let Some(&[high, low]) = bytes.get(at + 1..at + 3) else {
                    return false;
                };
                at += 1 + usize::from(u16::from_be_bytes([high, low]));
            }
            None => return false,
        }
    }
    false
}
