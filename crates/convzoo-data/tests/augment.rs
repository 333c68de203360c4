//! Augmentation: single operations against torchvision, whole views against what they promise.

#![allow(clippy::unwrap_used)] // also in helpers

mod common;

use common::Noise;
use convzoo_data::{Augment, ColorJitter, Fit, Image, Operation, Preprocess, RandAugment, View};

/// The image that `operations.py` makes.
fn image(width: usize, height: usize, channels: usize) -> Image {
    let pixel = |at: usize| ((at * at * 31 + at * 17 + at / 5 * 90) % 241) as u8;
    Image::new(width, height, channels, (0..width * height * channels).map(pixel).collect()).unwrap()
}

fn operation(name: &str, strength: &str) -> Operation {
    let strength: f64 = strength.parse().unwrap();
    match name {
        "Identity" => Operation::Identity,
        "ShearX" => Operation::ShearX(strength),
        "ShearY" => Operation::ShearY(strength),
        "TranslateX" => Operation::TranslateX(strength),
        "TranslateY" => Operation::TranslateY(strength),
        "Rotate" => Operation::Rotate(strength),
        "Brightness" => Operation::Brightness(strength),
        "Contrast" => Operation::Contrast(strength),
        "Color" => Operation::Color(strength),
        "Sharpness" => Operation::Sharpness(strength),
        "Hue" => Operation::Hue(strength),
        "Posterize" => Operation::Posterize(strength as u32),
        "Solarize" => Operation::Solarize(strength),
        "AutoContrast" => Operation::AutoContrast,
        "Equalize" => Operation::Equalize,
        _ => panic!("no operation is called {name}"),
    }
}

#[test]
fn operations_are_torchvisions() {
    let mut checked = 0;
    for line in include_str!("operations.txt").lines() {
        let [kind, name, strength, expected] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let expected: Vec<u8> =
            (0..expected.len() / 2).map(|at| u8::from_str_radix(&expected[2 * at..][..2], 16).unwrap()).collect();
        let operation = operation(name, strength);
        let own = if kind == "histogram" {
            let pixels = image(64, 64, 1).pixels.iter().enumerate().map(|(at, p)| p / 2 + (at % 7) as u8).collect();
            let even = operation.apply(&Image::new(64, 64, 1, pixels).unwrap());
            let mut counts = vec![0u8; 256];
            even.pixels
                .iter()
                .for_each(|&value| counts[usize::from(value)] = counts[usize::from(value)].saturating_add(1));
            counts
        } else {
            operation.apply(&image(11, 7, kind.parse().unwrap())).pixels
        };
        assert_eq!(own.len(), expected.len(), "{operation:?}");
        let differences: Vec<u8> = own.iter().zip(&expected).map(|(own, expected)| own.abs_diff(*expected)).collect();
        let different = differences.iter().filter(|&&difference| difference > 0).count();
        // Sines are rounded elsewhere on the way, and bytes truncated.
        let allowed = if name == "Rotate" { own.len() / 50 } else { 0 };
        assert!(
            different <= allowed && differences.iter().all(|&difference| difference <= 1),
            "{operation:?} on {kind}: {different} of {} bytes differ, by {:?} at most",
            own.len(),
            differences.iter().max(),
        );
        checked += 1;
    }
    assert!(checked > 60, "{checked} cases");
}

fn all() -> Augment {
    Augment {
        random_resized_crop: None,
        random_crop: Some(2),
        random_horizontal_flip: 0.5,
        alternating_flip: false,
        random_rotation: 15.0,
        trivial_augment: true,
        rand_augment: Some(RandAugment::default()),
        color_jitter: ColorJitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1 },
        pca_lighting: 0.1,
        random_erasing: 0.5,
    }
}

fn noise(width: usize, height: usize, channels: usize) -> Image {
    Image::new(width, height, channels, Noise(1).bytes(width * height * channels)).unwrap()
}

#[test]
fn a_seed_is_a_view_and_another_seed_another() {
    let preprocess = Preprocess::new(3, 24, 24, Fit::ResizeCrop { shorter: 28 });
    let image = noise(40, 30, 3);
    for augment in [all(), Augment { random_resized_crop: Some(0.08), ..all() }] {
        let view = |seed| augment.view(&image, &preprocess, seed);
        assert_eq!(view(1), view(1));
        assert_ne!(view(1), view(2));
        // Appended to a batch it is the same.
        let mut batch = vec![0.5];
        augment.append(&image, &preprocess, 1, &mut batch);
        assert_eq!(batch[1..], view(1));
    }
}

#[test]
fn views_have_the_inputs_size_whatever_the_image() {
    for (width, height, channels) in [(1, 1, 1), (1, 60, 3), (60, 1, 3), (9, 7, 1), (90, 70, 3)] {
        let image = noise(width, height, channels);
        for fit in [Fit::Resize, Fit::Pad, Fit::ResizeCrop { shorter: 20 }, Fit::ResizeCrop { shorter: 8 }] {
            for inputs in [1, 3] {
                let preprocess = Preprocess::new(inputs, 16, 18, fit);
                for random_resized_crop in [None, Some(0.3)] {
                    let augment = Augment { random_resized_crop, ..all() };
                    let view = augment.view(&image, &preprocess, 5);
                    assert_eq!(view.len(), preprocess.len(), "{width}×{height}×{channels} to {preprocess:?}");
                    assert!(view.iter().all(|value| value.is_finite()));
                }
            }
        }
    }
}

