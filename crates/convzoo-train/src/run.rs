use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use burn::data::dataloader::DataLoader;
use burn::module::{Module, ModuleDisplay};
use burn::tensor::Device;
use burn::train::checkpoint::{FileCheckpointer, KeepLastNCheckpoints};
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{ExecutionStrategy, Interrupter, Learner, SupervisedTraining, TrainingStrategy};
use convzoo_data::{Preprocess, Splits};
use convzoo_models::Classifier;

use crate::checkpoint::{self, WeightsCheckpointer};
use crate::history::{Divergence, Gather, History, Report};
use crate::progress::Quiet;
use crate::step::Trainee;
use crate::{Epoch, Loader, Recipe, RunRecord, RunStatus, TrainError};

/// Checkpoints kept: the last, and the one before it in case the last is damaged.
const CHECKPOINTS_KEPT: usize = 2;

/// A training run: any network, any data, one recipe, one folder.
pub struct Trainer<N: Classifier + ModuleDisplay + 'static> {
    /// The network to train; its weights are where it starts from.
    pub network: N,
    /// What to train and to test on.
    pub data: Splits,
    /// How images become the network's input.
    pub preprocess: Preprocess,
    /// How to train.
    pub recipe: Recipe,
    /// What the order of the images and dropout come from.
    pub seed: u64,
    /// Where to train.
    pub device: Device,
    /// The device's name, for the record.
    pub device_name: String,
    /// The run's folder.
    pub out: PathBuf,
    /// The command that started it, for the record.
    pub command: Vec<String>,
    /// What the caller needs to make the same network and data again, for the record.
    pub setup: serde_json::Value,
    /// Whether burn-train's dashboard is shown.
    pub dashboard: bool,
    /// Stops the run when asked to.
    pub interrupter: Interrupter,
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its record, with every epoch's figures.
    pub record: RunRecord,
    /// The best epoch's figures.
    pub best: Option<Epoch>,
    /// Whether it was stopped before its last epoch.
    pub interrupted: bool,
}

impl<N: Classifier + ModuleDisplay + 'static> Trainer<N> {
    /// Trains in a new folder. `report` is told each epoch as it ends.
    pub fn start(self, report: impl FnMut(&Epoch, &RunRecord) + Send + 'static) -> Result<Outcome, TrainError> {
        self.recipe.check()?;
        if self.out.join("run.json").exists() {
            return Err(TrainError::Occupied(self.out));
        }
        let record = RunRecord {
            command: self.command.clone(),
            setup: self.setup.clone(),
            recipe: self.recipe.clone(),
            seed: self.seed,
            device: self.device_name.clone(),
            versions: HashMap::from([
                ("convzoo".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
                ("burn".to_owned(), "0.22.1".to_owned()),
            ]),
            status: RunStatus::Running,
            epochs: Vec::new(),
            best_epoch: None,
        };
        self.run(record, None, Box::new(report))
    }

    /// Goes on from the last checkpoint in the folder, as if the run had never stopped.
    pub fn resume(self, report: impl FnMut(&Epoch, &RunRecord) + Send + 'static) -> Result<Outcome, TrainError> {
        self.recipe.check()?;
        let mut record = RunRecord::read(&self.out)?;
        let epochs = self.recipe.epochs;
        let last = checkpoint::last_epoch(&self.out, epochs).ok_or_else(|| TrainError::NotResumable {
            path: self.out.clone(),
            reason: "no epoch was finished; start it anew".to_owned(),
        })?;
        if last == epochs {
            return Err(TrainError::Finished { path: self.out, epochs });
        }
        record.epochs.truncate(last);
        record.best_epoch = record.best().map(|best| best.epoch);
        record.status = RunStatus::Running;
        record.device = self.device_name.clone();
        self.run(record, Some(last), Box::new(report))
    }

    fn run(self, record: RunRecord, checkpoint: Option<usize>, report: Report) -> Result<Outcome, TrainError> {
        create_folder(&self.out)?;
        create_folder(&checkpoint::folder(&self.out))?;
        record.write(&self.out)?;
        let history = History::new(&self.out, record);
        let divergence = Divergence::default();

        let device = self.device.clone().autodiff();
        let loader = |data, device: &Device| Loader::new(data, self.preprocess.clone(), self.recipe.batch_size, device);
        let first_epoch = checkpoint.map_or(1, |epoch| epoch + 1);
        let train = loader(Arc::clone(&self.data.train), &device).shuffled(self.seed, first_epoch);
        let test = loader(Arc::clone(&self.data.test), &self.device);
        let steps = train.batches() * self.recipe.epochs;

        let trainee = Trainee::new(self.network, &self.recipe, &device).train();
        let folder = checkpoint::folder(&self.out);
        let weights = WeightsCheckpointer::new(trainee.valid(), history.clone());
        if let Some(epoch) = checkpoint {
            weights.save_weights(epoch).map_err(|error| TrainError::Stopped(error.to_string()))?;
        }
        let gather = Gather::new(history.clone(), self.interrupter.clone(), Arc::clone(&divergence), report);
        let mut training =
            SupervisedTraining::new(&self.out, Arc::new(train) as Arc<dyn DataLoader<_>>, Arc::new(test))
                .with_training_strategy(TrainingStrategy::Default(ExecutionStrategy::SingleDevice(device.clone())))
                .metrics((AccuracyMetric::new(), LossMetric::new()))
                .with_metric_logger(gather)
                .with_application_logger(None)
                .with_interrupter(self.interrupter.clone())
                .with_checkpointing_strategy(KeepLastNCheckpoints::new(CHECKPOINTS_KEPT))
                .with_custom_checkpointers(
                    weights,
                    FileCheckpointer::new(&folder, checkpoint::PARTS[1]),
                    FileCheckpointer::new(&folder, checkpoint::PARTS[2]),
                )
                .num_epochs(self.recipe.epochs);
        if !self.dashboard {
            training = training.renderer(Box::new(Quiet));
        }
        if let Some(epoch) = checkpoint {
            training = training.checkpoint(epoch);
        }

        let result = training.launch(Learner::new(trainee, self.recipe.optimizer(), self.recipe.scheduler(steps)));
        drop(result.renderer);

        let diverged = *divergence.lock().unwrap_or_else(PoisonError::into_inner);
        let (status, error) = match (diverged, result.error) {
            (Some((loss, epoch)), _) => {
                let learning_rate = self.recipe.learning_rate;
                (RunStatus::Failed, Some(TrainError::Diverged { loss, epoch, learning_rate }))
            }
            (None, Some(error)) => (RunStatus::Failed, Some(TrainError::Stopped(error.to_string()))),
            (None, None) if result.interrupted.is_some() => (RunStatus::Interrupted, None),
            (None, None) => (RunStatus::Finished, None),
        };
        let record = history.update(|record| {
            record.status = status;
            record.clone()
        })?;
        match error {
            Some(error) => Err(error),
            None => Ok(Outcome { best: record.best().cloned(), interrupted: status == RunStatus::Interrupted, record }),
        }
    }
}

fn create_folder(path: &Path) -> Result<(), TrainError> {
    std::fs::create_dir_all(path).map_err(TrainError::io("create", path))
}
