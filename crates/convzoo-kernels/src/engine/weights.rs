use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::node::ConvNode;
use crate::blocked::conv::{Algorithm, Conv};
use crate::{Isa, KernelError, Numbers, Precision};

/// The convolutions of a network, each packed once for an algorithm and kept for all plans.
pub(super) struct PackedConvs {
    isa: Isa,
    precision: Precision,
    packed: Mutex<HashMap<(usize, Algorithm), Conv>>,
}

impl PackedConvs {
    pub fn new(isa: Isa, precision: Precision) -> Self {
        Self { isa, precision, packed: Mutex::default() }
    }

    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The numbers of activations.
    pub fn numbers(&self) -> Numbers {
        match self.precision {
            Precision::F32 | Precision::LinearF16 | Precision::Int8 => Numbers::F32,
            Precision::Bf16 => Numbers::Bf16,
        }
    }

    /// The convolution at a node, packed for an algorithm.
    pub fn get(&self, node: usize, conv: &ConvNode, algorithm: Algorithm) -> Result<Conv, KernelError> {
        let mut packed = self.packed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(conv) = packed.get(&(node, algorithm)) {
            return Ok(conv.clone());
        }
        let (weight, bias) = (conv.scaled_weight(), conv.bias.as_deref());
        let made = Conv::new(self.isa, conv.shape, algorithm, self.numbers(), &weight, bias)?;
        packed.insert((node, algorithm), made.clone());
        Ok(made)
    }
}
