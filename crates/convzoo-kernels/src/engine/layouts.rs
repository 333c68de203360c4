//! Shape, layout and memory of each tensor.

use super::node::{Node, Op};
use super::weights::PackedConvs;
use crate::cost::PLANAR_CHANNELS;
use crate::pool::PoolShape;
use crate::quantized::byte_layout;
use crate::{KernelError, Layout, Numbers};

/// The memory that a value lies in: its own, or a part of a concatenation's.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Home {
    /// The node whose memory it is.
    pub owner: usize,
    /// The block at which the value starts.
    pub block: usize,
}

/// Which memory each value lies in, and how.
pub(super) struct Homes {
    pub homes: Vec<Home>,
    /// Nodes whose value is their input's, as it lies.
    pub views: Vec<bool>,
    /// The halo of each memory, by its owner.
    halos: Vec<usize>,
    /// The lanes of each memory, by its owner.
    lanes: Vec<usize>,
    /// The numbers of each memory, by its owner.
    numbers: Vec<Numbers>,
    /// Whether each memory holds bytes, by its owner.
    bytes: Vec<bool>,
}

impl Homes {
    pub fn new(nodes: &[Node], shapes: &[[usize; 4]], convs: &PackedConvs, planar: bool) -> Self {
        let lanes = convs.isa().lanes();
        let mut homes: Vec<Home> = (0..nodes.len()).map(|owner| Home { owner, block: 0 }).collect();
        // Concatenations from the last to the first: one that is part of another lies in the other's memory, and so do
        // its parts.
        for (i, node) in nodes.iter().enumerate().rev() {
            if !matches!(node.op, Op::Concat) || !are_aligned(&node.inputs, shapes, lanes) {
                continue;
            }
            let mut home = homes[i];
            for part in &node.inputs {
                let fixed = matches!(
                    nodes[*part].op,
                    Op::Input(_) | Op::Flatten | Op::Linear { .. } | Op::ToBytes { planes: true }
                );
                if homes[*part].owner == *part && !fixed {
                    homes[*part] = home;
                }
                home.block += shapes[*part][1].div_ceil(lanes);
            }
        }
        let mut views = vec![false; nodes.len()];
        // A pooling that keeps the size does nothing.
        for (i, node) in nodes.iter().enumerate() {
            if let Op::Pool(PoolShape::Adaptive { .. }) = node.op
                && shapes[i] == shapes[node.inputs[0]]
                && homes[i].owner == i
                && node.bytes == nodes[node.inputs[0]].bytes
            {
                homes[i] = homes[node.inputs[0]];
                views[i] = true;
            }
        }
        let mut halos = vec![0; nodes.len()];
        for node in nodes {
            let padding = match &node.op {
                Op::Conv(conv) => conv.shape.padding[1],
                Op::ByteConv(conv) => conv.conv.shape().padding[1],
                _ => continue,
            };
            let halo = &mut halos[homes[node.inputs[0]].owner];
            *halo = padding.max(*halo);
        }
        for (i, node) in nodes.iter().enumerate() {
            if let Op::Flatten = node.op
                && shapes[node.inputs[0]][2..] == [1, 1]
                && halos[homes[node.inputs[0]].owner] == 0
                && homes[i].owner == i
                && halos[i] == 0
            {
                homes[i] = homes[node.inputs[0]];
                views[i] = true;
            }
        }
        let planes = |i: usize| planar && i == 0 || matches!(nodes[i].op, Op::ToBytes { planes: true });
        let lanes = (0..nodes.len()).map(|i| if planes(i) { 1 } else { lanes }).collect();
        let bytes: Vec<bool> = nodes.iter().map(|node| node.bytes.is_some()).collect();
        let mut numbers = vec![convs.numbers(); nodes.len()];
        if planar {
            numbers[0] = Numbers::F32;
        }
        // The network's output is not rounded where what makes it need not be.
        let output = homes[nodes.len() - 1].owner;
        if matches!(nodes[output].op, Op::Pool(_) | Op::Linear { .. }) {
            numbers[output] = Numbers::F32;
        }
        Self { homes, views, halos, lanes, numbers, bytes }
    }

    /// The layout of a node's value.
    pub fn layout(&self, node: usize, shapes: &[[usize; 4]]) -> Layout {
        let owner = self.homes[node].owner;
        let (lanes, halo) = (self.lanes[owner], self.halos[owner]);
        let layout = |shape| match self.bytes[owner] {
            true => byte_layout(shape, lanes, halo),
            false => Layout::new(shape, lanes, halo).of(self.numbers[owner]),
        };
        Layout { image: layout(shapes[owner]).image, ..layout(shapes[node]) }
    }
}

/// Whether each part starts at a block.
pub(super) fn are_aligned(parts: &[usize], shapes: &[[usize; 4]], lanes: usize) -> bool {
    let Some((_, front)) = parts.split_last() else { return false };
    front.iter().all(|part| shapes[*part][1].is_multiple_of(lanes))
}

/// Whether the images stay in their order: they have few channels, and only convolutions read them.
pub(super) fn takes_planes(nodes: &[Node]) -> bool {
    let few = matches!(nodes[0].op, Op::Input(channels) if channels <= PLANAR_CHANNELS);
    let convolved = |node: &Node| match node.op {
        Op::Conv(_) => node.inputs.get(1) != Some(&0),
        Op::ToBytes { planes } => planes || !node.inputs.contains(&0),
        _ => !node.inputs.contains(&0),
    };
    few && nodes.len() > 1 && nodes.iter().all(convolved)
}

/// The shape of each node's value.
pub(super) fn shapes(nodes: &[Node], input: [usize; 4]) -> Result<Vec<[usize; 4]>, KernelError> {
    if input.contains(&0) {
        return Err(KernelError::Missing("pixel in the images"));
    }
    let mut shapes: Vec<[usize; 4]> = Vec::with_capacity(nodes.len());
    for node in nodes {
        let first = node.inputs.first().map_or(input, |first| shapes[*first]);
        let [batch, channels, height, width] = first;
        let takes = |operation, expected| match channels == expected {
            true => Ok(()),
            false => Err(KernelError::Channels { operation, expected, found: channels }),
        };
        shapes.push(match &node.op {
            Op::Input(expected) => {
                takes("the network", *expected)?;
                input
            }
            Op::Conv(conv) => {
                takes("a convolution", conv.shape.channels[0])?;
                let [height, width] = conv.shape.output([height, width])?;
                [batch, conv.shape.channels[1], height, width]
            }
            Op::ByteConv(conv) => {
                let shape = conv.conv.shape();
                takes("a convolution", shape.channels[0])?;
                let [height, width] = shape.output([height, width])?;
                [batch, shape.channels[1], height, width]
            }
            Op::ToBytes { .. } | Op::ToFloats => first,
            Op::Pool(shape) => {
                let [height, width] = shape.output([height, width])?;
                [batch, channels, height, width]
            }
            Op::LocalResponse(_) | Op::LayerNorm(_) | Op::Elementwise { .. } | Op::Gate => match node.inputs.is_empty()
            {
                true => return Err(KernelError::Missing("tensor to add")),
                false => first,
            },
            Op::Concat => match node.inputs.is_empty() {
                true => return Err(KernelError::Missing("tensor to concatenate")),
                false => [batch, node.inputs.iter().map(|part| shapes[*part][1]).sum(), height, width],
            },
            Op::Gather(sources) => [batch, sources.len(), height, width],
            Op::Flatten => [batch, channels * height * width, 1, 1],
            Op::Linear { linear, .. } => [batch, linear.outputs(), 1, 1],
        });
    }
    Ok(shapes)
}
