use std::fmt;
use std::time::Duration;

use super::node::{ConvNode, Node, Op};
use crate::blocked::conv::{Algorithm, Conv};
use crate::elementwise::Activation;
use crate::linear::LinearPrecision;
use crate::quantized::conv::ByteConv;
use crate::{Layout, Operation};

/// Where the time of a [`ExecutionPlan`](super::ExecutionPlan)'s runs goes, each time the median over runs.
#[derive(Clone, Debug)]
pub struct Profile {
    /// In the order of their computation.
    pub steps: Vec<ProfiledStep>,
    /// From the end of the last step until the output is in NCHW order.
    pub answer: Duration,
}

/// A step of a [`ExecutionPlan`](super::ExecutionPlan): its operation, cost and time.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfiledStep {
    /// The layers that it computes, as they were [labeled](super::Graph::label), in their order. None where it only
    /// joins or reorders the outputs of layers.
    pub layers: Vec<u64>,
    /// How it is computed.
    pub kind: StepKind,
    /// Whether tensors are added in it.
    pub sum: bool,
    /// The activation.
    pub activation: Activation,
    /// The output, `[batch, channels, height, width]`.
    pub output: [usize; 4],
    /// Multiply-adds by the definition of convolutions and linear layers, for all images; nothing else is counted.
    pub macs: usize,
    /// Multiplications that are actually done: fewer by Winograd's method, more where channels do not fill a
    /// vector or a vector spans several groups.
    pub multiplications: usize,
    /// Bytes of packed weights that it reads, once in each pass over the images.
    pub weight_bytes: usize,
    /// Bytes of activations that it reads and writes at least.
    pub value_bytes: usize,
    /// The median over runs, on all threads.
    pub time: Duration,
    /// The minimum over runs.
    pub fastest: Duration,
}

/// How a step is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StepKind {
    /// Images copied into blocks of channels.
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
    /// Local response normalization.
    LocalResponse,
    /// Layer normalization.
    LayerNorm,
    /// Scale and shift, a sum or an activation that could not be fused into another step.
    Elementwise,
    /// Channels multiplied by a gate.
    Gate,
    /// A concatenation, or the part of one that does not lie in its place already; channels in another order.
    Concat,
    /// Feature maps flattened to vectors.
    Flatten,
    /// A fully-connected layer.
    Linear(LinearPrecision),
    /// A fully-connected layer most of whose weights are zero.
    SparseLinear,
    /// Floats to bytes.
    ToBytes,
    /// Bytes to floats.
    ToFloats,
    /// A convolution or a fully-connected layer on bytes.
    ByteConv {
        /// Height and width of its kernel.
        kernel: [usize; 2],
        /// Whether each channel has a kernel of its own.
        depthwise: bool,
    },
}

impl fmt::Display for StepKind {
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
            Self::LayerNorm => f.write_str("layer normalization"),
            Self::Gate => f.write_str("gate"),
            Self::Elementwise => f.write_str("element-wise"),
            Self::Concat => f.write_str("concatenation"),
            Self::Flatten => f.write_str("flattening"),
            Self::Linear(LinearPrecision::Single) => f.write_str("linear"),
            Self::Linear(LinearPrecision::Half) => f.write_str("linear, f16"),
            Self::Linear(LinearPrecision::Bf16) => f.write_str("linear, bf16"),
            Self::SparseLinear => f.write_str("sparse linear"),
            Self::ToBytes => f.write_str("to bytes"),
            Self::ToFloats => f.write_str("to floats"),
            Self::ByteConv { kernel: [height, width], depthwise } => {
                write!(f, "{}, int8 {height}×{width}", if *depthwise { "depthwise" } else { "direct" })
            }
        }
    }
}

/// A convolution as a plan has chosen it.
pub(super) struct Chosen {
    pub conv: Conv,
    pub algorithm: Algorithm,
}

