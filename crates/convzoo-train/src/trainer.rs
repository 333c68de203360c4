use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use burn::module::{Module, ModuleDisplay};
use burn::tensor::Device;
use burn::train::Interrupter;
use convzoo_data::{Preprocess, Splits};
use convzoo_models::{Classifier, checkpointed_bytes};

use crate::folder::Place;
use crate::gradients::GradientRule;
use crate::preprocess::preprocess;
use crate::progress::Event;
use crate::run::Job;
use crate::trainable::{CrossEntropy, Loss, TrainableClassifier};
use crate::{Epoch, RangeTest, RateRange, Recipe, RunRecord, TrainError};

/// A training run: any network, any data, one recipe, one folder.
///
/// [`new`](Self::new) takes what every run needs; all else has a default.
///
/// ```no_run
/// # use burn::tensor::Device;
/// # use convzoo_data::{Source, open};
/// # use convzoo_models::{Options, create};
/// # use convzoo_train::{Event, Recipe, Trainer};
/// let device = Device::flex();
/// let data = open("digits", &Source::default())?;
/// let network = create("lenet5", &Options::default(), &device.clone().autodiff())?;
/// let trainer = Trainer::new(network, data).recipe(Recipe::named("lenet")?).out("runs/digits");
/// let outcome = trainer.start(|event| {
///     if let Event::Epoch(epoch, _) = event {
///         println!("epoch {}: {:.2}%", epoch.epoch, 100.0 * epoch.held_out.measures().accuracy);
///     }
/// })?;
/// println!("best: {:?}", outcome.best);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Trainer<N: Classifier + ModuleDisplay + 'static> {
    network: N,
    job: Job,
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
    pub(crate) fn check(&self) -> Result<(), TrainError> {
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
    /// are averaged; batch norms normalize by the batch of their device, and average their statistics.
    pub more_devices: Vec<Device>,
    /// Threads that make batches; as many as there are cores where this is not given.
    pub workers: Option<usize>,
    /// Bytes of decoded images, or of a frozen backbone's features of them, that are kept in memory.
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
    /// Its folder.
    pub folder: PathBuf,
    /// Its record, with every epoch's figures.
    pub record: RunRecord,
    /// The best epoch's figures.
    pub best: Option<Epoch>,
    /// Whether it was stopped before its last epoch.
    pub interrupted: bool,
}

