//! The same networks on every backend: how far evaluation, loss and gradients are from flex's and from PyTorch's.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::goldens::python;
use crate::{cargo, cargo_executable};

/// What the chore is asked.
#[derive(clap::Args)]
pub struct Args {
    /// The backends to compare with flex: ndarray, wgpu, tch, cuda
    #[arg(default_value = "ndarray")]
    backends: Vec<String>,
    /// Only networks whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    network: String,
    /// Leave out the slow steps of training, as continuous integration does
    #[arg(long)]
    quick: bool,
    /// A Python with torch 2.9.0, whose libtorch `tch` is built with [default: one set up in .venv]
    #[arg(long, value_name = "FILE")]
    python: Option<PathBuf>,
    /// Run nothing: make the table of what the tests printed on another machine
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

/// The columns: a heading, and the field that the tests print. Those that no test has printed are left out.
const COLUMNS: [(&str, &str); 11] = [
    ("logits", "logits"),
    ("logits, PyTorch", "logits, PyTorch"),
    ("loss", "loss"),
    ("rounding moves it", "loss, rounding"),
    ("loss, PyTorch", "loss, PyTorch"),
    ("gradients", "gradients"),
    ("rounding moves them", "gradients, rounding"),
    ("logits, f16", "f16"),
    ("rounding moves them", "f16, rounding"),
    ("logits, bf16", "bf16"),
    ("rounding moves them", "bf16, rounding"),
];

/// What the tests measured, by backend and network.
#[derive(Default)]
struct Rows(BTreeMap<(String, String), BTreeMap<String, Value>>);

impl Rows {
    /// Takes what tests have printed.
    fn read(&mut self, text: &str) -> Result<()> {
        for told in text.lines().filter_map(|line| line.strip_prefix("differences: ")) {
            let (backend, network, fields): (String, String, BTreeMap<String, Value>) =
                serde_json::from_str(told).with_context(|| format!("reading the differences {told}"))?;
            let row = self.0.entry((backend, network)).or_default();
            row.extend(fields.into_iter().filter(|(_, value)| !value.is_null()));
        }
        Ok(())
    }

    fn print(&self) {
        let told = |(_, field): &&(&str, &str)| self.0.values().any(|fields| fields.contains_key(*field));
        let columns: Vec<_> = COLUMNS.iter().filter(told).collect();
        let headings: Vec<_> = columns.iter().map(|(heading, _)| *heading).collect();
        println!("| backend | network | {} |", headings.join(" | "));
        println!("| --- | --- |{}", " --: |".repeat(columns.len()));
        for ((backend, network), fields) in &self.0 {
            let cell = |field: &str| fields.get(field).and_then(Value::as_f64).map_or(String::new(), figure);
            let cells: Vec<_> = columns.iter().map(|(_, field)| cell(field)).collect();
            let exception = fields.get("exception").and_then(Value::as_str).map(|reason| format!(" {reason} |"));
            println!("| {backend} | {network} | {} |{}", cells.join(" | "), exception.unwrap_or_default());
        }
    }
}

/// Builds the tests of `crates/convzoo/tests/backends.rs` with the backends, runs each in a process of its own, and
/// prints what they measured as a table.
pub fn run(args: &Args) -> Result<ExitCode> {
    let mut rows = Rows::default();
    if let Some(log) = &args.log {
        rows.read(&fs::read_to_string(log).with_context(|| format!("reading {}", log.display()))?)?;
        rows.print();
        return Ok(ExitCode::SUCCESS);
    }
    let environment = match args.backends.iter().any(|backend| backend == "tch") {
        true => libtorch(args.python.clone().map_or_else(python, Ok)?)?,
        false => Vec::new(),
    };
    let features: Vec<_> = args.backends.iter().map(|backend| format!("convzoo/{backend}")).collect();
    let features = features.join(",");
    let mut build = cargo(["test", "--workspace", "--features", &features, "--test", "backends", "--no-run"])?;
    let program = cargo_executable(build.envs(environment.clone()), "backends")?;
    let test = |arguments: &[&str]| -> Result<(bool, String)> {
        let mut command = Command::new(&program);
        let output = command.args(arguments).envs(environment.clone()).output().context("starting the tests")?;
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        Ok((output.status.success(), text.concat()))
    };

    let (listed, list) = test(&["--list"])?;
    ensure!(listed, "the tests cannot be listed: {list}");
    let (_, ignored) = test(&["--list", "--ignored"])?;
    let names = |list: &str| -> Vec<String> {
        list.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
    };
    let slow = names(&ignored);
    let mut failures = Vec::new();
    for name in names(&list) {
        // `wgpu::training::resnet18`, `f16::wgpu::resnet18`.
        let &[first, second, network] = &name.split("::").collect::<Vec<_>>()[..] else { continue };
        let backend = args.backends.iter().any(|backend| [first, second].contains(&backend.as_str()));
        let asked = backend && network.contains(&args.network);
        if !asked || args.quick && slow.contains(&name) {
            continue;
        }
        eprintln!("{name}");
        let (passed, text) = test(&["--exact", &name, "--include-ignored", "--nocapture"])?;
        rows.read(&text).with_context(|| format!("reading what {name} printed"))?;
        if let Some(reason) = text.lines().find(|line| line.starts_with("skipped: ")) {
            failures.push(format!("{name} was {reason}"));
        } else if !passed {
            failures.push(format!("{name} failed: {}", reason(&text)));
        }
    }

    ensure!(!rows.0.is_empty() || !failures.is_empty(), "no test is of these backends and networks");
    rows.print();
    for failure in &failures {
        eprintln!("{failure}");
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn figure(value: f64) -> String {
    if value == 0.0 { "0".to_owned() } else { format!("{value:.1e}") }
}

/// What a failed test said first.
fn reason(text: &str) -> &str {
    let panicked = text.lines().skip_while(|line| !line.contains("panicked at")).nth(1);
    panicked.or_else(|| text.lines().rfind(|line| !line.is_empty())).unwrap_or("it said nothing")
}

/// What building and running with the libtorch of this Python's torch needs.
pub fn libtorch(python: PathBuf) -> Result<Vec<(&'static str, String)>> {
    let ask = ["-c", "import torch, os; print(os.path.join(os.path.dirname(torch.__file__), 'lib'))"];
    let output = Command::new(&python).args(ask).output().with_context(|| format!("starting {}", python.display()))?;
    ensure!(output.status.success(), "{} has no torch: {}", python.display(), String::from_utf8_lossy(&output.stderr));
    let lib = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let folder = python.parent().unwrap_or(Path::new("."));
    let before = |first: &str, name: &str| match std::env::var(name) {
        Ok(rest) if !rest.is_empty() => format!("{first}:{rest}"),
        _ => first.to_owned(),
    };
    Ok(vec![
        ("LIBTORCH_USE_PYTORCH", "1".to_owned()),
        ("PATH", before(&folder.to_string_lossy(), "PATH")),
        ("LD_LIBRARY_PATH", before(&lib, "LD_LIBRARY_PATH")),
    ])
}
