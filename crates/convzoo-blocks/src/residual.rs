use burn::config::Config;
use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Initializer};
use burn::tensor::ops::{AvgPoolOptions, PadMode};
use burn::tensor::{Device, Tensor};
use convzoo_graph::Operation;
use convzoo_kernels::extension::average_pool2d;

use crate::features::{FeatureMap, Layer, Segment};
use crate::{ConvUnit, ConvUnitConfig, DropPath, DropPathConfig, Init, Norm, NormConfig, PreActUnit};

/// How a shortcut changes the shape with its block, by the letters of
/// [He et al., 2015](https://arxiv.org/abs/1512.03385).
#[derive(Config, Debug, Copy, PartialEq, Eq)]
pub enum ShortcutKind {
    /// Option A: every `stride`-th pixel, padded with zero channels. No weights.
    ZeroPad,
    /// Option B: a strided 1×1 convolution.
    Projection,
}

/// Configures a [`Shortcut`].
#[derive(Config, Debug)]
pub struct ShortcutConfig {
    /// Option A or B.
    pub kind: ShortcutKind,
    /// Input and output channels.
    pub channels: [usize; 2],
    /// Stride.
    pub stride: usize,
    /// Normalization after a projection, if any.
    pub norm: Option<NormConfig>,
    /// Weight initialization of a projection.
    #[config(default = "Init::KaimingNormalFanOut")]
    pub init: Init,
}

impl ShortcutConfig {
    /// Makes the shortcut.
    pub fn init(&self, device: &Device) -> Shortcut {
        let [inputs, outputs] = self.channels;
        match self.kind {
            ShortcutKind::ZeroPad => {
                assert!(inputs <= outputs, "padding cannot turn {inputs} channels into {outputs}");
                Shortcut::ZeroPad(ZeroPad { channels: self.channels, stride: self.stride })
            }
            ShortcutKind::Projection => {
                let conv = ConvUnitConfig::square(inputs, outputs, 1).strided(self.stride).with_bias(false).linear();
                Shortcut::Projection(conv.with_norm(self.norm).with_init(self.init).init(device))
            }
        }
    }

    /// Makes the shortcut where the shape changes; elsewhere it is the identity.
    fn init_if_needed(&self, device: &Device) -> Option<Shortcut> {
        let [inputs, outputs] = self.channels;
        (self.stride != 1 || inputs != outputs).then(|| self.init(device))
    }
}

/// The shortcut of a block that changes the shape.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // most that exist are projections
pub enum Shortcut {
    /// Option A.
    ZeroPad(ZeroPad),
    /// Option B.
    Projection(ConvUnit),
}

impl Shortcut {
    /// `[batch, inputs, height, width]` to `[batch, outputs, ⌈height / stride⌉, ⌈width / stride⌉]`.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M {
        match self {
            Self::ZeroPad(pad) => pad.forward(input),
            Self::Projection(conv) => conv.forward(input),
        }
    }
}

/// The shortcut without weights, option A.
#[derive(Module, Debug)]
pub struct ZeroPad {
    channels: [usize; 2],
    stride: usize,
}

impl ZeroPad {
    /// `[batch, inputs, height, width]` to `[batch, outputs, ⌈height / stride⌉, ⌈width / stride⌉]`.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M {
        input.layer(self)
    }

    /// Zero channels before and after the input's.
    fn zeros(&self) -> [usize; 2] {
        let [inputs, outputs] = self.channels;
        let before = (outputs - inputs) / 2;
        [before, outputs - inputs - before]
    }
}

impl Layer<4> for ZeroPad {
    fn operation(&self) -> Operation {
        Operation::PadShortcut { stride: self.stride, zeros: self.zeros() }
    }

    fn compute(&self, input: Tensor<4>) -> Tensor<4> {
        let [before, after] = self.zeros();
        // Not a slice with a step: Burn's on libtorch refuses gradients that are views.
        let strided = average_pool2d(input, AvgPoolOptions::new([1; 2]).with_stride([self.stride; 2]));
        strided.pad([(before, after), (0, 0), (0, 0)], PadMode::Constant(0.0))
    }
}

