//! Other machines: what compiles for their targets, and what runs on aarch64, emulated.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::{cargo, succeed};

/// What the chore is asked.
#[derive(clap::Args)]
pub struct Args {
    /// Check the targets only; emulate nothing
    #[arg(long)]
    check: bool,
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

/// Checks the crates that need no C compiler of the target's, then runs the kernels' tests and a golden on aarch64.
pub fn run(args: &Args) -> Result<()> {
    check()?;
    if !args.check {
        ensure!(can_emulate(), "{LINKER} and {EMULATOR} are needed (Debian: gcc-aarch64-linux-gnu, qemu-user)");
        emulate()?;
    }
    Ok(())
}

/// Checks what needs no C compiler: `ring`, under the downloads of convzoo-data, and `psm`, under npyz, are C.
pub fn check() -> Result<()> {
    for target in TARGETS {
        let mut add = Command::new("rustup");
        succeed(add.args(["target", "add", target]))?;
        let mut crates = cargo(["check", "--target", target, "--target-dir", "target/cross"])?;
        crates.args(["--package", "convzoo-graph", "--package", "convzoo-kernels", "--package", "convzoo-blocks"]);
        crates.args(["--package", "convzoo-models", "--features", "convzoo-kernels/flex"]);
        if target.starts_with("wasm32") {
            // Random numbers come from the browser there.
            crates.env("RUSTFLAGS", "--cfg getrandom_backend=\"wasm_js\"");
        }
        succeed(&mut crates)?;
    }
    Ok(())
}

/// Whether this machine has a linker for aarch64, and an emulator.
pub fn can_emulate() -> bool {
    [LINKER, EMULATOR].iter().all(|program| Command::new(program).arg("--version").output().is_ok())
}

/// The kernels' tests, NEON among them, and goldens of whole networks.
pub fn emulate() -> Result<()> {
    let test = |arguments: &[&str]| -> Result<()> {
        let mut tests = cargo(["test", "--target", ARM, "--target-dir", "target/cross"])?;
        let variable = |name: &str| format!("CARGO_TARGET_{}_{name}", ARM.to_uppercase().replace('-', "_"));
        tests.env(variable("LINKER"), LINKER).env(variable("RUNNER"), format!("{EMULATOR} -L /usr/aarch64-linux-gnu"));
        // Few cases: an emulated instruction takes as long as dozens.
        succeed(tests.env("PROPTEST_CASES", "16").args(arguments))
    };
    test(&["--package", "convzoo-kernels", "--no-default-features", "--tests"])?;
    // Burn is built once more; quickly, since what matters are the kernels.
    let lightly = "profile.dev.package.\"*\".opt-level=1";
    test(&[
        "--package",
        "convzoo-models",
        "--config",
        lightly,
        "--test",
        "goldens",
        "--",
        "evaluation::lenet5",
        "evaluation::squeezenet1_1",
    ])
}
