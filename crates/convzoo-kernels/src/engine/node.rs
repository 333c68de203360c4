use std::borrow::Cow;
use std::sync::Arc;

use crate::Values;
use crate::blocked::layer_norm::LayerNorm;
use crate::conv::ConvShape;
use crate::elementwise::{Activation, ScaleShift};
use crate::linear::Linear;
use crate::lrn::LocalResponse;
use crate::pool::PoolShape;
use crate::quantized::conv::ByteConv;
use crate::quantized::{ByteScale, Requantize};

/// An operation of a graph.
#[derive(Clone)]
pub(super) struct Node {
    pub op: Op,
    /// Indices of earlier nodes.
    pub inputs: Vec<usize>,
    /// The layers whose work it does, as they were labeled.
    pub layers: Vec<u64>,
    /// The last operation whose work it does, as it was numbered.
    pub number: Option<u64>,
    /// How its value is bytes, if it is.
    pub bytes: Option<ByteScale>,
}

#[derive(Clone)]
pub(super) enum Op {
    /// Images of so many channels.
    Input(usize),
    Conv(ConvNode),
    Pool(PoolShape),
    LocalResponse(LocalResponse),
    LayerNorm(LayerNorm),
    /// Of the sum of its inputs, the first scaled and shifted.
    Elementwise {
        affine: Option<ScaleShift>,
        activation: Activation,
    },
    /// The first input, each channel multiplied by that of the second.
    Gate,
    Concat,
    /// For each channel an input and its channel.
    Gather(Vec<(usize, usize)>),
    Flatten,
    Linear {
        linear: Arc<Linear>,
        activation: Activation,
    },
    /// Floats to bytes. `planes`: of images in NCHW order, into blocks of four channels.
    ToBytes {
        planes: bool,
    },
    /// Bytes to floats.
    ToFloats,
    /// A convolution or a fully-connected layer on bytes.
    ByteConv(ByteConvNode),
}

/// A convolution of bytes; its second input, where it has one, is added to its output.
#[derive(Clone)]
pub(super) struct ByteConvNode {
    pub conv: ByteConv,
    pub requantize: Arc<Requantize>,
    /// What is done to outputs that are floats.
    pub activation: Activation,
}

/// A convolution; its second input, where it has one, is added to its output.
#[derive(Clone)]
pub(super) struct ConvNode {
    pub shape: ConvShape,
    pub weight: Values,
    /// What the filter of each output is multiplied by.
    pub scale: Option<Vec<f32>>,
    pub bias: Option<Vec<f32>>,
    /// Of the output, what is added to it included.
    pub activation: Activation,
}

impl ConvNode {
    /// The weight, scaled.
    pub fn scaled_weight(&self) -> Cow<'_, [f32]> {
        let Some(scale) = &self.scale else { return Cow::Borrowed(&self.weight) };
        let filter = self.weight.len() / scale.len();
        let filters = self.weight.chunks_exact(filter).zip(scale);
        Cow::Owned(filters.flat_map(|(filter, scale)| filter.iter().map(move |weight| weight * scale)).collect())
    }
}
