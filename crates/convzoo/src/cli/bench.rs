//! Networks × devices × batch sizes × modes, each measurement in a process of its own, the devices by turns.

pub mod batch_size;
mod data;
mod job;
pub mod machine;
mod report;
mod row;
mod runner;
pub mod worker;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use convzoo::device::{self, DeviceName};
use convzoo::train::TrainError;
use convzoo::{Options, Variant, checkpointed_bytes, create, variant, variants};

use self::job::{Job, Mode, Precision};
use self::row::{Outcome, Row};
use self::runner::{Limits, by_turns};
use super::claim::{Kind, claim};
use super::list::{is_pattern, matches};
use super::names::MODELS;
use super::output::{FormatArgs, bytes, print, progress, tell, told};
use super::select::{Switch, host};
use super::summary::InputSize;

/// Arguments of `bench`.
#[derive(clap::Args)]
pub struct Args {
    /// The networks: names, or patterns such as 'resnet*' [default: resnet18]
    #[arg(value_name = "MODEL", value_parser = MODELS, hide_possible_values = true)]
    models: Vec<String>,
    #[arg(long = "model", hide = true, value_delimiter = ',')]
    named: Vec<String>,
    /// In place of networks, how fast images become batches, part by part: the photographs in a folder, where one is named,
    /// and images of 32 × 32 in memory
    #[arg(long, value_name = "DIR", num_args = 0..=1, value_hint = clap::ValueHint::DirPath,
        conflicts_with_all = ["models", "named", "devices", "profile", "compare", "html", "markdown", "peer"])]
    data: Option<Option<PathBuf>>,
    /// Where to run: flex, ndarray, tch, wgpu[:N], cuda[:N], ws://HOST:PORT [default: all that are present]
    #[arg(long = "device", alias = "devices", value_name = "A,B", value_delimiter = ',')]
    devices: Vec<DeviceName>,
    /// What to do for each reading
    #[arg(long, value_name = "infer,train", value_delimiter = ',', default_value = "infer")]
    mode: Vec<Mode>,
    /// Batch sizes
    #[arg(long, alias = "batch-size", value_name = "N,M", value_delimiter = ',', default_value = "1",
        value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: Vec<u32>,
    /// Size of the images, channels first [default: each network's own]
    #[arg(long, value_name = "CxHxW")]
    input: Option<InputSize>,
    /// Type of weights and activations; what a device does not have is one row with the reason
    #[arg(long, value_name = "P,Q", value_delimiter = ',', default_value = "f32")]
    precision: Vec<Precision>,
    /// Threads that CPUs compute with [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    threads: Option<u32>,
    /// In training, keep only the inputs of blocks and compute each block again in the backward pass
    #[arg(long)]
    checkpointing: bool,
    /// Whether flex and GPUs use convzoo's own kernels or Burn's
    #[arg(long, value_name = "on,off", value_delimiter = ',', default_value = "on")]
    kernels: Vec<Switch>,
    /// Another program that speaks as the workers do, by its command: measured by turns with the devices
    #[arg(long, value_name = "NAME=COMMAND")]
    peer: Vec<Peer>,
    /// Seconds of readings for each measurement
    #[arg(long, value_name = "S", default_value_t = 4.0, value_parser = seconds)]
    seconds: f64,
    /// Seconds after which a measurement is given up
    #[arg(long, value_name = "S", default_value_t = 300.0, value_parser = seconds)]
    timeout: f64,
    /// Take the time of each layer of the forward pass too, or of each stage of a fused network or each layer of a
    /// training step on flex beside what it would take at this machine's peak
    #[arg(long, conflicts_with = "csv")]
    profile: bool,
    /// Show what has changed since the run that wrote this file with --json
    #[arg(long, value_name = "OLD.json")]
    compare: Option<PathBuf>,
    /// Write a page with charts
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print Markdown
    #[arg(long, conflicts_with_all = ["json", "csv"])]
    markdown: bool,
    #[command(flatten)]
    format: FormatArgs,
}

pub const EXAMPLES: &str = "Examples:
  convzoo bench resnet18 --device flex,ndarray --batch 1,8
  convzoo bench 'squeezenet*' lenet5 --mode infer,train --html bench.html
  convzoo bench resnet50 --profile
  convzoo bench --data photos";

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.01..=86400.0).contains(seconds));
    seconds.ok_or_else(|| "expected seconds, from 0.01 to 86400".to_owned())
}

