//! 1×1 convolutions, and global average pooling.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use burn::module::{Module, Param};
use burn::tensor::{Device, Distribution, Tensor};
use convzoo::blocks::{AdaptiveAvgPool2d, ConvUnit, ConvUnitConfig, Linear, LinearConfig};

use super::show::{shape, table, thousands};

const INPUTS: usize = 192;
const OUTPUTS: usize = 32;
const SIDE: usize = 28;
/// Sums of 192 products, added up in another order, differ by less.
const TOLERANCE: f32 = 1e-5;

pub fn run(out: &mut dyn Write, device: &Device) -> Result<()> {
    device.seed(0);
    let maps = Tensor::random([2, INPUTS, SIDE, SIDE], Distribution::Default, device);
    let conv = ConvUnitConfig::square(INPUTS, OUTPUTS, 1).linear().init(device);
    let connected = as_linear(&conv, device)?;

    let convolved = conv.forward(maps.clone());
    let by_pixel = at_each_pixel(&connected, &maps);
    ensure!(differ(&convolved, &by_pixel)? < TOLERANCE, "the two layers differ");
    writeln!(out, "1×1 convolution        {} → {}", shape(&maps.dims()), shape(&convolved.dims()))?;
    writeln!(out, "fully connected        {} pixels, each {INPUTS} → {OUTPUTS}", thousands(2 * SIDE * SIDE))?;
    writeln!(out, "parameters             {} and {}", thousands(conv.num_params()), thousands(connected.num_params()))?;
    writeln!(out, "all {} outputs agree to {TOLERANCE}\n", thousands(convolved.shape().num_elements()))?;
    global_average(out, &maps, &convolved, &connected)?;
    heads(out, device)
}

/// A global mean before a linear layer, and after it: pixel by pixel, the layer says where its output is from.
fn global_average(out: &mut dyn Write, maps: &Tensor<4>, by_pixel: &Tensor<4>, linear: &Linear) -> Result<()> {
    let pool = AdaptiveAvgPool2d::new([1, 1]);
    let means = pool.forward(maps.clone()).flatten::<2>(1, 3);
    let by_hand = maps.clone().flatten::<3>(2, 3).mean_dim(2).reshape([2, INPUTS]);
    ensure!(differ(&means, &by_hand)? < TOLERANCE, "the layer is not the mean");
    writeln!(out, "global average pooling {} → {}", shape(&maps.dims()), shape(&means.dims()))?;

    let output = linear.forward(means);
    let mean_of_outputs = pool.forward(by_pixel.clone()).flatten::<2>(1, 3);
    ensure!(differ(&output, &mean_of_outputs)? < TOLERANCE, "the order matters");
    Ok(writeln!(out, "the layer's output for the mean is the mean of its outputs, to {TOLERANCE}\n")?)
}

/// From 512 maps of 7×7 to 1,000 classes.
fn heads(out: &mut dyn Write, device: &Device) -> Result<()> {
    let linear = |inputs, outputs| LinearConfig::new(inputs, outputs).init(device).num_params();
    let vgg = linear(512 * 7 * 7, 4096) + linear(4096, 4096) + linear(4096, 1000);
    let rows = vec![
        ["flattened, two hidden layers of 4,096, as in VGG".to_owned(), thousands(vgg)],
        ["flattened, one layer".to_owned(), thousands(linear(512 * 7 * 7, 1000))],
        ["global mean, one layer, as in ResNet".to_owned(), thousands(linear(512, 1000))],
    ];
    table(out, ["head on 512×7×7 for 1,000 classes", "parameters"], rows)
}

// ANCHOR: pixels
/// A fully-connected layer at every pixel: maps to a list of their pixels, the layer, and back to maps.
fn at_each_pixel(layer: &Linear, maps: &Tensor<4>) -> Tensor<4> {
    let [images, channels, height, width] = maps.dims();
    let pixels = maps.clone().permute([0, 2, 3, 1]).reshape([images * height * width, channels]);
    layer.forward(pixels).reshape([images, height, width, OUTPUTS]).permute([0, 3, 1, 2])
}
// ANCHOR_END: pixels

// ANCHOR: linear
/// The fully-connected layer with the weights of a 1×1 convolution.
fn as_linear(conv: &ConvUnit, device: &Device) -> Result<Linear> {
    let bias = conv.conv.bias.as_ref().context("the convolution has no bias")?.val();
    let mut linear = LinearConfig::new(INPUTS, OUTPUTS).init(device);
    linear.weight = Param::from_tensor(conv.conv.weight.val().reshape([OUTPUTS, INPUTS]));
    linear.bias = Param::from_tensor(bias);
    Ok(linear)
}
// ANCHOR_END: linear

/// The largest difference.
fn differ<const D: usize>(a: &Tensor<D>, b: &Tensor<D>) -> Result<f32> {
    Ok((a.clone() - b.clone()).abs().max().try_into_scalar()?)
}
