use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use burn::data::dataloader::split::split_dataloader;
use burn::data::dataloader::{DataLoader, DataLoaderIterator};
use burn::data::dataset::DatasetError;
use burn::module::{Module, ModuleDisplay};
use burn::tensor::{Device, TensorReadError};
use burn::train::{ClassificationOutput, InferenceStep, Interrupter, TrainOutput, TrainStep};
use convzoo_models::{Classifier, weights};

use crate::checkpoint::{Checkpoints, State};
use crate::dashboard::{Dashboard, Part};
use crate::gradients::{Gradients, Rules};
use crate::history::best;
use crate::precision::LossScale;
use crate::progress::{Event, Progress};
use crate::run::Report;
use crate::trainable::{Pending, Tally, TrainableClassifier};
use crate::transfer::Plan;
use crate::{Batch, Epoch, HeldOut, Measures, Recipe, RunRecord, TrainError, quantization, seeds, several};

/// How a run ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Finished,
    Interrupted,
}

/// The training loop, and all that it needs but data. burn-train's own cannot stop and resume within an epoch, nor clip
/// the norm of a whole gradient, average weights, or let a schedule see how an epoch went.
pub(crate) struct Fit<N: Classifier + ModuleDisplay + 'static> {
    pub state: State<N>,
    pub record: RunRecord,
    pub recipe: Recipe,
    pub seed: u64,
    /// Where it trains; the first also tests and saves.
    pub devices: Vec<Device>,
    /// Which layers are trained.
    pub plan: Plan,
    /// What is done to gradients before a step.
    pub rules: Rules,
    /// Batches in an epoch.
    pub batches: usize,
    /// Which images epochs are measured on.
    pub held_out: fn(Measures) -> HeldOut,
    pub folder: PathBuf,
    pub checkpoints: Checkpoints,
    /// Steps between the checkpoints within an epoch.
    pub every: Option<usize>,
    pub interrupter: Interrupter,
    pub report: Report,
}

/// Batches, of one device.
type Batches<'a> = Box<dyn DataLoaderIterator<Batch> + 'a>;

/// An epoch's training under way.
struct Pass {
    started: Instant,
    /// Time spent on it before the run was resumed.
    seconds_before: f64,
    /// Images done, and in all.
    images: [usize; 2],
    gradients: Gradients,
    /// The batch before, whose figures are read while the device works on the next one.
    unread: Option<Unread>,
}

/// A batch whose figures, of each device its own, are not read yet, the step it was for, counted from 1, and that
/// step's rate.
struct Unread {
    figures: Vec<Pending>,
    step: usize,
    rate: f64,
}

impl Pass {
    fn seconds(&self) -> f64 {
        self.seconds_before + self.started.elapsed().as_secs_f64()
    }
}

