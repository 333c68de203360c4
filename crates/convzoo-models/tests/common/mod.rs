//! Networks filled by the formula of the goldens: every value is a function of its tensor's name and index, so a
//! golden ships no weights.

use burn::store::bridge;
use burn::tensor::{Device, Tensor, TensorData};
use convzoo_models::weights::Checkpoint;
use convzoo_models::{Network, Options, create};

fn fnv1a64(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// In [-1, 1).
fn unit(seed: u64, index: u64) -> f64 {
    let mut z = seed.wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z ^= z >> 30;
    z = z.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z ^= z >> 27;
    z = z.wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    2.0 * (z >> 40) as f64 / f64::from(1 << 24) - 1.0
}

/// What the formula puts into the tensor of this name and shape.
pub fn values(name: &str, shape: &[usize]) -> TensorData {
    let elements: usize = shape.iter().product();
    let (offset, scale) = match name {
        "input" => (0.0, 3f64.sqrt()),
        _ if name.ends_with("running_mean") => (0.0, 0.1),
        _ if name.ends_with("running_var") => (1.0, 0.5),
        _ if shape.len() >= 2 => (0.0, (6.0 / (elements / shape[0]) as f64).sqrt()),
        _ if name.ends_with(".weight") => (1.0, 0.5),
        _ => (0.0, 0.1),
    };
    let seed = fnv1a64(name);
    let values: Vec<f32> = (0..elements as u64).map(|i| (offset + scale * unit(seed, i)) as f32).collect();
    TensorData::new(values, shape)
}

/// The network of this name with the formula's weights.
pub fn filled(name: &str, options: &Options, device: &Device) -> Network {
    let network = create(name, options, device).unwrap();
    let tensors = network.state().into_iter().map(|entry| {
        let data = values(&entry.name, &entry.shape);
        bridge::from_data(data, entry.name, None)
    });
    Checkpoint::from_tensors(tensors).apply(network).unwrap()
}

/// The formula's images, `[batch, channels, height, width]`.
pub fn input(shape: [usize; 4], device: &Device) -> Tensor<4> {
    Tensor::from_data(values("input", &shape), device)
}
