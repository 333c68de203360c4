//! Dropout and weight decay: by hand, and in a network that has too few images.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::{Device, Distribution, Tensor};
use convzoo::blocks::{Activation, Features, Linear, LinearConfig};
use convzoo::data::{Fit, Preprocess};
use convzoo::report::Lines;

use super::activations::save;
use super::show::{number, table, values};
use super::training::{Images, Plan, train};

#[derive(clap::Args, Default)]
pub struct Args {
    /// Train with and without, too (half a minute)
    #[arg(long)]
    train: bool,
    /// Digits to train on
    #[arg(long, value_name = "N", default_value_t = 100, requires = "train")]
    images: usize,
    /// Steps of that training
    #[arg(long, value_name = "N", default_value_t = 1000, requires = "train")]
    steps: usize,
    /// Trainings of each kind, from other weights; the table has their mean
    #[arg(long, value_name = "N", default_value_t = 10, requires = "train", value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    /// Learning rate
    #[arg(long, default_value_t = 0.01, requires = "train")]
    rate: f64,
    /// Weight decay, λ
    #[arg(long, default_value_t = 0.02, requires = "train")]
    decay: f32,
    /// Write the curves to this folder, as SVG
    #[arg(long, value_name = "DIR", requires = "train")]
    pictures: Option<PathBuf>,
}

pub fn run(args: &Args, out: &mut dyn Write, device: &Device) -> Result<()> {
    let device = &device.clone().autodiff();
    dropout(out, device)?;
    decay(out, device)?;
    if args.train { overfit(args, out, device) } else { Ok(()) }
}

/// A mask of zeros and ones, and what is kept is scaled so that the mean stays.
fn dropout(out: &mut dyn Write, device: &Device) -> Result<()> {
    let input = Tensor::<1>::from_data([1., 2., 3., 4., 5., 6., 7., 8.], device);
    let mask = [1., 0., 0., 1., 1., 1., 0., 1.];
    let by_hand = input.clone() * Tensor::from_data(mask, device) / 0.5;
    let row =
        |name: &str, values: &[f32]| [name.to_owned(), values.iter().map(|value| format!("{value:>3}")).collect()];
    let rows = vec![
        row("input", &values(&input)?),
        row("mask, each with probability 0.5", &mask),
        row("output in training: kept / 0.5", &values(&by_hand)?),
    ];
    table(out, ["dropout", ""], rows)?;

    let layer = DropoutConfig::new(0.5).init();
    let many = Tensor::<2>::ones([10_000, 8], device) * input.clone().unsqueeze();
    device.seed(0);
    let mean = values(&layer.forward(many).mean_dim(0))?;
    ensure!(
        mean.iter().zip(1..).all(|(mean, value)| (mean / value as f32 - 1.0).abs() < 0.05),
        "the mean moves: {mean:?}"
    );
    let evaluated = layer.valid().forward(input.clone().without_autodiff());
    ensure!(values(&evaluated)? == values(&input)?, "evaluation is not the identity");
    writeln!(out, "the layer's mean over 10,000 draws is the input, to 5 %; in evaluation it is the identity\n")?;
    Ok(())
}

/// A weight that no image needs: with weight decay it shrinks by the same factor in each step.
fn decay(out: &mut dyn Write, device: &Device) -> Result<()> {
    let (rate, penalty) = (0.1, 0.5);
    let mut weight = Tensor::<1>::from_data([2.0], device);
    let mut rows = Vec::new();
    for step in 0..4 {
        rows.push([step.to_string(), number(values(&weight)?[0], 4)]);
        // The loss does not depend on it, so its gradient is the penalty's alone.
        let gradient = weight.clone() * penalty;
        weight = weight - gradient * rate;
    }
    let expected = 2.0 * (1.0 - rate as f32 * penalty as f32).powi(4);
    ensure!((values(&weight)?[0] - expected).abs() < 1e-6, "not a factor of 1 − ηλ");
    table(out, ["step", "weight, η = 0.1, λ = 0.5"], rows)
}

