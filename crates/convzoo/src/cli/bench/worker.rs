//! A process that measures one network on one device.

mod step;

use std::any::Any;
use std::collections::HashMap;
use std::io::{self, BufRead, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::loss::{CrossEntropyLoss, CrossEntropyLossConfig};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Distribution, FloatDType, Int, Tensor};
use convzoo::blocks::{Checkpointed, Observer, Step, observe};
use convzoo::device::DeviceName;
use convzoo::quantize::{Calibration, QuantizeOptions};
use convzoo::train::{Recipe, Sgd};
use convzoo::{
    Classifier, Fused, FusedProfile, FusedStage, Inference, Network, Options, Predict, Summary, create, record,
};
use convzoo_kernels::engine::StepKind;
use convzoo_kernels::{Isa, extension, peak};

use super::job::{Job, LayerTime, Mode, Peak, Precision, Profile, Reply, Request, Work};
use super::machine::peak_rss_mib;
use super::row::{gflops, median};
use crate::cli::output::told;
use crate::cli::select::make_threads;

/// Random images that scales of bytes are found on.
const SEEN: usize = 2;

/// Small enough for steps on the same noise to stay finite, in any network.
const LEARNING_RATE: f64 = 1e-4;

/// The recipes' momentum.
const MOMENTUM: f64 = 0.9;

/// Readings are steady when the last three are no further apart than this share.
const STEADY: f64 = 0.1;

/// Serves one job from standard input, and says there too why it cannot.
pub fn run() -> Result<ExitCode> {
    super::machine::offer_to_the_oom_killer();
    let mut lines = io::stdin().lock().lines();
    let line = lines.next().context("a worker is given a job on its standard input")??;
    let job: Job = serde_json::from_str(&line).context("reading the job")?;
    let error = match catch_unwind(AssertUnwindSafe(|| serve(&job, lines))) {
        Ok(Ok(())) => return Ok(ExitCode::SUCCESS),
        Ok(Err(error)) => told(&error),
        Err(panic) => panic_message(&*panic),
    };
    say(&Reply::Error(error))?;
    Ok(ExitCode::FAILURE)
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "the backend panicked".to_owned())
}

fn say(reply: &Reply) -> Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, reply)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

fn serve(job: &Job, requests: impl Iterator<Item = io::Result<String>>) -> Result<()> {
    let start = Instant::now();
    let device = open(job)?;
    let mut subject = Subject::new(job, &device)?;
    device.sync()?;
    let load_ms = ms(start);
    let mut typical;
    (subject, typical) = subject.timed()?;
    let first_ms = typical;
    (subject, typical) = subject.warm_up(first_ms, job.warm_up)?;
    say(&Reply::Ready { load_ms, first_ms })?;

    for request in requests {
        match serde_json::from_str(&request?).context("reading a request")? {
            Request::Run { seconds } => {
                let passes = passes(seconds, typical);
                // Another worker has had the caches since the last request.
                if passes > 2 {
                    subject = subject.pass()?;
                }
                let mut times = Vec::with_capacity(passes);
                for _ in 0..passes {
                    let time;
                    (subject, time) = subject.timed()?;
                    times.push(time);
                }
                typical = median(&times);
                say(&Reply::Times { ms: times, peak_rss_mib: peak_rss_mib() })?;
            }
            Request::Profile { seconds } => {
                let profile;
                (subject, profile) = subject.profile(passes(seconds, typical))?;
                say(&Reply::Profile(profile))?;
            }
        }
    }
    Ok(())
}

/// Passes of `typical` milliseconds that fill a turn.
fn passes(seconds: f64, typical: f64) -> usize {
    (1e3 * seconds / typical).clamp(1.0, 1e4) as usize
}

fn ms(start: Instant) -> f64 {
    1e3 * start.elapsed().as_secs_f64()
}

