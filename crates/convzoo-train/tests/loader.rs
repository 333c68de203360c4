//! The batches that networks are trained and measured with.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::sync::Arc;

use burn::data::dataloader::DataLoader;
use burn::tensor::Device;
use convzoo_data::{Augment, ColorJitter, Dataset, Fit, InMemory, Preprocess, Source, open};
use convzoo_train::{Batch, Loader, Mix};

fn digits() -> Arc<dyn Dataset> {
    open("digits", &Source::default()).unwrap().train
}

fn preprocess() -> Preprocess {
    Preprocess::new(1, 16, 16, Fit::Resize)
}

fn augment() -> Augment {
    Augment {
        random_crop: Some(2),
        random_horizontal_flip: 0.5,
        random_rotation: 10.0,
        color_jitter: ColorJitter { brightness: 0.3, ..ColorJitter::default() },
        random_erasing: 0.2,
        ..Augment::default()
    }
}

fn loader(seed: u64, epoch: usize) -> Loader {
    let mix = Mix { mixup: 0.5, cutmix: 1.0 };
    Loader::new(digits(), preprocess(), 100, &Device::flex()).shuffled(seed, epoch).augmented(augment(), mix)
}

/// A batch's images, classes, the classes they are mixed with, and their share.
type Values = (Vec<f32>, Vec<i64>, Vec<i64>, f64);

/// Images, targets, partners and their own shares of one epoch.
fn epoch(loader: &dyn DataLoader<Batch>) -> Vec<Values> {
    let batch = |batch: Batch| {
        let mixed = batch.mixed.unwrap();
        (
            batch.images.try_into_vec_as().unwrap(),
            batch.targets.try_into_vec_as().unwrap(),
            mixed.targets.try_into_vec_as().unwrap(),
            mixed.own_share,
        )
    };
    loader.iter().map(|item| batch(item.unwrap())).collect()
}

#[test]
fn the_seed_makes_the_batches_whatever_the_number_of_threads() {
    let one = epoch(&loader(1, 1).with_workers(1));
    assert_eq!(one.len(), 15);
    for workers in [2, 3, 7, 40] {
        assert!(epoch(&loader(1, 1).with_workers(workers)) == one, "{workers} threads make other batches");
    }
    let whole = loader(1, 1);
    assert!(epoch(&whole) == one);
    let second = epoch(&whole);
    assert!(second != one, "the second epoch repeats the first");
    assert!(epoch(&loader(1, 2)) == second, "a run that resumes in the second epoch gets other batches");
    assert!(epoch(&loader(2, 1)) != one, "another seed makes the same batches");
}

#[test]
fn every_image_comes_once_an_epoch() {
    // Images that say their index in their two pixels.
    let pixels = (0..300u16).flat_map(u16::to_be_bytes).collect();
    let data = InMemory::new((2, 1, 1), pixels, vec![0; 300], vec!["only".to_owned()]).unwrap();
    let loader = Loader::new(Arc::new(data), Preprocess::new(1, 1, 2, Fit::Resize), 64, &Device::flex()).shuffled(5, 1);
    let images = loader.iter().flat_map(|batch| batch.unwrap().images.try_into_vec_as::<f32>().unwrap());
    let bytes: Vec<usize> = images.map(|value| (value * 255.0).round() as usize).collect();
    let mut seen: Vec<usize> = bytes.chunks(2).map(|pair| pair[0] * 256 + pair[1]).collect();
    assert_ne!(seen, (0..300).collect::<Vec<_>>(), "the images are not shuffled");
    seen.sort_unstable();
    assert_eq!(seen, (0..300).collect::<Vec<_>>());
}

