//! Fast CPU operations for convolutional networks.
//!
//! Activations are held in blocks of channels ([`Layout`]), so that one instruction computes as many output channels
//! as a vector has lanes; weights are packed once into the order in which kernels read them. From the inside out:
//!
//! - [`simd`]: vectors of the instruction sets, one of which is chosen when the program runs (`CONVZOO_ISA` forces one).
//! - [`conv`]: a register tile of up to 14 pixels by two blocks of channels, fed by direct convolutions of any shape and
//!   by Winograd's for 3×3; bias, sum and ReLU are applied while the tile is in registers.
//! - [`pool`], [`linear`], [`lrn`], [`elementwise`], [`rearrange`]: the other layers.
//! - [`parallel`]: the tasks that an [`Operation`] divides into, on all threads.
//! - [`engine`]: whole networks, folded and planned.
//! - [`peak`]: what the machine can do at most, to compare with.

mod buffer;
pub mod conv;
pub mod elementwise;
pub mod engine;
mod error;
#[cfg(feature = "extension")]
pub mod extension;
mod functions;
mod layout;
pub mod linear;
pub mod lrn;
mod operation;
pub mod parallel;
pub mod peak;
pub mod pool;
pub mod rearrange;
mod rows;
pub mod simd;
pub mod train;
mod values;

pub use buffer::Buffer;
pub use error::KernelError;
pub use layout::{Layout, pack, unpack};
pub use operation::{Operation, pack_all, unpack_all};
pub use simd::Isa;
pub use values::Values;
