//! FractalNet: Larsson, Maire, Shakhnarovich, *FractalNet: Ultra-Deep Neural Networks without Residuals*,
//! [arXiv:1605.07648](https://arxiv.org/abs/1605.07648), 2016.
//!
//! The depth, 20, is the longest path: 5 blocks of 2² convolutions, hence 3 columns (4 would make 40 layers). The paper
//! gives blocks, widths and 38.6M parameters, but not where the channels double. If the first convolution of every
//! column did it, there would be 33.7M; a 1×1 convolution before each block whose width differs gives the paper's
//! 38.6M, and is used here.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;
use convzoo_blocks::{
    ConvUnit, ConvUnitConfig, FeatureMap, FractalBlock, FractalBlockConfig, Init, Linear, LinearConfig, Paths, Pool,
    PoolConfig,
};

use crate::registry::{Build, Opt, Sizes, Variant};
use crate::{Classifier, Options, Preprocessing};

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
    build: Build::FractalNet(FractalNetConfig::new),
}];

/// Configures a [`FractalNet`] for images of 32×32.
#[derive(Config, Debug)]
pub struct FractalNetConfig {
    /// Columns of each block: the deepest has 2^(columns − 1) convolutions.
    #[config(default = 3)]
    pub columns: usize,
    /// Channels of each of the five blocks.
    #[config(default = "[64, 128, 256, 512, 512]")]
    pub widths: [usize; 5],
    /// Dropout probability after the convolutions of each block.
    #[config(default = "[0.0, 0.1, 0.2, 0.3, 0.4]")]
    pub dropout: [f64; 5],
    /// Probability that a join drops one of its inputs.
    #[config(default = 0.15)]
    pub drop_path: f64,
    /// Number of classes.
    #[config(default = 10)]
    pub classes: usize,
    /// Channels of the images.
    #[config(default = 3)]
    pub channels: usize,
}

/// Five fractal blocks, each followed by max pooling that halves the feature map, down to 1×1.
#[derive(Module, Debug)]
pub struct FractalNet {
    stages: Vec<FractalStage>,
    classifier: Linear,
    columns: usize,
    drop_path: f64,
}

#[derive(Module, Debug)]
struct FractalStage {
    /// 1×1, where the channels change.
    widen: Option<ConvUnit>,
    fractal: FractalBlock,
    pool: Pool,
}

impl FractalNetConfig {
    pub(crate) fn with_options(self, options: &Options) -> Self {
        let dropout = options.dropout.map_or(self.dropout, |dropout| [dropout; 5]);
        let drop_path = options.drop_path.unwrap_or(self.drop_path);
        self.with_dropout(dropout).with_drop_path(drop_path)
    }

    /// Makes the network; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> FractalNet {
        let mut inputs = self.channels;
        let stages = self.widths.into_iter().zip(self.dropout).map(|(width, dropout)| {
            let widen = ConvUnitConfig::square(inputs, width, 1).with_batch_norm().with_init(Init::XavierUniform);
            let widen = (inputs != width).then(|| widen.init(device));
            inputs = width;
            let fractal = FractalBlockConfig::new([width, width], self.columns)
                .with_drop_path(self.drop_path)
                .with_dropout(dropout)
                .init(device);
            FractalStage { widen, fractal, pool: PoolConfig::max(2, 2).init() }
        });
        FractalNet {
            stages: stages.collect(),
            classifier: LinearConfig::new(inputs, self.classes).with_init(Init::XavierUniform).init(device),
            columns: self.columns,
            drop_path: self.drop_path,
        }
    }
}

impl Classifier for FractalNet {
    /// In training, with drop path: global drop path takes the same column through all blocks.
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        let paths = match images.training_device() {
            Some(device) if self.drop_path > 0.0 => Paths::draw(self.drop_path, self.columns, &device),
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
