//! Mixed precision: Micikevicius et al., "Mixed Precision Training", [arXiv:1710.03740](https://arxiv.org/abs/1710.03740),
//! 2017.
//!
//! A forward pass computes in the numbers of its images: [`convzoo_kernels::extension`] applies parameters of `f32` to
//! activations of 16 bits. Parameters, their gradients, the optimizer, statistics and the loss stay in 32 bits.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, FloatDType, Tensor, TensorReadError};
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::gradients::Gradients;

/// What numbers activations and their gradients are kept and multiplied in while a network is trained. All else is in 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits.
    F32,
    /// bfloat16: 16 bits, with the exponent of 32.
    Bf16,
    /// IEEE's 16 bits. Small gradients would vanish, so the loss is scaled, by as much as they bear.
    F16,
}

impl Precision {
    /// The element type.
    pub fn dtype(self) -> FloatDType {
        match self {
            Self::F32 => FloatDType::F32,
            Self::Bf16 => FloatDType::BF16,
            Self::F16 => FloatDType::F16,
        }
    }

    /// Activations in such numbers; 32 bits are the least that [`F32`](Self::F32) computes in.
    pub(crate) fn of<const D: usize>(self, tensor: Tensor<D>) -> Tensor<D> {
        if self == Self::F32 { widened(tensor) } else { tensor.cast(self.dtype()) }
    }

    /// Refuses a device that does not compute in such numbers.
    pub(crate) fn check(self, device: &Device) -> Result<(), TrainError> {
        if self == Self::F32 || device.supports_dtype(self.dtype()) {
            return Ok(());
        }
        Err(TrainError::Precision { precision: format!("{self:?}").to_lowercase(), device: format!("{device:?}") })
    }
}

/// In 32 bits, or in as many as there are where those are more: what the loss is computed of.
pub(crate) fn widened<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    match tensor.dtype() {
        DType::F32 | DType::F64 => tensor,
        _ => tensor.cast(FloatDType::F32),
    }
}

/// What the loss is multiplied by before the backward pass, so that small gradients do not vanish in 16 bits. It is halved
/// when gradients overflow, and doubled after many steps in which they did not.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct LossScale {
    /// The factor, a power of two.
    pub factor: f64,
    /// Steps since it last changed.
    steps: usize,
}

/// Steps without an overflow after which the factor is doubled, as in PyTorch's `GradScaler`.
const PATIENCE: usize = 2000;

impl LossScale {
    /// That of a run in `precision`, if it needs one.
    pub fn of(precision: Precision) -> Option<Self> {
        (precision == Precision::F16).then_some(Self { factor: 65536.0, steps: 0 })
    }

    /// Takes the gradients of a step, unscaled and clipped to `norm`; none where they overflow, and the step is to be left
    /// out.
    pub fn take<M: Module>(
        scale: &mut Option<Self>,
        gradients: &mut Gradients,
        model: &M,
        norm: Option<f64>,
    ) -> Result<Option<GradientsParams>, TensorReadError> {
        let Some(scale) = scale else { return Ok(Some(gradients.take(model, norm))) };
        if !gradients.unscale(model, scale.factor)? {
            // A factor below 1 would shrink gradients that are not there.
            *scale = Self { factor: (scale.factor / 2.0).max(1.0), steps: 0 };
            gradients.take(model, None);
            return Ok(None);
        }
        scale.steps += 1;
        if scale.steps == PATIENCE {
            *scale = Self { factor: (2.0 * scale.factor).min(2f64.powi(24)), steps: 0 };
        }
        Ok(Some(gradients.take(model, norm)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_computed_of_logits_of_32_bits_or_more() {
        let device = Device::flex();
        for (of, expected) in
            [(DType::F16, DType::F32), (DType::BF16, DType::F32), (DType::F32, DType::F32), (DType::F64, DType::F64)]
        {
            let logits = Tensor::<2>::zeros([2, 3], (&device, of));
            assert_eq!(widened(logits.clone()).dtype(), expected, "logits in {of:?}");
            assert_eq!(Precision::F32.of(logits).dtype(), expected, "images in {of:?}");
        }
    }
}
