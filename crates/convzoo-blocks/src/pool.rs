use burn::config::Config;
use burn::module::{Flag, Module, Param};
use burn::nn::PaddingConfig2d;
use burn::nn::pool::{AvgPool2d, AvgPool2dConfig, MaxPool2d, MaxPool2dConfig};
use burn::tensor::Tensor;
use burn::tensor::ops::{AvgPoolOptions, MaxPoolOptions};
use convzoo_kernels::extension::{adaptive_average_pool2d, average_pool2d, max_pool2d};
use convzoo_kernels::pool::{PoolKind as Taken, PoolShape};

use crate::observe::{self, Layer, Window};
use crate::trace::{self, Scope};

/// Configures a [`Pool`]: a sliding maximum or mean.
#[derive(Config, Debug)]
pub struct PoolConfig {
    kind: PoolKind,
    kernel_size: [usize; 2],
    stride: [usize; 2],
    #[config(default = "[0, 0]")]
    padding: [usize; 2],
    #[config(default = false)]
    ceil_mode: bool,
    #[config(default = true)]
    count_include_pad: bool,
}

#[derive(Config, Debug, Copy)]
enum PoolKind {
    Max,
    Avg,
}

impl PoolConfig {
    /// The maximum over `size`×`size` windows, `stride` apart.
    pub fn max(size: usize, stride: usize) -> Self {
        Self::new(PoolKind::Max, [size; 2], [stride; 2])
    }

    /// The mean over `size`×`size` windows, `stride` apart.
    pub fn avg(size: usize, stride: usize) -> Self {
        Self::new(PoolKind::Avg, [size; 2], [stride; 2])
    }

    /// Makes the layer.
    pub fn init(&self) -> Pool {
        let padding = PaddingConfig2d::Explicit(self.padding[0], self.padding[1], self.padding[0], self.padding[1]);
        let op = match self.kind {
            PoolKind::Max => PoolOp::Max(
                MaxPool2dConfig::new(self.kernel_size)
                    .with_strides(self.stride)
                    .with_padding(padding)
                    .with_ceil_mode(self.ceil_mode)
                    .init(),
            ),
            PoolKind::Avg => PoolOp::Avg(
                AvgPool2dConfig::new(self.kernel_size)
                    .with_strides(self.stride)
                    .with_padding(padding)
                    .with_count_include_pad(self.count_include_pad)
                    .with_ceil_mode(self.ceil_mode)
                    .init(),
            ),
        };
        Pool { id: Param::from_bool(true), op, padding: self.padding }
    }
}

/// Max or average pooling.
#[derive(Module, Debug)]
pub struct Pool {
    id: Param<Flag>,
    op: PoolOp,
    padding: [usize; 2],
}

#[derive(Module, Debug)]
enum PoolOp {
    Max(MaxPool2d),
    Avg(AvgPool2d),
}

impl Pool {
    /// `[batch, channels, height, width]` to `[batch, channels, height', width']`.
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let describe = |[batch, channels, height, width]: [usize; 4]| {
            let (kind, kernel, stride, ceil) = match &self.op {
                PoolOp::Max(op) => ("MaxPool2d", op.kernel_size, op.stride, op.ceil_mode),
                PoolOp::Avg(op) => ("AvgPool2d", op.kernel_size, op.stride, op.ceil_mode),
            };
            let window = Window { kernel, stride, padding: self.padding, dilation: [1, 1] };
            let dims = [batch, channels, window.output(0, height, ceil), window.output(1, width, ceil)];
            (Layer::new(kind, self.id.id, 0).with_window(window), dims)
        };
        let compute = |input| {
            observe::layer(input, describe, |input| match &self.op {
                PoolOp::Max(op) => {
                    let options = MaxPoolOptions {
                        kernel_size: op.kernel_size,
                        stride: op.stride,
                        padding: self.padding.map(|side| (side, side)),
                        dilation: op.dilation,
                        ceil_mode: op.ceil_mode,
                    };
                    max_pool2d(input, options)
                }
                PoolOp::Avg(op) => {
                    let options = AvgPoolOptions::new(op.kernel_size)
                        .with_stride(op.stride)
                        .with_padding_pairs(self.padding.map(|side| (side, side)))
                        .with_count_include_pad(op.count_include_pad)
                        .with_ceil_mode(op.ceil_mode);
                    average_pool2d(input, options)
                }
            })
        };
        trace::layer("pooling", input, compute, |Scope { graph, .. }, input| {
            let (kind, kernel, stride, ceil) = match &self.op {
                PoolOp::Max(op) => (Taken::Max, op.kernel_size, op.stride, op.ceil_mode),
                PoolOp::Avg(op) => {
                    let kind = Taken::Average { count_include_pad: op.count_include_pad };
                    (kind, op.kernel_size, op.stride, op.ceil_mode)
                }
            };
            Ok(graph.pool(input, PoolShape::Sliding { kind, kernel, stride, padding: self.padding, ceil }))
        })
    }
}

/// The mean over as many equal windows as the output has cells; 1×1 is global average pooling.
#[derive(Module, Debug)]
pub struct AdaptiveAvgPool2d {
    id: Param<Flag>,
    output: [usize; 2],
}

impl AdaptiveAvgPool2d {
    /// Pools any map to `output`, `[height, width]`.
    pub fn new(output: [usize; 2]) -> Self {
        Self { id: Param::from_bool(true), output }
    }

    /// `[batch, channels, height, width]` to `[batch, channels, output height, output width]`.
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let describe = |[batch, channels, ..]: [usize; 4]| {
            let layer = Layer::new("AdaptiveAvgPool2d", self.id.id, 0);
            // Equal windows see their share of the map; only a single one sees all of it.
            let layer = if self.output == [1, 1] { layer.seeing_all() } else { layer };
            (layer, [batch, channels, self.output[0], self.output[1]])
        };
        let compute = |input| observe::layer(input, describe, |input| adaptive_average_pool2d(input, self.output));
        trace::layer("AdaptiveAvgPool2d", input, compute, |Scope { graph, .. }, input| {
            Ok(graph.pool(input, PoolShape::Adaptive(self.output)))
        })
    }
}
