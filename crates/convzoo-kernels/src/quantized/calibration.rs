//! Scales of tensors from numbers that were observed in them.

use super::ByteScale;

/// How the range that bytes cover is chosen. What lies beyond is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Calibration {
    /// From the smallest number to the largest.
    MinMax,
    /// All but one in ten thousand at each end.
    Percentile,
    /// Where the mean squared difference between numbers and their bytes is least.
    #[default]
    MeanSquaredError,
    /// Where the distributions of numbers and of their bytes differ least, by Kullback and Leibler's divergence (Migacz,
    /// 8-bit inference with TensorRT, 2017).
    Entropy,
}

/// The share of numbers that [`Calibration::Percentile`] cuts at each end.
const CUT: f64 = 1e-4;

const BINS: usize = 2048;

/// Ranges that are tried, as shares of the whole, and the smallest.
const TRIED: usize = 80;
const SMALLEST: f32 = 0.2;

/// How often numbers between two ends were observed.
#[derive(Clone, Debug)]
pub struct Histogram {
    low: f32,
    high: f32,
    counts: Vec<u64>,
}

impl Histogram {
    /// Of no numbers yet, for some from the smallest to the largest.
    pub fn new(low: f32, high: f32) -> Self {
        let (low, high) = (low.min(0.0), high.max(0.0));
        Self { low, high, counts: vec![0; BINS] }
    }

    /// Counts numbers; what is not finite is left out.
    pub fn add(&mut self, numbers: &[f32]) {
        let width = (self.high - self.low) / BINS as f32;
        let bins = if width > 0.0 { 1.0 / width } else { 0.0 };
        for number in numbers.iter().filter(|number| number.is_finite()) {
            let bin = ((number - self.low) * bins) as usize;
            self.counts[bin.min(BINS - 1)] += 1;
        }
    }

    /// The scale for what was counted.
    pub fn scale(&self, calibration: Calibration) -> ByteScale {
        let whole = ByteScale::of_range(self.low, self.high);
        let least = |loss: &dyn Fn(ByteScale) -> f64| {
            let tried = (0..TRIED).map(|i| {
                let share = 1.0 - (1.0 - SMALLEST) * i as f32 / TRIED as f32;
                ByteScale::of_range(share * self.low, share * self.high)
            });
            // Of equals the widest, which comes first.
            let losses = tried.map(|scale| (loss(scale), scale));
            losses.reduce(|best, next| if next.0 < best.0 { next } else { best }).map_or(whole, |(_, scale)| scale)
        };
        match calibration {
            Calibration::MinMax => whole,
            Calibration::Percentile => self.percentile(),
            Calibration::MeanSquaredError => least(&|scale| self.squared_error(scale)),
            Calibration::Entropy => least(&|scale| self.divergence(scale)),
        }
    }

    /// The number in the middle of a bin.
    fn number(&self, bin: usize) -> f32 {
        self.low + (self.high - self.low) * (bin as f32 + 0.5) / BINS as f32
    }

    fn percentile(&self) -> ByteScale {
        let total: u64 = self.counts.iter().sum();
        let cut = (CUT * total as f64) as u64;
        let mut below = 0;
        let first = (0..BINS).find(|bin| {
            below += self.counts[*bin];
            below > cut
        });
        let mut above = 0;
        let last = (0..BINS).rev().find(|bin| {
            above += self.counts[*bin];
            above > cut
        });
        let width = (self.high - self.low) / BINS as f32;
        match (first, last) {
            (Some(first), Some(last)) => {
                ByteScale::of_range(self.number(first) - width / 2.0, self.number(last) + width / 2.0)
            }
            _ => ByteScale::of_range(self.low, self.high),
        }
    }

    fn squared_error(&self, scale: ByteScale) -> f64 {
        let errors = self.counts.iter().enumerate().filter(|(_, count)| **count > 0).map(|(bin, count)| {
            let number = self.number(bin);
            let error = f64::from(number - scale.number(scale.byte(number)));
            error * error * *count as f64
        });
        errors.sum()
    }

    /// Between the numbers, those beyond the range at its ends, and what their bytes tell of them: as many of each number
    /// that has the byte. Zeros, which are often the most, are left out: they are exact.
    fn divergence(&self, scale: ByteScale) -> f64 {
        let (mut levels, mut numbers) = ([0u64; 256], [0u64; 256]);
        let [low, high] = [0, 255].map(|byte| scale.number(byte));
        let zero = |bin: usize| self.number(bin).abs() <= (self.high - self.low) / BINS as f32;
        let counted = || self.counts.iter().enumerate().filter(|(bin, count)| **count > 0 && !zero(*bin));
        let inside = |bin: usize| (low..=high).contains(&self.number(bin));
        for (bin, count) in counted().filter(|(bin, _)| inside(*bin)) {
            let byte = usize::from(scale.byte(self.number(bin)));
            levels[byte] += count;
            numbers[byte] += 1;
        }
        // What is beyond an end counts for the outermost bin within.
        let within = || counted().map(|(bin, _)| bin).filter(|bin| inside(*bin));
        let (Some(first), Some(last)) = (within().min(), within().max()) else { return f64::INFINITY };
        let mut clipped = self.counts.clone();
        for (bin, count) in counted().filter(|(bin, _)| !inside(*bin)) {
            clipped[if bin < first { first } else { last }] += count;
        }
        let total: u64 = counted().map(|(_, count)| count).sum();
        let kept: u64 = levels.iter().sum();
        let terms = within().map(|bin| {
            let byte = usize::from(scale.byte(self.number(bin)));
            let p = clipped[bin] as f64 / total as f64;
            let q = levels[byte] as f64 / numbers[byte] as f64 / kept as f64;
            p * (p / q).ln()
        });
        terms.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten thousand numbers of a bell, and one far away.
    fn bell_and_outlier() -> Histogram {
        let mut histogram = Histogram::new(-1.0, 30.0);
        let numbers: Vec<f32> = (1..20_000).map(|i| (i as f32 / 10_000.0 - 1.0).powi(3) + 0.3).collect();
        histogram.add(&numbers);
        histogram.add(&[30.0, f32::NAN]);
        histogram
    }

    #[test]
    fn an_outlier_is_cut_by_all_but_the_first() {
        let histogram = bell_and_outlier();
        let end = |calibration| {
            let scale = histogram.scale(calibration);
            scale.number(255)
        };
        assert!((end(Calibration::MinMax) - 30.0).abs() < 0.1);
        for calibration in [Calibration::Percentile, Calibration::MeanSquaredError, Calibration::Entropy] {
            let end = end(calibration);
            assert!((1.0..29.0).contains(&end), "{calibration:?} ends at {end}");
        }
    }

    #[test]
    fn the_least_squared_error_is_the_least() {
        let histogram = bell_and_outlier();
        let best = histogram.squared_error(histogram.scale(Calibration::MeanSquaredError));
        for calibration in [Calibration::MinMax, Calibration::Percentile, Calibration::Entropy] {
            let other = histogram.scale(calibration);
            // The percentile's range is none of those that are tried.
            assert!(best <= histogram.squared_error(other) * 1.5, "{calibration:?} has less");
        }
    }

    #[test]
    fn zeros_alone_have_a_scale() {
        let mut histogram = Histogram::new(0.0, 0.0);
        histogram.add(&[0.0; 10]);
        for calibration in
            [Calibration::MinMax, Calibration::Percentile, Calibration::MeanSquaredError, Calibration::Entropy]
        {
            assert!(histogram.scale(calibration).is_valid(), "{calibration:?}");
        }
    }
}
