//! LeNet-5 on the part of MNIST that continuous integration has. One epoch here; the README's command does five.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod support;

use std::process::Command;

#[test]
fn an_epoch_of_mnist_is_learned_and_alike_on_ndarray() {
    let Some(data) = support::shared("data/mnist-t10k") else { return };
    let folder = tempfile::tempdir().unwrap();
    let accuracy = |device: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_convzoo"))
            .args(["train", "lenet5", "--data", "mnist", "--epochs", "1", "--json", "--device", device, "--data-dir"])
            .arg(&data)
            .args(["--out", device])
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let run: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        run["epochs"][0]["test"]["accuracy"].as_f64().unwrap()
    };
    let flex = accuracy("flex");
    assert!(flex > 0.9, "flex: {flex}");
    if cfg!(feature = "ndarray") {
        let ndarray = accuracy("ndarray");
        // The same weights to begin with and the same batches; only the order of additions differs.
        assert!((flex - ndarray).abs() < 0.02, "flex {flex}, ndarray {ndarray}");
    }
}
