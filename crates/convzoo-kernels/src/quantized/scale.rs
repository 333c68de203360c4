//! Scales, and the arithmetic of one number.

/// The largest magnitude of a weight in bytes.
pub(crate) const MOST_WEIGHT: f32 = 127.0;

/// The most products that a 32-bit sum certainly holds.
pub(crate) const MOST_PRODUCTS: usize = (i32::MAX / (255 * 127)) as usize;

/// How bytes stand for a tensor's numbers: scale · (q − zero).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ByteScale {
    /// Finite and positive.
    pub scale: f32,
    /// The byte that stands for 0.
    pub zero: u8,
}

impl ByteScale {
    /// The finest whose bytes reach from the smallest of some numbers to their largest. 0 always has a byte of its own.
    pub fn of_range(low: f32, high: f32) -> Self {
        let (low, high) = (low.min(0.0), high.max(0.0));
        // In halves, so that no range is infinite.
        let scale = 2.0 * (high / 2.0 - low / 2.0) / 255.0;
        match scale >= f32::MIN_POSITIVE && scale.is_finite() {
            true => Self { scale, zero: (-low / scale).round_ties_even() as u8 },
            false => Self { scale: 1.0, zero: 0 },
        }
    }

    /// Whether numbers can be scaled by it.
    pub fn is_valid(&self) -> bool {
        self.scale.is_normal() && self.scale > 0.0 && (1.0 / self.scale).is_normal()
    }

    /// The nearest byte, ties to even; of NaN 0.
    pub fn byte(&self, x: f32) -> u8 {
        let cut = (x * self.inverse() + f32::from(self.zero)).clamp(0.0, 255.0);
        cut.round_ties_even() as u8
    }

    /// What a byte stands for.
    pub fn number(&self, byte: u8) -> f32 {
        (f32::from(byte) - f32::from(self.zero)) * self.scale
    }

    pub(crate) fn inverse(&self) -> f32 {
        1.0 / self.scale
    }
}

/// The scale of each output's weights.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightScales(pub Vec<f32>);

impl WeightScales {
    /// The finest that reach each output's largest weight; `weight` is `[outputs, …]`.
    pub fn of_largest(weight: &[f32], outputs: usize) -> Self {
        Self::of_bits(weight, outputs, 8)
    }

    /// The same for weights of fewer bits, from 2 to 8, of which a byte then uses the lowest: whole numbers from
    /// −(2ᵇ⁻¹ − 1) to 2ᵇ⁻¹ − 1.
    pub fn of_bits(weight: &[f32], outputs: usize, bits: u32) -> Self {
        let most = Self::most(bits);
        let scale = |filter: &[f32]| {
            let largest = filter.iter().fold(0.0f32, |largest, weight| largest.max(weight.abs()));
            let scale = largest / most;
            if scale >= f32::MIN_POSITIVE && scale.is_finite() { scale } else { 1.0 }
        };
        Self(weight.chunks(filter_len(weight, outputs)).map(scale).collect())
    }

    /// The largest magnitude of a weight of so many bits, from 2 to 8.
    pub fn most(bits: u32) -> f32 {
        ((1u32 << (bits.clamp(2, 8) - 1)) - 1) as f32
    }

    /// The weights in bytes, each the nearest, ties to even, from −127 to 127.
    ///
    /// Of what the bytes stand for, these are the bytes again.
    pub fn bytes(&self, weight: &[f32]) -> Vec<i8> {
        let filters = weight.chunks(filter_len(weight, self.0.len())).zip(&self.0);
        let byte = |weight: f32, scale: f32| {
            let cut = (weight / scale).clamp(-MOST_WEIGHT, MOST_WEIGHT);
            cut.round_ties_even() as i8
        };
        filters.flat_map(|(filter, scale)| filter.iter().map(move |weight| byte(*weight, *scale))).collect()
    }

    /// What bytes stand for.
    pub fn numbers(&self, bytes: &[i8]) -> Vec<f32> {
        let filters = bytes.chunks((bytes.len() / self.0.len().max(1)).max(1)).zip(&self.0);
        filters.flat_map(|(filter, scale)| filter.iter().map(move |byte| f32::from(*byte) * scale)).collect()
    }
}

