//! The kernels' tests where a wrong access to memory is told.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{cargo, printed, root, succeed};

/// What the chore is asked.
#[derive(clap::Args)]
pub struct Args {
    /// In Miri, which also tells undefined behaviour that harms nobody yet, of the portable code alone; needs
    /// `rustup component add miri rust-src --toolchain nightly`
    #[arg(long)]
    miri: bool,
}

/// Takes minutes in Miri: more work than it is meant for.
const HUGE: [&str; 2] =
    ["a_filtered_weight_of_more_tiles_than_are_summed_at_once", "a_deep_wide_convolution_is_its_definition"];

/// Runs the tests of the kernels, without Burn, under the address sanitizer or in Miri.
pub fn run(args: &Args) -> Result<()> {
    if args.miri {
        return miri();
    }
    ensure!(has_address_sanitizer()?, "this compiler comes without the address sanitizer");
    address()
}

/// Every instruction set of this machine, under the address sanitizer.
pub fn address() -> Result<()> {
    let host = host()?;
    let mut tests = cargo(["test", "--package", "convzoo-kernels", "--no-default-features", "--tests"])?;
    // A target named outright keeps the sanitizer out of build scripts; the kernels check themselves meanwhile.
    tests.args(["--target", &host, "--target-dir", "target/sanitized"]);
    for check in ["debug-assertions", "overflow-checks"] {
        tests.args(["--config", &format!("profile.dev.package.convzoo-kernels.{check}=true")]);
    }
    // The sanitizer comes with the stable compiler, and the option that asks for it does not.
    succeed(tests.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", "-Zsanitizer=address"))
}

/// Whether this compiler brings the address sanitizer.
pub fn has_address_sanitizer() -> Result<bool> {
    let folder = rustc(["--print", "target-libdir"])?;
    let entries = std::fs::read_dir(folder.trim()).context("reading the compiler's folder")?;
    Ok(entries.filter_map(Result::ok).any(|entry| entry.file_name().to_string_lossy().contains("rt.asan")))
}

fn miri() -> Result<()> {
    let mut tests = Command::new("rustup");
    tests.args(["run", "nightly", "cargo", "miri", "test", "--package", "convzoo-kernels", "--no-default-features"]);
    tests.args(["--tests", "--target-dir", "target/miri", "--"]);
    tests.args(HUGE.iter().flat_map(|name| ["--skip", name]));
    // Rayon keeps its threads, and its queues follow the newer of Miri's two models of references.
    let flags = "-Zmiri-disable-isolation -Zmiri-ignore-leaks -Zmiri-tree-borrows -Zmiri-permissive-provenance";
    tests.current_dir(root()).env("MIRIFLAGS", flags).env("PROPTEST_CASES", "1");
    // Those of the toolchain that runs this chore.
    tests.env_remove("CARGO").env_remove("RUSTC");
    succeed(&mut tests)
}

/// The target that this compiler compiles for.
pub fn host() -> Result<String> {
    let told = rustc(["--version", "--verbose"])?;
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not say what it compiles for")?.to_owned())
}

fn rustc<const N: usize>(arguments: [&str; N]) -> Result<String> {
    printed(Command::new("rustc").args(arguments))
}
