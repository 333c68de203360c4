use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use convzoo_data::read_file;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{Monitor, Recipe, TrainError, events};

/// A run as `run.json` tells it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunRecord {
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Words to find it by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The command that started it.
    pub command: Vec<String>,
    /// What the caller needs to make the same network and data again.
    pub setup: serde_json::Value,
    /// The recipe's name or file, if it has one.
    pub recipe_name: Option<String>,
    /// How it is trained.
    pub recipe: Recipe,
    /// Its random seed.
    pub seed: u64,
    /// The device it runs on.
    pub device: String,
    /// Versions of what it is run with.
    pub versions: BTreeMap<String, String>,
    /// When it began, in seconds since 1970.
    pub started: u64,
    /// Images to train on.
    pub train_images: usize,
    /// Images to choose by, where those are not the test's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_images: Option<usize>,
    /// Images to test on.
    pub test_images: usize,
    /// Where it stands.
    pub status: RunStatus,
    /// Time of the frozen backbone's passes over all images, where their features are kept: before the epochs, once and
    /// each time the run is resumed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub backbone_seconds: f64,
    /// Epoch by epoch.
    pub epochs: Vec<Epoch>,
    /// The epoch whose weights are in `best.safetensors`.
    pub best_epoch: Option<usize>,
    /// What its weights do on the test images, measured once at the run's end, where epochs are measured on others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Measures>,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    /// Begun, and not ended in any way known.
    Running,
    /// Stopped on request, or because its terminal was closed; `--resume` continues it.
    Interrupted,
    /// Stopped by an error; `--resume` continues from the last checkpoint.
    Failed,
    /// All epochs done, or as many as early stopping let pass.
    Finished,
}

impl std::fmt::Display for RunStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
            Self::Finished => "finished",
        })
    }
}

/// One epoch's figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Counted from 1.
    pub epoch: usize,
    /// The rate of its last step.
    pub learning_rate: f64,
    /// On the training images, while they were trained on.
    pub train: Measures,
    /// At its end, on the images that epochs are chosen by.
    #[serde(flatten)]
    pub held_out: HeldOut,
    /// Time of both.
    pub seconds: f64,
    /// Images trained on per second, their loading included.
    pub images_per_second: f64,
}

/// Loss and accuracy on images that are not trained on, and which images those are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeldOut {
    /// Validation images.
    Val(Measures),
    /// Test images, where there are no others.
    Test(Measures),
}

impl HeldOut {
    /// The figures.
    pub fn measures(&self) -> &Measures {
        let (Self::Val(measures) | Self::Test(measures)) = self;
        measures
    }

    /// Which images, in a word: `validation` or `test`.
    pub fn part(&self) -> &'static str {
        match self {
            Self::Val(_) => "validation",
            Self::Test(_) => "test",
        }
    }
}

/// Loss and accuracy over an epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Measures {
    /// Mean loss: in training the recipe's, in testing cross entropy alone.
    #[serde(deserialize_with = "or_nan")]
    pub loss: f64,
    /// Share of images classified correctly.
    pub accuracy: f64,
}

fn is_zero(seconds: &f64) -> bool {
    *seconds == 0.0
}

/// JSON has no word for NaN, and says null.
fn or_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

impl RunRecord {
    /// Reads the `run.json` of a run's folder.
    pub fn read(folder: &Path) -> Result<Self, TrainError> {
        /// A kilobyte for each of as many epochs as a recipe may have.
        const MOST_BYTES: u64 = 1 << 30;
        let path = folder.join("run.json");
        let json = read_file(&path, MOST_BYTES)?;
        serde_json::from_slice(&json).map_err(|error| TrainError::NotResumable {
            path: folder.to_owned(),
            reason: format!("run.json is damaged: {error}"),
        })
    }

