//! What a measurement comes to.

use std::path::Path;

use anyhow::{Context, Result};
use convzoo::data::read_file;
use serde::{Deserialize, Serialize};

use super::job::{Job, Mode, Precision, Profile};
use crate::cli::output::{by, cell};

/// One measurement, or why there is none.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    pub model: String,
    pub device: String,
    pub mode: Mode,
    pub batch: usize,
    /// Channels, height and width of the images.
    pub input: [usize; 3],
    pub precision: Precision,
    /// Whether the training step computed blocks twice.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub checkpointing: bool,
    /// Threads that a CPU computes with.
    pub threads: usize,
    /// Whether convzoo's own kernels ran; `None` where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernels: Option<bool>,
    pub machine: String,
    #[serde(flatten)]
    pub outcome: Outcome,
    /// What has changed since the run compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Outcome {
    Measured(Box<Figures>),
    Failed { error: String },
}

/// The figures of one measurement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figures {
    pub median_ms: f64,
    pub min_ms: f64,
    /// The distance between the quartiles as a share of the median.
    pub spread: f64,
    /// Passes that were timed.
    pub readings: usize,
    pub images_per_second: f64,
    /// Billions of floating-point operations in a second, two for a multiply-add.
    pub gflops: f64,
    /// Until the network stood on the device.
    pub load_ms: f64,
    /// From then to the first result.
    pub first_ms: f64,
    /// Most memory that the process held.
    pub peak_rss_mib: Option<f64>,
    /// The forward pass in its parts, where that was asked for.
    #[serde(default, flatten, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
}

/// A measurement against an older one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Change {
    pub previous_ms: f64,
    /// The new median by the old: below one is faster.
    pub ratio: f64,
    pub verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Faster,
    Slower,
    /// No more than the runs' own noise.
    Same,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Faster => "faster",
            Self::Slower => "slower",
            Self::Same => "same",
        }
    }
}

/// Columns of `--csv`: the fields of the JSON, but for profiles.
pub const COLUMNS: [&str; 22] = [
    "model",
    "device",
    "mode",
    "batch",
    "input",
    "precision",
    "kernels",
    "checkpointing",
    "threads",
    "median_ms",
    "min_ms",
    "spread",
    "readings",
    "images_per_second",
    "gflops",
    "load_ms",
    "first_ms",
    "peak_rss_mib",
    "previous_ms",
    "verdict",
    "machine",
    "error",
];

/// What a worker has measured.
#[derive(Debug, Default)]
pub struct Readings {
    pub times: Vec<f64>,
    pub load_ms: f64,
    pub first_ms: f64,
    pub peak_rss_mib: Option<f64>,
    pub profile: Option<Profile>,
}

impl Readings {
    /// The figures of a job that multiplies and adds `macs` times for an image.
    pub fn figures(self, job: &Job, macs: usize) -> Figures {
        let median_ms = median(&self.times);
        Figures {
            median_ms,
            min_ms: self.times.iter().copied().fold(f64::INFINITY, f64::min),
            spread: (quantile(&self.times, 0.75) - quantile(&self.times, 0.25)) / median_ms,
            readings: self.times.len(),
            images_per_second: 1e3 * job.batch as f64 / median_ms,
            gflops: gflops(macs * job.batch * job.mode.forward_passes(), median_ms),
            load_ms: self.load_ms,
            first_ms: self.first_ms,
            peak_rss_mib: self.peak_rss_mib,
            profile: self.profile,
        }
    }
}

/// The middle reading.
pub fn median(readings: &[f64]) -> f64 {
    quantile(readings, 0.5)
}

/// The reading that this share of them lies below; between two, their blend.
fn quantile(readings: &[f64], share: f64) -> f64 {
    let mut sorted = readings.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = share * sorted.len().saturating_sub(1) as f64;
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    match (sorted.get(low), sorted.get(high)) {
        (Some(a), Some(b)) => a + (b - a) * at.fract(),
        _ => f64::NAN,
    }
}

/// Multiply-adds in some milliseconds as billions of operations in a second.
pub fn gflops(macs: usize, ms: f64) -> f64 {
    2.0 * macs as f64 / ms / 1e6
}

impl Row {
    pub fn figures(&self) -> Option<&Figures> {
        match &self.outcome {
            Outcome::Measured(figures) => Some(figures),
            Outcome::Failed { .. } => None,
        }
    }

    /// The device, and how it differs from itself in other rows.
    pub fn engine(&self) -> String {
        let mut name = self.device.clone();
        if self.precision != Precision::F32 {
            name += &format!(" {}", self.precision.name());
        }
        if self.kernels == Some(false) {
            name += ", kernels off";
        }
        if self.checkpointing {
            name += ", checkpointing";
        }
        name
    }

    /// Its [`COLUMNS`].
    pub fn record(&self) -> [String; COLUMNS.len()] {
        let figures = self.figures();
        let figure = |of: fn(&Figures) -> f64| cell(figures.map(of));
        let error = match &self.outcome {
            Outcome::Measured(_) => String::new(),
            Outcome::Failed { error } => error.clone(),
        };
        [
            self.model.clone(),
            self.device.clone(),
            self.mode.name().to_owned(),
            self.batch.to_string(),
            by(&self.input),
            self.precision.name().to_owned(),
            cell(self.kernels),
            self.checkpointing.to_string(),
            self.threads.to_string(),
            figure(|figures| figures.median_ms),
            figure(|figures| figures.min_ms),
            figure(|figures| figures.spread),
            cell(figures.map(|figures| figures.readings)),
            figure(|figures| figures.images_per_second),
            figure(|figures| figures.gflops),
            figure(|figures| figures.load_ms),
            figure(|figures| figures.first_ms),
            cell(figures.and_then(|figures| figures.peak_rss_mib)),
            cell(self.change.as_ref().map(|change| change.previous_ms)),
            cell(self.change.as_ref().map(|change| change.verdict.name())),
            self.machine.clone(),
            error,
        ]
    }