impl<N: Classifier + ModuleDisplay + 'static> Trainer<N> {
    /// A run that trains and tests `network` on `data`, and chooses its best epoch by the validation images where there
    /// are such, from the weights it has, on the device it is on, by the default
    /// [`Recipe`], in a new folder of `runs/`.
    pub fn new(network: N, data: Splits) -> Self {
        let device = network.devices().first().cloned().unwrap_or_default().without_autodiff();
        let job = Job {
            place: Place::New { runs: "runs".into(), name: data.name.clone() },
            data,
            preprocess: None,
            recipe: Recipe::default(),
            recipe_name: None,
            loss: None,
            gradient_rules: HashMap::new(),
            seed: 0,
            device,
            device_name: None,
            saving: Saving::default(),
            resources: Resources::default(),
            command: std::env::args().collect(),
            setup: serde_json::Value::Null,
            name: None,
            tags: Vec::new(),
            dashboard: false,
            interrupter: Interrupter::new(),
        };
        Self { network, job }
    }

    /// How images become the network's input; else as the network says, with the channels of the data's first image.
    pub fn preprocess(mut self, preprocess: Preprocess) -> Self {
        self.job.preprocess = Some(preprocess);
        self
    }

    /// How to train.
    pub fn recipe(mut self, recipe: Recipe) -> Self {
        self.job.recipe = recipe;
        self
    }

    /// The recipe's name or file, for the record.
    pub fn recipe_name(mut self, name: impl Into<String>) -> Self {
        self.job.recipe_name = Some(name.into());
        self
    }

    /// The loss, rather than the cross entropy that the recipe describes. The record has no word for
    /// it: a run that is resumed needs the same again.
    pub fn loss(mut self, loss: impl Loss + 'static) -> Self {
        self.job.loss = Some(Arc::new(loss));
        self
    }

    /// What is done to the gradients of some parameters, named as in the reference's state dict, before the optimizer
    /// sees them. The record has no word for it: a run that is resumed needs the same again.
    pub fn gradient_rules(mut self, rules: HashMap<String, GradientRule>) -> Self {
        self.job.gradient_rules = rules;
        self
    }

    /// The random seed of the order of the images, their augmentation and dropout; else 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.job.seed = seed;
        self
    }

    /// Where to train; else where the network is.
    pub fn device(mut self, device: Device) -> Self {
        self.job.device = device.without_autodiff();
        self
    }

    /// The device's name, for the record.
    pub fn device_name(mut self, name: impl Into<String>) -> Self {
        self.job.device_name = Some(name.into());
        self
    }

    /// The run's folder.
    pub fn out(mut self, folder: impl Into<PathBuf>) -> Self {
        self.job.place = Place::At(folder.into());
        self
    }

    /// A new folder in `runs` for the run, called `name`, or so with the first number that is free. No two runs get the
    /// same, also where they begin at once.
    pub fn out_in(mut self, runs: impl Into<PathBuf>, name: impl Into<String>) -> Self {
        self.job.place = Place::New { runs: runs.into(), name: name.into() };
        self
    }

    /// When to write checkpoints, and how many to keep.
    pub fn saving(mut self, saving: Saving) -> Self {
        self.job.saving = saving;
        self
    }

    /// What else of the machine it may use.
    pub fn resources(mut self, resources: Resources) -> Self {
        self.job.resources = resources;
        self
    }

    /// The command that started it, for the record; else this program's.
    pub fn command(mut self, command: Vec<String>) -> Self {
        self.job.command = command;
        self
    }

    /// What the caller needs to make the same network and data again, for the record.
    pub fn setup(mut self, setup: serde_json::Value) -> Self {
        self.job.setup = setup;
        self
    }

    /// What people call the run, for the record.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.job.name = Some(name.into());
        self
    }

    /// Words to find the run by, for the record.
    pub fn tags(mut self, tags: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.job.tags = tags.into_iter().map(Into::into).collect();
        self
    }

    /// Whether burn-train's dashboard is shown, in a terminal; else it is not.
    pub fn dashboard(mut self, shown: bool) -> Self {
        self.job.dashboard = shown;
        self
    }

    /// What stops the run when it is asked to.
    pub fn interrupter(mut self, interrupter: Interrupter) -> Self {
        self.job.interrupter = interrupter;
        self
    }

    /// Trains in a new folder. `report` is told how it goes.
    pub fn start(self, report: impl FnMut(Event) + Send + 'static) -> Result<Outcome, TrainError> {
        self.job.place.check()?;
        let (job, model, preprocess) = self.ready()?;
        let begun = job.begin(model, &preprocess)?;
        job.run(begun, &preprocess, Box::new(report))
    }

    /// Continues from the last checkpoint in the folder, as if the run had never stopped; by a recipe of more epochs, also a
    /// run that has finished. The network's weights do not
    /// matter, its layers do; data that has changed meanwhile is refused.
    pub fn resume(self, mut report: impl FnMut(Event) + Send + 'static) -> Result<Outcome, TrainError> {
        let (job, model, preprocess) = self.ready()?;
        let begun = job.reopen(model, &preprocess, &mut report)?;
        job.run(begun, &preprocess, Box::new(report))
    }

    /// Finds a learning rate: trains for some steps at rising ones, by the recipe but for its rates, without a folder and on
    /// the first device alone. `progress` is told each step.
    pub fn range_test(self, test: &RangeTest, progress: impl FnMut(usize)) -> Result<RateRange, TrainError> {
        let (job, model, preprocess) = self.ready()?;
        job.range_test(model, &preprocess, test, progress)
    }

    /// The network with its loss, on the first device, and how images become its input.
    fn ready(self) -> Result<(Job, TrainableClassifier<N>, Preprocess), TrainError> {
        let Self { network, job } = self;
        job.recipe.check()?;
        job.saving.check()?;
        for device in std::iter::once(&job.device).chain(&job.resources.more_devices) {
            job.recipe.precision.check(device)?;
        }
        let preprocess = match &job.preprocess {
            Some(preprocess) => preprocess.clone(),
            None => {
                let image = job.data.train.get(0)?.image;
                let wanted = network.preprocessing();
                let [height, width] = wanted.size;
                preprocess(&wanted, [image.channels, height, width], &image)
            }
        };
        let input = [preprocess.channels, preprocess.height, preprocess.width];
        if job.recipe.checkpointing && checkpointed_bytes(&network, input, 1)?.is_none() {
            return Err(TrainError::NoSegments);
        }
        let model = TrainableClassifier::by(network, &job.recipe);
        let model = match &job.recipe.class_weights {
            Some(weights) => {
                let weights = weights.of(&*job.data.train)?;
                model.with_loss(CrossEntropy::new(job.recipe.label_smoothing).with_weights(weights))
            }
            None => model,
        };
        let model = job.loss.iter().cloned().fold(model, TrainableClassifier::with_shared_loss);
        let model = model.train().fork(&job.device.clone().autodiff());
        Ok((job, model, preprocess))
    }
}
