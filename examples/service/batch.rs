//! Images that wait for the network together.
//!
//! The network runs in a thread of its own. It takes all images that have come while it was busy, and waits only for
//! those that are being decoded, and not for long: one client alone waits for nobody, and under load no image waits for
//! a batch to fill.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use convzoo::{Inference, Prediction, classify_prepared};
use tokio::sync::oneshot;

use crate::metrics::Metrics;

/// How images are put together.
#[derive(Clone, Copy)]
pub struct Limits {
    /// The most images of a pass.
    pub batch: usize,
    /// The longest that the first image of a batch waits for those that are being decoded.
    pub wait: Duration,
    /// The most images that wait.
    pub queue: usize,
}

/// What the network says of an image, or why it says nothing.
pub type Answer = Result<Vec<Prediction>, String>;

/// An image on its way.
struct Job {
    input: Vec<f32>,
    reply: oneshot::Sender<Answer>,
    since: Instant,
}

/// Why an image is not taken.
#[derive(Debug)]
pub enum Refused {
    /// As many wait as may.
    Full,
    /// The network's thread has ended.
    Ended,
}

/// The images that wait.
#[derive(Clone)]
pub struct Queue {
    jobs: SyncSender<Job>,
    coming: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

/// An image that is being decoded, and will wait in the queue soon, unless it is dropped.
pub struct Coming(Arc<AtomicUsize>);

impl Drop for Coming {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Queue {
    /// Has `network` answer in a thread of its own, the `top` classes of each image. The thread ends when the last
    /// queue is dropped and all that waited in it is answered.
    pub fn start(
        network: Inference,
        top: usize,
        limits: Limits,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, JoinHandle<()>)> {
        let (jobs, waiting) = sync_channel(limits.queue);
        let (counted, coming) = (Arc::clone(&metrics), Arc::new(AtomicUsize::new(0)));
        let expected = Arc::clone(&coming);
        let work = move || answer(&network, top, limits, &waiting, &expected, &counted);
        let thread = std::thread::Builder::new().name("network".to_owned()).spawn(work).context("making a thread")?;
        Ok((Self { jobs, coming, metrics }, thread))
    }

    /// Announces an image.
    pub fn announce(&self) -> Coming {
        self.coming.fetch_add(1, Ordering::Relaxed);
        Coming(Arc::clone(&self.coming))
    }

    /// Has the input of an announced image wait for its answer.
    pub fn push(&self, coming: Coming, input: Vec<f32>) -> Result<oneshot::Receiver<Answer>, Refused> {
        let (reply, answer) = oneshot::channel();
        // Before the network can take it, so that it is not waited for beside itself.
        drop(coming);
        // Counted first: the network may take it at once.
        self.metrics.waiting(1);
        let refused = self.jobs.try_send(Job { input, reply, since: Instant::now() });
        refused.map(|()| answer).map_err(|refused| {
            self.metrics.waiting(-1);
            match refused {
                TrySendError::Full(_) => Refused::Full,
                TrySendError::Disconnected(_) => Refused::Ended,
            }
        })
    }
}

/// Answers until nobody can ask any more.
fn answer(
    network: &Inference,
    top: usize,
    limits: Limits,
    waiting: &Receiver<Job>,
    coming: &AtomicUsize,
    metrics: &Metrics,
) {
    let mut jobs: Vec<Job> = Vec::new();
    loop {
        if jobs.is_empty() {
            let Ok(first) = waiting.recv() else { return };
            jobs.push(first);
        }
        let until = jobs[0].since + limits.wait;
        while jobs.len() < limits.batch {
            let is_last = coming.load(Ordering::Relaxed) == 0;
            let patience = if is_last { Duration::ZERO } else { until.saturating_duration_since(Instant::now()) };
            match waiting.recv_timeout(patience) {
                Ok(job) => jobs.push(job),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        // The network keeps a plan, and the plan's memory, for each size of a batch: there are to be few.
        let later = jobs.split_off(1 << jobs.len().ilog2());
        let mut now = std::mem::replace(&mut jobs, later);
        metrics.waiting(-(now.len() as i64));
        // Who has gone away, or was sent away, is not computed for.
        now.retain(|job| !job.reply.is_closed());
        if now.is_empty() {
            continue;
        }
        metrics.batch(now.len());
        let (inputs, replies): (Vec<_>, Vec<_>) = now.into_iter().map(|job| (job.input, job.reply)).unzip();
        match classify_prepared(network, &inputs, top) {
            Ok(answers) => replies.into_iter().zip(answers).for_each(|(reply, answer)| _ = reply.send(Ok(answer))),
            Err(error) => replies.into_iter().for_each(|reply| _ = reply.send(Err(error.to_string()))),
        }
    }
}
