use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use burn::data::dataloader::DataLoader;
use burn::lr_scheduler::constant::ConstantLr;
use burn::module::{Module, ModuleDisplay};
use burn::tensor::Device;
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{Interrupter, Learner, SupervisedTraining, TrainingStrategy};
use convzoo_data::{Dataset, Preprocess, Splits};
use convzoo_models::{Classifier, weights};

use crate::checkpoint::{Checkpoints, Position, State};
use crate::features::Features;
use crate::fit::{Ending, Fit, Run};
use crate::progress::{Event, Quiet};
use crate::step::Trainee;
use crate::{Epoch, Loader, Recipe, RunRecord, RunStatus, TrainError, Views, evaluate, report};

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
    /// The recipe's name or file, for the record.
    pub recipe_name: Option<String>,
    /// What the order of the images and dropout come from.
    pub seed: u64,
    /// Where to train.
    pub device: Device,
    /// The device's name, for the record.
    pub device_name: String,
    /// The run's folder.
    pub out: PathBuf,
    /// When to write checkpoints, and how many to keep.
    pub saving: Saving,
    /// What else of the machine it may use.
    pub resources: Resources,
    /// The command that started it, for the record.
    pub command: Vec<String>,
    /// What the caller needs to make the same network and data again, for the record.
    pub setup: serde_json::Value,
    /// Whether burn-train's dashboard is shown.
    pub dashboard: bool,
    /// Stops the run when asked to.
    pub interrupter: Interrupter,
}

/// When checkpoints are written, and how many are kept. There is one at the beginning and at the end of each epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Saving {
    /// Steps between those within an epoch; none where this is not given.
    pub every: Option<usize>,
    /// The last so many are kept: more than one in case the last is damaged.
    pub keep: usize,
}

impl Default for Saving {
    fn default() -> Self {
        Self { every: None, keep: 2 }
    }
}

impl Saving {
    fn check(&self) -> Result<(), TrainError> {
        let refuse = |field| Err(TrainError::Recipe { field, value: "0".to_owned(), expected: "at least 1" });
        match self {
            Self { every: Some(0), .. } => refuse("checkpoint_every"),
            Self { keep: 0, .. } => refuse("keep"),
            _ => Ok(()),
        }
    }
}

/// What a run may use besides its device.
#[derive(Debug, Clone)]
pub struct Resources {
    /// Further devices to train on. Each, and the first, has a batch of the recipe's size in each step, whose gradients
    /// are averaged; batch norms normalise by the batch of their device, and average their statistics.
    pub more_devices: Vec<Device>,
    /// Threads that make batches; as many as there are cores where this is not given.
    pub workers: Option<usize>,
    /// Bytes of decoded images, or of what a frozen backbone answers to them, that are kept in memory.
    pub cache: usize,
}