/// Two hidden layers of 256 features: 85,000 weights, for a hundred digits.
#[derive(Module, Debug)]
struct Wide {
    layers: Vec<Linear>,
    classifier: Linear,
    dropout: Dropout,
}

impl Wide {
    fn new(rate: f64, seed: u64, device: &Device) -> Self {
        device.seed(seed);
        let linear = |inputs, outputs| LinearConfig::new(inputs, outputs).init(device);
        let dropout = DropoutConfig::new(rate).init();
        Self { layers: vec![linear(64, 256), linear(256, 256)], classifier: linear(256, 10), dropout }
    }

    // ANCHOR: forward
    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let hidden =
            |x: Tensor<2>, layer: &Linear| layer.forward(x).activation(Activation::Relu).dropout(&self.dropout);
        self.classifier.forward(self.layers.iter().fold(images.flatten(1, 3), hidden))
    }
    // ANCHOR_END: forward

    /// The norm of all weights but the biases.
    fn norm(&self) -> Result<f32> {
        let square = |layer: &Linear| layer.weight.val().square().sum();
        let sum = self.layers.iter().fold(square(&self.classifier), |sum, layer| sum + square(layer));
        Ok(sum.sqrt().try_into_scalar::<f32>()?)
    }
}

/// Trains with neither, with each, and with both. The digits have noise, so that there is something to overfit.
fn overfit(args: &Args, out: &mut dyn Write, device: &Device) -> Result<()> {
    let eight = Preprocess::new(1, 8, 8, Fit::Resize).normalized([0.3; 3], [0.37; 3]);
    let [digits, test] = Images::digits(args.images, &eight, device)?;
    device.seed(0);
    let noisy = |set: Images| Images {
        images: set.images.clone() + set.images.random_like(Distribution::Normal(0.0, 0.5)),
        labels: set.labels,
    };
    let (digits, test) = (noisy(digits), noisy(test));
    let mut chart = Lines::new("accuracy on the test digits, mean of the runs", "step", "per cent");
    let mut rows = Vec::new();
    for (name, dropout, weight_decay) in
        [("neither", 0.0, 0.0), ("dropout 0.5", 0.5, 0.0), ("weight decay", 0.0, args.decay), ("both", 0.5, args.decay)]
    {
        let plan = Plan { steps: args.steps, batch: 20, rate: args.rate, momentum: 0.9, weight_decay };
        let every = (args.steps / 20).max(1);
        let (mut curve, mut sums) = (vec![0.0; args.steps / every], [0.0; 3]);
        for run in 0..args.runs {
            let network = Wide::new(dropout, run, device);
            let network = train(network, Wide::forward, &digits, plan, |step, _, network| {
                if step % every == 0 {
                    curve[step / every - 1] += 100.0 * test.accuracy(network, Wide::forward)?;
                }
                Ok(())
            })?;
            let accuracy = |images: &Images| images.accuracy(&network, Wide::forward);
            let measured = [100.0 * accuracy(&digits)?, 100.0 * accuracy(&test)?, f64::from(network.norm()?)];
            sums = std::array::from_fn(|i| sums[i] + measured[i]);
        }
        let mean = |sum: f64| sum / args.runs as f64;
        let [train, test, norm] = sums.map(mean);
        rows.push([name.to_owned(), format!("{train:.1} %"), format!("{test:.1} %"), format!("{norm:.1}")]);
        let points = curve.into_iter().enumerate();
        chart = chart.series(name, points.map(|(i, sum)| (((i + 1) * every) as f64, mean(sum))));
    }
    let title = format!("{} digits with noise, mean of {} runs", digits.len(), args.runs);
    table(out, [&title, "accuracy, training", "accuracy, test", "norm of the weights"], rows)?;
    save(args.pictures.as_deref(), "dropout.svg", &chart)
}
