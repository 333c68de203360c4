//! Folders of images, and CIFAR's batches.

#![allow(clippy::unwrap_used)] // also in helpers

mod common;

use std::fs;
use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use common::{Noise, gzip, shared};
use convzoo_data::{
    Cached, DataError, Dataset, Fit, ImageFolder, Part, Preprocess, Selection, Source, Splits, open, select,
};
use flate2::read::GzDecoder;
use tempfile::TempDir;

/// Empty image files at these places: enough to be counted.
fn tree(files: &[&str]) -> TempDir {
    let root = TempDir::new().unwrap();
    for file in files {
        write(&root.path().join(file), b"");
    }
    root
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn folder(root: &TempDir) -> Result<Splits, DataError> {
    open("folder", &Source::folder(root.path()))
}

/// Writes up to `limit` files of each folder in an archive of the shared data.
fn unpack(archive: &Path, target: &Path, limit: usize) {
    let mut counts = std::collections::HashMap::new();
    let mut archive = tar::Archive::new(GzDecoder::new(fs::File::open(archive).unwrap()));
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().into_owned();
        let count = counts.entry(path.parent().unwrap().to_path_buf()).or_insert(0);
        if entry.header().entry_type().is_file() && *count < limit {
            *count += 1;
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            write(&target.join(path), &bytes);
        }
    }
}

#[test]
fn train_and_test_folders_are_the_two_parts() {
    for test in ["test", "val"] {
        let files = ["train/b/1.PNG", "train/a/1.jpg", "train/a/deep/2.jpeg", "train/a/notes.txt", "train/.git/x.png"];
        let root = tree(&[&files[..], &[&format!("{test}/b/3.webp")]].concat());
        let splits = folder(&root).unwrap();
        assert_eq!((splits.train.len(), splits.test.len()), (3, 1));
        assert_eq!(splits.classes(), ["a", "b"]);
        assert_eq!((splits.train.label(0).unwrap(), splits.test.label(0).unwrap()), (0, 1));
        assert!(matches!(splits.train.get(3), Err(DataError::OutOfRange { index: 3, len: 3 })));
    }
}

#[test]
fn images_to_choose_by_are_the_folder_val_or_split_from_those_to_train_on() {
    let root = tree(&["train/a/1.png", "train/b/1.png", "val/a/1.png", "val/b/1.png", "test/a/1.png"]);
    let splits = folder(&root).unwrap();
    assert_eq!((splits.train.len(), splits.val.as_ref().unwrap().len(), splits.test.len()), (2, 2, 1));
    assert!(matches!(splits.hold_out(0.5, 0), Err(DataError::HasVal { .. })), "a second validation part");

    let names: Vec<String> = (0..30).map(|i| format!("train/{}/{i:02}.png", if i < 20 { "x" } else { "y" })).collect();
    let root = tree(&names.iter().map(String::as_str).chain(["test/x/1.png"]).collect::<Vec<_>>());
    let held_out = |share, seed| {
        let splits = folder(&root).unwrap().hold_out(share, seed).unwrap();
        let val = splits.val.clone().unwrap();
        let files = |data: &dyn Dataset| (0..data.len()).map(|i| data.file(i).unwrap().to_owned()).collect::<Vec<_>>();
        let (mut all, chosen) = (files(&*splits.train), files(&*val));
        all.extend(chosen.clone());
        all.sort();
        assert_eq!(all.len(), 30, "an image is in both parts, or in none");
        assert_eq!(splits.test.len(), 1);
        (chosen, (0..val.len()).filter(|&i| val.label(i).unwrap() == 0).count())
    };
    let (chosen, of_first_class) = held_out(0.1, 0);
    assert_eq!((chosen.len(), of_first_class), (3, 2), "a tenth of each class");
    assert_eq!(held_out(0.1, 0).0, chosen);
    assert_ne!(held_out(0.1, 1).0, chosen);
    for share in [0.0, 1.0, -0.5, f64::NAN, 1e-9] {
        assert!(matches!(folder(&root).unwrap().hold_out(share, 0), Err(DataError::Share { .. })), "{share}");
    }
}

