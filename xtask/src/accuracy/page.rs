//! The page and its picture, from the runs that there are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use convzoo_report::{Chart, Lines};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Engine, Run};
use crate::{root, write_between, write_whole};

/// Between these lines of the page stands what the chore has written.
const BETWEEN: [&str; 2] = ["<!-- written by `cargo xtask accuracy` from here -->", "<!-- to here -->"];

/// The picture, beside the page's other figures.
const FIGURE: &str = "figures/time-to-accuracy.svg";

/// What a fast recipe is to take of the reference's time.
const SHARE: f64 = 0.2;

/// Finished runs by name, of whatever machine: what the page is written from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured(BTreeMap<String, Curve>);

impl Measured {
    /// Those that stand beside the page, and those whose folders are here.
    pub fn read(runs: &[Run]) -> Result<Self> {
        let path = Self::path();
        let mut measured: Self = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))?,
            Err(_) if !path.exists() => Self::default(),
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        // Those that are known may have been made on another machine.
        for (name, curve) in Self::of(runs)?.0 {
            measured.0.entry(name).or_insert(curve);
        }
        Ok(measured)
    }

    /// Those whose folders are here.
    pub fn of(runs: &[Run]) -> Result<Self> {
        let mut measured = Self::default();
        for run in runs {
            let record = run.record()?.filter(|record| record["status"] == "finished");
            if let Some(curve) = record.as_ref().and_then(Curve::read) {
                measured.0.insert(run.name(), curve);
            }
        }
        Ok(measured)
    }

    /// Whether a run is among them.
    pub fn has(&self, run: &Run) -> bool {
        self.0.contains_key(&run.name())
    }

    fn path() -> PathBuf {
        root().join("docs/src/time-to-accuracy.json")
    }

    fn write(&self) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("writing the runs as JSON")?;
        write_whole(&Self::path(), &(text + "\n"))
    }
}

/// What a finished run was like, epoch by epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Curve {
    /// Minutes of training until the end of each epoch, tests not counted.
    minutes: Vec<f64>,
    /// The accuracy on the test images then.
    accuracies: Vec<f64>,
    /// Version of the engine.
    version: String,
    /// Processor and threads.
    machine: String,
}

impl Curve {
    fn read(record: &Value) -> Option<Self> {
        let images = record["train_images"].as_f64()?;
        let mut minutes = 0.0;
        let epochs = record["epochs"].as_array()?.iter().map(|epoch| {
            minutes += images / epoch["images_per_second"].as_f64()? / 60.0;
            // So few digits that they are read back as they were written.
            Some(((1e4 * minutes).round() / 1e4, epoch["test"]["accuracy"].as_f64()?))
        });
        let (minutes, accuracies) = epochs.collect::<Option<Vec<_>>>()?.into_iter().unzip();
        let versions = &record["versions"];
        let version = versions["torch"].as_str().or(versions["convzoo"].as_str()).unwrap_or("?").to_owned();
        Some(Self { minutes, accuracies, version, machine: machine() })
    }

    fn last(&self) -> [f64; 2] {
        [&self.minutes, &self.accuracies].map(|values| values.last().copied().unwrap_or(f64::NAN))
    }

    /// Minutes until the first epoch that is as accurate as `target`.
    fn minutes_to(&self, target: f64) -> Option<f64> {
        let reached = self.accuracies.iter().position(|&accuracy| accuracy >= target)?;
        Some(self.minutes[reached])
    }
}

/// The runs of a part on an engine, seed by seed.
struct Row {
    name: &'static str,
    network: &'static str,
    recipe: &'static str,
    engine: Engine,
    epochs: usize,
    once: bool,
    curves: Vec<Curve>,
    /// Seeds of runs that are not finished.
    missing: Vec<u64>,
}

impl Row {
    fn title(&self) -> String {
        if self.once {
            format!("{}, {}", self.network, self.recipe)
        } else {
            format!("{}, {}", self.name, self.engine.name())
        }
    }

    /// What its runs were made on.
    fn machines(&self) -> BTreeSet<&str> {
        self.curves.iter().map(|curve| curve.machine.as_str()).collect()
    }

