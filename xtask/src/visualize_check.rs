//! Visualizations of a network, here and in PyTorch.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::goldens::python;
use crate::root;
use crate::torch_check::release_binary;

/// Compares what `binary`, or a release build, shows of the photographs in `shared` with PyTorch; `write` replaces the
/// numbers that the tests know.
pub fn run(shared: &Path, write: bool, binary: Option<PathBuf>) -> Result<ExitCode> {
    let binary = binary.map_or_else(release_binary, Ok)?;
    let mut script = Command::new(python()?);
    script.arg(root().join("xtask/visualize_check.py")).arg(binary).arg(shared);
    if write {
        script.arg("--write").arg(root().join("crates/convzoo/tests/visualize_squeezenet.json"));
    }
    // The script has told what failed.
    let status = script.status().context("starting Python")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
