use super::node::{ConvNode, Node, Op};
use crate::elementwise::{Activation, ScaleShift};

/// Folds scales, sums and activations into the operations before them, and drops what the `output` does not need.
/// The result's last node is the output. With it, for each node its place in the result, if its work is done there.
pub(super) fn fold(mut nodes: Vec<Node>, output: usize) -> (Vec<Node>, Vec<Option<usize>>) {
    gather_from_origins(&mut nodes);
    let mut needed = vec![false; nodes.len()];
    needed[0] = true;
    needed[output] = true;
    let mut uses = vec![0; nodes.len()];
    uses[output] = 1;
    for (i, node) in nodes.iter().enumerate().rev().filter(|(i, _)| *i <= output) {
        if needed[i] {
            for input in &node.inputs {
                needed[*input] = true;
                uses[*input] += 1;
            }
        }
    }

    let mut folded: Vec<Node> = Vec::new();
    // Where each node's value is now.
    let mut place = vec![None; nodes.len()];
    for (i, mut node) in nodes.into_iter().enumerate().take(output + 1).filter(|(i, _)| needed[*i]) {
        // Producers without other users can be changed.
        let own: Vec<bool> = node.inputs.iter().map(|input| uses[*input] == 1).collect();
        // What is needed needs its inputs, which have been placed.
        node.inputs.iter_mut().for_each(|input| *input = place[*input].unwrap_or(0));
        place[i] = Some(match absorb(&mut folded, &mut node, &own) {
            Some(producer) => {
                folded[producer].layers.append(&mut node.layers);
                folded[producer].number = node.number;
                producer
            }
            None => {
                folded.push(node);
                folded.len() - 1
            }
        });
    }
    // A value that was folded into an earlier node may leave the output in the middle.
    let last = place[output].unwrap_or(0);
    folded.truncate(last + 1);
    place.iter_mut().for_each(|place| *place = place.filter(|place| *place <= last));
    (folded, place)
}

/// Lets rearrangements of channels, and concatenations of such, read the channels from where these first were: a chain of
/// them copies a channel once.
fn gather_from_origins(nodes: &mut [Node]) {
    let channels = channels(nodes);
    for i in 0..nodes.len() {
        let (done, rest) = nodes.split_at_mut(i);
        let node = &mut rest[0];
        let gathered = |input: &usize| matches!(done[*input].op, Op::Gather(_));
        let joined = |input: &usize| matches!(done[*input].op, Op::Gather(_) | Op::Concat);
        let sources = match &node.op {
            Op::Gather(sources) if node.inputs.iter().any(joined) => sources.clone(),
            Op::Concat if node.inputs.iter().any(gathered) => {
                let counts: Option<Vec<usize>> = node.inputs.iter().map(|input| channels[*input]).collect();
                let Some(counts) = counts else { continue };
                counts.iter().enumerate().flat_map(|(part, count)| (0..*count).map(move |c| (part, c))).collect()
            }
            _ => continue,
        };
        // What is read, by node and channel; inputs have been resolved before.
        let origin = |(input, channel): (usize, usize)| -> Option<(usize, usize)> {
            let from = node.inputs[input];
            match &done[from].op {
                Op::Gather(sources) => sources.get(channel).map(|(part, c)| (done[from].inputs[*part], *c)),
                Op::Concat => {
                    let mut left = channel;
                    for part in &done[from].inputs {
                        let count = channels[*part]?;
                        if left < count {
                            return Some((*part, left));
                        }
                        left -= count;
                    }
                    None
                }
                _ => Some((from, channel)),
            }
        };
        let origins: Option<Vec<(usize, usize)>> = sources.into_iter().map(origin).collect();
        let Some(origins) = origins else { continue };
        let mut inputs: Vec<usize> = Vec::new();
        let place = |(from, channel): (usize, usize)| {
            let part = inputs.iter().position(|input| *input == from).unwrap_or_else(|| {
                inputs.push(from);
                inputs.len() - 1
            });
            (part, channel)
        };
        node.op = Op::Gather(origins.into_iter().map(place).collect());
        node.inputs = inputs;
    }
}

/// The channels of each node's value; none where they depend on the images' size.
pub(super) fn channels(nodes: &[Node]) -> Vec<Option<usize>> {
    let mut channels: Vec<Option<usize>> = Vec::with_capacity(nodes.len());
    for node in nodes {
        let first = node.inputs.first().and_then(|input| channels[*input]);
        channels.push(match &node.op {
            Op::Input(channels) => Some(*channels),
            Op::Conv(conv) => Some(conv.shape.channels[1]),
            Op::ByteConv(conv) => Some(conv.conv.shape().channels[1]),
            Op::Linear { linear, .. } => Some(linear.outputs()),
            Op::Concat => node.inputs.iter().map(|input| channels[*input]).sum(),
            Op::Gather(sources) => Some(sources.len()),
            Op::Flatten => None,
            Op::Pool(_) | Op::LocalResponse(_) | Op::LayerNorm(_) | Op::Elementwise { .. } | Op::Gate => first,
            Op::ToBytes { .. } | Op::ToFloats => first,
        });
    }
    channels
}

/// Lets one of a node's producers do the node's work too, if it can; returns which.
fn absorb(nodes: &mut [Node], node: &mut Node, own: &[bool]) -> Option<usize> {
    let Op::Elementwise { affine, activation } = &mut node.op else { return None };
    match node.inputs[..] {
        [input] if own[0] => {
            let producer = &mut nodes[input];
            let takes = match (&mut producer.op, &affine) {
                (Op::Conv(conv), Some(affine))
                    if producer.inputs.len() == 1 && conv.activation == Activation::Identity =>
                {
                    scale(conv, affine);
                    true
                }
                (Op::Elementwise { affine: own @ None, activation: Activation::Identity }, Some(affine))
                    if producer.inputs.len() == 1 =>
                {
                    *own = Some(affine.clone());
                    true
                }
                (_, Some(_)) => false,
                (_, None) => true,
            };
            if !takes {
                return None;
            }
            let activated = match &mut producer.op {
                _ if *activation == Activation::Identity => true,
                Op::Conv(ConvNode { activation: own @ Activation::Identity, .. })
                | Op::Elementwise { activation: own @ Activation::Identity, .. }
                | Op::Linear { activation: own @ Activation::Identity, .. } => {
                    *own = *activation;
                    true
                }
                _ => false,
            };
            if activated {
                return Some(input);
            }
            // The scale is done; the activation is left.
            *affine = None;
            None
        }
        // A sum: the later of two convolutions adds the earlier value.
        [a, b] if affine.is_none() && a != b => {
            let (first, last) = (a.min(b), a.max(b));
            let owned = if last == a { own[0] } else { own[1] };
            let producer = &mut nodes[last];
            match &mut producer.op {
                Op::Conv(conv) if owned && conv.activation == Activation::Identity && producer.inputs.len() == 1 => {
                    producer.inputs.push(first);
                    conv.activation = *activation;
                    Some(last)
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// Folds a scale and a shift into a convolution.
fn scale(conv: &mut ConvNode, affine: &ScaleShift) {
    let outputs = conv.shape.channels[1];
    let scales = conv.scale.get_or_insert_with(|| vec![1.0; outputs]);
    let bias = conv.bias.get_or_insert_with(|| vec![0.0; outputs]);
    for (o, (scale, bias)) in scales.iter_mut().zip(bias).enumerate() {
        *scale *= affine.scale[o];
        *bias = *bias * affine.scale[o] + affine.shift[o];
    }
}
