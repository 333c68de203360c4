//! Networks that are no named variants: configurations of the zoo's families, and a network of one's own.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use burn::module::Module;
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Distribution, Tensor};
use convzoo_blocks::{AdaptiveAvgPool2d, ConvUnit, ConvUnitConfig, FeatureMap, GlobalPooling, Linear, LinearConfig};
use convzoo_models::families::alexnet_2012::AlexNet2012Config;
use convzoo_models::families::resnet::{ResNetBlock, ResNetConfig};
use convzoo_models::families::vgg::VggConfig;
use convzoo_models::{Classifier, Fused, Options, Precision, create, summarize, weights};

/// A convolution, two more with a skip connection around them, and a linear layer.
#[derive(Module, Debug)]
struct Skip {
    stem: ConvUnit,
    convs: Vec<ConvUnit>,
    pool: AdaptiveAvgPool2d,
    fc: Linear,
}

impl Skip {
    fn new(device: &Device) -> Self {
        let conv = |inputs| ConvUnitConfig::square(inputs, 8, 3).padded(1).with_batch_norm();
        Self {
            stem: conv(3).strided(2).init(device),
            convs: vec![conv(8).init(device), conv(8).linear().init(device)],
            pool: AdaptiveAvgPool2d::new([1, 1]),
            fc: LinearConfig::new(8, 5).init(device),
        }
    }
}

impl Classifier for Skip {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        let x = self.stem.forward(images);
        let residual = self.convs.iter().fold(x.clone(), |x, conv| conv.forward(x));
        (x + residual).relu()
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.fc.forward(self.pool.forward(features).flatten())
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { fc: self.fc.replace_outputs(classes), ..self }
    }
}

fn values(logits: Tensor<2>) -> Vec<f32> {
    logits.into_data().try_into_vec().unwrap()
}

/// Trains a step, summarizes, compiles, saves and loads; the summary's parameters, and the receptive field of the last
/// layer with one that ends.
fn does_all<N: Classifier + std::fmt::Debug>(make: impl Fn(&Device) -> N) -> (usize, usize) {
    let device = Device::flex();
    let training = device.clone().autodiff();
    let noise = Tensor::<4>::random([8, 3, 32, 32], Distribution::Normal(0.0, 1.0), &device);
    let images = |device: &Device| Tensor::<4>::from_data(noise.clone().into_data(), device);

    let network = make(&training);
    let loss = network.forward_train(images(&training)).logits.square().mean();
    let gradients = GradientsParams::from_grads(loss.clone().backward(), &network);
    let mut optimizer = SgdConfig::new().init();
    let network = optimizer.step(1e-4, network, gradients);
    let after = network.forward_train(images(&training)).logits.square().mean();
    assert!(after.into_scalar::<f32>() < loss.into_scalar::<f32>(), "a step lowers the loss");

    let network = network.valid();
    let summary = summarize(&network, [3, 32, 32]).unwrap();
    assert!(summary.layers.iter().all(|layer| !layer.name.is_empty()), "{summary:?}");
    let field = summary.layers.iter().filter_map(|layer| layer.receptive_field[0]).max().unwrap();

    let logits = values(network.forward(images(&device)));
    let compiled = Fused::new(&network, [3, 32, 32], Precision::F32).unwrap();
    for (compiled, logit) in values(compiled.forward(images(&device)).unwrap()).iter().zip(&logits) {
        assert!((compiled - logit).abs() < 1e-4 * (1.0 + logit.abs()), "compiled {compiled}, computed {logit}");
    }

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weights.safetensors");
    weights::save(&network, &file).unwrap();
    let loaded = weights::load(make(&device), &file).unwrap();
    assert_eq!(values(loaded.forward(images(&device))), logits, "saved and loaded");
    (summary.params, field)
}

#[test]
fn a_resnet_10_of_one_block_a_stage() {
    let config = ResNetConfig::new([1, 1, 1, 1], ResNetBlock::Basic).with_classes(10);
    // ResNet-18 with 11,181,642 parameters for ten classes, less a block of two convolutions and norms in each stage.
    let blocks: usize = [64, 128, 256, 512].map(|width| 2 * (9 * width * width + 2 * width)).iter().sum();
    let (params, field) = does_all(|device| config.init(device));
    assert_eq!(params, 11_181_642 - blocks);
    // 7×7 and its pooling have a receptive field of 11; two 3×3 in each stage add twice their inputs' stride each.
    assert_eq!(field, 11 + (8 + 8) + (8 + 16) + (16 + 32) + (32 + 64));
}

#[test]
fn a_network_of_ones_own_with_a_skip_connection() {
    let (params, field) = does_all(Skip::new);
    assert_eq!(params, 3 * 8 * 9 + 2 * 8 * 8 * 9 + 3 * 16 + 8 * 5 + 5);
    // Strided 3×3, then two 3×3 on every second pixel.
    assert_eq!(field, 3 + 4 + 4);
}

#[test]
fn a_headless_network_returns_its_pooled_features() {
    let network = ResNetConfig::new([1, 1, 1, 1], ResNetBlock::BOTTLENECK).with_classes(0).init(&Device::flex());
    let graph = network.graph([3, 64, 64]).unwrap();
    assert_eq!(graph.output().shape, [2048]);
    assert_eq!(network.replace_head(7).graph([3, 64, 64]).unwrap().output().shape, [7]);
}