#[test]
fn images_are_mirrored_in_every_other_epoch_half_of_them_in_the_first() {
    // Two pixels and an own class tell an image from its mirror image and from the others.
    let count = 200;
    let classes = (0..count).map(|class| class.to_string()).collect();
    let data = InMemory::new((2, 1, 1), [0, 255].repeat(count), (0..count as u8).collect(), classes);
    let data: Arc<dyn Dataset> = Arc::new(data.unwrap());
    let flips = Augment { alternating_flip: true, ..Augment::default() };
    let from = |seed, epoch| {
        let loader = Loader::new(Arc::clone(&data), Preprocess::new(1, 1, 2, Fit::Resize), 64, &Device::flex());
        loader.shuffled(seed, epoch).augmented(flips.clone(), Mix::default())
    };
    // Of each image in its own order, whether it comes mirrored.
    let mirrored = |loader: &Loader| {
        let mut mirrored = vec![None; count];
        for batch in loader.iter() {
            let batch = batch.unwrap();
            let images = batch.images.try_into_vec_as::<f32>().unwrap();
            let targets = batch.targets.try_into_vec_as::<i64>().unwrap();
            for (pixels, target) in images.chunks(2).zip(targets) {
                mirrored[target as usize] = Some(pixels == [1.0, 0.0]);
            }
        }
        mirrored.into_iter().collect::<Option<Vec<bool>>>().unwrap()
    };
    let loader = from(1, 1);
    let epochs: Vec<_> = (0..4).map(|_| mirrored(&loader)).collect();
    let half = epochs[0].iter().filter(|&&mirrored| mirrored).count();
    assert!((70..130).contains(&half), "{half} of {count} are mirrored in the first epoch");
    let other: Vec<_> = epochs[0].iter().map(|mirrored| !mirrored).collect();
    assert_eq!(epochs[1], other, "not every image is seen the other way in the second epoch");
    assert_eq!([&epochs[2], &epochs[3]], [&epochs[0], &epochs[1]]);
    assert_eq!(mirrored(&from(1, 2)), epochs[1], "a run that resumes in the second epoch has other flips");
    assert_eq!(mirrored(&from(1, 1).with_workers(7)), epochs[0], "threads decide about flips");
    assert_ne!(mirrored(&from(2, 1)), epochs[0], "another seed gives the same flips");
}

#[test]
fn parts_for_several_devices_make_up_the_batches_of_one() {
    let device = Device::flex();
    let data = digits();
    let count = data.len();
    let whole = Loader::new(data, preprocess(), 100, &device).augmented(augment(), Mix::default());
    for devices in [2, 3] {
        let whole = whole.clone().shuffled(3, 1);
        let step = count / devices;
        let parts: Vec<_> = (0..devices)
            .map(|i| whole.slice(i * step, if i + 1 == devices { count } else { (i + 1) * step }))
            .collect();
        let mut parts: Vec<_> = parts.iter().map(|part| part.iter()).collect();
        for batch in whole.iter() {
            let batch = batch.unwrap();
            let own: Vec<Batch> = parts.iter_mut().map(|part| part.next().unwrap().unwrap()).collect();
            let together: Vec<f32> =
                own.into_iter().flat_map(|batch| batch.images.try_into_vec_as::<f32>().unwrap()).collect();
            assert!(together == batch.images.try_into_vec_as::<f32>().unwrap(), "{devices} devices get other images");
        }
        assert!(parts.iter_mut().all(|part| part.next().is_none()));
    }
}

#[test]
fn ten_crops_come_after_one_another() {
    let preprocess = Preprocess::new(1, 8, 8, Fit::ResizeCrop { shorter: 12 });
    let data = digits();
    let crops = preprocess.ten_crops(&data.get(0).unwrap().image).concat();
    let loader = Loader::new(data, preprocess, 3, &Device::flex()).ten_crops();
    let batch = loader.iter().next().unwrap().unwrap();
    assert_eq!((batch.images.dims(), batch.targets.dims()), ([30, 1, 8, 8], [3]));
    assert_eq!(batch.images.try_into_vec_as::<f32>().unwrap()[..crops.len()], crops);
}