    /// Writes it into the run's folder, and what it says of epochs as `metrics.csv`, `metrics.jsonl` and TensorBoard's
    /// events.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), TrainError> {
        let json = serde_json::to_vec_pretty(self).expect("numbers and texts are JSON");
        write_whole(&folder.join("run.json"), &json)?;
        let mut lines = Vec::new();
        let mut table = csv::Writer::from_writer(Vec::new());
        let [loss, accuracy] = match self.val_images {
            Some(_) => ["val_loss", "val_accuracy"],
            None => ["test_loss", "test_accuracy"],
        };
        let header =
            ["epoch", "learning_rate", "train_loss", "train_accuracy", loss, accuracy, "seconds", "images_per_second"];
        let memory = "memory takes all that is written";
        table.write_record(header).expect(memory);
        for epoch in &self.epochs {
            serde_json::to_writer(&mut lines, epoch).expect("numbers are JSON");
            lines.push(b'\n');
            let Epoch { epoch, learning_rate, train, held_out, seconds, images_per_second } = epoch;
            let [seen, held_out] = [train, held_out.measures()].map(|figures| (figures.loss, figures.accuracy));
            let row = (epoch, learning_rate, seen, held_out, seconds, images_per_second);
            table.serialize(row).expect(memory);
        }
        write_whole(&folder.join("metrics.jsonl"), &lines)?;
        write_whole(&folder.join(events::file_name(self)), &events::encode(self))?;
        write_whole(&folder.join("metrics.csv"), &table.into_inner().expect(memory))
    }

    /// Time of the whole run: the backbone's passes and all epochs with their tests.
    pub fn seconds(&self) -> f64 {
        self.backbone_seconds + self.epochs.iter().map(|epoch| epoch.seconds).sum::<f64>()
    }

    /// The best epoch so far, by what the recipe monitors; the first of equals, since later ones only saw the training
    /// images more often.
    pub fn best(&self) -> Option<&Epoch> {
        best(&self.epochs, self.recipe.monitor)
    }

    /// What the best weights do on the test images, as far as that was measured.
    pub fn tested(&self) -> Option<Measures> {
        match self.best()?.held_out {
            HeldOut::Test(measures) => Some(measures),
            HeldOut::Val(_) => self.test,
        }
    }
}

impl Recipe {
    /// Whether a run of these epochs has done all, or as many without a better one as early stopping lets pass.
    pub(crate) fn ends_after(&self, epochs: &[Epoch]) -> bool {
        let since_best = best(epochs, self.monitor).map_or(0, |best| epochs.len() - best.epoch);
        epochs.len() >= self.epochs || self.early_stopping.is_some_and(|most| since_best >= most)
    }
}

/// The first of the best epochs.
pub(crate) fn best(epochs: &[Epoch], monitor: Monitor) -> Option<&Epoch> {
    // A NaN is worse than all numbers.
    let value = |epoch: &Epoch| match monitor {
        Monitor::Accuracy => epoch.held_out.measures().accuracy,
        Monitor::Loss if epoch.held_out.measures().loss.is_nan() => f64::NEG_INFINITY,
        Monitor::Loss => -epoch.held_out.measures().loss,
    };
    epochs.iter().rev().max_by(|a, b| value(a).total_cmp(&value(b)))
}

/// Writes a file under a temporary name, then renames it, so that it is seen whole or not at all.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    // Temporary files are private by default; a run is as public as the user's other files.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder).map_err(TrainError::io("write", path))?;
    file.write_all(bytes).map_err(TrainError::io("write", path))?;
    file.persist(path).map_err(|error| TrainError::io("write", path)(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(epoch: usize, loss: f64, accuracy: f64) -> Epoch {
        let test = Measures { loss, accuracy };
        Epoch {
            epoch,
            learning_rate: 0.1,
            train: test,
            held_out: HeldOut::Test(test),
            seconds: 1.0,
            images_per_second: 10.0,
        }
    }

    #[test]
    fn the_best_epoch_is_the_first_of_the_best() {
        let epochs = [epoch(1, 0.9, 0.5), epoch(2, f64::NAN, 0.8), epoch(3, 0.5, 0.8), epoch(4, 0.5, 0.7)];
        assert_eq!(best(&epochs, Monitor::Accuracy).unwrap().epoch, 2);
        assert_eq!(best(&epochs, Monitor::Loss).unwrap().epoch, 3);
        assert!(best(&[], Monitor::Loss).is_none());
    }

    #[test]
    fn records_and_metrics_are_written_and_read() {
        let folder = tempfile::tempdir().unwrap();
        let record = RunRecord {
            name: None,
            tags: Vec::new(),
            command: vec!["convzoo".to_owned()],
            setup: serde_json::Value::Null,
            recipe_name: None,
            recipe: Recipe::default(),
            seed: 3,
            device: "flex".to_owned(),
            versions: BTreeMap::new(),
            started: 0,
            train_images: 10,
            val_images: None,
            test_images: 5,
            status: RunStatus::Running,
            backbone_seconds: 0.0,
            epochs: vec![epoch(1, f64::NAN, 0.25)],
            best_epoch: Some(1),
            test: None,
        };
        record.write(folder.path()).unwrap();
        let read = RunRecord::read(folder.path()).unwrap();
        let measured = read.epochs[0].held_out;
        assert!(matches!(measured, HeldOut::Test(test) if test.loss.is_nan() && test.accuracy == 0.25), "{read:?}");
        let text = |file| std::fs::read_to_string(folder.path().join(file)).unwrap();
        let header = "epoch,learning_rate,train_loss,train_accuracy,test_loss,test_accuracy,seconds,images_per_second";
        assert_eq!(text("metrics.csv"), format!("{header}\n1,0.1,NaN,0.25,NaN,0.25,1.0,10.0\n"));
        let line: serde_json::Value = serde_json::from_str(text("metrics.jsonl").trim()).unwrap();
        assert_eq!(line["test"]["accuracy"], 0.25);
    }
}
