//! Batch normalization by hand, and by the layer, in training and in evaluation.

use std::io::Write;
use std::path::Path;

use anyhow::{Result, ensure};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use convzoo::blocks::BatchNorm2dConfig;
use convzoo::report::Lines;

use super::activations::save;
use super::show::{map, maps, number, table, values};

const EPSILON: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

/// What one channel is normalized by.
struct Channel {
    mean: f64,
    variance: f64,
    scale: f64,
    shift: f64,
}

impl Channel {
    // ANCHOR: normalize
    /// γ (x − μ) / √(σ² + ε) + β.
    fn normalize(&self, value: f32) -> f32 {
        let standardized = (f64::from(value) - self.mean) / (self.variance + EPSILON).sqrt();
        (self.scale * standardized + self.shift) as f32
    }
    // ANCHOR_END: normalize
}

pub fn run(pictures: Option<&Path>, out: &mut dyn Write, device: &Device) -> Result<()> {
    let device = &device.clone().autodiff();
    // Two images of one channel: a batch of eight values.
    let batch = [[[1., 2.], [3., 4.]], [[5., 6.], [7., 12.]]];
    let input = Tensor::cat(batch.map(|image| map(image, device)).into(), 0);
    let (scale, shift) = (2.0, 1.0);
    let mut layer = BatchNorm2dConfig::new(1).init(device);
    layer.weight = Param::from_tensor(Tensor::full([1], scale, device));
    layer.bias = Param::from_tensor(Tensor::full([1], shift, device));

    // Training: by the batch's own mean and variance, which divides by n.
    let pixels = values(&input)?;
    let n = pixels.len() as f64;
    let mean = pixels.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let squares = pixels.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>();
    let batch = Channel { mean, variance: squares / n, scale, shift };
    let trained = layer.forward(input.clone());
    agree(&pixels, &trained, &batch)?;

    // What the layer remembers: a tenth of the new, the variance divided by n − 1.
    let remembered =
        Channel { mean: MOMENTUM * mean, variance: (1.0 - MOMENTUM) + MOMENTUM * squares / (n - 1.0), ..batch };
    let running = [values(&layer.running_mean.value_sync())?[0], values(&layer.running_var.value_sync())?[0]];
    let expected = [remembered.mean, remembered.variance];
    ensure!(running.iter().zip(expected).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-5), "it remembers {running:?}");

    // Evaluation: by what it remembers, whatever the batch.
    let evaluated = layer.valid().forward(input.clone().without_autodiff());
    agree(&pixels, &evaluated, &remembered)?;

    let row = |name: &str, by: &Channel| [name.to_owned(), four(by.mean), four(by.variance)];
    let rows = vec![
        row("training: the batch, variance divided by n", &batch),
        row("evaluation: 0.9 of what was and 0.1 of the batch, divided by n − 1", &remembered),
    ];
    table(out, ["normalized by", "mean", "variance"], rows)?;
    maps(out, "input: two images of one channel; γ is 2, β is 1", &input, 0)?;
    maps(out, "output in training", &trained, 4)?;
    maps(out, "output in evaluation, after this one step", &evaluated, 4)?;
    writeln!(out, "by hand and by the layer: the same to 0.00001, in training and in evaluation\n")?;

    let mut chart = Lines::new("eight values of a channel", "value", "");
    for (name, maps) in [("input", &input), ("output in training", &trained), ("output in evaluation", &evaluated)] {
        let points = values(maps)?.into_iter().enumerate();
        chart = chart.series(name, points.map(|(i, value)| ((i + 1) as f64, f64::from(value))));
    }
    save(pictures, "batch-norm.svg", &chart)
}

/// Refuses a layer's output that differs from the one by hand.
fn agree(pixels: &[f32], output: &Tensor<4>, by: &Channel) -> Result<()> {
    let output = values(output)?;
    let same = pixels.iter().zip(&output).all(|(&x, &y)| (by.normalize(x) - y).abs() < 1e-5);
    ensure!(same && pixels.len() == output.len(), "by hand it is otherwise");
    Ok(())
}

fn four(value: f64) -> String {
    number(value as f32, 4)
}