    /// Seconds of an epoch, half of them faster and half slower.
    fn seconds(&self) -> f64 {
        let epochs = self.curves.iter().flat_map(|curve| {
            let before = std::iter::once(0.0).chain(curve.minutes.iter().copied());
            before.zip(&curve.minutes).map(|(before, after)| 60.0 * (after - before))
        });
        let mut epochs: Vec<f64> = epochs.collect();
        epochs.sort_by(f64::total_cmp);
        epochs.get(epochs.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// Minutes of all epochs, of one as long as most.
    fn minutes(&self) -> f64 {
        self.seconds() * self.epochs as f64 / 60.0
    }

    /// The mean over the seeds of minutes and accuracy, epoch by epoch.
    fn mean(&self) -> Vec<(f64, f64)> {
        let curves = self.curves.len() as f64;
        let mean = |value: &dyn Fn(&Curve) -> f64| self.curves.iter().map(value).sum::<f64>() / curves;
        let epochs = self.curves.iter().map(|curve| curve.minutes.len()).min().unwrap_or(0);
        (0..epochs).map(|at| (mean(&|curve| curve.minutes[at]), mean(&|curve| curve.accuracies[at]))).collect()
    }
}

/// Rows in the order of the parts, with the runs that are finished.
fn rows(runs: &[Run], measured: &Measured) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for run in runs {
        let at = rows.iter().position(|row| row.name == run.part.name && row.engine == run.engine);
        let at = at.unwrap_or_else(|| {
            let (part, engine, epochs) = (run.part, run.engine, run.epochs);
            let (curves, missing) = (Vec::new(), Vec::new());
            let super::Part { name, network, recipe, once, .. } = *part;
            rows.push(Row { name, network, recipe, engine, epochs, once, curves, missing });
            rows.len() - 1
        });
        match measured.0.get(&run.name()) {
            Some(curve) => rows[at].curves.push(curve.clone()),
            None => rows[at].missing.push(run.seed),
        }
    }
    rows
}

/// Replaces the page's tables, its picture, and what both are made from.
pub fn write(runs: &[Run]) -> Result<()> {
    let measured = Measured::read(runs)?;
    measured.write()?;
    let docs = root().join("docs/src");
    let rows = rows(runs, &measured);
    let picture = docs.join(FIGURE);
    let mut text = text(&rows);
    if rows.iter().any(|row| !row.curves.is_empty()) {
        let lines = Lines::new("Right on CIFAR-10's test images", "minutes of training", "share").logarithmic_x();
        let drawn = rows.iter().filter(|row| !row.curves.is_empty());
        let lines = drawn.fold(lines, |lines, row| lines.series(row.title(), row.mean()));
        write_whole(&picture, &lines.svg().context("drawing the chart")?)?;
        let _ = write!(text, "![Accuracy over minutes of training, the mean over the seeds]({FIGURE})\n\n");
    } else if picture.exists() {
        fs::remove_file(&picture).context("removing the picture of runs that are not there")?;
    }
    write_between(&docs.join("time-to-accuracy.md"), BETWEEN, &text)
}

/// What the page would say of runs of the folders alone.
pub fn trial(runs: &[Run]) -> Result<String> {
    Ok(text(&rows(runs, &Measured::of(runs)?)))
}

/// What the page says of the runs.
fn text(rows: &[Row]) -> String {
    let mut text = String::from("\n");
    if rows.iter().any(|row| !row.curves.is_empty()) {
        text += &conditions(rows);
        text += &tables(rows);
    }
    let missing = rows.iter().filter(|row| !row.missing.is_empty()).map(|row| {
        let seeds: Vec<_> = row.missing.iter().map(u64::to_string).collect();
        format!("- {}: seed {}\n", row.title(), seeds.join(", "))
    });
    let missing: String = missing.collect();
    if !missing.is_empty() {
        let _ = write!(text, "Not measured yet:\n\n{missing}\n");
    }
    text
}

/// This machine's processor and how many threads it runs at once.
fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{model}, {cores} threads")
}

/// The machines and the versions.
fn conditions(rows: &[Row]) -> String {
    let machines: BTreeSet<_> = rows.iter().flat_map(Row::machines).collect();
    let versions: BTreeSet<_> = rows
        .iter()
        .flat_map(|row| row.curves.iter().map(|curve| format!("{} {}", row.engine.name(), curve.version)))
        .collect();
    let machines = machines.into_iter().collect::<Vec<_>>().join("; ");
    let versions = versions.into_iter().collect::<Vec<_>>().join(", ");
    format!("- Machine: {machines}\n- {versions}\n\n")
}

