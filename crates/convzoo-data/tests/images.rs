//! Image files: every kind that is read, and what is refused.

#![allow(clippy::unwrap_used)] // also in helpers
#![allow(unsafe_code)] // to watch what is allocated

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::io::{Cursor, Write};

use common::{Noise, shared};
use convzoo_data::{
    DataError, Filter, Image, Orientation, decode, decode_for_training, decode_oriented, load_image,
    load_image_oriented,
};
use image::{DynamicImage, ImageBuffer, ImageFormat, Luma, LumaA, Rgb, Rgba};
use tempfile::TempDir;

/// The system's allocator, remembering the largest request of each thread.
struct Watch;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on as it is.
unsafe impl GlobalAlloc for Watch {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.set(LARGEST.get().max(layout.size()));
        unsafe { System.alloc(layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.set(LARGEST.get().max(size));
        unsafe { System.realloc(pointer, layout, size) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watch = Watch;

fn encode(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    image.into().write_to(&mut file, format).unwrap();
    file.into_inner()
}

/// 3 × 2 pixels: red, green, blue; white, black, orange.
fn colours() -> ImageBuffer<Rgb<u8>, Vec<u8>> {
    let pixels = vec![255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 255, 128, 0];
    ImageBuffer::from_raw(3, 2, pixels).unwrap()
}

/// A photograph-like JPEG: smooth, 64 × 48.
fn jpeg() -> Vec<u8> {
    encode(ImageBuffer::from_fn(64, 48, |x, y| Rgb([4 * x as u8, 5 * y as u8, (x + y) as u8])), ImageFormat::Jpeg)
}

fn problem(bytes: &[u8]) -> String {
    decode(bytes).unwrap_err().to_string()
}

#[test]
fn lossless_formats_keep_every_byte() {
    for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::WebP] {
        let image = decode(&encode(colours(), format)).unwrap();
        assert_eq!((image.width, image.height, image.channels), (3, 2, 3), "{format:?}");
        assert_eq!(image.pixels, colours().into_raw(), "{format:?}");
    }
    let gif = decode(&encode(DynamicImage::from(colours()).into_rgba8(), ImageFormat::Gif)).unwrap();
    assert_eq!(gif.pixels, colours().into_raw());
}

#[test]
fn grey_stays_grey_alpha_is_dropped_and_sixteen_bits_are_cut() {
    let decoded = |image: DynamicImage| {
        let Image { channels, pixels, .. } = decode(&encode(image, ImageFormat::Png)).unwrap();
        (channels, pixels)
    };
    let size = (1, 1);
    let raw = |channels, pixels: &[u8]| (channels, pixels.to_vec());
    assert_eq!(decoded(ImageBuffer::from_pixel(size.0, size.1, Luma([7u8])).into()), raw(1, &[7]));
    assert_eq!(decoded(ImageBuffer::from_pixel(1, 1, LumaA([7u8, 0])).into()), raw(1, &[7]));
    assert_eq!(decoded(ImageBuffer::from_pixel(1, 1, Rgba([1u8, 2, 3, 0])).into()), raw(3, &[1, 2, 3]));
    assert_eq!(decoded(ImageBuffer::from_pixel(1, 1, Luma([0x12ff_u16])).into()), raw(1, &[0x12]));
    assert_eq!(decoded(ImageBuffer::from_pixel(1, 1, LumaA([0x12ff_u16, 9])).into()), raw(1, &[0x12]));
    assert_eq!(
        decoded(ImageBuffer::from_pixel(1, 1, Rgb([0x12ff_u16, 0x3400, 0xffff])).into()),
        raw(3, &[0x12, 0x34, 0xff])
    );
    assert_eq!(
        decoded(ImageBuffer::from_pixel(1, 1, Rgba([0x0100_u16, 0x0200, 0x0300, 5])).into()),
        raw(3, &[1, 2, 3])
    );
}

#[test]
fn cmyk_jpegs_become_colours() {
    use jpeg_encoder::{ColorType, Encoder};
    // Cyan, magenta, yellow, black in the middle of uniform images: (ink, colour).
    for (cmyk, rgb) in [([255, 0, 0, 0], [0, 255, 255]), ([0, 255, 0, 0], [255, 0, 255]), ([0, 0, 0, 128], [127; 3])] {
        for kind in [ColorType::Cmyk, ColorType::CmykAsYcck] {
            let mut file = Vec::new();
            Encoder::new(&mut file, 100).encode(&cmyk.repeat(256), 16, 16, kind).unwrap();
            let image = decode(&file).unwrap();
            assert_eq!((image.width, image.channels), (16, 3));
            let middle = &image.pixels[(8 * 16 + 8) * 3..][..3];
            assert!(middle.iter().zip(rgb).all(|(a, b)| a.abs_diff(b) <= 3), "{kind:?} {cmyk:?}: {middle:?}");
        }
    }
}

/// [`jpeg`] by a camera that was turned.
fn turned_jpeg() -> Vec<u8> {
    // EXIF, big endian, one entry: orientation (0x112), a short, 6: rotate by 90 degrees.
    let exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let mut turned = jpeg();
    let length = (exif.len() as u16 + 2).to_be_bytes();
    turned.splice(2..2, [&[0xff, 0xe1], &length[..], exif].concat());
    turned
}

#[test]
fn the_cameras_orientation_is_applied() {
    let upright = decode(&jpeg()).unwrap();
    let turned = decode(&turned_jpeg()).unwrap();
    assert_eq!((turned.width, turned.height), (48, 64));
    // What was at the bottom left is at the top left.
    assert_eq!(turned.pixels[..3], upright.pixels[47 * 64 * 3..][..3]);
}

#[test]
fn the_cameras_orientation_is_ignored_on_request_as_torchvision_does() {
    let stored = decode(&jpeg()).unwrap();
    assert_eq!(decode_oriented(&turned_jpeg(), Orientation::Ignore).unwrap(), stored);
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a/turned.jpg");
    fs::create_dir(folder.path().join("a")).unwrap();
    fs::write(&path, turned_jpeg()).unwrap();
    assert_eq!(load_image_oriented(&path, Orientation::Ignore).unwrap(), stored);
    use convzoo_data::{Dataset, ImageFolder};
    let images = ImageFolder::open(folder.path()).unwrap();
    assert_eq!(images.get(0).unwrap().image.width, 48);
    assert_eq!(images.with_orientation(Orientation::Ignore).get(0).unwrap().image, stored);
}

#[test]
fn a_colour_profile_that_inflates_to_a_gigabyte_is_passed_over() {
    // The profile, a gigabyte of zeros, after the first chunk of a PNG.
    let mut profile = flate2::write::ZlibEncoder::new(b"icc\0\0".to_vec(), flate2::Compression::best());
    let zeros = vec![0; 1 << 20];
    (0..1024).for_each(|_| profile.write_all(&zeros).unwrap());
    let data = profile.finish().unwrap();
    let mut crc = flate2::Crc::new();
    crc.update(b"iCCP");
    crc.update(&data);
    let chunk = [&(data.len() as u32).to_be_bytes(), &b"iCCP"[..], &data, &crc.sum().to_be_bytes()].concat();
    let mut bomb = encode(colours(), ImageFormat::Png);
    bomb.splice(33..33, chunk);
    assert!(bomb.len() < 2 << 20);
    LARGEST.set(0);
    assert_eq!(decode(&bomb).unwrap().pixels, colours().into_raw());
    assert!(LARGEST.get() <= 64 << 20, "{} bytes were asked for at once", LARGEST.get());
}

#[test]
fn a_progressive_jpeg_of_thousands_of_scans_is_refused() {
    use jpeg_encoder::{ColorType, Encoder};
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, 80);
    encoder.set_progressive(true);
    encoder.encode(&vec![90; 64 * 64 * 3], 64, 64, ColorType::Rgb).unwrap();
    decode(&file).unwrap();
    // The last scan again and again, before the end marker.
    let last = file.windows(2).rposition(|pair| pair == [0xff, 0xda]).unwrap();
    let (head, scan) = (&file[..last], &file[last..file.len() - 2]);
    let start = std::time::Instant::now();
    let bomb = [head, &scan.repeat(20_000), &[0xff, 0xd9]].concat();
    assert!(problem(&bomb).contains("more than the 100 scans"), "{}", problem(&bomb));
    assert!(start.elapsed().as_secs() < 5, "{:.1?}", start.elapsed());
    let many = [head, &scan.repeat(80), &[0xff, 0xd9]].concat();
    assert_eq!(decode(&many).unwrap().width, 64);
}

/// The mean and the largest difference of two images' bytes.
fn difference(a: &Image, b: &Image) -> (f64, u8) {
    assert_eq!((a.width, a.height, a.channels), (b.width, b.height, b.channels));
    let differences: Vec<u8> = a.pixels.iter().zip(&b.pixels).map(|(a, b)| a.abs_diff(*b)).collect();
    let sum: u64 = differences.iter().map(|&difference| u64::from(difference)).sum();
    (sum as f64 / differences.len() as f64, differences.into_iter().max().unwrap())
}

#[test]
fn images_for_training_are_nearly_those_to_measure_and_smaller_where_they_may_be() {
    let wave = |at: f64| (127.0 + 120.0 * (at / 20.0).sin()) as u8;
    let photograph = ImageBuffer::from_fn(400, 240, |x, y| {
        let (x, y) = (f64::from(x), f64::from(y));
        Rgb([wave(x), wave(y), wave(x + y)])
    });
    let file = encode(photograph, ImageFormat::Jpeg);
    let exact = decode(&file).unwrap();
    let read = |shortest| decode_for_training(&file, Orientation::Apply, shortest).unwrap();
    for whole in [read(None), read(Some(121)), read(Some(1000))] {
        let (mean, most) = difference(&whole, &exact);
        assert!(mean < 1.5 && most < 12, "{mean} on average and up to {most} levels");
    }
    for (shortest, width, height) in
        [(120, 200, 120), (61, 200, 120), (60, 100, 60), (31, 100, 60), (30, 50, 30), (1, 50, 30)]
    {
        let part = read(Some(shortest));
        assert_eq!((part.width, part.height), (width, height), "for {shortest}");
        let (mean, _) = difference(&part, &exact.resize(width, height, Filter::Bilinear));
        assert!(mean < 4.0, "for {shortest}: {mean} levels on average");
    }
    // Turned after it is read, cut files refused, other formats as they are.
    let (turned, upright) = (turned_jpeg(), decode(&turned_jpeg()).unwrap());
    let read = decode_for_training(&turned, Orientation::Apply, None).unwrap();
    assert_eq!((read.width, read.height), (upright.width, upright.height));
    assert!(decode_for_training(&file[..file.len() / 2], Orientation::Apply, None).is_err());
    let png = encode(colours(), ImageFormat::Png);
    assert_eq!(decode_for_training(&png, Orientation::Apply, Some(1)).unwrap(), decode(&png).unwrap());
}

#[test]
fn truncated_files_are_refused() {
    let files = [
        jpeg(),
        encode(colours(), ImageFormat::Png),
        encode(colours(), ImageFormat::Bmp),
        encode(colours(), ImageFormat::WebP),
    ];
    for file in files {
        for length in 0..file.len() {
            // A PNG is complete before its last chunk, which says only that it ends; WebP may be padded.
            let spare = if file.starts_with(b"\x89PNG") {
                16
            } else if file.starts_with(b"RIFF") {
                1
            } else {
                0
            };
            assert!(decode(&file[..length]).is_err() || length + spare >= file.len(), "{length} of {}", file.len());
        }
    }
    assert!(problem(&jpeg()[..400]).contains("truncated"));
}

#[test]
fn sizes_are_checked_before_decoding() {
    // A BMP of 30,000 × 30,000 pixels, none of which are there.
    let mut bomb = encode(colours(), ImageFormat::Bmp);
    bomb[18..22].copy_from_slice(&30_000u32.to_le_bytes());
    bomb[22..26].copy_from_slice(&30_000u32.to_le_bytes());
    assert!(problem(&bomb).contains("30000 × 30000"), "{}", problem(&bomb));
    // A JPEG that says the same in its frame header.
    let mut bomb = jpeg();
    let frame = bomb.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    bomb[frame + 5..frame + 9].copy_from_slice(&[0x75, 0x30, 0x75, 0x30]);
    assert!(problem(&bomb).contains("30000 × 30000"), "{}", problem(&bomb));
}

#[test]
fn what_is_no_image_is_said_with_its_path() {
    assert!(problem(b"").contains("not a JPEG"));
    assert!(problem(b"hello, world").contains("not a JPEG"));
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("cat.jpg");
    fs::write(&path, &jpeg()[..300]).unwrap();
    let message = load_image(&path).unwrap_err().to_string();
    assert!(message.contains("cat.jpg") && message.contains("truncated"), "{message}");
    assert!(matches!(load_image(folder.path()), Err(DataError::Malformed { .. })));
    assert!(matches!(load_image(&folder.path().join("absent.png")), Err(DataError::Io { .. })));
}

#[test]
fn mutated_files_never_panic() {
    let gif = encode(DynamicImage::from(colours()).into_rgba8(), ImageFormat::Gif);
    let files = [
        jpeg(),
        encode(colours(), ImageFormat::Png),
        encode(colours(), ImageFormat::Bmp),
        encode(colours(), ImageFormat::WebP),
        gif,
    ];
    let rounds = std::env::var("CONVZOO_FUZZ").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(200);
    let mut noise = Noise(2);
    for file in files {
        for _ in 0..rounds {
            let mut mutant = file.clone();
            for _ in 0..=noise.below(6) {
                let position = noise.below(mutant.len());
                mutant[position] = noise.next() as u8;
            }
            mutant.truncate(mutant.len() - noise.below(2) * noise.below(mutant.len()));
            if let Ok(image) = decode(&mutant) {
                assert_eq!(image.pixels.len(), image.width * image.height * image.channels);
            }
        }
    }
}

#[test]
fn photographs_are_read() {
    let Some(photos) = shared("photos") else { return };
    let mut count = 0;
    for entry in fs::read_dir(photos).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "jpg") {
            let image = load_image(&path).unwrap();
            assert!(image.width >= 90 && image.height >= 90 && matches!(image.channels, 1 | 3), "{}", path.display());
            count += 1;
        }
    }
    assert_eq!(count, 20);
}
