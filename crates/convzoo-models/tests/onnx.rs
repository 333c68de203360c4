//! ONNX files: those of PyTorch's exporters as weights, and the zoo's own there and back.
//!
//! `cargo xtask onnx-check` has ONNX's checker, ONNX Runtime and tract read them, and torchvision's networks written by
//! PyTorch.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod common;
#[path = "common/files.rs"]
mod files;

use std::collections::HashSet;
use std::fs;
use std::io::Cursor;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use convzoo_blocks::{
    AdaptiveAvgPool2d, BatchNorm2d, BatchNorm2dConfig, ConvUnit, ConvUnitConfig, FeatureMap, Linear, LinearConfig,
};
use convzoo_models::onnx::OnnxExport;
use convzoo_models::quantize::QuantizeOptions;
use convzoo_models::weights::{self, Checkpoint, WeightsError};
use convzoo_models::{Classifier, Network, Options, Preprocessing, create, create_from};

use convzoo_onnx::{Contents, ElementType, Place};

use files::{file, fixture, path};

/// The network of `fixtures/make_onnx.py`.
#[derive(Module, Debug)]
struct Forked {
    stem: ConvUnit,
    left: ConvUnit,
    right1: ConvUnit,
    right2: ConvUnit,
    norm: BatchNorm2d,
    mix: Linear,
    last: ConvUnit,
    pool: AdaptiveAvgPool2d,
    fc: Linear,
}

impl Forked {
    fn new(device: &Device) -> Self {
        let unit = |size: usize| ConvUnitConfig::square(6, 6, size).padded(size / 2).with_batch_norm().init(device);
        Self {
            stem: ConvUnitConfig::square(3, 6, 3).strided(2).padded(1).with_batch_norm().init(device),
            left: unit(3),
            right1: unit(1),
            right2: unit(3),
            norm: BatchNorm2dConfig::new(12).init(device),
            mix: LinearConfig::new(12, 8).init(device),
            last: ConvUnitConfig::square(8, 5, 1).init(device),
            pool: AdaptiveAvgPool2d::new([1, 1]),
            fc: LinearConfig::new(5, 4).init(device),
        }
    }
}

impl Classifier for Forked {
    /// The branches in another order than in PyTorch.
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        let x = self.stem.forward(images);
        let left = self.left.forward(x.clone()) + x.clone();
        let right = self.right2.forward(self.right1.forward(x));
        let mixed = self.mix.forward(self.norm.forward(M::concat(vec![left, right])));
        self.last.forward(mixed)
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.fc.forward(self.pool.forward(features).flatten())
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { fc: self.fc.replace_outputs(classes), ..self }
    }

    fn preprocessing(&self) -> Preprocessing {
        Preprocessing::small(8)
    }
}

fn values(logits: Tensor<2>) -> Vec<f32> {
    logits.into_data().try_into_vec().unwrap()
}

fn assert_near(found: &[f32], expected: &[f32], what: &str) {
    let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let off = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert_eq!(found.len(), expected.len(), "{what}: logits");
    assert!(off <= 1e-5 * largest, "{what}: {found:?}, expected {expected:?}");
}

/// What PyTorch's network gives for the images of `fixtures/make_onnx.py`.
const LOGITS: [f32; 4] = [0.016_692_191, -0.070_944_76, -0.163_571_61, -0.620_172_4];

#[test]
fn files_of_pytorchs_exporters_are_read_with_and_without_names() {
    let device = Device::flex();
    let images: Vec<f32> = (0..3 * 8 * 6).map(|i| (i % 13) as f32 / 13.0).collect();
    let images = Tensor::<4>::from_data(TensorData::new(images, [1, 3, 8, 6]), &device);
    for name in ["folded", "kept", "dynamo", "beside"] {
        let network = weights::load(Forked::new(&device), &fixture(&format!("forked-{name}.onnx"))).unwrap();
        assert_near(&values(network.forward(images.clone())), &LOGITS, name);
    }
}

fn save(network: &Network, name: &str, keep_norms: bool) -> std::path::PathBuf {
    let path = path(name);
    let export = network.to_onnx();
    let export = if keep_norms { export.keep_norms() } else { export };
    export.save(&path).unwrap();
    path
}

