//! `convzoo visualize` and `convzoo embed` as users meet them.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod support;

use std::fs;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use convzoo::data::{Source, open};
use convzoo::embed::embed;
use convzoo::visualize::View;
use convzoo::{pretrained, visualize};
use image::{GrayImage, RgbImage};
use serde_json::Value;
use support::{convzoo, error, json, parse, temp};

/// The first digits that LeNet-5 never saw, as files, two of each class in a folder.
fn digits(folder: &Path) {
    let digits = open("digits", &Source::default()).unwrap().test;
    let mut counts = [0; 10];
    for index in 0..digits.len() {
        let sample = digits.get(index).unwrap();
        counts[sample.label] += 1;
        if sample.label < 3 && counts[sample.label] <= 2 {
            let class = folder.join(digits.classes()[sample.label].as_str());
            fs::create_dir_all(&class).unwrap();
            let (width, height) = (sample.image.width as u32, sample.image.height as u32);
            let picture = GrayImage::from_raw(width, height, sample.image.pixels).unwrap();
            picture.save(class.join(format!("{}-{}.png", sample.label, counts[sample.label]))).unwrap();
        }
    }
}

/// The numbers of an `.npy` file.
fn npy(path: &Path) -> (Vec<u64>, Vec<f32>) {
    let file = npyz::NpyFile::new(std::io::BufReader::new(fs::File::open(path).unwrap())).unwrap();
    let shape = file.shape().to_vec();
    (shape, file.into_vec().unwrap())
}

#[test]
fn every_method_writes_its_pictures_and_a_page() {
    let folder = temp();
    let path = folder.path();
    digits(&path.join("digits"));
    let one = "digits/0/0-1.png";
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("features", &[one], &["0-1-features.png"]),
        ("features", &[one, "--layer", "c1", "--top", "3", "--raw"], &["0-1-c1.npy", "0-1-input.npy", "0-1-c1.png"]),
        ("filters", &[], &["c1-filters.png"]),
        ("filters", &["--layer", "c3", "--channels", "0,15"], &["c3-filters.png"]),
        ("deconvnet", &[one], &["0-1-deconvnet.png"]),
        ("deconvnet", &["digits", "--layer", "c1", "--channels", "2,4"], &["c1-2.png", "c1-4.png"]),
        ("gradcam", &["digits/1"], &["1-1-gradcam.png", "1-2-gradcam.png"]),
        ("guided-gradcam", &[one, "--layer", "c3"], &["0-1-guided-gradcam.png"]),
        ("saliency", &[one, "--class", "8", "--raw"], &["0-1-saliency.png", "0-1-saliency.npy", "0-1-input.npy"]),
        ("occlusion", &[one, "--window", "8", "--stride", "4"], &["0-1-occlusion.png"]),
    ];
    for (index, (what, arguments, files)) in cases.iter().enumerate() {
        let out = format!("out/{index}");
        let arguments = [&["visualize", "lenet5", "--what", what, "--out", &out, "--json"], *arguments].concat();
        let told = json(path, &arguments);
        assert_eq!((&told["model"], &told["what"]), (&Value::from("lenet5"), &Value::from(*what)), "{arguments:?}");
        let named = |file: &Value| Path::new(file.as_str().unwrap()).file_name().unwrap().to_str().unwrap().to_owned();
        let written: Vec<_> = told["files"].as_array().unwrap().iter().map(named).collect();
        let (mut sorted, mut expected) = (written.clone(), files.to_vec());
        sorted.sort();
        expected.sort();
        assert_eq!(sorted, expected, "{arguments:?}");
        assert_eq!(named(&told["page"]), format!("{what}.html"));
        for file in written.iter().filter(|file| file.ends_with(".png")) {
            let picture = image::open(path.join(&out).join(file)).unwrap().into_rgb8();
            assert!(varied(&picture), "{arguments:?}: nothing is drawn in {file}");
        }
        let page = fs::read_to_string(path.join(&out).join(format!("{what}.html"))).unwrap();
        assert!(page.contains("data:image/png;base64,"), "{arguments:?}");
        for outside in ["src=\"http", "href=", "<script"] {
            assert!(!page.contains(outside), "{arguments:?}: the page needs {outside}");
        }
        // The page and the files, and nothing half-written.
        assert_eq!(fs::read_dir(path.join(&out)).unwrap().count(), files.len() + 1, "{arguments:?}");
    }

    let (shape, values) = npy(&path.join("out/8/0-1-saliency.npy"));
    assert_eq!((shape, values.len()), (vec![32, 32], 1024));
    let (shape, input) = npy(&path.join("out/8/0-1-input.npy"));
    assert_eq!(shape, [1, 1, 32, 32]);
    let device = Device::flex();
    let network = pretrained::lenet5_digits(&device).unwrap();
    let input = Tensor::<1>::from_floats(input.as_slice(), &device).reshape([1, 1, 32, 32]);
    assert_eq!(visualize::saliency(&network, input, 8).unwrap().values, values, "the file holds what the library says");
    assert_eq!(npy(&path.join("out/1/0-1-c1.npy")).0, [6, 28, 28]);
}

