//! FractalNet: Larsson, Maire, Shakhnarovich, *FractalNet: Ultra-Deep Neural Networks without Residuals*,
//! [arXiv:1605.07648](https://arxiv.org/abs/1605.07648), 2016.
//!
//! The depth, 20, is the longest path: 5 blocks of 2² convolutions, hence 3 columns (4 would make 40 layers). The paper
//! gives blocks, widths and 38.6M parameters, but not where the channels double. If the first convolution of every
//! column did it, there would be 33.7M; a 1×1 convolution in front of each block whose width differs makes the paper's
//! 38.6M, and stands here.

use burn::module::Module;
use burn::tensor::Device;
use convzoo_blocks::{ConvUnit, ConvUnitConfig, FeatureMap, FractalBlock, FractalBlockConfig, Init, Linear, LinearConfig, Paths, Pool, PoolConfig};

use crate::registry::{Opt, Sizes, Spec, Variant};
use crate::{Classifier, Preprocessing};

const COLUMNS: usize = 3;

/// Channels of each block, and the probability of dropping a feature behind its convolutions.
const BLOCKS: [(usize, f64); 5] = [(64, 0.0), (128, 0.1), (256, 0.2), (512, 0.3), (512, 0.4)];

pub(crate) const VARIANTS: &[Variant] = &[Variant {
    name: "fractalnet20",
    family: "fractalnet",
    year: 2016,
    paper: "https://arxiv.org/abs/1605.07648",
    input: [3, 32, 32],
    classes: 10,
    sizes: Sizes::Fixed,
    takes: &[Opt::Dropout, Opt::DropPath],
    weights: &[],
    build: |spec, device| FractalNet::new(spec, device).into(),
}];

/// Five fractal blocks, each followed by a maximum that halves the map, down to 1×1.
#[derive(Module, Debug)]
pub struct FractalNet {
    stages: Vec<Stage>,
    classifier: Linear,
    drop_path: f64,
}

#[derive(Module, Debug)]
struct Stage {
    /// 1×1, where the channels change.
    widen: Option<ConvUnit>,
    fractal: FractalBlock,
    pool: Pool,
}

impl FractalNet {
    fn new(spec: &Spec, device: &Device) -> Self {
        let drop_path = spec.options.drop_path.unwrap_or(0.15);
        let mut inputs = spec.channels;
        let stages = BLOCKS.map(|(width, dropout)| {
            let widen = ConvUnitConfig::square(inputs, width, 1).with_batch_norm().with_init(Init::XavierUniform);
            let widen = (inputs != width).then(|| widen.init(device));
            inputs = width;
            let fractal = FractalBlockConfig::new([width, width], COLUMNS)
                .with_drop_path(drop_path)
                .with_dropout(spec.options.dropout.unwrap_or(dropout))
                .init(device);
            Stage { widen, fractal, pool: PoolConfig::max(2, 2).init() }
        });
        Self {
            stages: stages.into(),
            classifier: LinearConfig::new(inputs, spec.classes).with_init(Init::XavierUniform).init(device),
            drop_path,
        }
    }
}

impl Classifier for FractalNet {
    /// In training, with drop path: global ones take the same column through all blocks.
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        let paths = match images.training_device() {
            Some(device) if self.drop_path > 0.0 => Paths::draw(self.drop_path, COLUMNS, &device),
            _ => Paths::All,
        };
        self.stages.iter().fold(images, |x, stage| {
            let x = match &stage.widen {
                Some(widen) => widen.forward(x),
                None => x,
            };
            stage.pool.forward(stage.fractal.forward_paths(x, paths))
        })
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.classifier.forward(features.flatten())
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { classifier: self.classifier.replace_outputs(classes), ..self }
    }

    fn preprocessing(&self) -> Preprocessing {
        Preprocessing::small(32)
    }
}