/// Configures a [`BasicBlock`], a [`PreActBasicBlock`] or a [`PlainBlock`].
#[derive(Config, Debug)]
pub struct BasicBlockConfig {
    /// Input and output channels.
    pub channels: [usize; 2],
    /// Stride of the first convolution and the shortcut.
    #[config(default = 1)]
    pub stride: usize,
    /// The shortcut where the shape changes.
    #[config(default = "ShortcutKind::Projection")]
    pub shortcut: ShortcutKind,
    /// Whether a pre-activation block activates before its identity shortcut, too, as the first of a network
    /// does. Shortcuts that change the shape always start there.
    #[config(default = false)]
    pub shared_activation: bool,
    /// Dropout probability between the convolutions, as in wide ResNets.
    #[config(default = 0.0)]
    pub dropout: f64,
    /// Drop path rate: the probability of dropping the residual branch.
    #[config(default = 0.0)]
    pub drop_path: f64,
    /// Whether the last norm's γ is initialized to 0, so that the block starts as the identity
    /// ([Goyal et al., 2017](https://arxiv.org/abs/1706.02677)).
    #[config(default = false)]
    pub zero_init: bool,
    /// Weight initialization.
    #[config(default = "Init::KaimingNormalFanOut")]
    pub init: Init,
}

impl BasicBlockConfig {
    /// The block of 2015, activated after the sum.
    pub fn init(&self, device: &Device) -> BasicBlock {
        let [conv1, conv2] = self.convs();
        BasicBlock {
            conv1: conv1.init(device),
            conv2: last(conv2.linear().init(device), self.zero_init),
            shortcut: self.shortcut(Some(NormConfig::BATCH), device),
            dropout: DropoutConfig::new(self.dropout).init(),
            drop_path: DropPathConfig::new(self.drop_path).init(),
        }
    }

    /// The block of 2016, activated before each convolution.
    pub fn init_preact(&self, device: &Device) -> PreActBasicBlock {
        let [conv1, conv2] = self.convs();
        let shortcut = self.shortcut(None, device);
        PreActBasicBlock {
            conv1: conv1.init_preact(device),
            conv2: conv2.init_preact(device),
            shared_activation: self.shared_activation || shortcut.is_some(),
            shortcut,
            dropout: DropoutConfig::new(self.dropout).init(),
            drop_path: DropPathConfig::new(self.drop_path).init(),
        }
    }

    /// The same layers without a shortcut.
    pub fn init_plain(&self, device: &Device) -> PlainBlock {
        let [conv1, conv2] = self.convs();
        PlainBlock { conv1: conv1.init(device), conv2: conv2.init(device) }
    }

    fn convs(&self) -> [ConvUnitConfig; 2] {
        let [inputs, outputs] = self.channels;
        let conv = |inputs| same_size(inputs, outputs, 3, self.init);
        [conv(inputs).strided(self.stride), conv(outputs)]
    }

    fn shortcut(&self, norm: Option<NormConfig>, device: &Device) -> Option<Shortcut> {
        let config = ShortcutConfig::new(self.shortcut, self.channels, self.stride);
        config.with_norm(norm).with_init(self.init).init_if_needed(device)
    }
}

/// Configures a [`Bottleneck`] or a [`PreActBottleneck`].
#[derive(Config, Debug)]
pub struct BottleneckConfig {
    /// Input and output channels.
    pub channels: [usize; 2],
    /// Channels of the 3×3 convolution.
    pub width: usize,
    /// Groups of the 3×3 convolution: the cardinality of [ResNeXt](https://arxiv.org/abs/1611.05431).
    #[config(default = 1)]
    pub groups: usize,
    /// Stride of the block.
    #[config(default = 1)]
    pub stride: usize,
    /// Whether the first 1×1 convolution strides, as in the papers on ResNets, and not the 3×3, as everywhere since.
    #[config(default = false)]
    pub stride_first: bool,
    /// The shortcut where the shape changes.
    #[config(default = "ShortcutKind::Projection")]
    pub shortcut: ShortcutKind,
    /// Drop path rate: the probability of dropping the residual branch.
    #[config(default = 0.0)]
    pub drop_path: f64,
    /// Whether the last norm's γ is initialized to 0, so that the block starts as the identity
    /// ([Goyal et al., 2017](https://arxiv.org/abs/1706.02677)).
    #[config(default = false)]
    pub zero_init: bool,
    /// Weight initialization.
    #[config(default = "Init::KaimingNormalFanOut")]
    pub init: Init,
}

