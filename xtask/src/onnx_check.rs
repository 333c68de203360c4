//! Networks as ONNX files: ONNX's checker, ONNX Runtime, tract, and back.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::goldens::python_with;
use crate::root;
use crate::torch_check::release_binary;

/// What writes, reads and runs ONNX files in Python.
const VERSIONS: [&str; 5] =
    ["onnx==1.23.2", "onnx-ir==0.1.16", "onnxruntime==1.31.1", "onnxscript==0.7.2", "tract==0.23.9"];

/// Exports `models` (all, if none is named) by `binary`, or a release build, and compares what other programs make of the
/// files, and unless `own` what convzoo makes of those of PyTorch's exporters; the script says how.
pub fn run(models: &[String], own: bool, binary: Option<PathBuf>) -> Result<ExitCode> {
    let binary = binary.map_or_else(release_binary, Ok)?;
    let mut script = Command::new(python()?);
    script.arg(root().join("xtask/onnx_check.py")).arg(binary).args(models);
    if own {
        script.arg("--own");
    }
    let status = script.status();
    // The script has told what failed.
    Ok(if status.context("starting Python")?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A Python with PyTorch and ONNX.
pub fn python() -> Result<PathBuf> {
    python_with(&VERSIONS)
}
