//! Visualization, against identities, PyTorch, and what users do.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod support;

use std::path::Path;

use burn::module::Module;
use burn::tensor::module::conv_transpose2d;
use burn::tensor::ops::ConvTransposeOptions;
use burn::tensor::{Device, Distribution, Tensor};
use convzoo::blocks::{AdaptiveAvgPool2d, ConvUnit, ConvUnitConfig, FeatureMap, Pool, PoolConfig, Rectification};
use convzoo::data::load_image;
use convzoo::visualize::{
    Cell, Colours, Occluder, View, VisualizeError, deconvnet, features, filters, grad_cam, gradient, guided_grad_cam,
    layers, occlusion, overview, peaks, saliency,
};
use convzoo::weights::Checkpoint;
use convzoo::{Classifier, Network, Options, create, create_from, variants};
use serde_json::Value;
use support::shared;

/// A network of one's own: some convolutions, perhaps a maximum, and the mean of the last maps as logits.
#[derive(Module, Debug)]
struct Plain {
    convs: Vec<ConvUnit>,
    pool: Option<Pool>,
    mean: AdaptiveAvgPool2d,
}

impl Classifier for Plain {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        let maps = self.convs.iter().fold(images, |x, conv| conv.forward(x));
        match &self.pool {
            Some(pool) => pool.forward(maps),
            None => maps,
        }
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.mean.forward(features).flatten()
    }

    fn replace_head(self, _: usize) -> Self {
        self
    }
}

fn plain(convs: &[ConvUnitConfig], pool: Option<PoolConfig>, device: &Device) -> Plain {
    device.seed(3);
    Plain {
        convs: convs.iter().map(|conv| conv.init(device)).collect(),
        pool: pool.map(|pool| pool.init()),
        mean: AdaptiveAvgPool2d::new([1, 1]),
    }
}

fn image(shape: [usize; 4], device: &Device) -> Tensor<4> {
    device.seed(7);
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
}

