//! Fast CPU operations for convolutional networks: whole networks in inference, and single operations on Burn's tensors,
//! forward and backward.
//!
//! # Where does it run?
//!
//! A 3×3 convolution of ResNet-18 (stride 1, such as `layer1.0.conv1`) runs
//!
//! - **in inference of a compiled network** in [`blocked`]: [`engine`] folds its batch norm, sum and ReLU into it and asks
//!   [`cost`] for an algorithm, which is Winograd's; `blocked/winograd.rs` reads and writes the tiles,
//!   [`winograd::pipeline`] transforms and multiplies them, and [`gemm::channel_tile`] is the loop in which the
//!   multiply-adds are. Those of stride 2 run in `blocked/direct.rs`, and end in the same loop.
//! - **in training** (and in inference layer by layer) in [`planar`]: [`extension`] takes Burn's tensors, and
//!   [`planar::ConvPass`] in `planar/conv.rs` decides. Forward and for the gradient of the input it is `planar/winograd.rs`,
//!   with the same pipeline and the same loop; for the gradient of the weight `planar/winograd_weight_grad.rs`. Those of
//!   stride 2 run in `planar/implicit_gemm.rs`, which ends in [`gemm::pixel_tile`], and `planar/weight_grad.rs`.
//!
//! # Modules, in the order in which to read them
//!
//! What operations are, whatever the layout:
//!
//! - [`conv`], [`pool`], [`linear`], [`elementwise`], [`lrn`]: shapes and parameters; `convzoo_graph::arithmetic` has the sizes of outputs.
//! - [`sparse`]: fully-connected layers most of whose weights are zero.
//! - [`error`], [`values`], [`precision`], [`number`], [`math`]: errors, shared weights, the choice of numbers and what kernels do with
//!   them, activations of one value.
//!
//! What kernels stand on:
//!
//! - [`simd`]: vectors of the instruction sets, one of which is chosen when the program runs (`CONVZOO_ISA` forces one).
//! - [`parallel`]: tasks on all threads. [`memory`]: aligned buffers and scratch memory.
//! - [`gemm`]: the register tiles. [`winograd`]: Winograd's method from any source to any sink. [`cost`]: which algorithm.
//!
//! The two layouts:
//!
//! - [`blocked`]: channels in blocks as long as a vector ([`Layout`]), each function an [`Operation`].
//! - [`engine`]: compiled networks on blocks: [`Graph`](engine::Graph) → [`CompiledNetwork`](engine::CompiledNetwork) →
//!   [`ExecutionPlan`](engine::ExecutionPlan).
//! - [`quantized`]: the same layout in bytes, for networks in int8.
//! - [`planar`]: tensors in NCHW order, forward and backward.
//!
//! And around them:
//!
//! - [`extension`]: the operations of [`planar`] on Burn's tensors, with Burn's own wherever the kernels have none.
//! - [`peak`]: what the machine can do at most, to compare with.
// The guide names modules that are private.
#![allow(rustdoc::private_intra_doc_links)]

pub mod blocked;
pub mod conv;
mod cost;
pub mod elementwise;
pub mod engine;
mod error;
#[cfg(feature = "extension")]
pub mod extension;
mod gemm;
pub mod linear;
pub mod lrn;
mod math;
mod memory;
mod number;
pub mod parallel;
pub mod peak;
pub mod planar;
pub mod pool;
mod precision;
pub mod quantized;
pub mod simd;
mod sparse;
mod values;
pub mod winograd;

pub use blocked::layout::Layout;
pub use blocked::operation::Operation;
pub use error::KernelError;
pub use memory::{Buffer, keep_freed_memory};
pub use number::{Load, Number, Numbers};
pub use precision::Precision;
pub use simd::Isa;
pub use values::Values;
