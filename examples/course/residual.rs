//! Residual blocks: the identity for nothing, gradients by depth, and where the activation goes.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::module::Param;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::{Device, Tensor};
use convzoo::blocks::{
    Activation, BatchNorm2d, BatchNorm2dConfig, ConvUnit, ConvUnitConfig, Features, Linear, LinearConfig,
};
use convzoo::data::{Fit, Preprocess};
use convzoo::report::Lines;

use super::activations::save;
use super::show::{map, number, table, values};
use super::training::Images;

pub fn run(pictures: Option<&Path>, out: &mut dyn Write, device: &Device) -> Result<()> {
    let device = &device.clone().autodiff();
    orders(out, device)?;
    gradients(pictures, out, device)
}

/// Where norm and ReLU stand in a residual block, by the names of He et al., 2016.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Order {
    Original,
    NormAfterAddition,
    ReluBeforeAddition,
    ReluOnlyPreActivation,
    FullPreActivation,
}

/// A block of two 3×3 convolutions, run in any of the five orders.
struct Block {
    convs: [ConvUnit; 2],
    norms: [BatchNorm2d; 2],
}

impl Block {
    fn new(channels: usize, device: &Device) -> Self {
        let conv = || ConvUnitConfig::square(channels, channels, 3).padded(1).linear().with_bias(false).init(device);
        let norm = || BatchNorm2dConfig::new(channels).init(device);
        Self { convs: [conv(), conv()], norms: [norm(), norm()] }
    }

    // ANCHOR: orders
    fn forward(&self, x: Tensor<4>, order: Order) -> Tensor<4> {
        let conv = |i: usize, x| self.convs[i].forward(x);
        let norm = |i: usize, x| self.norms[i].forward(x);
        let relu = |x: Tensor<4>| x.activation(Activation::Relu);
        match order {
            Order::Original => relu(x.clone() + norm(1, conv(1, relu(norm(0, conv(0, x)))))),
            Order::NormAfterAddition => relu(norm(1, x.clone() + conv(1, relu(norm(0, conv(0, x)))))),
            Order::ReluBeforeAddition => x.clone() + relu(norm(1, conv(1, relu(norm(0, conv(0, x)))))),
            Order::ReluOnlyPreActivation => x.clone() + norm(1, conv(1, relu(norm(0, conv(0, relu(x)))))),
            Order::FullPreActivation => x.clone() + conv(1, relu(norm(1, conv(0, relu(norm(0, x)))))),
        }
    }
    // ANCHOR_END: orders

    /// The same with weights of zero in its last convolution.
    fn zeroed(mut self) -> Self {
        let last = &mut self.convs[1].conv.weight;
        *last = Param::from_tensor(last.val().zeros_like());
        self
    }
}

/// What a block makes of −2 … 2 when its last convolution is zero, in training. Of the identity nothing is lost.
fn orders(out: &mut dyn Write, device: &Device) -> Result<()> {
    let input = map([[-2., -1., 0., 1., 2.]], device);
    let block = Block::new(1, device).zeroed();
    let orders = [
        ("original: addition, then ReLU", Order::Original, "6.61 %"),
        ("norm after addition", Order::NormAfterAddition, "8.17 %"),
        ("ReLU before addition", Order::ReluBeforeAddition, "7.84 %"),
        ("ReLU-only pre-activation", Order::ReluOnlyPreActivation, "6.71 %"),
        ("full pre-activation", Order::FullPreActivation, "6.37 %"),
    ];
    let mut rows = Vec::new();
    for (name, order, error) in orders {
        let output = values(&block.forward(input.clone(), order))?;
        let is_identity = output == values(&input)?;
        // Only these two have something on the way of the shortcut.
        let interrupted = matches!(order, Order::Original | Order::NormAfterAddition);
        ensure!(is_identity != interrupted, "{name}: {output:?}");
        let [a, b, c, d, e] = std::array::from_fn(|i| number(output[i], 2));
        rows.push([name.to_owned(), a, b, c, d, e, error.to_owned()]);
    }
    table(out, ["last convolution zero, input", "-2", "-1", "0", "1", "2", "error in the paper"], rows)?;

    let positive = input.abs();
    let output = block.forward(positive.clone(), Order::Original);
    ensure!(values(&output)? == values(&positive)?, "the original block is not the identity on what a ReLU gave");
    writeln!(out, "the original block gives |x| for |x|: after a ReLU it is the identity, too\n")?;
    Ok(())
}

/// Fully-connected layers of 64 features and a ReLU each, with a shortcut around each or without.
struct Stack {
    layers: Vec<Linear>,
    classifier: Linear,
    shortcuts: bool,
}

/// Layers of [`Stack`].
const LAYERS: usize = 30;

impl Stack {
    fn new(shortcuts: bool, device: &Device) -> Self {
        device.seed(0);
        let linear = |outputs| LinearConfig::new(64, outputs).init(device);
        Self { layers: (0..LAYERS).map(|_| linear(64)).collect(), classifier: linear(10), shortcuts }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.layers.iter().fold(images.flatten(1, 3), |x, layer| {
            let residual = layer.forward(x.clone()).activation(Activation::Relu);
            if self.shortcuts { x + residual } else { residual }
        });
        self.classifier.forward(x)
    }
}

/// The norm of the gradient of each layer's weights, before training.
fn gradients(pictures: Option<&Path>, out: &mut dyn Write, device: &Device) -> Result<()> {
    let eight = Preprocess::new(1, 8, 8, Fit::Resize).normalized([0.3; 3], [0.37; 3]);
    let [digits, _] = Images::digits(128, &eight, device)?;
    let norms = |shortcuts| {
        let stack = Stack::new(shortcuts, device);
        let logits = stack.forward(digits.images.clone());
        let loss = CrossEntropyLossConfig::new().init(device).forward(logits, digits.labels.clone());
        let gradients = loss.backward();
        let norm = |layer: &Linear| {
            let gradient = layer.weight.val().grad(&gradients).context("a layer has no gradient")?;
            Ok(f64::from(gradient.square().sum().sqrt().try_into_scalar::<f32>()?))
        };
        stack.layers.iter().map(norm).collect::<Result<Vec<_>>>()
    };
    let (plain, residual) = (norms(false)?, norms(true)?);
    let mut chart = Lines::new("gradient of the weights, before training", "layer", "norm").logarithmic();
    for (name, norms) in [("plain", &plain), ("with shortcuts", &residual)] {
        let points = norms.iter().enumerate().map(|(layer, norm)| ((layer + 1) as f64, *norm));
        chart = chart.series(name, points);
    }
    let rows = [0, 9, 19, 29]
        .map(|layer| [(layer + 1).to_string(), format!("{:.0e}", plain[layer]), format!("{:.0e}", residual[layer])]);
    table(out, ["30 layers, norm of the gradient of layer", "plain", "with shortcuts"], rows.into())?;
    save(pictures, "residual-gradients.svg", &chart)
}