impl BottleneckConfig {
    /// The block of 2015, activated after the sum.
    pub fn init(&self, device: &Device) -> Bottleneck {
        let [conv1, conv2, conv3] = self.convs();
        Bottleneck {
            conv1: conv1.init(device),
            conv2: conv2.init(device),
            conv3: last(conv3.linear().init(device), self.zero_init),
            shortcut: self.shortcut(Some(NormConfig::BATCH), device),
            drop_path: DropPathConfig::new(self.drop_path).init(),
        }
    }

    /// The block of 2016, activated before each convolution.
    pub fn init_preact(&self, device: &Device) -> PreActBottleneck {
        let [conv1, conv2, conv3] = self.convs();
        PreActBottleneck {
            conv1: conv1.init_preact(device),
            conv2: conv2.init_preact(device),
            conv3: conv3.init_preact(device),
            shortcut: self.shortcut(None, device),
            drop_path: DropPathConfig::new(self.drop_path).init(),
        }
    }

    fn convs(&self) -> [ConvUnitConfig; 3] {
        let [inputs, outputs] = self.channels;
        let [stride1, stride2] = if self.stride_first { [self.stride, 1] } else { [1, self.stride] };
        [
            same_size(inputs, self.width, 1, self.init).strided(stride1),
            same_size(self.width, self.width, 3, self.init).strided(stride2).with_groups(self.groups),
            same_size(self.width, outputs, 1, self.init),
        ]
    }

    fn shortcut(&self, norm: Option<NormConfig>, device: &Device) -> Option<Shortcut> {
        let config = ShortcutConfig::new(self.shortcut, self.channels, self.stride);
        config.with_norm(norm).with_init(self.init).init_if_needed(device)
    }
}

/// A block's last unit, whose γ may be initialized to 0.
fn last(mut unit: ConvUnit, zero_init: bool) -> ConvUnit {
    if let (Some(Norm::Batch(norm)), true) = (&mut unit.norm, zero_init) {
        norm.weight = Initializer::Zeros.init(norm.weight.lazy_shape(), &norm.weight.lazy_device());
    }
    unit
}

/// A batch-normalized convolution with "same" padding.
fn same_size(inputs: usize, outputs: usize, size: usize, init: Init) -> ConvUnitConfig {
    ConvUnitConfig::square(inputs, outputs, size).padded(size / 2).with_batch_norm().with_init(init)
}

/// Two 3×3 convolutions and a shortcut around them ([He et al., 2015](https://arxiv.org/abs/1512.03385)).
#[derive(Module, Debug)]
pub struct BasicBlock {
    conv1: ConvUnit,
    conv2: ConvUnit,
    shortcut: Option<Shortcut>,
    dropout: Dropout,
    drop_path: DropPath,
}

impl BasicBlock {
    /// `[batch, inputs, height, width]` to `[batch, outputs, ⌈height / stride⌉, ⌈width / stride⌉]`.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M {
        input.segment(self)
    }
}

impl Segment for BasicBlock {
    fn pass<M: FeatureMap>(&self, input: M) -> M {
        let [input, start] = input.fork();
        let x = self.conv1.forward(input).dropout(&self.dropout);
        let residual = self.drop_path.forward(self.conv2.forward(x));
        residual.add_relu(follow(&self.shortcut, start))
    }
}

/// Two 3×3 convolutions without a shortcut: what [He et al., 2015](https://arxiv.org/abs/1512.03385) compare the
/// basic block with.
#[derive(Module, Debug)]
pub struct PlainBlock {
    conv1: ConvUnit,
    conv2: ConvUnit,
}

impl PlainBlock {
    /// `[batch, inputs, height, width]` to `[batch, outputs, ⌈height / stride⌉, ⌈width / stride⌉]`.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M {
        input.segment(self)
    }
}

impl Segment for PlainBlock {
    fn pass<M: FeatureMap>(&self, input: M) -> M {
        self.conv2.forward(self.conv1.forward(input))
    }
}

/// A 1×1 convolution to few channels, a 3×3 among them, a 1×1 to many, and a shortcut around all
/// ([He et al., 2015](https://arxiv.org/abs/1512.03385)); with groups, the block of
/// [ResNeXt](https://arxiv.org/abs/1611.05431) in its form (c).
#[derive(Module, Debug)]
pub struct Bottleneck {
    conv1: ConvUnit,
    conv2: ConvUnit,
    conv3: ConvUnit,
    shortcut: Option<Shortcut>,
    drop_path: DropPath,
}

