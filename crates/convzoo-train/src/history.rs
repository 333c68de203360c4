use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use burn::train::Interrupter;
use burn::train::logger::MetricLogger;
use burn::train::metric::store::{EpochSummary, MetricsUpdate, Split};
use burn::train::metric::{MetricDefinition, MetricId, NumericEntry};
use serde::{Deserialize, Serialize};

use crate::{Recipe, TrainError};

/// A run as `run.json` tells it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunRecord {
    /// The command that started it.
    pub command: Vec<String>,
    /// What the caller needs to make the same network and data again.
    pub setup: serde_json::Value,
    /// How it is trained.
    pub recipe: Recipe,
    /// What all its random numbers come from.
    pub seed: u64,
    /// The device it runs on.
    pub device: String,
    /// Versions of what it is run with.
    pub versions: HashMap<String, String>,
    /// Where it stands.
    pub status: RunStatus,
    /// Epoch by epoch.
    pub epochs: Vec<Epoch>,
    /// The epoch whose weights are in `best.safetensors`.
    pub best_epoch: Option<usize>,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    /// Begun, and not ended in any way known.
    Running,
    /// Stopped on request; `--resume` goes on.
    Interrupted,
    /// Stopped by an error; `--resume` goes on from the last epoch.
    Failed,
    /// All epochs done.
    Finished,
}

/// One epoch's figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Counted from 1.
    pub epoch: usize,
    /// On the training images, while they were trained on.
    pub train: Measures,
    /// On the test images, at the end.
    pub test: Measures,
    /// Time of both.
    pub seconds: f64,
}

/// Loss and accuracy over an epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Measures {
    /// Mean loss.
    pub loss: f64,
    /// Share of images answered rightly.
    pub accuracy: f64,
}

impl RunRecord {
    /// Reads the `run.json` of a run's folder.
    pub fn read(folder: &Path) -> Result<Self, TrainError> {
        let path = folder.join("run.json");
        let text = std::fs::read_to_string(&path).map_err(TrainError::io("read", &path))?;
        serde_json::from_str(&text).map_err(|error| TrainError::NotResumable {
            path: folder.to_owned(),
            reason: format!("run.json is damaged: {error}"),
        })
    }

    /// Writes it, in one step.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), TrainError> {
        let path = folder.join("run.json");
        let io = || TrainError::io("write", &path);
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(io())?;
        serde_json::to_writer_pretty(&mut file, self).map_err(|error| io()(error.into()))?;
        file.persist(&path).map_err(|error| io()(error.error))?;
        Ok(())
    }

    pub(crate) fn best(&self) -> Option<&Epoch> {
        // The first of equals: later ones only saw the training images more often.
        self.epochs.iter().rev().max_by(|a, b| a.test.accuracy.total_cmp(&b.test.accuracy))
    }
}

/// The record of the run under way, shared by what measures, what saves and what prints.
#[derive(Clone)]
pub(crate) struct History {
    pub folder: PathBuf,
    record: Arc<Mutex<RunRecord>>,
}

impl History {
    pub fn new(folder: &Path, record: RunRecord) -> Self {
        Self { folder: folder.to_owned(), record: Arc::new(Mutex::new(record)) }
    }

    /// Changes the record and writes it down.
    pub fn update<T>(&self, change: impl FnOnce(&mut RunRecord) -> T) -> Result<T, TrainError> {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut record);
        record.write(&self.folder)?;
        Ok(result)
    }

    pub fn read<T>(&self, read: impl FnOnce(&RunRecord) -> T) -> T {
        read(&self.record.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A loss that is no number any more, and the epoch it came in.
pub(crate) type Divergence = Arc<Mutex<Option<(f64, usize)>>>;

/// Is told each epoch as it ends.
pub(crate) type Report = Box<dyn FnMut(&Epoch, &RunRecord) + Send>;

/// Gathers burn-train's measurements into epochs.
pub(crate) struct Gather {
    pub history: History,
    pub interrupter: Interrupter,
    pub divergence: Divergence,
    pub report: Report,
    names: HashMap<MetricId, String>,
    train: Measures,
    test: Measures,
    started: Instant,
}

impl Gather {
    pub fn new(history: History, interrupter: Interrupter, divergence: Divergence, report: Report) -> Self {
        let (train, test) = Default::default();
        Self { history, interrupter, divergence, report, names: HashMap::new(), train, test, started: Instant::now() }
    }
}

impl MetricLogger for Gather {
    fn log(&mut self, update: MetricsUpdate, epoch: usize, split: &Split) {
        let measures = if *split == Split::Train { &mut self.train } else { &mut self.test };
        for metric in update.entries_numeric {
            let Some(value) = metric.running_entry.or(metric.numeric_entry).map(|entry| entry.current()) else {
                continue;
            };
            match self.names.get(&metric.entry.metric_id).map(String::as_str) {
                Some("Loss") => measures.loss = value,
                Some("Accuracy") => measures.accuracy = value / 100.0,
                _ => {}
            }
        }
        if *split == Split::Train && !measures.loss.is_finite() {
            let mut divergence = self.divergence.lock().unwrap_or_else(PoisonError::into_inner);
            divergence.get_or_insert((measures.loss, epoch));
            self.interrupter.stop(Some("the loss is no number any more"));
        }
    }

    fn log_metric_definition(&mut self, definition: MetricDefinition) {
        self.names.insert(definition.metric_id, definition.name.to_string());
    }

    fn log_epoch_summary(&mut self, summary: EpochSummary) {
        if summary.split == Split::Train {
            return;
        }
        let seconds = self.started.elapsed().as_secs_f64();
        self.started = Instant::now();
        let epoch = Epoch { epoch: summary.epoch_number, train: self.train, test: self.test, seconds };
        // A failed write shows at the next checkpoint, which writes the record too and stops the run.
        let _ = self.history.update(|record| {
            record.epochs.truncate(epoch.epoch - 1);
            record.epochs.push(epoch.clone());
        });
        self.history.read(|record| (self.report)(&epoch, record));
    }

    /// What burn-train's own checkpointing and early-stopping strategies would ask for; convzoo reads its history.
    fn read_numeric(&mut self, _: &str, _: usize, _: &Split) -> Result<Vec<NumericEntry>, String> {
        Ok(Vec::new())
    }
}
