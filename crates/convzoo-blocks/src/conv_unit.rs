use burn::config::Config;
use burn::module::{Module, ParamId};
use burn::nn::PaddingConfig2d;
use burn::nn::conv::Conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor};
use convzoo_graph::{Activation, Operation, Parameter, Window};
use convzoo_kernels::extension::{Affine, conv2d, conv2d_affine};

use crate::features::{Composite, FeatureMap, Features, Layer, Segment, weight};
use crate::strategy::keeping;
use crate::{Init, Norm, NormConfig, ReplaceError};

/// Configures a [`ConvUnit`] or a [`PreActUnit`].
#[derive(Config, Debug)]
pub struct ConvUnitConfig {
    /// Input and output channels.
    pub channels: [usize; 2],
    /// Height and width of the kernel.
    pub kernel_size: [usize; 2],
    /// Stride, vertical and horizontal.
    #[config(default = "[1, 1]")]
    pub stride: [usize; 2],
    /// Zero padding on each side, vertical and horizontal.
    #[config(default = "[0, 0]")]
    pub padding: [usize; 2],
    /// Dilation: the spacing between kernel elements.
    #[config(default = "[1, 1]")]
    pub dilation: [usize; 2],
    /// Groups that channels are divided into.
    #[config(default = 1)]
    pub groups: usize,
    /// Whether the convolution adds a bias.
    #[config(default = true)]
    pub bias: bool,
    /// Normalization, if any.
    pub norm: Option<NormConfig>,
    /// Activation.
    #[config(default = "Activation::Relu")]
    pub activation: Activation,
    /// Weight initialization.
    #[config(default = "Init::Torch")]
    pub init: Init,
}

impl ConvUnitConfig {
    /// A square `size`×`size` convolution, stride 1, no padding.
    pub fn square(inputs: usize, outputs: usize, size: usize) -> Self {
        Self::new([inputs, outputs], [size, size])
    }

    /// Batch normalization after the convolution, which then needs no bias.
    pub fn with_batch_norm(self) -> Self {
        self.with_norm(Some(NormConfig::BATCH)).with_bias(false)
    }

    /// The same stride in both directions.
    pub fn strided(self, stride: usize) -> Self {
        self.with_stride([stride, stride])
    }

    /// The same padding on all sides.
    pub fn padded(self, padding: usize) -> Self {
        self.with_padding([padding, padding])
    }

    /// No activation.
    pub fn linear(self) -> Self {
        self.with_activation(Activation::Identity)
    }

    /// Convolution → normalization → activation.
    pub fn init(&self, device: &Device) -> ConvUnit {
        ConvUnit {
            conv: self.conv(device),
            norm: self.norm.map(|norm| norm.init(self.channels[1], device)),
            activation: self.activation,
            init: self.init,
        }
    }

    /// Normalization → activation → convolution.
    pub fn init_preact(&self, device: &Device) -> PreActUnit {
        PreActUnit {
            norm: self.norm.map(|norm| norm.init(self.channels[0], device)),
            activation: self.activation,
            conv: self.conv(device),
        }
    }

    fn conv(&self, device: &Device) -> Conv2d {
        let ([inputs, outputs], [height, width]) = (self.channels, self.kernel_size);
        assert!(
            inputs.is_multiple_of(self.groups) && outputs.is_multiple_of(self.groups),
            "{inputs} and {outputs} channels do not divide into {} groups",
            self.groups
        );
        let shape = [outputs, inputs / self.groups, height, width];
        let fan_in = inputs / self.groups * height * width;
        let [top, left] = self.padding;
        Conv2d {
            weight: self.init.weight(shape, device),
            bias: self.bias.then(|| self.init.bias(outputs, fan_in, device)),
            stride: self.stride,
            kernel_size: self.kernel_size,
            dilation: self.dilation,
            groups: self.groups,
            padding: PaddingConfig2d::Explicit(top, left, top, left),
        }
    }
}

