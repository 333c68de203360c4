//! Inception v3: Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, *Rethinking the Inception Architecture for Computer Vision*,
//! [arXiv:1512.00567](https://arxiv.org/abs/1512.00567), 2015; as torchvision has it.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;
use convzoo_blocks::{
    AuxiliaryHeadV3, AuxiliaryHeadV3Config, ConvUnit, ConvUnitConfig, FeatureMap, GlobalPooling, Inception,
    InceptionConfig, Init, NormConfig, Pool, PoolConfig, PooledHead, PooledHeadConfig,
};

use crate::names::{bn, index, rename};
use crate::registry::{Build, Opt, Sizes, Variant};
use crate::{Classifier, Options, Outputs, Preprocessing, Published};

pub(crate) const VARIANTS: &[Variant] = &[Variant {
    name: "inception_v3",
    family: "inception_v3",
    year: 2015,
    paper: "https://arxiv.org/abs/1512.00567",
    input: [3, 299, 299],
    classes: 1000,
    sizes: Sizes::From(75),
    takes: &[Opt::Dropout],
    weights: WEIGHTS,
    build: Build::InceptionV3(InceptionV3Config::new),
}];

/// Published by torchvision, which has them from TensorFlow; they expect images in −1 … 1 (torchvision calls that
/// `transform_input`), as this network's `preprocessing` says.
const WEIGHTS: &[Published] =
    &[Published::new("inception_v3", "imagenet1k_v1", "inception_v3_google-0cc3c7bd.pth", 77.294, 93.45, 342)
        .cropped(299)
        .halves()];

const INIT: Init = Init::NormalWeight(0.1);

/// Configures an [`InceptionV3`].
#[derive(Config, Debug)]
pub struct InceptionV3Config {
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
    #[config(default = 0.5)]
    pub dropout: f64,
}

/// A stem of five convolutions, eleven Inception modules on three sizes of feature maps, one fully-connected layer, and
/// an auxiliary classifier for training.
#[derive(Module, Debug)]
pub struct InceptionV3 {
    conv1a: ConvUnit,
    conv2a: ConvUnit,
    conv2b: ConvUnit,
    maxpool1: Pool,
    conv3b: ConvUnit,
    conv4a: ConvUnit,
    maxpool2: Pool,
    mixed5: Vec<Inception>,
    mixed6: Vec<Inception>,
    aux: AuxiliaryHeadV3,
    mixed7: Vec<Inception>,
    head: PooledHead,
}

impl InceptionV3Config {
    pub(crate) fn with_options(self, options: &Options) -> Self {
        let dropout = options.dropout.unwrap_or(self.dropout);
        self.with_dropout(dropout)
    }

    /// Makes the network; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> InceptionV3 {
        let norm = NormConfig::batch(1e-3);
        let conv = |inputs, outputs, size| {
            ConvUnitConfig::square(inputs, outputs, size).with_norm(Some(norm)).with_bias(false).with_init(INIT)
        };
        let pool = || PoolConfig::max(3, 2).init();
        let stage = |modules: Vec<InceptionConfig>| -> Vec<Inception> {
            modules.into_iter().map(|module| module.with_init(INIT).init(device)).collect()
        };
        InceptionV3 {
            conv1a: conv(self.channels, 32, 3).strided(2).init(device),
            conv2a: conv(32, 32, 3).init(device),
            conv2b: conv(32, 64, 3).padded(1).init(device),
            maxpool1: pool(),
            conv3b: conv(64, 80, 1).init(device),
            conv4a: conv(80, 192, 3).init(device),
            maxpool2: pool(),
            mixed5: stage(vec![
                InceptionConfig::v3_a(192, 32),
                InceptionConfig::v3_a(256, 64),
                InceptionConfig::v3_a(288, 64),
            ]),
            mixed6: stage(vec![
                InceptionConfig::v3_b(288),
                InceptionConfig::v3_c(768, 128),
                InceptionConfig::v3_c(768, 160),
                InceptionConfig::v3_c(768, 160),
                InceptionConfig::v3_c(768, 192),
            ]),
            aux: AuxiliaryHeadV3Config::new(768, self.classes).init(device),
            mixed7: stage(vec![InceptionConfig::v3_d(768), InceptionConfig::v3_e(1280), InceptionConfig::v3_e(2048)]),
            head: PooledHeadConfig::new(2048, self.classes)
                .with_global_pool(self.global_pool)
                .with_dropout(self.dropout)
                .with_init(INIT)
                .init(device),
        }
    }
}

