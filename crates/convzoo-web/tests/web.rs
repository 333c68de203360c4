//! What the page asks, as it asks it.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use convzoo_graph::{Activation, Builder, Graph, Operation, Parameter, Window};
use convzoo_kernels::quantized::WeightScales;
use convzoo_web::{Answer, Session};
use serde_json::{Value, json};

/// A small network with everything that gradients pass: a padded convolution, poolings, two linear layers, ReLU.
fn graph() -> Graph {
    let parameter = |name: &str, shape: &[usize]| Parameter {
        name: name.to_owned(),
        shape: shape.to_vec(),
        trainable: true,
        id: 0,
    };
    let both = |name: &str, shape: &[usize]| {
        vec![parameter(&format!("{name}.weight"), shape), parameter(&format!("{name}.bias"), &shape[..1])]
    };
    let mut graph = Builder::new([3, 12, 12]);
    let window = Window::square(3).padded(1).strided(2);
    let conv = Operation::Conv2d { outputs: 4, window, groups: 1, bias: true };
    let maps = graph.add_layer(conv, &[0], Some(1), both("conv", &[4, 3, 3, 3]));
    let maps = graph.add(Operation::Activation(Activation::Relu), &[maps]);
    let maps = graph.add(Operation::MaxPool2d { window: Window::square(3).padded(1), ceil_mode: false }, &[maps]);
    let pooled = graph.add(Operation::AdaptiveAvgPool2d { output: [2, 2] }, &[maps]);
    let vector = graph.add(Operation::Flatten, &[pooled]);
    let vector = graph.add_layer(Operation::Linear { outputs: 8 }, &[vector], Some(2), both("fc1", &[8, 16]));
    let vector = graph.add(Operation::Activation(Activation::Tanh), &[vector]);
    let logits = graph.add_layer(Operation::Linear { outputs: 10 }, &[vector], Some(3), both("fc2", &[10, 8]));
    graph.finish(logits).unwrap()
}

const MAPS: usize = 3;

/// Values between −1 and 1 that depend on the seed alone.
fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// The tensors of a file for three classes.
const SHAPES: [(&str, &[usize]); 6] = [
    ("conv.weight", &[4, 3, 3, 3]),
    ("conv.bias", &[4]),
    ("fc1.weight", &[8, 16]),
    ("fc1.bias", &[8]),
    ("fc2.weight", &[3, 8]),
    ("fc2.bias", &[3]),
];

/// Safetensors for three classes.
fn weights() -> Vec<u8> {
    let tensors = SHAPES.iter().enumerate().map(|(seed, (name, shape))| {
        let values = random(shape.iter().product(), seed as u64 + 1);
        (format!("module.{name}"), "F32", shape.to_vec(), of_floats(&values))
    });
    safetensors(tensors)
}

fn of_floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Safetensors of tensors: name, type, shape and bytes.
fn safetensors(tensors: impl IntoIterator<Item = (String, &'static str, Vec<usize>, Vec<u8>)>) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let from = data.len();
        data.extend(bytes);
        header.insert(name, json!({"dtype": dtype, "shape": shape, "data_offsets": [from, data.len()]}));
    }
    let header = Value::Object(header).to_string().into_bytes();
    [(header.len() as u64).to_le_bytes().to_vec(), header, data].concat()
}

/// The same weights rounded to bytes, as `convzoo quantize` writes them, and as the floats that they stand for.
fn quantized() -> [Vec<u8>; 2] {
    let (mut bytes, mut floats) = (Vec::new(), Vec::new());
    for (seed, (name, shape)) in SHAPES.iter().enumerate() {
        let (name, shape) = ((*name).to_owned(), shape.to_vec());
        let values = random(shape.iter().product(), seed as u64 + 1);
        let Some(layer) = name.strip_suffix(".weight") else {
            let tensor = (name, "F32", shape, of_floats(&values));
            bytes.insert(0, tensor.clone());
            floats.push(tensor);
            continue;
        };
        let (scales, outputs) = (WeightScales::of_largest(&values, shape[0]), vec![shape[0]]);
        let rounded = scales.bytes(&values);
        let tensor = |part: &str, shape: Vec<usize>, values: &[f32]| {
            (format!("{layer}.{part}"), "F32", shape, of_floats(values))
        };
        floats.push(tensor("weight", shape.clone(), &scales.numbers(&rounded)));
        bytes.push(tensor("weight_scale", outputs.clone(), &scales.0));
        bytes.push(tensor("output_correction", outputs, &random(shape[0], 7)));
        bytes.push(tensor("output_scale", vec![2], &[0.01, 0.0]));
        bytes.push((name, "I8", shape, rounded.iter().map(|byte| *byte as u8).collect()));
    }
    [safetensors(bytes), safetensors(floats)]
}

fn description() -> Value {
    let preprocessing = json!({"size": [12, 12], "resize": null, "interpolation": "bilinear", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]});
    json!({"model": "small", "preprocessing": preprocessing, "graph": graph()})
}

