//! An epoch of LeNet-5 as a user trains it, on the part of MNIST that continuous integration has and on ndarray.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod support;

use std::process::Command;

#[test]
fn an_epoch_of_mnist_is_learned() {
    let Some(data) = support::shared("data/mnist-t10k") else { return };
    let accuracy = epoch(&["--data", "mnist", "--data-dir", &data.to_string_lossy()]);
    assert!(accuracy > 0.9, "{accuracy}");
}

#[cfg(feature = "ndarray")]
#[test]
fn an_epoch_of_digits_is_alike_on_ndarray() {
    let [flex, ndarray] = ["flex", "ndarray"].map(|device| epoch(&["--data", "digits", "--device", device]));
    // The same weights to begin with and the same batches; only the order of additions differs.
    assert!((flex - ndarray).abs() < 0.02, "flex {flex}, ndarray {ndarray}");
}

/// The accuracy on test images after an epoch of LeNet-5.
fn epoch(options: &[&str]) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_convzoo"))
        .args(["train", "lenet5", "--epochs", "1", "--json", "--out", "run"])
        .args(options)
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let run: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    run["epochs"][0]["test"]["accuracy"].as_f64().unwrap()
}
