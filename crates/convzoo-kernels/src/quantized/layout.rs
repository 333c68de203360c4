//! How a tensor of bytes lies in memory.
#![allow(unsafe_code)]

use crate::{Buffer, Layout};

/// Channels whose bytes take the place of a float.
pub(crate) const QUAD: usize = 4;

/// The layout of a tensor of bytes `[batch, channels, height, width]`, in blocks of `lanes` channels: that of floats each of
/// which is four neighboring channels. Halos are the tensor's zero point.
pub fn byte_layout([batch, channels, height, width]: [usize; 4], lanes: usize, halo: usize) -> Layout {
    Layout::new([batch, channels.div_ceil(QUAD), height, width], (lanes / QUAD).max(1), halo)
}

/// Copies bytes `[batch, channels, height, width]` into a layout, halos as `zero`.
///
/// # Panics
/// The bytes are fewer.
pub fn pack_bytes(tensor: &[u8], channels: usize, layout: &Layout, zero: u8) -> Buffer {
    let mut buffer = Buffer::zeros(layout.len());
    let bytes = bytes_mut(&mut buffer);
    bytes.fill(zero);
    each(channels, layout, |at, place| bytes[place] = tensor[at]);
    buffer
}

/// Copies a tensor back into `[batch, channels, height, width]`.
pub fn unpack_bytes(tensor: &[f32], channels: usize, layout: &Layout) -> Vec<u8> {
    let mut bytes = vec![0; layout.batch * channels * layout.height * layout.width];
    each(channels, layout, |at, place| {
        bytes[at] = (tensor[place / QUAD].to_bits().to_le() >> (8 * (place % QUAD))) as u8
    });
    bytes
}

/// Where each number of `[batch, channels, height, width]` is, in bytes.
fn each(channels: usize, layout: &Layout, mut visit: impl FnMut(usize, usize)) {
    let lanes = layout.lanes * QUAD;
    let mut at = 0;
    for n in 0..layout.batch {
        for c in 0..channels {
            for y in 0..layout.height {
                let row = layout.at(n, c / lanes, y) * QUAD + c % lanes;
                for x in 0..layout.width {
                    visit(at, row + x * lanes);
                    at += 1;
                }
            }
        }
    }
}

/// A buffer's bytes.
pub(crate) fn bytes_mut(buffer: &mut Buffer) -> &mut [u8] {
    let floats: &mut [f32] = buffer;
    // SAFETY: floats are bytes without gaps, and every byte is a byte and part of some float.
    unsafe { std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast(), size_of_val(floats)) }
}
