//! Operations that make the rows of each block of their output independently.
#![allow(unsafe_code)]

use half::bf16;

use crate::number::{Number, Numbers};
use crate::parallel::piece;
use crate::simd::{Kernel, Simd};
use crate::{Isa, KernelError, Layout, Operation};

/// A computation that makes the rows of each block of its output independently.
pub(crate) trait RowKernel: Send + Sync {
    /// Makes one row of numbers `O`, but for its halo, from inputs of numbers `I`. Implementations are
    /// `#[inline(always)]`.
    ///
    /// # Safety
    /// The row exists, and its pointers are to what they are said to be.
    unsafe fn row<S: Simd, I: Number, O: Number>(&self, row: Row<I, O>);

    /// The byte that halos are filled with: the zero point, where the output is bytes.
    #[inline(always)]
    fn halo(&self) -> u8 {
        0
    }
}

/// A row of the output, and what it is made from.
pub(crate) struct Row<'a, I, O> {
    pub layouts: &'a Layouts,
    pub at: Place,
    /// Tensors of the layouts.
    pub inputs: &'a [*const I],
    /// The row's first pixel.
    pub output: *mut O,
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
    /// Those of all inputs.
    numbers: Numbers,
    /// Parts that the rows of a block are divided into.
    bands: usize,
}

impl<K: RowKernel> ByRows<K> {
    /// # Errors
    /// The inputs are not of the same numbers, or the output is of bfloat16 numbers and they are not.
    pub fn new(
        kernel: K,
        isa: Isa,
        inputs: Vec<Layout>,
        output: Layout,
        threads: usize,
    ) -> Result<Box<Self>, KernelError> {
        let numbers = inputs.first().map_or(output.numbers, |input| input.numbers);
        let differ = inputs.iter().any(|input| input.numbers != numbers);
        if differ || [numbers, output.numbers] == [Numbers::F32, Numbers::Bf16] {
            return Err(KernelError::Numbers { operation: "an operation" });
        }
        let blocks = (output.batch * output.blocks()).max(1);
        let bands = (threads * 4).div_ceil(blocks).clamp(1, output.height.max(1));
        Ok(Box::new(Self { kernel, isa, layouts: Layouts { inputs, output }, numbers, bands }))
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

    unsafe fn run(&self, task: usize, inputs: &[*const u8], output: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe {
            match [self.numbers, self.layouts.output.numbers] {
                [Numbers::F32, _] => self.run_on::<f32, f32>(task, inputs, output),
                [Numbers::Bf16, Numbers::F32] => self.run_on::<bf16, f32>(task, inputs, output),
                [Numbers::Bf16, Numbers::Bf16] => self.run_on::<bf16, bf16>(task, inputs, output),
            }
        }
    }
}

impl<K: RowKernel> ByRows<K> {
    unsafe fn run_on<I: Number, O: Number>(&self, task: usize, inputs: &[*const u8], output: *mut u8) {
        // SAFETY: the instruction set was found on this processor, the layouts say what the pointers are to, and the
        // pointers are the caller's promise.
        unsafe {
            let inputs = std::slice::from_raw_parts(inputs.as_ptr().cast::<*const I>(), inputs.len());
            I::call(self.isa, Task { operation: self, task, inputs, output: output.cast::<O>() })
        }
    }
}

struct Task<'a, K, I, O> {
    operation: &'a ByRows<K>,
    task: usize,
    inputs: &'a [*const I],
    output: *mut O,
}

impl<K: RowKernel, I: Number, O: Number> Kernel for Task<'_, K, I, O> {
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
                let at = Place { image, block, row };
                kernel.row::<S, I, O>(Row { layouts, at, inputs: self.inputs, output: to });
                output.fill_halo(to, kernel.halo());
            }
        }
    }
}
