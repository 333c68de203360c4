//! A network of the zoo in burn-train's own hands: its learner, its training loop, its metrics and learning-rate
//! schedules, and a loss of one's own.
//!
//! `cargo run --release --example burn_learner`

use std::sync::Arc;

use burn::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::optim::AdamWConfig;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor};
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{Learner, SupervisedTraining};
use convzoo::data::{Augment, Source, open};
use convzoo::train::{Loader, Mix, TrainableClassifier, Views, evaluate};
use convzoo::{Classifier, Options, create, preprocess, weights};

const BATCH: usize = 64;
const EPOCHS: usize = 4;

/// The focal loss ([Lin et al., 2017](https://arxiv.org/abs/1708.02002)) with γ = 2: cross entropy in which images that
/// are easy, whose class has a probability p near 1, count (1 − p)² as much.
fn focal_loss(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let log_p = log_softmax(logits, 1).gather(1, targets.unsqueeze_dim(1));
    let weight = (-log_p.clone().exp() + 1.0).square();
    -(weight * log_p).mean()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::flex();
    device.seed(0);
    let data = open("digits", &Source::default())?;
    let options = Options::default().with_classes(data.classes().len());
    let network = create("lenet5", &options, &device.clone().autodiff())?;
    let preprocess = preprocess(&network.preprocessing(), network.input(), &data.train.get(0)?.image);

    let shift = Augment { random_crop: Some(2), ..Augment::default() };
    let batches = |data, device: &Device| Loader::new(data, preprocess.clone(), BATCH, device);
    let train = batches(data.train.clone(), &device.clone().autodiff()).shuffled(0, 1).augmented(shift, Mix::default());
    let test = batches(data.test.clone(), &device);
    let steps = EPOCHS * train.batches();

    let model = TrainableClassifier::new(network).with_loss(focal_loss);
    let schedule = CosineAnnealingLrSchedulerConfig::new(0.002, steps).init()?;
    let learner = Learner::new(model, AdamWConfig::new().init(), schedule);
    let folder = tempfile::tempdir()?;
    let trained = SupervisedTraining::new(folder.path(), Arc::new(train), Arc::new(test))
        .metrics((AccuracyMetric::new(), LossMetric::new()))
        .num_epochs(EPOCHS)
        .summary()
        .launch(learner);

    let network = trained.model.network;
    let evaluation = evaluate(&network, data.test, &preprocess, Views::Centre, BATCH, &device, |_| {})?;
    println!("{:.2}% of the test images", 100.0 * evaluation.top1());
    weights::save(&network, &folder.path().join("lenet5.safetensors"))?;
    Ok(())
}
