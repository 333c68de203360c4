use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use convzoo::report::{Chart, write_png, write_svg};
use convzoo::train::{Epoch, Measures, Recipe, RunRecord, RunStatus, report};
use indicatif::HumanDuration;
use serde::Serialize;

use super::claim::{Kind, claim};
use super::list::matches;
use super::output::{count, print, print_json, table};

/// Arguments of `runs`.
#[derive(clap::Args)]
pub struct Args {
    /// Folder of runs
    #[arg(default_value = "runs")]
    folder: PathBuf,
    /// Only runs of this name, or of those like a pattern such as 'mnist*'
    #[arg(long, value_name = "NAME", conflicts_with = "compare")]
    name: Option<String>,
    /// Only runs with this tag; of several, with all of them
    #[arg(long = "tag", value_name = "WORD", conflicts_with = "compare")]
    tags: Vec<String>,
    /// Compare these runs, each a folder or the name of one in the folder of runs
    #[arg(long, value_name = "RUN", num_args = 2..)]
    compare: Vec<PathBuf>,
    /// With --compare: write a page with the runs' curves over each other
    #[arg(long, value_name = "FILE", requires = "compare")]
    html: Option<PathBuf>,
    /// With --compare: draw the runs' accuracy on the images held out, as .svg or .png
    #[arg(long, value_name = "FILE", requires = "compare")]
    chart: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub const EXAMPLES: &str = "Examples:
  convzoo runs
  convzoo runs --tag baseline
  convzoo runs --compare lenet5-digits lenet5-digits-2 --html runs.html";

/// A run, as `--json` tells it.
#[derive(Serialize)]
struct Document<'a> {
    run: String,
    name: Option<&'a str>,
    tags: &'a [String],
    model: String,
    data: String,
    recipe: Option<&'a str>,
    status: RunStatus,
    epochs: usize,
    of_epochs: usize,
    best: Option<&'a Epoch>,
    /// What the best weights do on the test images.
    test: Option<Measures>,
    /// Seconds since 1970.
    started: u64,
    seconds: f64,
    seed: u64,
    device: &'a str,
}

#[derive(Serialize)]
struct Compared<'a> {
    #[serde(flatten)]
    document: Document<'a>,
    settings: &'a Recipe,
    history: &'a [Epoch],
}

impl<'a> Document<'a> {
    fn new(folder: &Path, record: &'a RunRecord) -> Self {
        Self {
            run: folder.display().to_string(),
            name: record.name.as_deref(),
            tags: &record.tags,
            model: report::setup(record, "model"),
            data: report::setup(record, "data"),
            recipe: record.recipe_name.as_deref(),
            status: record.status,
            epochs: record.epochs.len(),
            of_epochs: record.recipe.epochs,
            best: record.best(),
            test: record.tested(),
            started: record.started,
            seconds: record.seconds(),
            seed: record.seed,
            device: &record.device,
        }
    }
}

/// Lists runs, or compares some.
pub fn run(args: &Args) -> Result<ExitCode> {
    if args.compare.is_empty() { list(args) } else { compare(args) }
}

impl Args {
    /// Whether a run is among those that were asked for.
    fn wants(&self, record: &RunRecord) -> bool {
        let is_named = |pattern: &String| record.name.as_ref().is_some_and(|name| matches(pattern, name));
        self.name.as_ref().is_none_or(is_named) && self.tags.iter().all(|tag| record.tags.contains(tag))
    }
}

