//! Networks filled by the formula of the goldens: every value is a function of its tensor's name and index, so a
//! golden ships no weights; and what tests of families ask of a network.
#![allow(dead_code)] // each test binary uses its part

use std::path::PathBuf;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::store::bridge;
use burn::tensor::{Device, Tensor, TensorData};
use convzoo_models::weights::Checkpoint;
use convzoo_models::{Network, Options, Summary, create};

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

/// What the formula puts into the tensor of this name and shape, weights with this gain.
pub fn values(name: &str, shape: &[usize], gain: f64) -> TensorData {
    let elements: usize = shape.iter().product();
    let (offset, scale) = match name {
        _ if name.split('.').next() == Some("input") => (0.0, 3f64.sqrt()),
        _ if name.ends_with("running_mean") => (0.0, 0.1),
        _ if name.ends_with("running_var") => (1.0, 0.5),
        _ if shape.len() >= 2 => (0.0, (gain / (elements / shape[0]) as f64).sqrt()),
        _ if name.ends_with(".weight") => (1.0, 0.5),
        _ => (0.0, 0.1),
    };
    let seed = fnv1a64(name);
    let values: Vec<f32> = (0..elements as u64).map(|i| (offset + scale * unit(seed, i)) as f32).collect();
    TensorData::new(values, shape)
}

/// The folder of the goldens: beside the package under test, also where the program was built on another machine and
/// `CARGO_MANIFEST_DIR` says where the package lies on this one.
pub fn goldens() -> PathBuf {
    let package =
        std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    package.join("../convzoo-models/tests/goldens")
}

/// The gain of a network's weights, as its golden says it: networks with gates have smaller ones.
fn gain(name: &str) -> f64 {
    let golden = std::fs::read_to_string(goldens().join(format!("{name}.eval.json"))).ok();
    let golden: Option<serde_json::Value> = golden.map(|text| serde_json::from_str(&text).unwrap());
    golden.and_then(|golden| golden["gain"].as_f64()).unwrap_or(6.0)
}

/// The network of this name with the formula's weights.
pub fn filled(name: &str, options: &Options, device: &Device) -> Network {
    let network = create(name, options, device).unwrap();
    let tensors = network.state().into_iter().map(|entry| {
        let data = values(&entry.name, &entry.shape, gain(network.name()));
        bridge::from_data(data, entry.name, None)
    });
    Checkpoint::from_tensors(tensors).apply(network).unwrap()
}

/// The formula's images, `[batch, channels, height, width]`.
pub fn input(shape: [usize; 4], device: &Device) -> Tensor<4> {
    images("input", shape, device)
}

/// The formula's images of another name: `input.1`, `input.2` and so on.
pub fn images(name: &str, shape: [usize; 4], device: &Device) -> Tensor<4> {
    Tensor::from_data(values(name, &shape, 6.0), device)
}

/// Channels and height of the outputs of the layers of these kinds, in the order of their calls.
pub fn maps(summary: &Summary, kinds: &[&str]) -> Vec<[usize; 2]> {
    let layers = summary.layers.iter().filter(|layer| kinds.contains(&layer.kind));
    layers.map(|layer| [layer.output[0], layer.output[1]]).collect()
}

/// Mean and standard deviation of the tensor that the reference names so.
pub fn moments(network: &Network, name: &str) -> [f64; 2] {
    struct Find(ParamId, Option<[f64; 2]>);
    impl ModuleVisitor for Find {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.id == self.0 {
                let data = param.val().into_data();
                let mean = data.iter::<f64>().sum::<f64>() / data.num_elements() as f64;
                let square = data.iter::<f64>().map(|x| (x - mean) * (x - mean)).sum::<f64>();
                self.1 = Some([mean, (square / data.num_elements() as f64).sqrt()]);
            }
        }
    }
    let entry = network.state().into_iter().find(|entry| entry.name == name);
    let mut find = Find(entry.unwrap_or_else(|| panic!("no tensor is named {name}")).id, None);
    network.visit(&mut find);
    find.1.unwrap()
}