fn ask(session: &mut Session, request: Value, bytes: &[u8]) -> Result<Answer, String> {
    session.answer(request.to_string().as_bytes(), bytes).map_err(|error| error.to_string())
}

/// A session with the network and an image.
fn opened() -> Session {
    opened_with(&weights())
}

fn opened_with(weights: &[u8]) -> Session {
    let mut session = Session::default();
    ask(&mut session, json!({"ask": "weights"}), weights).unwrap();
    ask(&mut session, json!({"ask": "open", "description": description()}), &[]).unwrap();
    let pixels: Vec<u8> = random(3 * 144, 9).iter().map(|value| (127.0 + 127.0 * value) as u8).collect();
    ask(&mut session, json!({"ask": "pixels", "width": 12, "height": 12, "channels": 3}), &pixels).unwrap();
    session
}

#[test]
fn the_number_of_classes_is_the_weights_own() {
    let mut session = opened();
    let answer = ask(&mut session, json!({"ask": "predict"}), &[]).unwrap();
    assert_eq!(answer.text["classes"], 3);
    let sum: f32 = answer.values[3..].iter().sum();
    assert!((sum - 1.0).abs() < 1e-6, "probabilities add up to {sum}");
    let last = ask(&mut session, json!({"ask": "output", "node": 8}), &[]).unwrap();
    assert_eq!(last.values, answer.values[..3], "the last node's output is the logits");
}

#[test]
fn quantized_weights_are_the_floats_that_their_bytes_stand_for() {
    let [bytes, floats] = quantized();
    let logits = |weights: &[u8]| {
        let answer = ask(&mut opened_with(weights), json!({"ask": "predict"}), &[]).unwrap();
        answer.values[..3].to_vec()
    };
    assert_eq!(logits(&bytes), logits(&floats));
    let off = logits(&bytes).iter().zip(logits(&weights())).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off > 0.0 && off < 0.05, "rounding the weights moves a logit by {off}");
    let told = ask(&mut Session::default(), json!({"ask": "weights"}), &bytes).unwrap().text;
    assert_eq!(told["tensors"], SHAPES.len(), "scales are no tensors of the network");
}

#[test]
fn every_value_is_what_its_window_comes_to() {
    let mut session = opened();
    for node in [1, 3, 6, 8] {
        let answer = ask(&mut session, json!({"ask": "output", "node": node}), &[]).unwrap();
        let mut shape: Vec<usize> = serde_json::from_value(answer.text["shape"].clone()).unwrap();
        shape.resize(3, 1);
        for (place, value) in answer.values.iter().enumerate() {
            let at = [place / (shape[1] * shape[2]), place / shape[2] % shape[1], place % shape[2]];
            let found = ask(&mut session, json!({"ask": "products", "node": node, "at": at}), &[]).unwrap();
            let own = found.text["products"]["value"].as_f64().unwrap() as f32;
            assert!((own - value).abs() < 1e-5, "node {node} at {at:?} is {value}, its window comes to {own}");
        }
    }
}

#[test]
fn grad_cam_weights_channels_by_their_gradients() {
    // The gradient of a logit by finite differences, through the same network from the feature map on.
    let mut session = opened();
    let maps = ask(&mut session, json!({"ask": "output", "node": MAPS}), &[]).unwrap().values;
    let tensors: Vec<Vec<f32>> =
        [(64, 0), (4, 0), (128, 3), (8, 4), (24, 5), (3, 6)].map(|(count, seed)| random(count, seed)).to_vec();
    let logit = |maps: &[f64], class: usize| -> f64 {
        let pooled: Vec<f64> = (0..16)
            .map(|i| {
                let (channel, row, column) = (i / 4, i / 2 % 2 * 3, i % 2 * 3);
                let cell = |j: usize| maps[channel * 36 + (row + j / 3) * 6 + column + j % 3];
                (0..9).map(cell).sum::<f64>() / 9.0
            })
            .collect();
        let linear = |x: &[f64], weight: &[f32], bias: &[f32]| -> Vec<f64> {
            let row = |(row, bias): (&[f32], &f32)| {
                row.iter().zip(x).map(|(weight, x)| f64::from(*weight) * x).sum::<f64>() + f64::from(*bias)
            };
            weight.chunks_exact(x.len()).zip(bias).map(row).collect()
        };
        let hidden: Vec<f64> = linear(&pooled, &tensors[2], &tensors[3]).iter().map(|x| x.tanh()).collect();
        linear(&hidden, &tensors[4], &tensors[5])[class]
    };
    let maps: Vec<f64> = maps.into_iter().map(f64::from).collect();
    for class in 0..3 {
        let slope = |place: usize| {
            let [mut more, mut less] = [maps.clone(), maps.clone()];
            (more[place], less[place]) = (maps[place] + 1e-4, maps[place] - 1e-4);
            (logit(&more, class) - logit(&less, class)) / 2e-4
        };
        let weights: Vec<f64> =
            (0..4).map(|channel| (0..36).map(|i| slope(channel * 36 + i)).sum::<f64>() / 36.0).collect();
        let sum = |pixel: usize| (0..4).map(|channel| weights[channel] * maps[channel * 36 + pixel]).sum::<f64>();
        let answer = ask(&mut session, json!({"ask": "gradCam", "class": class}), &[]).unwrap();
        assert_eq!((&answer.text["node"], &answer.text["size"]), (&json!(MAPS), &json!([6, 6])));
        for (pixel, found) in answer.values.iter().enumerate() {
            let expected = sum(pixel).max(0.0);
            assert!(
                (f64::from(*found) - expected).abs() < 1e-5,
                "class {class}, pixel {pixel}: {found}, not {expected}"
            );
        }
    }
}

