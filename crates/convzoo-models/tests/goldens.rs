//! Every network agrees with what PyTorch computed for it: state, layer table and logits, and steps of training.
//!
//! `goldens/` holds figures of torch 2.9.0, torchvision 0.24.0 and timm 1.0.31.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod common;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::GradientsParams;
use burn::tensor::{Device, FloatDType, Int, Tensor};
use convzoo_models::{Classifier, Fused, Opt, Options, Precision, StateEntry, variant};
use serde_json::Value;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

fn golden(file: &str) -> Value {
    let path = folder().join(file);
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

/// A layer's name, kind, output, parameters and multiply-adds.
type Row = (String, String, Vec<usize>, usize, usize);

/// A layer of a golden. Those of ConvNeXt that PyTorch computes with the channels last are told as feature maps here, and
/// the multiply-adds of a linear layer, which the golden has for one pixel, for all.
fn reference_row(row: &Value) -> Row {
    let number = |i: usize| row[i].as_u64().unwrap() as usize;
    let text = |i: usize| row[i].as_str().unwrap().to_owned();
    let (name, kind, params, macs) = (text(0), text(1), number(3), number(4));
    match (kind.as_str(), &usizes(&row[2])[1..]) {
        ("LayerNorm", &[height, width, channels]) => {
            (name, "LayerNorm2d".to_owned(), vec![channels, height, width], params, macs)
        }
        ("Linear", &[height, width, channels]) => {
            (name, kind, vec![channels, height, width], params, macs * height * width)
        }
        (_, output) => (name, kind, output.to_vec(), params, macs),
    }
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
    let reference: Vec<Row> = golden["layers"].as_array().unwrap().iter().map(reference_row).collect();
    // Where the reference pools or normalizes by a function or a fused layer, only this table has the row.
    let known = |name: &str| reference.iter().any(|row| row.0 == name);
    let own = summary.layers.iter().filter(|layer| known(&layer.name));
    let own: Vec<Row> = own.map(|l| (l.name.clone(), l.kind.to_owned(), l.output.clone(), l.params, l.macs)).collect();
    assert_eq!(own, reference, "{name}: layer table");
    assert_eq!(summary.macs, reference.iter().map(|row| row.4).sum::<usize>(), "{name}: multiply-adds");

    let logits = network.forward(common::input(shape, &device)).into_data().try_into_vec::<f32>().unwrap();
    let expected: Vec<f32> =
        golden["logits"][0].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
    let error = relative_error(&logits, &expected);
    assert!(error < 1e-4, "{name}: logits differ by {error:.2e} relative");
    println!("{name}: logits within {error:.1e} relative");

    let fused = Fused::new(&network, network.input(), Precision::F32).unwrap();
    let logits = fused.forward(common::input(shape, &device)).unwrap().into_data().try_into_vec::<f32>().unwrap();
    let error = relative_error(&logits, &expected);
    assert!(error < 1e-4, "{name}: fused logits differ by {error:.2e} relative");
    println!("{name}: fused logits within {error:.1e} relative");
}

macro_rules! eval_goldens {
    ($($name:ident)*; large: $($large:ident)*) => {
        mod evaluation {
            $(#[test] fn $name() { super::agrees(stringify!($name)); })*
            $(
                #[test]
                #[ignore = "fills 400 MB of weights or more; cargo test --workspace --test goldens -- --ignored"]
                fn $large() { super::agrees(stringify!($large)); }
            )*
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
    squeezenet1_0 squeezenet1_1
    densenet121 densenet161 densenet169 densenet201
    mobilenet_v2 mobilenet_v3_small mobilenet_v3_large
    mnasnet0_5 mnasnet0_75 mnasnet1_0 mnasnet1_3
    shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 shufflenet_v2_x2_0
    efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3 efficientnet_b4 efficientnet_b5 efficientnet_b6
    efficientnet_b7 efficientnet_v2_s efficientnet_v2_m
    regnet_x_400mf regnet_x_800mf regnet_x_1_6gf regnet_x_3_2gf regnet_x_8gf regnet_x_16gf
    regnet_y_400mf regnet_y_800mf regnet_y_1_6gf regnet_y_3_2gf regnet_y_8gf regnet_y_16gf
    convnext_tiny convnext_small convnext_base;
    large: efficientnet_v2_l regnet_x_32gf regnet_y_32gf regnet_y_128gf convnext_large
}

/// The precision that a network is trained in.
#[derive(Clone, Copy, Debug)]
enum Bits {
    /// 64 bits, by Burn's own operations: rounding is negligible, and any difference is a bug.
    Double,
    /// 32 bits, by this project's kernels.
    Single,
    /// Activations of bfloat16 numbers, parameters of 32 bits, by this project's kernels.
    Mixed,
}

impl Bits {
    /// Of parameters.
    fn dtype(self) -> FloatDType {
        match self {
            Self::Double => FloatDType::F64,
            Self::Single | Self::Mixed => FloatDType::F32,
        }
    }

    /// Of images, and so of activations.
    fn activations(self) -> FloatDType {
        if let Self::Mixed = self { FloatDType::BF16 } else { self.dtype() }
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

/// Relative tolerances of training against its golden.
struct Bounds {
    /// For each step.
    losses: Vec<f64>,
    /// At the first step.
    gradient_norms: f64,
    /// After the last step.
    running_statistics: f64,
}

impl Bounds {
    /// In 32 bits, ten times the difference of PyTorch's own 32 bits from its 64. The running statistics drift as the
    /// losses do.
    fn of(golden: &Value, bits: Bits) -> Self {
        let drifts = golden["rounding"]["losses"].as_array().unwrap();
        let tenfold = |least: f64, drift: &Value| least.max(10.0 * number(drift));
        match bits {
            Bits::Double => Self { losses: vec![1e-7; drifts.len()], gradient_norms: 1e-7, running_statistics: 1e-7 },
            Bits::Single => Self {
                losses: drifts.iter().map(|drift| tenfold(1e-5, drift)).collect(),
                gradient_norms: tenfold(1e-4, &golden["rounding"]["gradient_norms"]),
                running_statistics: drifts.iter().fold(1e-4, tenfold).min(1e-2),
            },
            // The first step alone: rounding takes other sides of ReLUs, and single gradients go far, in PyTorch's autocast
            // as here. So most gradients are compared, not the worst.
            Bits::Mixed => Self { losses: vec![0.05], gradient_norms: 0.1, running_statistics: 0.0 },
        }
    }
}

/// Brings every tensor of a module to a precision.
struct Cast(FloatDType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        exchange(param, |tensor| tensor.cast(self.0))
    }
}

/// The parameter with another value, computed without autodiff.
fn exchange<const D: usize>(param: Param<Tensor<D>>, compute: impl FnOnce(Tensor<D>) -> Tensor<D>) -> Param<Tensor<D>> {
    param.map(|tensor| {
        let tracked = tensor.is_require_grad();
        compute(tensor.without_autodiff()).autodiff().set_require_grad(tracked)
    })
}

/// A step of PyTorch's SGD. Burn's own keeps momentum and weight decay in 32 bits.
struct Sgd {
    rate: f64,
    momentum: f64,
    weight_decay: f64,
    gradients: GradientsParams,
    velocities: GradientsParams,
}

impl Sgd {
    fn new(golden: &Value) -> Self {
        let [rate, momentum, weight_decay] = ["lr", "momentum", "weight_decay"].map(|key| number(&golden["sgd"][key]));
        Self { rate, momentum, weight_decay, gradients: GradientsParams::new(), velocities: GradientsParams::new() }
    }
}

impl ModuleMapper for Sgd {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let id = param.id;
        let Some(gradient) = self.gradients.remove::<D>(id) else { return param };
        exchange(param, |tensor| {
            let gradient = gradient + tensor.clone().mul_scalar(self.weight_decay);
            let velocity = match self.velocities.remove::<D>(id) {
                Some(velocity) => velocity.mul_scalar(self.momentum) + gradient,
                None => gradient,
            };
            self.velocities.register(id, velocity.clone());
            tensor - velocity.mul_scalar(self.rate)
        })
    }
}

/// The L2 norm of a parameter's gradient.
fn gradient_norm(grads: &GradientsParams, entry: &StateEntry) -> f64 {
    fn norm<const D: usize>(grads: &GradientsParams, id: ParamId) -> f64 {
        let gradient: Tensor<D> = grads.get(id).unwrap();
        gradient.into_data().iter::<f64>().map(|value| value * value).sum::<f64>().sqrt()
    }
    match entry.shape.len() {
        1 => norm::<1>(grads, entry.id),
        2 => norm::<2>(grads, entry.id),
        3 => norm::<3>(grads, entry.id),
        _ => norm::<4>(grads, entry.id),
    }
}

/// The mean absolute value of each tensor of a module.
#[derive(Default)]
struct MeanAbs(HashMap<ParamId, f64>);

impl ModuleVisitor for MeanAbs {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let values = param.val().into_data();
        let sum: f64 = values.iter::<f64>().map(f64::abs).sum();
        self.0.insert(param.id, sum / values.num_elements() as f64);
    }
}

/// The largest difference of named figures from the golden's, relative to each, but to no less than `least` of the largest:
/// the bias before a batch norm, say, has a gradient of zero but for rounding. And whose it is.
fn largest_difference(figures: &[(&str, f64)], golden: &Value, least: f64) -> (f64, String) {
    differences(figures, golden, least).pop().unwrap_or_default()
}

/// All of them, the least first.
fn differences(figures: &[(&str, f64)], golden: &Value, least: f64) -> Vec<(f64, String)> {
    let golden = golden.as_object().unwrap();
    assert_eq!(figures.len(), golden.len());
    let top = golden.values().map(number).fold(0.0, f64::max);
    let difference = |(name, figure): &(&str, f64)| {
        let expected = number(&golden[*name]);
        ((figure - expected).abs() / expected.max(least * top), (*name).to_owned())
    };
    let mut differences: Vec<_> = figures.iter().map(difference).collect();
    differences.sort_by(|a, b| a.0.total_cmp(&b.0));
    differences
}

/// Three steps of SGD agree with PyTorch's: losses, gradient norms of the first, running statistics after the last. In mixed
/// precision one step: its loss and half of its gradient norms.
fn trains(name: &str, bits: Bits, options: &Options) {
    let golden = golden(&format!("{name}.train.json"));
    let bounds = Bounds::of(&golden, bits);
    let device = Device::flex().autodiff();
    let shape: [usize; 4] = usizes(&golden["input"]).try_into().unwrap();
    let classes = golden["classes"].as_u64().unwrap() as usize;

    let off = |option| variant(name).unwrap().takes.contains(&option).then_some(0.0);
    let (dropout, drop_path) = (off(Opt::Dropout), off(Opt::DropPath));
    let options = Options { classes: Some(classes), dropout, drop_path, ..options.clone() };
    let mut network = common::filled(name, &options, &device).map(&mut Cast(bits.dtype()));
    let state = network.state();
    let (parameters, statistics): (Vec<_>, Vec<_>) = state.iter().partition(|entry| entry.parameter);
    let mut sgd = Sgd::new(&golden);

    let images = common::images(golden["input_name"].as_str().unwrap(), shape, &device).cast(bits.activations());
    let targets: Vec<_> = (0..shape[0]).map(|i| (i % classes) as i64).collect();
    let targets = Tensor::<1, Int>::from_data(targets.as_slice(), &device);
    let cross_entropy = CrossEntropyLossConfig::new().init(&device);
    for (step, expected) in golden["losses"].as_array().unwrap().iter().enumerate().take(bounds.losses.len()) {
        let outputs = network.forward_train(images.clone());
        let main = cross_entropy.forward(outputs.logits.cast(bits.dtype()), targets.clone());
        let loss = outputs.auxiliary.into_iter().fold(main, |loss, logits| {
            loss + cross_entropy.forward(logits.cast(bits.dtype()), targets.clone()) * number(&golden["aux_weight"])
        });
        sgd.gradients = GradientsParams::from_grads(loss.backward(), &network);

        let loss = loss.into_data().iter::<f64>().next().unwrap();
        let error = (loss - number(expected)).abs() / number(expected);
        println!("{name}, {bits:?}: loss of step {step} within {error:.1e} relative");
        assert!(error < bounds.losses[step], "{name}, {bits:?}: loss of step {step} is {loss}, not {expected}");
        if step == 0 {
            let norms: Vec<_> =
                parameters.iter().map(|entry| (&*entry.name, gradient_norm(&sgd.gradients, entry))).collect();
            let mut differences = differences(&norms, &golden["first_step_grad_norms"], 1e-3);
            if let Bits::Mixed = bits {
                differences.truncate(differences.len() / 2 + 1);
            }
            let (error, worst) = differences.pop().unwrap();
            println!("{name}, {bits:?}: gradient norms within {error:.1e} relative");
            let bound = bounds.gradient_norms;
            assert!(error < bound, "{name}, {bits:?}: the gradient of {worst} differs by {error:.2e} relative");
        }
        network = network.map(&mut sgd);
    }

    if let Bits::Mixed = bits {
        return;
    }
    // Brings the last step's running statistics to where inference and files read them.
    let mut means = MeanAbs::default();
    network.valid().visit(&mut means);
    let means: Vec<_> = statistics.iter().map(|entry| (&*entry.name, means.0[&entry.id])).collect();
    let (error, worst) = largest_difference(&means, &golden["buffers_mean_abs"], 0.0);
    println!("{name}, {bits:?}: running statistics within {error:.1e} relative");
    assert!(error < bounds.running_statistics, "{name}, {bits:?}: {worst} differs by {error:.2e} relative");
}

macro_rules! train_goldens {
    ($($name:ident)*) => {
        /// The networks whose training is compared.
        const TRAINED: &[&str] = &[$(stringify!($name)),*];

        mod training_in_64_bits {
            $(#[test] fn $name() { super::trains(stringify!($name), super::Bits::Double, &Default::default()); })*
        }
        mod training_in_32_bits {
            $(#[test] fn $name() { super::trains(stringify!($name), super::Bits::Single, &Default::default()); })*
        }
        mod training_in_bfloat16 {
            $(#[test] fn $name() { super::trains(stringify!($name), super::Bits::Mixed, &Default::default()); })*
        }
    };
}

train_goldens! {
    alexnet vgg11_bn resnet18 resnet50 googlenet squeezenet1_1 densenet121
    mobilenet_v2 mobilenet_v3_small mnasnet1_0 shufflenet_v2_x1_0 efficientnet_b0 efficientnet_v2_s regnet_y_400mf
    convnext_tiny
}

#[test]
fn densenet121_trains_the_same_in_the_memory_saving_form() {
    let options = Options { memory_efficient: Some(true), ..Options::default() };
    trains("densenet121", Bits::Double, &options);
    trains("densenet121", Bits::Single, &options);
    trains("densenet121", Bits::Mixed, &options);
}

#[test]
fn every_training_golden_of_a_network_here_is_compared() {
    let files = std::fs::read_dir(folder()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = files.filter_map(|file| Some(file.strip_suffix(".train.json")?.to_owned())).collect();
    names.sort();
    let (here, to_come): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| variant(name).is_ok());
    println!("skipped, since these networks are not here yet: {}", to_come.join(", "));
    let mut trained = TRAINED.to_vec();
    trained.sort_unstable();
    assert_eq!(here, trained);
}
