use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use convzoo_graph::Quantized;

use super::graph::Value;
use super::node::{Node, Op};
use super::plan::{ExecutionPlan, Output};
use super::quantize::{EngineValue, Scales, quantize, quantized_values, values};
use super::weights::PackedConvs;
use crate::quantized::ByteScale;
use crate::{Isa, KernelError, Numbers, Precision};

/// A network ready to be planned and run; weights are packed once for all plans.
pub struct CompiledNetwork {
    /// In the order of their computation, the images first and the output last.
    nodes: Vec<Node>,
    convs: PackedConvs,
    /// The plans of the last shapes.
    plans: Mutex<Vec<([usize; 4], Arc<ExecutionPlan>)>>,
    /// For each node its place in the network that this one was quantized from, if it was.
    origins: Option<Vec<Option<usize>>>,
    /// For each node of the graph that it was made from, which of its values that one's work is part of.
    places: Vec<Option<usize>>,
}

/// Shapes whose plans are kept.
const KEPT_PLANS: usize = 4;

impl CompiledNetwork {
    pub(super) fn new(isa: Isa, precision: Precision, nodes: Vec<Node>, places: Vec<Option<usize>>) -> Self {
        Self { nodes, convs: PackedConvs::new(isa, precision), plans: Mutex::default(), origins: None, places }
    }

    /// The same network, made from another graph, whose nodes had these values in the first one.
    pub(super) fn numbered(self, values: &[Value]) -> Self {
        Self { places: values.iter().map(|value| self.places[value.0]).collect(), ..self }
    }

    /// The numbers of its activations, but for images in planes and for logits.
    pub fn numbers(&self) -> Numbers {
        self.convs.numbers()
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
    pub fn plan(&self, shape: [usize; 4]) -> Result<Arc<ExecutionPlan>, KernelError> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, plan)) = plans.iter().find(|(planned, _)| *planned == shape) {
            return Ok(plan.clone());
        }
        let plan = Arc::new(ExecutionPlan::new(&self.nodes, &self.convs, shape)?);
        if plans.len() == KEPT_PLANS {
            plans.remove(0);
        }
        plans.push((shape, plan.clone()));
        Ok(plan)
    }

    /// The values that it computes, the images first and the output last.
    pub fn values(&self) -> Vec<EngineValue> {
        values(&self.nodes)
    }

    /// The same network in bytes where scales are given, in floats elsewhere.
    ///
    /// # Errors
    /// A layer does not have its scales' outputs.
    pub fn quantize(&self, scales: &Scales) -> Result<Self, KernelError> {
        let (nodes, origins) = quantize(&self.nodes, scales, self.convs.isa())?;
        let places = self.places.clone();
        Ok(Self { origins: Some(origins), ..Self::new(self.convs.isa(), Precision::F32, nodes, places) })
    }

    /// How the same network computes in bytes, by the nodes of the graph that this one was [compiled](super::compile)
    /// from: what its [quantized](Self::quantize) form does.
    ///
    /// # Errors
    /// A layer does not have its scales' outputs.
    pub fn quantized(&self, scales: &Scales) -> Result<Quantized, KernelError> {
        let values = quantized_values(&self.nodes, scales, self.convs.isa())?;
        Ok(Quantized { value_of: self.places.clone(), values })
    }

    /// The values that a network in bytes has as bytes, by their places in the network that it was [made](Self::quantize)
    /// from; of one in floats none.
    pub fn byte_values(&self) -> HashMap<usize, ByteScale> {
        let origins = self.origins.as_deref().unwrap_or_default();
        let value = |(node, origin): (&Node, &Option<usize>)| {
            let value = match node.op {
                Op::ToBytes { .. } => *origins.get(*node.inputs.first()?)?,
                _ => *origin,
            };
            Some((value?, node.bytes?))
        };
        self.nodes.iter().zip(origins).filter_map(value).collect()
    }

    /// Shows [`values`](Self::values) for some images, by their places, each with its shape
    /// `[batch, channels, height, width]`. Of a network that was quantized the values are those of the network that it
    /// was made from.
    ///
    /// # Errors
    /// The images do not have the shape, or the network does not take it.
    pub fn observe(
        &self,
        shape: [usize; 4],
        images: &[f32],
        mut see: impl FnMut(usize, [usize; 4], &[f32]),
    ) -> Result<(), KernelError> {
        let plan = ExecutionPlan::keeping(&self.nodes, &self.convs, shape)?;
        plan.observe(images, |node, shape, numbers| {
            let value = match &self.origins {
                Some(origins) => origins[node],
                None => Some(node),
            };
            if let Some(value) = value {
                see(value, shape, numbers);
            }
        })
    }
}
