//! Other machines: what compiles for their targets, and what runs on aarch64, emulated.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::{cargo, succeed};

/// What the chore is asked.
#[derive(clap::Args)]
pub struct Args {
    /// The graph and the kernels alone, without Burn, as continuous integration does
    #[arg(long)]
    kernels: bool,
}

/// The targets that are checked beside this machine's own.
const TARGETS: [&str; 5] = [
    "aarch64-unknown-linux-gnu",
    "x86_64-pc-windows-msvc",
    "x86_64-apple-darwin",
    "aarch64-apple-darwin",
    "wasm32-unknown-unknown",
];

const ARM: &str = "aarch64-unknown-linux-gnu";
const LINKER: &str = "aarch64-linux-gnu-gcc";
const EMULATOR: &str = "qemu-aarch64";

/// Checks every target and runs the kernels' tests on aarch64; then the same of the networks, on Burn.
pub fn run(args: &Args) -> Result<()> {
    ensure!(can_emulate(), "{LINKER} and {EMULATOR} are needed (Debian: gcc-aarch64-linux-gnu, qemu-user)");
    check_kernels()?;
    emulate_kernels()?;
    if !args.kernels {
        check_networks()?;
        emulate_networks()?;
    }
    Ok(())
}

/// Checks what needs nothing but Rust.
pub fn check_kernels() -> Result<()> {
    for target in TARGETS {
        succeed(Command::new("rustup").args(["target", "add", target]))?;
        succeed(checking(target)?.args(["--package", "convzoo-kernels", "--no-default-features"]))?;
    }
    Ok(())
}

/// Checks the networks. `ring`, under the downloads of convzoo-data, and `psm`, under npyz, need a C compiler of the
/// target's: the other crates are checked here.
fn check_networks() -> Result<()> {
    for target in TARGETS {
        let mut check = checking(target)?;
        check.args([
            "--package",
            "convzoo-models",
            "--package",
            "convzoo-kernels",
            "--features",
            "convzoo-kernels/flex",
        ]);
        // Random numbers come from the browser there.
        if target.starts_with("wasm32") {
            check.env("RUSTFLAGS", "--cfg getrandom_backend=\"wasm_js\"");
        }
        succeed(&mut check)?;
    }
    Ok(())
}

fn checking(target: &str) -> Result<Command> {
    cargo(["check", "--target", target, "--target-dir", "target/cross"])
}

/// Whether this machine has a linker for aarch64, and an emulator.
pub fn can_emulate() -> bool {
    [LINKER, EMULATOR].iter().all(|program| Command::new(program).arg("--version").output().is_ok())
}

/// The kernels' tests, NEON among them.
pub fn emulate_kernels() -> Result<()> {
    succeed(emulating()?.args(["--package", "convzoo-kernels", "--no-default-features", "--tests"]))
}

/// Goldens of two networks, on kernels with NEON.
fn emulate_networks() -> Result<()> {
    let networks = ["evaluation::lenet5", "evaluation::squeezenet1_1"];
    succeed(emulating()?.args(["--package", "convzoo-models", "--test", "goldens", "--"]).args(networks))
}

fn emulating() -> Result<Command> {
    let mut tests = cargo(["test", "--target", ARM, "--target-dir", "target/cross"])?;
    let variable = |name: &str| format!("CARGO_TARGET_{}_{name}", ARM.to_uppercase().replace('-', "_"));
    tests.env(variable("LINKER"), LINKER).env(variable("RUNNER"), format!("{EMULATOR} -L /usr/aarch64-linux-gnu"));
    // Few cases: an emulated instruction takes as long as dozens.
    tests.env("PROPTEST_CASES", "16");
    Ok(tests)
}
