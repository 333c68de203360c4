use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;

use crate::features::FeatureMap;
use crate::{
    AdaptiveAvgPool2d, ClassifierHead, ClassifierHeadConfig, ConvUnit, ConvUnitConfig, Init, Linear, LinearConfig,
    NormConfig, Pool, PoolConfig,
};

/// Configures an [`AuxiliaryHead`].
#[derive(Config, Debug)]
pub struct AuxiliaryHeadConfig {
    /// Channels of the feature map that it takes.
    pub inputs: usize,
    /// Number of classes.
    pub classes: usize,
    /// Normalization of the convolution, if any.
    pub norm: Option<NormConfig>,
    /// Whether the convolution adds a bias.
    #[config(default = true)]
    pub bias: bool,
    /// Dropout probability of the hidden layer.
    #[config(default = 0.7)]
    pub dropout: f64,
    /// Weight initialization.
    #[config(default = "Init::Torch")]
    pub init: Init,
}

/// GoogLeNet's auxiliary classifier: a second loss halfway through the network, so that gradients reach its lower half
/// ([Szegedy et al., 2014](https://arxiv.org/abs/1409.4842), Section 5).
///
/// The feature map is pooled to 4×4, whatever its size; the paper's 5×5 pooling of stride 3 gives 4×4, too, on 14×14.
#[derive(Module, Debug)]
pub struct AuxiliaryHead {
    avgpool: AdaptiveAvgPool2d,
    conv: ConvUnit,
    classifier: ClassifierHead,
}

impl AuxiliaryHeadConfig {
    /// Makes the head; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> AuxiliaryHead {
        AuxiliaryHead {
            avgpool: AdaptiveAvgPool2d::new([4, 4]),
            conv: ConvUnitConfig::square(self.inputs, 128, 1)
                .with_norm(self.norm)
                .with_bias(self.bias)
                .with_init(self.init)
                .init(device),
            classifier: ClassifierHeadConfig::new(vec![128 * 4 * 4, 1024, self.classes])
                .with_dropout(self.dropout)
                .with_dropout_first(false)
                .with_init(self.init)
                .init(device),
        }
    }
}

impl AuxiliaryHead {
    /// `[batch, inputs, height, width]` to logits `[batch, classes]`.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M::Vector {
        let features = self.conv.forward(self.avgpool.forward(input));
        self.classifier.forward(features.flatten())
    }

    /// Replaces the last layer with a newly initialized one of `classes` outputs.
    pub fn replace_classes(self, classes: usize) -> Self {
        Self { classifier: self.classifier.replace_classes(classes), ..self }
    }
}

/// Configures an [`AuxiliaryHeadV3`].
#[derive(Config, Debug)]
pub struct AuxiliaryHeadV3Config {
    /// Channels of the feature map that it takes.
    pub inputs: usize,
    /// Number of classes.
    pub classes: usize,
}

/// Inception v3's auxiliary classifier, batch-normalized: a regularizer rather than a help to gradients
/// ([Szegedy et al., 2015](https://arxiv.org/abs/1512.00567), Section 4).
#[derive(Module, Debug)]
pub struct AuxiliaryHeadV3 {
    pool: Pool,
    conv0: ConvUnit,
    conv1: ConvUnit,
    avgpool: AdaptiveAvgPool2d,
    fc: Linear,
}

/// Standard deviation of the last layer's initial weights.
const FC_INIT: Init = Init::NormalWeight(0.001);

impl AuxiliaryHeadV3Config {
    /// Makes the head; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> AuxiliaryHeadV3 {
        let conv = |inputs, outputs, size, std| {
            ConvUnitConfig::square(inputs, outputs, size)
                .with_norm(Some(NormConfig::batch(1e-3)))
                .with_bias(false)
                .with_init(Init::NormalWeight(std))
                .init(device)
        };
        AuxiliaryHeadV3 {
            pool: PoolConfig::avg(5, 3).init(),
            conv0: conv(self.inputs, 128, 1, 0.1),
            conv1: conv(128, 768, 5, 0.01),
            avgpool: AdaptiveAvgPool2d::new([1, 1]),
            fc: LinearConfig::new(768, self.classes).with_init(FC_INIT).init(device),
        }
    }
}

impl AuxiliaryHeadV3 {
    /// Height and width of the smallest feature map that it takes.
    pub const SMALLEST: usize = 17;

    /// `[batch, inputs, height, width]` to logits `[batch, classes]`.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M::Vector {
        let features = self.conv1.forward(self.conv0.forward(self.pool.forward(input)));
        self.fc.forward(self.avgpool.forward(features).flatten())
    }

    /// Replaces the last layer with a newly initialized one of `classes` outputs.
    pub fn replace_classes(self, classes: usize) -> Self {
        Self { fc: self.fc.replace_outputs(classes), ..self }
    }
}
