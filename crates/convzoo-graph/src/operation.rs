use serde::{Deserialize, Serialize};

use crate::Parameter;
use crate::arithmetic::Slide;

/// A sliding window, `[vertical, horizontal]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Stride.
    pub stride: [usize; 2],
    /// Zero padding on each side.
    pub padding: [usize; 2],
    /// Dilation: the spacing between kernel elements.
    pub dilation: [usize; 2],
}

impl Window {
    /// A `size`×`size` window, stride 1, no padding.
    pub const fn square(size: usize) -> Self {
        Self { kernel: [size; 2], stride: [1; 2], padding: [0; 2], dilation: [1; 2] }
    }

    /// The same stride in both directions.
    pub const fn strided(self, stride: usize) -> Self {
        Self { stride: [stride; 2], ..self }
    }

    /// The same padding on all sides.
    pub const fn padded(self, padding: usize) -> Self {
        Self { padding: [padding; 2], ..self }
    }

    /// Height and width of the output for an input of `[height, width]`; 0 where no window fits. `ceil`: a last window
    /// may extend past the end (`ceil_mode`).
    pub fn output(self, input: [usize; 2], ceil: bool) -> [usize; 2] {
        [0, 1].map(|i| {
            let slide = Slide { kernel: self.kernel[i], stride: self.stride[i], dilation: self.dilation[i] };
            slide.output(input[i], [self.padding[i]; 2], ceil)
        })
    }
}

/// An element-wise function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Activation {
    /// x.
    #[default]
    Identity,
    /// max(0, x).
    Relu,
    /// min(max(0, x), 6) ([Howard et al., 2017](https://arxiv.org/abs/1704.04861)).
    Relu6,
    /// The hyperbolic tangent.
    Tanh,
    /// 1 / (1 + e⁻ˣ).
    Sigmoid,
    /// The sigmoid in three straight lines, ReLU6(x + 3) / 6 ([Howard et al., 2019](https://arxiv.org/abs/1905.02244)).
    Hardsigmoid,
    /// x times its sigmoid, also called swish ([Elfwing et al., 2017](https://arxiv.org/abs/1702.03118)).
    Silu,
    /// x times its hard sigmoid ([Howard et al., 2019](https://arxiv.org/abs/1905.02244)).
    Hardswish,
    /// x · Φ(x), Φ the normal distribution function, exact
    /// ([Hendrycks and Gimpel, 2016](https://arxiv.org/abs/1606.08415)).
    Gelu,
}

impl Activation {
    /// All of them, in the order in which they are declared.
    pub const ALL: [Self; 9] = [
        Self::Identity,
        Self::Relu,
        Self::Relu6,
        Self::Tanh,
        Self::Sigmoid,
        Self::Hardsigmoid,
        Self::Silu,
        Self::Hardswish,
        Self::Gelu,
    ];

    /// PyTorch's name for it.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Identity => "Identity",
            Self::Relu => "ReLU",
            Self::Relu6 => "ReLU6",
            Self::Tanh => "Tanh",
            Self::Sigmoid => "Sigmoid",
            Self::Hardsigmoid => "Hardsigmoid",
            Self::Silu => "SiLU",
            Self::Hardswish => "Hardswish",
            Self::Gelu => "GELU",
        }
    }
}