/// `--peer NAME=COMMAND`.
#[derive(Clone)]
struct Peer {
    name: String,
    command: Vec<String>,
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, command) = text.split_once('=').unwrap_or_default();
        let command: Vec<_> = command.split_whitespace().map(str::to_owned).collect();
        if name.is_empty() || command.is_empty() {
            return Err("expected NAME=COMMAND such as pytorch='python3 peer.py'".to_owned());
        }
        Ok(Self { name: name.to_owned(), command })
    }
}

/// What computes: a device of this program, or a peer.
#[derive(Clone)]
enum Engine {
    Device { name: DeviceName, kernels: Option<bool> },
    Peer(Peer),
}

impl Engine {
    fn name(&self) -> String {
        match self {
            Self::Device { name, .. } => name.to_string(),
            Self::Peer(peer) => peer.name.clone(),
        }
    }

    fn kernels(&self) -> Option<bool> {
        match self {
            Self::Device { kernels, .. } => *kernels,
            Self::Peer(_) => None,
        }
    }

    /// Whether it computes in this machine's memory.
    fn on_cpu(&self) -> bool {
        matches!(self, Self::Device { name: DeviceName::Flex | DeviceName::NdArray | DeviceName::Tch, .. })
    }

    /// What starts a worker.
    fn command(&self, threads: usize) -> Result<Command> {
        let mut command = match self {
            Self::Device { kernels, .. } => {
                let mut command = Command::new(std::env::current_exe().context("finding this program")?);
                command.arg("bench-worker");
                if let Some(on) = kernels {
                    command.env("CONVZOO_KERNELS", if *on { "on" } else { "off" });
                }
                command
            }
            Self::Peer(peer) => {
                let mut command = Command::new(&peer.command[0]);
                command.args(&peer.command[1..]);
                command
            }
        };
        // Whatever shares the work out: rayon, OpenMP (libtorch), MKL, matrixmultiply (ndarray).
        for pool in ["RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "MATMUL_NUM_THREADS"] {
            command.env(pool, threads.to_string());
        }
        Ok(command)
    }
}