fn filter_len(weight: &[f32], outputs: usize) -> usize {
    (weight.len() / outputs.max(1)).max(1)
}

/// What makes outputs of sums, as the module [`quantized`](crate::quantized) says.
#[derive(Clone, Debug, PartialEq)]
pub struct Requantize {
    /// By channel.
    pub multiplier: Vec<f32>,
    /// By channel.
    pub offset: Vec<f32>,
    /// What the bytes of a tensor that is added are multiplied by.
    pub sum: f32,
    /// What outputs are cut at.
    pub bounds: [f32; 2],
}

impl Requantize {
    /// The output of a channel as a float, from a sum and a byte of the tensor that is added.
    pub fn number(&self, sum: i32, channel: usize, added: Option<u8>) -> f32 {
        let mut t = sum as f32 * self.multiplier[channel];
        t += self.offset[channel];
        if let Some(added) = added {
            t += f32::from(added) * self.sum;
        }
        let [low, high] = self.bounds;
        // NaN stays.
        if t < low {
            low
        } else if t > high {
            high
        } else {
            t
        }
    }

    /// The same as a byte, where the bounds are within those of bytes.
    pub fn byte(&self, sum: i32, channel: usize, added: Option<u8>) -> u8 {
        self.number(sum, channel, added).round_ties_even() as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_has_a_byte_and_ranges_end_at_bytes() {
        for (low, high, zero) in [(0.0, 5.1, 0), (-1.0, 1.55, 100), (-3.0, -1.0, 255), (2.0, 2.55, 0)] {
            let scale = ByteScale::of_range(low, high);
            assert_eq!((scale.zero, scale.byte(0.0)), (zero, zero), "{low} to {high}");
            assert_eq!(scale.number(scale.byte(0.0)), 0.0);
            for end in [low, high] {
                let error = (scale.number(scale.byte(end)) - end).abs();
                assert!(error <= 0.51 * scale.scale, "{end} of {low} to {high} is off by {error}");
            }
        }
        assert_eq!(ByteScale::of_range(0.0, 0.0), ByteScale { scale: 1.0, zero: 0 });
        assert!(ByteScale::of_range(-f32::MAX, f32::MAX).is_valid());
        assert_eq!(ByteScale::of_range(-1.0, 1.0).byte(f32::NAN), 0);
    }

    #[test]
    fn weights_that_are_bytes_already_stay_the_same_bytes() {
        let weight: Vec<f32> = (0..600).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.013).collect();
        let scales = WeightScales::of_largest(&weight, 6);
        let bytes = scales.bytes(&weight);
        let again = scales.bytes(&scales.numbers(&bytes));
        assert_eq!(bytes, again);
        assert!(
            bytes.chunks(100).all(|filter| filter.iter().any(|byte| byte.abs() == 127)),
            "each scale is the finest"
        );
    }

    #[test]
    fn fewer_bits_use_fewer_whole_numbers() {
        let weight: Vec<f32> = (0..600).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.013).collect();
        for (bits, most) in [(2, 1), (4, 7), (8, 127)] {
            let scales = WeightScales::of_bits(&weight, 6, bits);
            let bytes = scales.bytes(&weight);
            assert_eq!(bytes.iter().map(|byte| byte.abs()).max(), Some(most), "{bits} bits");
            assert_eq!(scales.bytes(&scales.numbers(&bytes)), bytes, "{bits} bits, again");
        }
    }

    #[test]
    fn ties_go_to_the_even_byte() {
        let requantize = Requantize { multiplier: vec![0.5], offset: vec![0.0], sum: 0.25, bounds: [0.0, 255.0] };
        let bytes = [1, 3, 5, 511, 600, -7].map(|sum| requantize.byte(sum, 0, None));
        assert_eq!(bytes, [0, 2, 2, 255, 255, 0]);
        assert_eq!(requantize.byte(2, 0, Some(2)), 2, "1 + 0.5");
    }
}