impl ProfiledStep {
    /// The step that computes a node by an operation; of a convolution it is told how.
    pub(super) fn new(node: &Node, operation: &dyn Operation, chosen: Option<Chosen>) -> Self {
        let (inputs, output) = (operation.inputs(), operation.output());
        let values: usize = inputs.iter().chain([&output]).map(bytes).sum();
        let mut step = Self {
            layers: node.layers.clone(),
            kind: StepKind::Pack,
            sum: node.inputs.len() > 1,
            activation: Activation::Identity,
            output: output.shape(),
            macs: 0,
            multiplications: 0,
            weight_bytes: 0,
            value_bytes: values,
            time: Duration::ZERO,
            fastest: Duration::ZERO,
        };
        match (&node.op, chosen) {
            (Op::Conv(conv), Some(chosen)) => step.convolve(conv, &inputs[0], &chosen),
            (Op::Input(_) | Op::Conv(_), _) => {}
            (Op::Pool(_), _) => step.kind = StepKind::Pool,
            (Op::LocalResponse(_), _) => step.kind = StepKind::LocalResponse,
            (Op::LayerNorm(_), _) => step.kind = StepKind::LayerNorm,
            (Op::Gate, _) => (step.kind, step.sum) = (StepKind::Gate, false),
            (Op::Elementwise { activation, .. }, _) => {
                (step.kind, step.activation) = (StepKind::Elementwise, *activation);
            }
            (Op::Concat | Op::Gather(_), _) => (step.kind, step.sum) = (StepKind::Concat, false),
            (Op::Flatten, _) => step.kind = StepKind::Flatten,
            (Op::ToBytes { .. }, _) => step.kind = StepKind::ToBytes,
            (Op::ToFloats, _) => step.kind = StepKind::ToFloats,
            (Op::ByteConv(node), _) => {
                let (shape, [batch, _, height, width]) = (node.conv.shape(), step.output);
                let depthwise = matches!(node.conv, ByteConv::Depthwise(_));
                step.kind = StepKind::ByteConv { kernel: shape.kernel, depthwise };
                step.activation = node.activation;
                step.output[1] = shape.channels[1];
                step.macs = batch * height * width * shape.weights();
                (step.multiplications, step.weight_bytes) = (step.macs, node.conv.weight_bytes());
            }
            (Op::Linear { linear, activation }, _) => {
                (step.kind, step.activation) = (StepKind::Linear(linear.precision()), *activation);
                step.macs = output.batch * linear.inputs() * linear.outputs();
                (step.multiplications, step.weight_bytes) = (step.macs, linear.weight_bytes());
                if let Some(weight) = linear.sparse(output.batch) {
                    step.kind = StepKind::SparseLinear;
                    (step.multiplications, step.weight_bytes) = (output.batch * weight.len(), weight.bytes());
                }
            }
        }
        step
    }

    /// Says of a step in one pass what it does in so many.
    pub(super) fn repeat(&mut self, passes: usize) {
        let Self { output: [images, ..], macs, multiplications, weight_bytes, value_bytes, .. } = self;
        for figure in [images, macs, multiplications, weight_bytes, value_bytes] {
            *figure *= passes;
        }
    }

    fn convolve(&mut self, node: &ConvNode, input: &Layout, Chosen { conv, algorithm }: &Chosen) {
        let [batch, _, height, width] = self.output;
        let (shape, pixels) = (node.shape, batch * height * width);
        // Each packed weight is multiplied once for each pixel or, by Winograd's method, for each tile.
        let weights = conv.weight_bytes() / input.numbers.bytes();
        let times = match algorithm {
            Algorithm::Winograd(tile) => batch * height.div_ceil(tile.outputs()) * width.div_ceil(tile.outputs()),
            _ => pixels,
        };
        self.kind = StepKind::Conv { algorithm: *algorithm, kernel: shape.kernel };
        self.activation = node.activation;
        self.macs = pixels * shape.weights();
        self.multiplications = times * weights;
        self.weight_bytes = conv.weight_bytes();
        // A stride that is longer than the kernel leaves rows and columns out.
        let [rows, columns] = [0, 1].map(|i| shape.kernel[i].min(shape.stride[i]));
        let read = bytes(input) * rows * columns / (shape.stride[0] * shape.stride[1]);
        self.value_bytes -= bytes(input) - read;
    }
}

/// Bytes of a tensor that may lie within another.
fn bytes(layout: &Layout) -> usize {
    layout.batch * layout.blocks() * layout.block() * layout.numbers.bytes()
}
