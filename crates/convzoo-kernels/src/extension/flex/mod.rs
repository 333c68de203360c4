//! The kernels' operations on Flex's tensors: where parameters are `f32`, activations that or bfloat16 numbers, and the
//! kernels take the shapes; else Burn's own.

mod forward;
mod gradients;

use std::marker::PhantomData;

use burn::backend::ops::FloatTensorOps;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::ops::{ConvOptions, MaxPoolOptions};
use burn::tensor::{Bytes, DType, Element, FloatDType, Shape};
use burn_flex::{FlexTensor, Layout};
use half::bf16;

use crate::Isa;
use crate::conv::ConvShape;
use crate::elementwise::Activation;
use crate::number::Number;
use crate::planar::{AveragePoolPass, BatchNormPass, ConvPass, LayerNormPass, MaxPoolPass, ScalePass};
use crate::pool::{PoolKind, PoolShape};

/// Computes with the numbers of a tensor; nothing where they are others.
macro_rules! with_numbers {
    ($tensor:expr, |$N:ident| $compute:expr) => {
        match $tensor.dtype() {
            DType::F32 => {
                type $N = f32;
                $compute
            }
            DType::BF16 => {
                type $N = bf16;
                $compute
            }
            _ => None,
        }
    };
}

use with_numbers;

/// A number that activations are kept in, as an element of Burn's tensors.
pub(super) trait Activations: Number + Element {
    /// Those of a contiguous tensor.
    fn slice(tensor: &FlexTensor) -> &[Self];
    /// The same to write: copied if another tensor holds them, too.
    fn slice_mut(tensor: &mut FlexTensor) -> &mut [Self];
}

macro_rules! activations {
    ($($number:ty)*) => {
        $(impl Activations for $number {
            fn slice(tensor: &FlexTensor) -> &[Self] {
                tensor.as_slice().unwrap_or_default()
            }

            fn slice_mut(tensor: &mut FlexTensor) -> &mut [Self] {
                let len = tensor.shape().num_elements();
                &mut tensor.storage_mut()[..len]
            }
        })*
    };
}

activations!(f32 bf16);

/// A tensor's numbers, contiguous.
pub(super) struct Values<N = f32>(FlexTensor, PhantomData<N>);

impl<N: Activations> Values<N> {
    /// None unless they are of this kind.
    pub fn new(tensor: &FlexTensor) -> Option<Self> {
        (tensor.dtype() == N::dtype()).then(|| Self(tensor.to_contiguous(), PhantomData))
    }

    fn get(&self) -> &[N] {
        N::slice(&self.0)
    }
}

impl Values {
    /// Others are brought to `f32`.
    pub fn single(tensor: &FlexTensor) -> Self {
        if let Some(numbers) = Values::<bf16>::new(tensor) {
            let values = bf16::widened(isa(), numbers.get()).into_owned();
            return Self(self::tensor(values, tensor.shape()), PhantomData);
        }
        Self::new(tensor).unwrap_or_else(|| Self(cast(tensor.clone(), DType::F32).to_contiguous(), PhantomData))
    }
}

impl AsRef<[f32]> for Values {
    fn as_ref(&self) -> &[f32] {
        self.get()
    }
}

/// The tensor in other numbers, where they are others.
fn cast(tensor: FlexTensor, dtype: DType) -> FlexTensor {
    if tensor.dtype() == dtype { tensor } else { Flex::float_cast(tensor, FloatDType::from(dtype)) }
}

/// The tensor, contiguous.
fn whole(tensor: FlexTensor) -> FlexTensor {
    match tensor.layout().contiguous_offsets() {
        Some((0, _)) => tensor,
        _ => tensor.to_contiguous(),
    }
}

fn tensor<N: Element>(values: Vec<N>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape.into()), N::dtype())
}

/// Values in the numbers of another tensor.
fn tensor_like(values: Vec<f32>, shape: impl Into<Shape>, other: &FlexTensor) -> FlexTensor {
    match other.dtype() {
        DType::BF16 => tensor(bf16::rounded(isa(), values), shape),
        _ => tensor(values, shape),
    }
}

/// What `CONVZOO_ISA` asks for, or else the fastest. A program that wants to complain of a wrong name asks
/// [`Isa::detect`] before.
fn isa() -> Isa {
    Isa::detect().unwrap_or(Isa::Portable)
}

/// The convolution as the kernels take it, unless it pads unevenly or its window does not fit.
fn conv_pass(input: &FlexTensor, weight: &FlexTensor, options: &ConvOptions<2>) -> Option<ConvPass> {
    let ([batch, inputs, height, width], [outputs, _, rows, columns]) =
        (input.shape().dims::<4>(), weight.shape().dims::<4>());
    if options.padding.iter().any(|(begin, end)| begin != end) {
        return None;
    }
    let shape = ConvShape {
        channels: [inputs, outputs],
        kernel: [rows, columns],
        stride: options.stride,
        padding: options.padding.map(|(begin, _)| begin),
        dilation: options.dilation,
        groups: options.groups,
    };
    let fits = weight.shape().num_elements() == shape.weights();
    if fits { ConvPass::new(isa(), shape, batch, [height, width]).ok() } else { None }
}

fn norm_pass(input: &FlexTensor, epsilon: f64, activation: Activation) -> BatchNormPass {
    let [batch, channels, height, width] = input.shape().dims();
    BatchNormPass { isa: isa(), batch, channels, plane: height * width, epsilon, activation }
}

fn scale_pass(input: &FlexTensor) -> ScalePass {
    let [batch, channels, height, width] = input.shape().dims();
    ScalePass { isa: isa(), planes: batch * channels, plane: height * width }
}

fn layer_norm_pass(input: &FlexTensor, epsilon: f64) -> LayerNormPass {
    let [batch, channels, height, width] = input.shape().dims();
    LayerNormPass { isa: isa(), batch, channels, plane: height * width, epsilon }
}

/// Max pooling as the kernels take it, unless its window does not fit.
fn max_pool_pass(input: &FlexTensor, options: &MaxPoolOptions<2>) -> Option<MaxPoolPass> {
    let [batch, channels, height, width] = input.shape().dims();
    let shape = PoolShape::Sliding {
        kind: PoolKind::Max,
        kernel: options.kernel_size,
        stride: options.stride,
        padding: options.padding.map(|(begin, _)| begin),
        ceil: options.ceil_mode,
    };
    MaxPoolPass::new(isa(), &shape, batch * channels, [height, width]).ok()
}

/// The same of average pooling.
fn average_pool_pass(input: &Shape, shape: &PoolShape) -> Option<AveragePoolPass> {
    let [batch, channels, height, width] = input.dims();
    AveragePoolPass::new(isa(), shape, batch * channels, [height, width]).ok()
}
