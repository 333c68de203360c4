//! Runs killed at any moment, by every recipe and option.

use std::process::ExitCode;

use anyhow::Result;

use crate::{cargo, succeed};

/// What the chore is asked.
#[derive(clap::Args)]
pub struct Args {
    /// Runs to disturb, by each recipe and option in turns
    #[arg(long, value_name = "N", default_value_t = 200)]
    runs: u32,
}

/// Runs the long test of `crates/convzoo/tests/kill.rs`.
pub fn run(args: &Args) -> Result<ExitCode> {
    let test = ["test", "--workspace", "--test", "kill", "--", "--ignored", "--nocapture"];
    succeed(cargo(test)?.env("CONVZOO_KILLS", args.runs.to_string()))?;
    Ok(ExitCode::SUCCESS)
}
