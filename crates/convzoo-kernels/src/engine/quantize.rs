//! A folded network's nodes in bytes.

mod describe;

use std::collections::HashMap;
use std::sync::Arc;

use super::fold::channels;
use super::node::{ByteConvNode, ConvNode, Node, Op};
use crate::conv::ConvShape;
use crate::cost::PLANAR_CHANNELS;
use crate::elementwise::{Activation, Apply, ScaleShift};
use crate::linear::Weight;
use crate::quantized::conv::ByteConv;
use crate::quantized::elementwise::ByteSum;
use crate::quantized::scale::MOST_PRODUCTS;
use crate::quantized::{ByteScale, Requantize, WeightScales};
use crate::{Isa, KernelError, Values};

pub(super) use describe::quantized_values;

/// What a network needs to compute in bytes. What has no scales here computes in floats.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scales {
    /// Of the weights of layers, by their labels.
    pub weights: HashMap<u64, WeightScales>,
    /// What is added to each output of a layer, by its label: of the layer's own numbers, its norm folded in.
    pub corrections: HashMap<u64, Vec<f32>>,
    /// Of values, by their place in [`values`](super::CompiledNetwork::values).
    pub values: HashMap<usize, ByteScale>,
}

/// A value that a compiled network computes.
#[derive(Clone)]
pub struct EngineValue {
    /// The layers that make it, as they were labeled.
    pub layers: Vec<u64>,
    /// The last of the operations that make it, as it was numbered.
    pub number: Option<u64>,
    /// What the first of the operations that make it is.
    pub kind: &'static str,
    /// The weight of the layer, where it could compute in bytes.
    pub weight: Option<EngineWeight>,
    /// The values it is made of.
    pub inputs: Vec<usize>,
    /// Whether it only moves numbers of its inputs, so that all have one scale.
    pub moves: bool,
}

/// The weight of a layer.
#[derive(Clone)]
pub struct EngineWeight {
    /// `[outputs, inputs / groups, …]`.
    pub values: Values,
    /// Outputs.
    pub outputs: usize,
    /// Groups that inputs and outputs are divided into.
    pub groups: usize,
    /// What each output is multiplied by, where a norm is folded in.
    pub norm: Option<Vec<f32>>,
}

/// What the folded nodes' values are.
pub(super) fn values(nodes: &[Node]) -> Vec<EngineValue> {
    let value = |node: &Node| {
        let moves = moves(&node.op);
        let kind = match &node.op {
            Op::Input(_) => "input",
            Op::Conv(_) | Op::ByteConv(_) => "conv",
            Op::Linear { .. } => "linear",
            Op::Pool(_) => "pool",
            Op::LocalResponse(_) | Op::LayerNorm(_) => "norm",
            Op::Elementwise { .. } => "sum",
            Op::Gate => "gate",
            Op::Concat => "concat",
            Op::Gather(_) => "channels",
            Op::Flatten => "flatten",
            Op::ToBytes { .. } | Op::ToFloats => "cast",
        };
        let weight = weight_of(&node.op).map(|(shape, values)| {
            let norm = match &node.op {
                Op::Conv(conv) => conv.scale.clone(),
                _ => None,
            };
            EngineWeight { values, outputs: shape.channels[1], groups: shape.groups, norm }
        });
        let (layers, inputs) = (node.layers.clone(), node.inputs.clone());
        EngineValue { layers, number: node.number, kind, weight, inputs, moves }
    };
    nodes.iter().map(value).collect()
}

/// Whether an operation only moves numbers, so that its output has its inputs' scale.
fn moves(op: &Op) -> bool {
    match op {
        Op::Concat | Op::Gather(_) | Op::Flatten => true,
        Op::Pool(shape) => shape.is_max(),
        _ => false,
    }
}

/// The shape and the weight of what can compute in bytes.
fn weight_of(op: &Op) -> Option<(ConvShape, Values)> {
    let (shape, weight) = match op {
        Op::Conv(conv) => (conv.shape, conv.weight.clone()),
        Op::Linear { linear, .. } => match &linear.weight {
            Weight::Single(weight) => (ConvShape::square(linear.inputs(), linear.outputs(), 1), weight.clone()),
            Weight::Half(_) | Weight::Bf16(_) => return None,
        },
        _ => return None,
    };
    (shape.group_channels()[0] * shape.taps() <= MOST_PRODUCTS).then_some((shape, weight))
}