#[test]
fn folders_of_classes_alone_are_split_in_proportion() {
    let names: Vec<String> = (0..30).map(|i| format!("{}/{i:02}.png", if i < 20 { "x" } else { "y" })).collect();
    let root = tree(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let splits = folder(&root).unwrap();
    assert_eq!((splits.train.len(), splits.test.len()), (24, 6));
    assert_eq!((0..6).filter(|&i| splits.test.label(i).unwrap() == 0).count(), 4);
    // The held-out images do not depend on anything but the seed.
    let held_out = |seed| {
        let splits = open("folder", &Source { split_seed: Some(seed), ..Source::folder(root.path()) }).unwrap();
        (0..6).map(|i| splits.test.get(i).unwrap_err().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(held_out(0), held_out(0));
    assert_ne!(held_out(0), held_out(1));
}

#[test]
fn parts_are_chosen_by_name() {
    let chosen = |root: &TempDir, part| {
        let Selection { data, which, held_out_of } = select("folder", &Source::folder(root.path()), part).unwrap();
        (data.len(), data.classes().len(), which, held_out_of)
    };
    let part = |images, classes, which: &str| (images, classes, which.to_owned(), None);
    let root =
        tree(&["train/a/1.png", "train/a/2.png", "train/b/1.png", "val/b/1.png", "test/a/1.png", "test/b/2.png"]);
    assert_eq!(chosen(&root, Part::All), part(6, 2, "all images"));
    assert_eq!(chosen(&root, Part::Train), part(3, 2, "training images"));
    assert_eq!(chosen(&root, Part::Val), part(1, 2, "validation images"));
    assert_eq!(chosen(&root, Part::Test), part(2, 2, "test images"));
    let all = select("folder", &Source::folder(root.path()), Part::All).unwrap().data;
    let labels: Vec<_> = (0..6).map(|index| all.label(index).unwrap()).collect();
    assert_eq!((labels, all.file(3).unwrap()), (vec![0, 0, 1, 1, 0, 1], &*root.path().join("val/b/1.png")));
    assert!(matches!(all.get(6), Err(DataError::OutOfRange { index: 6, len: 6 })));

    // Images to test on need none to train on, nor all the classes.
    let root = tree(&["test/b/1.png"]);
    assert_eq!(chosen(&root, Part::Test), part(1, 1, "test images"));
    assert!(folder(&root).unwrap_err().to_string().contains("none to train on"), "{:?}", folder(&root));
    assert!(select("folder", &Source::folder(root.path()), Part::Val).is_err());

    // A folder in one part says which of its images it gives; a class may be called `test`.
    let names = ["test", "other"].map(|class| (0..5).map(|i| format!("{class}/{i}.png")).collect::<Vec<_>>()).concat();
    let root = tree(&names.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(chosen(&root, Part::All), part(10, 2, "all images"));
    assert_eq!(chosen(&root, Part::Test), (2, 2, "the fifth held out for testing by seed 0".to_owned(), Some(10)));
    assert_eq!(chosen(&root, Part::Train).0, 8);
}

#[test]
fn what_a_folder_lacks_is_said() {
    let message = |root: &TempDir| folder(root).unwrap_err().to_string();
    assert!(message(&tree(&[])).contains("no folders"));
    assert!(message(&tree(&["Dataset/0/a.png", "Dataset/1/a.png"])).contains("is the data in"));
    assert!(message(&tree(&["a/1.png", "b/1.txt"])).contains("b holds no images"));
    assert!(message(&tree(&["a/1.png", "b/1.png"])).contains("too few"));
    assert!(message(&tree(&["train/a/1.png", "test/c/1.png"])).contains("`c` is not one of the classes a"));
    assert!(matches!(open("folder", &Source::default()), Err(DataError::NoDataDir { .. })));
    assert!(matches!(open("folder", &Source::folder("/no/such/folder")), Err(DataError::MissingFolder { .. })));
}

#[test]
fn the_hand_signs_are_read_and_split() {
    let Some(archive) = shared("sign-digits.tar.gz") else { return };
    let root = TempDir::new().unwrap();
    unpack(&archive, root.path(), usize::MAX);
    let splits = open("folder", &Source::folder(root.path().join("Dataset"))).unwrap();
    assert_eq!((splits.train.len() + splits.test.len(), splits.classes().len()), (2062, 10));
    assert!((405..=418).contains(&splits.test.len()), "{}", splits.test.len());
    let sample = splits.test.get(0).unwrap();
    assert_eq!((sample.image.width, sample.image.height, sample.image.channels, sample.label), (100, 100, 3, 0));
}

#[test]
fn cifar10_is_read_from_folders_of_images() {
    let Some(archive) = shared("cifar10-jpeg.tar.gz") else { return };
    let root = TempDir::new().unwrap();
    unpack(&archive, root.path(), 3);
    let splits = open("cifar10", &Source::folder(root.path())).unwrap();
    assert_eq!((splits.train.len(), splits.test.len()), (30, 30));
    assert_eq!((splits.classes()[0].as_str(), splits.classes()[9].as_str()), ("airplane", "truck"));
    let sample = splits.test.get(29).unwrap();
    assert_eq!((sample.image.width, sample.image.height, sample.image.channels, sample.label), (32, 32, 3, 9));

    // The labels stay CIFAR's own where a class is absent.
    fs::remove_dir_all(root.path().join("test/airplane")).unwrap();
    assert_eq!(open("cifar10", &Source::folder(root.path())).unwrap().test.label(0).unwrap(), 1);
}

const TRAIN: [&str; 5] =
    ["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"];

/// Two images of a class, as a batch has them, after `before`.
fn batch(before: &[u8], label: u8) -> Vec<u8> {
    let image: Vec<u8> = [[1; 1024], [2; 1024], [3; 1024]].concat();
    [before, &[label], &image, before, &[label], &image].concat()
}

#[test]
fn cifar10_is_read_from_batches_and_from_their_archive() {
    let mut files: Vec<(&str, Vec<u8>)> =
        TRAIN.iter().zip(0..).map(|(&name, label)| (name, batch(&[], label))).collect();
    files.push(("test_batch.bin", batch(&[], 9)));
    let roots = [TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap()];
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in &files {
        write(&roots[0].path().join(name), bytes);
        write(&roots[1].path().join("cifar-10-batches-bin").join(name), bytes);
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, format!("cifar-10-batches-bin/{name}"), Cursor::new(bytes)).unwrap();
    }
    write(&roots[2].path().join("cifar-10-binary.tar.gz"), &gzip(&archive.into_inner().unwrap()));
    for root in &roots {
        let splits = open("cifar10", &Source::folder(root.path())).unwrap();
        assert_eq!((splits.train.len(), splits.test.len()), (10, 2));
        let sample = splits.train.get(9).unwrap();
        assert_eq!((sample.label, &sample.image.pixels[..6]), (4, &[1, 2, 3, 1, 2, 3][..]));
    }
}

#[test]
fn cifar100_takes_the_fine_labels() {
    let root = TempDir::new().unwrap();
    write(&root.path().join("train.bin"), &batch(&[4], 99));
    write(&root.path().join("test.bin"), &batch(&[200], 0));
    let splits = open("cifar100", &Source::folder(root.path())).unwrap();
    assert_eq!((splits.train.label(0).unwrap(), splits.test.label(1).unwrap()), (99, 0));
    assert_eq!((splits.classes().len(), splits.classes()[99].as_str()), (100, "worm"));
    assert!(splits.classes().is_sorted());
}

#[test]
fn broken_batches_are_errors() {
    let fails = |files: &[(&str, &[u8])]| {
        let root = TempDir::new().unwrap();
        files.iter().for_each(|(name, bytes)| write(&root.path().join(name), bytes));
        open("cifar10", &Source::folder(root.path())).unwrap_err()
    };
    let good = batch(&[], 0);
    assert!(matches!(fails(&[("test_batch.bin", b"")]), DataError::Empty { .. }));
    for length in [1, 3072, 3074, good.len() - 1] {
        assert!(matches!(fails(&[("test_batch.bin", &good[..length])]), DataError::Malformed { .. }));
    }
    assert!(matches!(fails(&[("test_batch.bin", &batch(&[], 10))]), DataError::LabelOutOfRange { label: 10, .. }));
    assert!(matches!(fails(&[("data_batch_1.bin", &good)]), DataError::MissingFiles { .. }));
    assert!(fails(&[]).to_string().contains("train/CLASS"));

    let mut header = tar::Header::new_gnu();
    header.set_size(good.len() as u64);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, "test_batch.bin", Cursor::new(&good)).unwrap();
    let archive = gzip(&archive.into_inner().unwrap());
    let mut noise = Noise(3);
    for _ in 0..300 {
        let mut mutant = archive.clone();
        let position = noise.below(mutant.len());
        mutant[position] ^= 1 << noise.below(8);
        mutant.truncate(mutant.len() - noise.below(2) * noise.below(mutant.len()));
        let root = TempDir::new().unwrap();
        write(&root.path().join("cifar-10-binary.tar.gz"), &mutant);
        let _ = open("cifar10", &Source::folder(root.path()));
    }
}

#[test]
fn a_cache_reads_each_image_once_while_there_is_room() {
    let root = TempDir::new().unwrap();
    for (i, name) in ["a/1.png", "a/2.png", "b/1.png"].iter().enumerate() {
        fs::create_dir_all(root.path().join(name).parent().unwrap()).unwrap();
        image::GrayImage::from_pixel(4, 4, image::Luma([i as u8])).save(root.path().join(name)).unwrap();
    }
    let cached = Cached::new(Arc::new(ImageFolder::open(root.path()).unwrap()), 2 * 16 + 15);
    let values = || (0..3).map(|i| cached.get(i).map(|sample| sample.image.pixels[0]).ok()).collect::<Vec<_>>();
    assert_eq!(values(), [Some(0), Some(1), Some(2)]);
    fs::remove_dir_all(root.path()).unwrap();
    assert_eq!(values(), [Some(0), Some(1), None]);
    assert!(cached.get(3).is_err());
}

#[test]
fn damaged_images_are_left_out_by_choice_and_named() {
    let root = TempDir::new().unwrap();
    for name in ["train/a/1.png", "train/a/2.png", "train/b/1.png", "test/a/1.png"] {
        fs::create_dir_all(root.path().join(name).parent().unwrap()).unwrap();
        image::GrayImage::from_pixel(4, 4, image::Luma([9])).save(root.path().join(name)).unwrap();
    }
    write(&root.path().join("train/a/3.jpg"), b"no image");
    write(&root.path().join("test/b/2.png"), b"");
    let splits = folder(&root).unwrap();
    assert!(splits.train.get(2).unwrap_err().to_string().contains("3.jpg"));
    let (splits, damaged) = splits.readable().unwrap();
    assert_eq!((splits.train.len(), splits.test.len()), (3, 1));
    assert_eq!((0..3).map(|i| splits.train.get(i).unwrap().label).collect::<Vec<_>>(), [0, 0, 1]);
    let told: Vec<String> = damaged.iter().map(ToString::to_string).collect();
    assert!(told.len() == 2 && told[0].contains("3.jpg") && told[1].contains("2.png"), "{told:?}");

    fs::remove_file(root.path().join("test/a/1.png")).unwrap();
    write(&root.path().join("test/a/1.png"), b"nor this");
    let told = folder(&root).unwrap().readable().unwrap_err().to_string();
    assert!(told.contains("none of the 2 images"), "{told}");
}

#[cfg(unix)]
#[test]
fn links_to_nowhere_and_forbidden_files_are_left_out_by_choice_and_named() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let root = TempDir::new().unwrap();
    for name in ["train/a/1.png", "train/b/1.png", "test/a/1.png"] {
        fs::create_dir_all(root.path().join(name).parent().unwrap()).unwrap();
        image::GrayImage::from_pixel(4, 4, image::Luma([9])).save(root.path().join(name)).unwrap();
    }
    symlink("nowhere.png", root.path().join("train/a/2.png")).unwrap();
    symlink("nowhere.txt", root.path().join("train/a/notes.txt")).unwrap();
    symlink(".", root.path().join("train/b/round")).unwrap();
    let strict = folder(&root).unwrap_err().to_string();
    assert!(strict.contains("2.png"), "{strict}");

    let closed = root.path().join("test/a/2.png");
    fs::copy(root.path().join("test/a/1.png"), &closed).unwrap();
    fs::set_permissions(&closed, PermissionsExt::from_mode(0o000)).unwrap();
    // Whoever may read everything, as in most containers, is not kept from this file either.
    let forbidden = fs::File::open(&closed).is_err();
    let source = Source { keep_unreadable: true, ..Source::folder(root.path()) };
    let (splits, damaged) = open("folder", &source).unwrap().readable().unwrap();
    assert_eq!((splits.train.len(), splits.test.len()), (2, if forbidden { 1 } else { 2 }));
    let told: Vec<String> = damaged.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), if forbidden { 3 } else { 2 }, "{told:?}");
    assert!(told[0].contains("cannot open") && told[0].contains("train/a/2.png"), "{told:?}");
    assert!(told[1].contains("train/b/round"), "{told:?}");
}

