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
    assert!(err.contains("error: images/b.png") && err.contains("error: images/c.jpg"), "{err}");

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
    // Onto itself, and in half the size.
    assert!(convzoo(path, &["convert", "lenet5", "a.bpk", "a.bpk"]).status.success());
    assert!(convzoo(path, &["convert", "lenet5", "a.bpk", "half.safetensors", "--f16"]).status.success());
    let length = |file: &str| path.join(file).metadata().unwrap().len();
    assert!(length("half.safetensors") < length("b.safetensors") * 6 / 10);

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
        (&["lenet5", "lenet5.safetensors", "out.pth"], "must end in .safetensors or .bpk"),
        (&["lenet5", "lenet5.safetensors", "nowhere/out.bpk"], "nowhere"),
        (&["lenet6", "lenet5.safetensors", "out.bpk"], "did you mean lenet5"),
        (&["resnet18", "lenet5.safetensors", "out.bpk"], "missing"),
        (&["lenet5", "lenet5.safetensors", "out.bpk", "--replace-head", "0"], "at least one class"),
    ] {
        let told = error(path, &[&["convert"], arguments].concat());
        assert!(told.contains(part), "{arguments:?}: {told}");
    }
}