/// Whether an activation is no more than bounds.
fn is_cut(activation: Activation) -> bool {
    matches!(activation, Activation::Identity | Activation::Relu | Activation::Relu6)
}

/// The same network in bytes, and for each of its nodes the folded one whose value it computes; none for changes between
/// floats and bytes.
pub(super) fn quantize(
    nodes: &[Node],
    scales: &Scales,
    isa: Isa,
) -> Result<(Vec<Node>, Vec<Option<usize>>), KernelError> {
    let quantizer = Quantizer::run(nodes, scales, isa)?;
    Ok((quantizer.made, quantizer.origins))
}

struct Quantizer<'a> {
    nodes: &'a [Node],
    scales: &'a Scales,
    isa: Isa,
    channels: Vec<Option<usize>>,
    /// Whether some layer computes in bytes from each node's value.
    useful: Vec<bool>,
    /// Whether images become bytes in blocks of four channels.
    planes: bool,
    made: Vec<Node>,
    origins: Vec<Option<usize>>,
    /// The node of the new network that has each node's value in bytes, and in floats.
    bytes: Vec<Option<usize>>,
    floats: Vec<Option<usize>>,
}

impl<'a> Quantizer<'a> {
    /// Makes the network.
    fn run(nodes: &'a [Node], scales: &'a Scales, isa: Isa) -> Result<Self, KernelError> {
        let mut quantizer = Quantizer {
            nodes,
            scales,
            isa,
            channels: channels(nodes),
            useful: vec![false; nodes.len()],
            planes: false,
            made: Vec::new(),
            origins: Vec::new(),
            bytes: vec![None; nodes.len()],
            floats: vec![None; nodes.len()],
        };
        quantizer.planes = matches!(nodes[0].op, Op::Input(channels) if channels <= PLANAR_CHANNELS)
            && nodes
                .iter()
                .filter(|node| node.inputs.contains(&0))
                .all(|node| matches!(node.op, Op::Conv(_)) && node.inputs.get(1) != Some(&0));
        quantizer.find_useful();
        for i in 0..nodes.len() {
            quantizer.add(i)?;
        }
        // The output is floats, and the last node.
        let last = quantizer.float(nodes.len() - 1);
        debug_assert_eq!(last + 1, quantizer.made.len(), "the output is the last node");
        Ok(quantizer)
    }

    /// The scales of the weights of a node that is to compute in bytes. Weights without a layer are those of shortcuts
    /// that pass channels on.
    fn weights(&self, i: usize) -> Option<(ConvShape, Values, WeightScales)> {
        let node = &self.nodes[i];
        let (shape, weight) = weight_of(&node.op)?;
        let scales = match node.layers.first() {
            Some(label) => self.scales.weights.get(label)?.clone(),
            None => WeightScales::of_largest(&weight, shape.channels[1]),
        };
        (scales.0.len() == shape.channels[1]).then_some((shape, weight, scales))
    }

    /// What is done to a layer's outputs besides scaling: for each the factor of what is folded in, and the bias, which
    /// has the layer's correction in it.
    fn affine(&self, i: usize, outputs: usize) -> (Vec<f64>, Vec<f64>) {
        let node = &self.nodes[i];
        let (norm, bias) = match &node.op {
            Op::Conv(ConvNode { scale, bias, .. }) => (scale.as_deref(), bias.as_deref()),
            Op::Linear { linear, .. } => (None, Some(linear.bias.as_slice())),
            _ => (None, None),
        };
        let correction = node.layers.first().and_then(|label| self.scales.corrections.get(label));
        let correction = correction.filter(|correction| correction.len() == outputs).map(Vec::as_slice);
        let of = |values: Option<&[f32]>, o: usize, none: f64| values.map_or(none, |values| f64::from(values[o]));
        (0..outputs).map(|o| (of(norm, o, 1.0), of(bias, o, 0.0) + of(correction, o, 0.0))).unzip()
    }

    /// Whether an operation has the same form in bytes and in floats.
    fn is_neutral(op: &Op) -> bool {
        match op {
            Op::Pool(_) | Op::Concat | Op::Gather(_) | Op::Flatten => true,
            Op::Elementwise { activation, .. } => is_cut(*activation),
            _ => false,
        }
    }

