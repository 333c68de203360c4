//! How widths are rounded after they have been scaled.

/// The multiple of `divisor` that is nearest to `channels`, but no less than nine tenths of them and no less than one
/// multiple.
pub(crate) fn make_divisible(channels: f64, divisor: usize) -> usize {
    let nearest = (channels + divisor as f64 / 2.0) as usize / divisor * divisor;
    let multiple = nearest.max(divisor);
    if (multiple as f64) < 0.9 * channels { multiple + divisor } else { multiple }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_become_multiples_that_lose_at_most_a_tenth() {
        let cases = [
            (32.0, 32),
            (36.0, 40),
            (35.5, 32),
            (35.9, 40),
            (3.0, 8),
            (11.9, 16),
            (8.8, 8),
            (44.8, 48),
            (0.35 * 16.0, 8),
        ];
        for (channels, expected) in cases {
            assert_eq!(make_divisible(channels, 8), expected, "{channels} channels");
        }
    }
}
