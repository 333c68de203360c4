//! A network of every family infers, trains and differentiates the same on every device that is compiled in and
//! present: as flex does, and as PyTorch did where there is a golden. (Flex and PyTorch are compared in the goldens' own
//! test.)
//!
//! Evaluation agrees to 1e-3 relative, and a step's loss and gradients too where they are that exact themselves. Where
//! batches are normalized they often are not: an input of a ReLU that is zero but for rounding moves all gradients.
//! How far rounding moves them is measured, on flex, by images that are brighter by a few millionths.
//!
//! In 16 bits, logits may differ by ten times what rounding the weights and the image alone does to them, on flex in 32.
//!
//! `cargo xtask backends` runs these tests, each in a process of its own, and makes a table of what they print.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

#[path = "../../convzoo-models/tests/common/mod.rs"]
mod common;
#[path = "backends/fused.rs"]
mod fused;

use std::collections::BTreeSet;

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::GradientsParams;
use burn::tensor::{Device, FloatDType, Int, Tensor};
use convzoo::device::{self, Hardware};
use convzoo::{Classifier, Network, Opt, Options, variant, variants};
use serde_json::{Value, json};

/// Largest relative difference from flex and from the goldens.
const TOLERANCE: f64 = 1e-3;

/// What images are multiplied by to see how far rounding alone moves a training step.
const NUDGES: [f64; 3] = [1.0 + 1e-6, 1.0 - 1e-6, 1.0 + 3e-6];

/// How much further than a nudge the rounding of another backend, which is in every operation, may move it.
const ROUNDINGS: f64 = 10.0;

/// ‖a − b‖ / ‖b‖.
fn relative(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f64| x * x;
    let difference: f64 = a.iter().zip(b).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    let norm: f64 = b.iter().map(|b| square(f64::from(*b))).sum();
    (difference / norm).sqrt()
}

fn golden(name: &str, mode: &str) -> Option<Value> {
    let text = std::fs::read_to_string(common::goldens().join(format!("{name}.{mode}.json"))).ok()?;
    Some(serde_json::from_str(&text).unwrap())
}

fn shape(golden: &Value) -> [usize; 4] {
    std::array::from_fn(|i| golden["input"][i].as_u64().unwrap() as usize)
}

fn logits(name: &str, shape: [usize; 4], device: &Device) -> Vec<f32> {
    let network = common::filled(name, &Options::default(), device);
    network.forward(common::input(shape, device)).try_into_vec_as().unwrap()
}

/// One step of training: its loss and the gradients of all parameters in the order of the state.
struct Step {
    loss: f32,
    gradients: Vec<f32>,
}

const CLASSES: usize = 10;

/// On the formula's images of this name.
fn step(name: &str, images: &str, shape: [usize; 4], auxiliary_weight: f64, brightness: f64, device: &Device) -> Step {
    let device = device.clone().autodiff();
    let takes = variant(name).unwrap().takes;
    let none = |option| takes.contains(&option).then_some(0.0);
    let options = Options {
        classes: Some(CLASSES),
        dropout: none(Opt::Dropout),
        drop_path: none(Opt::DropPath),
        ..Options::default()
    };
    let network = common::filled(name, &options, &device);
    let targets: Vec<_> = (0..shape[0]).map(|image| (image % CLASSES) as i64).collect();
    let targets = Tensor::<1, Int>::from_data(targets.as_slice(), &device);
    let cross_entropy = CrossEntropyLossConfig::new().init(&device);
    let outputs = network.forward_train(common::images(images, shape, &device).mul_scalar(brightness));
    let main = cross_entropy.forward(outputs.logits, targets.clone());
    let loss = outputs
        .auxiliary
        .into_iter()
        .fold(main, |loss, logits| loss + cross_entropy.forward(logits, targets.clone()) * auxiliary_weight);
    let gradients = gradients(&network, &GradientsParams::from_grads(loss.backward(), &network));
    Step { loss: loss.into_scalar(), gradients }
}

/// Without those of an auxiliary classifier whose map is too small to use it: it has none.
fn gradients(network: &Network, gradients: &GradientsParams) -> Vec<f32> {
    fn of<const D: usize>(gradients: &GradientsParams, id: ParamId) -> Option<Vec<f32>> {
        gradients.get::<D>(id).map(|gradient| gradient.try_into_vec_as().unwrap())
    }
    let parameters = network.state().into_iter().filter(|entry| entry.parameter);
    let gradients = parameters.filter_map(|entry| match entry.shape.len() {
        1 => of::<1>(gradients, entry.id),
        2 => of::<2>(gradients, entry.id),
        3 => of::<3>(gradients, entry.id),
        _ => of::<4>(gradients, entry.id),
    });
    gradients.collect::<Vec<_>>().concat()
}

/// Whether this device is a graphics card that the CPU imitates, slowly.
fn is_software(device: &str) -> bool {
    device::all().iter().any(|found| found.name == device && found.hardware == Hardware::Software)
}

