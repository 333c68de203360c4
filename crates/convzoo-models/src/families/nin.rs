//! NiN: Lin, Chen, Yan, *Network In Network*, [arXiv:1312.4400](https://arxiv.org/abs/1312.4400), 2013, in the shapes
//! that the authors published as Caffe models: 7.6M parameters for ImageNet, 0.97M for CIFAR.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::Device;
use convzoo_blocks::{AdaptiveAvgPool2d, FeatureMap, Init, NinBlock, NinBlockConfig, Pool, PoolConfig};

use crate::registry::{Opt, Sizes, Spec, Variant};
use crate::{Classifier, NameRules, Preprocessing};

/// A block's widths, kernel size, stride and padding; `CLASSES` stands for the number of classes.
type Row = ([usize; 3], usize, usize, usize);

const CLASSES: usize = 0;

const IMAGENET: &[Row] = &[
    ([96, 96, 96], 11, 4, 0),
    ([256, 256, 256], 5, 1, 2),
    ([384, 384, 384], 3, 1, 1),
    ([1024, 1024, CLASSES], 3, 1, 1),
];

const CIFAR: &[Row] = &[([192, 160, 96], 5, 1, 2), ([192, 192, 192], 5, 1, 2), ([192, 192, CLASSES], 3, 1, 1)];

const fn variant(name: &'static str, side: usize, classes: usize, smallest: usize) -> Variant {
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
        build: |spec, device| Nin::new(spec, device).into(),
    }
}

pub(crate) const VARIANTS: &[Variant] = &[variant("nin", 224, 1000, 39), variant("nin_cifar", 32, 10, 4)];

/// NiN blocks with poolings between them; the mean of the last block's maps is the logits.
#[derive(Module, Debug)]
pub struct Nin {
    blocks: Vec<NinBlock>,
    pools: Vec<Pool>,
    dropout: Dropout,
    avgpool: AdaptiveAvgPool2d,
    cifar: bool,
}

impl Nin {
    fn new(spec: &Spec, device: &Device) -> Self {
        let cifar = spec.name == "nin_cifar";
        let mut inputs = spec.channels;
        let blocks = if cifar { CIFAR } else { IMAGENET }.iter().map(|&(widths, kernel_size, stride, padding)| {
            let widths = widths.map(|width| if width == CLASSES { spec.classes } else { width });
            let block = NinBlockConfig::new(inputs, widths, kernel_size)
                .with_stride(stride)
                .with_padding(padding)
                // The Caffe models draw nearly all of their weights so.
                .with_init(Init::Normal(0.05))
                .init(device);
            inputs = widths[2];
            block
        });
        // Caffe's poolings let the last window hang over the edge. The second one for CIFAR is a mean.
        let pools = match cifar {
            true => vec![PoolConfig::max(3, 2), PoolConfig::avg(3, 2)],
            false => vec![PoolConfig::max(3, 2); 3],
        };
        Self {
            blocks: blocks.collect(),
            pools: pools.into_iter().map(|pool| pool.with_ceil_mode(true).init()).collect(),
            dropout: DropoutConfig::new(spec.options.dropout.unwrap_or(0.5)).init(),
            avgpool: AdaptiveAvgPool2d::new([1, 1]),
            cifar,
        }
    }
}

impl Classifier for Nin {
    /// The maps of the classes: `[batch, classes, height, width]`.
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        let last = self.pools.len() - 1;
        self.blocks.iter().enumerate().fold(images, |x, (i, block)| {
            let x = block.forward(x);
            match self.pools.get(i) {
                // For ImageNet in front of the last block alone, for CIFAR behind every pooling.
                Some(pool) if self.cifar || i == last => pool.forward(x).layer(&self.dropout),
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
        if self.cifar { Preprocessing::small(32) } else { Preprocessing::IMAGENET }
    }

    /// Caffe's names: `cccp`, cascaded cross-channel parametric pooling, are the 1×1 convolutions.
    fn names(&self) -> NameRules {
        (0..self.blocks.len()).fold(NameRules::default(), |rules, i| {
            rules
                .rule(format!(r"^blocks\.{i}\.conv\.conv"), format!("conv{}", i + 1))
                .rule(format!(r"^blocks\.{i}\.cccp1\.conv"), format!("cccp{}", 2 * i + 1))
                .rule(format!(r"^blocks\.{i}\.cccp2\.conv"), format!("cccp{}", 2 * i + 2))
                .rule(format!(r"^pools\.{i}\."), format!("pool{}.", i + 1))
        })
    }
}
