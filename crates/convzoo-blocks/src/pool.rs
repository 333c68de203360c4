use burn::config::Config;
use burn::module::{Flag, Module, Param, ParamId};
use burn::nn::PaddingConfig2d;
use burn::nn::pool::{AvgPool2d, AvgPool2dConfig, MaxPool2d, MaxPool2dConfig};
use burn::tensor::Tensor;
use burn::tensor::ops::{AvgPoolOptions, MaxPoolOptions};
use convzoo_graph::{Operation, Window};
use convzoo_kernels::extension::{adaptive_average_pool2d, average_pool2d, max_pool2d};

use crate::features::{FeatureMap, Layer};

/// Configures a [`Pool`]: max or average pooling.
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
    /// Max pooling with `size`×`size` windows.
    pub fn max(size: usize, stride: usize) -> Self {
        Self::new(PoolKind::Max, [size; 2], [stride; 2])
    }

    /// Average pooling with `size`×`size` windows.
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
    pub fn forward<M: FeatureMap>(&self, input: M) -> M {
        input.layer(self)
    }
}

impl Layer<4> for Pool {
    fn operation(&self) -> Operation {
        let window = |kernel, stride| Window { kernel, stride, padding: self.padding, dilation: [1; 2] };
        match &self.op {
            PoolOp::Max(op) => {
                Operation::MaxPool2d { window: window(op.kernel_size, op.stride), ceil_mode: op.ceil_mode }
            }
            PoolOp::Avg(op) => Operation::AvgPool2d {
                window: window(op.kernel_size, op.stride),
                ceil_mode: op.ceil_mode,
                count_include_pad: op.count_include_pad,
            },
        }
    }

    fn compute(&self, input: Tensor<4>) -> Tensor<4> {
        let padding = self.padding.map(|side| (side, side));
        match &self.op {
            PoolOp::Max(op) => {
                let (kernel_size, stride, ceil_mode) = (op.kernel_size, op.stride, op.ceil_mode);
                max_pool2d(input, MaxPoolOptions { kernel_size, stride, padding, dilation: op.dilation, ceil_mode })
            }
            PoolOp::Avg(op) => {
                let options = AvgPoolOptions::new(op.kernel_size)
                    .with_stride(op.stride)
                    .with_padding_pairs(padding)
                    .with_count_include_pad(op.count_include_pad)
                    .with_ceil_mode(op.ceil_mode);
                average_pool2d(input, options)
            }
        }
    }

    fn id(&self) -> Option<ParamId> {
        Some(self.id.id)
    }
}

/// Adaptive average pooling; 1×1 is global average pooling.
#[derive(Module, Debug)]
pub struct AdaptiveAvgPool2d {
    id: Param<Flag>,
    output: [usize; 2],
}

impl AdaptiveAvgPool2d {
    /// Pools any feature map to `output`, `[height, width]`.
    pub fn new(output: [usize; 2]) -> Self {
        Self { id: Param::from_bool(true), output }
    }

    /// `[batch, channels, height, width]` to `[batch, channels, output height, output width]`.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M {
        input.layer(self)
    }
}

impl Layer<4> for AdaptiveAvgPool2d {
    fn operation(&self) -> Operation {
        Operation::AdaptiveAvgPool2d { output: self.output }
    }

    fn compute(&self, input: Tensor<4>) -> Tensor<4> {
        adaptive_average_pool2d(input, self.output)
    }

    fn id(&self) -> Option<ParamId> {
        Some(self.id.id)
    }
}

/// What a feature map is reduced to a vector by.
#[derive(Config, Debug, Copy, PartialEq, Eq)]
pub enum GlobalPooling {
    /// The mean of each channel.
    Average,
    /// The maximum of each channel.
    Max,
}

impl GlobalPooling {
    /// Makes the layer.
    pub fn init(self) -> GlobalPool {
        GlobalPool { id: Param::from_bool(true), pooling: self }
    }
}

/// Global average or max pooling.
#[derive(Module, Debug)]
pub struct GlobalPool {
    id: Param<Flag>,
    #[module(skip)]
    pooling: GlobalPooling,
}

impl GlobalPool {
    /// `[batch, channels, height, width]` to `[batch, channels, 1, 1]`.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M {
        input.layer(self)
    }
}

impl Layer<4> for GlobalPool {
    fn operation(&self) -> Operation {
        match self.pooling {
            GlobalPooling::Average => Operation::AdaptiveAvgPool2d { output: [1, 1] },
            GlobalPooling::Max => Operation::GlobalMaxPool2d,
        }
    }

    fn compute(&self, input: Tensor<4>) -> Tensor<4> {
        let [_, _, height, width] = input.dims();
        match self.pooling {
            GlobalPooling::Average => adaptive_average_pool2d(input, [1, 1]),
            GlobalPooling::Max => max_pool2d(input, MaxPoolOptions::new([height, width])),
        }
    }

    fn id(&self) -> Option<ParamId> {
        Some(self.id.id)
    }
}
