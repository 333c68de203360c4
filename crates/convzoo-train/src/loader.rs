use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::{Device, Int, Tensor, TensorData};
use convzoo_data::{Augment, Cached, DataError, Dataset, ForTraining, Preprocess, View};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;

use crate::TrainError;
use crate::features::Features;
use crate::mix::{Mix, Mixed};
use crate::seeds;

/// Images and their classes.
#[derive(Debug, Clone)]
pub struct Batch {
    /// `[batch, channels, height, width]`; of ten crops, an image's ten one after another. Where the backbone is frozen
    /// and its features are kept, those.
    pub images: Tensor<4>,
    /// `[batch]`, of the larger shares where images are mixed.
    pub targets: Tensor<1, Int>,
    /// What is mixed in, if anything.
    pub mixed: Option<Partners>,
}

/// The other half of mixed images.
#[derive(Debug, Clone)]
pub struct Partners {
    /// `[batch]`.
    pub targets: Tensor<1, Int>,
    /// The share of each image's own target, a half to 1.
    pub own_share: f64,
}

/// Batches of a data set, made by threads of their own while the device works.
///
/// The order of the images and their augmentation depend on the seed and the epoch alone, not on the number of threads,
/// so that a resumed run gets the batches that an uninterrupted one would have got.
#[derive(Clone)]
pub struct Loader {
    data: Arc<dyn Dataset>,
    preprocess: Preprocess,
    augment: Augment,
    mix: Mix,
    ten_crops: bool,
    features: Option<Arc<Features>>,
    batch_size: usize,
    shuffle: Option<u64>,
    epoch: Arc<AtomicUsize>,
    /// Of each batch, what is this loader's, counted in `data.len()`ths.
    part: Range<usize>,
    workers: usize,
    device: Device,
}

/// Batches made ahead, per thread.
const AHEAD: usize = 2;

/// The fewest and the most threads that make batches, of as many as there are cores. They mostly wait, where the device
/// is slower.
const WORKERS: [usize; 2] = [2, 8];

impl Loader {
    /// Batches in the data set's order.
    pub fn new(data: Arc<dyn Dataset>, preprocess: Preprocess, batch_size: usize, device: &Device) -> Self {
        Self {
            part: 0..data.len(),
            data,
            preprocess,
            augment: Augment::default(),
            mix: Mix::default(),
            ten_crops: false,
            features: None,
            batch_size,
            shuffle: None,
            epoch: Arc::default(),
            workers: std::thread::available_parallelism().map_or(1, usize::from).clamp(WORKERS[0], WORKERS[1]),
            device: device.clone(),
        }
    }

    /// Batches in another order each epoch, from `epoch` on, counted from 1; also what augmentation is drawn from, and
    /// what seeds the device's random numbers (dropout) in each epoch.
    pub fn shuffled(self, seed: u64, epoch: usize) -> Self {
        Self { shuffle: Some(seed), epoch: Arc::new(AtomicUsize::new(epoch)), ..self }
    }

    /// Augments the images of [`shuffled`](Self::shuffled) batches, which then may be read as
    /// [`get_for_training`](Dataset::get_for_training) reads them, and mixes them.
    pub fn augmented(self, augment: Augment, mix: Mix) -> Self {
        let data = match augment.is_none() {
            true => self.data,
            false => Arc::new(ForTraining::new(self.data, augment.shortest_side(&self.preprocess))),
        };
        Self { data, augment, mix, ..self }
    }

    /// Gives ten crops of each image instead of one view.
    pub fn ten_crops(self) -> Self {
        Self { ten_crops: true, ..self }
    }

    /// Gives a backbone's features of the images instead of them.
    pub(crate) fn with_features(self, features: Arc<Features>) -> Self {
        Self { features: Some(features), ..self }
    }

    /// Makes batches in this many threads, at least one; else in as many as there are cores, two to eight.
    pub fn with_workers(self, workers: usize) -> Self {
        Self { workers: workers.max(1), ..self }
    }

    /// Keeps decoded images in memory, as far as `bytes` go, and resized, where augmentation does not need them whole.
    pub fn cached(self, bytes: usize) -> Self {
        if self.data.in_memory() {
            return self;
        }
        let cached = Cached::new(Arc::clone(&self.data), bytes);
        let resized = self.augment.random_resized_crop.is_none();
        Self { data: Arc::new(if resized { cached.resized(self.preprocess.clone()) } else { cached }), ..self }
    }

    /// Steps in an epoch.
    pub fn batches(&self) -> usize {
        self.data.len().div_ceil(self.batch_size)
    }

    /// Runs through the coming epoch and nothing else: the most images per second that a device can be given.
    pub fn images_per_second(&self) -> Result<f64, TrainError> {
        let start = Instant::now();
        for batch in self.iter() {
            batch.map_err(|error| TrainError::Unread(error.to_string()))?;
        }
        Ok(self.num_items() as f64 / start.elapsed().as_secs_f64())
    }

    /// The coming epoch.
    fn plan(&self) -> Plan {
        let mut order: Vec<usize> = (0..self.data.len()).collect();
        let epoch = self.shuffle.map(|run| {
            let number = self.epoch.fetch_add(1, Ordering::Relaxed);
            let seed = seeds::of_epoch(run, number);
            order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
            self.device.seed(seed);
            Epoch { run, number, seed }
        });
        let steps = order.chunks(self.batch_size).enumerate().map(|(step, whole)| {
            // Rounded down on both sides, the parts of several devices make up the whole.
            let [start, end] = [self.part.start, self.part.end].map(|at| whole.len() * at / self.data.len());
            Step { number: step, indices: whole[start..end].to_vec() }
        });
        let steps = steps.filter(|step| !step.indices.is_empty()).collect();
        Plan { steps, epoch, loader: self.clone() }
    }
}

