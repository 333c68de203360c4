//! MnasNet: Tan, Chen, Pang, Vasudevan, Sandler, Howard, Le, *MnasNet: Platform-Aware Neural Architecture Search for
//! Mobile*, [arXiv:1807.11626](https://arxiv.org/abs/1807.11626), 2018: the B1 form, without squeeze-and-excitation.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;
use convzoo_blocks::{
    Activation, ConvUnit, ConvUnitConfig, FeatureMap, Init, InvertedResidual, InvertedResidualConfig, NormConfig,
    PooledHead, PooledHeadConfig,
};

use crate::names::{index, place, rename};
use crate::registry::{Build, Opt, Sizes, Variant};
use crate::widths::make_divisible;
use crate::{Classifier, Options, Published};

const fn variant(name: &'static str, config: fn() -> MnasNetConfig) -> Variant {
    Variant {
        name,
        family: "mnasnet",
        year: 2018,
        paper: "https://arxiv.org/abs/1807.11626",
        input: [3, 224, 224],
        classes: 1000,
        sizes: Sizes::From(1),
        takes: &[Opt::Dropout],
        weights: WEIGHTS,
        build: Build::MnasNet(config),
    }
}

pub(crate) const VARIANTS: &[Variant] = &[
    variant("mnasnet0_5", || MnasNetConfig::new(0.5)),
    variant("mnasnet0_75", || MnasNetConfig::new(0.75)),
    variant("mnasnet1_0", || MnasNetConfig::new(1.0)),
    variant("mnasnet1_3", || MnasNetConfig::new(1.3)),
];

/// Published by torchvision.
const WEIGHTS: &[Published] = &[
    Published::new("mnasnet0_5", "imagenet1k_v1", "mnasnet0.5_top1_67.823-3ffadce67e.pth", 67.734, 87.49, 256),
    Published::new("mnasnet0_75", "imagenet1k_v1", "mnasnet0_75-7090bc5f.pth", 71.18, 90.496, 232),
    Published::new("mnasnet1_0", "imagenet1k_v1", "mnasnet1.0_top1_73.512-f206786ef8.pth", 73.456, 91.51, 256),
    Published::new("mnasnet1_3", "imagenet1k_v1", "mnasnet1_3-a4c69d6f.pth", 76.506, 93.522, 232),
];

/// Figure 7 of the paper: kernel, expansion, channels, blocks, stride of the first.
const STAGES: [[usize; 5]; 6] =
    [[3, 3, 24, 3, 2], [5, 3, 40, 3, 2], [5, 6, 80, 3, 2], [3, 6, 96, 2, 1], [5, 6, 192, 4, 2], [3, 6, 320, 1, 1]];

/// PyTorch's momentum for TensorFlow's 0.9997.
const NORM: NormConfig = NormConfig::Batch { epsilon: 1e-5, momentum: 1.0 - 0.9997 };

/// Configures a [`MnasNet`].
#[derive(Config, Debug)]
pub struct MnasNetConfig {
    /// Width multiplier.
    pub width: f64,
    /// Number of classes; 0 leaves the linear layer out.
    #[config(default = 1000)]
    pub classes: usize,
    /// Channels of the images.
    #[config(default = 3)]
    pub channels: usize,
    /// Dropout probability before the linear layer.
    #[config(default = 0.2)]
    pub dropout: f64,
}

/// A strided convolution, a depthwise-separable one, inverted residuals, a 1×1 convolution, global average pooling, one
/// linear layer.
#[derive(Module, Debug)]
pub struct MnasNet {
    stem: ConvUnit,
    separable: InvertedResidual,
    stages: Vec<Vec<InvertedResidual>>,
    last: ConvUnit,
    head: PooledHead,
}

impl MnasNetConfig {
    pub(crate) fn with_options(self, options: &Options) -> Self {
        let dropout = options.dropout.unwrap_or(self.dropout);
        self.with_dropout(dropout)
    }

    /// Makes the network; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> MnasNet {
        let scaled = |channels: usize| make_divisible(channels as f64 * self.width, 8);
        let conv = |inputs, outputs, size: usize| {
            let config = ConvUnitConfig::square(inputs, outputs, size).padded(size / 2).with_bias(false);
            config.with_norm(Some(NORM)).with_init(Init::KaimingNormalFanOut)
        };
        let block = |channels: [usize; 2], expansion: usize| {
            let config = InvertedResidualConfig::new(channels, expansion * channels[0]);
            config.with_activation(Activation::Relu).with_norm(NORM)
        };
        let (first, mut inputs) = (scaled(32), scaled(16));
        let stem = conv(self.channels, first, 3).strided(2).init(device);
        let separable = block([first, inputs], 1).init(device);
        let stages = STAGES.map(|[kernel, expansion, channels, depth, stride]| {
            let blocks = (0..depth).map(|i| {
                let outputs = scaled(channels);
                let config = block([std::mem::replace(&mut inputs, outputs), outputs], expansion);
                config.with_kernel_size(kernel).with_stride(if i == 0 { stride } else { 1 }).init(device)
            });
            blocks.collect::<Vec<_>>()
        });
        let head = PooledHeadConfig::new(1280, self.classes).with_dropout(self.dropout);
        MnasNet {
            stem,
            separable,
            stages: stages.into(),
            last: conv(inputs, 1280, 1).init(device),
            head: head.with_init(Init::UniformFanOut(3f64.sqrt())).init(device),
        }
    }
}

impl Classifier for MnasNet {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        let x = self.separable.forward(self.stem.forward(images));
        self.last.forward(self.stages.iter().flatten().fold(x, |x, block| block.forward(x)))
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.head.forward(features)
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { head: self.head.replace_classes(classes), ..self }
    }

    /// torchvision numbers convolutions, norms, activations and stages in one sequence, `layers`, and those of a block in
    /// another.
    fn reference_name(&self, path: &[&str]) -> String {
        let layer = |first: usize, part: &str| format!("layers.{}", first + place(part));
        match path {
            ["stem", part, tensor] => rename(&[&layer(0, part)], tensor),
            ["separable", "depthwise", part, tensor] => rename(&[&layer(3, part)], tensor),
            ["separable", _, part, tensor] => rename(&[&layer(6, part)], tensor),
            ["stages", stage, block, unit, part, tensor] => {
                let first = 3 * self.stages[index(stage)][index(block)].place(unit);
                rename(&[&format!("layers.{}.{block}", 8 + index(stage)), &layer(first, part)], tensor)
            }
            ["last", part, tensor] => rename(&[&layer(8 + self.stages.len(), part)], tensor),
            ["head", "fc", tensor] => rename(&["classifier.1"], tensor),
            _ => path.join("."),
        }
    }
}
