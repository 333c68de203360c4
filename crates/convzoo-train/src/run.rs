use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use burn::data::dataloader::DataLoader;
use burn::module::{Module, ModuleDisplay};
use burn::tensor::Device;
use burn::train::Interrupter;
use convzoo_data::{Dataset, Preprocess, Splits};
use convzoo_models::{Classifier, weights};

use crate::checkpoint::{Checkpoints, State};
use crate::dashboard::Dashboard;
use crate::features::Features;
use crate::fit::{Ending, Fit};
use crate::folder::{Place, RunFolder};
use crate::gradients::{GradientRule, Rules};
use crate::listing::Listing;
use crate::progress::Event;
use crate::trainable::{Loss, TrainableClassifier};
use crate::transfer::Plan;
use crate::{HeldOut, Loader, Measures, Outcome, Recipe, Resources, RunRecord, RunStatus, Saving};
use crate::{TrainError, Views, evaluate, report};

/// All that a [`Trainer`](crate::Trainer) was asked for, but the network.
pub(crate) struct Job {
    pub data: Splits,
    pub preprocess: Option<Preprocess>,
    pub recipe: Recipe,
    pub recipe_name: Option<String>,
    pub loss: Option<Arc<dyn Loss>>,
    /// By the reference's names of the tensors.
    pub gradient_rules: HashMap<String, GradientRule>,
    pub seed: u64,
    pub device: Device,
    pub device_name: Option<String>,
    pub place: Place,
    pub saving: Saving,
    pub resources: Resources,
    pub command: Vec<String>,
    pub setup: serde_json::Value,
    pub name: Option<String>,
    pub tags: Vec<String>,
    pub dashboard: bool,
    pub interrupter: Interrupter,
}

/// What is told how a run goes.
pub(crate) type Report = Box<dyn FnMut(Event) + Send>;

/// A run that has its folder and its state, and may train.
pub(crate) struct Begun<N: Classifier + ModuleDisplay> {
    folder: RunFolder,
    checkpoints: Checkpoints,
    record: RunRecord,
    state: State<N>,
    plan: Plan,
}

