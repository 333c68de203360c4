use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use burn::data::dataloader::split::split_dataloader;
use burn::data::dataloader::{self, DataLoaderIterator};
use burn::data::dataset::DatasetError;
use burn::module::{Module, ModuleDisplay};
use burn::tensor::Device;
use burn::train::train::MultiDevicesTrainStep;
use burn::train::{
    ClassificationOutput, EventProcessorTraining, InferenceStep, Interrupter, Learner, LearnerEvent,
    SupervisedLearningStrategy, SupervisedTrainingEventProcessor, TrainLoader, TrainOutput, TrainStep,
    TrainingComponents, TrainingItem, ValidLoader,
};
use convzoo_models::{Classifier, weights};

use crate::checkpoint::{Checkpoints, State};
use crate::gradients::Gradients;
use crate::history::best;
use crate::progress::{Event, Progress};
use crate::step::{Answers, Tally, Trainee};
use crate::transfer::Plan;
use crate::{Epoch, Recipe, RunRecord, TrainError};

/// The training loop, as a strategy of burn-train's. Its own strategies cannot stop and go on within an epoch, nor clip
/// the norm of a whole gradient, average weights, or let a schedule see how an epoch went.
pub(crate) struct Fit<N: Classifier + ModuleDisplay + 'static>(Mutex<Stage<N>>);

enum Stage<N: Classifier + ModuleDisplay + 'static> {
    Ready(Run<N>),
    Running,
    Done(Run<N>, Result<Ending, TrainError>),
}

/// How a run ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Finished,
    Interrupted,
}

/// A run, and all that it needs but data.
pub(crate) struct Run<N: Classifier + ModuleDisplay + 'static> {
    pub state: State<N>,
    pub record: RunRecord,
    pub recipe: Recipe,
    pub seed: u64,
    /// Where it trains; the first also tests and saves.
    pub devices: Vec<Device>,
    /// Which layers learn.
    pub plan: Plan,
    /// Batches in an epoch.
    pub batches: usize,
    pub folder: PathBuf,
    pub checkpoints: Checkpoints,
    /// Steps between the checkpoints within an epoch.
    pub every: Option<usize>,
    /// Whether the dashboard is told of each batch.
    pub dashboard: bool,
    pub report: Box<dyn FnMut(Event) + Send>,
}

impl<N: Classifier + ModuleDisplay + 'static> Fit<N> {
    pub fn new(run: Run<N>) -> Self {
        Self(Mutex::new(Stage::Ready(run)))
    }

    /// The run and how it ended; nothing where burn-train has not started it.
    pub fn ended(&self) -> Option<(Run<N>, Result<Ending, TrainError>)> {
        match self.exchange(Stage::Running) {
            Stage::Done(run, result) => Some((run, result)),
            _ => None,
        }
    }

    fn exchange(&self, stage: Stage<N>) -> Stage<N> {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), stage)
    }
}

impl<N: Classifier + ModuleDisplay + 'static> SupervisedLearningStrategy<Trainee<N>> for Fit<N> {
    fn fit(
        &self,
        components: TrainingComponents<Trainee<N>>,
        learner: Learner<Trainee<N>>,
        train: TrainLoader<Trainee<N>>,
        test: ValidLoader<Trainee<N>>,
        _: usize,
    ) -> (Trainee<N>, SupervisedTrainingEventProcessor<Trainee<N>>) {
        let TrainingComponents { event_processor, interrupter, .. } = components;
        let mut dashboard = Dashboard { processor: event_processor, interrupter, shown: false };
        let model = match self.exchange(Stage::Running) {
            Stage::Ready(mut run) => {
                // It would hold on to the first weights.
                drop(learner);
                dashboard.shown = run.dashboard;
                let result = run.epochs(&train, &test, &mut dashboard);
                let model = run.state.model.clone();
                self.exchange(Stage::Done(run, result));
                model
            }
            _ => learner.model(),
        };
        (model, dashboard.processor)
    }
}

/// burn-train's dashboard, where it is shown.
struct Dashboard<N: Classifier + ModuleDisplay + 'static> {
    processor: SupervisedTrainingEventProcessor<Trainee<N>>,
    interrupter: Interrupter,
    shown: bool,
}