/// Why this device cannot hold this network, where it is known.
fn exception(name: &str, device: &str) -> Option<String> {
    // Mesa's software Vulkan gives no buffer of more than 128 MiB.
    const LARGEST: usize = 128 << 20;
    let network = convzoo::create(name, &Options::default(), &Device::flex()).unwrap();
    let largest = network.state().iter().map(|entry| 4 * entry.shape.iter().product::<usize>()).max().unwrap();
    (is_software(device) && largest > LARGEST)
        .then(|| format!("its largest layer has {} MiB and a buffer of software Vulkan 128", largest >> 20))
}

/// Multiply-adds for one image above which slow devices are given smaller ones.
const LARGE: usize = 3_000_000_000;

/// Whether such an image takes many seconds.
fn is_slow(device: &str) -> bool {
    device == "ndarray" || is_software(device)
}

/// The device, unless it is not there or cannot hold the network.
fn open(device_name: &str, name: &str) -> Option<Device> {
    let device = device::open(device_name).map_err(|reason| eprintln!("skipped: {reason}")).ok()?;
    let exception = exception(name, device_name);
    if let Some(exception) = &exception {
        report(device_name, name, json!({ "exception": exception }));
    }
    exception.is_none().then_some(device)
}

/// For the table of `cargo xtask backends`.
fn report(device: &str, name: &str, fields: Value) {
    println!("\ndifferences: {}", json!([device, name, fields]));
}

/// Whether images of a network's own size take minutes there.
fn is_large(device_name: &str, name: &str) -> bool {
    let network = convzoo::create(name, &Options::default(), &Device::flex()).unwrap();
    is_slow(device_name) && network.summary(variant(name).unwrap().input).unwrap().macs > LARGE
}

/// Evaluation of one image: the golden's, or of the network's own size, or smaller where that would take minutes.
fn evaluates(device_name: &str, name: &str, side: usize) {
    let Some(device) = open(device_name, name) else { return };
    let [channels, height, width] = variant(name).unwrap().input;
    let large = is_large(device_name, name);
    let known = golden(name, "eval").filter(|_| !large);
    let [height, width] = if large { [side; 2] } else { [height, width] };
    let input = known.as_ref().map_or([1, channels, height, width], shape);
    let own = logits(name, input, &device);
    let difference = relative(&own, &logits(name, input, &Device::flex()));
    let pytorch = known.map(|known| {
        let row = known["logits"][0].as_array().unwrap();
        relative(&own, &row.iter().map(|value| value.as_f64().unwrap() as f32).collect::<Vec<_>>())
    });
    report(device_name, name, json!({ "logits": difference, "logits, PyTorch": pytorch }));
    for difference in [Some(difference), pytorch].into_iter().flatten() {
        assert!(difference < TOLERANCE, "{name} on {device_name}: logits differ by {difference:.1e} relative");
    }
}

/// To this type, and back to 32 bits if so asked.
struct Cast(FloatDType, bool);

impl Cast {
    fn values<const D: usize>(&self, values: Tensor<D>) -> Tensor<D> {
        let cast = values.cast(self.0);
        if self.1 { cast.cast(FloatDType::F32) } else { cast }
    }
}

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|values| self.values(values))
    }
}

/// Evaluation in 16 bits, where the device has them.
fn rounds(device_name: &str, name: &str, side: usize, dtype: FloatDType) {
    let Some(mut device) = open(device_name, name) else { return };
    if !device.supports_dtype(dtype) {
        println!("{device_name} has no {dtype:?} here");
        return;
    }
    device.configure(dtype).unwrap();
    let [channels, height, width] = variant(name).unwrap().input;
    let [height, width] = if is_large(device_name, name) { [side; 2] } else { [height, width] };
    let shape = [1, channels, height, width];
    let logits = |device: &Device, mut cast: Cast| -> Vec<f32> {
        let input = cast.values(common::input(shape, device));
        let network = common::filled(name, &Options::default(), device).map(&mut cast);
        network.forward(input).try_into_vec_as().unwrap()
    };
    let exact = self::logits(name, shape, &Device::flex());
    let rounding = relative(&logits(&Device::flex(), Cast(dtype, true)), &exact);
    let difference = relative(&logits(&device, Cast(dtype, false)), &exact);
    let of = format!("{dtype:?}").to_lowercase();
    report(device_name, name, json!({ &of: difference, format!("{of}, rounding"): rounding }));
    let limit = f64::max(TOLERANCE, ROUNDINGS * rounding);
    assert!(
        difference < limit,
        "{name} on {device_name} in {of}: logits differ by {difference:.1e}, above {limit:.1e}"
    );
}

