use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;

use crate::features::{FeatureMap, Segment};
use crate::{
    Activation, ConvUnit, ConvUnitConfig, DropPath, DropPathConfig, Init, NormConfig, SqueezeExcitation,
    SqueezeExcitationConfig,
};

/// Configures an [`InvertedResidual`] or a [`FusedMbConv`].
#[derive(Config, Debug)]
pub struct InvertedResidualConfig {
    /// Input and output channels.
    pub channels: [usize; 2],
    /// Channels in the middle; as many as the inputs: nothing is expanded.
    pub expanded: usize,
    /// Height and width of the kernel.
    #[config(default = 3)]
    pub kernel_size: usize,
    /// Stride of the convolution with that kernel.
    #[config(default = 1)]
    pub stride: usize,
    /// Squeeze-and-excitation of the middle channels, if any.
    pub squeeze: Option<SqueezeExcitationConfig>,
    /// Activation, but for the last convolution, which has none.
    #[config(default = "Activation::Relu6")]
    pub activation: Activation,
    /// Normalization.
    #[config(default = "NormConfig::BATCH")]
    pub norm: NormConfig,
    /// Drop path rate: the probability of dropping the residual branch.
    #[config(default = 0.0)]
    pub drop_path: f64,
    /// Weight initialization.
    #[config(default = "Init::KaimingNormalFanOut")]
    pub init: Init,
}

impl InvertedResidualConfig {
    /// Makes the block; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> InvertedResidual {
        let ([inputs, outputs], expanded) = (self.channels, self.expanded);
        let depthwise = self.conv([expanded; 2], self.kernel_size).strided(self.stride).with_groups(expanded);
        InvertedResidual {
            expand: (expanded != inputs).then(|| self.conv([inputs, expanded], 1).init(device)),
            depthwise: depthwise.init(device),
            se: self.squeeze.as_ref().map(|squeeze| squeeze.init(device)),
            project: self.conv([expanded, outputs], 1).linear().init(device),
            shortcut: self.shortcut(),
        }
    }

    /// Makes the fused form, without squeeze-and-excitation; its weights are initialized on first use.
    pub fn init_fused(&self, device: &Device) -> FusedMbConv {
        let ([inputs, outputs], expanded) = (self.channels, self.expanded);
        let conv = |channels| self.conv(channels, self.kernel_size).strided(self.stride);
        let (expand, project) = match expanded == inputs {
            true => (conv([inputs, outputs]), None),
            false => (conv([inputs, expanded]), Some(self.conv([expanded, outputs], 1).linear().init(device))),
        };
        FusedMbConv { expand: expand.init(device), project, shortcut: self.shortcut() }
    }

    fn conv(&self, [inputs, outputs]: [usize; 2], size: usize) -> ConvUnitConfig {
        let config = ConvUnitConfig::square(inputs, outputs, size).padded(size / 2).with_bias(false);
        config.with_norm(Some(self.norm)).with_activation(self.activation).with_init(self.init)
    }

    /// Where the shape stays.
    fn shortcut(&self) -> Option<DropPath> {
        let same = self.stride == 1 && self.channels[0] == self.channels[1];
        same.then(|| DropPathConfig::new(self.drop_path).init())
    }
}

/// The inverted residual with linear bottleneck of [MobileNetV2](https://arxiv.org/abs/1801.04381): a 1×1 convolution to
/// many channels, a depthwise convolution, a 1×1 convolution to few without activation, and a shortcut between the few
/// where the shape stays. With squeeze-and-excitation it is the MBConv of [MnasNet](https://arxiv.org/abs/1807.11626) and
/// [EfficientNet](https://arxiv.org/abs/1905.11946); without expansion, the depthwise-separable convolution of
/// [MobileNet](https://arxiv.org/abs/1704.04861).
#[derive(Module, Debug)]
pub struct InvertedResidual {
    expand: Option<ConvUnit>,
    depthwise: ConvUnit,
    se: Option<SqueezeExcitation>,
    project: ConvUnit,
    shortcut: Option<DropPath>,
}

impl InvertedResidual {
    /// `[batch, inputs, height, width]` to `[batch, outputs, ⌈height / stride⌉, ⌈width / stride⌉]`.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M {
        input.segment(self)
    }

    /// The place of a part, by its field's name, among those that the block has.
    pub fn place(&self, part: &str) -> usize {
        let parts = [("expand", self.expand.is_some()), ("depthwise", true), ("se", self.se.is_some())];
        parts.iter().take_while(|(name, _)| *name != part).filter(|(_, there)| *there).count()
    }
}

impl Segment for InvertedResidual {
    fn pass<M: FeatureMap>(&self, input: M) -> M {
        let [input, start] = input.fork();
        let x = match &self.expand {
            Some(expand) => expand.forward(input),
            None => input,
        };
        let x = self.depthwise.forward(x);
        let x = match &self.se {
            Some(se) => se.forward(x),
            None => x,
        };
        join(self.project.forward(x), &self.shortcut, start)
    }
}

/// The fused MBConv of [EfficientNetV2](https://arxiv.org/abs/2104.00298): the 1×1 expansion and the depthwise convolution
/// are one full convolution. Without expansion there is that one alone.
#[derive(Module, Debug)]
pub struct FusedMbConv {
    expand: ConvUnit,
    project: Option<ConvUnit>,
    shortcut: Option<DropPath>,
}

impl FusedMbConv {
    /// `[batch, inputs, height, width]` to `[batch, outputs, ⌈height / stride⌉, ⌈width / stride⌉]`.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M {
        input.segment(self)
    }
}

impl Segment for FusedMbConv {
    fn pass<M: FeatureMap>(&self, input: M) -> M {
        let [input, start] = input.fork();
        let x = self.expand.forward(input);
        let x = match &self.project {
            Some(project) => project.forward(x),
            None => x,
        };
        join(x, &self.shortcut, start)
    }
}

/// The sum with the input, where there is a shortcut.
fn join<M: FeatureMap>(branch: M, shortcut: &Option<DropPath>, input: M) -> M {
    match shortcut {
        Some(drop_path) => drop_path.forward(branch).add_shortcut(input),
        None => branch,
    }
}
