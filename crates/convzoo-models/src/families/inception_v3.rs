//! Inception v3: Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, *Rethinking the Inception Architecture for Computer Vision*,
//! [arXiv:1512.00567](https://arxiv.org/abs/1512.00567), 2015; as torchvision has it.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::Device;
use convzoo_blocks::{AdaptiveAvgPool2d, AuxiliaryHeadV3, AuxiliaryHeadV3Config, ConvUnit, ConvUnitConfig, FeatureMap, Features, Inception, InceptionConfig, Init, Linear, LinearConfig, NormConfig, Pool, PoolConfig};

use crate::registry::{Opt, Sizes, Spec, Variant};
use crate::{Classifier, NameRules, Outputs, Preprocessing, Published};

/// Published by torchvision, which has them from TensorFlow; they expect images in −1 … 1 (torchvision calls that
/// `transform_input`), as this network's `preprocessing` says.
const WEIGHTS: &[Published] =
    &[Published::new("inception_v3", "imagenet1k_v1", "inception_v3_google-0cc3c7bd.pth", 77.294, 93.45, 342)];

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
    build: |spec, device| InceptionV3::new(spec, device).into(),
}];

const INIT: Init = Init::NormalWeight(0.1);

const NAMES: &[(&str, &str)] = &[
    (r"^conv1a", "Conv2d_1a_3x3"),
    (r"^conv2a", "Conv2d_2a_3x3"),
    (r"^conv2b", "Conv2d_2b_3x3"),
    (r"^conv3b", "Conv2d_3b_1x1"),
    (r"^conv4a", "Conv2d_4a_3x3"),
    (r"^mixed5\.0", "Mixed_5b"),
    (r"^mixed5\.1", "Mixed_5c"),
    (r"^mixed5\.2", "Mixed_5d"),
    (r"^mixed([67])\.0", "Mixed_${1}a"),
    (r"^mixed([67])\.1", "Mixed_${1}b"),
    (r"^mixed([67])\.2", "Mixed_${1}c"),
    (r"^mixed6\.3", "Mixed_6d"),
    (r"^mixed6\.4", "Mixed_6e"),
    (r"^aux", "AuxLogits"),
    (r"\.branches\.\d\.pool", ".pool"),
    // A path's name, to be followed by the number of its convolution.
    (r"^(Mixed_5.)\.branches\.1\.convs", "$1.branch5x5_"),
    (r"^(Mixed_5.)\.branches\.2\.convs", "$1.branch3x3dbl_"),
    (r"^(Mixed_6a)\.branches\.0\.convs\.0", "$1.branch3x3"),
    (r"^(Mixed_6a)\.branches\.1\.convs", "$1.branch3x3dbl_"),
    (r"^(Mixed_6.)\.branches\.1\.convs", "$1.branch7x7_"),
    (r"^(Mixed_6.)\.branches\.2\.convs", "$1.branch7x7dbl_"),
    (r"^(Mixed_7a)\.branches\.0\.convs", "$1.branch3x3_"),
    (r"^(Mixed_7a)\.branches\.1\.convs", "$1.branch7x7x3_"),
    (r"^(Mixed_7.)\.branches\.1\.convs", "$1.branch3x3_"),
    (r"^(Mixed_7.)\.branches\.2\.convs", "$1.branch3x3dbl_"),
    (r"\.branches\.0\.convs\.0", ".branch1x1"),
    (r"\.branches\.3\.convs\.0", ".branch_pool"),
    (r"\.branches\.1\.split\.0", ".branch3x3_2a"),
    (r"\.branches\.1\.split\.1", ".branch3x3_2b"),
    (r"\.branches\.2\.split\.0", ".branch3x3dbl_3a"),
    (r"\.branches\.2\.split\.1", ".branch3x3dbl_3b"),
    (r"_\.0\.", "_1."),
    (r"_\.1\.", "_2."),
    (r"_\.2\.", "_3."),
    (r"_\.3\.", "_4."),
    (r"_\.4\.", "_5."),
    (r"\.norm\b", ".bn"),
];

/// A stem of five convolutions, eleven Inception modules on three sizes of maps, one fully-connected layer, and an
/// auxiliary classifier for training.
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
    avgpool: AdaptiveAvgPool2d,
    dropout: Dropout,
    fc: Linear,
}

impl InceptionV3 {
    fn new(spec: &Spec, device: &Device) -> Self {
        let norm = NormConfig::Batch { epsilon: 1e-3 };
        let conv = |inputs, outputs, size| {
            ConvUnitConfig::square(inputs, outputs, size).with_norm(Some(norm)).with_bias(false).with_init(INIT)
        };
        let pool = || PoolConfig::max(3, 2).init();
        let stage = |modules: Vec<InceptionConfig>| -> Vec<Inception> {
            modules.into_iter().map(|module| module.with_init(INIT).init(device)).collect()
        };
        Self {
            conv1a: conv(spec.channels, 32, 3).strided(2).init(device),
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
            aux: AuxiliaryHeadV3Config::new(768, spec.classes).init(device),
            mixed7: stage(vec![InceptionConfig::v3_d(768), InceptionConfig::v3_e(1280), InceptionConfig::v3_e(2048)]),
            avgpool: AdaptiveAvgPool2d::new([1, 1]),
            dropout: DropoutConfig::new(spec.options.dropout.unwrap_or(0.5)).init(),
            fc: LinearConfig::new(2048, spec.classes).with_init(INIT).init(device),
        }
    }

    /// The maps behind modules 6e and 7c: where the auxiliary classifier stands, and the last.
    fn maps<M: FeatureMap>(&self, images: M) -> [M; 2] {
        let stage = |modules: &[Inception], x: M| modules.iter().fold(x, |x, module| module.forward(x));
        let x = self.conv2b.forward(self.conv2a.forward(self.conv1a.forward(images)));
        let x = self.conv4a.forward(self.conv3b.forward(self.maxpool1.forward(x)));
        let x = stage(&self.mixed5, self.maxpool2.forward(x));
        let behind_6e = stage(&self.mixed6, x);
        [behind_6e.clone(), stage(&self.mixed7, behind_6e)]
    }
}

impl Classifier for InceptionV3 {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        let [_, features] = self.maps(images);
        features
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        let features = self.avgpool.forward(features).flatten();
        self.fc.forward(features.layer(&self.dropout))
    }

    /// The auxiliary classifier's map is too small where a side of the images is under 299: they train without it.
    fn forward_train<M: FeatureMap>(&self, images: M) -> Outputs<M::Vector> {
        let [behind_6e, features] = self.maps(images);
        let [_, _, height, width] = behind_6e.dims();
        let fits = height.min(width) >= AuxiliaryHeadV3::SMALLEST;
        let auxiliary = fits.then(|| self.aux.forward(behind_6e));
        Outputs { logits: self.forward_head(features), auxiliary: auxiliary.into_iter().collect() }
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { aux: self.aux.replace_classes(classes), fc: self.fc.replace_outputs(classes), ..self }
    }

    /// torchvision's weights were ported from a network fed with -1…1, which its `transform_input` restores behind
    /// ImageNet's normalisation; here the images are normalised so at once.
    fn preprocessing(&self) -> Preprocessing {
        let (mean, std) = ([0.5; 3], [0.5; 3]);
        Preprocessing { size: [299; 2], resize: Some(342), mean, std, ..Preprocessing::IMAGENET }
    }

    /// timm's files have no auxiliary classifier.
    fn names(&self) -> NameRules {
        NameRules::table(NAMES).optional("AuxLogits")
    }
}
