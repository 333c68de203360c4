//! RegNet: Radosavovic, Kosaraju, Girshick, He, Dollár, *Designing Network Design Spaces*,
//! [arXiv:2003.13678](https://arxiv.org/abs/2003.13678), 2020.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;
use convzoo_blocks::{
    ConvUnit, ConvUnitConfig, FeatureMap, Init, PooledHead, PooledHeadConfig, RegNetBlock, RegNetBlockConfig,
};

use crate::names::{index, place, rename};
use crate::registry::{Build, Sizes, Variant};
use crate::widths::make_divisible;
use crate::{Classifier, Options, Published};

const fn regnet(name: &'static str, config: fn() -> RegNetConfig) -> Variant {
    Variant {
        name,
        family: "regnet",
        year: 2020,
        paper: "https://arxiv.org/abs/2003.13678",
        input: [3, 224, 224],
        classes: 1000,
        sizes: Sizes::From(1),
        takes: &[],
        weights: WEIGHTS,
        build: Build::RegNet(config),
    }
}

pub(crate) const VARIANTS: &[Variant] = &[
    regnet("regnet_x_400mf", || RegNetConfig::new(22, 24, 24.48, 2.54, 16)),
    regnet("regnet_x_800mf", || RegNetConfig::new(16, 56, 35.73, 2.28, 16)),
    regnet("regnet_x_1_6gf", || RegNetConfig::new(18, 80, 34.01, 2.25, 24)),
    regnet("regnet_x_3_2gf", || RegNetConfig::new(25, 88, 26.31, 2.25, 48)),
    regnet("regnet_x_8gf", || RegNetConfig::new(23, 80, 49.56, 2.88, 120)),
    regnet("regnet_x_16gf", || RegNetConfig::new(22, 216, 55.59, 2.1, 128)),
    regnet("regnet_x_32gf", || RegNetConfig::new(23, 320, 69.86, 2.0, 168)),
    regnet("regnet_y_400mf", || RegNetConfig::new(16, 48, 27.89, 2.09, 8).with_squeeze(Some(0.25))),
    regnet("regnet_y_800mf", || RegNetConfig::new(14, 56, 38.84, 2.4, 16).with_squeeze(Some(0.25))),
    regnet("regnet_y_1_6gf", || RegNetConfig::new(27, 48, 20.71, 2.65, 24).with_squeeze(Some(0.25))),
    regnet("regnet_y_3_2gf", || RegNetConfig::new(21, 80, 42.63, 2.66, 24).with_squeeze(Some(0.25))),
    regnet("regnet_y_8gf", || RegNetConfig::new(17, 192, 76.82, 2.19, 56).with_squeeze(Some(0.25))),
    regnet("regnet_y_16gf", || RegNetConfig::new(18, 200, 106.23, 2.48, 112).with_squeeze(Some(0.25))),
    regnet("regnet_y_32gf", || RegNetConfig::new(20, 232, 115.89, 2.53, 232).with_squeeze(Some(0.25))),
    regnet("regnet_y_128gf", || RegNetConfig::new(27, 456, 160.83, 2.52, 264).with_squeeze(Some(0.25))),
];