/// Measures.
pub fn run(args: &Args) -> Result<ExitCode> {
    if let Some(folder) = &args.data {
        return data::run(folder.as_deref(), args.seconds, args.threads(), args.format);
    }
    if args.checkpointing && args.mode.contains(&Mode::Infer) {
        bail!("--checkpointing is for training: --mode train");
    }
    let mut models = Vec::new();
    for name in args.models.iter().chain(&args.named) {
        models.extend(named(name)?);
    }
    if models.is_empty() {
        models.push(variant("resnet18")?);
    }
    let old = args.compare.as_deref().map(row::read).transpose()?;
    let engines = args.engines()?;
    if let Some(folder) = args.html.as_deref().and_then(Path::parent)
        && !folder.as_os_str().is_empty()
        && !folder.is_dir()
    {
        bail!("cannot write the page: there is no folder {}", folder.display());
    }
    if let Some(path) = &args.html {
        claim("--html", path, Kind::Page)?;
    }
    let bar = progress(
        models.len() * args.mode.len() * args.batch.len() * args.precision.len() * engines.len(),
        "measurements",
    );
    let mut rows = Vec::new();
    for model in models {
        for &mode in &args.mode {
            for &batch in &args.batch {
                bar.set_message(format!("{} {} {batch}", model.name, mode.name()));
                rows.extend(args.measure(model, mode, batch as usize, &engines, || bar.inc(1)));
            }
        }
    }
    bar.finish_and_clear();
    row::set_beside_peak(&mut rows);
    if let Some(old) = &old {
        row::compare(&mut rows, old);
    }

    args.format.print(&rows, row::COLUMNS, rows.iter().map(Row::record), || {
        print(&if args.markdown { report::markdown(&rows) } else { report::terminal(&rows) })
    })?;
    if let Some(path) = &args.html {
        report::page(&rows)?.write(path)?;
    }
    if let Some(note) = report::busy(&rows) {
        tell(&format!("note: {note}"));
    }
    Ok(if rows.iter().any(|row| row.figures().is_some()) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The network of this name or, of a pattern, all whose names are like it.
fn named(name: &str) -> Result<Vec<&'static Variant>> {
    if !is_pattern(name) {
        return Ok(vec![variant(name)?]);
    }
    let named: Vec<_> = variants().filter(|variant| matches(name, variant.name)).collect();
    if named.is_empty() {
        bail!("no network's name is like {name}; `convzoo list` shows them all");
    }
    Ok(named)
}

impl Args {
    fn engines(&self) -> Result<Vec<Engine>> {
        let devices = match self.devices.is_empty() {
            true => device::all()
                .into_iter()
                .filter(|found| found.present)
                // A remote device is present where its address is known.
                .filter_map(|found| found.name.parse().ok())
                .filter(|name| !matches!(name, DeviceName::Remote { .. }))
                .collect(),
            false => self.devices.clone(),
        };
        let devices = devices.into_iter().flat_map(|name| match name {
            DeviceName::Flex | DeviceName::Wgpu(_) | DeviceName::Cuda(_) => {
                let with =
                    |switch: &Switch| Engine::Device { name: name.clone(), kernels: Some(*switch == Switch::On) };
                self.kernels.iter().map(with).collect::<Vec<_>>()
            }
            _ => vec![Engine::Device { name, kernels: None }],
        });
        let engines: Vec<_> = devices.chain(self.peer.iter().cloned().map(Engine::Peer)).collect();
        if engines.is_empty() {
            bail!("this build has no device that is present");
        }
        Ok(engines)
    }

    fn threads(&self) -> usize {
        let all = || std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.map_or_else(all, |threads| threads as usize)
    }

    /// One network, mode and batch size on all engines.
    fn measure(
        &self,
        model: &Variant,
        mode: Mode,
        batch: usize,
        engines: &[Engine],
        mut done: impl FnMut(),
    ) -> Vec<Row> {
        let input = self.input.map_or(model.input, |InputSize(input)| input);
        let needs = needs(model, mode, batch, input, self.checkpointing).map_err(|error| told(&error));
        let available = machine::available_bytes();
        let (machine, threads) = (machine::machine(), self.threads());
        let engines =
            engines.iter().flat_map(|engine| self.precision.iter().map(move |&precision| (engine, precision)));
        let engines: Vec<_> = engines.collect();
        let jobs = engines.iter().map(|&(engine, precision)| {
            let job = Job {
                model: model.name.to_owned(),
                device: engine.name(),
                mode,
                batch,
                input,
                classes: model.classes,
                precision,
                checkpointing: self.checkpointing && matches!(engine, Engine::Device { .. }),
                threads,
                warm_up: self.seconds,
            };
            let command = needs.as_ref().map_err(String::clone).and_then(|needs| {
                if engine.on_cpu() && needs.bytes > available {
                    return Err(format!("needs at least {}, and {} are free", bytes(needs.bytes), bytes(available)));
                }
                engine.command(threads).map_err(|error| told(&error))
            });
            (job, command)
        });
        let jobs: Vec<_> = jobs.collect();

        let limits =
            Limits { seconds: self.seconds, timeout: Duration::from_secs_f64(self.timeout), profile: self.profile };
        let needs = needs.unwrap_or_default();
        // Those that take turns are in memory together, and an estimate is the least that one holds.
        let together = (available / 2 / needs.bytes.max(1)).max(1);
        let readings = jobs.chunks(together).flat_map(|jobs| by_turns(jobs, &limits, &mut done));
        let rows = readings.zip(&jobs).zip(&engines).map(|((readings, (job, _)), (engine, _))| Row {
            model: job.model.clone(),
            device: job.device.clone(),
            mode,
            batch,
            input,
            precision: job.precision,
            checkpointing: job.checkpointing,
            threads,
            kernels: engine.kernels(),
            machine: machine.clone(),
            outcome: match readings {
                Ok(readings) => Outcome::Measured(Box::new(readings.figures(job, needs.macs))),
                Err(error) => Outcome::Failed { error },
            },
            change: None,
        });
        rows.collect()
    }
}

/// What a measurement takes, by a pass on shapes alone.
#[derive(Default)]
struct Needs {
    /// Multiply-adds for one image.
    macs: usize,
    /// Memory, at least.
    bytes: usize,
}

fn needs(model: &Variant, mode: Mode, batch: usize, input: [usize; 3], checkpointing: bool) -> Result<Needs> {
    let options = Options::default().with_channels(input[0]);
    let network = create(model.name, &options, &host()?)?;
    let summary = network.summary(input)?;
    let bytes = match mode {
        Mode::Infer => summary.inference_bytes(batch),
        Mode::Train if checkpointing => checkpointed_bytes(&network, input, batch)?.ok_or(TrainError::NoSegments)?,
        Mode::Train => summary.training_bytes(batch),
    };
    Ok(Needs { macs: summary.macs, bytes })
}
