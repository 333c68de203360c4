//! MNIST's files: every way they come in, and every way they can be broken.

#![allow(clippy::unwrap_used)] // also in helpers

mod common;

use std::fs;
use std::path::Path;

use common::{Noise, gzip, idx, shared};
use convzoo_data::{DataError, Source, Splits, open};
use tempfile::TempDir;

const IMAGES: &str = "t10k-images-idx3-ubyte";
const LABELS: &str = "t10k-labels-idx1-ubyte";

/// Ten 3 × 2 images, labelled 0 to 9.
fn images() -> Vec<u8> {
    idx(&[10, 3, 2], &(0..60).collect::<Vec<u8>>())
}

fn labels() -> Vec<u8> {
    idx(&[10], &(0..10).collect::<Vec<u8>>())
}

/// A folder with these files.
fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, bytes) in files {
        fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

fn mnist(folder: &Path) -> Result<Splits, DataError> {
    open("mnist", &Source::folder(folder))
}

/// What `open` says of a test part in these two files.
fn broken(images: &[u8], labels: &[u8]) -> DataError {
    let folder = folder(&[(IMAGES, images), (LABELS, labels)]);
    mnist(folder.path()).unwrap_err()
}

#[test]
fn the_published_test_part_is_split_8000_to_2000_in_file_order() {
    let Some(data) = shared("mnist-t10k") else {
        return;
    };
    let splits = mnist(&data).unwrap();
    assert_eq!((splits.train.len(), splits.test.len(), splits.classes().len()), (8_000, 2_000, 10));
    let first: Vec<usize> = (0..10).map(|i| splits.train.label(i).unwrap()).collect();
    assert_eq!(first, [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]);
    let image = splits.train.get(0).unwrap().image;
    assert_eq!((image.width, image.height, image.channels), (28, 28, 1));
    // A seven: a bar across the top, one stroke at the bottom.
    assert!(image.pixels[7 * 28 + 6] > 80 && image.pixels[26 * 28 + 20] == 0);
    assert_eq!(splits.test.label(1_999).unwrap(), 6);
}

#[test]
fn a_seed_shuffles_the_split_of_a_single_part() {
    let folder = folder(&[(IMAGES, &images()), (LABELS, &labels())]);
    let source = Source { split_seed: Some(1), ..Source::folder(folder.path()) };
    let held_out = |splits: &Splits| (0..2).map(|i| splits.test.label(i).unwrap()).collect::<Vec<_>>();
    assert_eq!(held_out(&mnist(folder.path()).unwrap()), [8, 9]);
    let shuffled = open("mnist", &source).unwrap();
    assert_ne!(held_out(&shuffled), [8, 9]);
    assert_eq!(held_out(&shuffled), held_out(&open("mnist", &source).unwrap()));
}

#[test]
fn files_are_found_by_every_usual_name_and_told_apart_by_content() {
    let (images, labels) = (images(), labels());
    let (images_gz, labels_gz) = (gzip(&images), gzip(&labels));
    for [(images, images_name), (labels, labels_name)] in [
        [(&images, "t10k-images-idx3-ubyte"), (&labels, "t10k-labels-idx1-ubyte")],
        [(&images_gz, "t10k-images-idx3-ubyte.gz"), (&labels_gz, "t10k-labels-idx1-ubyte.gz")],
        [(&images_gz, "t10k-images.idx3-ubyte"), (&labels, "t10k-labels.idx1-ubyte.gz")],
        [(&images, "MNIST/raw/t10k-images-idx3-ubyte"), (&labels, "MNIST/raw/t10k-labels-idx1-ubyte")],
    ] {
        let folder = folder(&[(images_name, images), (labels_name, labels)]);
        let sample = mnist(folder.path()).unwrap().train.get(1).unwrap();
        assert_eq!((sample.label, sample.image.pixels), (1, vec![6, 7, 8, 9, 10, 11]), "{images_name}");
        assert_eq!((sample.image.width, sample.image.height), (2, 3));
    }
}

#[test]
fn both_parts_are_used_where_both_are_there() {
    let (images, labels) = (images(), labels());
    let names = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"];
    let folder = folder(&[(names[0], &images), (names[1], &labels), (IMAGES, &images), (LABELS, &labels)]);
    let splits = open("fashion-mnist", &Source::folder(folder.path())).unwrap();
    assert_eq!((splits.train.len(), splits.test.len()), (10, 10));
    assert_eq!(splits.classes()[9], "Ankle boot");
}

#[test]
fn what_is_missing_is_named() {
    let empty = TempDir::new().unwrap();
    let message = mnist(empty.path()).unwrap_err().to_string();
    for name in ["train-images-idx3-ubyte", "t10k-labels.idx1-ubyte.gz"] {
        assert!(message.contains(name), "{message}");
    }
    let half = folder(&[(IMAGES, &images())]);
    let message = mnist(half.path()).unwrap_err().to_string();
    assert!(message.contains(LABELS) && !message.contains("images-idx3"), "{message}");

    let absent = empty.path().join("absent");
    assert!(matches!(mnist(&absent), Err(DataError::MissingFolder { path }) if path == absent));
}

#[test]
fn contradictions_are_errors() {
    let (images, labels) = (images(), labels());
    let other_count = idx(&[9], &[0; 9]);
    assert!(matches!(broken(&images, &other_count), DataError::CountMismatch { image_count: 10, label_count: 9, .. }));
    let eleventh = idx(&[10], &[0, 0, 0, 10, 0, 0, 0, 0, 0, 0]);
    assert!(matches!(broken(&images, &eleventh), DataError::LabelOutOfRange { index: 3, label: 10, classes: 10, .. }));
    assert!(matches!(broken(&idx(&[0, 3, 2], &[]), &idx(&[0], &[])), DataError::Empty { .. }));
    assert!(broken(&idx(&[10, 0, 2], &[]), &labels).to_string().contains("no pixels"));
    assert!(broken(&labels, &images).to_string().contains("these are labels"));
    assert!(matches!(broken(&idx(&[1, 1, 1], &[0]), &idx(&[1], &[0])), DataError::TooFew { images: 1, .. }));
}

#[test]
fn headers_that_lie_about_sizes_are_refused_without_believing_them() {
    let data: Vec<u8> = (0..60).collect();
    for dims in [[u32::MAX; 3], [u32::MAX, 1, 1], [11, 3, 2], [9, 3, 2], [10, 28, 28], [1 << 20, 28, 28]] {
        let lying = idx(&dims, &data);
        for images in [lying.clone(), gzip(&lying)] {
            let error = broken(&images, &labels());
            assert!(matches!(error, DataError::Malformed { .. }), "{dims:?}: {error}");
            assert!(error.to_string().contains("header promises"), "{error}");
        }
    }
}

#[test]
fn truncation_at_every_byte_is_an_error() {
    let (images, labels) = (images(), labels());
    for (whole, gzipped) in [(images.clone(), false), (gzip(&images), true)] {
        for length in 0..whole.len() {
            let error = broken(&whole[..length], &labels);
            let expected =
                matches!(error, DataError::Malformed { .. }) || gzipped && matches!(error, DataError::Gzip { .. });
            assert!(expected, "{length} bytes: {error}");
            assert!(error.to_string().contains(IMAGES), "{error}");
        }
    }
}

#[test]
fn bit_flips_never_panic_and_compressed_ones_never_alter_images() {
    let mut noise = Noise(1);
    let whole = gzip(&images());
    let folder = folder(&[(LABELS, &labels()), (IMAGES, &whole)]);
    let pixels = |splits: &Splits| (0..8).map(|i| splits.train.get(i).unwrap().image).collect::<Vec<_>>();
    let original = pixels(&mnist(folder.path()).unwrap());
    for _ in 0..500 {
        let mut mutant = whole.clone();
        let position = noise.below(mutant.len());
        mutant[position] ^= 1 << noise.below(8);
        fs::write(folder.path().join(IMAGES), &mutant).unwrap();
        // Some bits, such as those of the header's time, mean nothing.
        if let Ok(splits) = mnist(folder.path()) {
            assert_eq!(pixels(&splits), original, "bit flip in byte {position}");
        }
    }
    for _ in 0..500 {
        let mut mutant = images();
        for _ in 0..=noise.below(4) {
            let position = noise.below(mutant.len());
            mutant[position] = noise.next() as u8;
        }
        fs::write(folder.path().join(IMAGES), &mutant).unwrap();
        if let Ok(splits) = mnist(folder.path()) {
            assert_eq!(splits.train.len() + splits.test.len(), 10);
        }
    }
}

#[test]
fn trailing_bytes_are_an_error() {
    let mut long = images();
    long.push(0);
    assert!(broken(&long, &labels()).to_string().contains("it holds more"));
    let mut garbage = gzip(&images());
    garbage.extend(b"garbage");
    assert!(matches!(broken(&garbage, &labels()), DataError::Gzip { .. }));
}

#[test]
fn offline_says_which_files_to_put_where() {
    let cache = TempDir::new().unwrap();
    let source = Source { offline: true, cache_dir: Some(cache.path().into()), ..Source::default() };
    let message = open("mnist", &source).unwrap_err().to_string();
    let folder = cache.path().join("mnist");
    for part in [folder.to_str().unwrap(), "train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(fs::read_dir(cache.path()).unwrap().next().is_none(), "nothing is left behind");
}

#[test]
fn unknown_names_suggest_the_nearest() {
    let error = open("fashion_mnist", &Source::default()).unwrap_err();
    assert!(matches!(error, DataError::Unknown { nearest: Some("fashion-mnist"), .. }));
    let message = open("imagenet", &Source::default()).unwrap_err().to_string();
    assert!(message.contains("digits, mnist") && !message.contains("did you mean"), "{message}");
}
