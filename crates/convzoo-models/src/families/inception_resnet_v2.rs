//! Inception-ResNet-v2: Szegedy, Ioffe, Vanhoucke, Alemi, *Inception-v4, Inception-ResNet and the Impact of Residual
//! Connections on Learning*, [arXiv:1602.07261](https://arxiv.org/abs/1602.07261), 2016; as timm has it, whose stem is
//! Inception v3's and whose modules are twice as many as the paper's.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;
use convzoo_blocks::{
    Activation, ConvUnit, ConvUnitConfig, FeatureMap, GlobalPooling, Inception, InceptionConfig, InceptionResidual,
    InceptionResidualConfig, NormConfig, Pool, PoolConfig, PooledHead, PooledHeadConfig,
};

use crate::names::{bn, rename};
use crate::registry::{Build, Opt, Sizes, Variant};
use crate::{Classifier, Interpolation, Options, Preprocessing};

pub(crate) const VARIANTS: &[Variant] = &[Variant {
    name: "inception_resnet_v2",
    family: "inception_resnet_v2",
    year: 2016,
    paper: "https://arxiv.org/abs/1602.07261",
    input: [3, 299, 299],
    classes: 1000,
    sizes: Sizes::From(75),
    takes: &[Opt::Dropout],
    weights: &[],
    build: Build::InceptionResNetV2(InceptionResNetV2Config::new),
}];

/// Configures an [`InceptionResNetV2`].
#[derive(Config, Debug)]
pub struct InceptionResNetV2Config {
    /// How many residual modules A, B and C.
    #[config(default = "[10, 20, 10]")]
    pub depths: [usize; 3],
    /// Number of classes; 0 leaves the linear layer out.
    #[config(default = 1000)]
    pub classes: usize,
    /// Channels of the images.
    #[config(default = 3)]
    pub channels: usize,
    /// Global pooling before the classifier.
    #[config(default = "GlobalPooling::Average")]
    pub global_pool: GlobalPooling,
    /// Dropout probability before the classifier.
    #[config(default = 0.0)]
    pub dropout: f64,
}

/// A stem as Inception v3's, ten residual modules A, twenty B, ten C with reductions between them, and one
/// fully-connected layer.
#[derive(Module, Debug)]
pub struct InceptionResNetV2 {
    conv1a: ConvUnit,
    conv2a: ConvUnit,
    conv2b: ConvUnit,
    maxpool3a: Pool,
    conv3b: ConvUnit,
    conv4a: ConvUnit,
    maxpool5a: Pool,
    mixed5b: Inception,
    block35: Vec<InceptionResidual>,
    mixed6a: Inception,
    block17: Vec<InceptionResidual>,
    mixed7a: Inception,
    block8: Vec<InceptionResidual>,
    last: InceptionResidual,
    conv7b: ConvUnit,
    head: PooledHead,
}

impl InceptionResNetV2Config {
    pub(crate) fn with_options(self, options: &Options) -> Self {
        let dropout = options.dropout.unwrap_or(self.dropout);
        self.with_dropout(dropout)
    }

    /// Makes the network; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> InceptionResNetV2 {
        let norm = NormConfig::batch(1e-3);
        let conv = |inputs, outputs, size| {
            ConvUnitConfig::square(inputs, outputs, size).with_norm(Some(norm)).with_bias(false)
        };
        let pool = || PoolConfig::max(3, 2).init();
        let repeat = |times: usize, block: InceptionResidualConfig| -> Vec<InceptionResidual> {
            (0..times).map(|_| block.init(device)).collect()
        };
        let [a, b, c] = self.depths;
        InceptionResNetV2 {
            conv1a: conv(self.channels, 32, 3).strided(2).init(device),
            conv2a: conv(32, 32, 3).init(device),
            conv2b: conv(32, 64, 3).padded(1).init(device),
            maxpool3a: pool(),
            conv3b: conv(64, 80, 1).init(device),
            conv4a: conv(80, 192, 3).init(device),
            maxpool5a: pool(),
            mixed5b: InceptionConfig::resnet_stem(192).init(device),
            block35: repeat(a, InceptionResidualConfig::a(320)),
            mixed6a: InceptionConfig::reduction_a(320, [256, 256, 384, 384]).init(device),
            block17: repeat(b, InceptionResidualConfig::b(1088)),
            mixed7a: InceptionConfig::resnet_reduction_b(1088).init(device),
            block8: repeat(c.saturating_sub(1), InceptionResidualConfig::c(2080)),
            // The last sum is not scaled, and no ReLU follows it.
            last: InceptionResidualConfig::c(2080).with_scale(1.0).with_activation(Activation::Identity).init(device),
            conv7b: conv(2080, 1536, 1).init(device),
            head: PooledHeadConfig::new(1536, self.classes)
                .with_global_pool(self.global_pool)
                .with_dropout(self.dropout)
                .init(device),
        }
    }
}

