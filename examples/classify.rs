//! From images to labels in ten lines.
//!
//! `cargo run --release --example classify [-- IMAGE…]`; without images, some digits that the network never saw.

use convzoo::data::{Source, open};
use convzoo::{classify, classify_file, device, pretrained};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let network = pretrained::lenet5_digits(&device::open("flex")?)?;
    let files: Vec<String> = std::env::args().skip(1).collect();
    for file in &files {
        println!("{file}: {:?}", classify_file(&network, file, 3)?);
    }
    if files.is_empty() {
        let digits = open("digits", &Source::default())?.test;
        for index in 0..5 {
            let sample = digits.get(index)?;
            let best = &classify(&network, &sample.image, 1)?[0];
            let (label, percent) = (best.label.as_deref().unwrap_or("?"), 100.0 * best.probability);
            println!("a {} is classified as {label} with probability {percent:.1}%", sample.label);
        }
    }
    Ok(())
}
