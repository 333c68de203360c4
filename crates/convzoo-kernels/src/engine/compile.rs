use convzoo_graph as graph;
use convzoo_graph::Operation;
use thiserror::Error;

use super::{CompiledNetwork, Graph, Value};
use crate::blocked::layer_norm::LayerNorm;
use crate::conv::ConvShape;
use crate::elementwise::{ScaleShift, fold_batch_norm};
use crate::linear::Linear;
use crate::lrn::LocalResponse;
use crate::pool::{PoolKind, PoolShape};
use crate::{KernelError, Precision, Values};

/// Why a network cannot be compiled.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum CompileError {
    /// An operation that the kernels do not have.
    #[error("'{name}' (operation {node} of the network) is not supported by the kernels")]
    Opaque {
        /// The node of the graph.
        node: usize,
        /// What the operation is called.
        name: String,
    },
    /// The weights lack a tensor.
    #[error("the weights of '{layer}' are not there or cannot be read")]
    Weights {
        /// The layer.
        layer: String,
    },
    /// The kernels do not take a layer.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// Compiles a network in a precision: batch norms are folded into convolutions, activations and sums computed with them;
/// `values` gives each parameter of the graph. Its output is that of the node `output`.
///
/// Stages of a [profile](super::ExecutionPlan::profile) are labeled with the nodes of the graph whose work they do.
///
/// # Errors
/// The graph has an opaque operation, `values` lacks a parameter, or the kernels do not take a layer.
pub fn compile(
    graph: &graph::Graph,
    output: usize,
    precision: Precision,
    values: impl FnMut(&graph::Parameter) -> Option<Values>,
) -> Result<CompiledNetwork, CompileError> {
    let mut compiler = Compiler { engine: Graph::new(graph.input()[0]).in_precision(precision), precision, values };
    let mut made: Vec<Value> = Vec::with_capacity(graph.nodes().len());
    for (number, node) in graph.nodes().iter().enumerate().take(output + 1) {
        let inputs: Vec<Value> = node.inputs.iter().map(|input| made[*input]).collect();
        let channels = node.inputs.first().map_or(0, |input| graph.nodes()[*input].shape[0]);
        let value = compiler.node(number, node, &inputs, channels)?;
        compiler.engine.number(value, number as u64);
        if node.operation.is_layer() {
            compiler.engine.label(value, number as u64);
        }
        made.push(value);
    }
    let output = made.get(output).copied().ok_or(KernelError::Missing("operation in the graph"))?;
    Ok(compiler.engine.finish(output)?.numbered(&made))
}

struct Compiler<F> {
    engine: Graph,
    precision: Precision,
    values: F,
}

