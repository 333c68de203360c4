use maud::{Markup, html};

use crate::label::number;

/// How the values of a tensor are distributed.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    low: f32,
    high: f32,
    mean: f64,
    deviation: f64,
    counts: Vec<usize>,
}

/// Bars of a histogram.
const BARS: usize = 40;

/// Width and height of a histogram in pixels.
const SIZE: [usize; 2] = [200, 48];

impl Histogram {
    /// Counts values in bars of the same width from the least to the largest; `None` where there is none, or one that is
    /// no finite number.
    pub fn of(values: &[f32]) -> Option<Self> {
        if values.is_empty() || values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        let low = values.iter().copied().fold(f32::INFINITY, f32::min);
        let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let count = values.len() as f64;
        let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
        let variance = values.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / count;
        let mut counts = vec![0; BARS];
        let width = (f64::from(high) - f64::from(low)) / BARS as f64;
        for &value in values {
            let bar = if width > 0.0 { ((f64::from(value) - f64::from(low)) / width) as usize } else { BARS / 2 };
            counts[bar.min(BARS - 1)] += 1;
        }
        Some(Self { low, high, mean, deviation: variance.sqrt(), counts })
    }

    /// Values in each bar, from the least to the largest.
    pub fn counts(&self) -> &[usize] {
        &self.counts
    }

    pub(crate) fn markup(&self) -> Markup {
        let Self { low, high, mean, deviation, counts } = self;
        let most = counts.iter().copied().max().unwrap_or(1).max(1);
        let [width, height] = SIZE;
        let step = width / BARS;
        let said = format!(
            "from {} to {}, mean {}, standard deviation {}",
            number(f64::from(*low)),
            number(f64::from(*high)),
            number(*mean),
            number(*deviation)
        );
        let bars: String = counts
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(|(bar, &count)| {
                // The least that can be seen.
                let tall = (count * height).div_ceil(most);
                format!("M{} {height}v-{tall}h{}v{tall}z", bar * step, step - 1)
            })
            .collect();
        html! {
            figure.histogram {
                svg role="img" aria-label=(said) viewBox={ "0 0 " (width) " " (height) } width=(width) height=(height) {
                    path d=(bars) {}
                }
                figcaption { (said) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_a_bar() {
        let values: Vec<f32> = (0..1000).map(|i| (i as f32 / 100.0).sin()).collect();
        let histogram = Histogram::of(&values).unwrap();
        assert_eq!(histogram.counts().iter().sum::<usize>(), 1000);
        assert!(histogram.counts()[0] > histogram.counts()[BARS / 2], "a sine is longest at its ends: {histogram:?}");
        assert_eq!(Histogram::of(&[2.0; 7]).unwrap().counts()[BARS / 2], 7, "all the same");
        assert_eq!(Histogram::of(&[]).or(Histogram::of(&[1.0, f32::NAN])), None);
        let wide = Histogram::of(&[f32::MIN, f32::MAX]).unwrap();
        assert_eq!((wide.counts()[0], wide.counts()[BARS - 1]), (1, 1));
    }
}
