use burn::config::Config;
use burn::module::Param;
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor, TensorData, s};

/// Weight initialization of a layer, by the name its reference gives it.
#[derive(Config, Debug, Copy, PartialEq)]
pub enum Init {
    /// PyTorch's default: uniform in ±1/√fan_in, the bias too.
    Torch,
    /// PyTorch's default, but the bias zero.
    TorchZeroBias,
    /// PyTorch's default, but the first outputs of a convolution pass its inputs on, one each: their kernels are 1 in the
    /// middle of one input and 0 elsewhere, `dirac_` of as many outputs as there are inputs.
    TorchIdentity,
    /// Kaiming normal (`mode="fan_out"`, ReLU), bias zero.
    KaimingNormalFanOut,
    /// Kaiming normal (`mode="fan_in"`, ReLU), bias zero.
    KaimingNormalFanIn,
    /// Kaiming uniform (`mode="fan_in"`, ReLU), bias zero.
    KaimingUniform,
    /// Xavier (Glorot) uniform, bias zero.
    XavierUniform,
    /// Uniform in ±gain/√fan_out, bias zero.
    UniformFanOut(f64),
    /// Normal with mean zero and this standard deviation, bias zero. torchvision's ConvNeXt cuts it at ±2, a hundred
    /// standard deviations, which no draw reaches.
    Normal(f64),
    /// Normal with mean zero and this standard deviation; the bias as PyTorch's default. torchvision's Inceptions cut
    /// it at ±2, twenty standard deviations and more, which no draw reaches.
    NormalWeight(f64),
    /// Normal(0, std) weights and a constant bias, as AlexNet was trained.
    NormalBias {
        /// Standard deviation of the weights.
        std: f64,
        /// Value of every bias.
        bias: f64,
    },
}

impl Init {
    /// A weight of shape `[outputs, inputs / groups, …]`, initialized on first use.
    ///
    /// `fan_in` and `fan_out` are counted as PyTorch counts them: from the weight's own shape.
    pub(crate) fn weight<const D: usize>(self, shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
        let window: usize = shape[2..].iter().product();
        let (fan_in, fan_out) = (shape[1] * window, shape[0] * window);
        let sqrt2 = core::f64::consts::SQRT_2;
        let initializer = match self {
            Self::Torch | Self::TorchZeroBias | Self::TorchIdentity => {
                Initializer::KaimingUniform { gain: 1.0 / 3f64.sqrt(), fan_out_only: false }
            }
            Self::KaimingNormalFanOut => Initializer::KaimingNormal { gain: sqrt2, fan_out_only: true },
            Self::KaimingNormalFanIn => Initializer::KaimingNormal { gain: sqrt2, fan_out_only: false },
            Self::KaimingUniform => Initializer::KaimingUniform { gain: sqrt2, fan_out_only: false },
            Self::XavierUniform => Initializer::XavierUniform { gain: 1.0 },
            Self::UniformFanOut(gain) => Initializer::KaimingUniform { gain: gain / 3f64.sqrt(), fan_out_only: true },
            Self::Normal(std) | Self::NormalWeight(std) | Self::NormalBias { std, .. } => {
                Initializer::Normal { mean: 0.0, std }
            }
        };
        let weight = initializer.init_with(shape, Some(fan_in), Some(fan_out), device);
        match self {
            Self::TorchIdentity => weight.init_mapper(passing_inputs_on),
            _ => weight,
        }
    }

    /// The bias that belongs to a weight with `fan_in` inputs.
    pub(crate) fn bias(self, outputs: usize, fan_in: usize, device: &Device) -> Param<Tensor<1>> {
        let initializer = match self {
            Self::Torch | Self::TorchIdentity | Self::NormalWeight(_) => {
                let bound = 1.0 / (fan_in as f64).sqrt();
                Initializer::Uniform { min: -bound, max: bound }
            }
            Self::NormalBias { bias, .. } => Initializer::Constant { value: bias },
            _ => Initializer::Zeros,
        };
        initializer.init([outputs], device)
    }
}

/// A weight `[outputs, inputs, …]` whose first outputs are its inputs.
fn passing_inputs_on<const D: usize>(weight: Tensor<D>) -> Tensor<D> {
    let mut shape = weight.dims();
    let (window, inputs) = (&shape[2..], shape[1]);
    let middle = window.iter().fold(0, |at, side| at * side + side / 2);
    let size: usize = window.iter().product();
    shape[0] = shape[0].min(inputs);
    let mut ones = vec![0.0_f32; shape.iter().product()];
    (0..shape[0]).for_each(|i| ones[(i * inputs + i) * size + middle] = 1.0);
    let ones = Tensor::from_data(TensorData::new(ones, shape), &weight.device());
    weight.slice_assign(s![0..shape[0]], ones)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;
    use burn::tensor::module::conv2d;
    use burn::tensor::ops::ConvOptions;

    use super::*;

    #[test]
    fn the_first_outputs_of_an_identity_are_the_inputs_and_the_others_are_drawn() {
        let device = Device::flex();
        for (outputs, inputs) in [(7, 4), (4, 7)] {
            let weight = Init::TorchIdentity.weight([outputs, inputs, 3, 3], &device).val();
            let same = outputs.min(inputs);
            let image = Tensor::<4>::random([2, inputs, 5, 6], Distribution::Default, &device);
            let options = ConvOptions::new([1; 2], [1; 2], [1; 2], 1);
            let output = conv2d(image.clone(), weight.clone(), None, options);
            output.slice(s![.., 0..same]).into_data().assert_eq(&image.slice(s![.., 0..same]).into_data(), true);
            let drawn = weight.slice(s![same..]).into_data();
            let bound = 1.0 / (9.0 * inputs as f32).sqrt();
            assert!(drawn.iter::<f32>().all(|value| value != 0.0 && value.abs() <= bound), "{outputs} of {inputs}");
            assert_eq!(drawn.num_elements(), (outputs - same) * inputs * 9);
        }
    }

    #[test]
    fn normal_weights_have_the_given_deviation_and_are_not_truncated() {
        let device = Device::flex();
        let init = Init::NormalWeight(0.1);
        let weight = init.weight([400, 250], &device).val();
        let (variance, mean) = weight.clone().reshape([-1]).var_mean(0);
        assert!(mean.into_scalar::<f32>().abs() < 2e-3);
        assert!((variance.into_scalar::<f32>().sqrt() - 0.1).abs() < 2e-3);
        let largest = weight.abs().max().into_scalar::<f32>();
        assert!((0.3..2.0).contains(&largest), "{largest}");

        let bias = init.bias(1000, 250, &device).val().abs().max().into_scalar::<f32>();
        assert!((0.05..0.0633).contains(&bias), "PyTorch's ±1/√250, not {bias}");
    }
}