fn open(job: &Job) -> Result<Device> {
    make_threads()?;
    let mut device = job.device.parse::<DeviceName>()?.open()?;
    let precision = match job.precision {
        _ if compiled(job, &device).is_some() => return Ok(device),
        Precision::LinearF16 => bail!("the precision linear-f16 is for inference"),
        Precision::Int8 => bail!("the precision int8 is for inference on flex with its kernels"),
        Precision::F32 => return Ok(device),
        Precision::Flex32 => FloatDType::Flex32,
        Precision::F16 => FloatDType::F16,
        Precision::Bf16 => FloatDType::BF16,
    };
    if !device.supports_dtype(precision) {
        return Err(anyhow!("'{}' does not compute in {}", job.device, job.precision.name()));
    }
    if mixed(job).is_none() {
        device.configure(precision)?;
    }
    Ok(device)
}

/// The numbers of activations in training, where parameters are `f32`: as `convzoo train` has them.
fn mixed(job: &Job) -> Option<FloatDType> {
    match (job.mode, job.precision) {
        (Mode::Train, Precision::F16) => Some(FloatDType::F16),
        (Mode::Train, Precision::Bf16) => Some(FloatDType::BF16),
        _ => None,
    }
}

/// The precision of the compiled network, where inference in the job's is one.
fn compiled(job: &Job, device: &Device) -> Option<convzoo::Precision> {
    match job.precision {
        _ if job.mode != Mode::Infer => None,
        Precision::F32 => Some(convzoo::Precision::F32),
        Precision::LinearF16 => Some(convzoo::Precision::LinearF16),
        // Other devices have it as the type of all their numbers.
        Precision::Bf16 => extension::serves(device).then_some(convzoo::Precision::Bf16),
        Precision::Int8 => extension::serves(device).then_some(convzoo::Precision::Int8),
        Precision::Flex32 | Precision::F16 => None,
    }
}

/// What is measured: a network and all that a pass needs.
struct Subject {
    form: Form,
    images: Tensor<4>,
    device: Device,
}

/// A network in the form that its mode asks for.
enum Form {
    Infer(Box<Inference>),
    Train(Box<Network>, Box<Training>),
}

struct Training {
    /// The numbers of activations, where they are not the parameters'.
    activations: Option<FloatDType>,
    targets: Tensor<1, Int>,
    loss: CrossEntropyLoss,
    auxiliary_weight: f64,
    checkpointing: bool,
    optimizer: ModuleOptimizer,
}

/// Has every weight drawn, which would else happen in the first pass.
struct Draw;

impl ModuleVisitor for Draw {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        param.val();
    }
}

impl Subject {
    fn new(job: &Job, device: &Device) -> Result<Self> {
        let device = match job.mode {
            Mode::Infer => device.clone(),
            Mode::Train => device.clone().autodiff(),
        };
        let [channels, height, width] = job.input;
        let options = Options::default().with_classes(job.classes).with_channels(channels);
        let network = create(&job.model, &options, &device)?;
        network.visit(&mut Draw);
        let network = match job.precision {
            Precision::Int8 if job.mode == Mode::Infer => {
                let images = Tensor::random([SEEN, channels, height, width], Distribution::Normal(0.0, 1.0), &device);
                let calibration = Calibration::MinMax;
                network.quantize(&[images], &QuantizeOptions { calibration, ..QuantizeOptions::default() })?
            }
            _ => network,
        };
        let form = match (job.mode, compiled(job, &device)) {
            (Mode::Train, _) => Form::Train(Box::new(network), Box::new(Training::new(job, &device))),
            (Mode::Infer, Some(precision)) => Form::Infer(Box::new(Inference::new(network, precision)?)),
            (Mode::Infer, None) => Form::Infer(Box::new(Inference::plain(network))),
        };
        let images = Tensor::random([job.batch, channels, height, width], Distribution::Normal(0.0, 1.0), &device);
        Ok(Self { form, images, device })
    }

    /// One pass to its end: the result is read, and the device has nothing left to do.
    fn pass(self) -> Result<Self> {
        let Self { form, images, device } = self;
        let (form, result) = match form {
            Form::Infer(inference) => {
                let logits = inference.predict(images.clone())?.try_into_vec_as::<f32>()?;
                (Form::Infer(inference), logits)
            }
            Form::Train(network, mut training) => {
                let (network, loss) = training.step(*network, images.clone());
                (Form::Train(Box::new(network), training), loss.try_into_vec_as()?)
            }
        };
        debug_assert!(!result.is_empty());
        device.sync()?;
        Ok(Self { form, images, device })
    }

