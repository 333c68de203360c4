//! GoogLeNet: Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke, Rabinovich, *Going Deeper with
//! Convolutions*, [arXiv:1409.4842](https://arxiv.org/abs/1409.4842), 2014.
//!
//! By default torchvision's network, which has batch normalization, and 3×3 where the paper has 5×5. With
//! [`GoogLeNetConfig::batch_norm`] off it is the paper's: 5×5, local response normalization around the stem, dropout
//! 0.4.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;
use convzoo_blocks::{
    AuxiliaryHead, AuxiliaryHeadConfig, ConvUnit, ConvUnitConfig, FeatureMap, GlobalPooling, Inception,
    InceptionConfig, Init, LocalResponseNorm, NormConfig, Pool, PoolConfig, PooledHead, PooledHeadConfig,
};

use crate::names::{bn, index, letter, rename};
use crate::registry::{Build, Opt, Sizes, Variant};
use crate::{Classifier, Options, Outputs, Preprocessing, Published};

pub(crate) const VARIANTS: &[Variant] = &[Variant {
    name: "googlenet",
    family: "googlenet",
    year: 2014,
    paper: "https://arxiv.org/abs/1409.4842",
    input: [3, 224, 224],
    classes: 1000,
    sizes: Sizes::From(15),
    takes: &[Opt::Dropout, Opt::BatchNorm],
    weights: WEIGHTS,
    build: Build::GoogLeNet(GoogLeNetConfig::new),
}];

/// Published by torchvision, which has them from TensorFlow; they expect images in −1 … 1 (torchvision calls that
/// `transform_input`), as this network's `preprocessing` says.
const WEIGHTS: &[Published] =
    &[Published::new("googlenet", "imagenet1k_v1", "googlenet-1378be20.pth", 69.778, 89.53, 256).halves()];

// Table 1 of the paper: 1×1, 3×3 reduce, 3×3, 5×5 reduce, 5×5, pool projection.

/// Modules 3a and 3b.
const STAGE_3: &[[usize; 6]] = &[[64, 96, 128, 16, 32, 32], [128, 128, 192, 32, 96, 64]];

/// Modules 4a to 4e.
const STAGE_4: &[[usize; 6]] = &[
    [192, 96, 208, 16, 48, 64],
    [160, 112, 224, 24, 64, 64],
    [128, 128, 256, 24, 64, 64],
    [112, 144, 288, 32, 64, 64],
    [256, 160, 320, 32, 128, 128],
];

/// Modules 5a and 5b.
const STAGE_5: &[[usize; 6]] = &[[256, 160, 320, 32, 128, 128], [384, 192, 384, 48, 128, 128]];

/// Configures a [`GoogLeNet`].
#[derive(Config, Debug)]
pub struct GoogLeNetConfig {
    /// torchvision's network, with batch normalization, or the paper's.
    #[config(default = true)]
    pub batch_norm: bool,
    /// Number of classes; 0 leaves the linear layer out.
    #[config(default = 1000)]
    pub classes: usize,
    /// Channels of the images.
    #[config(default = 3)]
    pub channels: usize,
    /// Global pooling before the classifier.
    #[config(default = "GlobalPooling::Average")]
    pub global_pool: GlobalPooling,
    /// Dropout probability before the classifiers; without it 0.7 before the auxiliary ones, and 0.2
    /// (torchvision) or 0.4 (the paper) before the last.
    pub dropout: Option<f64>,
}

/// Three convolutions, nine Inception modules, one fully-connected layer, and two auxiliary classifiers for training.
#[derive(Module, Debug)]
pub struct GoogLeNet {
    conv1: ConvUnit,
    maxpool1: Pool,
    norm1: Option<LocalResponseNorm>,
    conv2: ConvUnit,
    conv3: ConvUnit,
    norm2: Option<LocalResponseNorm>,
    maxpool2: Pool,
    inception3: Vec<Inception>,
    maxpool3: Pool,
    inception4: Vec<Inception>,
    maxpool4: Pool,
    inception5: Vec<Inception>,
    aux1: AuxiliaryHead,
    aux2: AuxiliaryHead,
    head: PooledHead,
}

impl GoogLeNetConfig {
    pub(crate) fn with_options(self, options: &Options) -> Self {
        let batch_norm = options.batch_norm.unwrap_or(self.batch_norm);
        let dropout = options.dropout.or(self.dropout);
        self.with_batch_norm(batch_norm).with_dropout(dropout)
    }

    /// Makes the network; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> GoogLeNet {
        let batch_norm = self.batch_norm;
        let norm = batch_norm.then_some(NormConfig::batch(1e-3));
        // The paper does not give its initialization; its replications without batch norm need Xavier initialization.
        let init = if batch_norm { Init::NormalWeight(0.01) } else { Init::XavierUniform };
        let (large, dropout) = if batch_norm { (3, 0.2) } else { (5, 0.4) };

