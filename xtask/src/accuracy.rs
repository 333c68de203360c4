//! Time to accuracy: networks trained on CIFAR-10 by the recipe `cifar10_fast`, in convzoo and in PyTorch, beside the
//! recipe of a paper.
//!
//! A whole measurement takes many hours. Each run has a folder: one that is finished is not repeated, and one that was
//! stopped goes on from its last checkpoint. The page is written from whatever runs there are, and those that are finished
//! are kept beside it, so that others go on elsewhere.

mod page;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use flate2::read::GzDecoder;
use serde_json::Value;

use self::page::Measured;
use crate::{bench, goldens, root, succeed};

/// What the chore is asked.
#[derive(clap::Args)]
pub struct Args {
    /// CIFAR-10: a folder with train/CLASS and test/CLASS, or the archive of one
    #[arg(long, value_name = "DIR|FILE", default_value = "../shared/data/cifar10-jpeg.tar.gz")]
    data: PathBuf,
    /// Where the runs are kept, and the images of an archive
    #[arg(long, value_name = "DIR", default_value = "target/accuracy")]
    runs: PathBuf,
    /// Only these networks; `reference` is ResNet-20 by the recipe of its paper
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    networks: Vec<String>,
    /// Only these engines
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    engines: Vec<Engine>,
    /// Only these seeds, or others; the reference has the first alone
    #[arg(long, value_name = "A,B", value_delimiter = ',', default_values_t = SEEDS)]
    seeds: Vec<u64>,
    /// A trial: runs of so many epochs, beside the others, whose tables are printed and no page is written
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// Train nothing, and write the page from the runs that are there
    #[arg(long)]
    page: bool,
    /// A convzoo that is built already [default: one built in release mode]
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// A Python that has PyTorch [default: one set up in .venv]
    #[arg(long, value_name = "FILE")]
    python: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Engine {
    Convzoo,
    Pytorch,
}

impl Engine {
    fn name(self) -> &'static str {
        match self {
            Self::Convzoo => "convzoo",
            Self::Pytorch => "PyTorch",
        }
    }
}

/// A network, how it is trained, and by what.
struct Part {
    name: &'static str,
    network: &'static str,
    recipe: &'static str,
    epochs: usize,
    engines: &'static [Engine],
    /// Whether one run is enough.
    once: bool,
}

/// A network by the recipe that is measured; wider ones need fewer epochs.
const fn fast(network: &'static str, epochs: usize) -> Part {
    let engines = &[Engine::Convzoo, Engine::Pytorch];
    Part { name: network, network, recipe: "cifar10_fast", epochs, engines, once: false }
}

/// Of the runs.
const SEEDS: [u64; 3] = [0, 1, 2];

const PARTS: [Part; 4] = [
    fast("resnet20_cifar", 30),
    fast("airbench94", 12),
    fast("wide_resnet16_4", 8),
    Part {
        name: "reference",
        network: "resnet20_cifar",
        recipe: "resnet_cifar",
        epochs: 164,
        engines: &[Engine::Convzoo],
        once: true,
    },
];

/// One run of a part.
struct Run {
    part: &'static Part,
    engine: Engine,
    seed: u64,
    epochs: usize,
    folder: PathBuf,
}

impl Run {
    /// What it has left, if anything; a file that is damaged is an error.
    fn record(&self) -> Result<Option<Value>> {
        let path = self.folder.join("run.json");
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_str(&text).map(Some).with_context(|| format!("reading {}", path.display()))
    }

    /// The name of its folder.
    fn name(&self) -> String {
        let Self { part, engine, seed, epochs, .. } = self;
        format!("{}-{epochs}-{}-{seed}", part.name, engine.name().to_lowercase())
    }

    fn title(&self) -> String {
        format!("{}, {}, seed {}", self.part.name, self.engine.name(), self.seed)
    }
}

/// All runs of the measurement, engines and networks by turns, so that a machine that slows down slows all.
fn runs(args: &Args) -> Vec<Run> {
    let more = args.seeds.iter().filter(|seed| !SEEDS.contains(seed));
    let mut runs = Vec::new();
    for &seed in SEEDS.iter().chain(more) {
        for part in PARTS.iter().filter(|part| !part.once || seed == SEEDS[0]) {
            for &engine in part.engines {
                let epochs = args.epochs.unwrap_or(part.epochs);
                let mut run = Run { part, engine, seed, epochs, folder: PathBuf::new() };
                run.folder = args.runs.join(run.name());
                runs.push(run);
            }
        }
    }
    runs
}

