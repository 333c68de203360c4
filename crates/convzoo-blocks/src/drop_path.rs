use burn::config::Config;
use burn::module::{Flag, Module, Param};
use burn::tensor::{Distribution, Tensor};
use convzoo_graph::Operation;

use crate::checkpointing::drawn;
use crate::features::{Features, Layer};

/// Configures a [`DropPath`].
#[derive(Config, Debug)]
pub struct DropPathConfig {
    /// Drop path rate: the probability of dropping a path, 0 to below 1.
    pub rate: f64,
}

/// Stochastic depth ([Huang et al., 2016](https://arxiv.org/abs/1603.09382)): each image of a batch loses the whole
/// path with some probability.
///
/// Paths that survive are scaled by 1 / (1 − rate), so that nothing changes between training and inference, where
/// the paper scales in inference instead.
#[derive(Module, Debug)]
pub struct DropPath {
    /// Probability of dropping a path.
    pub rate: f64,
    /// Cleared by [`freeze`](Module::freeze): the path is then always taken.
    pub training: Param<Flag>,
}

impl DropPathConfig {
    /// Makes the layer.
    pub fn init(&self) -> DropPath {
        assert!((0.0..1.0).contains(&self.rate), "a path cannot be dropped with probability {}", self.rate);
        DropPath { rate: self.rate, training: Param::from_bool(true) }
    }
}

impl DropPath {
    /// The drop path rates of `blocks` blocks by the paper's linear decay: almost 0 for the first, `rate` for the last.
    pub fn linear_decay(rate: f64, blocks: usize) -> impl Iterator<Item = f64> {
        (1..=blocks).map(move |block| rate * block as f64 / blocks as f64)
    }

    /// Keeps the shape, `[batch, …]`. Drops only on an autodiff device, as Burn's dropout does.
    pub fn forward<const D: usize, F: Features<D>>(&self, input: F) -> F {
        if self.rate == 0.0 { input } else { input.layer(self) }
    }
}

impl<const D: usize> Layer<D> for DropPath {
    fn operation(&self) -> Operation {
        Operation::StochasticDepth { probability: self.rate }
    }

    fn compute(&self, input: Tensor<D>) -> Tensor<D> {
        if self.rate == 0.0 || !self.training.is_enabled() || !input.device().is_autodiff() {
            return input;
        }
        let survival = 1.0 - self.rate;
        let mut per_image = [1; D];
        per_image[0] = input.dims()[0];
        let alike = (&input.device(), input.dtype());
        let survives = drawn(|| Tensor::random(per_image, Distribution::Bernoulli(survival), alike));
        input * survives.div_scalar(survival)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn drops_whole_images_and_keeps_the_mean() {
        let device = Device::flex().autodiff();
        let path = DropPathConfig::new(0.25).init();
        let images = path.forward(Tensor::<4>::ones([2000, 2, 3, 1], &device)).into_data();
        let values = images.try_into_vec::<f32>().unwrap();
        let (dropped, kept): (Vec<_>, Vec<_>) =
            values.chunks(6).partition(|image| image.iter().all(|&value| value == 0.0));
        assert!(kept.iter().all(|image| image.iter().all(|value| (value - 4.0 / 3.0).abs() < 1e-6)));
        // Four standard deviations of the binomial distribution.
        assert!((dropped.len() as f64 - 500.0).abs() < 78.0, "{} of 2000 dropped", dropped.len());
    }

    #[test]
    fn is_the_identity_in_inference_and_when_frozen() {
        let ones = |device: &Device| Tensor::<2>::ones([64, 2], device);
        let sum = |x: Tensor<2>| x.sum().into_scalar::<f32>();
        let path = DropPathConfig::new(0.5).init();
        assert_eq!(sum(path.forward(ones(&Device::flex()))), 128.0);
        assert_eq!(sum(path.freeze().forward(ones(&Device::flex().autodiff()))), 128.0);
    }

    #[test]
    fn decays_linearly() {
        assert_eq!(DropPath::linear_decay(0.5, 4).collect::<Vec<_>>(), [0.125, 0.25, 0.375, 0.5]);
    }
}