#[test]
fn exported_networks_come_back_folded_to_the_same_logits_and_kept_to_the_same_bits() {
    let device = Device::flex();
    // Shortcuts, gates, norms before convolutions, shuffled channels, auxiliary classifiers, layer norms.
    for (name, side) in [
        ("resnet20_cifar", 32),
        ("mobilenet_v3_small", 64),
        ("densenet40_k12", 32),
        ("shufflenet_v2_x0_5", 64),
        ("googlenet", 64),
    ] {
        let network = common::filled(name, &Options::default().with_classes(7), &device);
        let images = common::input([2, 3, side, side], &device);
        let expected = values(network.forward(images.clone()));
        let read = |path: std::path::PathBuf| {
            create_from(name, Checkpoint::open(&path).unwrap(), &Options::default(), &device).unwrap()
        };

        let folded = read(save(&network, &format!("{name}-folded.onnx"), false));
        assert_eq!(folded.classes(), 7, "{name}");
        let found = values(folded.forward(images.clone()));
        let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let off = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(off < 1e-4 * largest, "{name}: folded logits are off by {off}, the largest being {largest}");

        let kept = read(save(&network, &format!("{name}-kept.onnx"), true));
        assert!(values(kept.forward(images)) == expected, "{name}: with its norms kept, other logits");
    }
}

#[test]
fn a_file_knows_its_network_its_labels_and_its_preprocessing() {
    let device = Device::flex();
    let labels: Vec<String> = ["cat", "dog", "ape"].map(str::to_owned).into();
    let preprocessing = Preprocessing { mean: [0.25, 0.5, 0.75], ..Preprocessing::small(64) };
    let network = create("squeezenet1_1", &Options::default().with_classes(3), &device).unwrap();
    let network = network.with_labels(labels.clone()).unwrap().with_preprocessing(preprocessing);
    let checkpoint = Checkpoint::open(&save(&network, "labels.onnx", false)).unwrap();
    assert_eq!(checkpoint.metadata().unwrap().model, "squeezenet1_1");
    let read = create_from("squeezenet1_1", checkpoint, &Options::default(), &device).unwrap();
    assert_eq!((read.labels(), read.preprocessing()), (labels.as_slice(), preprocessing));
}

#[test]
fn the_same_network_makes_the_same_bytes_in_memory_and_on_disk() {
    let network = create("lenet5", &Options::default(), &Device::flex()).unwrap();
    let bytes = network.to_onnx().to_bytes().unwrap();
    assert!(fs::read(save(&network, "bytes.onnx", false)).unwrap() == bytes);
    assert!(network.to_onnx().to_bytes().unwrap() == bytes);
}

/// A network's formula-made weights in bytes, for images of a side.
fn quantized(name: &str, side: usize, keep: &[&str]) -> Network {
    let device = Device::flex();
    let network = common::filled(name, &Options::default().with_classes(7), &device);
    let images = common::input([2, 3, side, side], &device);
    let keep = keep.iter().map(|layer| (*layer).to_owned()).collect();
    let options = QuantizeOptions { keep, ..QuantizeOptions::default() };
    network.quantize(std::slice::from_ref(&images), &options).unwrap()
}

/// An ONNX file in memory.
struct InMemory {
    bytes: Vec<u8>,
    contents: Contents,
}

impl InMemory {
    fn of(network: &Network, side: usize) -> Self {
        let bytes = network.to_onnx().for_images([3, side, side]).to_bytes().unwrap();
        let contents = Contents::read(Cursor::new(&bytes), bytes.len() as u64).unwrap();
        Self { bytes, contents }
    }

    /// The numbers of a tensor.
    fn stored(&self, name: &str) -> &[u8] {
        let tensor = self.contents.tensor(name).unwrap_or_else(|| panic!("there is no tensor '{name}'"));
        let Place::Here(range) = &tensor.place else { panic!("'{name}' is not in the file") };
        &self.bytes[range.start as usize..range.end as usize]
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        self.stored(name).chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    }

    /// What the operation is, and takes, that makes a value.
    fn maker(&self, value: &str) -> (&str, Vec<&str>) {
        let made = self.contents.operations().find(|(.., outputs)| outputs.contains(&value));
        made.map(|(operation, inputs, _)| (operation, inputs)).unwrap_or_else(|| panic!("nothing makes '{value}'"))
    }
}

