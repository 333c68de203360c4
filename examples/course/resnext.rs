//! ResNeXt: convolutions in groups.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use burn::module::{Module, Param};
use burn::tensor::{Device, Distribution, Tensor};
use convzoo::blocks::{ConvUnit, ConvUnitConfig};
use convzoo::report::Grid;

use super::show::{grey, table, thousands, values};

#[derive(clap::Args, Default)]
pub struct Args {
    /// Write which channels each channel reads, with 1, 4 and 16 groups, to this file, .png or .jpg
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
}

/// The paper's forms of a bottleneck that cost about the same: groups, channels of each, and the error of a network of
/// 50 layers on ImageNet.
const FORMS: [(usize, usize, &str); 5] =
    [(1, 64, "23.9 %"), (2, 40, "23.0 %"), (4, 24, "22.6 %"), (8, 14, "22.3 %"), (32, 4, "22.2 %")];

pub fn run(args: &Args, out: &mut dyn Write, device: &Device) -> Result<()> {
    let rows = FORMS.map(|(groups, width, error)| {
        let all = groups * width;
        let [reduce, spatial, expand] =
            [conv(256, all, 1, 1, device), conv(all, all, 3, groups, device), conv(all, 256, 1, 1, device)]
                .map(|conv| conv.num_params());
        ensure!(spatial == groups * 9 * width * width, "{groups} groups have {spatial} weights");
        let sum = thousands(reduce + spatial + expand);
        Ok([
            format!("{groups} of {width}"),
            thousands(reduce),
            thousands(spatial),
            thousands(expand),
            sum,
            error.into(),
        ])
    });
    let rows = rows.into_iter().collect::<Result<_>>()?;
    table(out, ["bottleneck on 256 channels, groups", "1×1", "3×3", "1×1", "in all", "error in the paper"], rows)?;

    device.seed(0);
    let grouped = conv(128, 128, 3, 32, device);
    let input = Tensor::random([1, 128, 5, 5], Distribution::Default, device);
    let difference = grouped.forward(input.clone()) - side_by_side(&grouped, &input, device);
    let most = values(&difference.abs().max().reshape([1]))?[0];
    ensure!(most < 1e-5, "groups and branches differ by {most}");
    writeln!(out, "one convolution in 32 groups and 32 convolutions of 4 channels: the same to 0.00001\n")?;

    if let Some(path) = &args.picture {
        let grid = [1, 4, 16].into_iter().try_fold(Grid::new(3), |grid, groups| {
            let connected = grey(&connections(groups, &device.clone().autodiff())?, 1.6, 9)?;
            Ok::<_, anyhow::Error>(grid.tile(format!("groups: {groups}"), connected))
        })?;
        grid.image()?.save(path).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// A convolution without a bias or an activation.
fn conv(inputs: usize, outputs: usize, size: usize, groups: usize, device: &Device) -> ConvUnit {
    let conv = ConvUnitConfig::square(inputs, outputs, size).padded(size / 2).linear().with_bias(false);
    conv.with_groups(groups).init(device)
}

// ANCHOR: branches
/// What 32 convolutions with the weights of a grouped one give, each on its own 4 of the 128 channels.
fn side_by_side(grouped: &ConvUnit, input: &Tensor<4>, device: &Device) -> Tensor<4> {
    let branches = (0..32).map(|group| {
        let mut branch = conv(4, 4, 3, 1, device);
        let weight = grouped.conv.weight.val().narrow(0, 4 * group, 4);
        branch.conv.weight = Param::from_tensor(weight);
        branch.forward(input.clone().narrow(1, 4 * group, 4))
    });
    Tensor::cat(branches.collect(), 1)
}
// ANCHOR_END: branches

/// Which of 16 channels, across, each of 16 channels, down, depends on: 1 where the gradient is not 0.
fn connections(groups: usize, device: &Device) -> Result<Tensor<4>> {
    let layer = conv(16, 16, 1, groups, device);
    let mut rows = Vec::new();
    for output in 0..16 {
        let input = Tensor::<4>::ones([1, 16, 1, 1], device).require_grad();
        let channel = layer.forward(input.clone()).narrow(1, output, 1).sum();
        let gradient = input.grad(&channel.backward()).context("the input has no gradient")?;
        rows.push(gradient.not_equal_elem(0.0).float().reshape([1, 1, 1, 16]));
    }
    Ok(Tensor::cat(rows, 2))
}
