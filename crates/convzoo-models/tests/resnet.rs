//! The residual families: the papers' figures, weight initialization, and depth without a stack overflow.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, Distribution, Tensor};
use convzoo_models::{Classifier, Network, Options, Summary, create};

fn network(name: &str, device: &Device) -> Network {
    create(name, &Options::default(), device).unwrap()
}

fn summary(name: &str) -> Summary {
    let network = network(name, &Device::flex());
    network.summary(network.input()).unwrap()
}

fn millions(params: usize, decimals: usize) -> String {
    format!("{:.decimals$}M", params as f64 / 1e6)
}

#[test]
fn parameters_are_the_papers() {
    let figures = [
        // He et al. 2015, table 6.
        ("resnet20_cifar", "0.27M"),
        ("resnet32_cifar", "0.46M"),
        ("resnet44_cifar", "0.66M"),
        ("resnet56_cifar", "0.85M"),
        ("resnet110_cifar", "1.7M"),
        ("resnet1202_cifar", "19.4M"),
        // The paper's plain networks: shortcuts of option A have no parameters.
        ("plain20_cifar", "0.27M"),
        ("plain56_cifar", "0.85M"),
        // Huang et al. 2016: the same network.
        ("resnet110_stochastic_depth", "1.7M"),
        // He et al. 2016, table 4.
        ("preact_resnet110_cifar", "1.7M"),
        ("preact_resnet164_cifar", "1.7M"),
        // Zagoruyko and Komodakis 2016, table 4.
        ("wide_resnet28_10", "36.5M"),
        // Xie et al. 2016, table 7.
        ("resnext29_8x64d", "34.4M"),
    ];
    for (name, paper) in figures {
        let decimals = paper.len() - paper.find('.').unwrap() - 2;
        assert_eq!(millions(summary(name).params, decimals), paper, "{name}");
    }
}

#[test]
fn the_papers_count_for_resnet_1001_leaves_out_its_norms() {
    let summary = summary("preact_resnet1001_cifar");
    let convolutions = summary.layers.iter().filter(|layer| layer.kind == "Conv2d");
    assert_eq!(millions(convolutions.map(|layer| layer.params).sum(), 1), "10.2M");
    assert_eq!(millions(summary.params, 1), "10.3M");
}

#[test]
fn depths_are_in_the_names() {
    // Convolutions and the linear layer on the longest path, without those of shortcuts.
    let depth = |name: &str| {
        let layers = summary(name).layers;
        let weighted = layers.iter().filter(|layer| ["Conv2d", "Linear"].contains(&layer.kind));
        weighted.filter(|layer| !layer.name.contains("shortcut") && !layer.name.contains("downsample")).count()
    };
    for (name, layers) in [
        ("resnet18", 18),
        ("resnet34", 34),
        ("resnet50", 50),
        ("resnet101", 101),
        ("resnet152", 152),
        ("resnext50_32x4d", 50),
        ("resnext101_64x4d", 101),
        ("wide_resnet101_2", 101),
        ("resnetv2_50", 50),
        ("resnetv2_101", 101),
        ("resnet20_cifar", 20),
        ("resnet32_cifar", 32),
        ("resnet44_cifar", 44),
        ("resnet56_cifar", 56),
        ("resnet110_cifar", 110),
        ("resnet1202_cifar", 1202),
        ("plain20_cifar", 20),
        ("plain56_cifar", 56),
        ("resnet110_stochastic_depth", 110),
        ("preact_resnet110_cifar", 110),
        ("preact_resnet164_cifar", 164),
        ("preact_resnet1001_cifar", 1001),
        ("resnext29_8x64d", 29),
    ] {
        assert_eq!(depth(name), layers, "{name}");
    }
    // Wide networks are named after all their convolutions, shortcuts included.
    for (name, layers) in [("wide_resnet16_4", 16), ("wide_resnet28_10", 28)] {
        let convolutions = summary(name).layers.iter().filter(|layer| layer.kind == "Conv2d").count();
        assert_eq!(convolutions, layers, "{name}");
    }
}

