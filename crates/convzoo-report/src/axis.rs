use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};

use crate::chart::ticks;

/// What an axis shows: its ends, and where numbers stand. A logarithmic one shows the logarithms.
pub(crate) struct Axis {
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

impl Axis {
    /// From `low` to `high` with at most `most` numbers, whole ones alone where they are to be `whole`.
    pub fn linear(low: f64, high: f64, most: usize, whole: bool) -> Self {
        Self { low, high, ticks: ticks(low, high, most, whole) }
    }

    /// The logarithms of `low` to `high`, both above zero.
    pub fn logarithmic(low: f64, high: f64) -> Self {
        Self { low: low.log10(), high: high.log10(), ticks: decades(low, high) }
    }

    /// How many numbers stand at it, one at least.
    pub fn labels(&self) -> usize {
        self.ticks.len().max(1)
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (first, last): (i32, i32)) -> i32 {
        let share = (value - self.low) / (self.high - self.low);
        first + (share * f64::from(last - first)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

/// Ticks of a logarithmic axis, as logarithms: powers of ten, with their doubles and fivefolds where there are few, and
/// round numbers of one step where even of these there are less than two.
fn decades(low: f64, high: f64) -> Vec<f64> {
    let decades = (high / low).log10();
    if decades < 0.5 {
        return ticks(low, high, 5, false).into_iter().filter(|tick| *tick > 0.0).map(f64::log10).collect();
    }
    let of_each: &[f64] = if decades > 5.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let powers = (low.log10().floor() as i32..=high.log10().ceil() as i32).map(|power| 10_f64.powi(power));
    let ticks = powers.flat_map(|power| of_each.iter().map(move |step| step * power));
    ticks.filter(|tick| (low..=high).contains(tick)).map(f64::log10).collect()
}