impl Default for Resources {
    fn default() -> Self {
        Self { more_devices: Vec::new(), workers: None, cache: 1 << 30 }
    }
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
    /// Trains in a new folder. `report` is told how it goes.
    pub fn start(self, report: impl FnMut(Event) + Send + 'static) -> Result<Outcome, TrainError> {
        if self.out.join("run.json").exists() {
            return Err(TrainError::Occupied(self.out));
        }
        let record = RunRecord {
            command: self.command.clone(),
            setup: self.setup.clone(),
            recipe_name: self.recipe_name.clone(),
            recipe: self.recipe.clone(),
            seed: self.seed,
            device: self.device_name.clone(),
            versions: BTreeMap::from([
                ("convzoo".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
                ("burn".to_owned(), "0.22.1".to_owned()),
            ]),
            started: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            train_images: self.data.train.len(),
            test_images: self.data.test.len(),
            status: RunStatus::Running,
            epochs: Vec::new(),
            best_epoch: None,
        };
        self.run(record, false, Box::new(report))
    }

    /// Goes on from the last checkpoint in the folder, as if the run had never stopped.
    pub fn resume(self, report: impl FnMut(Event) + Send + 'static) -> Result<Outcome, TrainError> {
        let mut record = RunRecord::read(&self.out)?;
        if record.status == RunStatus::Finished {
            return Err(TrainError::Finished { epochs: record.epochs.len(), path: self.out });
        }
        record.status = RunStatus::Running;
        record.device = self.device_name.clone();
        self.run(record, true, Box::new(report))
    }

    fn run(
        self,
        record: RunRecord,
        resumes: bool,
        mut report: Box<dyn FnMut(Event) + Send>,
    ) -> Result<Outcome, TrainError> {
        self.recipe.check()?;
        self.saving.check()?;
        let Preprocess { channels, height, width, .. } = self.preprocess;
        let device = self.device.clone().autodiff();
        let model = Trainee::new(self.network, &self.recipe, &device).train().fork(&device);
        let checkpoints = Checkpoints::new(&self.out, self.saving.keep);
        let state = if resumes {
            checkpoints.clean()?;
            let damaged = |error: &TrainError| report(Event::Damaged(error));
            checkpoints.load(&model, &self.recipe, damaged)?.ok_or_else(|| {
                let reason = "it has no checkpoint that can be read; start it anew".to_owned();
                TrainError::NotResumable { path: self.out.clone(), reason }
            })?
        } else {
            State::start(model, &self.recipe)
        };
        // It names parameters by id, which those of a checkpoint bring with them. A copy for evaluation is looked through:
        // norms would count a pass as one more batch.
        let plan = self.recipe.transfer.plan(&state.model.valid().network, [channels, height, width])?;
        if !resumes {
            create_folder(&self.out)?;
            // The beginning can be resumed too, whatever weights it started from.
            checkpoints.save(&state)?;
        }

        let others = self.resources.more_devices.iter().map(|device| device.clone().autodiff());
        let devices: Vec<Device> = std::iter::once(device.clone()).chain(others).collect();
        let Resources { workers, cache, .. } = self.resources;
        let size = self.recipe.batch_size;
        let loader = |data: &Arc<dyn Dataset>, size, device: &Device| {
            let loader = Loader::new(Arc::clone(data), self.preprocess.clone(), size, device);
            workers.into_iter().fold(loader, Loader::with_workers)
        };
        let test = loader(&self.data.test, size, &self.device);
        let features = match self.recipe.trains_head_alone() {
            true => {
                // It may take minutes, and be killed meanwhile.
                record.write(&self.out)?;
                let total = self.data.train.len() + self.data.test.len();
                let goes_on = |images| {
                    report(Event::Backbone(images, total));
                    !self.interrupter.should_stop()
                };
                let network = state.model.valid().network;
                Features::of_both(&network, [&loader(&self.data.train, size, &self.device), &test], cache, goes_on)?
            }
            false => None,
        };
        let train = loader(&self.data.train, size * devices.len(), &device);
        let batches = train.batches();
        let Position { epoch, batches: done, .. } = state.position;
        let train = train
            .shuffled(self.seed, if done == batches { epoch + 1 } else { epoch })
            .augmented(self.recipe.augment.clone(), self.recipe.mix());
        let (train, test, state) = match features {
            Some([of_train, of_test]) => {
                (train.with_features(of_train), test.with_features(of_test), state.of_features())
            }
            None => {
                let share = |part: usize, total: usize| (cache as u128 * part as u128 / total as u128) as usize;
                let [part, rest] = [&self.data.train, &self.data.test].map(|data| data.len());
                (train.cached(share(part, part + rest)), test.cached(share(rest, part + rest)), state)
            }
        };

        let learner =
            Learner::new(state.model.clone(), state.optimizer.clone(), ConstantLr::new(self.recipe.learning_rate));
        let mut run = Run {
            state,
            record,
            recipe: self.recipe.clone(),
            seed: self.seed,
            devices,
            plan,
            batches,
            folder: self.out.clone(),
            checkpoints,
            every: self.saving.every,
            dashboard: self.dashboard,
            report,
        };
        if resumes && done == 0 && !run.state.position.epochs.is_empty() {
            let model = run.tested();
            run.publish(&model)?;
        } else {
            run.record.epochs.clone_from(&run.state.position.epochs);
            run.record.write(&self.out)?;
        }

        let fit = Arc::new(Fit::new(run));
        let mut training =
            SupervisedTraining::new(&self.out, Arc::new(train) as Arc<dyn DataLoader<_>>, Arc::new(test))
                .with_training_strategy(TrainingStrategy::Custom(fit.clone()))
                .metrics((AccuracyMetric::new(), LossMetric::new()))
                .with_metric_logger(Quiet)
                .with_application_logger(None)
                .with_interrupter(self.interrupter.clone())
                .num_epochs(self.recipe.epochs);
        if !self.dashboard {
            training = training.renderer(Box::new(Quiet));
        }
        if epoch > 1 {
            training = training.checkpoint(epoch - 1);
        }
        let result = training.launch(learner);
        drop(result.renderer);

        let (mut run, result) =
            fit.ended().ok_or_else(|| TrainError::Stopped("burn-train did not start the run".to_owned()))?;
        run.record.status = match &result {
            Ok(Ending::Finished) => RunStatus::Finished,
            Ok(Ending::Interrupted) => RunStatus::Interrupted,
            Err(_) => RunStatus::Failed,
        };
        if let Ok(Ending::Finished) = result {
            let network = run.tested().network;
            let reported = weights::load(network, &self.out.join("best.safetensors"))
                .map_err(TrainError::from)
                .and_then(|network| {
                    let (test, batch) = (Arc::clone(&self.data.test), self.recipe.batch_size);
                    evaluate(&network, test, &self.preprocess, Views::Centre, batch, &self.device, |_| {})
                })
                .and_then(|evaluation| report::write(&run.record, &evaluation, self.data.classes(), &self.out));
            if let Err(error) = reported {
                (run.report)(Event::Unreported(&error));
            }
        }
        let written = run.record.write(&self.out);
        let interrupted = result? == Ending::Interrupted;
        written?;
        Ok(Outcome { best: run.record.best().cloned(), interrupted, record: run.record })
    }
}

fn create_folder(path: &Path) -> Result<(), TrainError> {
    std::fs::create_dir_all(path).map_err(TrainError::io("create", path))
}