impl Job {
    /// Trains, from the state that the run has.
    pub fn run<N: Classifier + ModuleDisplay + 'static>(
        self,
        begun: Begun<N>,
        preprocess: &Preprocess,
        mut report: Report,
    ) -> Result<Outcome, TrainError> {
        let Begun { folder, checkpoints, mut record, state, plan } = begun;
        report(Event::Folder(folder.path()));
        let resumed_between_epochs = state.position.batches == 0 && !state.position.epochs.is_empty();
        let (train, test, state) = self.loaders(preprocess, &folder, &mut record, state, &mut report)?;
        record.epochs.clone_from(&state.position.epochs);
        let mut fit = Fit {
            batches: train.batches(),
            devices: self.devices(),
            every: self.saving.every,
            interrupter: self.interrupter.clone(),
            held_out: if self.data.val.is_some() { HeldOut::Val } else { HeldOut::Test },
            recipe: self.recipe.clone(),
            seed: self.seed,
            folder: folder.path().to_owned(),
            rules: Rules::of(&state.model.network, &self.gradient_rules),
            state,
            record,
            plan,
            checkpoints,
            report,
        };
        if resumed_between_epochs {
            fit.publish(&fit.tested())?;
        } else {
            fit.record.write(folder.path())?;
        }
        let mut dashboard = match self.dashboard {
            true => Dashboard::open(&self.interrupter, self.recipe.epochs, fit.state.position.epochs.len()),
            false => Dashboard::none(),
        };
        let result = fit.epochs(Arc::new(train), Arc::new(test), &mut dashboard);
        dashboard.close();
        self.finish(fit, result, preprocess, &folder)
    }

    /// All devices, the first of which also tests and saves.
    fn devices(&self) -> Vec<Device> {
        let devices = std::iter::once(&self.device).chain(&self.resources.more_devices);
        devices.map(|device| device.clone().autodiff()).collect()
    }

    /// Claims a folder for a new run.
    pub fn begin<N: Classifier + ModuleDisplay + 'static>(
        &self,
        model: TrainableClassifier<N>,
        preprocess: &Preprocess,
    ) -> Result<Begun<N>, TrainError> {
        let state = self.in_bytes(State::start(model, &self.recipe), preprocess)?;
        let plan = self.plan(&state.model, preprocess)?;
        let folder = self.place.claim()?;
        Listing::of(&self.data).write(folder.path())?;
        let checkpoints = Checkpoints::new(folder.path(), self.saving.keep);
        checkpoints.clean()?;
        // The beginning can be resumed too, whatever weights it started from.
        checkpoints.save(&state)?;
        Ok(Begun { folder, checkpoints, record: self.record(), state, plan })
    }

    /// Opens the folder of a run that is to be resumed.
    pub fn reopen<N: Classifier + ModuleDisplay + 'static>(
        &self,
        model: TrainableClassifier<N>,
        preprocess: &Preprocess,
        report: &mut dyn FnMut(Event),
    ) -> Result<Begun<N>, TrainError> {
        let Place::At(path) = &self.place else {
            let reason = "a run is resumed in a folder that is named".to_owned();
            return Err(TrainError::NotResumable { path: "runs".into(), reason });
        };
        let folder = RunFolder::reopen(path)?;
        let mut record = RunRecord::read(path)?;
        let epochs = record.epochs.len();
        if record.status == RunStatus::Finished && self.recipe.ends_after(&record.epochs) || epochs > self.recipe.epochs
        {
            return Err(TrainError::Finished { epochs, path: path.clone() });
        }
        Listing::of(&self.data).check(path, &record)?;
        record.status = RunStatus::Running;
        record.recipe.epochs = self.recipe.epochs;
        record.test = None;
        record.device = self.name_of_device();
        let checkpoints = Checkpoints::new(path, self.saving.keep);
        checkpoints.clean()?;
        let damaged = |error: &TrainError| report(Event::Damaged(error));
        let state = checkpoints.load(&model, &self.recipe, damaged)?.ok_or_else(|| {
            let reason = "it has no checkpoint that can be read; start it anew".to_owned();
            TrainError::NotResumable { path: path.clone(), reason }
        })?;
        let state = self.in_bytes(state, preprocess)?;
        let plan = self.plan(&state.model, preprocess)?;
        Ok(Begun { folder, checkpoints, record, state, plan })
    }

    /// Which layers are trained. It names parameters by id, which those of a checkpoint bring with them.
    pub fn plan<N: Classifier + ModuleDisplay + 'static>(
        &self,
        model: &TrainableClassifier<N>,
        preprocess: &Preprocess,
    ) -> Result<Plan, TrainError> {
        let Preprocess { channels, height, width, .. } = *preprocess;
        // A copy for evaluation is looked through: norms would count a pass as one more batch.
        self.recipe.transfer.plan(&model.valid().network, [channels, height, width])
    }

    fn name_of_device(&self) -> String {
        self.device_name.clone().unwrap_or_else(|| format!("{:?}", self.device))
    }

    fn record(&self) -> RunRecord {
        RunRecord {
            name: self.name.clone(),
            tags: self.tags.clone(),
            command: self.command.clone(),
            setup: self.setup.clone(),
            recipe_name: self.recipe_name.clone(),
            recipe: self.recipe.clone(),
            seed: self.seed,
            device: self.name_of_device(),
            versions: BTreeMap::from([
                ("convzoo".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
                ("burn".to_owned(), "0.22.1".to_owned()),
            ]),
            started: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            train_images: self.data.train.len(),
            val_images: self.data.val.as_ref().map(|val| val.len()),
            test_images: self.data.test.len(),
            status: RunStatus::Running,
            backbone_seconds: 0.0,
            epochs: Vec::new(),
            best_epoch: None,
            test: None,
        }
    }

    /// Batches of `data` in its order.
    fn loader(&self, data: &Arc<dyn Dataset>, preprocess: &Preprocess, size: usize, device: &Device) -> Loader {
        let loader = Loader::new(Arc::clone(data), preprocess.clone(), size, device);
        self.resources.workers.into_iter().fold(loader, Loader::with_workers)
    }

    /// The batches of an epoch and all after it, as the recipe has them.
    fn shuffled(&self, loader: Loader, epoch: usize) -> Loader {
        loader.shuffled(self.seed, epoch).augmented(self.recipe.augment.clone(), self.recipe.mix())
    }

    /// Batches for training from its beginning, on the first device alone.
    pub fn training_loader(&self, preprocess: &Preprocess) -> Loader {
        let device = self.device.clone().autodiff();
        let loader = self.loader(&self.data.train, preprocess, self.recipe.batch_size, &device);
        self.shuffled(loader, 1).cached(self.resources.cache)
    }

    /// Batches for training, from where `state` stands, and for the measurement after each epoch: of images or, where the head alone is trained
    /// and there is room, of the backbone's features, for which `state` then is.
    fn loaders<N: Classifier + ModuleDisplay + 'static>(
        &self,
        preprocess: &Preprocess,
        folder: &RunFolder,
        record: &mut RunRecord,
        state: State<N>,
        report: &mut Report,
    ) -> Result<(Loader, Loader, State<N>), TrainError> {
        let cache = self.resources.cache;
        let loader = |data| self.loader(data, preprocess, self.recipe.batch_size, &self.device);
        let held_out = loader(self.data.held_out());
        let features = match self.recipe.trains_head_alone() {
            true => {
                // It may take minutes, and be killed meanwhile.
                record.write(folder.path())?;
                let started = Instant::now();
                let features = self.features([&loader(&self.data.train), &held_out], &state, report)?;
                record.backbone_seconds += started.elapsed().as_secs_f64();
                features
            }
            false => None,
        };
        let devices = self.devices();
        let train = self.loader(&self.data.train, preprocess, self.recipe.batch_size * devices.len(), &devices[0]);
        let is_done = state.position.batches == train.batches();
        let train = self.shuffled(train, state.position.epoch + usize::from(is_done));
        Ok(match features {
            Some([of_train, of_held_out]) => {
                (train.with_features(of_train), held_out.with_features(of_held_out), state.of_features())
            }
            None => {
                let share = |part: usize, total: usize| (cache as u128 * part as u128 / total as u128) as usize;
                let [part, rest] = [&self.data.train, self.data.held_out()].map(|data| data.len());
                (train.cached(share(part, part + rest)), held_out.cached(share(rest, part + rest)), state)
            }
        })
    }

    /// The frozen backbone's features of all images, where there is room for them.
    fn features<N: Classifier + ModuleDisplay + 'static>(
        &self,
        loaders: [&Loader; 2],
        state: &State<N>,
        report: &mut Report,
    ) -> Result<Option<[Arc<Features>; 2]>, TrainError> {
        let total = loaders.iter().map(|loader| loader.num_items()).sum();
        let continues = |images| {
            report(Event::Backbone(images, total));
            !self.interrupter.should_stop()
        };
        let (precision, cache) = (self.recipe.precision, self.resources.cache);
        Features::of_both(&state.model.valid().network, loaders, precision, cache, continues)
    }

    /// Writes down how a run ended, and its report where it has done all its epochs.
    fn finish<N: Classifier + ModuleDisplay + 'static>(
        self,
        mut fit: Fit<N>,
        result: Result<Ending, TrainError>,
        preprocess: &Preprocess,
        folder: &RunFolder,
    ) -> Result<Outcome, TrainError> {
        fit.record.status = match &result {
            Ok(Ending::Finished) => RunStatus::Finished,
            Ok(Ending::Interrupted) => RunStatus::Interrupted,
            Err(_) => RunStatus::Failed,
        };
        if matches!(result, Ok(Ending::Finished))
            && let Err(error) = self.report(&mut fit, preprocess)
        {
            (fit.report)(Event::Unreported(&error));
        }
        let written = fit.record.write(folder.path());
        // What a full disk has left half written takes the room of what is to be saved. The first error is what matters.
        let cleaned = if result.is_err() { folder.clean() } else { Ok(()) };
        let interrupted = result? == Ending::Interrupted;
        written.and(cleaned)?;
        let (folder, best) = (folder.path().to_owned(), fit.record.best().cloned());
        Ok(Outcome { folder, best, interrupted, record: fit.record })
    }

    /// Draws a finished run, with what its best weights do on the test images, which is written down where nothing was
    /// measured on them yet.
    fn report<N: Classifier + ModuleDisplay + 'static>(
        &self,
        fit: &mut Fit<N>,
        preprocess: &Preprocess,
    ) -> Result<(), TrainError> {
        let network = weights::load(fit.tested().network, &fit.folder.join("best.safetensors"))?;
        let (test, batch) = (Arc::clone(&self.data.test), self.recipe.batch_size);
        let (views, device, model) = (Views::Centre, &self.device, fit.tested());
        let evaluation = match model.simulation() {
            Some(simulation) => evaluate(&simulation.of(&network), test, preprocess, views, batch, device, |_| {})?,
            None => evaluate(&network, test, preprocess, views, batch, device, |_| {})?,
        };
        if self.data.val.is_some() {
            fit.record.test = Some(Measures { loss: evaluation.loss, accuracy: evaluation.top1() });
        }
        report::write(&fit.record, &evaluation, &*self.data.test, &fit.folder)
    }
}
