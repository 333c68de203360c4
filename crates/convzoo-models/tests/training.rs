//! Three steps of gradient descent do what they do in PyTorch: losses, gradients, running statistics.
//!
//! `goldens/` holds figures of torch 2.9.0 and torchvision 0.24.0; dropout is off.

mod common;

use std::collections::HashMap;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Int, Tensor};
use convzoo_models::{Classifier, Network, Opt, Options, variant};
use serde_json::Value;

/// The norm of each parameter's gradient.
struct GradientNorms<'a>(&'a GradientsParams, HashMap<ParamId, f64>);

impl ModuleVisitor for GradientNorms<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.0.get::<D>(param.id) {
            self.1.insert(param.id, norm(gradient));
        }
    }
}

/// The norm as PyTorch sums it on a CPU, in f32 over eight lanes: over a hundred million elements that is 7e-3 short
/// of the exact norm, and so is the golden.
fn norm<const D: usize>(tensor: Tensor<D>) -> f64 {
    let mut lanes = [0f32; 8];
    for values in tensor.into_data().try_into_vec::<f32>().unwrap().chunks(8) {
        for (lane, value) in lanes.iter_mut().zip(values) {
            *lane += value * value;
        }
    }
    f64::from(lanes.into_iter().sum::<f32>().sqrt())
}

/// The mean absolute value of every tensor.
struct Means(HashMap<ParamId, f64>);

impl ModuleVisitor for Means {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.insert(param.id, param.val().abs().mean().into_scalar());
    }
}

/// Exchanges ids for names.
fn named(network: &Network, values: HashMap<ParamId, f64>) -> HashMap<String, f64> {
    let state = network.state().into_iter();
    state.filter_map(|entry| values.get(&entry.id).map(|&value| (entry.name, value))).collect()
}

fn assert_close(what: &str, found: f64, expected: f64, tolerance: f64) {
    let error = (found - expected).abs() / expected.abs();
    assert!(error < tolerance, "{what}: {found} is {error:.1e} from {expected}");
}

/// Gradient norms are held to `of_gradients`; what follows the first step, where `later` says so, to 1e-2.
fn trains(name: &str, of_gradients: f64, later: bool) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/goldens/{name}.train.json"));
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let number = |value: &Value| value.as_f64().unwrap();
    let (sgd, auxiliary_weight) = (&golden["sgd"], number(&golden["aux_weight"]));

    let device = Device::flex().autodiff();
    let classes = golden["classes"].as_u64().unwrap() as usize;
    let dropout = variant(name).unwrap().takes.contains(&Opt::Dropout).then_some(0.0);
    let mut network = common::filled(name, &Options { dropout, ..Options::default().with_classes(classes) }, &device);

    let shape: [usize; 4] = std::array::from_fn(|i| golden["input"][i].as_u64().unwrap() as usize);
    let images = common::input(shape, &device);
    let targets: Vec<i64> = (0..shape[0]).map(|i| (i % classes) as i64).collect();
    let targets = Tensor::<1, Int>::from_data(targets.as_slice(), &device);
    let cross_entropy = CrossEntropyLossConfig::new().init(&device);
    let mut optimizer = SgdConfig::new()
        .with_momentum(Some(MomentumConfig::new().with_momentum(number(&sgd["momentum"])).with_dampening(0.0)))
        .with_weight_decay(Some(WeightDecayConfig::new(number(&sgd["weight_decay"]) as f32)))
        .init();

    let steps = if later { 3 } else { 1 };
    for (step, expected) in golden["losses"].as_array().unwrap().iter().enumerate().take(steps) {
        let outputs = network.forward_train(images.clone());
        let main = cross_entropy.forward(outputs.logits, targets.clone());
        let loss = outputs.auxiliary.into_iter().fold(main, |loss, logits| {
            loss + cross_entropy.forward(logits, targets.clone()).mul_scalar(auxiliary_weight)
        });
        let tolerance = if step == 0 { 1e-5 } else { 1e-2 };
        assert_close(&format!("{name}: loss {step}"), loss.clone().into_scalar(), number(expected), tolerance);

        let gradients = GradientsParams::from_grads(loss.backward(), &network);
        if step == 0 {
            let mut norms = GradientNorms(&gradients, HashMap::new());
            network.visit(&mut norms);
            let norms = named(&network, norms.1);
            let expected = golden["first_step_grad_norms"].as_object().unwrap();
            assert_eq!(norms.len(), expected.len(), "{name}: parameters with gradients");
            for (parameter, expected) in expected {
                // A bias in front of a batch norm has no gradient but for rounding.
                if number(expected) < 1e-5 {
                    assert!(norms[parameter] < 1e-5, "{name}: gradient of {parameter}: {}", norms[parameter]);
                    continue;
                }
                let what = format!("{name}: gradient of {parameter}");
                assert_close(&what, norms[parameter], number(expected), of_gradients);
            }
        }
        network = optimizer.step(number(&sgd["lr"]), network, gradients);
    }
    if !later {
        return;
    }

    let mut means = Means(HashMap::new());
    // `valid` folds the last update into the running statistics.
    network.valid().visit(&mut means);
    let means = named(&network, means.0);
    for (buffer, expected) in golden["buffers_mean_abs"].as_object().unwrap() {
        assert_close(&format!("{name}: {buffer}"), means[buffer], number(expected), 1e-2);
    }
}

macro_rules! train_goldens {
    ($($name:ident)*) => {
        $(#[test] fn $name() { trains(stringify!($name), 1e-3, true); })*
    };
}

train_goldens! { alexnet vgg11_bn resnet18 }

/// This golden is not more exact than this. In f64 the same network is 1e-5 from its first loss, up to 8e-3 from its
/// gradient norms and 4e-2 and 14e-2 from the later losses, and nudging the images by 1e-7 moves all of them as far:
/// batch statistics over 2×2 maps of four images, fifty layers deep, multiply every rounding.
#[test]
fn resnet50() {
    trains("resnet50", 1e-2, false);
}
