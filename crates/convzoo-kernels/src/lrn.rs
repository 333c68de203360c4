//! The parameters of local response normalization. The computation: [`blocked::lrn`](crate::blocked::lrn).

/// x / (k + α/size · Σx²)^β, the sum over `size` neighboring channels
/// ([Krizhevsky et al., 2012](https://papers.nips.cc/paper/2012/hash/c399862d3b9d6b76c8436e924a68c45b-Abstract.html)).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LocalResponse {
    /// Channels in the window.
    pub size: usize,
    /// α.
    pub alpha: f32,
    /// β.
    pub beta: f32,
    /// k.
    pub k: f32,
}

impl LocalResponse {
    /// The widest window that the kernel takes.
    pub const MAX_SIZE: usize = 2 * 8 + 1;
}