fn values(tensor: Tensor<4>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

/// The largest difference, in shares of the largest number that is expected.
fn off(values: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(values.len(), expected.len());
    let largest = expected.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
    values.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest
}

#[test]
fn without_rectification_and_pooling_a_projection_is_the_gradient() {
    let device = Device::flex();
    let conv = |inputs, outputs| ConvUnitConfig::square(inputs, outputs, 3).padded(1).linear();
    let network = plain(&[conv(3, 5).strided(2), conv(5, 4).with_batch_norm()], None, &device);
    let image = image([1, 3, 9, 11], &device);
    let cell = Cell { channel: 2, at: [3, 4] };
    let projection = deconvnet(&network, image.clone(), "convs.1.norm", &[cell]).unwrap().remove(0);

    let tracked = image.autodiff().require_grad();
    let feature = network.valid().forward_features(tracked.clone()).slice([0..1, 2..3, 3..4, 4..5]).sum();
    let gradient = tracked.grad(&feature.backward()).unwrap();
    assert!(off(&projection.values, &values(gradient)) < 1e-6);
}

#[test]
fn on_a_single_convolution_a_projection_is_the_transposed_convolution() {
    let device = Device::flex();
    let conv = ConvUnitConfig::square(3, 4, 3).padded(1).strided(2);
    let network = plain(&[conv], None, &device);
    let image = image([1, 3, 9, 9], &device);
    let peaks = peaks(&network, image.clone(), "convs.0.conv").unwrap().remove(0);
    let (cell, value) = peaks[1];
    let projection = deconvnet(&network, image.clone(), "convs.0.conv", &[cell]).unwrap().remove(0);

    // The cell that was found is the largest of its channel.
    let maps = features(&network, image, "convs.0.conv").unwrap().maps;
    assert_eq!(maps[1].range().1, value);
    assert_eq!(maps[1].values[cell.at[0] * maps[1].width + cell.at[1]], value);

    let mut one = vec![0f32; 4 * 5 * 5];
    one[(cell.channel * 5 + cell.at[0]) * 5 + cell.at[1]] = 1.0;
    let one = Tensor::<1>::from_floats(one.as_slice(), &device).reshape([1, 4, 5, 5]);
    let options = ConvTransposeOptions::new([2, 2], [1, 1], [0, 0], [1, 1], 1);
    let transposed = conv_transpose2d(one, network.convs[0].conv.weight.val(), None, options);
    assert_eq!(transposed.dims(), [1, 3, 9, 9]);
    assert!(off(&projection.values, &values(transposed)) < 1e-6);
}

#[test]
fn a_projection_rectifies_on_its_way_back_and_goes_where_maxima_came_from() {
    let device = Device::flex();
    let conv = |inputs, outputs| ConvUnitConfig::square(inputs, outputs, 3).padded(1);
    let network = plain(&[conv(2, 6), conv(6, 4)], Some(PoolConfig::max(2, 2)), &device);
    let image = image([1, 2, 8, 8], &device);
    let layer = layers(&network, [2, 8, 8]).unwrap().last().unwrap().clone();
    assert_eq!((layer.summary.kind, layer.output()), ("AdaptiveAvgPool2d", [4, 1, 1]));
    let (cell, value) = peaks(&network, image.clone(), "pool").unwrap().remove(0)[3];
    let projection = deconvnet(&network, image.clone(), "pool", &[cell]).unwrap().remove(0);

    // The same step by step: the pixel that the maximum came from, transposed filters, rectified in between.
    let after =
        |image: &Tensor<4>, convs: usize| network.convs[..convs].iter().fold(image.clone(), |x, conv| conv.forward(x));
    let last = values(after(&image, 2));
    let window = (0..4).map(|i| [2 * cell.at[0] + i / 2, 2 * cell.at[1] + i % 2]);
    let index = |[row, column]: [usize; 2]| (cell.channel * 8 + row) * 8 + column;
    let switch = window.max_by(|&a, &b| last[index(a)].total_cmp(&last[index(b)])).unwrap();
    assert_eq!(last[index(switch)], value);
    let mut one = vec![0f32; 4 * 8 * 8];
    one[index(switch)] = 1.0;
    let one = Tensor::<1>::from_floats(one.as_slice(), &device).reshape([1, 4, 8, 8]);
    let transposed = |x: Tensor<4>, conv: usize| {
        let options = ConvTransposeOptions::new([1, 1], [1, 1], [0, 0], [1, 1], 1);
        conv_transpose2d(x, network.convs[conv].conv.weight.val(), None, options)
    };
    let rectified = transposed(one, 1).clamp_min(0.0);
    assert!(off(&projection.values, &values(transposed(rectified, 0))) < 1e-6);
}

#[test]
fn grad_cam_of_a_mean_of_maps_is_the_map_of_the_class() {
    // Where the logits are the means of the last maps, the class's own map speaks for it and no other.
    let device = Device::flex();
    let conv = ConvUnitConfig::square(3, 4, 3).padded(1);
    let network = plain(&[conv], None, &device);
    let image = image([1, 3, 6, 6], &device);
    let cam = grad_cam(&network, image.clone(), 2, None).unwrap();
    let map = values(network.forward_features(image.clone()).narrow(1, 2, 1));
    let expected: Vec<f32> = map.iter().map(|value| value / 36.0).collect();
    assert!(off(&cam.values, &expected) < 1e-5);
    // Before the activation, the gradient is the share of the places where it lets pass.
    let before = grad_cam(&network, image.clone(), 2, Some("convs.0.conv")).unwrap();
    assert_eq!((before.height, before.width), (6, 6));

    let magnitude = gradient(&network, image.clone(), 2, None).unwrap().magnitude();
    assert_eq!(saliency(&network, image, 2).unwrap(), magnitude);
}

#[test]
fn covering_what_a_class_is_told_by_costs_it_most() {
    let device = Device::flex();
    let network = plain(&[ConvUnitConfig::square(1, 2, 1).linear().with_bias(false)], None, &device);
    // The network returns (a·mean, b·mean): of the class whose weight is larger, a bright spot is all there is.
    let mut pixels = vec![0f32; 64];
    pixels[8 * 6 + 1] = 50.0;
    let image = Tensor::<1>::from_floats(pixels.as_slice(), &device).reshape([1, 1, 8, 8]);
    let weights = values(network.convs[0].conv.weight.val());
    let class = usize::from(weights[1] > weights[0]);
    let mut told = Vec::new();
    let map = occlusion(&network, image, class, Occluder { window: 2, stride: 1 }, |done| told.push(done)).unwrap();
    let (low, high) = map.range();
    assert_eq!((map.values[8 * 6 + 1], low), (high, 0.0));
    assert!(high > 0.0 && told.windows(2).all(|pair| pair[0] < pair[1]) && told.last() == Some(&49), "{told:?}");
}

#[test]
fn every_family_can_be_seen_with_random_weights() {
    let device = Device::flex();
    // Of each family the first network, or, where tests may not take minutes, of some families a small one.
    let small = ["lenet5", "nin_cifar", "resnet20_cifar", "densenet40_k12", "squeezenet1_1", "fractalnet20"];
    let slow = std::env::var_os("CONVZOO_SLOW_TESTS").is_some();
    let mut seen: Vec<&str> = Vec::new();
    for variant in variants() {
        if seen.contains(&variant.family) || (!slow && !small.contains(&variant.name)) {
            continue;
        }
        device.seed(1);
        let network = create(variant.name, &Options::default(), &device).unwrap();
        let [channels, height, width] = network.input();
        let image = image([1, channels, height, width], &device);
        let cam = grad_cam(&network, image.clone(), 0, None).unwrap();
        assert!(cam.values.iter().all(|value| value.is_finite()) && cam.values.len() > 1, "{}", variant.name);
        let guided = gradient(&network, image.clone(), 0, Some(Rectification::Guided)).unwrap();
        assert_eq!((guided.channels, guided.height, guided.width), (channels, height, width), "{}", variant.name);
        let all = layers(&network, network.input()).unwrap();
        let layer = all.iter().rfind(|layer| layer.summary.kind == "Conv2d").unwrap();
        let (cell, value) = peaks(&network, image.clone(), &layer.summary.name).unwrap()[0][0];
        let projection = deconvnet(&network, image.clone(), &layer.summary.name, &[cell]).unwrap().remove(0);
        let seen_patch = layer.sees(cell.at, [height, width]);
        let largest = |values: &[f32]| values.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
        let (all_of_it, outside) = (largest(&projection.values), largest(&outside_of(&projection, seen_patch)));
        assert!(value.is_finite() && all_of_it > 0.0, "{}", variant.name);
        // Nothing but the rounding of Winograd's tiles, which reach a little further than the patch.
        assert!(outside < 1e-5 * all_of_it, "{}: {outside:e} outside, {all_of_it:e} in all", variant.name);
        let glimpses = overview(&network, image).unwrap();
        assert!(glimpses.len() > 2 && glimpses.iter().all(|glimpse| !glimpse.layer.name.is_empty()));
        assert!(!filters(&network, network.input(), None).unwrap().kernels.is_empty());
        seen.push(variant.family);
    }
    assert!(seen.len() >= small.len(), "{seen:?}");
}

/// What of a projection lies outside of a patch.
fn outside_of(colours: &Colours, patch: convzoo::visualize::Patch) -> Vec<f32> {
    let inside = |row: usize, column: usize| {
        (patch.top..patch.top + patch.height).contains(&row) && (patch.left..patch.left + patch.width).contains(&column)
    };
    let place = |i: usize| (i / colours.width % colours.height, i % colours.width);
    let outside = colours.values.iter().enumerate().filter(|(i, _)| !inside(place(*i).0, place(*i).1));
    outside.map(|(_, value)| *value).collect()
}

fn squeezenet(weights: &Path) -> Network {
    let device = Device::flex();
    create_from("squeezenet1_0", Checkpoint::open(weights).unwrap(), &Options::default(), &device).unwrap()
}

#[test]
fn squeezenet_is_explained_as_in_pytorch() {
    let Some(photos) = shared("data/photos") else { return };
    let Some(weights) = shared("data/weights/squeezenet1_0-imagenet.safetensors") else { return };
    let network = squeezenet(&weights);
    // Made by `cargo xtask visualize-check --write`.
    let golden: Value = serde_json::from_str(include_str!("visualize_squeezenet.json")).unwrap();
    let numbers = |value: &Value| -> Vec<f32> {
        value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
    };
    let photographs = golden.as_object().unwrap();
    assert_eq!(photographs.len(), 3);
    for (file, golden) in photographs {
        let view = View::new(&network, &load_image(&photos.join(file)).unwrap()).unwrap();
        let class = golden["class"].as_u64().unwrap() as usize;
        let step = golden["step"].as_u64().unwrap() as usize;
        // Every `step`-th number, and the sum of the magnitudes of all.
        let check = |what: &str, values: &[f32]| {
            let sampled: Vec<_> = values.iter().step_by(step).copied().collect();
            let sampled = if what == "gradcam" { values.to_vec() } else { sampled };
            let largest = golden[what]["largest"].as_f64().unwrap() as f32;
            let expected = numbers(&golden[what]["values"]);
            assert_eq!(sampled.len(), expected.len(), "{file} {what}");
            for (i, (value, expected)) in sampled.iter().zip(&expected).enumerate() {
                assert!((value - expected).abs() <= 1e-3 * largest, "{file} {what} {i}: {value} and not {expected}");
            }
            let sum: f64 = values.iter().map(|value| f64::from(value.abs())).sum();
            let expected = golden[what]["sum"].as_f64().unwrap();
            assert!((sum - expected).abs() <= 1e-3 * expected, "{file} {what}: sum {sum} and not {expected}");
        };
        let input = view.input();
        check("gradcam", &grad_cam(&network, input.clone(), class, None).unwrap().values);
        check("saliency", &saliency(&network, input.clone(), class).unwrap().values);
        check("guided-gradcam", &guided_grad_cam(&network, input.clone(), class, None).unwrap().values);
        let cell = numbers(&golden["cell"]);
        let cell = Cell { channel: cell[0] as usize, at: [cell[1] as usize, cell[2] as usize] };
        let layer = golden["layer"].as_str().unwrap();
        assert_eq!(peaks(&network, input.clone(), layer).unwrap()[0][cell.channel].0, cell, "{file}");
        check("deconvnet", &deconvnet(&network, input, layer, &[cell]).unwrap()[0].values);
    }
}

#[test]
fn what_is_not_there_is_told() {
    let device = Device::flex();
    let network = create("squeezenet1_1", &Options::default().with_classes(7), &device).unwrap();
    let image = Tensor::zeros([1, 3, 64, 64], &device);
    let told = |result: Result<(), VisualizeError>| result.unwrap_err().to_string();
    let layer = |name| told(grad_cam(&network, image.clone(), 0, Some(name)).map(drop));
    assert!(layer("feature.0").contains("did you mean features.0"), "{}", layer("feature.0"));
    let inside = "inside the block of that name are features.3.squeeze, features.3.expand1x1, features.3.expand3x3";
    assert!(layer("features.3").contains(inside), "{}", layer("features.3"));
    assert!(layer("zzz").contains("`convzoo summary` names them all"), "{}", layer("zzz"));
    assert!(layer("classifier.3").contains("one value per channel"), "{}", layer("classifier.3"));
    let class = told(saliency(&network, image.clone(), 7).map(drop));
    assert!(class.contains("there is no class 7") && class.contains("from 0 to 6"), "{class}");
    let pool = told(filters(&network, [3, 64, 64], Some("features.2")).map(drop));
    assert!(pool.contains("MaxPool2d") && pool.contains("features.0"), "{pool}");
    let cell = Cell { channel: 64, at: [0, 0] };
    let outside = told(deconvnet(&network, image.clone(), "features.0", &[cell]).map(drop));
    assert!(outside.contains("64×31×31 and has no cell [64, 0, 0]"), "{outside}");
    let occluder = told(occlusion(&network, image, 0, Occluder { window: 65, stride: 1 }, |_| ()).map(drop));
    assert!(occluder.contains("65") && occluder.contains("1 to 64"), "{occluder}");
}
