use burn::config::Config;
use burn::module::{Param, ParamId};
use burn::nn::Initializer;
use burn::tensor::{Device, Distribution, Tensor};

/// How a layer's weights begin, by the name its reference gives it.
#[derive(Config, Debug, Copy, PartialEq)]
pub enum Init {
    /// PyTorch's default: uniform in ±1/√fan_in, the bias too.
    Torch,
    /// PyTorch's default, but the bias zero.
    TorchZeroBias,
    /// He's normal over the outputs (`mode="fan_out"`, ReLU), bias zero.
    KaimingNormalFanOut,
    /// He's normal over the inputs (`mode="fan_in"`, ReLU), bias zero.
    KaimingNormalFanIn,
    /// He's uniform over the inputs with ReLU's gain, bias zero.
    KaimingUniform,
    /// Glorot's uniform, bias zero.
    XavierUniform,
    /// Normal with mean zero and this standard deviation, bias zero.
    Normal(f64),
    /// Normal with mean zero cut at two standard deviations; the bias as PyTorch's default.
    TruncatedNormal(f64),
    /// Normal(0, std) weights and a constant bias, as AlexNet was trained.
    NormalBias {
        /// Standard deviation of the weights.
        std: f64,
        /// Value of every bias.
        bias: f64,
    },
}

impl Init {
    /// A weight of shape `[outputs, inputs / groups, …]`, drawn when first used.
    ///
    /// `fan_in` and `fan_out` are counted as PyTorch counts them: from the weight's own shape.
    pub(crate) fn weight<const D: usize>(self, shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
        let window: usize = shape[2..].iter().product();
        let (fan_in, fan_out) = (shape[1] * window, shape[0] * window);
        let sqrt2 = core::f64::consts::SQRT_2;
        let initializer = match self {
            Self::Torch | Self::TorchZeroBias => {
                Initializer::KaimingUniform { gain: 1.0 / 3f64.sqrt(), fan_out_only: false }
            }
            Self::KaimingNormalFanOut => Initializer::KaimingNormal { gain: sqrt2, fan_out_only: true },
            Self::KaimingNormalFanIn => Initializer::KaimingNormal { gain: sqrt2, fan_out_only: false },
            Self::KaimingUniform => Initializer::KaimingUniform { gain: sqrt2, fan_out_only: false },
            Self::XavierUniform => Initializer::XavierUniform { gain: 1.0 },
            Self::Normal(std) | Self::NormalBias { std, .. } => Initializer::Normal { mean: 0.0, std },
            Self::TruncatedNormal(std) => return truncated_normal(shape, std, device),
        };
        initializer.init_with(shape, Some(fan_in), Some(fan_out), device)
    }

    /// The bias that belongs to a weight with `fan_in` inputs.
    pub(crate) fn bias(self, outputs: usize, fan_in: usize, device: &Device) -> Param<Tensor<1>> {
        let initializer = match self {
            Self::Torch | Self::TruncatedNormal(_) => {
                let bound = 1.0 / (fan_in as f64).sqrt();
                Initializer::Uniform { min: -bound, max: bound }
            }
            Self::NormalBias { bias, .. } => Initializer::Constant { value: bias },
            _ => Initializer::Zeros,
        };
        initializer.init([outputs], device)
    }
}

/// Normal(0, std) cut at ±2 standard deviations, by drawing from the uniform distribution and mapping each draw
/// through the inverse of the cut distribution's cumulative function, as PyTorch's `trunc_normal_` does.
fn truncated_normal<const D: usize>(shape: [usize; D], std: f64, device: &Device) -> Param<Tensor<D>> {
    Param::uninitialized(
        ParamId::new(),
        move |device, require_grad| {
            // erf(2/√2): the share of the normal distribution within two standard deviations.
            const WITHIN_TWO: f64 = 0.954_499_736_103_642;
            let uniform = Tensor::random(shape, Distribution::Uniform(-WITHIN_TWO, WITHIN_TWO), device);
            let tensor = erf_inv(uniform).mul_scalar(std * core::f64::consts::SQRT_2).clamp(-2.0 * std, 2.0 * std);
            if require_grad { tensor.require_grad() } else { tensor }
        },
        device.clone(),
        true,
        shape.into(),
    )
}

/// The inverse error function by Winitzki's closed form (a = 0.147, absolute error under 0.005 where it is used):
/// exact enough to draw initial weights.
fn erf_inv<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    const A: f64 = 0.147;
    let log = x.clone().square().neg().add_scalar(1.0).log();
    let half = log.clone().mul_scalar(0.5).add_scalar(2.0 / (core::f64::consts::PI * A));
    let root = (half.clone().square() - log.mul_scalar(1.0 / A)).sqrt() - half;
    root.sqrt() * x.sign()
}