#[test]
fn without_augmentation_a_view_is_that_of_evaluation() {
    for fit in [Fit::Resize, Fit::Pad, Fit::ResizeCrop { shorter: 20 }] {
        let preprocess = Preprocess::new(3, 16, 18, fit).normalized([0.5; 3], [0.2; 3]);
        let image = noise(31, 22, 3);
        assert_eq!(Augment::default().view(&image, &preprocess, 3), preprocess.apply(&image), "{fit:?}");
    }
}

#[test]
fn a_mirrored_view_is_that_of_the_mirror_image() {
    let always = Augment { random_horizontal_flip: 1.0, ..Augment::default() };
    // With an operation after it that changes nothing, the bytes themselves are mirrored.
    let in_bytes = Augment { pca_lighting: 1e-9, ..always.clone() };
    for (channels, wanted) in [(3, 3), (1, 3), (3, 1)] {
        let image = noise(13, 9, channels);
        let preprocess = Preprocess::new(wanted, 9, 13, Fit::Resize).normalized([0.5, 0.4, 0.3], [0.2, 0.3, 0.4]);
        let expected = preprocess.apply(&image.flip());
        assert!(always.view(&image, &preprocess, 1) == expected, "{channels} to {wanted} channels");
        assert!(in_bytes.view(&image, &preprocess, 1) == expected, "{channels} to {wanted} channels, in bytes");
    }
}

#[test]
fn alternating_flips_mirror_the_views_of_odd_turns_and_no_others() {
    let alternating = Augment { alternating_flip: true, random_crop: Some(2), ..Augment::default() };
    // In bytes, too, where something follows that changes them.
    let in_bytes = Augment { pca_lighting: 1e-9, ..alternating.clone() };
    let image = noise(13, 9, 3);
    let preprocess = Preprocess::new(3, 9, 13, Fit::Resize);
    let mirrored = |view: Vec<f32>| -> Vec<f32> { view.chunks(13).flat_map(|row| row.iter().rev()).copied().collect() };
    for augment in [alternating, in_bytes] {
        augment.check().unwrap();
        for seed in 0..20 {
            let turn = |odd_turn| augment.view(&image, &preprocess, View { seed, odd_turn });
            assert_eq!(turn(false), augment.view(&image, &preprocess, seed));
            assert_eq!(turn(true), mirrored(turn(false)), "seed {seed}");
        }
    }
    // Without it turns change nothing.
    let view = |odd_turn| all().view(&image, &preprocess, View { seed: 3, odd_turn });
    assert_eq!(view(true), view(false));
}

#[test]
fn flips_and_erasures_come_as_often_as_asked() {
    let preprocess = Preprocess::new(1, 16, 16, Fit::Resize).normalized([0.5; 3], [0.5; 3]);
    let image = image(16, 16, 1);
    let count = |augment: &Augment, is: &dyn Fn(&[f32]) -> bool| {
        (0..400).filter(|&seed| is(&augment.view(&image, &preprocess, seed))).count()
    };
    let mirrored = preprocess.apply(&image.flip());
    let flip = |p| Augment { random_horizontal_flip: p, ..Augment::default() };
    assert_eq!(count(&flip(1.0), &|view| view == mirrored), 400);
    let half = count(&flip(0.5), &|view| view == mirrored);
    assert!((160..240).contains(&half), "{half} of 400 mirrored");

    let plain = preprocess.apply(&image);
    let erasing = Augment { random_erasing: 0.25, ..Augment::default() };
    let quarter = count(&erasing, &|view| view != plain);
    assert!((70..130).contains(&quarter), "{quarter} of 400 erased");
    for seed in 0..400 {
        let view = erasing.view(&image, &preprocess, seed);
        let erased = view.iter().zip(&plain).filter(|(view, plain)| view != plain).count();
        // Bytes have no exact middle, so that erased values are none of theirs.
        assert!(view.iter().filter(|&&value| value == 0.0).count() == erased);
        assert!(erased == 0 || (1..=100).contains(&erased), "{erased} of 256 erased");
    }
}

#[test]
fn strengths_that_make_no_sense_are_refused_by_name() {
    let refused = |augment: Augment, field: &str| {
        let told = augment.check().unwrap_err().to_string();
        assert!(told.contains(field), "{told}");
    };
    all().check().unwrap();
    refused(Augment { random_horizontal_flip: 1.5, ..all() }, "random_horizontal_flip must be from 0 to 1, not 1.5");
    refused(Augment { alternating_flip: true, ..all() }, "alternating_flip must be false where random_horizontal_flip");
    refused(Augment { random_rotation: f64::NAN, ..all() }, "random_rotation");
    refused(Augment { random_resized_crop: Some(0.0), ..all() }, "random_resized_crop");
    refused(Augment { random_crop: Some(usize::MAX), ..all() }, "random_crop");
    refused(Augment { rand_augment: Some(RandAugment { magnitude: 31, operations: 2 }), ..all() }, "magnitude");
    refused(Augment { color_jitter: ColorJitter { hue: 0.6, ..Default::default() }, ..all() }, "color_jitter.hue");
}
