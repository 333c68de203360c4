//! A training loop that can be read at a glance, and the embedded digits as the tensors that go into it.

use anyhow::Result;
use burn::module::{Module, ModuleDisplay};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Int, Tensor, TensorData};
use convzoo::data::{Dataset, Preprocess, Source, open};

/// Images, `[count, channels, height, width]`, and their classes, `[count]`, on an autodiff device.
pub struct Images {
    pub images: Tensor<4>,
    pub labels: Tensor<1, Int>,
}

impl Images {
    /// The first `count` of a data set, or all if it has fewer.
    pub fn of(data: &dyn Dataset, count: usize, preprocess: &Preprocess, device: &Device) -> Result<Self> {
        let count = count.min(data.len());
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for index in 0..count {
            let sample = data.get(index)?;
            preprocess.append(&sample.image, &mut pixels);
            labels.push(sample.label as i64);
        }
        let shape = [count, preprocess.channels, preprocess.height, preprocess.width];
        let images = Tensor::from_data(TensorData::new(pixels, shape), device);
        Ok(Self { images, labels: Tensor::from_data(TensorData::new(labels, [count]), device) })
    }

    /// The digits to train on, at most `count`, and those to test on.
    pub fn digits(count: usize, preprocess: &Preprocess, device: &Device) -> Result<[Self; 2]> {
        let digits = open("digits", &Source::default())?;
        let train = Self::of(&*digits.train, count, preprocess, device)?;
        Ok([train, Self::of(&*digits.test, usize::MAX, preprocess, device)?])
    }

    pub fn len(&self) -> usize {
        self.labels.dims()[0]
    }

    /// The batch of a step: all images are used once before any is used again, in an order that mixes them.
    pub fn batch(&self, step: usize, size: usize) -> (Tensor<4>, Tensor<1, Int>) {
        // A prime that does not divide the number of images visits each of them.
        let pick = |i: usize| (i * 1009 % self.len()) as i64;
        let indices = (step * size..(step + 1) * size).map(pick).collect::<Vec<_>>();
        let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [size]), &self.images.device());
        (self.images.clone().select(0, indices.clone()), self.labels.clone().select(0, indices))
    }

    /// The share of the images that a network classifies right, in evaluation.
    pub fn accuracy<M: Module>(&self, network: &M, forward: fn(&M, Tensor<4>) -> Tensor<2>) -> Result<f64> {
        let logits = forward(&network.valid(), self.images.clone().without_autodiff());
        let labels = self.labels.clone().without_autodiff();
        let right = logits.argmax(1).flatten::<1>(0, 1).equal(labels).int().sum();
        Ok(right.try_into_scalar::<i64>()? as f64 / self.len() as f64)
    }
}

/// How to train.
#[derive(Clone, Copy)]
pub struct Plan {
    pub steps: usize,
    pub batch: usize,
    pub rate: f64,
    pub momentum: f64,
    pub weight_decay: f32,
}

/// Stochastic gradient descent. `each` gets every step's number, from 1, its loss, and the network after it.
pub fn train<M: Module + ModuleDisplay>(
    mut network: M,
    forward: fn(&M, Tensor<4>) -> Tensor<2>,
    images: &Images,
    plan: Plan,
    mut each: impl FnMut(usize, f64, &M) -> Result<()>,
) -> Result<M> {
    let momentum =
        (plan.momentum > 0.0).then(|| MomentumConfig::new().with_momentum(plan.momentum).with_dampening(0.0));
    let decay = (plan.weight_decay > 0.0).then(|| WeightDecayConfig::new(plan.weight_decay));
    let mut optimizer = SgdConfig::new().with_momentum(momentum).with_weight_decay(decay).init();
    let cross_entropy = CrossEntropyLossConfig::new().init(&images.images.device());
    for step in 0..plan.steps {
        let (batch, labels) = images.batch(step, plan.batch);
        let loss = cross_entropy.forward(forward(&network, batch), labels);
        let gradients = GradientsParams::from_grads(loss.backward(), &network);
        network = optimizer.step(plan.rate, network, gradients);
        each(step + 1, loss.try_into_scalar::<f32>()?.into(), &network)?;
    }
    Ok(network)
}