/// A row for each network and engine.
fn tables(rows: &[Row]) -> String {
    let reference = rows.iter().find(|row| row.once && !row.curves.is_empty());
    let target = reference.map(|row| row.curves[0].last()[1]);
    // The reference may have run beside other work: the same steps of the same network tell its time.
    let twin = reference.and_then(|reference| {
        let same = |row: &&Row| !row.once && row.network == reference.network && row.engine == reference.engine;
        rows.iter().filter(same).find(|row| !row.curves.is_empty())
    });
    let pace = twin.or(reference);
    let budget = reference.zip(pace).map(|(reference, pace)| pace.seconds() * reference.epochs as f64 / 60.0);
    let several = rows.iter().flat_map(Row::machines).collect::<BTreeSet<_>>().len() > 1;
    let mut text = String::from(
        "| network, engine | seeds | epochs | accuracy at the end | seconds an epoch | minutes | minutes to the \
             reference's accuracy | share of the reference's time |\n| --- | --: | --: | --: | --: | --: | --: | --: |\n",
    );
    for row in rows.iter().filter(|row| !row.curves.is_empty()) {
        let accuracies: Vec<f64> = row.curves.iter().map(|curve| 100.0 * curve.last()[1]).collect();
        let times = target.filter(|_| !row.once).map(|target| {
            let times: Vec<f64> = row.curves.iter().filter_map(|curve| curve.minutes_to(target)).collect();
            (times.len() == row.curves.len()).then(|| mean(&times))
        });
        let [minutes, share] = match (times, budget) {
            // Times of different machines are not compared.
            (Some(Some(time)), _) if pace.is_none_or(|pace| pace.machines() != row.machines()) => {
                [format!("{time:.1}"), "–".to_owned()]
            }
            (Some(Some(time)), Some(budget)) => [format!("{time:.1}"), format!("{:.2}", time / budget)],
            (Some(None), _) => ["not by all seeds".to_owned(), "–".to_owned()],
            _ => ["–".to_owned(), "–".to_owned()],
        };
        let machines = row.machines().into_iter().collect::<Vec<_>>().join("; ");
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {:.1} | {:.1} | {minutes} | {share} |",
            if several { format!("{}, {machines}", row.title()) } else { row.title() },
            row.curves.len(),
            row.epochs,
            spread(&accuracies),
            row.seconds(),
            row.minutes(),
        );
    }
    text += "\n";
    if let (Some(target), Some(budget)) = (target, budget) {
        let pace = if twin.is_some() { ", at the pace of the same network in the table," } else { "" };
        let _ = write!(
            text,
            "The reference is right on {:.2}% of the test images; its epochs{pace} take {budget:.0} minutes, of which a fifth \
             is {:.0}.\n\n",
            100.0 * target,
            SHARE * budget,
        );
    }
    text
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Percentages as their mean and the deviation of one, where there are several.
fn spread(values: &[f64]) -> String {
    let mean = mean(values);
    match values.len() {
        1 => format!("{mean:.2}%"),
        count => {
            let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
            format!("{mean:.2} ± {:.2}%", (squares / (count - 1) as f64).sqrt())
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a panic is how a test fails
mod tests {
    use std::path::Path;

    use super::super::PARTS;
    use super::*;

    /// A run whose epochs take a minute each.
    fn ran(folder: &Path, part: usize, seed: u64, accuracies: &[f64], status: &str) -> Run {
        let run = Run {
            part: &PARTS[part],
            engine: Engine::Convzoo,
            seed,
            epochs: accuracies.len(),
            folder: folder.join(format!("{part}-{seed}")),
        };
        let epoch = |accuracy| serde_json::json!({ "images_per_second": 10.0, "test": { "accuracy": accuracy } });
        let epochs: Vec<_> = accuracies.iter().map(epoch).collect();
        let versions = serde_json::json!({ "convzoo": "0.1.0" });
        let record =
            serde_json::json!({ "train_images": 600, "epochs": epochs, "versions": versions, "status": status });
        if status != "none" {
            fs::create_dir(&run.folder).unwrap();
            fs::write(run.folder.join("run.json"), record.to_string()).unwrap();
        }
        run
    }

    #[test]
    fn tables_say_when_runs_reach_the_references_accuracy_and_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let ran = |part, seed, accuracies: &[f64], status| ran(folder.path(), part, seed, accuracies, status);
        let runs = [
            ran(0, 0, &[0.5, 0.8, 0.9], "finished"),
            ran(0, 1, &[0.6, 0.7, 0.92], "finished"),
            ran(1, 0, &[0.9, 0.7], "finished"),
            ran(1, 1, &[0.4, 0.5], "running"),
            ran(2, 0, &[0.4], "finished"),
            ran(2, 1, &[0.4], "none"),
            ran(3, 0, &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.7, 0.8], "finished"),
        ];
        let text = trial(&runs).unwrap();
        for line in [
            // In the second epoch and in the third.
            "| resnet20_cifar, convzoo | 2 | 3 | 91.00 ± 1.41% | 60.0 | 3.0 | 2.5 | 0.25 |",
            "| airbench94, convzoo | 1 | 2 | 70.00% | 60.0 | 2.0 | 1.0 | 0.10 |",
            "| wide_resnet16_4, convzoo | 1 | 1 | 40.00% | 60.0 | 1.0 | not by all seeds | – |",
            "| resnet20_cifar, resnet_cifar | 1 | 10 | 80.00% | 60.0 | 10.0 | – | – |",
            "The reference is right on 80.00% of the test images; its epochs, at the pace of the same network in the table, take \
             10 minutes, of which a fifth is 2.",
            "Not measured yet:\n\n- airbench94, convzoo: seed 1\n- wide_resnet16_4, convzoo: seed 1\n",
        ] {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn times_of_different_machines_are_told_apart_and_not_compared() {
        let folder = tempfile::tempdir().unwrap();
        let runs = [(1, &[0.7, 0.9][..]), (3, &[0.1, 0.8])]
            .map(|(part, accuracies)| ran(folder.path(), part, 0, accuracies, "finished"));
        let mut measured = Measured::of(&runs).unwrap();
        let told = |measured: &Measured| text(&rows(&runs, measured));
        assert!(told(&measured).contains("| airbench94, convzoo | 1 | 2 | 90.00% | 60.0 | 2.0 | 2.0 | 1.00 |"));
        measured.0.get_mut(&runs[0].name()).unwrap().machine = "another".to_owned();
        let text = told(&measured);
        assert!(text.contains("| airbench94, convzoo, another | 1 | 2 | 90.00% | 60.0 | 2.0 | 2.0 | – |"), "{text}");
    }
}