impl Classifier for InceptionResNetV2 {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        let repeat = |blocks: &[InceptionResidual], x: M| blocks.iter().fold(x, |x, block| block.forward(x));
        let x = self.conv2b.forward(self.conv2a.forward(self.conv1a.forward(images)));
        let x = self.conv4a.forward(self.conv3b.forward(self.maxpool3a.forward(x)));
        let x = repeat(&self.block35, self.mixed5b.forward(self.maxpool5a.forward(x)));
        let x = repeat(&self.block17, self.mixed6a.forward(x));
        let x = repeat(&self.block8, self.mixed7a.forward(x));
        self.conv7b.forward(self.last.forward(x))
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.head.forward(features)
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { head: self.head.replace_classes(classes), ..self }
    }

    fn preprocessing(&self) -> Preprocessing {
        Preprocessing {
            size: [299; 2],
            resize: Some(333),
            interpolation: Interpolation::Bicubic,
            mean: [0.5; 3],
            std: [0.5; 3],
        }
    }

    /// timm's names: a branch of one layer has no number of its own.
    fn reference_name(&self, path: &[&str]) -> String {
        match path {
            ["head", "pool", tensor] => rename(&["global_pool.pool"], tensor),
            ["head", "fc", tensor] => rename(&["classif"], tensor),
            ["last", rest @ ..] => rename(&["block8"], &residual_layer(rest)),
            ["block35", number, rest @ ..] => rename(&["repeat", number], &residual_layer(rest)),
            ["block17", number, rest @ ..] => rename(&["repeat_1", number], &residual_layer(rest)),
            ["block8", number, rest @ ..] => rename(&["repeat_2", number], &residual_layer(rest)),
            [module, "branches", branch @ ..] => {
                let (layer, rest) = match (*module, branch) {
                    ("mixed5b", ["3", "pool", rest @ ..]) => ("branch3.0".to_owned(), rest),
                    ("mixed5b", ["3", "convs", _, rest @ ..]) => ("branch3.1".to_owned(), rest),
                    (_, [number, "pool", rest @ ..]) => (format!("branch{number}"), rest),
                    ("mixed7a", ["0", _, conv, rest @ ..]) => (format!("branch0.{conv}"), rest),
                    (_, branch) => branch_layer(branch),
                };
                rename(&[&module.replace("mixed", "mixed_"), &layer], &bn(rest))
            }
            [layer, rest @ ..] => {
                let layer = layer.replace("conv", "conv2d_").replace("maxpool", "maxpool_");
                rename(&[&layer], &bn(rest))
            }
            [] => String::new(),
        }
    }
}

fn residual_layer(path: &[&str]) -> String {
    match path {
        ["mixed", "branches", branch @ ..] => {
            let (layer, rest) = branch_layer(branch);
            rename(&[&layer], &bn(rest))
        }
        ["project", "conv", tensor] => rename(&["conv2d"], tensor),
        _ => path.join("."),
    }
}

/// The first branch has one convolution, the others more.
fn branch_layer<'a, 'b>(path: &'b [&'a str]) -> (String, &'b [&'a str]) {
    match path {
        ["0", _, _, rest @ ..] => ("branch0".to_owned(), rest),
        [number, _, conv, rest @ ..] => (format!("branch{number}.{conv}"), rest),
        rest => (String::new(), rest),
    }
}
