//! Weights exchanged with PyTorch itself.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::goldens::python;
use crate::{cargo, root, succeed};

/// Saves random weights of `models` (all, if none is named) from PyTorch, and compares what `binary`, or a release
/// build, makes of them; the script says how.
pub fn run(models: &[String], binary: Option<PathBuf>) -> Result<ExitCode> {
    let binary = binary.map_or_else(release_binary, Ok)?;
    let mut script = Command::new(python()?);
    let status = script.arg(root().join("xtask/torch_check.py")).arg(binary).args(models).status();
    // The script has told what failed.
    Ok(if status.context("starting Python")?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The program, built in release mode.
pub fn release_binary() -> Result<PathBuf> {
    succeed(&mut cargo(["build", "--release"])?)?;
    Ok(root().join("target/release").join(format!("convzoo{}", std::env::consts::EXE_SUFFIX)))
}
