//! The parts that the papers on convolutional networks name, as Burn modules.
//!
//! Every block follows Burn's idiom: a `Config` with defaults, `init(&device)`, `forward` with its shapes
//! documented. Every convolution goes through one unit, [`ConvUnit`] (convolution, normalisation, activation) or its
//! pre-activation twin [`PreActUnit`], so that a faster operation replaces it in one place. Every layer reports to
//! one observer, [`observe`], from which summaries, receptive fields, feature maps and profiles are read.
//!
//! Feature maps are `[batch, channels, height, width]` throughout.

mod activation;
pub mod arithmetic;
mod auxiliary;
mod checkpointing;
mod conv_unit;
mod dense;
mod drop_path;
mod error;
mod fire;
mod fractal;
mod head;
mod inception;
mod init;
mod join;
mod linear;
mod nin;
mod norm;
pub mod observe;
mod pool;
mod rectify;
mod residual;
pub mod trace;
mod vgg;

pub use activation::Activation;
pub use auxiliary::{AuxiliaryHead, AuxiliaryHeadConfig, AuxiliaryHeadV3, AuxiliaryHeadV3Config};
pub use conv_unit::{ConvUnit, ConvUnitConfig, PreActUnit};
pub use dense::{DenseBlock, DenseBlockConfig, DenseLayer, DenseLayerConfig, Transition, TransitionConfig};
pub use drop_path::{DropPath, DropPathConfig};
pub use error::ReplaceError;
pub use fire::{Fire, FireConfig};
pub use fractal::{FractalBlock, FractalBlockConfig, Paths};
pub use head::{ClassifierHead, ClassifierHeadConfig};
pub use inception::{BranchConfig, Inception, InceptionConfig, InceptionResidual, InceptionResidualConfig};
pub use init::Init;
pub use linear::{Linear, LinearConfig};
pub use nin::{NinBlock, NinBlockConfig};
pub use norm::{BatchNorm2d, BatchNorm2dConfig, LocalResponseNorm, Norm, NormConfig};
pub use pool::{AdaptiveAvgPool2d, Pool, PoolConfig};
pub use residual::{
    BasicBlock, BasicBlockConfig, Bottleneck, BottleneckConfig, PlainBlock, PreActBasicBlock, PreActBottleneck,
    ResidualBlock, Shortcut, ShortcutConfig, ShortcutKind, ZeroPad,
};
pub use vgg::{VggBlock, VggBlockConfig};