fn varied(picture: &RgbImage) -> bool {
    picture.pixels().any(|pixel| pixel != picture.get_pixel(picture.width() / 2, picture.height() / 2))
}

#[test]
fn explained_is_the_class_that_was_asked_for_or_the_most_probable() {
    let folder = temp();
    digits(folder.path());
    let explained = |arguments: &[&str]| {
        let gradcam = ["visualize", "lenet5", "--what", "gradcam", "--json", "0/0-1.png"];
        json(folder.path(), &[&gradcam, arguments].concat())["images"][0].clone()
    };
    let probable = explained(&[]);
    assert_eq!((&probable["explained"], probable["top"].as_array().unwrap().len()), (&probable["top"][0], 5));
    assert_eq!(probable["explained"]["label"], "0");
    assert_eq!(explained(&["--class", "7"])["explained"]["class"], 7);
    // Weights that are drawn are always the same.
    let random = || {
        let folder = temp();
        digits(folder.path());
        let saliency =
            ["visualize", "resnet20_cifar", "--weights", "random", "--what", "saliency", "--raw", "0/0-1.png"];
        assert!(convzoo(folder.path(), &saliency).status.success());
        npy(&folder.path().join("visualize/0-1-saliency.npy")).1
    };
    let numbers = random();
    assert!(numbers.iter().any(|number| *number != 0.0) && numbers == random());
}