/// What a node computes. Shapes are without the batch: `[channels, height, width]` or `[features]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Operation {
    /// The images.
    Input,
    /// Parameters `weight`, `[outputs, inputs / groups, height, width]`, and perhaps `bias`, `[outputs]`.
    Conv2d {
        /// Output channels.
        outputs: usize,
        /// The sliding window.
        window: Window,
        /// Groups that channels are divided into.
        groups: usize,
        /// Whether there is a bias.
        bias: bool,
    },
    /// Batch normalization by the running statistics: `weight`, `bias`, `running_mean`, `running_var`, `[channels]`.
    BatchNorm2d {
        /// Added to the variance.
        epsilon: f64,
    },
    /// x / (k + α/size · Σx²)^β, the sum over `size` neighboring channels.
    LocalResponseNorm {
        /// Channels in the window.
        size: usize,
        /// α.
        alpha: f64,
        /// β.
        beta: f64,
        /// k.
        k: f64,
    },
    /// Layer normalization over the channels of each pixel: `weight`, `bias`, `[channels]`.
    LayerNorm2d {
        /// Added to the variance.
        epsilon: f64,
    },
    /// Multiplication of each channel by a parameter, `[channels, 1, 1]`.
    LayerScale,
    /// An element-wise function.
    Activation(Activation),
    /// Max pooling.
    MaxPool2d {
        /// The sliding window.
        window: Window,
        /// Whether a last window may extend past the end (`ceil_mode`).
        ceil_mode: bool,
    },
    /// Average pooling.
    AvgPool2d {
        /// The sliding window.
        window: Window,
        /// Whether a last window may extend past the end (`ceil_mode`).
        ceil_mode: bool,
        /// Whether the padding counts in the mean (`count_include_pad`).
        count_include_pad: bool,
    },
    /// Adaptive average pooling; 1×1 is global average pooling.
    AdaptiveAvgPool2d {
        /// Height and width of the output.
        output: [usize; 2],
    },
    /// Global max pooling.
    GlobalMaxPool2d,
    /// The sum of its inputs.
    Add,
    /// Its first input, each channel multiplied by that of its second, `[channels, 1, 1]`.
    Gate,
    /// The concatenation of its inputs along channels.
    Concat,
    /// Some of the channels.
    Channels {
        /// The first of them.
        first: usize,
        /// How many.
        count: usize,
    },
    /// Channels in `groups` one after the other, to channels that take turns: the first of each group, the second of each …
    ChannelShuffle {
        /// Groups.
        groups: usize,
    },
    /// Multiplication by a constant.
    Scale(f64),
    /// Option A of [He et al., 2015](https://arxiv.org/abs/1512.03385): every `stride`-th pixel, with channels of zeros
    /// before and after.
    PadShortcut {
        /// Stride.
        stride: usize,
        /// Zero channels before and after the input's.
        zeros: [usize; 2],
    },
    /// Dropout: the identity in inference.
    Dropout {
        /// Dropout probability.
        probability: f64,
    },
    /// Stochastic depth: the identity in inference.
    StochasticDepth {
        /// Drop path rate.
        probability: f64,
    },
    /// `[channels, height, width]` to `[channels · height · width]`, in that order.
    Flatten,
    /// Parameters `weight`, `[outputs, inputs]`, and `bias`, `[outputs]`. Of a feature map, at each pixel.
    Linear {
        /// Output features.
        outputs: usize,
    },
    /// Computation that the graph has no operation for.
    Opaque {
        /// Its name.
        name: String,
        /// The shape of its output, where it is not the input's.
        output: Option<Vec<usize>>,
    },
}