/// Convolution, optional normalization, optional activation: what every network here is made of.
#[derive(Module, Debug)]
pub struct ConvUnit {
    /// Weight `[outputs, inputs / groups, height, width]`, bias `[outputs]`.
    pub conv: Conv2d,
    /// Over the outputs.
    pub norm: Option<Norm>,
    #[module(skip)]
    activation: Activation,
    #[module(skip)]
    init: Init,
}

impl ConvUnit {
    /// `[batch, inputs, height, width]` to `[batch, outputs, height', width']`.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M {
        match self.norm {
            Some(_) => input.segment(self),
            // Of a convolution and an activation nothing is kept but the input and the output.
            None => input.composite(self),
        }
    }

    /// A new 1×1 unit of `outputs` channels for the same inputs, its weights initialized as this one's were: for a unit
    /// that is the classifier.
    ///
    /// # Errors
    /// This unit is more than a 1×1 convolution and its activation.
    pub fn replace_outputs(self, outputs: usize) -> Result<Self, ReplaceError> {
        let conv = &self.conv;
        let plain = [
            (conv.kernel_size == [1, 1], "has a larger kernel"),
            (conv.stride == [1, 1], "is strided"),
            (conv.padding == PaddingConfig2d::Explicit(0, 0, 0, 0), "is padded"),
            (conv.groups == 1, "has groups"),
            (self.norm.is_none(), "is normalized"),
        ];
        if let Some((_, reason)) = plain.into_iter().find(|(plain, _)| !plain) {
            return Err(ReplaceError { outputs, reason });
        }
        let [_, inputs, ..] = conv.weight.lazy_shape().dims::<4>();
        let config = ConvUnitConfig::square(inputs, outputs, 1)
            .with_bias(conv.bias.is_some())
            .with_activation(self.activation)
            .with_init(self.init);
        Ok(config.init(&conv.weight.lazy_device()))
    }

    /// What follows the convolution as a scale and a shift of each channel, fused with it in inference; other activations
    /// than a ReLU are left.
    fn affine(&self) -> Option<Affine> {
        let bias = self.conv.bias.as_ref().map(|bias| bias.val());
        let (scale, shift) = match (&self.norm, bias) {
            (Some(Norm::Batch(norm)), bias) => {
                let [scale, shift] = norm.line();
                let shift = match bias {
                    Some(bias) => shift + bias * scale.clone(),
                    None => shift,
                };
                (scale, shift)
            }
            (None, Some(bias)) => (bias.ones_like(), bias),
            (None, None) | (Some(Norm::LocalResponse(_) | Norm::Group(_) | Norm::PixelLayer(_)), _) => return None,
        };
        Some(Affine { scale, shift, relu: self.activation == Activation::Relu })
    }
}

impl Segment for ConvUnit {
    fn pass<M: FeatureMap>(&self, input: M) -> M {
        input.composite(self)
    }
}

impl Composite for ConvUnit {
    fn compose<M: FeatureMap>(&self, input: M) -> M {
        let output = input.layer(&self.conv);
        match &self.norm {
            Some(norm) => norm.forward_activated(output, self.activation),
            None => output.activation(self.activation),
        }
    }

    fn compute(&self, input: Tensor<4>) -> Tensor<4> {
        let inference = input.training_device().is_none();
        match inference.then(|| self.affine()).flatten() {
            Some(affine) => {
                let left = if affine.relu { Activation::Identity } else { self.activation };
                conv2d_affine(input, self.conv.weight.val(), affine, options(&self.conv)).activation(left)
            }
            None => self.compose(input),
        }
    }
}

/// The other order: normalization, activation, convolution
/// ([He et al., 2016](https://arxiv.org/abs/1603.05027)).
#[derive(Module, Debug)]
pub struct PreActUnit {
    /// Over the inputs.
    pub norm: Option<Norm>,
    #[module(skip)]
    pub(crate) activation: Activation,
    /// Weight `[outputs, inputs / groups, height, width]`, bias `[outputs]`.
    pub conv: Conv2d,
}

