//! A training step with gradient checkpointing is the step without, in less memory.

#![allow(clippy::unwrap_used)] // a panic is how a test fails
#![allow(unsafe_code)] // to watch what is allocated

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Distribution, FloatDType, Tensor};
use convzoo_models::blocks::Checkpointed;
use convzoo_models::families::convnext::ConvNextConfig;
use convzoo_models::families::fractalnet::FractalNetConfig;
use convzoo_models::families::resnet_cifar::{CifarBlock, CifarResNetConfig};
use convzoo_models::families::vgg::VggConfig;
use convzoo_models::{Classifier, Options, checkpointed_bytes, create, variants};

/// The system's, counting bytes.
struct Watch;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on as it is; what is reallocated is allocated anew.
unsafe impl GlobalAlloc for Watch {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        MOST.fetch_max(NOW.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watch = Watch;

/// Tests draw from one generator, and memory is counted of the whole process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Values by the id of their parameter or statistic.
type Values = BTreeMap<u64, Vec<f64>>;

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter().collect()
}

/// The largest difference, as a share of the largest value.
fn difference(a: &[f64], b: &[f64]) -> f64 {
    let most = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, |most: f64, value| most.max(value.abs()));
    let distance = most(&mut a.iter().zip(b).map(|(a, b)| a - b));
    if a == b { 0.0 } else { distance / most(&mut a.iter().copied()) }
}

/// What a training step gives.
struct Step {
    loss: Vec<f64>,
    gradients: Values,
    statistics: Values,
}

/// The loss and its gradients.
fn learn<N: Classifier>(network: &N, images: &Tensor<4>, checkpointed: bool) -> (Tensor<1>, GradientsParams) {
    let outputs = match checkpointed {
        true => network.forward_train(Checkpointed::new(images.clone())),
        false => network.forward_train(images.clone()),
    };
    let main = outputs.logits.square().mean();
    let loss = outputs.auxiliary.into_iter().fold(main, |loss, logits| loss + logits.square().mean());
    let gradients = GradientsParams::from_grads(loss.backward(), network);
    (loss, gradients)
}

/// A step of a copy of `network`, which has running statistics of its own.
fn step<N: Classifier>(network: &N, images: &Tensor<4>, checkpointed: bool) -> Step {
    struct Gradients(GradientsParams, Values);
    impl ModuleVisitor for Gradients {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let gradient = self.0.get::<D>(param.id);
            self.1.extend(gradient.map(|gradient| (param.id.val(), values(gradient))));
        }
    }
    struct All(Values);
    impl ModuleVisitor for All {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.insert(param.id.val(), values(param.val()));
        }
    }
    let network = network.valid().train();
    images.device().seed(7);
    let (loss, gradients) = learn(&network, images, checkpointed);
    let mut gradients = Gradients(gradients, Values::new());
    network.visit(&mut gradients);
    let mut all = All(Values::new());
    network.valid().visit(&mut all);
    Step { loss: values(loss), gradients: gradients.1, statistics: all.0 }
}

/// Both steps give the same, to the bit but where `rounding` allows a share of a tensor's largest value.
fn compare<N: Classifier>(name: &str, network: &N, images: &Tensor<4>, rounding: f64) {
    let [plain, checkpointed] = [false, true].map(|checkpointed| step(network, images, checkpointed));
    assert_eq!(plain.loss, checkpointed.loss, "{name}: the loss");
    assert_eq!(plain.statistics, checkpointed.statistics, "{name}: parameters and running statistics");
    let ids = [&plain, &checkpointed].map(|step| step.gradients.keys().copied().collect::<Vec<_>>());
    assert_eq!(ids[0], ids[1], "{name}: parameters with a gradient");
    assert!(ids[0].len() > 4, "{name}: only {} parameters learn", ids[0].len());
    let pairs = plain.gradients.values().zip(checkpointed.gradients.values());
    let differences: Vec<_> = pairs.map(|(plain, checkpointed)| difference(plain, checkpointed)).collect();
    let worst = differences.iter().copied().fold(0.0, f64::max);
    let differ = differences.iter().filter(|difference| **difference > 0.0).count();
    println!("{name}: {differ} of {} gradients differ, by up to {worst:.1e}", differences.len());
    assert!(worst <= rounding, "{name}: {differ} of {} gradients differ, by up to {worst:.1e}", differences.len());
}

fn images(size: usize) -> Tensor<4> {
    let device = Device::flex().autodiff();
    device.seed(3);
    Tensor::random([2, 3, size, size], Distribution::Normal(0.0, 1.0), &device)
}

/// Networks of the kinds of blocks, those that are small enough, on small images.
const NETWORKS: [(&str, usize); 13] = [
    ("resnet20_cifar", 8),
    ("plain20_cifar", 8),
    ("nin_cifar", 16),
    ("googlenet", 64),
    ("bn_inception", 64),
    ("densenet40_k12", 8),
    ("squeezenet1_1", 32),
    ("mobilenet_v2", 32),
    ("mobilenet_v3_small", 32),
    ("mnasnet0_5", 32),
    ("shufflenet_v2_x0_5", 32),
    ("efficientnet_b0", 32),
    ("regnet_y_400mf", 32),
];

/// Where the gradients of branches are added in another order: they differ by rounding.
const JOINED: [&str; 1] = ["googlenet"];

