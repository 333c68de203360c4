//! Inception-v4: Szegedy, Ioffe, Vanhoucke, Alemi, *Inception-v4, Inception-ResNet and the Impact of Residual
//! Connections on Learning*, [arXiv:1602.07261](https://arxiv.org/abs/1602.07261), 2016; as timm has it.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;
use convzoo_blocks::{
    ConvUnit, ConvUnitConfig, FeatureMap, GlobalPooling, Inception, InceptionConfig, NormConfig, PooledHead,
    PooledHeadConfig,
};

use crate::names::{bn, index, rename};
use crate::registry::{Build, Opt, Sizes, Variant};
use crate::{Classifier, Interpolation, Options, Preprocessing};

pub(crate) const VARIANTS: &[Variant] = &[Variant {
    name: "inception_v4",
    family: "inception_v4",
    year: 2016,
    paper: "https://arxiv.org/abs/1602.07261",
    input: [3, 299, 299],
    classes: 1000,
    sizes: Sizes::From(75),
    takes: &[Opt::Dropout],
    weights: &[],
    build: Build::InceptionV4(InceptionV4Config::new),
}];

/// Configures an [`InceptionV4`].
#[derive(Config, Debug)]
pub struct InceptionV4Config {
    /// How many modules A, B and C.
    #[config(default = "[4, 7, 3]")]
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

/// A stem of three convolutions and three branching modules, four modules A, seven B, three C with reductions between
/// them, and one fully-connected layer.
#[derive(Module, Debug)]
pub struct InceptionV4 {
    stem: Vec<ConvUnit>,
    mixed: Vec<Inception>,
    head: PooledHead,
    #[module(skip)]
    depths: [usize; 3],
}

impl InceptionV4Config {
    pub(crate) fn with_options(self, options: &Options) -> Self {
        let dropout = options.dropout.unwrap_or(self.dropout);
        self.with_dropout(dropout)
    }

    /// Everything between the stem's convolutions and the head.
    fn modules(&self) -> Vec<InceptionConfig> {
        let [a, b, c] = self.depths;
        let mut modules =
            vec![InceptionConfig::v4_stem_a(64, 96), InceptionConfig::v4_stem_b(160), InceptionConfig::v4_stem_c(192)];
        modules.extend((0..a).map(|_| InceptionConfig::v4_a(384)));
        modules.push(InceptionConfig::reduction_a(384, [192, 224, 256, 384]));
        modules.extend((0..b).map(|_| InceptionConfig::v4_b(1024)));
        modules.push(InceptionConfig::v4_reduction_b(1024));
        modules.extend((0..c).map(|_| InceptionConfig::v4_c(1536)));
        modules
    }

    /// Makes the network; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> InceptionV4 {
        let norm = NormConfig::batch(1e-3);
        let conv = |inputs, outputs| ConvUnitConfig::square(inputs, outputs, 3).with_norm(Some(norm)).with_bias(false);
        InceptionV4 {
            stem: vec![
                conv(self.channels, 32).strided(2).init(device),
                conv(32, 32).init(device),
                conv(32, 64).padded(1).init(device),
            ],
            mixed: self.modules().iter().map(|module| module.init(device)).collect(),
            head: PooledHeadConfig::new(1536, self.classes)
                .with_global_pool(self.global_pool)
                .with_dropout(self.dropout)
                .init(device),
            depths: self.depths,
        }
    }
}

impl Classifier for InceptionV4 {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        let x = self.stem.iter().fold(images, |x, conv| conv.forward(x));
        self.mixed.iter().fold(x, |x, module| module.forward(x))
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
            resize: Some(341),
            interpolation: Interpolation::Bicubic,
            mean: [0.5; 3],
            std: [0.5; 3],
        }
    }

    /// timm's names, which number all in one sequence, `features`: a branch of one layer has no number of its own.
    fn reference_name(&self, path: &[&str]) -> String {
        match path {
            ["stem", number, rest @ ..] => rename(&["features", number], &bn(rest)),
            ["mixed", number, "branches", branch @ ..] => {
                let (layer, rest) = self.branch_layer(index(number), branch);
                rename(&["features", &(index(number) + self.stem.len()).to_string(), &layer], &bn(rest))
            }
            ["head", "pool", tensor] => rename(&["global_pool.pool"], tensor),
            ["head", "fc", tensor] => rename(&["last_linear"], tensor),
            _ => path.join("."),
        }
    }
}

impl InceptionV4 {
    /// timm's name of a layer within a module, and the rest of its path.
    fn branch_layer<'a, 'b>(&self, module: usize, path: &'b [&'a str]) -> (String, &'b [&'a str]) {
        let [a, b, _] = self.depths;
        let reduction_b = 3 + a + 1 + b;
        match path {
            ["0", "pool", rest @ ..] | ["1", "pool", rest @ ..] => ("maxpool".to_owned(), rest),
            ["1", "convs", _, rest @ ..] if module == 0 => ("conv".to_owned(), rest),
            ["0", "convs", _, rest @ ..] if module == 2 => ("conv".to_owned(), rest),
            ["0", "convs", conv, rest @ ..] if module == 1 || module == reduction_b => {
                (format!("branch0.{conv}"), rest)
            }
            ["0", "convs", _, rest @ ..] => ("branch0".to_owned(), rest),
            ["2", "pool", rest @ ..] => ("branch2".to_owned(), rest),
            ["3", "pool", rest @ ..] => ("branch3.0".to_owned(), rest),
            ["3", "convs", _, rest @ ..] => ("branch3.1".to_owned(), rest),
            ["1", "split", conv, rest @ ..] => (["branch1_1a", "branch1_1b"][index(conv)].to_owned(), rest),
            ["2", "split", conv, rest @ ..] => (["branch2_3a", "branch2_3b"][index(conv)].to_owned(), rest),
            [branch, _, conv, rest @ ..] if module > reduction_b => (format!("branch{branch}_{conv}"), rest),
            [branch, _, conv, rest @ ..] => (format!("branch{branch}.{conv}"), rest),
            rest => (String::new(), rest),
        }
    }
}
