//! What a network in bytes computes, in terms of the network that it was made from.

use convzoo_graph::{QuantizedLayer, QuantizedValue};

use super::{Quantizer, Scales};
use crate::conv::ConvShape;
use crate::engine::node::{Node, Op};
use crate::quantized::{ByteScale, WeightScales};
use crate::{Isa, KernelError, Values};

/// How the folded nodes' values are computed in bytes.
pub(in crate::engine) fn quantized_values(
    nodes: &[Node],
    scales: &Scales,
    isa: Isa,
) -> Result<Vec<QuantizedValue>, KernelError> {
    let quantizer = Quantizer::run(nodes, scales, isa)?;
    Ok((0..nodes.len()).map(|i| quantizer.value(i)).collect())
}

impl Quantizer<'_> {
    /// How a node's value is computed, when all are made.
    fn value(&self, i: usize) -> QuantizedValue {
        let made = self.origins.iter().position(|origin| *origin == Some(i)).map(|at| &self.made[at]);
        let rounded = made.is_some_and(|node| node.bytes.is_some());
        let is_conv = made.is_some_and(|node| matches!(node.op, Op::ByteConv(_)));
        let is_layer = is_conv && !self.nodes[i].layers.is_empty();
        let scale = self.bytes[i].and_then(|at| self.made[at].bytes);
        QuantizedValue {
            scale: scale.map(|ByteScale { scale, zero }| (scale, zero)),
            rounded,
            from_bytes: rounded || is_conv,
            layer: self.weights(i).filter(|_| is_layer).map(|weights| self.layer(i, weights)),
        }
    }

    /// A layer in bytes, with what is folded in.
    fn layer(&self, i: usize, (shape, weight, scales): (ConvShape, Values, WeightScales)) -> QuantizedLayer {
        let outputs = shape.channels[1];
        let (norm, bias) = self.affine(i, outputs);
        let mut weight = scales.bytes(&weight);
        let filter = (weight.len() / outputs.max(1)).max(1);
        let filters = weight.chunks_mut(filter).zip(scales.0.iter().zip(norm));
        // Scales are positive; a factor of 0 leaves no weights.
        let positive = |(filter, (scale, norm)): (&mut [i8], (&f32, f64))| {
            let factor = (f64::from(*scale) * norm) as f32;
            if !(ByteScale { scale: factor.abs(), zero: 0 }).is_valid() {
                filter.fill(0);
                return 1.0;
            }
            if factor < 0.0 {
                filter.iter_mut().for_each(|byte| *byte = -*byte);
            }
            factor.abs()
        };
        let scales = filters.map(positive).collect();
        QuantizedLayer { weight, scales, bias: bias.into_iter().map(|bias| bias as f32).collect() }
    }
}