impl PreActUnit {
    /// `[batch, inputs, height, width]` to `[batch, outputs, height', width']`.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M {
        self.convolve(self.activate(input))
    }

    /// The first half, normalization and activation, after which a shortcut may branch off. Keeps the shape.
    pub fn activate<M: FeatureMap>(&self, input: M) -> M {
        match &self.norm {
            Some(norm) => norm.forward_activated(input, self.activation),
            None => input.activation(self.activation),
        }
    }

    /// The second half: the convolution alone.
    pub fn convolve<M: FeatureMap>(&self, input: M) -> M {
        input.layer(&self.conv)
    }

    /// [`convolve`](Self::convolve) of the concatenation of `parts` without making it: the sum over the parts, each with
    /// its share of the weights. The convolution has one group and no bias; the parts are [`keeping`] tensors.
    pub(crate) fn convolve_parts(&self, parts: Vec<Tensor<4>>) -> Tensor<4> {
        let mut first = 0;
        let outputs = parts.into_iter().map(|part| {
            let channels = part.dims()[1];
            let weight = keeping(self.conv.weight.val().narrow(1, first, channels));
            first += channels;
            conv2d(part, weight, None, options(&self.conv))
        });
        outputs.reduce(|sum, output| sum + output).expect("there is at least one part")
    }
}

/// Burn's convolution with the same padding on both ends of a direction, as [`ConvUnitConfig`] makes it.
impl Layer<4> for Conv2d {
    fn operation(&self) -> Operation {
        let [outputs, ..] = self.weight.lazy_shape().dims::<4>();
        let padding = padding(self).map(|(begin, _)| begin);
        let window = Window { kernel: self.kernel_size, stride: self.stride, padding, dilation: self.dilation };
        Operation::Conv2d { outputs, window, groups: self.groups, bias: self.bias.is_some() }
    }

    fn compute(&self, input: Tensor<4>) -> Tensor<4> {
        conv2d(input, self.weight.val(), self.bias.as_ref().map(|bias| bias.val()), options(self))
    }

    fn id(&self) -> Option<ParamId> {
        Some(self.weight.id)
    }

    fn parameters(&self) -> Vec<Parameter> {
        let bias = self.bias.as_ref().map(weight);
        std::iter::once(weight(&self.weight)).chain(bias).collect()
    }
}

fn options(conv: &Conv2d) -> ConvOptions<2> {
    ConvOptions::new_with_padding(conv.stride, padding(conv), conv.dilation, conv.groups)
}

/// Zeros before and after, vertically and horizontally.
fn padding(conv: &Conv2d) -> [(usize, usize); 2] {
    match conv.padding {
        PaddingConfig2d::Explicit(top, left, bottom, right) => [(top, bottom), (left, right)],
        PaddingConfig2d::Valid => [(0, 0); 2],
        // At stride 1, which is all that Burn takes it with.
        PaddingConfig2d::Same => [0, 1].map(|i| {
            let reach = (conv.kernel_size[i] - 1) * conv.dilation[i];
            (reach / 2, reach - reach / 2)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_one_by_one_unit_can_have_its_outputs_replaced() {
        let device = Device::flex();
        let plain = ConvUnitConfig::square(4, 2, 1).with_bias(false);
        let unit = plain.init(&device).replace_outputs(7).unwrap();
        assert_eq!(unit.conv.weight.lazy_shape().dims(), [7, 4, 1, 1]);
        assert!(unit.conv.bias.is_none(), "a unit without a bias gets none");
        for (config, reason) in [
            (ConvUnitConfig::square(4, 2, 3), "has a larger kernel"),
            (plain.clone().strided(2), "is strided"),
            (plain.clone().padded(1), "is padded"),
            (plain.clone().with_groups(2), "has groups"),
            (plain.with_batch_norm(), "is normalized"),
        ] {
            let error = config.init(&device).replace_outputs(7).err();
            assert_eq!(error, Some(ReplaceError { outputs: 7, reason }));
        }
    }
}