    /// One pass and its milliseconds.
    fn timed(self) -> Result<(Self, f64)> {
        let start = Instant::now();
        let subject = self.pass()?;
        Ok((subject, ms(start)))
    }

    /// Passes until they take a steady time or `seconds` are over, after a `first` one in milliseconds; and the
    /// time of the last.
    fn warm_up(self, first: f64, seconds: f64) -> Result<(Self, f64)> {
        let mut subject = self;
        let mut times = vec![first];
        let steady = |times: &[f64]| {
            let Some(last) = times.last_chunk::<3>() else { return false };
            let (low, high) =
                last.iter().fold((f64::MAX, 0.0), |(low, high): (f64, f64), &time| (low.min(time), high.max(time)));
            high < low * (1.0 + STEADY)
        };
        while times.iter().sum::<f64>() < 1e3 * seconds && !steady(&times) {
            let time;
            (subject, time) = subject.timed()?;
            times.push(time);
        }
        Ok((subject, *times.last().unwrap_or(&first)))
    }

    /// A pass in its parts, over some passes, and what is between them.
    fn profile(self, passes: usize) -> Result<(Self, Profile)> {
        let layers = |network, trains| self.layers(network, trains, passes);
        let profile = match &self.form {
            Form::Infer(inference) => match inference.fused() {
                Some(fused) => self.stages(fused, passes)?,
                None => Profile { layers: layers(inference.network(), false)?, peak: None },
            },
            Form::Train(..) if extension::serves(&self.device) => return step::profile(self, passes),
            Form::Train(network, _) => Profile { layers: layers(network, true)?, peak: None },
        };
        Ok((self, profile))
    }

    /// Each stage of the fused network beside the least that it would take.
    fn stages(&self, fused: &Fused, passes: usize) -> Result<Profile> {
        let FusedProfile { stages, answer, value_bytes } = fused.profile(self.images.clone(), passes)?;
        let weight_bytes: usize = stages.iter().map(|stage| stage.stage.weight_bytes).sum();
        let isa = Isa::detect()?;
        let peak = Peak {
            gflops: 2e-9 * peak::multiply_adds(isa, fused.numbers()),
            weights_gbs: 1e-9 * peak::bandwidth(isa, weight_bytes + value_bytes),
            values_gbs: 1e-9 * peak::bandwidth(isa, value_bytes),
        };
        let layers = stages.into_iter().map(|FusedStage { name, with, stage }| {
            let work = Work {
                macs: stage.macs,
                multiplications: stage.multiplications,
                weight_bytes: stage.weight_bytes,
                value_bytes: stage.value_bytes,
            };
            let [_, channels, height, width] = stage.output;
            // Vectors as summaries have them.
            let shape = match stage.kind {
                StepKind::Linear(_) | StepKind::Flatten => vec![channels],
                _ => vec![channels, height, width],
            };
            let median_ms = 1e3 * stage.time.as_secs_f64();
            LayerTime {
                name,
                with,
                kind: stage.kind.to_string(),
                output: shape,
                median_ms,
                gflops: gflops(stage.macs, median_ms),
                min_ms: Some(1e3 * stage.fastest.as_secs_f64()),
                work: Some(work),
                parts: None,
                least_ms: None,
            }
        });
        let answer = unnamed("the output", 1e3 * answer.as_secs_f64());
        Ok(Profile { layers: layers.chain([answer]).collect(), peak: Some(peak) })
    }

