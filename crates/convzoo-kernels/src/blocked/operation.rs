//! An operation whose shapes are settled, divided into tasks.
#![allow(unsafe_code)]

use half::bf16;

use super::layout::{Layout, pack, unpack};
use crate::memory::Shared;
use crate::number::{Number, Numbers};
use crate::{Buffer, parallel};

/// An operation whose shapes and layouts are settled and whose weights are packed.
///
/// It divides into tasks that write different parts of the output, in any order, on any threads.
pub trait Operation: Send + Sync {
    /// How many tasks.
    fn tasks(&self) -> usize;

    /// The layout of each input.
    fn inputs(&self) -> Vec<Layout>;

    /// The layout of the output.
    fn output(&self) -> Layout;

    /// Does one task.
    ///
    /// # Safety
    /// `task` is less than [`tasks`](Self::tasks); `inputs` point to tensors of the layouts that
    /// [`inputs`](Self::inputs) tells, in its numbers and aligned to 16 bytes, `output` to one of
    /// [`output`](Self::output)'s, which nothing else reads or writes meanwhile but other tasks of this operation.
    unsafe fn run(&self, task: usize, inputs: &[*const u8], output: *mut u8);

    /// The whole operation on tensors in NCHW order, `[batch, channels, height, width]`.
    ///
    /// # Panics
    /// A slice's length is not that of its shape.
    fn apply(&self, inputs: &[&[f32]]) -> Vec<f32> {
        let layouts = self.inputs();
        assert_eq!(inputs.len(), layouts.len(), "inputs");
        let packed: Vec<Buffer> = inputs.iter().zip(&layouts).map(|(input, layout)| pack_all(input, layout)).collect();
        let layout = self.output();
        let mut output = Buffer::zeros(layout.bytes().div_ceil(size_of::<f32>()));
        let from: Vec<Shared<*const u8>> = packed.iter().map(|buffer| Shared(buffer.as_ptr().cast())).collect();
        let into = Shared(output.as_mut_ptr().cast());
        parallel::for_each(self.tasks(), |task| {
            let from: Vec<*const u8> = from.iter().map(Shared::get).collect();
            // SAFETY: the buffers have the layouts' lengths and outlive the call.
            unsafe { self.run(task, &from, into.get()) }
        });
        // SAFETY: the buffer has the layout's length.
        unsafe { unpack_all(output.as_ptr().cast(), &layout) }
    }
}

/// A tensor `[batch, channels, height, width]` copied into a layout, in its numbers.
pub(crate) fn pack_all(tensor: &[f32], layout: &Layout) -> Buffer {
    match layout.numbers {
        Numbers::F32 => pack_as::<f32>(tensor, layout),
        Numbers::Bf16 => pack_as::<bf16>(tensor, layout),
    }
}

fn pack_as<N: Number>(tensor: &[f32], layout: &Layout) -> Buffer {
    let image = layout.channels * layout.height * layout.width;
    assert_eq!(tensor.len(), layout.batch * image, "values of a tensor {:?}", layout.shape());
    let mut buffer = Buffer::of::<N>(layout.len());
    let into = Shared(buffer.numbers_mut::<N>().as_mut_ptr());
    parallel::for_each(layout.batch * layout.blocks(), |task| {
        let (n, block) = (task / layout.blocks(), task % layout.blocks());
        // SAFETY: each task has a block to itself, which lies within the buffer.
        let into = unsafe {
            let start = into.get().add(n * layout.image + block * layout.block());
            std::slice::from_raw_parts_mut(start, layout.block())
        };
        pack(&tensor[n * image..][..image], layout, block, into);
    });
    buffer
}

/// A tensor copied from a layout, in its numbers, into NCHW order, `[batch, channels, height, width]`.
///
/// # Safety
/// The pointer is to a tensor of the layout.
pub(crate) unsafe fn unpack_all(tensor: *const u8, layout: &Layout) -> Vec<f32> {
    // SAFETY: the caller's promise.
    unsafe {
        match layout.numbers {
            Numbers::F32 => unpack_as(std::slice::from_raw_parts(tensor.cast::<f32>(), layout.len()), layout),
            Numbers::Bf16 => unpack_as(std::slice::from_raw_parts(tensor.cast::<bf16>(), layout.len()), layout),
        }
    }
}

fn unpack_as<N: Number>(tensor: &[N], layout: &Layout) -> Vec<f32> {
    let plane = layout.height * layout.width;
    let image = layout.channels * plane;
    let mut output = vec![0.0; layout.batch * image];
    for (n, output) in output.chunks_exact_mut(image.max(1)).enumerate() {
        for block in 0..layout.blocks() {
            unpack(&tensor[n * layout.image + block * layout.block()..], layout, block, output);
        }
    }
    output
}