/// Trains what is asked for and not trained yet, and writes the page from all that there is.
pub fn run(args: &Args) -> Result<()> {
    let known = PARTS.map(|part| part.name);
    for name in &args.networks {
        ensure!(known.contains(&name.as_str()), "there is no '{name}' among {}", known.join(", "));
    }
    let runs = runs(args);
    let page = || match args.epochs {
        Some(_) => page::trial(&runs).map(|text| print!("{text}")),
        None => page::write(&runs),
    };
    if args.page {
        return page();
    }
    let asked = |run: &&Run| {
        (args.networks.is_empty() || args.networks.iter().any(|name| name == run.part.name))
            && (args.engines.is_empty() || args.engines.contains(&run.engine))
            && args.seeds.contains(&run.seed)
    };
    let measured = if args.epochs.is_some() { Measured::of(&runs) } else { Measured::read(&runs) }?;
    let left: Vec<_> = runs.iter().filter(asked).filter(|run| !measured.has(run)).collect();
    if !left.is_empty() {
        let tools = Tools::find(args, &left)?;
        for (done, run) in left.iter().enumerate() {
            eprintln!("{} ({} of {})", run.title(), done + 1, left.len());
            succeed(&mut tools.command(run)?).with_context(|| format!("{}; the same command goes on", run.title()))?;
            if args.epochs.is_none() {
                page()?;
            }
        }
    }
    page()
}

/// What runs are made with.
struct Tools {
    binary: PathBuf,
    python: PathBuf,
    images: PathBuf,
}

impl Tools {
    /// Those that these runs take; what is not there is built or set up.
    fn find(args: &Args, runs: &[&Run]) -> Result<Self> {
        let takes = |engine| runs.iter().any(|run| run.engine == engine);
        let binary = match &args.binary {
            None if takes(Engine::Convzoo) => bench::release(&[])?,
            named => named.clone().unwrap_or_default(),
        };
        let python = match &args.python {
            None if takes(Engine::Pytorch) => goldens::python()?,
            named => named.clone().unwrap_or_default(),
        };
        Ok(Self { binary, python, images: images(&args.data, &args.runs)? })
    }

    /// Begins a run, or goes on with it.
    fn command(&self, run: &Run) -> Result<Command> {
        let Part { network, recipe, .. } = run.part;
        let mut command = match (run.engine, run.record()?) {
            (Engine::Convzoo, Some(_)) => {
                let mut command = Command::new(&self.binary);
                command.args(["train", "--resume"]).arg(&run.folder);
                return Ok(command);
            }
            (Engine::Convzoo, None) => {
                let mut command = Command::new(&self.binary);
                command.args(["train", network, "--recipe", recipe, "--data", "cifar10", "--data-dir"]);
                command.arg(&self.images);
                command
            }
            (Engine::Pytorch, _) => {
                let mut command = Command::new(&self.python);
                command.arg(root().join("xtask/torch_train.py")).arg(&self.images).args(["--model", network]);
                command.arg("--recipe").arg(root().join(format!("crates/convzoo-train/recipes/{recipe}.toml")));
                command
            }
        };
        command.args(["--epochs", &run.epochs.to_string(), "--seed", &run.seed.to_string(), "--out"]).arg(&run.folder);
        Ok(command)
    }
}

/// The folder with the images, as a path that holds wherever a run is resumed from; those of an archive are unpacked once.
fn images(data: &Path, runs: &Path) -> Result<PathBuf> {
    let absolute = |path: &Path| fs::canonicalize(path).with_context(|| format!("looking for {}", path.display()));
    if data.is_dir() {
        return absolute(data);
    }
    let folder = runs.join("images");
    if !folder.exists() {
        let file = fs::File::open(data).with_context(|| format!("opening {}", data.display()))?;
        fs::create_dir_all(runs).with_context(|| format!("creating {}", runs.display()))?;
        let unpacked = tempfile::tempdir_in(runs).context("making a temporary folder")?;
        let mut archive = tar::Archive::new(GzDecoder::new(file));
        archive.unpack(unpacked.path()).with_context(|| format!("unpacking {}", data.display()))?;
        for part in ["train", "test"] {
            if !unpacked.path().join(part).is_dir() {
                bail!("{} has no folder {part}", data.display());
            }
        }
        fs::rename(unpacked.keep(), &folder).with_context(|| format!("writing {}", folder.display()))?;
    }
    absolute(&folder)
}