#[test]
fn global_max_pooling_takes_the_largest_of_each_channel() {
    let device = Device::flex();
    let config = ResNetConfig::new([1, 1, 1, 1], ResNetBlock::Basic).with_global_pool(GlobalPooling::Max);
    does_all(|device| config.clone().with_classes(10).init(device));
    let network = config.with_classes(0).init(&device);
    let images = Tensor::<4>::random([2, 3, 96, 64], Distribution::Normal(0.0, 1.0), &device);
    let maxima = network.forward_features(images.clone()).max_dim(3).max_dim(2).flatten::<2>(1, 3);
    assert_eq!(values(network.forward(images)), values(maxima));
}

#[test]
fn a_residual_network_whose_last_norms_are_zero_starts_as_its_shortcuts() {
    let device = Device::flex();
    let config = ResNetConfig::new([2, 1, 1, 1], ResNetBlock::Basic).with_zero_init(true);
    let network = config.init(&device);
    let zeros = network.graph([3, 32, 32]).unwrap();
    let names: Vec<_> = zeros.layers().map(|(_, node)| node.name.clone()).collect();
    assert!(names.contains(&"layer1.1.bn2".to_owned()));
    let state = weights_by_name(&network);
    assert!(state("layer1.1.bn2.weight").iter().all(|gamma| *gamma == 0.0));
    assert!(state("layer1.1.bn1.weight").iter().all(|gamma| *gamma == 1.0));
}

/// Values by the reference's names.
fn weights_by_name<N: Classifier>(network: &N) -> impl Fn(&str) -> Vec<f32> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weights.safetensors");
    weights::save(network, &file).unwrap();
    move |name: &str| {
        let _keep = &folder;
        let bytes = std::fs::read(&file).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        let at = |i: usize| header[name]["data_offsets"][i].as_u64().unwrap() as usize + 8 + length;
        bytes[at(0)..at(1)].chunks_exact(4).map(|value| f32::from_le_bytes(value.try_into().unwrap())).collect()
    }
}

#[test]
fn alexnet_in_one_tower_has_the_parameters_that_courses_show() {
    let network = AlexNet2012Config::new().with_groups(1).init(&Device::flex());
    assert_eq!(summarize(&network, [3, 227, 227]).unwrap().params, 62_378_344);
}

#[test]
fn vggs_other_configurations_have_the_papers_parameters() {
    // Table 2 of the paper, in millions: A and A-LRN 133, C 134.
    let device = Device::flex();
    let params = |config: VggConfig| summarize(&config.init(&device), [3, 224, 224]).unwrap().params;
    let a = params(VggConfig::new([1, 1, 2, 2, 2]));
    let a_lrn = params(VggConfig::new([1, 1, 2, 2, 2]).with_response_norm(true));
    let c = params(VggConfig::new([2, 2, 3, 3, 3]).with_one_by_one(true));
    assert_eq!([a, a_lrn, c], [132_863_336, 132_863_336, 133_638_952]);

    let graph = VggConfig::new([1, 1, 2, 2, 2]).with_response_norm(true).init(&device).graph([3, 224, 224]).unwrap();
    let names: Vec<_> = graph.layers().map(|(_, node)| node.name.as_str()).collect();
    assert_eq!(names[..4], ["features.0", "features.2", "features.3", "features.4"]);
}

#[test]
fn feature_maps_of_stages_are_known_beforehand_and_lead_to_the_logits() {
    let device = Device::flex();
    let stages = |name: &str, names: &[&str], expected: &[(usize, usize)]| {
        let network = create(name, &Options::default().with_classes(3), &device).unwrap();
        let images = Tensor::random([2, 3, 64, 96], Distribution::Normal(0.0, 1.0), &device);
        let info = network.feature_info(names).unwrap();
        let maps = network.features(images.clone(), names).unwrap();
        for ((info, map), (channels, reduction)) in info.iter().zip(&maps).zip(expected) {
            assert_eq!((info.channels, info.reduction), (*channels, [*reduction; 2]), "{name}: {}", info.name);
            assert_eq!(map.dims(), [2, *channels, 64 / reduction, 96 / reduction], "{name}: {}", info.name);
        }
        let last = network.forward_head(maps.last().unwrap().clone());
        let (logits, expected) = (values(last), values(network.forward(images)));
        let close = logits.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-3 * (1.0 + b.abs()));
        assert!(close, "{name}: {logits:?} of the last feature map, {expected:?} of the network");
    };
    stages("resnet18", &["layer1", "layer2", "layer3", "layer4"], &[(64, 4), (128, 8), (256, 16), (512, 32)]);
    stages("densenet121", &["features.denseblock1", "features.norm5"], &[(256, 4), (1024, 32)]);
    stages("vgg11", &["features.2", "features.20"], &[(64, 2), (512, 32)]);

    let network = create("resnet18", &Options::default(), &device).unwrap();
    let error = network.feature_info(&["layer5"]).unwrap_err().to_string();
    assert!(error.contains("'layer5'") && error.contains("layer1"), "{error}");
}