impl Bottleneck {
    /// `[batch, inputs, height, width]` to `[batch, outputs, ⌈height / stride⌉, ⌈width / stride⌉]`.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M {
        input.segment(self)
    }
}

impl Segment for Bottleneck {
    fn pass<M: FeatureMap>(&self, input: M) -> M {
        let [input, start] = input.fork();
        let x = self.conv2.forward(self.conv1.forward(input));
        let residual = self.drop_path.forward(self.conv3.forward(x));
        residual.add_relu(follow(&self.shortcut, start))
    }
}

/// The basic block with its activations before the convolutions, so that the shortcuts of a whole network form
/// one clear path ([He et al., 2016](https://arxiv.org/abs/1603.05027)); with dropout, that of
/// [wide ResNets](https://arxiv.org/abs/1605.07146).
#[derive(Module, Debug)]
pub struct PreActBasicBlock {
    conv1: PreActUnit,
    conv2: PreActUnit,
    shortcut: Option<Shortcut>,
    shared_activation: bool,
    dropout: Dropout,
    drop_path: DropPath,
}

impl PreActBasicBlock {
    /// `[batch, inputs, height, width]` to `[batch, outputs, ⌈height / stride⌉, ⌈width / stride⌉]`.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M {
        input.segment(self)
    }
}

impl Segment for PreActBasicBlock {
    fn pass<M: FeatureMap>(&self, input: M) -> M {
        let [activated, start] = match self.shared_activation {
            true => self.conv1.activate(input).fork(),
            false => {
                let [input, start] = input.fork();
                [self.conv1.activate(input), start]
            }
        };
        let shortcut = follow(&self.shortcut, start);
        let x = self.conv2.activate(self.conv1.convolve(activated)).dropout(&self.dropout);
        shortcut.add_shortcut(self.drop_path.forward(self.conv2.convolve(x)))
    }
}

/// The bottleneck with its activations before the convolutions
/// ([He et al., 2016](https://arxiv.org/abs/1603.05027)).
#[derive(Module, Debug)]
pub struct PreActBottleneck {
    conv1: PreActUnit,
    conv2: PreActUnit,
    conv3: PreActUnit,
    shortcut: Option<Shortcut>,
    drop_path: DropPath,
}

impl PreActBottleneck {
    /// `[batch, inputs, height, width]` to `[batch, outputs, ⌈height / stride⌉, ⌈width / stride⌉]`.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M {
        input.segment(self)
    }
}

impl Segment for PreActBottleneck {
    fn pass<M: FeatureMap>(&self, input: M) -> M {
        let [activated, start] = match self.shortcut {
            Some(_) => self.conv1.activate(input).fork(),
            None => {
                let [input, start] = input.fork();
                [self.conv1.activate(input), start]
            }
        };
        let shortcut = follow(&self.shortcut, start);
        let x = self.conv2.forward(self.conv1.convolve(activated));
        shortcut.add_shortcut(self.drop_path.forward(self.conv3.forward(x)))
    }
}

/// Any of the residual blocks, and the plain one that they are compared with.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // a network is of one kind
pub enum ResidualBlock {
    /// Two 3×3 convolutions.
    Basic(BasicBlock),
    /// Two 3×3 convolutions without a shortcut.
    Plain(PlainBlock),
    /// 1×1, 3×3, 1×1.
    Bottleneck(Bottleneck),
    /// Two 3×3 convolutions, activations first.
    PreActBasic(PreActBasicBlock),
    /// 1×1, 3×3, 1×1, activations first.
    PreActBottleneck(PreActBottleneck),
}

impl ResidualBlock {
    /// `[batch, inputs, height, width]` to `[batch, outputs, ⌈height / stride⌉, ⌈width / stride⌉]`.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M {
        match self {
            Self::Basic(block) => block.forward(input),
            Self::Plain(block) => block.forward(input),
            Self::Bottleneck(block) => block.forward(input),
            Self::PreActBasic(block) => block.forward(input),
            Self::PreActBottleneck(block) => block.forward(input),
        }
    }
}

