//! NiN: Lin, Chen, Yan, *Network In Network*, [arXiv:1312.4400](https://arxiv.org/abs/1312.4400), 2013, in the shapes
//! that the authors published as Caffe models: 7.6M parameters for ImageNet, 0.97M for CIFAR.

use burn::config::Config;
use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::Device;
use convzoo_blocks::{FeatureMap, GlobalPool, GlobalPooling, Init, NinBlock, NinBlockConfig, Pool, PoolConfig};

use crate::names::{index, rename};
use crate::registry::{Build, Opt, Sizes, Variant};
use crate::{Classifier, Options, Preprocessing};

const fn variant(
    name: &'static str,
    side: usize,
    classes: usize,
    smallest: usize,
    config: fn() -> NinConfig,
) -> Variant {
    Variant {
        name,
        family: "nin",
        year: 2013,
        paper: "https://arxiv.org/abs/1312.4400",
        input: [3, side, side],
        classes,
        sizes: Sizes::From(smallest),
        takes: &[Opt::Dropout],
        weights: &[],
        build: Build::Nin(config),
    }
}

pub(crate) const VARIANTS: &[Variant] =
    &[variant("nin", 224, 1000, 39, NinConfig::imagenet), variant("nin_cifar", 32, 10, 4, NinConfig::cifar)];

/// Configures a [`Nin`].
#[derive(Config, Debug)]
pub struct NinConfig {
    /// A block's widths (without its last 1×1 convolution, for the last block), kernel size, stride and padding.
    pub blocks: Vec<NinRow>,
    /// The pooling after each block but the last.
    pub pools: Vec<PoolConfig>,
    /// Number of classes: channels of the last block.
    #[config(default = 1000)]
    pub classes: usize,
    /// Channels of the images.
    #[config(default = 3)]
    pub channels: usize,
    /// Global pooling of the classes' maps.
    #[config(default = "GlobalPooling::Average")]
    pub global_pool: GlobalPooling,
    /// Dropout probability.
    #[config(default = 0.5)]
    pub dropout: f64,
    /// Whether dropout follows every pooling, as for CIFAR, or the last alone, as for ImageNet.
    #[config(default = false)]
    pub dropout_everywhere: bool,
}

/// One block of a [`NinConfig`].
#[derive(Config, Debug)]
pub struct NinRow {
    /// Channels of the spatial convolution and of the two 1×1 after it.
    pub widths: [usize; 3],
    /// Height and width of the spatial convolution's kernel.
    pub kernel_size: usize,
    /// Its stride.
    pub stride: usize,
    /// Its padding.
    pub padding: usize,
}

/// NiN blocks with poolings between them; global average pooling of the last block's feature maps gives the logits.
#[derive(Module, Debug)]
pub struct Nin {
    blocks: Vec<NinBlock>,
    pools: Vec<Pool>,
    dropout: Dropout,
    avgpool: GlobalPool,
    dropout_everywhere: bool,
}

impl NinConfig {
    /// The authors' Caffe model for ImageNet.
    pub fn imagenet() -> Self {
        Self::new(
            vec![
                NinRow::new([96, 96, 96], 11, 4, 0),
                NinRow::new([256, 256, 256], 5, 1, 2),
                NinRow::new([384, 384, 384], 3, 1, 1),
                NinRow::new([1024, 1024, 1000], 3, 1, 1),
            ],
            vec![PoolConfig::max(3, 2); 3],
        )
    }

    /// The authors' Caffe model for CIFAR, whose second pooling is average pooling.
    pub fn cifar() -> Self {
        Self::new(
            vec![
                NinRow::new([192, 160, 96], 5, 1, 2),
                NinRow::new([192, 192, 192], 5, 1, 2),
                NinRow::new([192, 192, 10], 3, 1, 1),
            ],
            vec![PoolConfig::max(3, 2), PoolConfig::avg(3, 2)],
        )
        .with_classes(10)
        .with_dropout_everywhere(true)
    }

    pub(crate) fn with_options(self, options: &Options) -> Self {
        let dropout = options.dropout.unwrap_or(self.dropout);
        self.with_dropout(dropout)
    }

    /// Makes the network; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> Nin {
        let mut inputs = self.channels;
        let blocks = self.blocks.iter().enumerate().map(|(i, row)| {
            let mut widths = row.widths;
            if i + 1 == self.blocks.len() {
                widths[2] = self.classes;
            }
            let block = NinBlockConfig::new(inputs, widths, row.kernel_size)
                .with_stride(row.stride)
                .with_padding(row.padding)
                // The initialization of nearly all layers in the Caffe models.
                .with_init(Init::Normal(0.05))
                .init(device);
            inputs = widths[2];
            block
        });
        Nin {
            blocks: blocks.collect(),
            // Caffe's poolings let the last window extend past the edge.
            pools: self.pools.iter().map(|pool| pool.clone().with_ceil_mode(true).init()).collect(),
            dropout: DropoutConfig::new(self.dropout).init(),
            avgpool: self.global_pool.init(),
            dropout_everywhere: self.dropout_everywhere,
        }
    }
}

impl Classifier for Nin {
    /// The feature maps of the classes: `[batch, classes, height, width]`.
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        let last = self.pools.len() - 1;
        self.blocks.iter().enumerate().fold(images, |x, (i, block)| {
            let x = block.forward(x);
            match self.pools.get(i) {
                Some(pool) if self.dropout_everywhere || i == last => pool.forward(x).dropout(&self.dropout),
                Some(pool) => pool.forward(x),
                None => x,
            }
        })
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.avgpool.forward(features).flatten()
    }

    fn replace_head(mut self, classes: usize) -> Self {
        if let Some(last) = self.blocks.pop() {
            self.blocks.push(last.replace_outputs(classes));
        }
        self
    }

    fn preprocessing(&self) -> Preprocessing {
        if self.dropout_everywhere { Preprocessing::small(32) } else { Preprocessing::IMAGENET }
    }

    /// Caffe's names: `cccp`, cascaded cross-channel parametric pooling, are the 1×1 convolutions.
    fn reference_name(&self, path: &[&str]) -> String {
        match path {
            ["blocks", block, unit, "conv", tensor] => {
                let block = index(block);
                match *unit {
                    "cccp1" => rename(&[&format!("cccp{}", 2 * block + 1)], tensor),
                    "cccp2" => rename(&[&format!("cccp{}", 2 * block + 2)], tensor),
                    _ => rename(&[&format!("conv{}", block + 1)], tensor),
                }
            }
            ["pools", pool, tensor] => rename(&[&format!("pool{}", index(pool) + 1)], tensor),
            _ => path.join("."),
        }
    }
}
