//! The parts that the papers on convolutional networks name, as Burn modules.
//!
//! Every block follows Burn's idiom: a `Config` with defaults, `init(&device)`, `forward` with its shapes
//! documented. All convolutions use one unit, [`ConvUnit`] (convolution, normalization, activation) or its
//! pre-activation form [`PreActUnit`], so that a faster operation replaces it in one place.
//!
//! A block's `forward` takes any [`FeatureMap`]: a tensor to compute with, a [`Symbol`] to record its graph, an
//! [`Observed`] tensor to look at every layer. See [`features`].
//!
//! Feature maps are `[batch, channels, height, width]` throughout.

mod auxiliary;
mod backends;
mod channels;
mod checkpointing;
mod conv_unit;
mod convnext_block;
mod dense;
mod drop_path;
mod dropout;
mod error;
pub mod features;
mod fire;
mod fractal;
mod head;
mod inception;
mod init;
mod inverted_residual;
mod layer_norm;
mod layer_scale;
mod linear;
mod nin;
mod norm;
mod observe;
mod opaque;
mod pool;
mod rectify;
mod regnet_block;
mod residual;
mod scale;
mod shuffle_unit;
mod squeeze_excitation;
mod strategy;
mod symbol;
mod vgg;

pub use auxiliary::{AuxiliaryHead, AuxiliaryHeadConfig, AuxiliaryHeadV3, AuxiliaryHeadV3Config};
pub use channels::{ChannelShuffle, Channels};
pub use checkpointing::{Checkpointed, drawn};
pub use conv_unit::{ConvUnit, ConvUnitConfig, PreActUnit};
pub use convnext_block::{ConvNextBlock, ConvNextBlockConfig};
pub use convzoo_graph as graph;
pub use convzoo_graph::Activation;
pub use dense::{DenseBlock, DenseBlockConfig, DenseLayer, DenseLayerConfig, Transition, TransitionConfig};
pub use drop_path::{DropPath, DropPathConfig};
pub use error::ReplaceError;
pub use features::{Composite, FeatureMap, FeatureVector, Features, Layer, Segment};
pub use fire::{Fire, FireConfig};
pub use fractal::{FractalBlock, FractalBlockConfig, Paths};
pub use head::{ClassifierHead, ClassifierHeadConfig, PooledHead, PooledHeadConfig};
pub use inception::{BranchConfig, Inception, InceptionConfig, InceptionResidual, InceptionResidualConfig};
pub use init::Init;
pub use inverted_residual::{FusedMbConv, InvertedResidual, InvertedResidualConfig};
pub use layer_norm::{LayerNorm2d, LayerNorm2dConfig};
pub use layer_scale::LayerScale;
pub use linear::{Linear, LinearConfig};
pub use nin::{NinBlock, NinBlockConfig};
pub use norm::{BatchNorm2d, BatchNorm2dConfig, LocalResponseNorm, Norm, NormConfig};
pub use observe::{Observed, Observer, Rectification, Step, observe};
pub use opaque::Opaque;
pub use pool::{AdaptiveAvgPool2d, GlobalPool, GlobalPooling, Pool, PoolConfig};
pub use regnet_block::{RegNetBlock, RegNetBlockConfig};
pub use residual::{
    BasicBlock, BasicBlockConfig, Bottleneck, BottleneckConfig, PlainBlock, PreActBasicBlock, PreActBottleneck,
    ResidualBlock, Shortcut, ShortcutConfig, ShortcutKind, ZeroPad,
};
pub use scale::Scale;
pub use shuffle_unit::{ShuffleUnit, ShuffleUnitConfig};
pub use squeeze_excitation::{SqueezeExcitation, SqueezeExcitationConfig};
pub use symbol::Symbol;
pub use vgg::{VggBlock, VggBlockConfig};
