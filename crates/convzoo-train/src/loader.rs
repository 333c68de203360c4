use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::{Device, Int, Tensor, TensorData};
use convzoo_data::{DataError, Dataset, Preprocess};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;

/// Images and their classes.
#[derive(Debug, Clone)]
pub struct Batch {
    /// `[batch, channels, height, width]`.
    pub images: Tensor<4>,
    /// `[batch]`.
    pub targets: Tensor<1, Int>,
}

/// Batches of a data set, made by threads of their own while the device works.
///
/// The order depends on the seed and the epoch alone, not on the number of threads, so that a resumed run sees the
/// batches that an uninterrupted one would have seen.
#[derive(Clone)]
pub struct Loader {
    data: Arc<dyn Dataset>,
    preprocess: Preprocess,
    batch_size: usize,
    shuffle: Option<u64>,
    epoch: Arc<AtomicUsize>,
    range: std::ops::Range<usize>,
    device: Device,
}

/// Batches made ahead, per thread.
const AHEAD: usize = 2;

/// Threads that make batches. Decoding and resizing are the most that they do; the device needs the other cores.
const WORKERS: usize = 2;

impl Loader {
    /// Batches in the data set's order.
    pub fn new(data: Arc<dyn Dataset>, preprocess: Preprocess, batch_size: usize, device: &Device) -> Self {
        let range = 0..data.len();
        let device = device.clone();
        Self { data, preprocess, batch_size, shuffle: None, epoch: Arc::default(), range, device }
    }

    /// Batches in another order each epoch, from `epoch` on, counted from 1; also what seeds the device's random
    /// numbers (dropout) in each epoch.
    pub fn shuffled(self, seed: u64, epoch: usize) -> Self {
        Self { shuffle: Some(seed), epoch: Arc::new(AtomicUsize::new(epoch)), ..self }
    }

    /// Steps in an epoch.
    pub fn batches(&self) -> usize {
        self.range.len().div_ceil(self.batch_size)
    }

    /// The order of the coming epoch.
    fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = self.range.clone().collect();
        if let Some(seed) = self.shuffle {
            let epoch = self.epoch.fetch_add(1, Ordering::Relaxed) as u64;
            // Odd multipliers keep seeds and epochs apart: (1, 2) is not (2, 1).
            let mixed =
                seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(epoch.wrapping_mul(0xD1B5_4A32_D192_ED03));
            order.shuffle(&mut ChaCha8Rng::seed_from_u64(mixed));
            self.device.seed(mixed);
        }
        order
    }
}

/// A batch before it goes to a device.
struct HostBatch {
    images: Vec<f32>,
    targets: Vec<i64>,
}

fn host_batch(data: &dyn Dataset, preprocess: &Preprocess, indices: &[usize]) -> Result<HostBatch, DataError> {
    let mut batch = HostBatch { images: Vec::new(), targets: Vec::with_capacity(indices.len()) };
    for &index in indices {
        let sample = data.get(index)?;
        batch.images.extend(preprocess.apply(&sample.image));
        batch.targets.push(sample.label as i64);
    }
    Ok(batch)
}

impl DataLoader<Batch> for Loader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch> + 'a> {
        let chunks: Arc<Vec<Vec<usize>>> = Arc::new(self.order().chunks(self.batch_size).map(<[_]>::to_vec).collect());
        let receivers = (0..WORKERS.min(chunks.len())).map(|worker| {
            let (sender, receiver) = sync_channel(AHEAD);
            let (data, preprocess, chunks) = (Arc::clone(&self.data), self.preprocess.clone(), Arc::clone(&chunks));
            std::thread::spawn(move || {
                for indices in chunks.iter().skip(worker).step_by(WORKERS) {
                    // The iterator is gone when nobody listens: the epoch was cut short.
                    if sender.send(host_batch(&*data, &preprocess, indices)).is_err() {
                        return;
                    }
                }
            });
            receiver
        });
        Box::new(Batches { loader: self, receivers: receivers.collect(), next: 0, batches: chunks.len(), images: 0 })
    }

    fn num_items(&self) -> usize {
        self.range.len()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<Batch>> {
        Arc::new(Self { device: device.clone(), ..self.clone() })
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<Batch>> {
        let (start, end) = (self.range.start + start, (self.range.start + end).min(self.range.end));
        Arc::new(Self {
            range: start..end,
            epoch: Arc::new(AtomicUsize::new(self.epoch.load(Ordering::Relaxed))),
            ..self.clone()
        })
    }
}

struct Batches<'a> {
    loader: &'a Loader,
    receivers: Vec<Receiver<Result<HostBatch, DataError>>>,
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
        let Preprocess { channels, height, width, .. } = self.loader.preprocess;
        let device = &self.loader.device;
        Some(Ok(Batch {
            images: Tensor::from_data(TensorData::new(batch.images, [count, channels, height, width]), device),
            targets: Tensor::from_data(TensorData::new(batch.targets, [count]), device),
        }))
    }
}

impl DataLoaderIterator<Batch> for Batches<'_> {
    fn progress(&self) -> Progress {
        Progress::new(self.images, self.loader.range.len(), Some("images".to_owned()))
    }
}