impl<N: Classifier + ModuleDisplay + 'static> Dashboard<N> {
    fn train(&mut self, event: impl FnOnce() -> LearnerEvent<ClassificationOutput>) {
        if self.shown {
            self.interrupter.fail_on_error(self.processor.process_train(event()));
        }
    }

    fn test(&mut self, event: impl FnOnce() -> LearnerEvent<ClassificationOutput>) {
        if self.shown {
            self.interrupter.fail_on_error(self.processor.process_valid(event()));
        }
    }

    /// Whether the run shall stop, or the error that stops it.
    fn should_stop(&self) -> Result<bool, TrainError> {
        match self.interrupter.error() {
            Some(error) => Err(TrainError::Stopped(error.to_string())),
            None => Ok(self.interrupter.should_stop()),
        }
    }
}

impl<N: Classifier + ModuleDisplay + 'static> Run<N> {
    /// All epochs that are left.
    fn epochs(
        &mut self,
        train: &TrainLoader<Trainee<N>>,
        test: &ValidLoader<Trainee<N>>,
        dashboard: &mut Dashboard<N>,
    ) -> Result<Ending, TrainError> {
        // Once: each loader counts its epochs.
        let train = split_dataloader(Arc::clone(train), &self.devices);
        while !self.is_finished() {
            if !self.train_epoch(&train, dashboard)? || !self.test_epoch(test, dashboard)? {
                self.checkpoints.save(&self.state)?;
                return Ok(Ending::Interrupted);
            }
        }
        Ok(Ending::Finished)
    }

    /// Whether all epochs are done, or as many without a better one as early stopping lets pass.
    pub fn is_finished(&self) -> bool {
        let epochs = &self.state.position.epochs;
        let since_best = best(epochs, self.recipe.monitor).map_or(0, |best| epochs.len() - best.epoch);
        epochs.len() >= self.recipe.epochs || self.recipe.early_stopping.is_some_and(|most| since_best >= most)
    }

    /// The rate of a step of the epoch under way, counted from 0 at the run's beginning.
    fn rate(&self, step: usize) -> f64 {
        self.recipe.rate(step, self.batches.div_ceil(self.recipe.accumulation), &self.state.position.plateau)
    }

    /// What is left of an epoch's batches; false where it was asked to stop.
    fn train_epoch(
        &mut self,
        loaders: &[TrainLoader<Trainee<N>>],
        dashboard: &mut Dashboard<N>,
    ) -> Result<bool, TrainError> {
        let (epoch, done) = (self.state.position.epoch, self.state.position.batches);
        if done == self.batches {
            return Ok(true);
        }
        let total = loaders.iter().map(|loader| loader.num_items()).sum();
        dashboard.train(|| LearnerEvent::StartSplit { epoch_number: epoch, total_items: total });
        let (started, seconds_before) = (Instant::now(), self.state.position.seconds);
        self.state.model = self.plan.freeze(self.state.model.clone(), epoch);
        let mut batches: Vec<_> = loaders.iter().map(|loader| loader.iter()).collect();
        if done > 0 {
            batches.iter_mut().try_for_each(|batches| batches.nth(done - 1).transpose().map(drop)).map_err(unread)?;
        }
        let several = (self.devices.len() > 1).then(|| MultiDevicesTrainStep::new(&self.devices));
        let mut gradients = Gradients::default();
        let mut unseen: Option<Batch> = None;
        let mut images = self.state.position.tally.images;
        loop {
            let outputs = self.outputs(&mut batches, several.as_ref())?;
            if outputs.is_empty() {
                break;
            }
            let (rate, number) = (self.rate(self.state.position.steps), self.state.position.batches);
            let mut items = Vec::with_capacity(outputs.len());
            for TrainOutput { grads, item } in outputs {
                let [count] = item.targets.dims();
                images += count;
                gradients.add(&self.state.model, grads, count);
                items.push(item);
            }
            self.state.position.batches += 1;
            let is_last = self.state.position.batches == self.batches;
            let steps = gradients.batches() == self.recipe.accumulation * self.devices.len() || is_last;
            let step = self.state.position.steps + 1;
            if steps {
                self.step(rate, &mut gradients);
            }
            // The answers of the batch before are read while the device works on this one.
            let answers = items.iter().map(Answers::of).collect();
            self.see(unseen.replace(Batch { answers, step, rate }))?;
            for item in items {
                let progress = dataloader::Progress::new(images, total, None);
                let item = || TrainingItem::new(item, progress, Some(number + 1), Some(rate.into()));
                dashboard.train(|| LearnerEvent::ProcessedItem(item()));
            }
            let seconds = seconds_before + started.elapsed().as_secs_f64();
            self.progress(false, [images, total], seconds);
            if steps {
                let stops = dashboard.should_stop()?;
                let is_due = self.every.is_some_and(|every| step.is_multiple_of(every)) && !is_last;
                if stops || is_due {
                    self.see(unseen.take())?;
                    self.state.position.seconds = seconds_before + started.elapsed().as_secs_f64();
                }
                if stops {
                    return Ok(false);
                } else if is_due {
                    self.checkpoints.save(&self.state)?;
                }
            }
        }
        self.see(unseen)?;
        self.state.position.seconds = seconds_before + started.elapsed().as_secs_f64();
        dashboard.train(|| LearnerEvent::EndSplit(epoch));
        Ok(true)
    }

    /// What the next batch gives, of each device its part, with gradients on the first; nothing at the epoch's end.
    fn outputs<'a>(
        &self,
        batches: &mut [Box<dyn DataLoaderIterator<crate::Batch> + 'a>],
        several: Option<&MultiDevicesTrainStep<Trainee<N>>>,
    ) -> Result<Vec<TrainOutput<ClassificationOutput>>, TrainError> {
        let State { model, position, .. } = &self.state;
        let seed = mixed(self.seed, position.epoch, position.batches);
        self.devices.iter().for_each(|device| device.seed(seed));
        let Some(several) = several else {
            let batch = batches[0].next().transpose().map_err(unread)?;
            return Ok(batch.map(|batch| TrainStep::step(model, batch)).into_iter().collect());
        };
        let (outputs, _) = several.step(batches, model).map_err(|error| TrainError::Stopped(error.to_string()))?;
        let first = |TrainOutput { grads, item }| TrainOutput { grads: grads.to_device(&self.devices[0], model), item };
        Ok(outputs.into_iter().map(|output| first(output.output)).collect())
    }

    /// One step of the optimiser.
    fn step(&mut self, rate: f64, gradients: &mut Gradients) {
        let State { model, optimizer, average, position } = &mut self.state;
        let gradients = gradients.take(model, self.recipe.clip_norm);
        if self.devices.len() > 1 {
            // Making a copy for evaluation averages the devices' running statistics, which then come back to the first.
            drop(model.valid());
            *model = model.clone().fork(&self.devices[0]);
        }
        *model = optimizer.step(self.plan.rates(rate), model.clone(), gradients);
        position.steps += 1;
        if let Some(old) = average.take() {
            *average = Some(old.update(model, position.steps));
        }
    }

    /// Reads what a batch gave.
    fn see(&mut self, batch: Option<Batch>) -> Result<(), TrainError> {
        let Some(Batch { answers, step, rate }) = batch else { return Ok(()) };
        let position = &mut self.state.position;
        for answers in answers {
            let loss = answers.add_to(&mut position.tally)?;
            if !loss.is_finite() {
                return Err(TrainError::Diverged { loss, epoch: position.epoch, step, learning_rate: rate });
            }
        }
        Ok(())
    }

    /// An epoch's test and what follows from it; false where it was asked to stop.
    fn test_epoch(
        &mut self,
        loader: &ValidLoader<Trainee<N>>,
        dashboard: &mut Dashboard<N>,
    ) -> Result<bool, TrainError> {
        let (epoch, total) = (self.state.position.epoch, loader.num_items());
        dashboard.test(|| LearnerEvent::StartSplit { epoch_number: epoch, total_items: total });
        let started = Instant::now();
        let model = self.tested();
        let mut tally = Tally::default();
        let mut unseen: Option<Answers> = None;
        let mut batches = loader.iter();
        let mut images = 0;
        while let Some(batch) = batches.next() {
            let batch = batch.map_err(unread)?;
            images += batch.targets.dims()[0];
            let output = InferenceStep::step(&model, batch);
            if let Some(before) = unseen.replace(Answers::of(&output)) {
                before.add_to(&mut tally)?;
            }
            dashboard.test(|| LearnerEvent::ProcessedItem(TrainingItem::new(output, batches.progress(), None, None)));
            self.progress(true, [images, total], started.elapsed().as_secs_f64());
            if dashboard.should_stop()? {
                return Ok(false);
            }
        }
        if let Some(last) = unseen {
            last.add_to(&mut tally)?;
        }
        dashboard.test(|| LearnerEvent::EndSplit(epoch));
        dashboard.train(|| LearnerEvent::EndEpoch(epoch));

        let learning_rate = self.rate(self.state.position.steps - 1);
        let position = &mut self.state.position;
        let done = Epoch {
            epoch,
            learning_rate,
            train: position.tally.measures(),
            test: tally.measures(),
            seconds: position.seconds + started.elapsed().as_secs_f64(),
            images_per_second: position.tally.images as f64 / position.seconds,
        };
        position.plateau.epoch(&self.recipe, &done.test);
        position.epochs.push(done.clone());
        position.epoch += 1;
        (position.batches, position.seconds, position.tally) = Default::default();
        self.checkpoints.save(&self.state)?;
        self.publish(&model)?;
        (self.report)(Event::Epoch(&done, &self.record));
        Ok(true)
    }

    /// What is tested and saved for people: the averaged weights, where the recipe averages.
    pub fn tested(&self) -> Trainee<N> {
        match &self.state.average {
            Some(average) => average.module.clone(),
            None => self.state.model.valid(),
        }
    }

    /// Writes down what the end of an epoch gave: the weights as `last.safetensors`, and `best.safetensors` if they are
    /// better than all before, and the record. Done again when a run is resumed at the end of an epoch, it is what a
    /// kill may have prevented.
    pub fn publish(&mut self, model: &Trainee<N>) -> Result<(), TrainError> {
        let epochs = &self.state.position.epochs;
        let best = best(epochs, self.recipe.monitor).map(|best| best.epoch);
        weights::save(&model.network, &self.folder.join("last.safetensors"))?;
        if best == Some(epochs.len()) {
            weights::save(&model.network, &self.folder.join("best.safetensors"))?;
        }
        self.record.epochs.clone_from(epochs);
        self.record.best_epoch = best;
        self.record.write(&self.folder)
    }

    /// Tells how far an epoch's training or test is, `seconds` after its begin.
    fn progress(&mut self, testing: bool, [images, total]: [usize; 2], seconds: f64) {
        let position = &self.state.position;
        let epochs_left = (self.recipe.epochs - position.epochs.len()) as f64;
        let past: f64 = position.epochs.iter().map(|epoch| epoch.seconds).sum();
        let share = images as f64 / total as f64;
        // What tests take is known when there was one.
        let per_epoch = match position.epochs.len() {
            0 if testing => position.seconds + seconds / share,
            0 => seconds / share,
            epochs => past / epochs as f64,
        };
        let spent = if testing { position.seconds + seconds } else { seconds };
        (self.report)(Event::Progress(Progress {
            epoch: position.epoch,
            testing,
            images,
            total,
            images_per_second: images as f64 / seconds,
            seconds_left: (per_epoch * epochs_left - spent).max(0.0),
        }));
    }
}

/// A batch whose answers, of each device its own, are not read yet, the step it was for, counted from 1, and that
/// step's rate.
struct Batch {
    answers: Vec<Answers>,
    step: usize,
    rate: f64,
}

fn unread(error: DatasetError) -> TrainError {
    TrainError::Unread(error.to_string())
}

/// The seed of a batch's random numbers, such as dropout's: a resumed run draws what an uninterrupted one draws.
fn mixed(seed: u64, epoch: usize, batch: usize) -> u64 {
    // Odd multipliers keep them apart: (1, 2) is not (2, 1).
    [epoch as u64, batch as u64].into_iter().fold(seed, |mixed, part| {
        (mixed ^ part.wrapping_mul(0xD1B5_4A32_D192_ED03)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
    })
}