#[cfg(unix)]
#[test]
fn names_that_are_no_unicode_are_classes_and_images() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let root = TempDir::new().unwrap();
    for class in [&b"gr\xfcn"[..], b"blau", b"gr\xfdn"] {
        let folder = root.path().join(OsStr::from_bytes(class));
        fs::create_dir(&folder).unwrap();
        for image in [&b"1\xff.png"[..], b"2.png"] {
            let image = folder.join(OsStr::from_bytes(image));
            image::GrayImage::from_pixel(4, 4, image::Luma([9])).save(image).unwrap();
        }
    }
    let images = ImageFolder::open(root.path()).unwrap();
    assert_eq!(images.classes(), ["blau", r"gr\xfcn", r"gr\xfdn"]);
    assert_eq!(images.len(), 6);
    assert!((0..6).all(|index| images.get(index).unwrap().label == index / 2));
    let message = DataError::Empty { path: OsStr::from_bytes(b"a\x1b[2J\n\xff").into() }.to_string();
    assert_eq!(message, r"a\u{1b}[2J\n\xff holds no images");
}

#[test]
fn a_cache_of_resized_images_changes_no_input() {
    let root = TempDir::new().unwrap();
    fs::create_dir_all(root.path().join("a")).unwrap();
    let photo = image::RgbImage::from_fn(60, 40, |x, y| image::Rgb([(x * 4) as u8, (y * 6) as u8, (x * y) as u8]));
    photo.save(root.path().join("a/1.png")).unwrap();
    let images: Arc<dyn Dataset> = Arc::new(ImageFolder::open(root.path()).unwrap());
    let plain = images.get(0).unwrap().image;
    for fit in [Fit::Resize, Fit::Pad, Fit::ResizeCrop { shorter: 20 }] {
        for channels in [1, 3] {
            let preprocess = Preprocess::new(channels, 16, 16, fit);
            let cached = Cached::new(Arc::clone(&images), 1 << 20).resized(preprocess.clone());
            for _ in 0..2 {
                let image = cached.get(0).unwrap().image;
                assert_eq!(preprocess.apply(&image), preprocess.apply(&plain), "{fit:?}");
                assert_eq!(image, preprocess.resized(&plain), "{fit:?}");
            }
        }
    }
}