impl Operation {
    /// PyTorch's name for the kind of layer, or the operation's own.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Input => "Input",
            Self::Conv2d { .. } => "Conv2d",
            Self::BatchNorm2d { .. } => "BatchNorm2d",
            Self::LocalResponseNorm { .. } => "LocalResponseNorm",
            Self::LayerNorm2d { .. } => "LayerNorm2d",
            Self::LayerScale => "LayerScale",
            Self::Activation(function) => function.kind(),
            Self::MaxPool2d { .. } => "MaxPool2d",
            Self::AvgPool2d { .. } => "AvgPool2d",
            Self::AdaptiveAvgPool2d { .. } => "AdaptiveAvgPool2d",
            Self::GlobalMaxPool2d => "AdaptiveMaxPool2d",
            Self::Add => "Add",
            Self::Gate => "Gate",
            Self::Concat => "Concat",
            Self::Channels { .. } => "Channels",
            Self::ChannelShuffle { .. } => "ChannelShuffle",
            Self::Scale(_) => "Scale",
            Self::PadShortcut { .. } => "PadShortcut",
            Self::Dropout { .. } => "Dropout",
            Self::StochasticDepth { .. } => "StochasticDepth",
            Self::Flatten => "Flatten",
            Self::Linear { .. } => "Linear",
            Self::Opaque { .. } => "Opaque",
        }
    }

    /// Whether it is a layer in the sense of summaries: one with weights, a normalization or a pooling.
    pub fn is_layer(&self) -> bool {
        matches!(
            self,
            Self::Conv2d { .. }
                | Self::BatchNorm2d { .. }
                | Self::LocalResponseNorm { .. }
                | Self::LayerNorm2d { .. }
                | Self::LayerScale
                | Self::MaxPool2d { .. }
                | Self::AvgPool2d { .. }
                | Self::AdaptiveAvgPool2d { .. }
                | Self::GlobalMaxPool2d
                | Self::Linear { .. }
        )
    }

    /// Whether it divides by nothing that is zero, and its parameters have as many dimensions as it reads.
    pub(crate) fn is_sound(&self, parameters: &[Parameter]) -> bool {
        let slides = |window: &Window| ![window.kernel, window.stride, window.dilation].concat().contains(&0);
        let sound = match self {
            Self::Conv2d { window, groups, .. } => slides(window) && *groups > 0,
            Self::MaxPool2d { window, .. } | Self::AvgPool2d { window, .. } => slides(window),
            Self::ChannelShuffle { groups } => *groups > 0,
            Self::PadShortcut { stride, .. } => *stride > 0,
            _ => true,
        };
        let dimensions = match self {
            Self::Conv2d { .. } => 4,
            Self::Linear { .. } => 2,
            _ => 1,
        };
        let weight = parameters.first().is_none_or(|weight| weight.shape.len() >= dimensions);
        sound && weight && parameters.iter().all(|parameter| !parameter.shape.is_empty())
    }

    /// The shape of the output for inputs of these shapes, or what is wrong with them.
    pub(crate) fn output(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        match (self, inputs) {
            (Self::Add, [first, others @ ..]) => match others.iter().find(|other| other != &first) {
                None => Ok(first.to_vec()),
                Some(other) => Err(format!("the shapes {first:?} and {other:?} cannot be added")),
            },
            (Self::Concat, inputs @ [[_, height, width], ..]) => {
                let channels = inputs.iter().map(|shape| match shape {
                    [channels, h, w] if (h, w) == (height, width) => Ok(*channels),
                    _ => Err(format!("{shape:?} cannot be concatenated with maps of {height}×{width}")),
                });
                Ok(vec![channels.sum::<Result<usize, _>>()?, *height, *width])
            }
            (Self::Gate, [maps @ [channels, _, _], gate]) => match gate == &[*channels, 1, 1] {
                true => Ok(maps.to_vec()),
                false => Err(format!("{gate:?} is no factor for each channel of {maps:?}")),
            },
            (Self::Opaque { output: Some(output), .. }, _) => Ok(output.clone()),
            (_, [input]) => self.output_of_one(input),
            _ => Err(format!("{} does not take {} inputs", self.kind(), inputs.len())),
        }
    }

    fn output_of_one(&self, input: &[usize]) -> Result<Vec<usize>, String> {
        match (self, input) {
            (
                Self::Input
                | Self::Activation(_)
                | Self::Scale(_)
                | Self::Dropout { .. }
                | Self::StochasticDepth { .. }
                | Self::Opaque { output: None, .. },
                _,
            ) => Ok(input.to_vec()),
            (
                Self::BatchNorm2d { .. } | Self::LocalResponseNorm { .. } | Self::LayerNorm2d { .. } | Self::LayerScale,
                [_, _, _],
            ) => Ok(input.to_vec()),
            (Self::Channels { first, count }, [channels, height, width]) if first + count <= *channels => {
                Ok(vec![*count, *height, *width])
            }
            (Self::ChannelShuffle { groups }, [channels, _, _]) if channels.is_multiple_of(*groups) => {
                Ok(input.to_vec())
            }
            (Self::Conv2d { outputs, window, .. }, &[_, height, width]) => {
                fitting(window.output([height, width], false), input, |[height, width]| vec![*outputs, height, width])
            }
            (
                Self::MaxPool2d { window, ceil_mode } | Self::AvgPool2d { window, ceil_mode, .. },
                &[channels, height, width],
            ) => fitting(window.output([height, width], *ceil_mode), input, |[height, width]| {
                vec![channels, height, width]
            }),
            (Self::AdaptiveAvgPool2d { output: [height, width] }, [channels, _, _]) => {
                fitting([*height, *width], input, |[height, width]| vec![*channels, height, width])
            }
            (Self::GlobalMaxPool2d, [channels, _, _]) => {
                fitting([1, 1], input, |[height, width]| vec![*channels, height, width])
            }
            (Self::PadShortcut { stride, zeros: [before, after] }, [channels, height, width]) => {
                Ok(vec![before + channels + after, height.div_ceil(*stride), width.div_ceil(*stride)])
            }
            (Self::Flatten, _) => Ok(vec![input.iter().product()]),
            (Self::Linear { outputs }, [_, pixels @ ..]) => Ok([&[*outputs], pixels].concat()),
            _ => Err(format!("it does not take an input of {input:?}")),
        }
    }
}

/// The output's shape, unless it would be empty.
fn fitting(
    output: [usize; 2],
    input: &[usize],
    shape: impl FnOnce([usize; 2]) -> Vec<usize>,
) -> Result<Vec<usize>, String> {
    match output.contains(&0) || input.contains(&0) {
        true => Err(format!("no window fits into a map of {}×{}", input[1], input[2])),
        false => Ok(shape(output)),
    }
}
