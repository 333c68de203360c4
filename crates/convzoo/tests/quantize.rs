//! Networks in bytes, by the library and on the command line.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod support;

use std::fs;
use std::path::Path;

use burn::tensor::{Device, Distribution, Tensor};
use convzoo::pretrained::lenet5_digits;
use convzoo::quantize::{Calibration, QuantizeOptions};
use convzoo::{Classifier, Inference, Options, Precision, Predict, create, weights};
use serde_json::{Map, Value, json};
use support::{convzoo, error, json, temp};

/// LeNet-5's weights for digits, as a file in a folder.
fn lenet5(folder: &Path) {
    weights::save(&lenet5_digits(&Device::flex()).unwrap(), &folder.join("lenet5.safetensors")).unwrap();
}

const QUANTIZE: [&str; 5] = ["quantize", "--weights", "lenet5.safetensors", "--calibrate", "digits"];

#[test]
fn the_file_is_weights_for_every_command_and_loses_nothing_on_digits() {
    let folder = temp();
    lenet5(folder.path());
    let run = |arguments: &[&str]| json(folder.path(), arguments);
    let told = run(&[&QUANTIZE[..], &["-o", "int8.safetensors", "--json"]].concat());
    let layers: Vec<&str> =
        told["layers"].as_array().unwrap().iter().map(|layer| layer["name"].as_str().unwrap()).collect();
    assert_eq!(layers, ["c1", "c3", "c5", "f6", "output"]);
    assert!(told["logits"].as_f64().unwrap() > 25.0, "{told}");
    let bytes = folder.path().join("int8.safetensors").metadata().unwrap().len();
    assert_eq!(told["bytes"].as_u64(), Some(bytes));
    assert!(bytes * 10 < told["uncompressed"].as_u64().unwrap() * 3, "{bytes} bytes");

    let correct = |weights: &str, more: &[&str]| {
        let command = [&["eval", "--weights", weights, "--data", "digits", "--json"][..], more].concat();
        run(&command)["correct"].as_i64().unwrap()
    };
    let floats = correct("lenet5.safetensors", &[]);
    for (what, found) in [
        ("the file in bytes", correct("int8.safetensors", &[])),
        ("the file in floats", correct("int8.safetensors", &["--precision", "f32"])),
        ("weights that are quantized on the images at hand", correct("lenet5.safetensors", &["--precision", "int8"])),
    ] {
        assert!((floats - found).abs() <= 1, "{what}: {found} right, {floats} in floats");
    }
    // Other formats have the rounded weights in floats.
    let output = convzoo(folder.path(), &["convert", "int8.safetensors", "floats.safetensors"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(correct("floats.safetensors", &[]), correct("int8.safetensors", &["--precision", "f32"]));
    // ONNX has operations on bytes, and no weights to read; convzoo knows the file for its own when it writes it again.
    for _ in 0..2 {
        let output = convzoo(folder.path(), &["convert", "int8.safetensors", "int8.onnx"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(folder.path().join("int8.onnx").metadata().unwrap().len() < 2 * bytes);
    let told = error(folder.path(), &["convert", "int8.onnx", "back.safetensors"]);
    assert!(told.contains("int8.onnx is a quantized network"), "{told}");
    let told = error(folder.path(), &["convert", "int8.safetensors", "kept.onnx", "--keep-norms"]);
    assert!(told.contains("cannot be kept apart"), "{told}");
}

#[test]
fn a_layer_that_is_kept_computes_in_floats() {
    let folder = temp();
    lenet5(folder.path());
    let kept = [
        &QUANTIZE[..],
        &["--method", "percentile", "--keep", "c1", "--keep", "output", "-o", "k.safetensors", "--json"],
    ];
    let told = json(folder.path(), &kept.concat());
    let int8: Vec<bool> =
        told["layers"].as_array().unwrap().iter().map(|layer| layer["int8"].as_bool().unwrap()).collect();
    assert_eq!(int8, [false, true, true, true, false]);
    let told = error(folder.path(), &[&QUANTIZE[..], &["--keep", "c9", "-o", "k.safetensors"]].concat());
    assert!(told.contains("no layer 'c9' to keep; the network's layers are c1, c3, c5, f6, output"), "{told}");
    let told = error(folder.path(), &[&QUANTIZE[..], &["-o", "k.czc"]].concat());
    assert!(told.contains("must end in .safetensors"), "{told}");
}

#[test]
fn a_file_gives_the_same_network_again() {
    let device = Device::flex();
    let folder = temp();
    // Depthwise convolutions, gates and curved activations; concatenations; a norm before each activation.
    for (name, side) in [("mobilenet_v3_small", 64), ("googlenet", 64), ("densenet40_k12", 32), ("resnet20_cifar", 32)]
    {
        device.seed(1);
        let network = create(name, &Options::default().with_classes(10), &device).unwrap();
        let images = Tensor::random([2, 3, side, side], Distribution::Normal(0.0, 1.0), &device);
        for calibration in [Calibration::MinMax, Calibration::MeanSquaredError] {
            let options = QuantizeOptions { calibration, ..QuantizeOptions::default() };
            let quantized = network.quantize(std::slice::from_ref(&images), &options).unwrap();
            let file = folder.path().join("int8.safetensors");
            weights::save_quantized(&quantized, &file).unwrap();
            let again = create(name, &Options::default().with_classes(10), &device).unwrap();
            let again = weights::load(again, &file).unwrap();
            assert_eq!(again.quantization(), quantized.quantization(), "{name}: other scales");
            let logits = |network, precision| {
                let inference = Inference::new(network, precision).unwrap();
                inference.predict(images.clone()).unwrap().try_into_vec_as::<f32>().unwrap()
            };
            let expected = logits(quantized, Precision::Int8);
            assert_eq!(logits(again, Precision::Int8), expected, "{name}: other logits");
            let floats = logits(network.clone(), Precision::F32);
            let square = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x * x)).sum::<f64>();
            let noise = square(&mut floats.iter().zip(&expected).map(|(a, b)| a - b));
            let ratio = 10.0 * (square(&mut floats.iter().copied()) / noise).log10();
            println!("{name}, {calibration:?}: logits {ratio:.1} dB above their noise");
            assert!(ratio > 10.0, "{name}, {calibration:?}: {ratio:.1} dB");
        }
    }
}

/// How many of the digits held out the weights in a file classify correctly.
fn correct(folder: &Path, weights: &str) -> i64 {
    json(folder, &["eval", "--weights", weights, "--data", "digits", "--json"])["correct"].as_i64().unwrap()
}

#[test]
fn training_in_bytes_wins_back_what_few_bits_lose() {
    let folder = temp();
    let path = folder.path();
    lenet5(path);
    json(path, &[&QUANTIZE[..], &["--weight-bits", "2", "-o", "rounded.safetensors", "--json"]].concat());
    let train = ["train", "lenet5", "--epochs", "3", "--set", "quantization.weight_bits=2", "--json"];
    let told = json(path, &[&train[..], &["--weights", "lenet5.safetensors", "--out", "run"]].concat());
    let [floats, rounded, tuned] = ["lenet5.safetensors", "rounded.safetensors", "run/best-int8.safetensors"]
        .map(|weights| correct(path, weights));
    println!("of 360 digits: {floats} in floats, {rounded} in two bits, {tuned} trained in two bits");
    assert!(rounded < floats - 10, "{rounded} in two bits, {floats} in floats: there is nothing to win back");
    assert!(
        tuned - rounded > (floats - rounded) / 2,
        "{tuned} trained in two bits, {rounded} before, {floats} in floats"
    );

    // What training said of the network is what the network in bytes does.
    let best = told["best_epoch"].as_u64().unwrap() as usize;
    let said = told["epochs"][best - 1]["test"]["accuracy"].as_f64().unwrap() * 360.0;
    assert!((said - tuned as f64).abs() < 1.5, "training said {said} of 360, the file gives {tuned}");

    let told = error(path, &train);
    assert!(told.contains("without --weights the network is random"), "{told}");
}

#[test]
fn what_cannot_be_equalized_is_told() {
    let folder = temp();
    let path = folder.path();
    lenet5(path);
    let output = convzoo(path, &[&QUANTIZE[..], &["--equalize", "-o", "lenet5-int8.safetensors"]].concat());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("lenet5 has no layer before depthwise convolutions"), "{told}");
}

/// A safetensors file with its header changed.
fn with_header(bytes: &[u8], change: impl FnOnce(&mut Map<String, Value>)) -> Vec<u8> {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Map<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    change(&mut header);
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    [&(header.len() as u64).to_le_bytes(), &header[..], &bytes[8 + length..]].concat()
}

#[test]
fn scales_that_are_none_are_refused() {
    let folder = temp();
    lenet5(folder.path());
    json(folder.path(), &[&QUANTIZE[..], &["-o", "int8.safetensors", "--json"]].concat());
    let bytes = fs::read(folder.path().join("int8.safetensors")).unwrap();
    let refused = |bytes: &[u8], expected: &str| {
        fs::write(folder.path().join("bad.safetensors"), bytes).unwrap();
        let told = error(folder.path(), &["eval", "lenet5", "--weights", "bad.safetensors", "--data", "digits"]);
        assert!(told.contains(expected), "{told}");
    };
    let length = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..length]).unwrap();
    let start = |name: &str| length + header[name]["data_offsets"][0].as_u64().unwrap() as usize;
    let put = |name: &str, number: usize, value: f32| {
        let mut bytes = bytes.clone();
        bytes[start(name) + 4 * number..][..4].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    for value in [0.0, -1.0, 1e-40] {
        refused(&put("c3.weight_scale", 5, value), "'c3.weight_scale' holds");
        refused(&put("c3.output_scale", 0, value), "which are no scale and no byte");
    }
    refused(&put("c3.weight_scale", 5, f32::NAN), "'c3.weight_scale' holds NaN");
    refused(&put("c3.output_scale", 1, 256.0), "which are no scale and no byte");
    refused(&put("c3.output_scale", 1, 0.5), "which are no scale and no byte");
    refused(&put("c3.output_correction", 0, f32::INFINITY), "'c3.output_correction' holds inf");
    let mut low = bytes.clone();
    low[start("c3.weight")] = 0x80;
    refused(&low, "'c3.weight' holds -128");
    let renamed = with_header(&bytes, |header| {
        let scale = header.remove("c3.weight_scale").unwrap();
        header.insert("c4.weight_scale".to_owned(), scale);
    });
    refused(&renamed, "'c3.weight' is bytes without a scale");
    let reshaped = with_header(&bytes, |header| {
        header["c3.weight_scale"]["shape"] = json!([4, 4]);
    });
    refused(&reshaped, "should be F32 [16]");
    for length in [0, 7, length / 2, length, bytes.len() / 2, bytes.len() - 1] {
        fs::write(folder.path().join("bad.safetensors"), &bytes[..length]).unwrap();
        error(folder.path(), &["eval", "lenet5", "--weights", "bad.safetensors", "--data", "digits"]);
    }
}
