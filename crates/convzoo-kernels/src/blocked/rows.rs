//! Operations that make the rows of each block of their output independently.
#![allow(unsafe_code)]

use crate::parallel::piece;
use crate::simd::{Kernel, Simd};
use crate::{Isa, Layout, Operation};

/// A computation that makes the rows of each block of its output independently.
pub(crate) trait RowKernel: Send + Sync {
    /// Makes one row but for its halo. Implementations are `#[inline(always)]`.
    ///
    /// # Safety
    /// The row exists, `output` points to its first pixel, and `inputs` to tensors of the layouts.
    unsafe fn row<S: Simd>(&self, layouts: &Layouts, at: Place, inputs: &[*const f32], output: *mut f32);
}

/// What a [`RowKernel`] reads and writes.
pub(crate) struct Layouts {
    pub inputs: Vec<Layout>,
    pub output: Layout,
}

/// Which row of which block.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub image: usize,
    pub block: usize,
    pub row: usize,
}

/// A [`RowKernel`] as an operation.
pub(crate) struct ByRows<K> {
    kernel: K,
    isa: Isa,
    layouts: Layouts,
    /// Parts that the rows of a block are divided into.
    bands: usize,
}

impl<K: RowKernel> ByRows<K> {
    pub fn new(kernel: K, isa: Isa, inputs: Vec<Layout>, output: Layout, threads: usize) -> Self {
        let blocks = (output.batch * output.blocks()).max(1);
        let bands = (threads * 4).div_ceil(blocks).clamp(1, output.height.max(1));
        Self { kernel, isa, layouts: Layouts { inputs, output }, bands }
    }
}

impl<K: RowKernel> Operation for ByRows<K> {
    fn tasks(&self) -> usize {
        let output = &self.layouts.output;
        output.batch * output.blocks() * self.bands
    }

    fn inputs(&self) -> Vec<Layout> {
        self.layouts.inputs.clone()
    }

    fn output(&self) -> Layout {
        self.layouts.output
    }

    unsafe fn run(&self, task: usize, inputs: &[*const f32], output: *mut f32) {
        // SAFETY: the instruction set was found on this processor, and the pointers are the caller's promise.
        unsafe { self.isa.call(Task { operation: self, task, inputs, output }) }
    }
}

struct Task<'a, K> {
    operation: &'a ByRows<K>,
    task: usize,
    inputs: &'a [*const f32],
    output: *mut f32,
}

impl<K: RowKernel> Kernel for Task<'_, K> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let ByRows { kernel, layouts, bands, .. } = self.operation;
        let output = &layouts.output;
        let (band, rest) = (self.task % bands, self.task / bands);
        let (image, block) = (rest / output.blocks(), rest % output.blocks());
        for row in piece(output.height, *bands, band) {
            // SAFETY: the row exists, and the pointers are valid for the layouts.
            unsafe {
                let to = self.output.add(output.at(image, block, row));
                kernel.row::<S>(layouts, Place { image, block, row }, self.inputs, to);
                output.clear_halo(to);
            }
        }
    }
}
