//! The same function on three devices: a network never names a backend, the device is a value.
//!
//! `cargo run --release --example switch_backend`

use std::time::Instant;

use burn::tensor::{Device, Tensor};
use convzoo::{Classifier, Options, create, device};

/// What an untrained SqueezeNet makes of a grey image. Nothing here knows where it runs.
fn classify(device: &Device) -> Result<Vec<f32>, Box<dyn std::error::Error>> {
    device.seed(1);
    let network = create("squeezenet1_1", &Options::default().with_classes(5), device)?;
    let image = Tensor::full([1, 3, 64, 64], 0.5, device);
    Ok(network.forward(image).try_into_vec_as::<f32>()?)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // wgpu is there when the program is built with `--features wgpu` and a GPU is present.
    for name in ["flex", "ndarray", "wgpu"] {
        match device::open(name) {
            Ok(device) => {
                let start = Instant::now();
                let logits = classify(&device)?;
                println!("{name}: {logits:.3?} after {:.0?}", start.elapsed());
            }
            Err(reason) => println!("{name}: {reason}"),
        }
    }
    Ok(())
}
