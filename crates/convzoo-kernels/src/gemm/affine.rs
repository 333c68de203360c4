use std::ops::Range;

use crate::simd::Simd;

/// What follows a convolution on planes in the same pass: a scale and a shift of each channel, perhaps a ReLU.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChannelAffine<'a> {
    /// Multiplies each channel.
    pub scale: Option<&'a [f32]>,
    /// Added to each channel, after the scale.
    pub shift: Option<&'a [f32]>,
    /// Whether a ReLU comes last.
    pub relu: bool,
}

impl<'a> ChannelAffine<'a> {
    /// That of some channels.
    pub(crate) fn of(&self, channels: Range<usize>) -> Self {
        let part = |values: Option<&'a [f32]>| values.map(|values| &values[channels.clone()]);
        Self { scale: part(self.scale), shift: part(self.shift), relu: self.relu }
    }

    /// Applies a channel's to a vector of its pixels.
    ///
    /// # Safety
    /// The processor has `S`'s instructions.
    #[inline(always)]
    pub(crate) unsafe fn apply<S: Simd>(&self, channel: usize, mut total: S::Vector) -> S::Vector {
        // SAFETY: the caller's promise.
        unsafe {
            let of = |values: Option<&[f32]>, none| S::splat(values.map_or(none, |values| values[channel]));
            if self.scale.is_some() || self.shift.is_some() {
                total = S::mul_add(total, of(self.scale, 1.0), of(self.shift, 0.0));
            }
            if self.relu { S::max(S::splat(0.0), total) } else { total }
        }
    }
}
