//! What is on a photograph, by a network with published weights. The first time, the weights are downloaded (98 MB).
//!
//! `cargo run --release --example pretrained PHOTO`

use convzoo::{classify_file, create_pretrained, device};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(photo) = std::env::args().nth(1) else {
        println!("usage: pretrained PHOTO");
        return Ok(());
    };
    let network = create_pretrained("resnet50", "imagenet1k_v2", &device::open("flex")?)?;
    for prediction in classify_file(&network, photo, 5)? {
        println!("{:6.2}%  {}", 100.0 * prediction.probability, prediction.name());
    }
    Ok(())
}