        let unit = |conv: ConvUnitConfig| conv.with_norm(norm).with_bias(!batch_norm).with_init(init).init(device);
        let conv = |inputs, outputs, size| ConvUnitConfig::square(inputs, outputs, size).padded(size / 2);
        let pool = |size| PoolConfig::max(size, 2).with_ceil_mode(true).init();
        let response_norm = || (!batch_norm).then(|| LocalResponseNorm::new(5, 1e-4, 0.75, 1.0));
        let mut channels = 192;
        let mut stage = |widths: &[[usize; 6]]| -> Vec<Inception> {
            let module = |widths: &[usize; 6]| {
                let config = InceptionConfig::v1(channels, *widths, large);
                channels = config.outputs();
                config.with_norm(norm).with_bias(!batch_norm).with_init(init).init(device)
            };
            widths.iter().map(module).collect()
        };
        let aux = |inputs| {
            let config = AuxiliaryHeadConfig::new(inputs, self.classes).with_norm(norm).with_bias(!batch_norm);
            config.with_dropout(self.dropout.unwrap_or(0.7)).with_init(init).init(device)
        };
        GoogLeNet {
            conv1: unit(conv(self.channels, 64, 7).strided(2)),
            maxpool1: pool(3),
            norm1: response_norm(),
            conv2: unit(conv(64, 64, 1)),
            conv3: unit(conv(64, 192, 3)),
            norm2: response_norm(),
            maxpool2: pool(3),
            inception3: stage(STAGE_3),
            maxpool3: pool(3),
            inception4: stage(STAGE_4),
            maxpool4: pool(if batch_norm { 2 } else { 3 }),
            inception5: stage(STAGE_5),
            aux1: aux(512),
            aux2: aux(528),
            head: PooledHeadConfig::new(channels, self.classes)
                .with_global_pool(self.global_pool)
                .with_dropout(self.dropout.unwrap_or(dropout))
                .with_init(init)
                .init(device),
        }
    }
}

impl GoogLeNet {
    /// The feature maps after modules 4a, 4d and 5b: where the auxiliary classifiers are attached, and the last.
    fn maps<M: FeatureMap>(&self, images: M) -> [M; 3] {
        let response_norm = |norm: &Option<LocalResponseNorm>, x: M| match norm {
            Some(norm) => norm.forward(x),
            None => x,
        };
        let stage = |modules: &[Inception], x: M| modules.iter().fold(x, |x, module| module.forward(x));

        let x = response_norm(&self.norm1, self.maxpool1.forward(self.conv1.forward(images)));
        let x = self.conv3.forward(self.conv2.forward(x));
        let x = self.maxpool2.forward(response_norm(&self.norm2, x));
        let x = self.maxpool3.forward(stage(&self.inception3, x));
        let after_4a = stage(&self.inception4[..1], x);
        let after_4d = stage(&self.inception4[1..4], after_4a.clone());
        let x = self.pool4(stage(&self.inception4[4..], after_4d.clone()));
        [after_4a, after_4d, stage(&self.inception5, x)]
    }

    /// Images under 31 pixels leave a feature map of side 1, which is not pooled.
    fn pool4<M: FeatureMap>(&self, map: M) -> M {
        match map.dims() {
            [_, _, 1, _] | [_, _, _, 1] => map,
            _ => self.maxpool4.forward(map),
        }
    }
}

impl Classifier for GoogLeNet {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        let [_, _, features] = self.maps(images);
        features
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.head.forward(features)
    }

    /// The paper adds the losses of both auxiliary classifiers with weight 0.3.
    fn forward_train<M: FeatureMap>(&self, images: M) -> Outputs<M::Vector> {
        let [after_4a, after_4d, features] = self.maps(images);
        let auxiliary = vec![self.aux1.forward(after_4a), self.aux2.forward(after_4d)];
        Outputs { logits: self.forward_head(features), auxiliary }
    }

    fn replace_head(self, classes: usize) -> Self {
        Self {
            aux1: self.aux1.replace_classes(classes),
            aux2: self.aux2.replace_classes(classes),
            head: self.head.replace_classes(classes),
            ..self
        }
    }

    /// torchvision's weights were ported from a network fed with -1…1, which its `transform_input` restores after
    /// ImageNet's normalization; here the images are normalized so at once.
    fn preprocessing(&self) -> Preprocessing {
        Preprocessing { mean: [0.5; 3], std: [0.5; 3], ..Preprocessing::IMAGENET }
    }

    fn reference_name(&self, path: &[&str]) -> String {
        match path {
            ["head", "pool", tensor] => rename(&["avgpool"], tensor),
            ["head", "fc", tensor] => rename(&["fc"], tensor),
            [aux, "classifier", "layers", layer, tensor] => rename(&[aux, ["fc1", "fc2"][index(layer)]], tensor),
            [stage, module, "branches", branch @ ..] => {
                let (layer, rest) = match branch {
                    ["0", "convs", _, rest @ ..] => ("branch1".to_owned(), rest),
                    ["3", "pool", rest @ ..] => ("branch4.0".to_owned(), rest),
                    ["3", "convs", _, rest @ ..] => ("branch4.1".to_owned(), rest),
                    [number, "convs", conv, rest @ ..] => (format!("branch{}.{conv}", index(number) + 1), rest),
                    _ => (branch.join("."), &[][..]),
                };
                rename(&[&format!("{stage}{}", letter(module)), &layer], &bn(rest))
            }
            _ => bn(path),
        }
    }

    /// torchvision's `aux_logits=False` leaves the auxiliary classifiers out.
    fn optional_layers(&self) -> &'static [&'static str] {
        &["aux1", "aux2"]
    }
}