    fn find_useful(&mut self) {
        for i in (0..self.nodes.len()).rev() {
            let node = &self.nodes[i];
            if self.weights(i).is_some() || Self::is_neutral(&node.op) && self.useful[i] {
                node.inputs.iter().for_each(|input| self.useful[*input] = true);
            }
        }
    }

    /// The scale of a node's value in bytes.
    fn scale(&self, i: usize) -> Option<ByteScale> {
        let node = &self.nodes[i];
        match self.bytes[i] {
            Some(made) => self.made[made].bytes,
            None => self.scales.values.get(&i).copied().or_else(|| match moves(&node.op) {
                true => node.inputs.first().and_then(|input| self.scale(*input)),
                false => None,
            }),
        }
    }

    fn push(&mut self, node: Node, origin: Option<usize>) -> usize {
        self.made.push(node);
        self.origins.push(origin);
        self.made.len() - 1
    }

    /// Adds the conversion of a node's value, which no node of the network in floats is.
    fn convert(&mut self, from: usize, op: Op, bytes: Option<ByteScale>) -> usize {
        self.push(Node { op, inputs: vec![from], layers: Vec::new(), number: None, bytes }, None)
    }

    /// The node with a value in floats.
    fn float(&mut self, i: usize) -> usize {
        if let Some(made) = self.floats[i] {
            return made;
        }
        // Whatever was added is in one form at least.
        let from = self.bytes[i].unwrap_or(0);
        let made = self.convert(from, Op::ToFloats, None);
        self.floats[i] = Some(made);
        made
    }

    /// The node with a value in bytes, if it has a scale.
    fn byte(&mut self, i: usize) -> Option<usize> {
        if let Some(made) = self.bytes[i] {
            return Some(made);
        }
        let (scale, from) = (self.scale(i)?, self.floats[i]?);
        let made = self.convert(from, Op::ToBytes { planes: self.planes && i == 0 }, Some(scale));
        self.bytes[i] = Some(made);
        Some(made)
    }

    /// The node with a value in bytes of a given scale.
    fn byte_in(&mut self, i: usize, scale: ByteScale) -> Option<usize> {
        let made = self.byte(i)?;
        if self.made[made].bytes == Some(scale) {
            return Some(made);
        }
        let op = Op::Elementwise { affine: None, activation: Activation::Identity };
        Some(self.convert(made, op, Some(scale)))
    }

    /// Adds a node in the form that it computes in.
    fn add(&mut self, i: usize) -> Result<(), KernelError> {
        let node = &self.nodes[i];
        if let Some(weights) = self.weights(i)
            && node.inputs.iter().all(|input| self.scale(*input).is_some())
        {
            return self.add_conv(i, weights);
        }
        if Self::is_neutral(&node.op) && self.useful[i] && self.add_neutral(i) {
            return Ok(());
        }
        let inputs = node.inputs.iter().map(|input| self.float(*input)).collect();
        let made = self.push(Node { inputs, ..node.clone() }, Some(i));
        self.floats[i] = Some(made);
        Ok(())
    }

    /// Adds an operation in bytes, if one of its inputs is bytes and all have scales.
    fn add_neutral(&mut self, i: usize) -> bool {
        let node = &self.nodes[i];
        let any = node.inputs.iter().any(|input| self.bytes[*input].is_some());
        let all = node.inputs.iter().all(|input| self.scale(*input).is_some());
        let scale = match moves(&node.op) && node.inputs.len() == 1 {
            true => node.inputs.first().and_then(|input| self.scale(*input)),
            false => self.scale(i),
        };
        let (true, true, Some(scale)) = (any, all, scale) else { return false };
        // Per-channel factors need to know the channels.
        let known = !matches!(node.op, Op::Elementwise { .. } | Op::Flatten) || self.channels[i].is_some();
        if !known && !matches!(node.op, Op::Flatten) {
            return false;
        }
        let moves = moves(&node.op);
        let inputs: Option<Vec<usize>> = node
            .inputs
            .iter()
            .map(|input| if moves { self.byte_in(*input, scale) } else { self.byte(*input) })
            .collect();
        let Some(inputs) = inputs else { return false };
        let made = self.push(Node { inputs, bytes: Some(scale), ..node.clone() }, Some(i));
        self.bytes[i] = Some(made);
        true
    }