#[test]
fn quantized_networks_have_the_bytes_and_scales_of_their_weights_file() {
    // Fire modules, sums, depthwise convolutions, a norm before each activation, branches.
    for (name, side) in
        [("squeezenet1_1", 64), ("resnet20_cifar", 32), ("mobilenet_v2", 64), ("densenet40_k12", 32), ("googlenet", 64)]
    {
        let network = quantized(name, side, &[]);
        let scales = network.quantization().unwrap();
        let onnx = InMemory::of(&network, side);
        let safetensors = path(&format!("{name}-int8.safetensors"));
        weights::save_quantized(&network, &safetensors).unwrap();
        let safetensors = fs::read(safetensors).unwrap();
        let start = 8 + u64::from_le_bytes(safetensors[..8].try_into().unwrap()) as usize;
        let header: serde_json::Value = serde_json::from_slice(&safetensors[8..start]).unwrap();

        // Each value becomes bytes and floats again by one scale, which is the network's.
        let known: HashSet<(u32, u8)> =
            scales.values.values().map(|value| (value.scale.to_bits(), value.zero)).collect();
        let mut values = HashSet::new();
        for (_, inputs, outputs) in onnx.contents.operations().filter(|(kind, ..)| *kind == "QuantizeLinear") {
            let users: Vec<_> =
                onnx.contents.operations().filter(|(_, taken, _)| taken.contains(&outputs[0])).collect();
            let [("DequantizeLinear", taken, _)] = &users[..] else { panic!("{name}: {users:?} of {outputs:?}") };
            assert_eq!(taken[1..], inputs[1..], "{name}: the scale of {outputs:?}");
            let scale = (onnx.floats(inputs[1])[0].to_bits(), onnx.stored(inputs[2])[0]);
            assert!(known.contains(&scale), "{name}: {} is rounded by no scale of the network's", inputs[0]);
            assert!(values.insert(inputs[0]), "{name}: {} is rounded twice", inputs[0]);
            if inputs[0] == "input" {
                let images = scales.values["images"];
                assert_eq!(scale, (images.scale.to_bits(), images.zero), "{name}: the images' scale");
            }
        }
        assert!(values.contains("input") && values.len() >= scales.layers.len() / 2, "{name}: only {values:?}");

        for (layer, own) in &scales.layers {
            let of = |part: &str| format!("{layer}.{part}");
            let taken = of("weight/floats");
            let user = onnx.contents.operations().find(|(_, inputs, _)| inputs.get(1) == Some(&taken.as_str()));
            let Some(("Conv" | "Gemm", operands, _)) = user else { panic!("{name}: {user:?} takes {taken}") };
            let makers: Vec<_> = operands.iter().map(|operand| onnx.maker(operand)).collect();
            assert!(makers.iter().all(|(kind, _)| *kind == "DequantizeLinear"), "{name}: {layer} takes {makers:?}");

            // A negative factor of the norm has turned an output's bytes.
            let [from, to] = [0, 1].map(|i| header[of("weight")]["data_offsets"][i].as_u64().unwrap() as usize);
            let (bytes, found) = (&safetensors[start + from..start + to], onnx.stored(&of("weight")));
            assert_eq!(bytes.len(), found.len(), "{name}: weights of {layer}");
            let filter = bytes.len() / own.weights.0.len();
            for (bytes, found) in bytes.chunks(filter).zip(found.chunks(filter)) {
                let turned = bytes.iter().zip(found).all(|(byte, found)| *byte == found.wrapping_neg());
                assert!(bytes == found || turned, "{name}: {layer} has other weights");
            }
            let found = onnx.floats(&of("weight_scale"));
            if name == "squeezenet1_1" {
                assert_eq!(found, own.weights.0, "{name}: without a norm, {layer} has its scales as they are");
            }
            let input = onnx.floats(makers[0].1[1])[0];
            let units: Vec<f32> = found.iter().map(|scale| scale * input).collect();
            assert_eq!(onnx.floats(&of("bias_scale")), units, "{name}: a bias counts products, in {layer}");
        }
    }
}

#[test]
fn a_layer_that_was_kept_is_in_floats() {
    let onnx = InMemory::of(&quantized("squeezenet1_1", 64, &["features.0", "features.3.expand1x1"]), 64);
    let kind = |name: &str| onnx.contents.tensor(name).unwrap().kind;
    assert_eq!(kind("features.0.weight"), Some(ElementType::F32));
    assert_eq!(kind("features.3.squeeze.weight"), None, "bytes are no floats");
    let first = onnx.contents.operations().find(|(kind, ..)| *kind == "Conv").unwrap();
    assert_eq!(first.1, ["input", "features.0.weight", "features.0.bias"]);
    // Of what is bytes it takes floats that no runtime mistakes for its own bytes.
    let takes = |(_, inputs, _): &(&str, Vec<&str>, _)| inputs.get(1) == Some(&"features.3.expand1x1.weight");
    let (_, inputs, _) = onnx.contents.operations().find(takes).unwrap();
    let (kind, cut) = onnx.maker(inputs[0]);
    assert_eq!((kind, onnx.maker(cut[0]).0), ("Clip", "DequantizeLinear"));
    let [least, most] = [1, 2].map(|bound| onnx.floats(cut[bound])[0]);
    assert!(least == 0.0 && most > 0.0, "after a ReLU, bytes are from 0 to {most}, not from {least}");
}

