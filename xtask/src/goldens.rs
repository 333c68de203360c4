//! Makes the reference outputs again and compares them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{root, succeed};

/// What the goldens in the tree were made with.
const VERSIONS: [&str; 5] = ["torch==2.9.0", "torchvision==0.24.0", "timm==1.0.31", "numpy", "safetensors"];

/// Numbers may differ by this much, relative to the largest of their list: other processors add up in another order.
const TOLERANCE: f64 = 1e-4;

/// Regenerates the goldens of `models` (all, if none is named) and shows what differs; `write` replaces them.
pub fn run(models: &[String], write: bool) -> Result<ExitCode> {
    let python = python()?;
    let made = tempfile::tempdir().context("making a temporary folder")?;
    succeed(Command::new(&python).arg(root().join("xtask/goldens.py")).arg(made.path()).args(models))?;

    let kept = root().join("crates/convzoo-models/tests/goldens");
    let mut files: Vec<PathBuf> = fs::read_dir(made.path())?.map(|e| Ok(e?.path())).collect::<Result<_>>()?;
    files.sort();
    ensure!(!files.is_empty(), "no golden was made: are the names right?");
    let mut different = 0;
    for file in &files {
        let name = file.file_name().context("a made file has a name")?;
        let (new, old) = (read(file)?, read(&kept.join(name)));
        let verdict = match old {
            Err(_) => Some("new".to_owned()),
            Ok(old) => difference("", &old, &new),
        };
        let shown = name.to_string_lossy();
        match verdict {
            None => println!("{shown}: the same"),
            Some(verdict) => {
                different += 1;
                println!("{shown}: {verdict}");
                if write {
                    fs::copy(file, kept.join(name)).with_context(|| format!("writing {shown}"))?;
                }
            }
        }
    }
    println!("{} goldens, {different} different", files.len());
    Ok(if different > 0 && !write { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn read(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))
}

/// The first place where two documents differ by more than the tolerance. How far 32 bits lie from 64 is left out: that
/// is another figure on every machine.
fn difference(at: &str, old: &Value, new: &Value) -> Option<String> {
    match (old, new) {
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let numbers = |list: &[Value]| list.iter().map(Value::as_f64).collect::<Option<Vec<_>>>();
            if let (Some(a), Some(b)) = (numbers(a), numbers(b)) {
                let scale = a.iter().fold(0f64, |largest, x| largest.max(x.abs()));
                let off = a.iter().zip(&b).position(|(a, b)| (a - b).abs() > TOLERANCE * scale)?;
                return Some(format!("{at}[{off}] was {} and is {}", a[off], b[off]));
            }
            a.iter().zip(b).enumerate().find_map(|(i, (a, b))| difference(&format!("{at}[{i}]"), a, b))
        }
        (Value::Object(a), Value::Object(b)) if a.keys().eq(b.keys()) => {
            let mut figures = a.iter().filter(|(key, _)| *key != "rounding");
            figures.find_map(|(key, a)| difference(&format!("{at}.{key}"), a, &b[key]))
        }
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64()?, b.as_f64()?);
            // Losses and norms are sums over many steps.
            ((a - b).abs() > 1e-3 * a.abs().max(1e-6)).then(|| format!("{at} was {a} and is {b}"))
        }
        _ => (old != new).then(|| format!("{at} differs in kind or length")),
    }
}

/// A Python with the reference libraries, set up in the workspace's own folder.
pub fn python() -> Result<PathBuf> {
    python_with(&[])
}

/// [`python`] with other libraries besides.
pub fn python_with(others: &[&str]) -> Result<PathBuf> {
    let venv = root().join(".venv");
    let python = venv.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    if !python.exists() {
        succeed(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    }
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    succeed(Command::new(&python).args(install).args(VERSIONS).args(others))
        .context("installing the reference libraries")?;
    Ok(python)
}