    /// Adds a convolution or a linear layer in bytes.
    fn add_conv(
        &mut self,
        i: usize,
        (shape, weight, scales): (ConvShape, Values, WeightScales),
    ) -> Result<(), KernelError> {
        let node = &self.nodes[i];
        let missing = KernelError::Missing("scale of bytes");
        let inputs: Option<Vec<usize>> = node.inputs.iter().map(|input| self.byte(*input)).collect();
        let inputs = inputs.ok_or(missing.clone())?;
        let scale_of = |made: usize| self.made[made].bytes.ok_or(missing.clone());
        let from = scale_of(inputs[0])?;
        let added = inputs.get(1).map(|made| scale_of(*made)).transpose()?;
        let activation = match &node.op {
            Op::Conv(ConvNode { activation, .. }) | Op::Linear { activation, .. } => *activation,
            _ => Activation::Identity,
        };
        let (norm, bias) = self.affine(i, shape.channels[1]);
        let to = self.scales.values.get(&i).copied().filter(|_| self.useful[i] && is_cut(activation));

        // In floats, one is 1; in bytes, a scale.
        let unit = to.map_or(1.0, |scale| f64::from(scale.scale));
        let zero = to.map_or(0.0, |scale| f64::from(scale.zero));
        let sum = added.map_or(0.0, |added| (f64::from(added.scale) / unit) as f32);
        let multipliers = scales.0.iter().zip(norm);
        let multiplier =
            multipliers.map(|(scale, norm)| (f64::from(from.scale) * f64::from(*scale) * norm / unit) as f32);
        let added = added.map_or(0.0, |added| f64::from(added.zero) * f64::from(sum));
        let offset = bias.into_iter().map(|bias| (bias / unit + zero - added) as f32);
        let bounds = match to {
            Some(scale) => byte_bounds(activation, scale),
            None => activation.bounds(),
        };
        let requantize =
            Arc::new(Requantize { multiplier: multiplier.collect(), offset: offset.collect(), sum, bounds });
        let planes = matches!(self.made[inputs[0]].op, Op::ToBytes { planes: true });
        let conv = ByteConv::new(self.isa, shape, &scales.bytes(&weight), planes)?;
        let op = Op::ByteConv(ByteConvNode { conv, requantize, activation });
        let made = self.push(Node { op, inputs, layers: node.layers.clone(), number: node.number, bytes: to }, Some(i));
        match to {
            Some(_) => self.bytes[i] = Some(made),
            None => self.floats[i] = Some(made),
        }
        Ok(())
    }
}

/// What bytes are cut at, so that their numbers are as the activation cuts them.
fn byte_bounds(activation: Activation, scale: ByteScale) -> [f32; 2] {
    let zero = f32::from(scale.zero);
    activation.bounds().map(|bound| (bound / scale.scale + zero).clamp(0.0, 255.0))
}

/// activation(scale · x + shift + Σ others) in bytes.
pub(super) fn byte_sum(
    affine: Option<&ScaleShift>,
    activation: Activation,
    inputs: &[ByteScale],
    to: ByteScale,
    channels: usize,
) -> ByteSum {
    let unit = f64::from(to.scale);
    let factor = |input: &ByteScale| f64::from(input.scale) / unit;
    let others: Vec<f32> = inputs.iter().skip(1).map(|input| factor(input) as f32).collect();
    let zeros: f64 = inputs.iter().skip(1).zip(&others).map(|(input, m)| f64::from(input.zero) * f64::from(*m)).sum();
    let first = inputs.first().copied().unwrap_or(to);
    let part = |channel: usize| {
        let scale = affine.map_or(1.0, |affine| f64::from(affine.scale[channel]));
        let shift = affine.map_or(0.0, |affine| f64::from(affine.shift[channel]));
        let multiplier = (factor(&first) * scale) as f32;
        let zero = f64::from(first.zero) * f64::from(multiplier);
        (multiplier, (shift / unit + f64::from(to.zero) - zero - zeros) as f32)
    };
    let (multiplier, offset) = (0..channels).map(part).unzip();
    ByteSum { multiplier, offset, others, bounds: byte_bounds(activation, to), zero: to.zero }
}
