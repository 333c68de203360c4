use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use burn::module::{Module, ModuleDisplay};
use burn::store::ModuleRecord;
use burn::train::checkpoint::{Checkpointer, CheckpointerError, FileCheckpointer};
use convzoo_models::{Classifier, weights};

use crate::TrainError;
use crate::history::History;
use crate::step::Trainee;

/// What a checkpoint consists of: model, optimiser and schedule, each a file per epoch.
pub(crate) const PARTS: [&str; 3] = ["model", "optim", "scheduler"];

/// The folder of a run's checkpoints.
pub(crate) fn folder(run: &Path) -> PathBuf {
    run.join("checkpoints")
}

/// The last epoch that all parts of a checkpoint are there for; each is renamed into place when it is whole.
pub(crate) fn last_epoch(run: &Path, epochs: usize) -> Option<usize> {
    let folder = folder(run);
    let whole = |epoch: &usize| PARTS.iter().all(|part| folder.join(format!("{part}-{epoch}.bpk")).is_file());
    (1..=epochs).rev().find(whole)
}

/// Saves the model's part of a checkpoint, and the weights for people: `last.safetensors` and `best.safetensors`.
pub(crate) struct WeightsCheckpointer<N: Module + ModuleDisplay> {
    file: FileCheckpointer,
    template: Mutex<Trainee<N>>,
    history: History,
}

impl<N: Classifier + ModuleDisplay> WeightsCheckpointer<N> {
    /// `template` is any network of the same shape, on a device without gradients.
    pub fn new(template: Trainee<N>, history: History) -> Self {
        let file = FileCheckpointer::new(folder(&history.folder), PARTS[0]);
        Self { file, template: Mutex::new(template), history }
    }

    /// Writes the weights of a saved epoch for people. A run that was killed between a checkpoint and this has it done
    /// when it resumes.
    pub fn save_weights(&self, epoch: usize) -> Result<(), CheckpointerError> {
        let unknown = |error: TrainError| CheckpointerError::Unknown(error.to_string());
        let record: ModuleRecord = Checkpointer::restore(&self.file, epoch)?;
        let template = self.template.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let network = template.try_load_record(record).map_err(CheckpointerError::Record)?.network;
        let save = |name: &str| weights::save(&network, &self.history.folder.join(name)).map_err(TrainError::from);
        save("last.safetensors").map_err(unknown)?;
        if self.history.read(|record| record.best().is_some_and(|best| best.epoch == epoch)) {
            save("best.safetensors").map_err(unknown)?;
            self.history.update(|record| record.best_epoch = Some(epoch)).map_err(unknown)?;
        }
        Ok(())
    }
}

impl<N: Classifier + ModuleDisplay> Checkpointer<ModuleRecord> for WeightsCheckpointer<N> {
    fn save(&self, epoch: usize, record: ModuleRecord) -> Result<(), CheckpointerError> {
        self.file.save(epoch, record)?;
        self.save_weights(epoch)
    }

    fn delete(&self, epoch: usize) -> Result<(), CheckpointerError> {
        Checkpointer::<ModuleRecord>::delete(&self.file, epoch)
    }

    fn restore(&self, epoch: usize) -> Result<ModuleRecord, CheckpointerError> {
        self.file.restore(epoch)
    }
}