#[test]
fn losses_gradients_and_statistics_are_those_without() {
    let _alone = alone();
    let device = Device::flex().autodiff();
    for (name, size) in NETWORKS {
        device.seed(1);
        let network = create(name, &Options::default().with_classes(10), &device).unwrap();
        let rounding = if JOINED.contains(&name) { 1e-4 } else { 0.0 };
        compare(name, &network, &images(size), rounding);
    }
    let options = Options { memory_efficient: Some(true), ..Options::default() };
    compare("densenet40_k12, memory-efficient", &create("densenet40_k12", &options, &device).unwrap(), &images(8), 0.0);
    let vgg = VggConfig::new([1, 1, 2, 1, 1]).with_widths([4, 4, 6, 6, 1]).with_batch_norm(true).with_classes(10);
    let fractal = FractalNetConfig::new().with_widths([4, 4, 6, 6, 6]);
    compare("fractalnet", &fractal.init(&device), &images(32), 0.0);
    let convnext = ConvNextConfig::new([8, 8, 16, 16], [1, 1, 2, 1]).with_drop_path(0.5).with_classes(10);
    compare("convnext", &convnext.init(&device), &images(32), 0.0);
    for block in [CifarBlock::ResNeXt { groups: 2, width: 4 }, CifarBlock::PreActBottleneck, CifarBlock::PreActBasic] {
        let network = CifarResNetConfig::new(1, block).with_widths([8, 16]).init(&device);
        compare(&format!("{block:?}"), &network, &images(8), 0.0);
    }
    compare("vgg", &vgg.init(&device), &images(32), 0.0);
}

#[test]
fn dropped_features_and_paths_and_frozen_parameters_are_those_without() {
    let _alone = alone();
    let device = Device::flex().autodiff();
    let dropping = Options { drop_path: Some(0.5), ..Options::default() };
    compare("drop path", &create("resnet20_cifar", &dropping, &device).unwrap(), &images(8), 0.0);
    let dropping = Options { dropout: Some(0.2), ..Options::default() };
    compare("dropout of dense layers", &create("densenet40_k12", &dropping, &device).unwrap(), &images(8), 0.0);
    let wide = CifarResNetConfig::new(2, CifarBlock::Wide).with_widths([8, 16]).with_dropout(0.3);
    compare("dropout of wide blocks", &wide.init(&device), &images(8), 0.0);

    /// Freezes the first so many parameters.
    struct Freeze(usize);
    impl ModuleMapper for Freeze {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let learns = param.is_require_grad() && self.0 == 0;
            self.0 = self.0.saturating_sub(usize::from(param.is_require_grad()));
            if param.is_require_grad() { param.set_require_grad(learns) } else { param }
        }
    }
    let network = create("resnet20_cifar", &Options::default(), &device).unwrap();
    let frozen = network.map(&mut Freeze(20));
    compare("resnet20_cifar, its first 20 parameters frozen", &frozen, &images(8), 0.0);
}

#[test]
fn burns_own_operations_give_the_same() {
    /// To 64 bits, in which Burn's own operations compute.
    struct Cast;
    impl ModuleMapper for Cast {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| {
                let tracked = tensor.is_require_grad();
                tensor.without_autodiff().cast(FloatDType::F64).autodiff().set_require_grad(tracked)
            })
        }
    }
    let _alone = alone();
    let device = Device::flex().autodiff();
    for (name, size) in [("resnet20_cifar", 8), ("mobilenet_v2", 32)] {
        let network = create(name, &Options::default().with_classes(10), &device).unwrap().map(&mut Cast);
        let images = images(size).without_autodiff().cast(FloatDType::F64).autodiff();
        compare(name, &network, &images, 0.0);
    }
}

#[test]
fn activations_of_16_bits_give_the_same() {
    let _alone = alone();
    let device = Device::flex().autodiff();
    for name in ["resnet20_cifar", "mobilenet_v2"] {
        let network = create(name, &Options::default().with_classes(10), &device).unwrap();
        compare(name, &network, &images(32).cast(FloatDType::BF16), 0.0);
    }
}

#[test]
fn a_step_takes_less_memory() {
    let _alone = alone();
    let device = Device::flex().autodiff();
    for (name, size, share) in [("resnet20_cifar", 32, 0.6), ("mobilenet_v2", 64, 0.6), ("densenet40_k12", 32, 0.6)] {
        let network = create(name, &Options::default().with_classes(10), &device).unwrap();
        let images = Tensor::random([8, 3, size, size], Distribution::Default, &device);
        let [plain, checkpointed] = [false, true].map(|checkpointed| {
            learn(&network, &images, checkpointed);
            let before = NOW.load(Relaxed);
            MOST.store(before, Relaxed);
            learn(&network, &images, checkpointed);
            MOST.load(Relaxed) - before
        });
        println!("{name}: {plain} bytes, with checkpointing {checkpointed}");
        assert!(
            (checkpointed as f64) < share * plain as f64,
            "{name}: a step takes {plain} bytes, and {checkpointed} with checkpointing"
        );
    }
}

#[test]
fn networks_without_blocks_and_norms_alone_have_no_segments() {
    let device = Device::flex();
    let mut without = Vec::new();
    for variant in variants() {
        let network = create(variant.name, &Options::default(), &device).unwrap();
        let summary = network.summary(variant.input).unwrap();
        match checkpointed_bytes(&network, variant.input, 8).unwrap() {
            Some(bytes) => assert!(bytes <= summary.training_bytes(8), "{}: {bytes} bytes are more", variant.name),
            None => without.push(variant.name),
        }
    }
    assert_eq!(without, ["lenet5", "alexnet_2012", "zfnet", "alexnet"]);
}