#[test]
fn a_quantized_file_is_not_read_as_weights_and_has_no_norms_apart() {
    let network = quantized("resnet20_cifar", 32, &[]);
    let path = save(&network, "int8.onnx", false);
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.metadata().unwrap().model, "resnet20_cifar");
    let error = create_from("resnet20_cifar", checkpoint, &Options::default(), &Device::flex()).err().unwrap();
    assert!(matches!(error, WeightsError::QuantizedOnnx { .. }), "{error}");
    let error = network.to_onnx().keep_norms().to_bytes().unwrap_err().to_string();
    assert!(error.contains("cannot be kept apart"), "{error}");
}

#[test]
fn files_of_other_networks_are_refused_with_what_differs() {
    let device = Device::flex();
    let resnet = create("resnet20_cifar", &Options::default(), &device).unwrap();
    let resnet = save(&resnet, "of-resnet.onnx", false);
    let refused = |network: Forked, path: &std::path::Path| weights::load(network, path).unwrap_err().to_string();
    let told = refused(Forked::new(&device), &resnet);
    assert!(told.contains("missing (30): stem.conv.weight") && told.contains("unexpected (20)"), "{told}");
    // Another width of a layer without a name.
    let wider = Forked { mix: LinearConfig::new(12, 9).init(&device), ..Forked::new(&device) };
    let wider = Forked { last: ConvUnitConfig::square(9, 5, 1).init(&device), ..wider };
    let told = refused(wider, &fixture("forked-folded.onnx"));
    assert!(
        told.contains("mix.weight") && told.contains("last.conv.weight is [5, 9, 1, 1], here [5, 8, 1, 1]"),
        "{told}"
    );
}

#[test]
fn lying_files_are_refused() {
    let device = Device::flex();
    let whole = fs::read(fixture("forked-folded.onnx")).unwrap();
    let open = |name: &str, bytes: &[u8]| weights::load(Forked::new(&device), &file(name, bytes));
    assert!(open("whole.onnx", &whole).is_ok());
    let told = |name: &str, bytes: &[u8]| match open(name, bytes) {
        Err(WeightsError::Damaged { reason, .. }) => reason,
        other => panic!("{name}: {:?}", other.map(drop)),
    };
    let cut = told("cut.onnx", &whole[..whole.len() - 9]);
    assert!(cut.contains("longer than what it is in"), "{cut}");

    // The weights of the stem are [6, 3, 3, 3]: one dimension becomes huge.
    let at = whole.windows(8).position(|bytes| bytes == [8, 6, 8, 3, 8, 3, 8, 3]).unwrap();
    let mut huge = whole.clone();
    huge[at + 1] = 100;
    let huge = told("huge.onnx", &huge);
    assert!(huge.contains("has 648 bytes") && huge.contains("need 10800"), "{huge}");

    // Weights beside the file, said to be elsewhere.
    let beside = fs::read(fixture("forked-beside.onnx")).unwrap();
    let name = b"forked-beside.onnx.data";
    let mut elsewhere = beside.clone();
    let places: Vec<usize> = (0..beside.len() - name.len()).filter(|at| beside[*at..].starts_with(name)).collect();
    assert!(!places.is_empty(), "no weights beside the file");
    places.iter().for_each(|at| elsewhere[*at..*at + name.len()].copy_from_slice(b"/../../../../etc/passwd"));
    let elsewhere = told("elsewhere.onnx", &elsewhere);
    assert!(elsewhere.contains("not beside it"), "{elsewhere}");
    assert!(matches!(open("alone.onnx", &beside), Err(WeightsError::Read { .. })), "the weights are not there");
}

#[test]
fn images_that_the_network_does_not_take_are_an_error() {
    let network = Forked::new(&Device::flex());
    let error = OnnxExport::new(&network, [4, 8, 8]).to_bytes().unwrap_err().to_string();
    assert!(error.contains("for 3 channels or features and the input has 4"), "{error}");
}