#[test]
fn stages_have_the_papers_maps() {
    let last = |name: &str, stage: &str| {
        let layers = summary(name).layers;
        let mut of_stage = layers.iter().filter(|layer| layer.name.starts_with(stage) && layer.kind == "Conv2d");
        of_stage.next_back().unwrap().output.clone()
    };
    assert_eq!(last("resnet20_cifar", "layer1"), [16, 32, 32]);
    assert_eq!(last("resnet20_cifar", "layer2"), [32, 16, 16]);
    assert_eq!(last("resnet20_cifar", "layer3"), [64, 8, 8]);
    assert_eq!(last("preact_resnet164_cifar", "layer3"), [256, 8, 8]);
    assert_eq!(last("wide_resnet16_4", "layer3"), [256, 8, 8]);
    assert_eq!(last("wide_resnet28_10", "layer3"), [640, 8, 8]);
    assert_eq!(last("resnext29_8x64d", "layer3.2"), [1024, 8, 8]);
    assert_eq!(last("resnet50", "layer4.2"), [2048, 7, 7]);
}

#[test]
fn receptive_fields_follow_the_longest_path() {
    let layers = summary("resnet18").layers;
    let last = layers.iter().find(|layer| layer.name == "layer4.1.bn2").unwrap();
    assert_eq!((last.receptive_field, last.receptive_stride), ([Some(435); 2], [32; 2]));
    // Global average pooling depends on all pixels.
    assert_eq!(layers.last().unwrap().receptive_field, [None; 2]);
}

#[test]
fn resnet20_has_the_names_of_the_published_weights() {
    let network = network("resnet20_cifar", &Device::flex());
    let mut own: Vec<_> = network.state().into_iter().map(|entry| entry.name).collect();
    let unit = |prefix: &str, i: usize| {
        let norm = ["weight", "bias", "running_mean", "running_var"].map(|field| format!("{prefix}bn{i}.{field}"));
        [format!("{prefix}conv{i}.weight")].into_iter().chain(norm)
    };
    let mut published: Vec<_> = unit("", 1).collect();
    for (stage, block) in (1..=3).flat_map(|stage| (0..3).map(move |block| (stage, block))) {
        published.extend((1..=2).flat_map(|i| unit(&format!("layer{stage}.{block}."), i)));
    }
    published.extend(["linear.weight", "linear.bias"].map(String::from));
    own.sort();
    published.sort();
    assert_eq!(own, published);
}

#[test]
fn plain_networks_are_residual_ones_without_shortcuts() {
    let layers = |name: &str| {
        let layers = summary(name).layers;
        layers.into_iter().map(|layer| (layer.name, layer.kind, layer.output, layer.params)).collect::<Vec<_>>()
    };
    for depth in [20, 56] {
        assert_eq!(layers(&format!("plain{depth}_cifar")), layers(&format!("resnet{depth}_cifar")), "{depth} layers");
    }
}

/// The values of the tensor of this name.
fn values(network: &Network, name: &str) -> Vec<f32> {
    struct Find(ParamId, Vec<f32>);
    impl ModuleVisitor for Find {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.id == self.0 {
                self.1 = param.val().into_data().try_into_vec().unwrap();
            }
        }
    }
    let state = network.state();
    let entry = state.iter().find(|entry| entry.name == name).unwrap_or_else(|| panic!("there is no {name}"));
    let mut find = Find(entry.id, Vec::new());
    network.visit(&mut find);
    find.1
}

fn moments(values: &[f32]) -> (f64, f64) {
    let mean = |f: &dyn Fn(f64) -> f64| values.iter().map(|&v| f(f64::from(v))).sum::<f64>() / values.len() as f64;
    let center = mean(&|v| v);
    (center, mean(&|v| (v - center).powi(2)).sqrt())
}

