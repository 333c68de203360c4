//! The batch size that a network trains fastest with, found by trying.

use std::time::Duration;

use anyhow::{Result, bail};
use convzoo::Variant;
use convzoo::device::DeviceName;

use super::job::{Job, Mode, Precision};
use super::runner::{Limits, by_turns};
use super::{Engine, machine, needs};
use crate::cli::output::{bytes, told};

/// A batch size, and what came of it.
pub struct Tried {
    /// Images per batch.
    pub batch: usize,
    /// Images per second in a training step, and the most memory that its process held in MiB, where the system tells; or
    /// why it could not be measured.
    pub result: Result<(f64, Option<f64>), String>,
}

/// The first batch size tried; each after it is twice as large.
const FIRST: usize = 8;

/// A gain in images per second below this share is none.
const GAIN: f64 = 0.05;

/// Sizes in a row without a gain after which no larger one is tried.
const PATIENCE: usize = 2;

const LIMITS: Limits = Limits { seconds: 1.0, timeout: Duration::from_secs(300), profile: false };

/// The smallest batch size, of 8, 16, 32 and so on up to `most` images, with which `model` trains on images of size `input`
/// as fast as with any, but for one part in twenty. Each is measured in a process of its own, where memory may run out.
/// `tell` hears of each.
pub fn fastest(
    model: &Variant,
    input: [usize; 3],
    classes: usize,
    (device, kernels): (&DeviceName, Option<bool>),
    checkpointing: bool,
    most: usize,
    mut tell: impl FnMut(&Tried),
) -> Result<usize> {
    let engine = Engine::Device { name: device.clone(), kernels };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut rates, mut best, mut idle) = (Vec::new(), 0.0, 0);
    let mut batch = FIRST.min(most);
    let failure = loop {
        let job = Job {
            model: model.name.to_owned(),
            device: engine.name(),
            mode: Mode::Train,
            batch,
            input,
            classes,
            precision: Precision::F32,
            checkpointing,
            threads,
            warm_up: LIMITS.seconds,
        };
        let result = measure(model, &job, &engine);
        let tried = Tried { batch, result };
        tell(&tried);
        let rate = match tried.result {
            Ok((rate, _)) => rate,
            Err(reason) => break reason,
        };
        rates.push((batch, rate));
        idle = if rate > (1.0 + GAIN) * best { 0 } else { idle + 1 };
        best = rate.max(best);
        batch *= 2;
        if idle == PATIENCE || batch > most {
            break String::new();
        }
    };
    match rates.iter().find(|(_, rate)| *rate >= (1.0 - GAIN) * best) {
        Some((batch, _)) => Ok(*batch),
        None => bail!("no batch size can be measured, --batch N takes one: {failure}"),
    }
}

fn measure(model: &Variant, job: &Job, engine: &Engine) -> Result<(f64, Option<f64>), String> {
    let needed = needs(model, job.mode, job.batch, job.input, job.checkpointing).map_err(|error| told(&error))?.bytes;
    let available = machine::available_bytes();
    if engine.on_cpu() && needed > available {
        return Err(format!("needs at least {}, and {} are free", bytes(needed), bytes(available)));
    }
    let command = engine.command(job.threads).map_err(|error| told(&error))?;
    let readings = by_turns(&[(job.clone(), Ok(command))], &LIMITS, || {}).pop();
    let figures = readings.unwrap_or_else(|| Err("there are no readings".to_owned()))?.figures(job, 0);
    Ok((figures.images_per_second, figures.peak_rss_mib))
}