#[test]
fn occlusion_goes_on_until_every_part_was_covered() {
    let mut session = opened();
    let mut answer = ask(&mut session, json!({"ask": "occlude", "class": 1}), &[]).unwrap();
    let mut steps = 0;
    while answer.text["done"] != answer.text["all"] {
        answer = ask(&mut session, json!({"ask": "occludeNext"}), &[]).unwrap();
        steps += 1;
    }
    // A square of 3, moved by 2: at 0, 2, 4, 6, 8 and 9.
    assert_eq!(steps, 36);
    assert_eq!(answer.values.len(), 144);
    assert!(answer.values.iter().any(|lost| *lost != 0.0), "covering changes the probability somewhere");
}

#[test]
fn a_kernel_slides_over_the_image_in_grey() {
    let mut session = opened();
    let image = ask(&mut session, json!({"ask": "prepare"}), &[]).unwrap();
    let kernel = [0, 0, 0, 0, 2, 0, 0, 0, 0];
    let answer = ask(&mut session, json!({"ask": "convolve", "kernel": kernel}), &[]).unwrap();
    assert_eq!((&answer.text["size"], image.bytes.len()), (&json!([12, 12]), 3 * 144));
    let [red, green, blue] = [0, 1, 2].map(|channel| f32::from(image.bytes[3 * 50 + channel]));
    let expected = 2.0 * (0.299 * red + 0.587 * green + 0.114 * blue) / 255.0;
    assert!((answer.values[50] - expected).abs() < 0.01, "{} is not twice the grey {expected}", answer.values[50]);
}

#[test]
fn what_cannot_be_answered_is_an_error_that_says_why() {
    let mut session = Session::default();
    let fails = |session: &mut Session, request: Value, bytes: &[u8]| ask(session, request, bytes).unwrap_err();
    assert!(fails(&mut session, json!({"ask": "predict"}), &[]).contains("no network"));
    assert!(fails(&mut session, json!({"ask": "weights"}), b"PK").contains("neither safetensors"));
    let cut = &weights()[..700];
    assert!(fails(&mut session, json!({"ask": "weights"}), cut).contains("beyond the end of the file"));
    let [bytes, _] = quantized();
    let renamed = String::from_utf8_lossy(&bytes[8..]).find("fc1.weight_scale").unwrap() + 8;
    let unscaled = [&bytes[..renamed], b"fc4", &bytes[renamed + 3..]].concat();
    let told = fails(&mut session, json!({"ask": "weights"}), &unscaled);
    assert!(told.contains("'fc1.weight' is bytes without a scale"), "{told}");
    let mut low = bytes.clone();
    *low.last_mut().unwrap() = 0x80;
    let told = fails(&mut session, json!({"ask": "weights"}), &low);
    assert!(told.contains("holds -128"), "{told}");
    let mut other = description();
    other["graph"]["nodes"][1]["parameters"][0]["name"] = json!("stem.weight");
    ask(&mut session, json!({"ask": "weights"}), &weights()).unwrap();
    let refused = fails(&mut session, json!({"ask": "open", "description": other}), &[]);
    assert!(refused.contains("not the weights of small: there is no 'stem.weight'"), "{refused}");

    let mut broken = description();
    broken["graph"]["nodes"][1]["operation"]["Conv2d"]["window"]["stride"] = json!([0, 1]);
    let refused = fails(&mut session, json!({"ask": "open", "description": broken}), &[]);
    assert!(refused.contains("cannot be"), "{refused}");

    let mut session = opened();
    assert!(fails(&mut session, json!({"ask": "image"}), b"no image").contains("not a JPEG"));
    assert!(fails(&mut session, json!({"ask": "gradCam", "class": 3}), &[]).contains("there is no class 3"));
    assert!(fails(&mut session, json!({"ask": "output", "node": 99}), &[]).contains("there is no node 99"));
    assert!(
        fails(&mut session, json!({"ask": "products", "node": 2, "at": [0, 0, 0]}), &[]).contains("only convolutions")
    );
    assert!(
        fails(&mut session, json!({"ask": "products", "node": 1, "at": [0, 6, 0]}), &[]).contains("there is no row 6")
    );
    assert!(ask(&mut session, json!({"ask": "predict"}), &[]).is_ok(), "the session goes on after an error");
}