/// Loss and gradients of one step of training on `batch` images of `side`×`side`, or the golden's.
fn trains(device_name: &str, name: &str, side: usize, batch: usize) {
    let Some(device) = open(device_name, name) else { return };
    let known = golden(name, "train");
    let input = known.as_ref().map_or([batch, variant(name).unwrap().input[0], side, side], shape);
    let auxiliary_weight = known.as_ref().map_or(0.3, |known| known["aux_weight"].as_f64().unwrap());
    let images = known.as_ref().map_or("input", |known| known["input_name"].as_str().unwrap()).to_owned();
    let step = |brightness: f64, device: &Device| step(name, &images, input, auxiliary_weight, brightness, device);

    let flex = step(1.0, &Device::flex());
    let differences = |step: &Step| [relative(&[step.loss], &[flex.loss]), relative(&step.gradients, &flex.gradients)];
    let nudged = NUDGES.map(|brightness| differences(&step(brightness, &Device::flex())));
    let own = step(1.0, &device);
    let pytorch = known.map(|known| relative(&[own.loss], &[known["losses"][0].as_f64().unwrap() as f32]));
    let [loss, gradients] = differences(&own);
    let [loss_rounding, gradients_rounding] =
        [0, 1].map(|which| nudged.iter().map(|nudged| nudged[which]).fold(0.0, f64::max));
    report(
        device_name,
        name,
        json!({
            "loss": loss, "loss, PyTorch": pytorch, "loss, rounding": loss_rounding,
            "gradients": gradients, "gradients, rounding": gradients_rounding,
        }),
    );
    for (what, difference, rounding) in [
        ("loss", Some(loss), loss_rounding),
        ("loss from PyTorch's", pytorch, loss_rounding),
        ("gradients", Some(gradients), gradients_rounding),
    ] {
        let (difference, limit) = (difference.unwrap_or(0.0), f64::max(TOLERANCE, ROUNDINGS * rounding));
        assert!(difference < limit, "{name} on {device_name}: {what} differ by {difference:.1e}, above {limit:.1e}");
    }
}

/// Tests on each device for each network; the numbers are side and count of the images that it trains on. What is
/// after the semicolon trains too slowly for every run of the tests; `cargo xtask backends` runs it.
macro_rules! networks {
    ($($quick:ident($quick_side:literal, $quick_batch:literal))* ; $($slow:ident($side:literal, $batch:literal))*) => {
        #[test]
        fn every_family_is_here() {
            let here = [$(stringify!($quick),)* $(stringify!($slow),)*].map(|name| variant(name).unwrap().family);
            let all: BTreeSet<_> = variants().map(|variant| variant.family).collect();
            assert_eq!(BTreeSet::from(here), all);
        }

        networks! { @on ndarray $($quick $quick_side $quick_batch)* ; $($slow $side $batch)* }
        networks! { @on tch $($quick $quick_side $quick_batch)* ; $($slow $side $batch)* }
        networks! { @on wgpu $($quick $quick_side $quick_batch)* ; $($slow $side $batch)* }
        networks! { @on cuda $($quick $quick_side $quick_batch)* ; $($slow $side $batch)* }
        mod f16 {
            networks! { @in F16 on wgpu $($quick $quick_side)* $($slow $side)* }
            networks! { @in F16 on cuda $($quick $quick_side)* $($slow $side)* }
        }
        mod bf16 {
            networks! { @in BF16 on wgpu $($quick $quick_side)* $($slow $side)* }
            networks! { @in BF16 on cuda $($quick $quick_side)* $($slow $side)* }
        }
    };
    (@on $device:ident
        $($quick:ident $quick_side:literal $quick_batch:literal)* ; $($slow:ident $side:literal $batch:literal)*
    ) => {
        mod $device {
            mod evaluation {
                $(#[test] fn $quick() { crate::evaluates(stringify!($device), stringify!($quick), $quick_side); })*
                $(#[test] fn $slow() { crate::evaluates(stringify!($device), stringify!($slow), $side); })*
            }
            mod training {
                $(
                    #[test]
                    fn $quick() { crate::trains(stringify!($device), stringify!($quick), $quick_side, $quick_batch); }
                )*
                $(
                    #[test]
                    #[ignore = "slow"]
                    fn $slow() { crate::trains(stringify!($device), stringify!($slow), $side, $batch); }
                )*
            }
        }
    };
    (@in $dtype:ident on $device:ident $($network:ident $side:literal)*) => {
        mod $device {
            use burn::tensor::FloatDType;
            $(
                #[test]
                #[ignore = "the device is set for 16 bits, in a process of its own"]
                fn $network() { crate::rounds(stringify!($device), stringify!($network), $side, FloatDType::$dtype); }
            )*
        }
    };
}

networks! {
    lenet5(32, 4) resnet20_cifar(32, 4) squeezenet1_1(64, 4) mobilenet_v3_small(64, 4) shufflenet_v2_x0_5(64, 4) ;

    alexnet_2012(227, 2) zfnet(224, 2) alexnet(64, 4)
    vgg11_bn(32, 4)
    nin_cifar(32, 2)
    googlenet(96, 4) bn_inception(96, 4) inception_v3(139, 2) inception_v4(139, 2) inception_resnet_v2(139, 2)
    resnet18(64, 4) resnet110_stochastic_depth(16, 4)
    resnext50_32x4d(64, 4) wide_resnet28_10(16, 2)
    resnetv2_50(64, 4) preact_resnet110_cifar(16, 4)
    fractalnet20(32, 2)
    densenet40_k12(16, 4) densenet121(64, 4)
    mobilenet_v2(64, 4) mnasnet0_5(64, 4) efficientnet_b0(64, 4) efficientnet_v2_s(64, 2)
    regnet_y_400mf(64, 4) convnext_tiny(64, 4) airbench94(32, 4)
}