#[test]
fn weights_are_initialized_as_in_the_references() {
    let device = Device::flex();
    let he = |fan: usize| (2.0 / fan as f64).sqrt();
    for (name, tensor, std) in [
        // Kaiming normal, `fan_out`; PyTorch counts all outputs of a grouped convolution.
        ("resnet18", "layer2.0.conv1.weight", he(128 * 9)),
        ("resnet50", "layer1.0.downsample.0.weight", he(256)),
        ("resnext50_32x4d", "layer3.0.conv2.weight", he(512 * 9)),
        ("resnetv2_50", "stages.1.blocks.0.conv3.weight", he(512)),
        ("resnetv2_50", "head.fc.weight", 0.01),
        ("preact_resnet164_cifar", "layer3.0.conv3.weight", he(256)),
        ("resnext29_8x64d", "layer1.0.conv1.weight", he(512)),
        // PyTorch's default for a linear layer, uniform in ±1/√fan_in.
        ("resnet18", "fc.weight", 1.0 / (3.0 * 512.0f64).sqrt()),
        ("resnext29_8x64d", "linear.weight", 1.0 / (3.0 * 1024.0f64).sqrt()),
        // Kaiming normal, `fan_in`.
        ("resnet20_cifar", "layer3.0.conv1.weight", he(32 * 9)),
        ("resnet20_cifar", "linear.weight", he(64)),
        ("plain20_cifar", "layer3.0.conv1.weight", he(32 * 9)),
    ] {
        let network = network(name, &device);
        let values = values(&network, tensor);
        let (mean, found) = moments(&values);
        // Four standard errors of a normal sample.
        let tolerance = 4.0 / (values.len() as f64).sqrt();
        assert!(mean.abs() < tolerance * std, "{name} {tensor}: mean {mean}");
        assert!((found / std - 1.0).abs() < tolerance, "{name} {tensor}: deviation {found}, expected {std}");
    }

    for (name, norm) in [("resnet18", "layer1.0.bn2"), ("resnetv2_50", "norm"), ("wide_resnet28_10", "bn1")] {
        let network = network(name, &device);
        for (field, initial) in [("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)] {
            assert!(values(&network, &format!("{norm}.{field}")).iter().all(|&value| value == initial));
        }
    }
    for (name, bias) in [("resnetv2_50", "head.fc.bias"), ("preact_resnet110_cifar", "linear.bias")] {
        assert!(values(&network(name, &device), bias).iter().all(|&value| value == 0.0));
    }
    assert!(values(&network("resnet20_cifar", &device), "linear.bias").iter().any(|&value| value != 0.0));
}

#[test]
fn a_new_head_has_the_classes_asked_for() {
    let device = Device::flex();
    for name in ["resnet18", "resnetv2_50", "resnet20_cifar", "preact_resnet110_cifar"] {
        let network = network(name, &device).replace_head(7);
        let summary = network.summary(network.input()).unwrap();
        assert_eq!(summary.layers.last().unwrap().output[0], 7, "{name}");
    }
}

/// Runs `work` on a stack of 2 MiB, what a thread is given by default.
fn on_a_default_stack(work: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(2 << 20).spawn(work).unwrap().join().unwrap();
}

#[test]
fn a_thousand_layers_fit_the_stack() {
    on_a_default_stack(|| {
        for name in ["resnet1202_cifar", "preact_resnet1001_cifar"] {
            let device = Device::flex();
            let network = network(name, &device);
            assert!(!network.summary([3, 32, 32]).unwrap().layers.is_empty());
            let images = Tensor::random([2, 3, 32, 32], Distribution::Default, &device);
            assert_eq!(network.forward(images).dims(), [2, 10]);
        }
    });
}

#[test]
fn gradients_reach_every_parameter_of_the_deepest() {
    on_a_default_stack(|| {
        for (name, side) in [("resnet110_cifar", 32), ("resnet1202_cifar", 8), ("preact_resnet1001_cifar", 8)] {
            let device = Device::flex().autodiff();
            let network = network(name, &device);
            let images = Tensor::random([4, 3, side, side], Distribution::Default, &device);
            let gradients = network.forward(images).square().sum().backward();

            struct Missing<'a>(&'a burn::tensor::Gradients, usize);
            impl ModuleVisitor for Missing<'_> {
                fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                    self.1 += usize::from(param.is_require_grad() && param.val().grad(self.0).is_none());
                }
            }
            let mut missing = Missing(&gradients, 0);
            network.visit(&mut missing);
            assert_eq!(missing.1, 0, "{name}");
        }
    });
}

#[test]
fn stochastic_depth_is_random_in_training_alone() {
    let twice_the_same = |name: &str, device: &Device| {
        let network = network(name, device);
        let images = Tensor::<4>::random([4, 3, 8, 8], Distribution::Default, device);
        let forward = || network.forward(images.clone()).into_data().try_into_vec::<f32>().unwrap();
        forward() == forward()
    };
    let (inference, training) = (Device::flex(), Device::flex().autodiff());
    assert!(twice_the_same("resnet110_stochastic_depth", &inference));
    assert!(!twice_the_same("resnet110_stochastic_depth", &training));
    assert!(twice_the_same("resnet110_cifar", &training));
}
