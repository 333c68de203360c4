//! Every network agrees with what PyTorch computed for it: state, layer table and logits.
//!
//! `goldens/` holds figures of torch 2.9.0, torchvision 0.24.0 and timm 1.0.31.

mod common;

use std::path::Path;

use burn::tensor::Device;
use convzoo_models::{Classifier, Options};
use serde_json::Value;

fn golden(file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

fn usizes(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect()
}

/// ‖a − b‖ / ‖b‖.
fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f64| x * x;
    let difference: f64 = a.iter().zip(b).map(|(a, b)| square(f64::from(a - b))).sum();
    let norm: f64 = b.iter().map(|b| square(f64::from(*b))).sum();
    (difference / norm).sqrt()
}

fn agrees(name: &str) {
    let golden = golden(&format!("{name}.eval.json"));
    let device = Device::flex();
    let network = common::filled(name, &Options::default(), &device);
    let shape: [usize; 4] = usizes(&golden["input"]).try_into().unwrap();

    let mut state: Vec<_> = network.state().into_iter().map(|entry| (entry.name, entry.shape)).collect();
    let mut expected: Vec<_> = golden["state"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry[0].as_str().unwrap().to_owned(), usizes(&entry[1])))
        .filter(|(name, _)| !name.ends_with("num_batches_tracked"))
        .collect();
    state.sort();
    expected.sort();
    assert_eq!(state, expected, "{name}: state names and shapes");

    let summary = network.summary(shape[1..].try_into().unwrap()).unwrap();
    assert_eq!(summary.params as u64, golden["params"].as_u64().unwrap(), "{name}: parameters");
    assert_eq!(summary.macs as u64, golden["macs_per_image"].as_u64().unwrap(), "{name}: multiply-adds");
    // Where the reference pools or normalises by a function or a fused layer, only this table has the row.
    let table = golden["layers"].as_array().unwrap();
    let known = |name: &str| table.iter().any(|row| row[0] == name);
    let own = summary.layers.iter().filter(|layer| known(&layer.name));
    let own: Vec<_> = own.map(|l| (l.name.clone(), l.kind.to_owned(), l.output.clone(), l.params, l.macs)).collect();
    let reference: Vec<_> = table
        .iter()
        .map(|row| {
            let number = |i: usize| row[i].as_u64().unwrap() as usize;
            let text = |i: usize| row[i].as_str().unwrap().to_owned();
            (text(0), text(1), usizes(&row[2])[1..].to_vec(), number(3), number(4))
        })
        .collect();
    assert_eq!(own, reference, "{name}: layer table");

    let logits = network.forward(common::input(shape, &device)).into_data().try_into_vec::<f32>().unwrap();
    let expected: Vec<f32> =
        golden["logits"][0].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
    let error = relative_error(&logits, &expected);
    assert!(error < 1e-4, "{name}: logits differ by {error:.2e} relative");
    println!("{name}: logits within {error:.1e} relative");
}

macro_rules! eval_goldens {
    ($($name:ident)*) => {
        mod evaluation {
            $(#[test] fn $name() { super::agrees(stringify!($name)); })*
        }
    };
}

eval_goldens! {
    alexnet
    vgg11 vgg13 vgg16 vgg19 vgg11_bn vgg13_bn vgg16_bn vgg19_bn
    resnet18 resnet34 resnet50 resnet101 resnet152
    resnext50_32x4d resnext101_32x8d resnext101_64x4d wide_resnet50_2 wide_resnet101_2
    resnetv2_50 resnetv2_101
    googlenet inception_v3 inception_v4 inception_resnet_v2
}