/// Published by torchvision.
const WEIGHTS: &[Published] = &[
    Published::new("regnet_y_400mf", "imagenet1k_v1", "regnet_y_400mf-c65dace8.pth", 74.046, 91.716, 256),
    Published::new("regnet_y_400mf", "imagenet1k_v2", "regnet_y_400mf-e6988f5f.pth", 75.804, 92.742, 232),
    Published::new("regnet_y_800mf", "imagenet1k_v1", "regnet_y_800mf-1b27b58c.pth", 76.42, 93.136, 256),
    Published::new("regnet_y_800mf", "imagenet1k_v2", "regnet_y_800mf-58fc7688.pth", 78.828, 94.502, 232),
    Published::new("regnet_y_1_6gf", "imagenet1k_v1", "regnet_y_1_6gf-b11a554e.pth", 77.95, 93.966, 256),
    Published::new("regnet_y_1_6gf", "imagenet1k_v2", "regnet_y_1_6gf-0d7bc02a.pth", 80.876, 95.444, 232),
    Published::new("regnet_y_3_2gf", "imagenet1k_v1", "regnet_y_3_2gf-b5a9779c.pth", 78.948, 94.576, 256),
    Published::new("regnet_y_3_2gf", "imagenet1k_v2", "regnet_y_3_2gf-9180c971.pth", 81.982, 95.972, 232),
    Published::new("regnet_y_8gf", "imagenet1k_v1", "regnet_y_8gf-d0d0e4a8.pth", 80.032, 95.048, 256),
    Published::new("regnet_y_8gf", "imagenet1k_v2", "regnet_y_8gf-dc2b1b54.pth", 82.828, 96.33, 232),
    Published::new("regnet_y_16gf", "imagenet1k_v1", "regnet_y_16gf-9e6ed7dd.pth", 80.424, 95.24, 256),
    Published::new("regnet_y_16gf", "imagenet1k_v2", "regnet_y_16gf-3e4a00f9.pth", 82.886, 96.328, 232),
    Published::new("regnet_y_16gf", "imagenet1k_swag_e2e_v1", "regnet_y_16gf_swag-43afe44d.pth", 86.012, 98.054, 384)
        .cropped(384)
        .bicubic(),
    Published::new(
        "regnet_y_16gf",
        "imagenet1k_swag_linear_v1",
        "regnet_y_16gf_lc_swag-f3ec0043.pth",
        83.976,
        97.244,
        224,
    )
    .bicubic(),
    Published::new("regnet_y_32gf", "imagenet1k_v1", "regnet_y_32gf-4dee3f7a.pth", 80.878, 95.34, 256),
    Published::new("regnet_y_32gf", "imagenet1k_v2", "regnet_y_32gf-8db6d4b5.pth", 83.368, 96.498, 232),
    Published::new("regnet_y_32gf", "imagenet1k_swag_e2e_v1", "regnet_y_32gf_swag-04fdfa75.pth", 86.838, 98.362, 384)
        .cropped(384)
        .bicubic(),
    Published::new(
        "regnet_y_32gf",
        "imagenet1k_swag_linear_v1",
        "regnet_y_32gf_lc_swag-e1583746.pth",
        84.622,
        97.48,
        224,
    )
    .bicubic(),
    Published::new("regnet_y_128gf", "imagenet1k_swag_e2e_v1", "regnet_y_128gf_swag-c8ce3e52.pth", 88.228, 98.682, 384)
        .cropped(384)
        .bicubic(),
    Published::new(
        "regnet_y_128gf",
        "imagenet1k_swag_linear_v1",
        "regnet_y_128gf_lc_swag-cbe8ce12.pth",
        86.068,
        97.844,
        224,
    )
    .bicubic(),
    Published::new("regnet_x_400mf", "imagenet1k_v1", "regnet_x_400mf-adf1edd5.pth", 72.834, 90.95, 256),
    Published::new("regnet_x_400mf", "imagenet1k_v2", "regnet_x_400mf-62229a5f.pth", 74.864, 92.322, 232),
    Published::new("regnet_x_800mf", "imagenet1k_v1", "regnet_x_800mf-ad17e45c.pth", 75.212, 92.348, 256),
    Published::new("regnet_x_800mf", "imagenet1k_v2", "regnet_x_800mf-94a99ebd.pth", 77.522, 93.826, 232),
    Published::new("regnet_x_1_6gf", "imagenet1k_v1", "regnet_x_1_6gf-e3633e7f.pth", 77.04, 93.44, 256),
    Published::new("regnet_x_1_6gf", "imagenet1k_v2", "regnet_x_1_6gf-a12f2b72.pth", 79.668, 94.922, 232),
    Published::new("regnet_x_3_2gf", "imagenet1k_v1", "regnet_x_3_2gf-f342aeae.pth", 78.364, 93.992, 256),
    Published::new("regnet_x_3_2gf", "imagenet1k_v2", "regnet_x_3_2gf-7071aa85.pth", 81.196, 95.43, 232),
    Published::new("regnet_x_8gf", "imagenet1k_v1", "regnet_x_8gf-03ceed89.pth", 79.344, 94.686, 256),
    Published::new("regnet_x_8gf", "imagenet1k_v2", "regnet_x_8gf-2b70d774.pth", 81.682, 95.678, 232),
    Published::new("regnet_x_16gf", "imagenet1k_v1", "regnet_x_16gf-2007eb11.pth", 80.058, 94.944, 256),
    Published::new("regnet_x_16gf", "imagenet1k_v2", "regnet_x_16gf-ba3796d7.pth", 82.716, 96.196, 232),
    Published::new("regnet_x_32gf", "imagenet1k_v1", "regnet_x_32gf-9d47f8d0.pth", 80.622, 95.248, 256),
    Published::new("regnet_x_32gf", "imagenet1k_v2", "regnet_x_32gf-6eb8fdc6.pth", 83.014, 96.288, 232),
];

