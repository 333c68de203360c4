use std::fmt;
use std::time::Duration;

use super::graph::{self, Node, Op};
use crate::conv::{Algorithm, Conv};
use crate::elementwise::Activation;
use crate::linear::Precision;
use crate::{Isa, Layout, Operation};

/// Where the time of a [`Plan`](super::Plan)'s runs goes, each time the median over runs.
#[derive(Clone, Debug)]
pub struct Profile {
    /// In the order of their computation.
    pub stages: Vec<Stage>,
    /// From the end of the last stage until the answer lies in the usual order.
    pub answer: Duration,
}

/// A stage of a [`Plan`](super::Plan): what it does, what that takes, and how long.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// The layers that it computes, as they were [labelled](super::Graph::label), in their order. None where it only
    /// joins or brings into another order what layers have made.
    pub layers: Vec<u64>,
    /// How it is computed.
    pub kind: Kind,
    /// Whether tensors are added in it.
    pub sum: bool,
    /// What comes last.
    pub activation: Activation,
    /// The output, `[batch, channels, height, width]`.
    pub output: [usize; 4],
    /// Multiply-adds by the definition of convolutions and linear layers, for all images; nothing else is counted.
    pub macs: usize,
    /// Multiplications that are done in their stead: fewer by Winograd's method, more where channels do not fill a
    /// vector or a vector spans several groups.
    pub multiplications: usize,
    /// Bytes of packed weights, which it reads.
    pub weight_bytes: usize,
    /// Bytes of activations that it reads and writes at least.
    pub value_bytes: usize,
    /// The median over runs, on all threads.
    pub time: Duration,
    /// The least of them.
    pub fastest: Duration,
}

/// How a stage is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Images brought into blocks of channels.
    Pack,
    /// A convolution.
    Conv {
        /// How.
        algorithm: Algorithm,
        /// Height and width of its kernel.
        kernel: [usize; 2],
    },
    /// Pooling.
    Pool,
    /// Local response normalisation.
    LocalResponse,
    /// Scale and shift, a sum or an activation that no other stage could take in.
    Elementwise,
    /// A concatenation, or the part of one that does not lie in its place already.
    Concat,
    /// Maps brought into the order of vectors.
    Flatten,
    /// A fully-connected layer.
    Linear(Precision),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Pack => f.write_str("packing"),
            Self::Conv { algorithm: Algorithm::Winograd(tile), .. } => {
                let side = tile.outputs();
                write!(f, "Winograd F({side}×{side}, 3×3)")
            }
            Self::Conv { algorithm, kernel: [height, width] } => {
                let name = match algorithm {
                    Algorithm::Planar => "planar",
                    Algorithm::Depthwise => "depthwise",
                    _ => "direct",
                };
                write!(f, "{name} {height}×{width}")
            }
            Self::Pool => f.write_str("pooling"),
            Self::LocalResponse => f.write_str("local response"),
            Self::Elementwise => f.write_str("element-wise"),
            Self::Concat => f.write_str("concatenation"),
            Self::Flatten => f.write_str("flattening"),
            Self::Linear(Precision::Single) => f.write_str("linear"),
            Self::Linear(Precision::Half) => f.write_str("linear, f16"),
        }
    }
}

/// A convolution as a plan has chosen it.
pub(super) struct Chosen {
    pub conv: Conv,
    pub algorithm: Algorithm,
    pub isa: Isa,
}

impl Stage {
    /// The stage that computes a node by an operation; of a convolution it is told how.
    pub(super) fn new(node: &Node, operation: &dyn Operation, chosen: Option<Chosen>) -> Self {
        let (inputs, output) = (operation.inputs(), operation.output());
        let values: usize = inputs.iter().chain([&output]).map(floats).sum();
        let mut stage = Self {
            layers: node.layers.clone(),
            kind: Kind::Pack,
            sum: node.inputs.len() > 1,
            activation: Activation::Identity,
            output: output.shape(),
            macs: 0,
            multiplications: 0,
            weight_bytes: 0,
            value_bytes: values * size_of::<f32>(),
            time: Duration::ZERO,
            fastest: Duration::ZERO,
        };
        match (&node.op, chosen) {
            (Op::Conv(conv), Some(chosen)) => stage.convolve(conv, &inputs[0], &chosen),
            (Op::Input(_) | Op::Conv(_), _) => {}
            (Op::Pool(_), _) => stage.kind = Kind::Pool,
            (Op::LocalResponse(_), _) => stage.kind = Kind::LocalResponse,
            (Op::Elementwise { activation, .. }, _) => {
                (stage.kind, stage.activation) = (Kind::Elementwise, *activation);
            }
            (Op::Concat, _) => (stage.kind, stage.sum) = (Kind::Concat, false),
            (Op::Flatten, _) => stage.kind = Kind::Flatten,
            (Op::Linear { linear, activation }, _) => {
                (stage.kind, stage.activation) = (Kind::Linear(linear.precision()), *activation);
                stage.macs = output.batch * linear.inputs() * linear.outputs();
                stage.multiplications = stage.macs;
                stage.weight_bytes = linear.weight_bytes();
            }
        }
        stage
    }

    fn convolve(&mut self, node: &graph::Conv, input: &Layout, Chosen { conv, algorithm, isa }: &Chosen) {
        let [batch, outputs, height, width] = self.output;
        let (shape, pixels) = (node.shape, batch * height * width);
        // Each packed weight is multiplied once for each pixel or, by Winograd's method, for each tile.
        let (weights, times) = match (conv, algorithm) {
            (Conv::Direct(conv), _) => (conv.packed_weights(), pixels),
            (Conv::Depthwise(conv), _) => (conv.packed_weights(), pixels),
            (Conv::Winograd(_), Algorithm::Winograd(tile)) => {
                let tiles = batch * height.div_ceil(tile.outputs()) * width.div_ceil(tile.outputs());
                (tile.inputs().pow(2) * shape.channels[0] * outputs.next_multiple_of(isa.lanes()), tiles)
            }
            (Conv::Winograd(_), _) => unreachable!("a convolution is packed for its algorithm"),
        };
        self.kind = Kind::Conv { algorithm: *algorithm, kernel: shape.kernel };
        self.activation = if node.relu { Activation::Relu } else { Activation::Identity };
        self.macs = pixels * shape.weights();
        self.multiplications = times * weights;
        self.weight_bytes = weights * size_of::<f32>();
        // A stride that is longer than the kernel leaves rows and columns out.
        let [rows, columns] = [0, 1].map(|i| shape.kernel[i].min(shape.stride[i]));
        let read = floats(input) * rows * columns / (shape.stride[0] * shape.stride[1]);
        self.value_bytes -= (floats(input) - read) * size_of::<f32>();
    }
}

/// Floats of a tensor that may lie within another.
fn floats(layout: &Layout) -> usize {
    layout.batch * layout.blocks() * layout.block()
}
