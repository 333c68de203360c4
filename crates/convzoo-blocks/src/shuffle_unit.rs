use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;

use crate::features::{FeatureMap, Segment};
use crate::{ChannelShuffle, ConvUnit, ConvUnitConfig, Init};

/// Configures a [`ShuffleUnit`].
#[derive(Config, Debug)]
pub struct ShuffleUnitConfig {
    /// Input and output channels, even ones; a unit of stride 1 keeps their number.
    pub channels: [usize; 2],
    /// Stride.
    #[config(default = 1)]
    pub stride: usize,
    /// Weight initialization.
    #[config(default = "Init::Torch")]
    pub init: Init,
}

/// The unit of [ShuffleNet V2](https://arxiv.org/abs/1807.11164): half of the channels go by, the other half through a
/// 1×1, a depthwise and a 1×1 convolution; then both are concatenated and shuffled. A strided unit sends all channels
/// through both branches, and the first of them has convolutions, too.
#[derive(Module, Debug)]
pub struct ShuffleUnit {
    branch1: Option<DownBranch>,
    branch2: MainBranch,
    half: usize,
}

/// The first branch of a strided unit.
#[derive(Module, Debug)]
struct DownBranch {
    depthwise: ConvUnit,
    conv: ConvUnit,
}

/// The branch with convolutions of every unit.
#[derive(Module, Debug)]
struct MainBranch {
    conv1: ConvUnit,
    depthwise: ConvUnit,
    conv2: ConvUnit,
}

impl ShuffleUnitConfig {
    /// Makes the unit; its weights are initialized on first use.
    ///
    /// # Panics
    /// The outputs are odd, or a unit of stride 1 has other outputs than inputs.
    pub fn init(&self, device: &Device) -> ShuffleUnit {
        let ([inputs, outputs], strided) = (self.channels, self.stride > 1);
        assert!(outputs.is_multiple_of(2) && (strided || inputs == outputs), "{inputs} to {outputs} channels");
        let half = outputs / 2;
        let entering = if strided { inputs } else { half };
        let conv = |inputs| {
            let config = ConvUnitConfig::square(inputs, half, 1).with_batch_norm();
            config.with_init(self.init).init(device)
        };
        let depthwise = |channels| {
            let config = ConvUnitConfig::square(channels, channels, 3).with_groups(channels).padded(1);
            config.strided(self.stride).with_batch_norm().linear().with_init(self.init).init(device)
        };
        ShuffleUnit {
            branch1: strided.then(|| DownBranch { depthwise: depthwise(inputs), conv: conv(inputs) }),
            branch2: MainBranch { conv1: conv(entering), depthwise: depthwise(half), conv2: conv(half) },
            half,
        }
    }
}

impl ShuffleUnit {
    /// `[batch, inputs, height, width]` to `[batch, outputs, ⌈height / stride⌉, ⌈width / stride⌉]`.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M {
        input.segment(self)
    }
}

impl Segment for ShuffleUnit {
    fn pass<M: FeatureMap>(&self, input: M) -> M {
        let [first, second] = match &self.branch1 {
            Some(branch) => {
                let [input, other] = input.fork();
                [branch.conv.forward(branch.depthwise.forward(input)), other]
            }
            None => [input.clone().channels(0, self.half), input.channels(self.half, self.half)],
        };
        let MainBranch { conv1, depthwise, conv2 } = &self.branch2;
        let second = conv2.forward(depthwise.forward(conv1.forward(second)));
        ChannelShuffle { groups: 2 }.forward(M::concat(vec![first, second]))
    }
}
