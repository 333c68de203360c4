use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::graph::{self, Node};
use super::plan::Plan;
use crate::conv::{Algorithm, Conv};
use crate::{Isa, KernelError};

/// A network ready to be planned and run; weights are packed once for all plans.
pub struct Network {
    pub(super) isa: Isa,
    /// In the order of their computation, the images first and the output last.
    pub(super) nodes: Vec<Node>,
    packed: Mutex<HashMap<(usize, Algorithm), Conv>>,
    /// The plans of the last shapes.
    plans: Mutex<Vec<([usize; 4], Arc<Plan>)>>,
}

/// Shapes whose plans are kept.
const KEPT_PLANS: usize = 4;

/// What a network answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// `[batch, channels, height, width]`; of vectors, height and width are 1.
    pub shape: [usize; 4],
    /// The values in that order.
    pub values: Vec<f32>,
}

impl Network {
    pub(super) fn new(isa: Isa, nodes: Vec<Node>) -> Self {
        Self { isa, nodes, packed: Mutex::default(), plans: Mutex::default() }
    }

    /// Runs the network on images `[batch, channels, height, width]`, planning for their shape the first time.
    ///
    /// # Errors
    /// The images do not have the shape, or the network does not take it.
    pub fn run(&self, shape: [usize; 4], images: &[f32]) -> Result<Output, KernelError> {
        self.plan(shape)?.run(images)
    }

    /// The plan for images of this shape. The last few are kept.
    ///
    /// # Errors
    /// The network does not take the shape.
    pub fn plan(&self, shape: [usize; 4]) -> Result<Arc<Plan>, KernelError> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, plan)) = plans.iter().find(|(planned, _)| *planned == shape) {
            return Ok(plan.clone());
        }
        let plan = Arc::new(Plan::new(self, shape)?);
        if plans.len() == KEPT_PLANS {
            plans.remove(0);
        }
        plans.push((shape, plan.clone()));
        Ok(plan)
    }

    /// The convolution at a node, packed for an algorithm.
    pub(super) fn packed(&self, node: usize, conv: &graph::Conv, algorithm: Algorithm) -> Result<Conv, KernelError> {
        let mut packed = self.packed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(conv) = packed.get(&(node, algorithm)) {
            return Ok(conv.clone());
        }
        let made = Conv::new(self.isa, conv.shape, algorithm, &conv.scaled_weight(), conv.bias.as_deref())?;
        packed.insert((node, algorithm), made.clone());
        Ok(made)
    }
}
