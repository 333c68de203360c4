//! Weights on the command line: photographs classified, tensors run through, files converted, and what goes wrong.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use burn::store::{ModuleStore, SafetensorsStore, bridge};
use burn::tensor::{Device, Tensor, TensorData};
use convzoo::weights::Checkpoint;
use convzoo::{Classifier, Options, create, create_from, imagenet, weights};
use serde_json::{Value, json};
use support::{convzoo, convzoo_fed, error, json, parse, shared, temp};

fn lenet(folder: &Path) -> PathBuf {
    let path = folder.join("lenet5.safetensors");
    weights::save(&create("lenet5", &Options::default(), &Device::flex()).unwrap(), &path).unwrap();
    path
}

/// A safetensors file of one tensor.
fn tensor_file(path: &Path, name: &str, tensor: &TensorData) {
    let shape: &[usize] = tensor.shape();
    let header = json!({ name: { "dtype": "F32", "shape": shape, "data_offsets": [0, tensor.as_bytes().len()] } });
    let header = header.to_string();
    fs::write(path, [&(header.len() as u64).to_le_bytes(), header.as_bytes(), tensor.as_bytes()].concat()).unwrap();
}

#[test]
fn photographs_are_classified_as_pytorch_does() {
    let Some(photos) = shared("data/photos") else { return };
    let Some(weights) = shared("data/weights/squeezenet1_0-imagenet.safetensors") else { return };
    let folder = temp();
    let [photos_text, weights] = [&photos, &weights].map(|path| path.to_str().unwrap());
    let predict = ["predict", photos_text, "--model", "squeezenet1_0", "--weights", weights, "--json"];
    let predict = [&predict[..], &["--device", "flex"]].concat();
    let answers = json(folder.path(), &predict);
    let expected: Value = serde_json::from_slice(&fs::read(photos.join("expected.json")).unwrap()).unwrap();
    let answers = answers.as_array().unwrap();
    assert_eq!(answers.len(), 20);
    let mut near = 0;
    for answer in answers {
        let file = Path::new(answer["image"].as_str().unwrap()).file_name().unwrap().to_str().unwrap();
        let theirs = expected[file]["top5"].as_array().unwrap();
        assert_eq!(answer["top"].as_array().unwrap().len(), 5);
        assert_eq!(answer["top"][0]["class"], theirs[0][0], "{file}");
        let probability = |class: &Value| {
            let found = answer["top"].as_array().unwrap().iter().find(|prediction| prediction["class"] == *class);
            found.map(|prediction| prediction["probability"].as_f64().unwrap())
        };
        // A class that is not among our five is one of theirs of next to no probability.
        let off = theirs.iter().map(|their| (probability(&their[0]).unwrap_or(0.0) - their[1].as_f64().unwrap()).abs());
        near += usize::from(off.fold(0.0, f64::max) <= 0.02);
    }
    assert!(near >= 18, "{near} of 20 have PyTorch's probabilities");

    // The same through a pattern, in passes of another size, with names and the best three.
    let Some(labels) = shared("data/imagenet_classes.txt") else { return };
    let pattern = format!("{photos_text}/n021*.jpg");
    let named = ["predict", &pattern, "--model", "squeezenet1_0", "--weights", weights, "--json", "--top", "3"];
    let named = [&named[..], &["--labels", labels.to_str().unwrap(), "--batch-size", "1"]].concat();
    let named = json(folder.path(), &named);
    let whole = answers.iter().filter(|answer| answer["image"].as_str().unwrap().contains("/n021"));
    for (one, whole) in named.as_array().unwrap().iter().zip(whole) {
        assert_eq!((&one["image"], &one["top"][0]["class"]), (&whole["image"], &whole["top"][0]["class"]));
        let near = |i: usize| {
            let [a, b] = [one, whole].map(|answer| answer["top"][i]["probability"].as_f64().unwrap());
            (a - b).abs() < 1e-4
        };
        assert!((0..3).all(near) && one["top"].as_array().unwrap().len() == 3, "{one}");
    }
    assert_eq!(named[0]["top"][0]["label"], "malinois");
}