#[test]
fn one_image_that_cannot_be_read_does_not_stop_the_others() {
    let folder = temp();
    let path = folder.path();
    digits(path);
    fs::write(path.join("0/broken.png"), "no image").unwrap();
    for what in ["gradcam", "features", "deconvnet"] {
        let output = convzoo(path, &["visualize", "lenet5", "--what", what, "--out", what, "--json", "0"]);
        assert_eq!(output.status.code(), Some(1), "{what}");
        let images = parse(&output)["images"].clone();
        let images = images.as_array().unwrap();
        assert_eq!(images.len(), 3);
        let wrong: Vec<_> = images.iter().filter(|image| image["error"].is_string()).collect();
        assert!(wrong.len() == 1 && wrong[0]["image"].as_str().unwrap().contains("broken.png"), "{what}: {images:?}");
        assert!(path.join(what).join(format!("{what}.html")).is_file(), "{what}");
    }
    let output = convzoo(path, &["embed", "lenet5", "0", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let told = parse(&output);
    assert_eq!(told["features"], serde_json::json!([2, 84]));
    assert!(told["images"][2]["error"].as_str().unwrap().contains("broken.png"), "{told}");
}

#[test]
fn features_are_written_row_by_row_in_both_formats() {
    let folder = temp();
    let path = folder.path();
    digits(&path.join("digits"));
    let arguments = ["embed", "lenet5", "digits", "--batch-size", "4", "--json", "--device", "flex"];
    let told = json(path, &[&arguments[..], &["--out", "features.npy", "--plot"]].concat());
    assert_eq!(told["features"], serde_json::json!([6, 84]));
    let (shape, values) = npy(&path.join("features.npy"));
    assert_eq!(shape, [6, 84]);

    // The rows are those of the images, and their classes the folders.
    let network = pretrained::lenet5_digits(&Device::flex()).unwrap();
    for image in told["images"].as_array().unwrap() {
        let file = path.join(image["image"].as_str().unwrap());
        let view = View::new(&network, &convzoo::data::load_image(&file).unwrap()).unwrap();
        let (features, logits) = embed(&network, view.input()).unwrap();
        let features: Vec<f32> = features.into_data().try_into_vec().unwrap();
        let row = &values[84 * image["row"].as_u64().unwrap() as usize..][..84];
        assert!(features.iter().zip(row).all(|(a, b)| (a - b).abs() < 1e-5), "{image}");
        assert_eq!(logits.dims(), [1, 10]);
        assert_eq!(image["class"], file.parent().unwrap().file_name().unwrap().to_str().unwrap());
    }
    // In bfloat16 they differ by its roundings.
    json(path, &[&arguments[..], &["--out", "bf16.npy", "--precision", "bf16"]].concat());
    let (_, rounded) = npy(&path.join("bf16.npy"));
    let square = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>();
    let error = square(&mut values.iter().zip(&rounded).map(|(a, b)| a - b)) / square(&mut values.iter().copied());
    assert!((1e-4..2e-2).contains(&error.sqrt()), "features in bfloat16 differ by {} relative", error.sqrt());

    let page = fs::read_to_string(path.join("features.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("component 1") && !page.contains("src=\"http"));
    assert!(image::open(path.join("features.png")).unwrap().width() > 400);
    let explained = told["plot"]["explained"].as_array().unwrap();
    let explained: Vec<_> = explained.iter().map(|share| share.as_f64().unwrap()).collect();
    assert!(explained[0] >= explained[1] && explained[1] > 0.0 && explained[0] + explained[1] <= 1.0, "{explained:?}");

    json(path, &[&arguments[..], &["--out", "features.safetensors"]].concat());
    let bytes = fs::read(path.join("features.safetensors")).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let expected = serde_json::json!({ "dtype": "F32", "shape": [6, 84], "data_offsets": [0, 6 * 84 * 4] });
    assert_eq!(header["features"], expected);
    let numbers = bytes[8 + length..].chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
    assert!(numbers.eq(values), "the formats differ");
}

#[test]
fn mistakes_give_one_error_and_leave_nothing() {
    let folder = temp();
    let path = folder.path();
    digits(&path.join("digits"));
    fs::write(path.join("file"), "no folder").unwrap();
    fs::write(path.join("broken.png"), "no image").unwrap();
    fs::create_dir(path.join("empty")).unwrap();
    let image = "digits/0/0-1.png";
    let visualize = |what, rest: &[&'static str]| [&["visualize", "lenet5", "--what", what], rest].concat();
    let cases: &[(Vec<&str>, &str)] = &[
        (visualize("gradcam", &[image, "--layer", "c2"]), "did you mean c"),
        (visualize("gradcam", &[image, "--layer", "output"]), "one value per channel"),
        (visualize("features", &[image, "--layer", "c"]), "there is no layer 'c'"),
        (visualize("deconvnet", &[image, "--layer", "s3"]), "did you mean s"),
        (visualize("filters", &["--layer", "s2"]), "AvgPool2d"),
        (visualize("filters", &["--layer", "conv1"]), "there is no layer 'conv1'"),
        (visualize("saliency", &[image, "--class", "10"]), "there is no class 10"),
        (visualize("occlusion", &[image, "--class", "10"]), "from 0 to 9"),
        (visualize("occlusion", &[image, "--window", "33"]), "from 1 to 32"),
        (visualize("occlusion", &[image, "--stride", "0"]), "from 1 to 32"),
        (visualize("deconvnet", &[image, "--channels", "16"]), "no channel 16"),
        (visualize("features", &[image, "--layer", "c1", "--channels", "6"]), "no channel 6"),
        (visualize("filters", &["--channels", "6"]), "no channel 6"),
        (visualize("features", &[image, "--top", "3"]), "name it with --layer"),
        (visualize("saliency", &[image, "--layer", "c1"]), "--layer means nothing to saliency"),
        (visualize("filters", &["--class", "1"]), "--class means nothing to filters"),
        (visualize("filters", &[image]), "name no images"),
        (visualize("gradcam", &[]), "name images"),
        (visualize("deconvnet", &["-"]), "standard input"),
        (visualize("gradcam", &["broken.png"]), "error: cannot read broken.png"),
        (visualize("deconvnet", &["broken.png"]), "error: cannot read broken.png"),
        (visualize("features", &["nowhere.png", "--out", "a/b"]), "nowhere.png"),
        (visualize("gradcam", &["empty"]), "holds no image"),
        (visualize("gradcam", &[image, "--out", "file"]), "making the folder file"),
        (visualize("gradcam", &[image, "--out", "file/out"]), "making the folder file/out"),
        (visualize("everything", &[image]), "possible values"),
        (vec!["visualize", "lenet6", "--what", "filters"], "did you mean lenet5"),
        (vec!["visualize", "vgg11", "--what", "filters"], "needs --weights: a file"),
        (vec!["visualize", "vgg11", "--what", "filters", "--weights", "none.pth"], "none.pth"),
        (vec!["embed", "lenet5", image, "--out", "features.txt"], ".safetensors or .npy"),
        (vec!["embed", "lenet5", image, "--out", "nowhere/features.npy"], "cannot write nowhere/features.npy"),
        (vec!["embed", "lenet5", "broken.png"], "error: cannot read broken.png"),
        (vec!["embed", "lenet5", "empty"], "holds no image"),
    ];
    for (arguments, part) in cases {
        let told = error(path, arguments);
        assert!(told.contains(part), "{arguments:?} told: {told}");
    }
}