/// Configures a [`RegNet`] by the parameters of the paper's design space: block j is `initial_width + slope · j` wide,
/// rounded to a power of `step` times the initial width.
#[derive(Config, Debug)]
pub struct RegNetConfig {
    /// Number of blocks, d.
    pub depth: usize,
    /// Width of the first block, w₀.
    pub initial_width: usize,
    /// By how much a block is wider than the one before it, wₐ.
    pub slope: f64,
    /// How many times a stage is as wide as the one before it, wₘ.
    pub step: f64,
    /// Channels of each group of the 3×3 convolutions, g.
    pub group_width: usize,
    /// Channels in the squeeze-and-excitation for each input channel of a block, where it has one: in Y blocks.
    pub squeeze: Option<f64>,
    /// Number of classes; 0 leaves the linear layer out.
    #[config(default = 1000)]
    pub classes: usize,
    /// Channels of the images.
    #[config(default = 3)]
    pub channels: usize,
}

/// A strided convolution, stages of X or Y blocks that each halve the feature map, global average pooling, one linear
/// layer.
#[derive(Module, Debug)]
pub struct RegNet {
    stem: ConvUnit,
    stages: Vec<Vec<RegNetBlock>>,
    head: PooledHead,
}

impl RegNetConfig {
    pub(crate) fn with_options(self, _: &Options) -> Self {
        self
    }

    /// The stages' widths, group widths and numbers of blocks.
    fn stages(&self) -> Vec<[usize; 3]> {
        let initial = self.initial_width as f64;
        let quantized = (0..self.depth).map(|block| {
            let steps = ((initial + self.slope * block as f64) / initial).ln() / self.step.ln();
            let width = initial * self.step.powf(steps.round_ties_even());
            8 * (width / 8.0).round_ties_even() as usize
        });
        let mut stages: Vec<[usize; 3]> = Vec::new();
        for width in quantized {
            // Groups divide the width.
            let group = self.group_width.min(width);
            let width = make_divisible(width as f64, group);
            match stages.last_mut() {
                Some([last, _, depth]) if *last == width => *depth += 1,
                _ => stages.push([width, group, 1]),
            }
        }
        stages
    }

    /// Makes the network; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> RegNet {
        let stem = ConvUnitConfig::square(self.channels, 32, 3).strided(2).padded(1).with_batch_norm();
        let mut inputs = 32;
        let stages = self.stages().into_iter().map(|[width, group, depth]| {
            let blocks = (0..depth).map(|block| {
                let channels = [std::mem::replace(&mut inputs, width), width];
                let squeezed = self.squeeze.map(|share| (share * channels[0] as f64).round_ties_even() as usize);
                let config = RegNetBlockConfig::new(channels, group).with_squeezed(squeezed);
                config.with_stride(if block == 0 { 2 } else { 1 }).init(device)
            });
            blocks.collect()
        });
        let stages: Vec<Vec<RegNetBlock>> = stages.collect();
        RegNet {
            stem: stem.with_init(Init::KaimingNormalFanOut).init(device),
            stages,
            head: PooledHeadConfig::new(inputs, self.classes).with_init(Init::Normal(0.01)).init(device),
        }
    }
}

impl Classifier for RegNet {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        self.stages.iter().flatten().fold(self.stem.forward(images), |x, block| block.forward(x))
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.head.forward(features)
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { head: self.head.replace_classes(classes), ..self }
    }

    fn reference_name(&self, path: &[&str]) -> String {
        match path {
            ["stem", unit, tensor] => rename(&["stem", &place(unit).to_string()], tensor),
            ["stages", stage, block, rest @ .., tensor] => {
                let stage = index(stage) + 1;
                let layer = match rest {
                    ["proj", unit] => format!("proj.{}", place(unit)),
                    ["se", layer, ..] => format!("f.se.{layer}"),
                    [conv, unit] => format!("f.{conv}.{}", place(unit)),
                    _ => rest.join("."),
                };
                rename(&[&format!("trunk_output.block{stage}.block{stage}-{block}"), &layer], tensor)
            }
            ["head", "pool", tensor] => rename(&["avgpool"], tensor),
            ["head", "fc", tensor] => rename(&["fc"], tensor),
            _ => path.join("."),
        }
    }
}