impl<N: Classifier + ModuleDisplay + 'static> Fit<N> {
    /// All epochs that are left.
    pub fn epochs(
        &mut self,
        train: Arc<dyn DataLoader<Batch>>,
        test: Arc<dyn DataLoader<Batch>>,
        dashboard: &mut Dashboard,
    ) -> Result<Ending, TrainError> {
        // Once: each loader counts its epochs.
        let train = split_dataloader(train, &self.devices);
        while !self.is_finished() {
            if !self.train_epoch(&train, dashboard)? || !self.test_epoch(&*test, dashboard)? {
                self.checkpoints.save(&self.state)?;
                return Ok(Ending::Interrupted);
            }
        }
        Ok(Ending::Finished)
    }

    /// Whether all epochs are done, or as many without a better one as early stopping lets pass.
    fn is_finished(&self) -> bool {
        self.recipe.ends_after(&self.state.position.epochs)
    }

    /// Whether the run shall stop, or the error that stops it.
    fn should_stop(&self) -> Result<bool, TrainError> {
        match self.interrupter.error() {
            Some(error) => Err(TrainError::Stopped(error.to_string())),
            None => Ok(self.interrupter.should_stop()),
        }
    }

    /// The rate of a step of the epoch under way, counted from 0 at the run's beginning.
    fn rate(&self, step: usize) -> f64 {
        self.recipe.rate(step, self.batches.div_ceil(self.recipe.accumulation), &self.state.position.plateau)
    }

    /// What is left of an epoch's batches; false where it was asked to stop.
    fn train_epoch(
        &mut self,
        loaders: &[Arc<dyn DataLoader<Batch>>],
        dashboard: &mut Dashboard,
    ) -> Result<bool, TrainError> {
        let (epoch, done) = (self.state.position.epoch, self.state.position.batches);
        if done == self.batches {
            return Ok(true);
        }
        let total = loaders.iter().map(|loader| loader.num_items()).sum();
        let mut pass = Pass {
            started: Instant::now(),
            seconds_before: self.state.position.seconds,
            images: [self.state.position.tally.images, total],
            gradients: Gradients::default(),
            unread: None,
        };
        dashboard.begin(Part::Training, total);
        self.state.model = self.plan.freeze(self.state.model.clone(), epoch);
        let mut batches: Vec<_> = loaders.iter().map(|loader| loader.iter()).collect();
        if done > 0 {
            batches.iter_mut().try_for_each(|batches| batches.nth(done - 1).transpose().map(drop)).map_err(unread)?;
        }
        loop {
            let outputs = self.outputs(&mut batches)?;
            if outputs.is_empty() {
                break;
            }
            let steps = self.learn(outputs, &mut pass, dashboard)?;
            if steps && self.pause(&mut pass, dashboard)? {
                return Ok(false);
            }
        }
        self.see(pass.unread.take(), dashboard)?;
        self.state.position.seconds = pass.seconds();
        dashboard.end(Part::Training);
        Ok(true)
    }

    /// What the next batch gives, of each device its part, with gradients on the first; nothing at the epoch's end.
    fn outputs(&mut self, batches: &mut [Batches]) -> Result<Vec<TrainOutput<ClassificationOutput>>, TrainError> {
        let State { model, position, .. } = &mut self.state;
        let seed = seeds::of_step(self.seed, position.epoch, position.batches);
        model.scale_loss(position.loss_scale);
        let next = batches.iter_mut().map(|batches| batches.next().transpose().map_err(unread));
        let mut next = next.collect::<Result<Vec<_>, _>>()?;
        if next.len() > 1 {
            if next.iter().all(Option::is_none) {
                return Ok(Vec::new());
            }
            let (trained, outputs) = several::step(model.clone(), &self.devices, next, seed);
            *model = trained;
            return Ok(outputs);
        }
        self.devices[0].seed(seed);
        Ok(next.pop().flatten().map(|batch| TrainStep::step(model, batch)).into_iter().collect())
    }

    /// Takes what a batch gave; whether it completed a step.
    fn learn(
        &mut self,
        outputs: Vec<TrainOutput<ClassificationOutput>>,
        pass: &mut Pass,
        dashboard: &mut Dashboard,
    ) -> Result<bool, TrainError> {
        let mut figures = Vec::with_capacity(outputs.len());
        for TrainOutput { grads, item } in outputs {
            let [count] = item.targets.dims();
            pass.images[0] += count;
            pass.gradients.add(&self.state.model, grads, count);
            figures.push(Pending::of(&item));
        }
        self.state.position.batches += 1;
        let (step, rate) = (self.state.position.steps + 1, self.rate(self.state.position.steps));
        let is_full = pass.gradients.batches() == self.recipe.accumulation * self.devices.len();
        let steps = is_full || self.state.position.batches == self.batches;
        if steps {
            self.step(rate, &mut pass.gradients)?;
        }
        self.see(pass.unread.replace(Unread { figures, step, rate }), dashboard)?;
        self.progress(false, pass.images, pass.seconds());
        Ok(steps)
    }

    /// One step of the optimizer.
    fn step(&mut self, rate: f64, gradients: &mut Gradients) -> Result<(), TrainError> {
        let State { model, optimizer, average, position } = &mut self.state;
        let stopped = |error: TensorReadError| TrainError::Stopped(error.to_string());
        position.steps += 1;
        let taken = LossScale::take(&mut position.loss_scale, gradients, model, self.recipe.clip_norm);
        let Some(gradients) = taken.map_err(stopped)? else { return Ok(()) };
        let gradients = self.rules.apply(model, gradients).map_err(stopped)?;
        *model = optimizer.step(self.plan.rates(rate), model.clone(), gradients);
        if let Some(old) = average.take() {
            *average = Some(old.update(model, position.steps));
        }
        Ok(())
    }

    /// After a step: whether the run was asked to stop, and a checkpoint where one is due.
    fn pause(&mut self, pass: &mut Pass, dashboard: &mut Dashboard) -> Result<bool, TrainError> {
        let is_last = self.state.position.batches == self.batches;
        let stops = self.should_stop()?;
        let is_due = self.every.is_some_and(|every| self.state.position.steps.is_multiple_of(every)) && !is_last;
        if stops || is_due {
            self.see(pass.unread.take(), dashboard)?;
            self.state.position.seconds = pass.seconds();
        }
        if is_due && !stops {
            self.checkpoints.save(&self.state)?;
        }
        Ok(stops)
    }

    /// Reads what a batch gave.
    fn see(&mut self, batch: Option<Unread>, dashboard: &mut Dashboard) -> Result<(), TrainError> {
        let Some(Unread { figures, step, rate }) = batch else { return Ok(()) };
        let position = &mut self.state.position;
        for figures in figures {
            let figures = figures.read()?;
            position.tally.add(&figures);
            dashboard.batch(Part::Training, &figures);
            diverged("training", figures.loss, position.epoch, step, rate)?;
        }
        Ok(())
    }

    /// An epoch's test and what follows from it; false where it was asked to stop.
    fn test_epoch(&mut self, loader: &dyn DataLoader<Batch>, dashboard: &mut Dashboard) -> Result<bool, TrainError> {
        let started = Instant::now();
        let model = self.tested();
        let Some(measures) = self.test(&model, loader, dashboard)? else { return Ok(false) };
        let held_out = (self.held_out)(measures);
        let (step, epoch) = (self.state.position.steps, self.state.position.epoch);
        let learning_rate = self.rate(step - 1);
        diverged(held_out.part(), measures.loss, epoch, step, learning_rate)?;
        dashboard.epoch(epoch);

        let position = &mut self.state.position;
        let done = Epoch {
            epoch,
            learning_rate,
            train: position.tally.measures(),
            held_out,
            seconds: position.seconds + started.elapsed().as_secs_f64(),
            images_per_second: position.tally.images as f64 / position.seconds,
        };
        position.plateau.epoch(&self.recipe, &measures);
        position.epochs.push(done.clone());
        position.epoch += 1;
        (position.batches, position.seconds, position.tally) = Default::default();
        self.checkpoints.save(&self.state)?;
        self.publish(&model)?;
        (self.report)(Event::Epoch(&done, &self.record));
        Ok(true)
    }

    /// How `model` does on the images held out; nothing where it was asked to stop.
    fn test(
        &mut self,
        model: &TrainableClassifier<N>,
        loader: &dyn DataLoader<Batch>,
        dashboard: &mut Dashboard,
    ) -> Result<Option<Measures>, TrainError> {
        let (started, total) = (Instant::now(), loader.num_items());
        dashboard.begin(Part::Test, total);
        let mut tally = Tally::default();
        let mut see = |pending: Option<Pending>, dashboard: &mut Dashboard| -> Result<(), TrainError> {
            let Some(pending) = pending else { return Ok(()) };
            let figures = pending.read()?;
            tally.add(&figures);
            dashboard.batch(Part::Test, &figures);
            Ok(())
        };
        let mut unseen: Option<Pending> = None;
        let mut images = 0;
        for batch in loader.iter() {
            let batch = batch.map_err(unread)?;
            images += batch.targets.dims()[0];
            see(unseen.replace(Pending::of(&InferenceStep::step(model, batch))), dashboard)?;
            self.progress(true, [images, total], started.elapsed().as_secs_f64());
            if self.should_stop()? {
                return Ok(None);
            }
        }
        see(unseen, dashboard)?;
        dashboard.end(Part::Test);
        Ok(Some(tally.measures()))
    }

    /// What is tested and saved for people: the averaged weights, where the recipe averages.
    pub fn tested(&self) -> TrainableClassifier<N> {
        match &self.state.average {
            Some(average) => average.module.clone(),
            None => self.state.model.valid(),
        }
    }

    /// Writes down what the end of an epoch gave: the weights as `last.safetensors`, and `best.safetensors` if they are
    /// better than all before, and the record. Done again when a run is resumed at the end of an epoch, it is what a
    /// kill may have prevented.
    pub fn publish(&mut self, model: &TrainableClassifier<N>) -> Result<(), TrainError> {
        let epochs = &self.state.position.epochs;
        let best = best(epochs, self.recipe.monitor).map(|best| best.epoch);
        weights::save(&model.network, &self.folder.join("last.safetensors"))?;
        if best == Some(epochs.len()) {
            weights::save(&model.network, &self.folder.join("best.safetensors"))?;
            if let Some(simulation) = model.simulation() {
                quantization::save(&model.network, simulation, &self.folder)?;
            }
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

/// Refuses a loss that is no number any more.
fn diverged(images: &'static str, loss: f64, epoch: usize, step: usize, learning_rate: f64) -> Result<(), TrainError> {
    match loss.is_finite() {
        true => Ok(()),
        false => Err(TrainError::Diverged { images, loss, epoch, step, learning_rate }),
    }
}

fn unread(error: DatasetError) -> TrainError {
    TrainError::Unread(error.to_string())
}
