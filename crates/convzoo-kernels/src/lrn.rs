//! Local response normalisation.
#![allow(unsafe_code)]

use crate::rows::{ByRows, Place, RowKernel};
use crate::simd::{MAX_LANES, Simd};
use crate::{Isa, KernelError, Layout, Operation};

/// x / (k + α/size · Σx²)^β, the sum over `size` neighbouring channels
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

    /// The normalisation of one layout into another; any halos.
    ///
    /// # Errors
    /// Shapes differ, or the window is of no channel or wider than [`MAX_SIZE`](Self::MAX_SIZE).
    pub fn operation(
        self,
        isa: Isa,
        input: Layout,
        output: Layout,
        threads: usize,
    ) -> Result<Box<dyn Operation>, KernelError> {
        let operation = "local response normalisation";
        if self.size == 0 || self.size > Self::MAX_SIZE {
            return Err(KernelError::Window { operation, what: "a window of no channel or of more than 17" });
        }
        if input.shape() != output.shape() {
            let shape = |layout: Layout| [layout.channels, layout.height, layout.width];
            return Err(KernelError::Shapes { operation, left: shape(input), right: shape(output) });
        }
        Ok(Box::new(ByRows::new(Rows { norm: self, isa, input, output }, threads)))
    }
}

struct Rows {
    norm: LocalResponse,
    isa: Isa,
    input: Layout,
    output: Layout,
}

impl RowKernel for Rows {
    fn isa(&self) -> Isa {
        self.isa
    }

    fn inputs(&self) -> Vec<Layout> {
        vec![self.input]
    }

    fn output(&self) -> Layout {
        self.output
    }

    #[inline(always)]
    unsafe fn row<S: Simd>(&self, Place { image, block, row }: Place, inputs: &[*const f32], output: *mut f32) {
        let LocalResponse { size, alpha, beta, k } = self.norm;
        let (before, share) = (size / 2, alpha / size as f32);
        // SAFETY: the shapes are equal, and the pointers are valid for the layouts; a window reaches no further than
        // the neighbouring blocks.
        unsafe {
            let pixels = inputs[0].add(self.input.at(image, block, row));
            for x in 0..self.output.width {
                let pixel = pixels.add(x * S::LANES);
                // The squares of three neighbouring blocks; empty lanes are zero.
                let mut squares = [0.0; 3 * MAX_LANES];
                for neighbour in 0..3 {
                    if (1..=self.output.blocks()).contains(&(block + neighbour)) {
                        let step = self.input.block() as isize * (neighbour as isize - 1);
                        let value = S::load(pixel.offset(step));
                        S::store(squares.as_mut_ptr().add(neighbour * S::LANES), S::mul(value, value));
                    }
                }
                let mut total = S::splat(0.0);
                for channel in S::LANES - before..S::LANES - before + size {
                    total = S::add(total, S::load(squares.as_ptr().add(channel)));
                }
                let base = S::mul_add(S::splat(share), total, S::splat(k));
                let value = S::load(pixel);
                let result = if beta == 0.75 {
                    let root = S::sqrt(base);
                    S::div(value, S::mul(root, S::sqrt(root)))
                } else {
                    let mut bases = [0.0f32; MAX_LANES];
                    S::store(bases.as_mut_ptr(), base);
                    for base in &mut bases[..S::LANES] {
                        *base = base.powf(beta);
                    }
                    S::div(value, S::load(bases.as_ptr()))
                };
                S::store(output.add(x * S::LANES), result);
            }
        }
    }
}