fn list(args: &Args) -> Result<ExitCode> {
    let mut runs = found(&args.folder)?;
    let all = runs.len();
    runs.retain(|(_, record)| args.wants(record));
    if args.json {
        let documents: Vec<_> = runs.iter().map(|(folder, record)| Document::new(folder, record)).collect();
        print_json(&documents)?;
        return Ok(ExitCode::SUCCESS);
    }
    if runs.is_empty() {
        match all {
            0 => bail!("there are no runs in {}; convzoo train makes one", args.folder.display()),
            _ => bail!("none of the {} in {} has this name and these tags", count(all, "run"), args.folder.display()),
        }
    }
    let has_tags = runs.iter().any(|(_, record)| !record.tags.is_empty());
    let rows = runs.iter().map(|(folder, record)| {
        let Document { run, model, data, recipe, status, epochs, of_epochs, best, test, started, .. } =
            Document::new(folder, record);
        let mut row = vec![
            run,
            model,
            data,
            recipe.unwrap_or("–").to_owned(),
            status.to_string(),
            format!("{epochs}/{of_epochs}"),
            percent(best.map(|best| *best.held_out.measures())),
            best.map_or("–".to_owned(), |best| best.epoch.to_string()),
            percent(test),
            ago(started),
        ];
        row.extend(has_tags.then(|| report::tags(record)));
        row
    });
    let mut header = vec!["run", "model", "data", "recipe", "status", "epochs", "best", "in epoch", "test", "begun"];
    header.extend(has_tags.then_some("tags"));
    print(&table(&header, &[5, 6, 7, 8], rows.collect()))?;
    Ok(ExitCode::SUCCESS)
}

fn compare(args: &Args) -> Result<ExitCode> {
    for (option, path, kind) in [("--html", &args.html, Kind::Page), ("--chart", &args.chart, Kind::Chart)] {
        if let Some(path) = path {
            claim(option, path, kind)?;
        }
    }
    let runs = args.compare.iter().map(|name| {
        let folder = if name.join("run.json").exists() { name.clone() } else { args.folder.join(name) };
        let record = RunRecord::read(&folder).with_context(|| format!("reading the run {}", name.display()))?;
        Ok((name.display().to_string(), folder, record))
    });
    let runs = runs.collect::<Result<Vec<_>>>()?;
    let named: Vec<_> = runs.iter().map(|(name, _, record)| (name.as_str(), record)).collect();
    if let Some(path) = &args.html {
        report::comparison(&named)?.write(path)?;
    }
    if let Some(path) = &args.chart {
        draw(&report::held_out_accuracy(&named), path)?;
    }
    if args.json {
        let documents = runs.iter().map(|(_, folder, record)| Compared {
            document: Document::new(folder, record),
            settings: &record.recipe,
            history: &record.epochs,
        });
        print_json(&documents.collect::<Vec<_>>())?;
    } else {
        let header: Vec<_> = std::iter::once("").chain(named.iter().map(|(name, _)| *name)).collect();
        let numbers: Vec<_> = (1..header.len()).collect();
        print(&table(&header, &numbers, report::compared(&named)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn draw(chart: &impl Chart, path: &Path) -> Result<()> {
    match path.extension().is_some_and(|extension| extension == "svg") {
        true => Ok(write_svg(&chart.svg()?, path)?),
        false => Ok(write_png(&chart.image()?, path)?),
    }
}

/// The runs in a folder, the last first; what is no run is passed over, a damaged one is told.
fn found(folder: &Path) -> Result<Vec<(PathBuf, RunRecord)>> {
    let reading = || format!("reading the folder of runs {}", folder.display());
    let mut runs = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(reading)? {
        let path = entry.with_context(reading)?.path();
        if !path.join("run.json").is_file() {
            continue;
        }
        match RunRecord::read(&path) {
            Ok(record) => runs.push((path, record)),
            Err(error) => eprintln!("passed over: {error}"),
        }
    }
    runs.sort_by(|(a, first), (b, second)| second.started.cmp(&first.started).then(a.cmp(b)));
    Ok(runs)
}

/// An accuracy, if there is one.
fn percent(measures: Option<Measures>) -> String {
    measures.map_or("–".to_owned(), |measures| format!("{:.2}%", 100.0 * measures.accuracy))
}

/// The folder of the run that was written to last.
pub fn latest(folder: &Path) -> Result<PathBuf> {
    let written = |path: &Path| path.join("run.json").metadata()?.modified();
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let runs = entries.filter_map(|path| Some((written(&path).ok()?, path)));
    let latest = runs.max().with_context(|| format!("there are no runs in {} to resume", folder.display()))?;
    Ok(latest.1)
}

/// How long ago a time in seconds since 1970 was.
fn ago(started: u64) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_secs(started)).unwrap_or_default();
    format!("{} ago", HumanDuration(since))
}