    /// The median time of each layer of the forward pass, and of what is between the layers.
    fn layers(&self, network: &Network, trains: bool, passes: usize) -> Result<Vec<LayerTime>> {
        let [batch, channels, height, width] = self.images.dims();
        let graph = record(network, [channels, height, width], |images| match trains {
            true => network.forward_train(images).logits,
            false => network.forward(images),
        })?;
        let runs = (0..passes).map(|_| {
            let start = Instant::now();
            let mut timer = Timer { device: self.device.clone(), started: None, times: HashMap::new() };
            observe(&mut timer, self.images.clone(), |images| match trains {
                true => network.forward_train(images).logits,
                false => network.forward(images),
            });
            (ms(start), timer.times)
        });
        let runs: Vec<_> = runs.collect();
        let summary = Summary::new(&graph, network);
        let layers = graph.layers().zip(summary.layers).map(|((_, node), layer)| {
            let time = |times: &HashMap<u64, f64>| node.layer.and_then(|id| times.get(&id).copied()).unwrap_or(0.0);
            let times: Vec<_> = runs.iter().map(|(_, times)| time(times)).collect();
            let median_ms = median(&times);
            LayerTime {
                name: layer.name,
                with: Vec::new(),
                kind: layer.kind.to_owned(),
                output: layer.output,
                median_ms,
                gflops: gflops(layer.macs * batch, median_ms),
                min_ms: None,
                work: None,
                parts: None,
                least_ms: None,
            }
        });
        let rest: Vec<_> = runs.iter().map(|(pass, times)| pass - times.values().sum::<f64>()).collect();
        Ok(layers.chain([unnamed("between layers", median(&rest))]).collect())
    }
}

/// Takes the time of each layer's own computation, the device synchronized around it.
struct Timer {
    device: Device,
    started: Option<Instant>,
    /// Milliseconds by the layer's identity.
    times: HashMap<u64, f64>,
}

impl Timer {
    fn sync(&self) {
        self.device.sync().expect("a device that computes can be waited for");
    }
}

impl Observer for Timer {
    fn input(&mut self, _: Step, input: Tensor<4>) -> Tensor<4> {
        self.sync();
        self.started = Some(Instant::now());
        input
    }

    fn output(&mut self, step: Step, output: Tensor<4>) -> Tensor<4> {
        if let (Some(layer), Some(started)) = (step.layer, self.started.take()) {
            self.sync();
            *self.times.entry(layer.val()).or_default() += ms(started);
        }
        output
    }
}

/// What a pass takes besides its parts.
fn unnamed(name: &str, median_ms: f64) -> LayerTime {
    LayerTime {
        name: name.to_owned(),
        with: Vec::new(),
        kind: String::new(),
        output: Vec::new(),
        median_ms,
        gflops: 0.0,
        min_ms: None,
        work: None,
        parts: None,
        least_ms: None,
    }
}

impl Training {
    /// As `convzoo train` trains by default.
    fn new(job: &Job, device: &Device) -> Self {
        let recipe = Recipe::default();
        let targets: Vec<_> = (0..job.batch).map(|image| (image % job.classes) as i64).collect();
        Self {
            activations: mixed(job),
            targets: Tensor::from_data(targets.as_slice(), device),
            loss: CrossEntropyLossConfig::new().init(device),
            auxiliary_weight: recipe.auxiliary_weight,
            checkpointing: job.checkpointing,
            optimizer: Sgd { momentum: MOMENTUM, ..Sgd::default() }.into(),
        }
    }

    fn step(&mut self, network: Network, images: Tensor<4>) -> (Network, Tensor<1>) {
        let images = match self.activations {
            Some(numbers) => images.cast(numbers),
            None => images,
        };
        let outputs = match self.checkpointing {
            true => network.forward_train(Checkpointed::new(images)),
            false => network.forward_train(images),
        };
        let loss = |logits: Tensor<2>| {
            let logits = if self.activations.is_some() { logits.cast(FloatDType::F32) } else { logits };
            self.loss.forward(logits, self.targets.clone())
        };
        let main = loss(outputs.logits);
        let auxiliary = outputs.auxiliary.into_iter().map(|logits| loss(logits).mul_scalar(self.auxiliary_weight));
        let loss = auxiliary.fold(main, |sum, loss| sum + loss);
        let gradients = GradientsParams::from_grads(loss.backward(), &network);
        (self.optimizer.step(LEARNING_RATE, network, gradients), loss)
    }
}