#[test]
fn a_published_pickle_is_as_good_here_as_in_pytorch() {
    let Some(weights) = shared("data/weights/resnet20-12fca82f.th") else { return };
    let Some(archive) = shared("data/cifar10-jpeg.tar.gz") else { return };
    let folder = temp();
    let mut tar = Command::new("tar");
    tar.arg("-xzf").arg(archive).args(["--wildcards", "train/*/0000.jpg", "test/*/00[0-2]?.jpg"]);
    assert!(tar.current_dir(folder.path()).status().unwrap().success());
    let weights = weights.to_str().unwrap();
    let eval = ["eval", "resnet20_cifar", "--weights", weights, "--data", "cifar10", "--data-dir", ".", "--json"];
    let eval = json(folder.path(), &[&eval[..], &["--device", "flex"]].concat());
    assert_eq!(eval["images"], 300);
    // PyTorch with libjpeg: 244, seven of them or of the others by less than 0.05.
    let correct = eval["correct"].as_i64().unwrap();
    assert!((correct - 244).abs() <= 2, "{correct} of 300, and PyTorch 244");
}

#[test]
fn published_weights_are_found_in_the_cache_and_name_their_classes() {
    let folder = temp();
    let cache = folder.path().join("cache/weights");
    fs::create_dir_all(&cache).unwrap();
    let convzoo_of = |folder: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_convzoo"));
        command.current_dir(folder).env("CONVZOO_CACHE", folder.join("cache")).env_remove("CONVZOO_MIRROR");
        command
    };
    let predict = |weights: &[&str]| {
        let mut command = convzoo_of(folder.path());
        command.args(["predict", "photo.png", "--model", "squeezenet1_1", "--offline", "--top", "1", "--json"]);
        command.args(weights).output().unwrap()
    };
    image::RgbImage::from_pixel(40, 30, image::Rgb([200, 40, 90])).save(folder.path().join("photo.png")).unwrap();

    // They are not there: where the file belongs and where it can be had.
    let told = String::from_utf8(predict(&["--weights", "imagenet1k_v1"]).stderr).unwrap();
    assert!(told.contains("squeezenet1_1-b8a52dc0.pth") && told.contains("download.pytorch.org"), "{told}");

    let network = create("squeezenet1_1", &Options::default(), &Device::flex()).unwrap();
    weights::save(&network, &cache.join("squeezenet1_1-b8a52dc0.pth")).unwrap();
    let names = imagenet::class_names();
    let answer = parse(&predict(&["--weights", "imagenet1k_v1"]));
    let top = &answer[0]["top"][0];
    assert_eq!(top["label"], names[top["class"].as_u64().unwrap() as usize]);

    // Converted, they know them still; others are told them.
    let mut convert = convzoo_of(folder.path());
    convert.args(["convert", "squeezenet1_1", "imagenet1k_v1", "own.safetensors", "--offline"]);
    assert!(convert.status().unwrap().success());
    assert_eq!(parse(&predict(&["--weights", "own.safetensors"])), answer);
    weights::save(&network, &folder.path().join("nameless.safetensors")).unwrap();
    assert_eq!(parse(&predict(&["--weights", "nameless.safetensors"]))[0]["top"][0]["label"], Value::Null);
    assert_eq!(parse(&predict(&["--weights", "nameless.safetensors", "--labels", "imagenet"])), answer);
}

