//! After ResNet: stochastic depth, fractals, width, groups, and squeezing, each in numbers.

use std::io::Write;

use anyhow::{Result, ensure};
use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor};
use convzoo::blocks::{ConvUnit, ConvUnitConfig, DropPath, DropPathConfig, FireConfig, FractalBlockConfig};
use convzoo::{Options, create};

use super::show::{number, table, thousands, values};

pub fn run(out: &mut dyn Write, device: &Device) -> Result<()> {
    stochastic_depth(out, device)?;
    fractal(out, device)?;
    width(out, device)?;
    groups(out, device)?;
    squeeze(out, device)
}

/// 54 residual blocks, as in ResNet-110, of which the last is dropped half of the time.
fn stochastic_depth(out: &mut dyn Write, device: &Device) -> Result<()> {
    let device = &device.clone().autodiff();
    device.seed(0);
    let rates: Vec<f64> = DropPath::linear_decay(0.5, 54).collect();
    let mut rows = Vec::new();
    for block in [1, 18, 36, 54] {
        let rate = rates[block - 1];
        let path = DropPathConfig::new(rate).init().forward(Tensor::<2>::ones([10_000, 1], device));
        let kept = values(&path)?.iter().filter(|value| **value > 0.0).count() as f64 / 1e4;
        ensure!((kept - (1.0 - rate)).abs() < 0.03, "block {block} is kept {kept}");
        rows.push([block.to_string(), format!("{:.3}", 1.0 - rate), number((1.0 / (1.0 - rate)) as f32, 3)]);
    }
    let expected: f64 = rates.iter().map(|rate| 1.0 - rate).sum();
    table(out, ["stochastic depth, block of 54", "probability to survive", "scaled by"], rows)?;
    Ok(writeln!(out, "blocks that survive, on average: {expected:.2} of 54\n")?)
}

/// A fractal of c columns: column c has 2^(c − 1) convolutions.
fn fractal(out: &mut dyn Write, device: &Device) -> Result<()> {
    let block = |columns| FractalBlockConfig::new([64, 64], columns).init(device).num_params();
    let conv = block(1);
    let mut rows = Vec::new();
    for columns in 1..=4usize {
        let convs = block(columns) / conv;
        ensure!(
            convs == (1 << columns) - 1 && block(columns) % conv == 0,
            "{columns} columns have {convs} convolutions"
        );
        let deepest = 1 << (columns - 1);
        // Each half of a fractal can be passed by any of its own paths.
        let paths = (1..columns).fold(1usize, |paths, _| paths * paths + 1);
        rows.push([columns.to_string(), convs.to_string(), deepest.to_string(), paths.to_string()]);
    }
    table(out, ["columns of a fractal", "convolutions", "longest path", "paths"], rows)
}

/// Deep and narrow, or wide.
fn width(out: &mut dyn Write, device: &Device) -> Result<()> {
    let names =
        [("preact_resnet164_cifar", "5.46 %"), ("preact_resnet1001_cifar", "4.92 %"), ("wide_resnet28_10", "4.00 %")];
    let rows = names.map(|(name, error)| {
        let network = create(name, &Options::default(), device)?;
        let summary = network.summary(network.input())?;
        let convs = summary.layers.iter().filter(|layer| layer.kind == "Conv2d").count();
        let [params, macs] = [summary.params, summary.macs].map(thousands);
        Ok([name.to_owned(), convs.to_string(), params, macs, error.to_owned()])
    });
    let rows = rows.into_iter().collect::<Result<_>>()?;
    table(out, ["network", "convolutions", "parameters", "multiply-adds", "error in its paper"], rows)
}

/// ResNet's bottleneck and ResNeXt's, on 256 channels; and what groups are: convolutions side by side.
fn groups(out: &mut dyn Write, device: &Device) -> Result<()> {
    let conv = |inputs, outputs, size: usize, groups| {
        let conv = ConvUnitConfig::square(inputs, outputs, size).padded(size / 2).linear().with_bias(false);
        conv.with_groups(groups).init(device)
    };
    let rows = [("ResNet, 64 channels", 64, 1), ("ResNeXt, 32 groups of 4", 128, 32)].map(|(name, width, groups)| {
        let weights = [conv(256, width, 1, 1), conv(width, width, 3, groups), conv(width, 256, 1, 1)]
            .map(|conv: ConvUnit| conv.num_params());
        let [reduce, spatial, expand] = weights.map(thousands);
        [name.to_owned(), reduce, spatial, expand, thousands(weights.iter().sum())]
    });
    table(out, ["bottleneck on 256 channels", "1×1", "3×3", "1×1", "in all"], rows.into())?;

    device.seed(0);
    let grouped = conv(128, 128, 3, 32);
    let input = Tensor::random([1, 128, 5, 5], Distribution::Default, device);
    let branches = (0..32).map(|group| {
        let mut branch = conv(4, 4, 3, 1);
        let weight = grouped.conv.weight.val().narrow(0, 4 * group, 4);
        branch.conv.weight = burn::module::Param::from_tensor(weight);
        branch.forward(input.clone().narrow(1, 4 * group, 4))
    });
    let difference = grouped.forward(input.clone()) - Tensor::cat(branches.collect(), 1);
    let most = values(&difference.abs().max().reshape([1]))?[0];
    ensure!(most < 1e-5, "groups and branches differ by {most}");
    Ok(writeln!(out, "one convolution in 32 groups and 32 convolutions of 4 channels: the same to 0.00001\n")?)
}

/// SqueezeNet's second fire module, and a 3×3 convolution of the same channels.
fn squeeze(out: &mut dyn Write, device: &Device) -> Result<()> {
    let fire = FireConfig::new(96, 16, 64).init(device).num_params();
    let plain = ConvUnitConfig::square(96, 128, 3).init(device).num_params();
    ensure!(fire == (96 + 1) * 16 + (16 + 1) * 64 + (9 * 16 + 1) * 64, "the fire module has {fire} parameters");
    let rows = vec![
        ["fire: 1×1 to 16, then 64 of 1×1 and 64 of 3×3".to_owned(), thousands(fire)],
        ["3×3".to_owned(), thousands(plain)],
    ];
    table(out, ["from 96 to 128 channels", "parameters"], rows)
}