impl InceptionV3 {
    /// The feature maps after modules 6e and 7c: where the auxiliary classifier is attached, and the last.
    fn maps<M: FeatureMap>(&self, images: M) -> [M; 2] {
        let stage = |modules: &[Inception], x: M| modules.iter().fold(x, |x, module| module.forward(x));
        let x = self.conv2b.forward(self.conv2a.forward(self.conv1a.forward(images)));
        let x = self.conv4a.forward(self.conv3b.forward(self.maxpool1.forward(x)));
        let x = stage(&self.mixed5, self.maxpool2.forward(x));
        let after_6e = stage(&self.mixed6, x);
        [after_6e.clone(), stage(&self.mixed7, after_6e)]
    }
}

impl Classifier for InceptionV3 {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        let [_, features] = self.maps(images);
        features
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.head.forward(features)
    }

    /// With images of a side under 299 the auxiliary classifier's feature map is too small: they train without it.
    fn forward_train<M: FeatureMap>(&self, images: M) -> Outputs<M::Vector> {
        let [after_6e, features] = self.maps(images);
        let [_, _, height, width] = after_6e.dims();
        let fits = height.min(width) >= AuxiliaryHeadV3::SMALLEST;
        let auxiliary = fits.then(|| self.aux.forward(after_6e));
        Outputs { logits: self.forward_head(features), auxiliary: auxiliary.into_iter().collect() }
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { aux: self.aux.replace_classes(classes), head: self.head.replace_classes(classes), ..self }
    }

    /// torchvision's weights were ported from a network fed with -1…1, which its `transform_input` restores after
    /// ImageNet's normalization; here the images are normalized so at once.
    fn preprocessing(&self) -> Preprocessing {
        let (mean, std) = ([0.5; 3], [0.5; 3]);
        Preprocessing { size: [299; 2], resize: Some(342), mean, std, ..Preprocessing::IMAGENET }
    }

    fn reference_name(&self, path: &[&str]) -> String {
        match path {
            ["conv1a", rest @ ..] => rename(&["Conv2d_1a_3x3"], &bn(rest)),
            ["conv2a", rest @ ..] => rename(&["Conv2d_2a_3x3"], &bn(rest)),
            ["conv2b", rest @ ..] => rename(&["Conv2d_2b_3x3"], &bn(rest)),
            ["conv3b", rest @ ..] => rename(&["Conv2d_3b_1x1"], &bn(rest)),
            ["conv4a", rest @ ..] => rename(&["Conv2d_4a_3x3"], &bn(rest)),
            ["aux", rest @ ..] => rename(&["AuxLogits"], &bn(rest)),
            ["head", "pool", tensor] => rename(&["avgpool"], tensor),
            ["head", "fc", tensor] => rename(&["fc"], tensor),
            [stage, module, "branches", branch @ ..] => {
                let first = if *stage == "mixed5" { "bcd" } else { "abcde" };
                let module = format!("{}{}", &stage[5..], &first[index(module)..=index(module)]);
                let (layer, rest) = branch_layer(&module, branch);
                rename(&[&format!("Mixed_{module}"), &layer], &bn(rest))
            }
            _ => path.join("."),
        }
    }

    /// timm's files have no auxiliary classifier.
    fn optional_layers(&self) -> &'static [&'static str] {
        &["AuxLogits"]
    }
}

/// torchvision's name of a layer within a module, `5b` to `7c`, and the rest of its path.
fn branch_layer<'a, 'b>(module: &str, path: &'b [&'a str]) -> (String, &'b [&'a str]) {
    // Convolutions of a branch are counted from 1.
    let count = |path: &str, conv: &str| format!("{path}_{}", index(conv) + 1);
    match (module, path) {
        (_, [_, "pool", rest @ ..]) => ("pool".to_owned(), rest),
        (_, ["3", "convs", _, rest @ ..]) => ("branch_pool".to_owned(), rest),
        (_, ["1", "split", conv, rest @ ..]) => (["branch3x3_2a", "branch3x3_2b"][index(conv)].to_owned(), rest),
        (_, ["2", "split", conv, rest @ ..]) => (["branch3x3dbl_3a", "branch3x3dbl_3b"][index(conv)].to_owned(), rest),
        ("6a", ["0", _, _, rest @ ..]) => ("branch3x3".to_owned(), rest),
        ("6a", ["1", _, conv, rest @ ..]) => (count("branch3x3dbl", conv), rest),
        ("7a", ["0", _, conv, rest @ ..]) => (count("branch3x3", conv), rest),
        ("7a", ["1", _, conv, rest @ ..]) => (count("branch7x7x3", conv), rest),
        (_, ["0", _, _, rest @ ..]) => ("branch1x1".to_owned(), rest),
        (module, [branch, _, conv, rest @ ..]) => {
            let [single, double] = match &module[..1] {
                "5" => ["branch5x5", "branch3x3dbl"],
                "6" => ["branch7x7", "branch7x7dbl"],
                _ => ["branch3x3", "branch3x3dbl"],
            };
            (count(if *branch == "1" { single } else { double }, conv), rest)
        }
        (_, rest) => (String::new(), rest),
    }
}