#[test]
fn the_network_is_read_from_weights_that_know_it() {
    let folder = temp();
    let path = folder.path();
    image(&path.join("photo.png"));
    let network = create("squeezenet1_1", &Options::default().with_classes(3), &Device::flex()).unwrap();
    weights::save(&network, &path.join("own.safetensors")).unwrap();
    let own = ["--weights", "own.safetensors"];
    let classes = |arguments: &[&str]| {
        let answer = json(path, &[arguments, &own, &["--json", "--device", "flex"]].concat());
        answer[0]["top"].as_array().unwrap().len()
    };
    // Positional, by option, or not at all.
    assert_eq!(classes(&["predict", "photo.png"]), 3);
    assert_eq!(classes(&["predict", "squeezenet1_1", "photo.png"]), 3);
    assert_eq!(classes(&["predict", "photo.png", "--model", "squeezenet1_1"]), 3);
    let model = |arguments: &[&str]| json(path, &[arguments, &own, &["--json"]].concat())["model"].clone();
    assert_eq!(model(&["embed", "photo.png"]), "squeezenet1_1");
    assert_eq!(model(&["visualize", "photo.png", "--what", "saliency"]), "squeezenet1_1");
    assert!(convzoo(path, &["convert", "own.safetensors", "own.bpk"]).status.success());
    assert!(convzoo(path, &["convert", "squeezenet1_1", "own.bpk", "again.safetensors"]).status.success());
    assert_eq!(fs::read(path.join("own.safetensors")).unwrap(), fs::read(path.join("again.safetensors")).unwrap());

    // Another network's name is told beside what does not fit; a word that is neither name nor file is told as both.
    let told = error(path, &[&["predict", "resnet18", "photo.png"][..], &own].concat());
    assert!(told.contains("the file says that it is of squeezenet1_1"), "{told}");
    let told = error(path, &["predict", "squeezenet1_O", "photo.png"]);
    assert!(told.contains("is no image and no folder") && told.contains("did you mean squeezenet1_0"), "{told}");
    let told = error(path, &["predict", "photo.png", "--weights", "imagenet1k_v2"]);
    assert!(told.contains("name the network") && told.contains("resnet50"), "{told}");
    let told = error(path, &["predict", "resnet50", "photo.png"]);
    assert!(told.contains("imagenet1k_v1, imagenet1k_v2"), "{told}");
    // Digits are what it is for without any of it.
    let output = convzoo(path, &["predict", "photo.png"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("lenet5 for handwritten digits"));
    assert!(output.status.success());
}

#[test]
fn a_thousand_classes_without_names_are_imagenets() {
    let Some(weights) = shared("data/weights/squeezenet1_0-imagenet.safetensors") else { return };
    let Some(photos) = shared("data/photos") else { return };
    let folder = temp();
    let barn = photos.join("n02793495_barn.jpg");
    let predict =
        ["predict", "squeezenet1_0", barn.to_str().unwrap(), "--weights", weights.to_str().unwrap(), "--json"];
    assert_eq!(json(folder.path(), &predict)[0]["top"][0]["label"], "barn");
    // Images whose folders have some of their names are measured on those.
    for (class, file) in [("barn", &barn), ("lakeside", &photos.join("n09332890_lakeside.jpg"))] {
        let folder = folder.path().join("new/test").join(class);
        fs::create_dir_all(&folder).unwrap();
        fs::copy(file, folder.join("1.jpg")).unwrap();
    }
    let eval =
        ["eval", "squeezenet1_0", "--weights", weights.to_str().unwrap(), "--data", "folder", "--data-dir", "new"];
    let measured = json(folder.path(), &[&eval[..], &["--json"]].concat());
    assert_eq!((measured["images"].as_u64(), measured["correct"].as_u64()), (Some(2), Some(2)), "{}", measured["top1"]);
}

#[test]
fn confusion_is_drawn() {
    let folder = temp();
    let weights = lenet(folder.path());
    let eval = ["eval", "lenet5", "--weights", weights.to_str().unwrap(), "--data", "digits", "--device", "flex"];
    let output = convzoo(folder.path(), &[&eval[..], &["--confusion-png", "confusion.png"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (width, height) = image::image_dimensions(folder.path().join("confusion.png")).unwrap();
    assert!(width > 400 && height > 400, "ten classes have cells that can be read: {width}x{height}");
    let told = error(folder.path(), &[&eval[..], &["--confusion-png", "nowhere/confusion.png"]].concat());
    assert!(told.contains("no folder nowhere"), "{told}");
}

#[test]
fn one_broken_image_does_not_stop_the_others() {
    let folder = temp();
    let path = folder.path();
    fs::create_dir(path.join("images")).unwrap();
    // A bitmap of 2 × 2 pixels.
    let mut bitmap = b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x02\0\0\0\x02\0\0\0\x01\0\x18\0".to_vec();
    bitmap.resize(54, 0);
    bitmap.extend([200, 100, 50, 20, 10, 5, 0, 0, 255, 128, 64, 32, 0, 0, 0, 0]);
    fs::write(path.join("images/a.bmp"), &bitmap).unwrap();
    fs::write(path.join("images/b.png"), b"\x89PNG\r\n\x1a\nno more").unwrap();
    fs::write(path.join("images/c.jpg"), b"").unwrap();
    fs::write(path.join("images/d.bmp"), &bitmap).unwrap();
    fs::write(path.join("images/notes.txt"), "no image").unwrap();

    let output = convzoo(path, &["predict", "images", "--json", "--batch-size", "2"]);
    assert_eq!(output.status.code(), Some(1));
    let answers = parse(&output);
    let answers = answers.as_array().unwrap();
    let names: Vec<_> = answers.iter().map(|answer| answer["image"].as_str().unwrap()).collect();
    assert_eq!(names, ["images/a.bmp", "images/b.png", "images/c.jpg", "images/d.bmp"]);
    for (answer, good) in answers.iter().zip([true, false, false, true]) {
        assert_eq!((answer.get("top").is_some(), answer.get("error").is_some()), (good, !good), "{answer}");
    }
    assert_eq!(answers[0]["top"], answers[3]["top"]);
    assert!(answers[0]["top"][0]["label"].is_string(), "the digits' weights know their labels");

    // As a table, the answers stand on one stream and the errors on the other.
    let output = convzoo(path, &["predict", "images"]);
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert_eq!(output.status.code(), Some(1));
    assert!(out.contains("a.bmp") && out.contains("d.bmp") && !out.contains("b.png"), "{out}");
    assert!(err.lines().all(|line| line.matches("images/").count() == 1 || line.starts_with("note:")), "{err}");
    assert!(err.contains("images/b.png") && err.contains("images/c.jpg"), "{err}");

    // From standard input, beside a file that is not there.
    let output = convzoo_fed(path, &["predict", "-", "nowhere.png", "--json", "--top", "1"], &bitmap);
    assert_eq!(output.status.code(), Some(1));
    let read = parse(&output);
    assert_eq!((&read[0]["image"], &read[0]["top"][0]), (&json!("-"), &answers[0]["top"][0]));
    assert!(read[1]["error"].as_str().unwrap().contains("nowhere.png"));
    assert!(convzoo_fed(path, &["predict", "-"], &bitmap).status.success());
    assert_eq!(convzoo_fed(path, &["predict", "-"], b"").status.code(), Some(1));
}

#[test]
fn forward_runs_a_tensor_through() {
    let folder = temp();
    let path = folder.path();
    let device = Device::flex();
    let network = create("resnet20_cifar", &Options::default().with_classes(7), &device).unwrap();
    weights::save(&network, &path.join("weights.safetensors")).unwrap();
    weights::save_pack(&network, &path.join("weights.bpk"), weights::Precision::Full).unwrap();
    let values: Vec<f32> = (0..3 * 3 * 33 * 29).map(|i| (i % 17) as f32 / 17.0 - 0.4).collect();
    let input = TensorData::new(values, [3, 3, 33, 29]);
    tensor_file(&path.join("input.safetensors"), "input", &input);
    let expected = network.forward(Tensor::<4>::from_data(input, &device)).into_data();
    for weights in ["weights.safetensors", "weights.bpk"] {
        let forward = ["forward", "resnet20_cifar", "--weights", weights, "--input", "input.safetensors"];
        let forward = [&forward[..], &["--output", "output.safetensors", "--json", "--device", "flex"]].concat();
        let told = json(path, &forward);
        assert_eq!((&told["input"], &told["logits"]), (&json!([3, 3, 33, 29]), &json!([3, 7])));
        let mut store = SafetensorsStore::from_file(path.join("output.safetensors"));
        let logits = bridge::to_data(store.get_tensor("logits").unwrap().unwrap()).unwrap();
        assert_eq!(logits.shape(), expected.shape());
        assert!(logits.iter::<f32>().zip(expected.iter::<f32>()).all(|(a, b)| (a - b).abs() < 1e-5));
        assert_eq!(store.get_all_tensors().unwrap().len(), 1);
        fs::remove_file(path.join("output.safetensors")).unwrap();
    }

    tensor_file(&path.join("flat.safetensors"), "input", &TensorData::new(vec![0f32; 12], [3, 4]));
    tensor_file(&path.join("empty.safetensors"), "input", &TensorData::new(Vec::<f32>::new(), [0, 3, 32, 32]));
    tensor_file(&path.join("images.safetensors"), "images", &TensorData::new(vec![0f32; 3], [1, 3, 1, 1]));
    tensor_file(&path.join("grey.safetensors"), "input", &TensorData::new(vec![0f32; 1024], [1, 1, 32, 32]));
    fs::write(path.join("broken.safetensors"), b"\x80\0\0\0\0\0\0\0{").unwrap();
    for (input, part) in [
        ("flat.safetensors", "[N, C, H, W]"),
        ("empty.safetensors", "[N, C, H, W]"),
        ("images.safetensors", "no tensor 'input', but images"),
        ("grey.safetensors", "channel"),
        ("broken.safetensors", "broken.safetensors"),
        ("none.safetensors", "none.safetensors"),
    ] {
        let forward = ["forward", "resnet20_cifar", "--weights", "weights.bpk", "--input", input, "--output", "out"];
        let told = error(path, &forward);
        assert!(told.contains(part), "{input}: {told}");
    }
}

#[test]
fn files_are_converted_and_come_back_bit_by_bit() {
    let folder = temp();
    let path = folder.path();
    let first = lenet(path);
    for [from, to] in [["lenet5.safetensors", "a.bpk"], ["a.bpk", "b.safetensors"]] {
        assert!(convzoo(path, &["convert", "lenet5", from, to]).status.success());
    }
    assert!(fs::read(&first).unwrap() == fs::read(path.join("b.safetensors")).unwrap());
    // The same bytes each time, in each format.
    assert!(convzoo(path, &["convert", "lenet5", "lenet5.safetensors", "again.bpk"]).status.success());
    assert!(fs::read(path.join("a.bpk")).unwrap() == fs::read(path.join("again.bpk")).unwrap());
    // Onto itself, and in half the size.
    assert!(convzoo(path, &["convert", "lenet5", "a.bpk", "a.bpk"]).status.success());
    assert!(convzoo(path, &["convert", "lenet5", "a.bpk", "half.safetensors", "--f16"]).status.success());
    let length = |file: &str| path.join(file).metadata().unwrap().len();
    assert!(length("half.safetensors") < length("b.safetensors") * 6 / 10);

    // As a whole network, which knows its name.
    assert!(convzoo(path, &["convert", "a.bpk", "a.onnx"]).status.success());
    assert!(convzoo(path, &["convert", "a.onnx", "c.safetensors"]).status.success());
    assert!(fs::read(&first).unwrap() == fs::read(path.join("c.safetensors")).unwrap());

    let replace = ["convert", "lenet5", "a.bpk", "twenty.safetensors", "--replace-head", "20"];
    assert!(convzoo(path, &replace).status.success());
    let twenty = Checkpoint::open(&path.join("twenty.safetensors")).unwrap();
    let twenty = create_from("lenet5", twenty, &Options::default(), &Device::flex()).unwrap();
    assert_eq!(twenty.classes(), 20);
}

#[test]
fn what_cannot_be_converted_says_why_and_leaves_nothing() {
    let folder = temp();
    let path = folder.path();
    lenet(path);
    fs::write(path.join("junk.pth"), "no weights").unwrap();
    fs::write(path.join("cut.pth"), b"PK\x03\x04 and no more").unwrap();
    // `os.system("touch here")`.
    fs::write(path.join("evil.pth"), b"\x80\x02cos\nsystem\nX\x0a\0\0\0touch here\x85R.").unwrap();
    for (arguments, part) in [
        (&["lenet5", "none.pth", "out.bpk"][..], "none.pth"),
        (&["lenet5", "junk.pth", "out.bpk"], "is no PyTorch checkpoint"),
        (&["lenet5", "cut.pth", "out.bpk"], "damaged or cut short"),
        (&["lenet5", "evil.pth", "out.bpk"], "it names os.system"),
        (&["lenet5", ".", "out.bpk"], "cannot read"),
        (&["lenet5", "lenet5.safetensors", "out.pth"], "must end in .safetensors, .bpk, .onnx or .czc"),
        (&["lenet5", "lenet5.safetensors", "nowhere/out.bpk"], "nowhere"),
        (&["lenet5", "lenet5.safetensors", "nowhere/out.onnx"], "nowhere"),
        (&["lenet5", "lenet5.safetensors", "out.onnx", "--f16"], "ONNX files keep 32 bits"),
        (&["lenet5", "lenet5.safetensors", "out.onnx", "--input", "1x40x40"], "exactly 32×32"),
        (&["lenet5", "lenet5.safetensors", "out.bpk", "--keep-norms"], "are for .onnx"),
        (&["lenet6", "lenet5.safetensors", "out.bpk"], "did you mean lenet5"),
        (&["resnet18", "lenet5.safetensors", "out.bpk"], "missing"),
        (&["lenet5", "lenet5.safetensors", "out.bpk", "--replace-head", "0"], "at least one class"),
        (&["lenet5", "lenet5.safetensors", "out.bpk", "--replace-head", "1000000000"], "at most 1048576 classes"),
    ] {
        let told = error(path, &[&["convert"], arguments].concat());
        assert!(told.contains(part), "{arguments:?}: {told}");
    }
}

/// LeNet-5's weights with another value as the last of the file's numbers.
fn altered(folder: &Path, name: &str, value: f32) {
    let mut bytes = fs::read(lenet(folder)).unwrap();
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&value.to_le_bytes());
    fs::write(folder.join(name), bytes).unwrap();
}

fn image(path: &Path) {
    image::GrayImage::from_fn(32, 32, |x, y| image::Luma([(x * y) as u8])).save(path).unwrap();
}

#[test]
fn weights_that_are_no_numbers_are_an_error_that_names_the_tensor() {
    let folder = temp();
    let path = folder.path();
    altered(path, "diverged.safetensors", f32::NAN);
    image(&path.join("image.png"));
    let told = error(path, &["predict", "image.png", "--weights", "diverged.safetensors"]);
    assert!(told.contains("diverged.safetensors: the tensor '") && told.contains("' holds NaN (element "), "{told}");
    error(path, &["eval", "lenet5", "--weights", "diverged.safetensors", "--data", "digits"]);
}

#[test]
fn halving_what_sixteen_bits_cannot_hold_is_an_error_that_names_the_tensor() {
    let folder = temp();
    altered(folder.path(), "large.safetensors", 1e6);
    for out in ["half.safetensors", "half.bpk"] {
        let told = error(folder.path(), &["convert", "lenet5", "large.safetensors", out, "--f16"]);
        assert!(told.contains("' holds 1000000 (element ") && told.contains("65504"), "{told}");
    }
    assert!(convzoo(folder.path(), &["convert", "lenet5", "large.safetensors", "whole.bpk"]).status.success());
}

#[test]
fn a_file_that_convzoo_did_not_make_is_not_replaced() {
    let folder = temp();
    let path = folder.path();
    let weights = fs::read(lenet(path)).unwrap();
    image(&path.join("image.png"));
    fs::create_dir(path.join("visualize")).unwrap();
    image(&path.join("visualize/image-saliency.png"));
    fs::write(path.join("notes.html"), "<!DOCTYPE html><p>mine").unwrap();
    tensor_file(&path.join("theirs.safetensors"), "tensor", &TensorData::new(vec![1f32], [1]));
    tensor_file(&path.join("input.safetensors"), "input", &TensorData::new(vec![0.5f32; 1024], [1, 1, 32, 32]));
    fs::write(path.join("empty.npy"), "").unwrap();
    let eval = ["eval", "lenet5", "--weights", "lenet5.safetensors", "--data", "digits", "--confusion-png"];
    let embed = ["embed", "lenet5", "image.png", "--out"];
    let forward = ["forward", "lenet5", "--weights", "lenet5.safetensors", "--input", "input.safetensors", "--output"];
    let convert = ["convert", "lenet5", "lenet5.safetensors"];
    let visualize = ["visualize", "lenet5", "image.png", "--what", "saliency", "--out"];
    let refused: [(&[&str], &str, &str); 9] = [
        (&eval, "lenet5.safetensors", "must end in .png"),
        (&eval, "image.png", "is no picture that convzoo wrote"),
        (&embed, "lenet5.safetensors", "is no file of features that convzoo wrote"),
        (&embed, "features.txt", "must end in .safetensors or .npy"),
        (&forward, "lenet5.safetensors", "is no file of logits that convzoo wrote"),
        (&convert, "theirs.safetensors", "is no file of weights that convzoo wrote"),
        (&convert, "input.safetensors", "is no file of weights that convzoo wrote"),
        (&visualize, "visualize", "is no picture that convzoo wrote"),
        (&["bench", "lenet5", "--html"], "notes.html", "is no page that convzoo wrote"),
    ];
    for (command, out, part) in refused {
        let told = error(path, &[command, &[out]].concat());
        assert!(told.contains(part), "{command:?} {out}: {told}");
    }
    assert!(fs::read(path.join("lenet5.safetensors")).unwrap() == weights);
    // What it did make, and what is empty, is replaced.
    for _ in 0..2 {
        for (command, out) in [
            (&eval[..], "confusion.png"),
            (&embed[..], "features.safetensors"),
            (&embed[..], "empty.npy"),
            (&forward[..], "logits.safetensors"),
            (&convert[..], "mine.bpk"),
            (&visualize[..], "other"),
        ] {
            let output = convzoo(path, &[command, &[out]].concat());
            assert!(output.status.success(), "{out}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

/// Photographs wait for their pass as the network's inputs: a folder of them takes no more memory than one.
#[cfg(target_os = "linux")]
#[test]
fn a_folder_of_large_photographs_takes_the_memory_of_one() {
    let folder = temp();
    let photo = folder.path().join("0.png");
    // 24 megapixels, 72 MB as bytes.
    image::RgbImage::from_pixel(6000, 4000, image::Rgb([200, 40, 90])).save(&photo).unwrap();
    for copy in 1..16 {
        fs::hard_link(&photo, folder.path().join(format!("{copy}.png"))).unwrap();
    }
    // Address space in KiB: the program, its threads' stacks and two such photographs, and not the 1.2 GB of all.
    let limited =
        format!("ulimit -v 1400000; exec '{}' predict . --batch-size 64 --json", env!("CARGO_BIN_EXE_convzoo"));
    let mut command = Command::new("sh");
    command.args(["-c", &limited]).current_dir(folder.path()).env("RAYON_NUM_THREADS", "2");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(parse(&output).as_array().unwrap().len(), 16);
}

#[cfg(unix)]
#[test]
fn what_is_no_regular_file_is_neither_read_nor_waited_for() {
    let folder = temp();
    let path = folder.path();
    fs::create_dir(path.join("run")).unwrap();
    let pipes = [path.join("pipe"), path.join("run/run.json")];
    assert!(Command::new("mkfifo").args(pipes).status().unwrap().success());
    image(&path.join("image.png"));
    lenet(path);
    for arguments in [
        &["predict", "image.png", "--weights", "pipe"][..],
        &["predict", "image.png", "--labels", "pipe"],
        &["predict", "image.png", "--weights", "/dev/zero"],
        &["convert", "lenet5", "pipe", "out.bpk"],
        &["forward", "lenet5", "--weights", "lenet5.safetensors", "--input", "pipe", "--output", "out.safetensors"],
        &["convert", "lenet5", "lenet5.safetensors", "pipe"],
        &["train", "--recipe", "./pipe"],
        &["train", "--recipe", "/dev/zero"],
        &["train", "--resume", "run"],
        &["bench", "lenet5", "--compare", "pipe"],
    ] {
        let told = error(path, arguments);
        assert!(["pipe", "/dev/zero", "run.json"].iter().any(|name| told.contains(name)), "{arguments:?}: {told}");
    }
}

#[cfg(unix)]
#[test]
fn strange_names_are_taken_and_told_without_steering_the_terminal() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let folder = temp();
    let path = folder.path();
    let names: [&[u8]; 3] = [b"1\xff.png", b"2\x1b[2J.png", b"3\nerror: forged.png"];
    for name in names {
        image(&path.join(OsStr::from_bytes(name)));
    }
    fs::write(path.join(OsStr::from_bytes(b"4\x07\xfe.jpg")), "no image").unwrap();
    fs::rename(lenet(path), path.join(OsStr::from_bytes(b"w\xff"))).unwrap();
    fs::write(path.join("labels"), "\x1b]0;title\x07\n".repeat(10)).unwrap();
    let run = |arguments: &[&[u8]]| {
        let arguments = arguments.iter().map(|argument| OsStr::from_bytes(argument));
        Command::new(env!("CARGO_BIN_EXE_convzoo")).args(arguments).current_dir(path).output().unwrap()
    };
    let labelled = [&b"--weights"[..], b"w\xff", b"--labels", b"labels"];
    // Each by name, and all by their folder.
    for images in [vec![names[0], names[1], names[2], b"4\x07\xfe.jpg"], vec![&b"."[..]]] {
        let output = run(&[&[&b"predict"[..]][..], &images[..], &labelled[..]].concat());
        let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8(text.clone()).unwrap());
        for text in [&out, &err] {
            assert!(!text.contains(|character: char| character.is_control() && character != '\n'), "{text:?}");
        }
        assert!(out.contains(r"1\xff.png") && out.contains(r"2\u{1b}[2J.png"), "{out}");
        assert!(out.contains(r"3\nerror: forged.png") && out.contains(r"\u{1b}]0;title\u{7}"), "{out}");
        assert_eq!(err.lines().filter(|line| line.starts_with("error:")).count(), 1, "{err}");
        assert!(err.contains(r"4\u{7}\xfe.jpg"), "{err}");
    }
    // Documents have the names as they are, as far as they are Unicode.
    let output = run(&[&[&b"predict"[..], b".", b"--json"][..], &labelled[..]].concat());
    let answers = parse(&output);
    assert_eq!(answers[1]["image"], "./2\x1b[2J.png");
    let output = run(&[&b"visualize"[..], b"lenet5", b".", b"--weights", b"w\xff", b"--what", b"saliency"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("saliency.html"), "{output:?}");
}

#[test]
fn the_cameras_orientation_is_applied_or_ignored() {
    let folder = temp();
    let path = folder.path();
    image(&path.join("plain.png"));
    let mut turned = fs::read(path.join("plain.png")).unwrap();
    // EXIF, big endian, one entry: orientation (0x112), a short, 2: mirrored. As a PNG's chunk, after its first.
    let exif = b"eXIfMM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x02\0\0\0\0\0\0";
    let crc = !exif.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    });
    let chunk = [&(exif.len() as u32 - 4).to_be_bytes(), &exif[..], &crc.to_be_bytes()].concat();
    turned.splice(33..33, chunk);
    fs::write(path.join("turned.png"), turned).unwrap();
    let probability = |arguments: &[&str]| {
        let answers = json(path, &[&["predict", "--json", "--top", "1", "--device", "flex"], arguments].concat());
        answers[0]["top"][0]["probability"].as_f64().unwrap()
    };
    let plain = probability(&["plain.png"]);
    assert_eq!(probability(&["turned.png", "--orientation", "ignore"]), plain);
    assert_ne!(probability(&["turned.png"]), plain);
    assert_eq!(probability(&["turned.png"]), probability(&["turned.png", "--orientation", "apply"]));
}

/// A terminal by `script`, which answers nothing that it is asked.
#[cfg(target_os = "linux")]
#[test]
fn a_terminal_that_does_not_reply_is_not_waited_for() {
    use std::process::Stdio;
    use std::time::{Duration, Instant};
    if Command::new("script").arg("--version").output().is_err() {
        eprintln!("skipped: there is no `script` that makes a terminal");
        return;
    }
    let folder = temp();
    image(&folder.path().join("image.png"));
    let shown = format!("'{}' predict image.png --show", env!("CARGO_BIN_EXE_convzoo"));
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &shown, "/dev/null"]).current_dir(folder.path());
    command.env("TERM", "xterm-256color").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Standard input stays open, and says nothing.
    let silent = child.stdin.take();
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_secs(30) {
            child.kill().unwrap();
            panic!("it waits for an answer");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(silent);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains('▄') && text.contains("probability"), "{text}");
}

#[test]
fn features_that_cannot_be_completed_leave_nothing() {
    use convzoo::embed::FeatureFile;
    for name in ["taken.npy", "taken.safetensors"] {
        let folder = temp();
        // A folder stands where the file should go.
        fs::create_dir_all(folder.path().join(name).join("inside")).unwrap();
        let mut file = FeatureFile::create(&folder.path().join(name), 2).unwrap();
        file.push(&[1.0, 2.0]).unwrap();
        assert!(file.finish().is_err());
        let left: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [name]);
    }
}