impl<F: FnMut(&graph::Parameter) -> Option<Values>> Compiler<F> {
    /// Adds the work of one node on an input of `channels` (or features).
    fn node(
        &mut self,
        number: usize,
        node: &graph::Node,
        inputs: &[Value],
        channels: usize,
    ) -> Result<Value, CompileError> {
        let input = inputs.first().copied().unwrap_or(self.engine.input());
        Ok(match &node.operation {
            Operation::Input => self.engine.input(),
            Operation::Dropout { .. } | Operation::StochasticDepth { .. } => input,
            Operation::Conv2d { outputs, window, groups, .. } => {
                let mut values = self.parameters(node)?.into_iter();
                let weight = values.next().ok_or(KernelError::Missing("weight of a convolution"))?;
                let bias = values.next().map(|bias| bias.to_vec());
                self.engine.conv(input, conv_shape([channels, *outputs], *window, *groups), weight, bias)?
            }
            Operation::BatchNorm2d { epsilon } => {
                let parameters = self.parameters(node)?;
                let [weight, bias, mean, var] = parameters.as_slice() else {
                    return Err(KernelError::Missing("statistic of a batch normalization").into());
                };
                self.engine.scale_shift(input, fold_batch_norm(weight, bias, mean, var, *epsilon))
            }
            Operation::Scale(factor) => {
                let affine = ScaleShift { scale: vec![*factor as f32; channels], shift: vec![0.0; channels] };
                self.engine.scale_shift(input, affine)
            }
            Operation::LocalResponseNorm { size, alpha, beta, k } => {
                let (alpha, beta, k) = (*alpha as f32, *beta as f32, *k as f32);
                self.engine.local_response(input, LocalResponse { size: *size, alpha, beta, k })
            }
            Operation::LayerNorm2d { epsilon } => match self.parameters(node)?.as_slice() {
                [weight, bias] => {
                    let (weight, bias, epsilon) = (weight.to_vec(), bias.to_vec(), *epsilon as f32);
                    self.engine.layer_norm(input, LayerNorm { weight, bias, epsilon })
                }
                _ => return Err(KernelError::Missing("bias of a layer normalization").into()),
            },
            Operation::LayerScale => match self.parameters(node)?.as_slice() {
                [scale] => {
                    let affine = ScaleShift { scale: scale.to_vec(), shift: vec![0.0; channels] };
                    self.engine.scale_shift(input, affine)
                }
                _ => return Err(KernelError::Missing("factor of a layer scale").into()),
            },
            Operation::Activation(function) => self.engine.activation(input, *function),
            Operation::MaxPool2d { window, ceil_mode } => {
                self.engine.pool(input, pool_shape(PoolKind::Max, *window, *ceil_mode))
            }
            Operation::AvgPool2d { window, ceil_mode, count_include_pad } => {
                let kind = PoolKind::Average { count_include_pad: *count_include_pad };
                self.engine.pool(input, pool_shape(kind, *window, *ceil_mode))
            }
            Operation::AdaptiveAvgPool2d { output } => self.engine.pool(input, PoolShape::adaptive_average(*output)),
            Operation::GlobalMaxPool2d => self.engine.pool(input, PoolShape::global_max()),
            Operation::Add => self.engine.add(inputs),
            Operation::Gate => match inputs {
                [input, gate] => self.engine.gate(*input, *gate),
                _ => return Err(KernelError::Missing("gate").into()),
            },
            Operation::Concat => self.engine.concat(inputs),
            Operation::Channels { first, count } => self.engine.channels(input, *first..first + count),
            Operation::ChannelShuffle { groups } => {
                let group = channels / groups;
                self.engine.channels(input, (0..channels).map(|channel| channel % groups * group + channel / groups))
            }
            Operation::PadShortcut { stride, zeros } => self.pad_shortcut(input, channels, *stride, *zeros)?,
            Operation::Flatten => self.engine.flatten(input),
            Operation::Linear { outputs } => match self.parameters(node)?.as_slice() {
                // At each pixel of a feature map it is a convolution.
                [weight, bias] if node.shape.len() > 1 => {
                    let shape = ConvShape::square(channels, *outputs, 1);
                    self.engine.conv(input, shape, weight.clone(), Some(bias.to_vec()))?
                }
                [weight, bias] => {
                    let linear = Linear::new(weight.clone(), bias.to_vec(), channels, self.precision.into())?;
                    self.engine.linear(input, linear.sparse_where_faster())
                }
                _ => return Err(KernelError::Missing("bias of a linear layer").into()),
            },
            Operation::Opaque { name, .. } => return Err(CompileError::Opaque { node: number, name: name.clone() }),
        })
    }

    fn parameters(&mut self, node: &graph::Node) -> Result<Vec<Values>, CompileError> {
        let values: Option<Vec<_>> = node.parameters.iter().map(&mut self.values).collect();
        values.ok_or_else(|| CompileError::Weights { layer: node.name.clone() })
    }

    /// The same as a strided 1×1 convolution whose filters each pass one channel.
    fn pad_shortcut(
        &mut self,
        input: Value,
        inputs: usize,
        stride: usize,
        [before, after]: [usize; 2],
    ) -> Result<Value, KernelError> {
        let outputs = before + inputs + after;
        let shape = ConvShape { stride: [stride; 2], ..ConvShape::square(inputs, outputs, 1) };
        let mut weight = vec![0.0; outputs * inputs];
        (0..inputs).for_each(|channel| weight[(before + channel) * inputs + channel] = 1.0);
        self.engine.conv(input, shape, weight, None)
    }
}

fn conv_shape(channels: [usize; 2], window: graph::Window, groups: usize) -> ConvShape {
    let graph::Window { kernel, stride, padding, dilation } = window;
    ConvShape { channels, kernel, stride, padding, dilation, groups }
}

fn pool_shape(kind: PoolKind, window: graph::Window, ceil: bool) -> PoolShape {
    PoolShape::Sliding { kind, kernel: window.kernel, stride: window.stride, padding: window.padding, ceil }
}