fn follow<M: FeatureMap>(shortcut: &Option<Shortcut>, input: M) -> M {
    match shortcut {
        Some(shortcut) => shortcut.forward(input),
        None => input,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::TensorData;

    fn counting(shape: [usize; 4], device: &Device) -> Tensor<4> {
        let count = shape.iter().product::<usize>();
        let values: Vec<f32> = (0..count).map(|i| i as f32).collect();
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    fn values(x: Tensor<4>) -> Vec<f32> {
        x.into_data().try_into_vec().unwrap()
    }

    #[test]
    fn a_plain_block_is_a_basic_one_without_the_shortcut() {
        let device = Device::flex();
        let config = BasicBlockConfig::new([3, 3]);
        let (basic, plain) = (config.init(&device), config.init_plain(&device));
        let plain = PlainBlock { conv1: basic.conv1.clone(), ..plain };
        // A second convolution of zeros leaves nothing but the shortcut.
        let silent = |mut unit: ConvUnit| {
            unit.conv.weight = unit.conv.weight.map(|weight| weight.zeros_like());
            unit
        };
        let basic = BasicBlock { conv2: silent(basic.conv2), ..basic };
        let plain = PlainBlock { conv2: silent(plain.conv2), ..plain };
        let input = counting([1, 3, 4, 4], &device);
        assert_eq!(values(basic.forward(input.clone())), values(input.clone()));
        assert_eq!(values(plain.forward(input.clone())), values(input.zeros_like()));
    }

    #[test]
    fn option_a_strides_and_pads_on_both_sides() {
        let device = Device::flex().autodiff();
        let input = counting([1, 2, 3, 4], &device).require_grad();
        let output = ShortcutConfig::new(ShortcutKind::ZeroPad, [2, 4], 2).init(&device).forward(input.clone());
        assert_eq!(output.dims(), [1, 4, 2, 2]);
        assert_eq!(values(output.clone()), [0., 0., 0., 0., 0., 2., 8., 10., 12., 14., 20., 22., 0., 0., 0., 0.]);

        let gradient = input.grad(&output.sum().backward()).unwrap();
        let plane = [1., 0., 1., 0., 0., 0., 0., 0., 1., 0., 1., 0.];
        assert_eq!(values(gradient), [plane, plane].concat());
    }

    #[test]
    fn all_blocks_change_shape_and_keep_it() {
        let device = Device::flex();
        let block = |kind: usize, channels: [usize; 2], stride: usize| {
            let basic = BasicBlockConfig::new(channels).with_stride(stride);
            let bottleneck = BottleneckConfig::new(channels, 4).with_groups(2).with_stride(stride);
            match kind {
                0 => ResidualBlock::Basic(basic.init(&device)),
                1 => ResidualBlock::PreActBasic(basic.with_shortcut(ShortcutKind::ZeroPad).init_preact(&device)),
                2 => ResidualBlock::Bottleneck(bottleneck.init(&device)),
                _ => ResidualBlock::PreActBottleneck(bottleneck.with_stride_first(true).init_preact(&device)),
            }
        };
        for kind in 0..4 {
            let input = Tensor::ones([2, 8, 7, 5], &device);
            let output = block(kind, [8, 16], 2).forward(input);
            assert_eq!(output.dims(), [2, 16, 4, 3]);
            assert_eq!(block(kind, [16, 16], 1).forward(output).dims(), [2, 16, 4, 3]);
        }
    }

    #[test]
    fn a_pre_activation_block_without_residual_is_the_identity() {
        let device = Device::flex();
        let input = counting([1, 2, 3, 3], &device) - 5.0;
        let zero = BasicBlockConfig::new([2, 2]).with_init(Init::Normal(0.0));
        let identity = zero.clone().init_preact(&device).forward(input.clone());
        assert_eq!(values(identity), values(input.clone()));
        let activated = zero.with_shared_activation(true).init_preact(&device).forward(input.clone());
        assert!(values(activated).iter().all(|&value| value >= 0.0));
    }
    #[test]
    fn dropout_and_drop_path_act_in_training_alone() {
        let block = BasicBlockConfig::new([4, 4]);
        for block in [block.clone().with_dropout(0.5), block.with_drop_path(0.5)] {
            for preact in [false, true] {
                let twice_the_same = |device: &Device| {
                    let block = match preact {
                        false => ResidualBlock::Basic(block.init(device)),
                        true => ResidualBlock::PreActBasic(block.init_preact(device)),
                    };
                    let forward = || values(block.forward(counting([16, 4, 3, 3], device)));
                    forward() == forward()
                };
                assert!(twice_the_same(&Device::flex()));
                assert!(!twice_the_same(&Device::flex().autodiff()));
            }
        }
    }
}
