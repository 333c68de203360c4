//! In how many passes a batch is computed.

use super::node::{Node, Op};
use crate::Numbers;

/// What a step may read and write within the cache that a processor's cores share: half of a server's.
const CACHE: usize = 16 << 20;

/// The passes, each of as many of the images, in which least is moved beyond the cache: all weights in each of them, and
/// the activations of steps that do not fit into it. One pass, unless that saves more than its weights.
pub(super) fn passes(nodes: &[Node], shapes: &[[usize; 4]], numbers: Numbers) -> usize {
    let bytes = |i: usize| match nodes[i].bytes {
        Some(_) => shapes[i].iter().product(),
        None => shapes[i].iter().product::<usize>() * numbers.bytes(),
    };
    let step = |(i, node): (usize, &Node)| match node.op {
        // Its parts lie in their places already.
        Op::Concat => 0,
        _ => bytes(i) + node.inputs.iter().map(|input| bytes(*input)).sum::<usize>(),
    };
    let steps: Vec<usize> = nodes.iter().enumerate().map(step).collect();
    let weights: usize = nodes.iter().map(|node| weights(&node.op, numbers)).sum();
    let moved = |passes: usize| {
        let beyond = steps.iter().filter(|bytes| **bytes > CACHE * passes);
        passes * weights + beyond.sum::<usize>()
    };
    let batch = shapes.first().map_or(1, |[batch, ..]| *batch);
    (1..=batch).filter(|passes| batch.is_multiple_of(*passes)).min_by_key(|passes| moved(*passes)).unwrap_or(1)
}

/// Bytes of an operation's weights.
fn weights(op: &Op, numbers: Numbers) -> usize {
    match op {
        Op::Conv(conv) => conv.shape.weights() * numbers.bytes(),
        Op::ByteConv(conv) => conv.conv.shape().weights(),
        Op::Linear { linear, .. } => linear.weight_bytes(),
        _ => 0,
    }
}
