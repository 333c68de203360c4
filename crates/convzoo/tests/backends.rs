//! The same networks answer the same on every device that is compiled in and present.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

#[path = "../../convzoo-models/tests/common/mod.rs"]
mod common;

use std::path::Path;

use convzoo::{Classifier, Options, device};

/// The golden logits, computed by PyTorch, agree to 1e-4 relative on the device of this name, if it is there.
fn agrees(device: &str, names: &[&str]) {
    let device = match device::open(device) {
        Ok(device) => device,
        Err(reason) => return eprintln!("skipped: {reason}"),
    };
    for name in names {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../convzoo-models/tests/goldens/{name}.eval.json"));
        let golden: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let shape: [usize; 4] = std::array::from_fn(|i| golden["input"][i].as_u64().unwrap() as usize);
        let network = common::filled(name, &Options::default(), &device);
        let logits = network.forward(common::input(shape, &device)).try_into_vec_as::<f32>().unwrap();
        let expected = golden["logits"][0].as_array().unwrap().iter().map(|value| value.as_f64().unwrap());
        let (mut difference, mut norm) = (0.0, 0.0);
        for (own, expected) in logits.into_iter().zip(expected) {
            difference += (f64::from(own) - expected).powi(2);
            norm += expected.powi(2);
        }
        let error = (difference / norm).sqrt();
        assert!(error < 1e-4, "{name} on {device:?}: logits differ by {error:.1e} relative");
        println!("{name} on {device:?}: within {error:.1e} relative");
    }
}

#[test]
fn goldens_hold_on_ndarray() {
    agrees("ndarray", &["alexnet", "squeezenet1_1", "googlenet", "resnet18", "densenet121"]);
}

#[test]
fn goldens_hold_on_wgpu() {
    // Mesa's software Vulkan gives no buffer of more than 128 MiB: AlexNet's first fully-connected layer has 144.
    agrees("wgpu", &["squeezenet1_1", "googlenet", "resnet18", "densenet121"]);
}