/// What the threads need of an epoch.
struct Plan {
    loader: Loader,
    steps: Vec<Step>,
    /// What the epoch's augmentation is drawn from; none without shuffling.
    epoch: Option<Epoch>,
}

/// An epoch of a shuffled run.
#[derive(Clone, Copy)]
struct Epoch {
    /// The run's seed.
    run: u64,
    /// Counted from 1.
    number: usize,
    /// Its own seed.
    seed: u64,
}

impl Epoch {
    /// How an image is seen in it.
    fn view(&self, index: usize) -> View {
        View { seed: seeds::of_image(self.seed, index), odd_turn: seeds::odd_turn(self.run, self.number, index) }
    }
}

/// The images of one batch.
struct Step {
    number: usize,
    indices: Vec<usize>,
}

/// A batch before it goes to a device.
struct HostBatch {
    images: Vec<f32>,
    targets: Vec<i64>,
    mixed: Option<Mixed>,
}

impl Plan {
    fn batch(&self, step: &Step) -> Result<HostBatch, TrainError> {
        let Loader { data, preprocess, augment, mix, ten_crops, features, .. } = &self.loader;
        let views = if *ten_crops { 10 } else { 1 };
        let mut images = Vec::with_capacity(step.indices.len() * preprocess.len() * views);
        let mut targets = Vec::with_capacity(step.indices.len());
        for &index in &step.indices {
            if let Some(features) = features {
                let (values, class) = features.get(index);
                images.extend_from_slice(values);
                targets.push(class);
                continue;
            }
            let sample = data.get(index).map_err(|error| match error {
                DataError::Image { .. } => TrainError::Corrupt(error),
                error => error.into(),
            })?;
            match self.epoch {
                _ if *ten_crops => images.extend(preprocess.ten_crops(&sample.image).into_iter().flatten()),
                Some(epoch) => augment.append(&sample.image, preprocess, epoch.view(index), &mut images),
                None => preprocess.append(&sample.image, &mut images),
            }
            targets.push(sample.label as i64);
        }
        let mixed = self.epoch.filter(|_| !mix.is_none()).map(|epoch| {
            let mut chance = ChaCha8Rng::seed_from_u64(seeds::of_mix(epoch.seed, step.number));
            mix.apply(&mut images, &mut targets, [preprocess.height, preprocess.width], &mut chance)
        });
        Ok(HostBatch { images, targets, mixed })
    }
}

impl DataLoader<Batch> for Loader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch> + 'a> {
        let plan = Arc::new(self.plan());
        let batches = plan.steps.len();
        let workers = self.workers.min(batches);
        let receivers = (0..workers).map(|worker| {
            let (sender, receiver) = sync_channel(AHEAD);
            let (plan, refused) = (Arc::clone(&plan), sender.clone());
            let work = move || {
                for step in plan.steps.iter().skip(worker).step_by(workers) {
                    // The iterator is gone when nobody listens: the epoch was cut short.
                    if sender.send(plan.batch(step)).is_err() {
                        return;
                    }
                }
            };
            if let Err(error) = std::thread::Builder::new().name("loader".to_owned()).spawn(work) {
                // The channel has room: nobody has sent anything.
                let _ = refused.send(Err(TrainError::Thread(error)));
            }
            receiver
        });
        Box::new(Batches { loader: self, receivers: receivers.collect(), next: 0, batches, images: 0 })
    }

    fn num_items(&self) -> usize {
        self.part.len()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<Batch>> {
        Arc::new(Self { device: device.clone(), ..self.clone() })
    }

    /// The same share of each batch, so that the loaders of several devices together make the batches of one.
    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<Batch>> {
        let part = self.part.start + start..(self.part.start + end).min(self.part.end);
        Arc::new(Self { part, epoch: Arc::new(AtomicUsize::new(self.epoch.load(Ordering::Relaxed))), ..self.clone() })
    }
}

struct Batches<'a> {
    loader: &'a Loader,
    receivers: Vec<Receiver<Result<HostBatch, TrainError>>>,
    next: usize,
    batches: usize,
    images: usize,
}

impl Iterator for Batches<'_> {
    type Item = Result<Batch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.batches {
            return None;
        }
        let received = self.receivers[self.next % self.receivers.len()].recv();
        self.next += 1;
        let batch = match received {
            Ok(Ok(batch)) => batch,
            Ok(Err(error)) => return Some(Err(DatasetError::new(error))),
            Err(gone) => return Some(Err(DatasetError::new(gone))),
        };
        let count = batch.targets.len();
        self.images += count;
        let Loader { preprocess, device, .. } = self.loader;
        let [channels, height, width] = match &self.loader.features {
            Some(features) => features.shape,
            None => [preprocess.channels, preprocess.height, preprocess.width],
        };
        let shape = [batch.images.len() / (channels * height * width), channels, height, width];
        let classes = |classes: Vec<i64>| Tensor::from_data(TensorData::new(classes, [count]), device);
        Some(Ok(Batch {
            images: Tensor::from_data(TensorData::new(batch.images, shape), device),
            targets: classes(batch.targets),
            mixed: batch.mixed.map(|mixed| Partners { targets: classes(mixed.partners), own_share: mixed.share }),
        }))
    }
}

impl DataLoaderIterator<Batch> for Batches<'_> {
    fn progress(&self) -> Progress {
        Progress::new(self.images, self.loader.part.len(), Some("images".to_owned()))
    }
}
