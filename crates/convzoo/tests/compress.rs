//! Deep Compression by the library and on the command line.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod support;

use std::collections::HashSet;
use std::fs;
use std::time::Instant;

use burn::tensor::Device;
use burn::train::Interrupter;
use convzoo::compress::{Archive, Compression, Plan, Training};
use convzoo::data::{Source, Splits, Subset, open};
use convzoo::pretrained::lenet5_digits;
use convzoo::train::Recipe;
use convzoo::{Classifier, Network, Options, create, preprocess, weights};
use serde_json::Value;
use support::{convzoo, error, json, shared, temp};

/// LeNet-5 for digits, and a few of them to train it with.
fn digits(runs: &std::path::Path) -> (Network, Training) {
    let device = Device::flex();
    let network = lenet5_digits(&device.clone().autodiff()).unwrap();
    let data = open("digits", &Source::default()).unwrap();
    let train = std::sync::Arc::new(Subset::new(data.train.clone(), (0..256).collect()));
    let data = Splits { train, ..data };
    let preprocess = preprocess(&network.preprocessing(), network.input(), &data.train.get(0).unwrap().image);
    let (runs, interrupter) = (runs.to_owned(), Interrupter::new());
    (network, Training { data, preprocess, device, runs, seed: 0, interrupter })
}

fn zeros(compression: &Compression) -> HashSet<(String, usize)> {
    let of = |tensor: &convzoo::compress::Tensor| {
        let name = tensor.name.clone();
        let zeros = tensor.values.iter().enumerate().filter(|(_, value)| **value == 0.0);
        zeros.map(|(index, _)| (name.clone(), index)).collect::<Vec<_>>()
    };
    let weights = compression.tensors().iter().filter(|tensor| tensor.shape.len() > 1);
    weights.flat_map(of).collect()
}

#[test]
fn retraining_moves_the_weights_that_are_left_and_no_others() {
    let folder = temp();
    let (network, training) = digits(folder.path());
    let mut compression = Compression::new(network).unwrap().with_training(training);
    compression.prune(|_| Some(0.8)).unwrap();
    let (gone, before) = (zeros(&compression), compression.tensors().to_vec());
    // Momentum and decay must not bring back what is gone either.
    let recipe = Recipe { epochs: 1, learning_rate: 0.02, weight_decay: 1e-3, ..Recipe::default() };
    compression.retrain(&recipe).unwrap();
    assert_eq!(zeros(&compression), gone, "other weights are zero than before");
    let moved = |(a, b): (&convzoo::compress::Tensor, &convzoo::compress::Tensor)| a.values != b.values;
    assert!(before.iter().zip(compression.tensors()).all(moved), "a tensor was not trained");
}

#[test]
fn fine_tuning_moves_shared_values_together() {
    let folder = temp();
    let (network, training) = digits(folder.path());
    let mut compression = Compression::new(network).unwrap().with_training(training);
    compression.prune(|_| Some(0.8)).unwrap();
    compression.share(|_| Some(3)).unwrap();
    let before = compression.tensors().to_vec();
    compression.tune(&Recipe { epochs: 1, learning_rate: 1e-4, ..Recipe::default() }).unwrap();
    for (before, after) in before.iter().zip(compression.tensors()).filter(|(tensor, _)| tensor.shape.len() > 1) {
        let pairs = before.values.iter().zip(&after.values).map(|(a, b)| (a.to_bits(), b.to_bits()));
        let pairs: HashSet<_> = pairs.collect();
        let values: HashSet<_> = before.values.iter().map(|value| value.to_bits()).collect();
        assert_eq!(pairs.len(), values.len(), "{}: weights of one value have parted", before.name);
        assert_ne!(before.values, after.values, "{} was not trained", before.name);
    }
}

#[test]
fn a_plan_is_run_step_by_step_and_told() {
    let folder = temp();
    let (network, training) = digits(folder.path());
    let mut compression = Compression::new(network).unwrap().with_training(training);
    let plan = Plan { bits: "4,c1=6".parse().ok(), sparsity: "0.7,output=0.3".parse().ok(), ..Plan::default() };
    compression.run(&plan).unwrap();
    let steps: Vec<_> = compression.steps().iter().map(|step| step.name.as_str()).collect();
    assert_eq!(steps, ["given", "pruned", "shared", "Huffman-coded"]);
    let bytes: Vec<_> = compression.steps().iter().map(|step| step.bytes).collect();
    assert!(bytes.windows(2).all(|pair| pair[1] < pair[0]), "bytes by step: {bytes:?}");
    let accuracy = compression.steps()[3].accuracy.unwrap();
    assert!(accuracy > 0.9, "accuracy {accuracy}");
    let share = |name: &str| {
        let tensor = compression.tensors().iter().find(|tensor| tensor.name == name).unwrap();
        tensor.values.iter().filter(|value| **value == 0.0).count() as f64 / tensor.values.len() as f64
    };
    assert!((share("c5.weight") - 0.7).abs() < 0.01, "{}", share("c5.weight"));
    assert!((share("output.weight") - 0.3).abs() < 0.01, "{}", share("output.weight"));
}

