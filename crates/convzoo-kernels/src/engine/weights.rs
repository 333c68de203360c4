use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::node::ConvNode;
use crate::blocked::conv::{Algorithm, Conv};
use crate::{Isa, KernelError};

/// The convolutions of a network, each packed once for an algorithm and kept for all plans.
pub(super) struct PackedConvs {
    isa: Isa,
    packed: Mutex<HashMap<(usize, Algorithm), Conv>>,
}

impl PackedConvs {
    pub fn new(isa: Isa) -> Self {
        Self { isa, packed: Mutex::default() }
    }

    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The convolution at a node, packed for an algorithm.
    pub fn get(&self, node: usize, conv: &ConvNode, algorithm: Algorithm) -> Result<Conv, KernelError> {
        let mut packed = self.packed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(conv) = packed.get(&(node, algorithm)) {
            return Ok(conv.clone());
        }
        let made = Conv::new(self.isa, conv.shape, algorithm, &conv.scaled_weight(), conv.bias.as_deref())?;
        packed.insert((node, algorithm), made.clone());
        Ok(made)
    }
}