    /// Whether both measure the same.
    fn is_of(&self, other: &Self) -> bool {
        let key = |row: &Self| (row.engine(), row.model.clone(), row.mode, row.batch, row.input, row.threads);
        key(self) == key(other)
    }
}

/// Two runs differ where both median and minimum have moved the same way, further than the mean of the two spreads and
/// than this share.
const NOISE: f64 = 0.03;

fn change(old: &Figures, new: &Figures) -> Change {
    let noise = f64::max(NOISE, (old.spread + new.spread) / 2.0);
    let (ratio, least) = (new.median_ms / old.median_ms, new.min_ms / old.min_ms);
    let verdict = match ratio.max(least) < 1.0 / (1.0 + noise) {
        true => Verdict::Faster,
        false if ratio.min(least) > 1.0 + noise => Verdict::Slower,
        false => Verdict::Same,
    };
    Change { previous_ms: old.median_ms, ratio, verdict }
}

/// Rows that an earlier run has written with `--json`.
pub fn read(path: &Path) -> Result<Vec<Row>> {
    /// A kilobyte for each of more rows than anybody measures.
    const MOST_BYTES: u64 = 1 << 30;
    serde_json::from_slice(&read_file(path, MOST_BYTES)?)
        .with_context(|| format!("{} is not what `convzoo bench --json` writes", path.display()))
}

/// Notes in each row what has changed since `old`.
pub fn compare(rows: &mut [Row], old: &[Row]) {
    for row in rows {
        let before = old.iter().find(|old| row.is_of(old)).and_then(Row::figures);
        row.change = row.figures().zip(before).map(|(new, old)| change(old, new));
    }
}

/// Sets the stages of profiles beside the machine's peak: the multiply-adds of the best row of the same precision, for all
/// compute with the same threads, and what each has read of as much memory as its network takes.
pub fn set_beside_peak(rows: &mut [Row]) {
    let peaks = rows.iter().filter_map(|row| Some((row.precision, row.figures()?.profile.as_ref()?.peak?.gflops)));
    let peaks: Vec<_> = peaks.collect();
    for row in rows {
        let same = peaks.iter().filter(|(precision, _)| *precision == row.precision);
        let gflops = same.fold(0.0, |most, (_, gflops)| f64::max(most, *gflops));
        if let Outcome::Measured(figures) = &mut row.outcome
            && let Some(Profile { layers, peak: Some(peak) }) = &mut figures.profile
        {
            peak.gflops = gflops;
            layers.iter_mut().for_each(|layer| layer.least_ms = layer.work.map(|work| peak.least_ms(&work)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(median_ms: f64, spread: f64) -> Figures {
        let times = vec![median_ms * (1.0 - spread), median_ms, median_ms * (1.0 + spread)];
        Readings { times, ..Readings::default() }.figures(&job(), 1_000_000)
    }

    fn job() -> Job {
        Job {
            model: "lenet5".to_owned(),
            device: "flex".to_owned(),
            mode: Mode::Train,
            batch: 4,
            input: [1, 32, 32],
            classes: 10,
            precision: Precision::F32,
            checkpointing: false,
            threads: 1,
            warm_up: 1.0,
        }
    }

    #[test]
    fn figures_follow_from_the_readings() {
        let readings = Readings { times: vec![2.0, 1.0, 5.0, 4.0, 3.0], ..Readings::default() };
        let figures = readings.figures(&job(), 1_000_000);
        assert_eq!((figures.median_ms, figures.min_ms, figures.readings), (3.0, 1.0, 5));
        assert!((figures.spread - 2.0 / 3.0).abs() < 1e-12, "quartiles 2 and 4, not spread {}", figures.spread);
        assert!((figures.images_per_second - 4000.0 / 3.0).abs() < 1e-9, "{}", figures.images_per_second);
        // A million multiply-adds, four images, three passes, two operations each, in 3 ms.
        assert!((figures.gflops - 8.0).abs() < 1e-9, "{}", figures.gflops);
        assert_eq!(quantile(&[1.0, 2.0], 0.25), 1.25);
    }

    #[test]
    fn a_change_counts_when_it_is_more_than_the_noise() {
        for (old, new, spread, expected) in [
            (100.0, 90.0, 0.01, Verdict::Faster),
            (100.0, 110.0, 0.01, Verdict::Slower),
            (100.0, 102.0, 0.001, Verdict::Same),
            (100.0, 110.0, 0.2, Verdict::Same),
            (100.0, 50.0, 0.2, Verdict::Faster),
        ] {
            let change = change(&figures(old, spread), &figures(new, spread));
            assert_eq!(change.verdict, expected, "{old} ms to {new} ms with a spread of {spread}: {change:?}");
        }
    }

    #[test]
    fn a_row_is_read_as_it_was_written() {
        let row = |outcome| Row {
            model: "lenet5".to_owned(),
            device: "flex".to_owned(),
            mode: Mode::Infer,
            batch: 1,
            input: [1, 32, 32],
            precision: Precision::LinearF16,
            checkpointing: true,
            threads: 2,
            kernels: Some(true),
            machine: "a machine".to_owned(),
            outcome,
            change: None,
        };
        for outcome in
            [Outcome::Measured(Box::new(figures(4.0, 0.5))), Outcome::Failed { error: "no device".to_owned() }]
        {
            let row = row(outcome);
            let text = serde_json::to_string(&row).unwrap();
            let read: Row = serde_json::from_str(&text).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), text);
            assert_eq!(read.figures().is_some(), row.figures().is_some(), "{text}");
        }
    }
}
