//! Concatenation along channels, and back.
#![allow(unsafe_code)]

use crate::memory::{Shared, filled, part_mut};
use crate::number::Number;
use crate::parallel;

/// Tensors `[batch, channels, height, width]` one after another, image by image.
///
/// # Panics
/// The images of a part are not of one length; so below.
pub fn concat<N: Number>(batch: usize, parts: &[&[N]]) -> Vec<N> {
    let lengths: Vec<usize> = parts.iter().map(|part| length(part.len(), batch)).collect();
    let whole: usize = lengths.iter().sum();
    // SAFETY: every part of every image is written by the task that has it.
    unsafe {
        filled(batch * whole, |to| {
            let to = Shared(to);
            parallel::for_each(batch * parts.len(), |task| {
                let (image, part) = (task / parts.len(), task % parts.len());
                let (length, before) = (lengths[part], lengths[..part].iter().sum::<usize>());
                let to = part_mut(&to, image * whole + before, length);
                to.copy_from_slice(&parts[part][image * length..][..length]);
            });
        })
    }
}

/// The part of [`concat()`]'s output whose images have `length` values after `before` others.
pub fn split<N: Number>(batch: usize, output: &[N], before: usize, length: usize) -> Vec<N> {
    let whole = self::length(output.len(), batch);
    assert!(before + length <= whole, "a part of {length} after {before} of {whole}");
    // SAFETY: every image is written by the task that has it.
    unsafe {
        filled(batch * length, |to| {
            let to = Shared(to);
            parallel::for_each(batch, |image| {
                let to = part_mut(&to, image * length, length);
                to.copy_from_slice(&output[image * whole + before..][..length]);
            });
        })
    }
}

/// Values of an image.
fn length(values: usize, batch: usize) -> usize {
    assert!(values.is_multiple_of(batch.max(1)), "{values} values of {batch} images");
    values / batch.max(1)
}