#[test]
fn the_file_is_weights_for_every_command_and_comes_back_bit_by_bit() {
    let folder = temp();
    let original = folder.path().join("lenet5.safetensors");
    weights::save(&lenet5_digits(&Device::flex()).unwrap(), &original).unwrap();
    let run = |arguments: &[&str]| json(folder.path(), arguments);
    let whole = run(&["compress", "--weights", "lenet5.safetensors", "-o", "whole.czc", "--json"]);
    assert_eq!(whole["steps"].as_array().unwrap().len(), 2, "{whole}");
    let output = convzoo(folder.path(), &["convert", "whole.czc", "back.safetensors"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(fs::read(&original).unwrap() == fs::read(folder.path().join("back.safetensors")).unwrap(), "other bytes");

    let small = ["compress", "--weights", "lenet5.safetensors", "--sparsity", "0.8", "--bits", "4", "-o", "small.czc"];
    let small = run(&[&small[..], &["--data", "digits", "--report", "small.html", "--json"]].concat());
    let bytes = small["bytes"].as_u64().unwrap();
    assert_eq!(bytes, folder.path().join("small.czc").metadata().unwrap().len());
    assert!(bytes * 10 < small["uncompressed"].as_u64().unwrap(), "{bytes} bytes");
    assert!(fs::read_to_string(folder.path().join("small.html")).unwrap().contains("Accuracy against size"));
    let told = small["steps"].as_array().unwrap().last().unwrap()["accuracy"].as_f64().unwrap();
    let measured = run(&["eval", "--weights", "small.czc", "--data", "digits", "--json"]);
    assert_eq!(measured["top1"].as_f64().unwrap(), told, "eval reads another network");
    // Again without loss: nothing to gain, nothing lost.
    let again = run(&["compress", "--weights", "small.czc", "-o", "again.czc", "--json"]);
    assert_eq!(again["bytes"], small["bytes"]);
}

#[test]
fn what_cannot_be_done_says_why() {
    let folder = temp();
    weights::save(&lenet5_digits(&Device::flex()).unwrap(), &folder.path().join("w.safetensors")).unwrap();
    fs::write(folder.path().join("plan.toml"), "sparseness = 0.5").unwrap();
    let cases: [(&[&str], &str); 8] = [
        (&["--sparsity", "1.5"], "sparsity must be at least 0 and below 1, not 1.5"),
        (&["--sparsity", "half"], "'half' is no number"),
        (&["--sparsity", "c9=0.5"], "the layer 'c9', and the network's layers with weights are c1, c3, c5, f6, output"),
        (&["--bits", "13"], "bits must be from 1 to 12"),
        (&["--bits", "4", "--epochs", "1"], "--data"),
        (&["--sparsity", "sensitivity"], "--data"),
        (&["--rounds", "3"], "no sparsity"),
        (&["--recipe", "plan.toml"], "unknown field `sparseness`"),
    ];
    for (arguments, part) in cases {
        let command = [&["compress", "--weights", "w.safetensors", "-o", "out.czc"][..], arguments].concat();
        let output = convzoo(folder.path(), &command);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && told.contains(part), "{arguments:?} told: {told}");
        assert!(!folder.path().join("out.czc").exists(), "{arguments:?} left a file");
    }
    let told = error(folder.path(), &["compress", "--weights", "w.safetensors", "-o", "out.zip"]);
    assert!(told.contains("must end in .czc"), "{told}");
}

/// Of the authors' release, which is pruned and has at most 628 values a layer.
#[test]
fn squeezenet_takes_half_a_megabyte() {
    let Some(given) = shared("data/weights/squeezenet1_0-imagenet.safetensors") else { return };
    let folder = temp();
    let given = given.to_str().unwrap();
    let compress = |out: &str, options: &[&str]| -> Value {
        let command = ["compress", "squeezenet1_0", "--weights", given, "-o", out, "--json"];
        json(folder.path(), &[&command[..], options].concat())
    };
    let whole = compress("whole.czc", &[]);
    assert!(whole["bytes"].as_u64().unwrap() <= 560_000, "{} bytes without loss", whole["bytes"]);
    let six = compress("six.czc", &["--bits", "6"]);
    assert!(six["bytes"].as_u64().unwrap() <= 470_000, "{} bytes with six bits", six["bytes"]);
    // Both are read back and written again as what they were written from.
    for (from, to) in [(given, "a.safetensors"), ("whole.czc", "b.safetensors")] {
        let output = convzoo(folder.path(), &["convert", "squeezenet1_0", from, to]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let [a, b] = ["a.safetensors", "b.safetensors"].map(|name| fs::read(folder.path().join(name)).unwrap());
    assert!(a == b, "the compressed file gives back other bits");
}

/// How long SqueezeNet's tensors take to decode: what `docs/src/compression.md` shows.
#[test]
#[ignore = "it measures"]
fn decoding_by_time() {
    let Some(given) = shared("data/weights/squeezenet1_0-imagenet.safetensors") else { return };
    let network = create("squeezenet1_0", &Options::default(), &Device::flex()).unwrap();
    let file = weights::compressed(&weights::load(network, &given).unwrap()).unwrap();
    let once = || {
        let start = Instant::now();
        let archive = Archive::read(file.clone()).unwrap();
        (0..archive.entries().len()).for_each(|index| assert!(!archive.values(index).unwrap().is_empty()));
        start.elapsed().as_secs_f64() * 1e3
    };
    let mut times: Vec<f64> = (0..50).map(|_| once()).collect();
    times.sort_by(f64::total_cmp);
    println!("{} bytes are decoded in {:.1} ms, at best {:.1} ms", file.len(), times[25], times[0]);
}
