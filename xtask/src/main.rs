//! The project's chores, as `cargo xtask NAME`.

mod accuracy;
mod backends;
mod bench;
mod ci;
mod cross;
mod dist;
mod docs;
mod figures;
mod goldens;
mod kill;
mod onnx_check;
mod roofline;
mod sanitize;
mod torch_check;
mod visualize_check;
mod web;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use clap::Parser;

#[derive(Parser)]
#[command(about = "The project's chores")]
enum Chore {
    /// Train a network: `convzoo train` with the same arguments, in release mode
    #[command(disable_help_flag = true)]
    Train {
        /// Passed on
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Make the reference outputs again with PyTorch and compare them with those in the tree
    Goldens {
        /// Only these networks
        models: Vec<String>,
        /// Replace those in the tree
        #[arg(long)]
        write: bool,
    },
    /// Check weights that PyTorch saves in convzoo, and those that convzoo writes in PyTorch
    TorchCheck {
        /// Only these networks
        models: Vec<String>,
        /// A convzoo that is built already [default: one built in release mode]
        #[arg(long, value_name = "FILE")]
        binary: Option<PathBuf>,
    },
    /// Check networks as ONNX files in ONNX's checker, ONNX Runtime and tract, and those of PyTorch's exporters in convzoo
    OnnxCheck {
        /// Only these networks
        models: Vec<String>,
        /// Leave out the files of PyTorch's exporters, which take most of the time
        #[arg(long)]
        own: bool,
        /// A convzoo that is built already [default: one built in release mode]
        #[arg(long, value_name = "FILE")]
        binary: Option<PathBuf>,
    },
    /// Compare what `convzoo visualize` shows with PyTorch
    VisualizeCheck {
        /// Replace PyTorch's numbers in the tree
        #[arg(long)]
        write: bool,
        /// The folder with photographs and weights
        #[arg(long, value_name = "DIR", default_value = "../shared")]
        shared: PathBuf,
        /// A convzoo that is built already [default: one built in release mode]
        #[arg(long, value_name = "FILE")]
        binary: Option<PathBuf>,
    },
    /// Compare the networks on every backend with flex and with PyTorch
    Backends(backends::Args),
    /// Measure speed: `convzoo bench` with the same arguments, in release mode, or all peers
    Bench(bench::Args),
    /// Measure time to accuracy on CIFAR-10, in convzoo and PyTorch, and write docs/src/time-to-accuracy.md
    Accuracy(accuracy::Args),
    /// Measure networks on flex beside the machine's peak, and write docs/src/kernels.md
    Roofline(roofline::Args),
    /// Run the kernels' tests under the address sanitizer, or in Miri
    Sanitize(sanitize::Args),
    /// Kill training runs at any moment, by every recipe and option, resume them and compare with undisturbed ones
    Kill(kill::Args),
    /// Run the commands that READMEs and book show, and compare what they print
    Docs(docs::Args),
    /// Draw the networks that the book shows, and compare with what it has
    Figures(figures::Args),
    /// Check the targets of other machines, and run the kernels' tests and goldens on aarch64, emulated
    Cross(cross::Args),
    /// Pack the program for machines without a compiler: an archive, its checksum, completions, man pages, licenses
    Dist(dist::Args),
    /// Put the page in the browser together: its program in WebAssembly and its files; serve, test or measure it
    Web(web::Args),
    /// Run what continuous integration runs
    Ci,
}

fn main() -> ExitCode {
    let result = match Chore::parse() {
        Chore::Train { arguments } => cargo(["run", "--release", "--", "train"]).and_then(|mut command| {
            // The training's own failure has been told; its status is ours.
            let status = command.args(arguments).status().context("starting cargo")?;
            Ok(ExitCode::from(status.code().map_or(1, |code| code as u8)))
        }),
        Chore::Goldens { models, write } => goldens::run(&models, write),
        Chore::TorchCheck { models, binary } => torch_check::run(&models, binary),
        Chore::OnnxCheck { models, own, binary } => onnx_check::run(&models, own, binary),
        Chore::VisualizeCheck { write, shared, binary } => visualize_check::run(&shared, write, binary),
        Chore::Backends(args) => backends::run(&args),
        Chore::Bench(args) => bench::run(&args),
        Chore::Accuracy(args) => accuracy::run(&args).map(|()| ExitCode::SUCCESS),
        Chore::Roofline(args) => roofline::run(&args).map(|()| ExitCode::SUCCESS),
        Chore::Sanitize(args) => sanitize::run(&args).map(|()| ExitCode::SUCCESS),
        Chore::Kill(args) => kill::run(&args),
        Chore::Docs(args) => docs::run(&args).map(|()| ExitCode::SUCCESS),
        Chore::Figures(args) => figures::run(&args).map(|()| ExitCode::SUCCESS),
        Chore::Cross(args) => cross::run(&args).map(|()| ExitCode::SUCCESS),
        Chore::Dist(args) => dist::run(&args).map(|()| ExitCode::SUCCESS),
        Chore::Web(args) => web::run(&args),
        Chore::Ci => ci::run().map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// The workspace's folder.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// A cargo command in the workspace.
fn cargo<const N: usize>(arguments: [&str; N]) -> Result<Command> {
    let cargo = std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
    let mut command = Command::new(cargo);
    command.current_dir(root()).args(arguments);
    Ok(command)
}

/// Runs a command to a good end.
fn succeed(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    let status = command.status().with_context(|| format!("starting {shown}"))?;
    if !status.success() {
        bail!("{shown} ended with {status}");
    }
    Ok(())
}

/// What a command prints, if it comes to a good end.
fn printed(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    String::from_utf8(output.stdout).with_context(|| format!("reading what {command:?} prints"))
}

/// Runs a cargo command that builds, and returns the path of the program of this name.
fn cargo_executable(build: &mut Command, name: &str) -> Result<PathBuf> {
    build.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped()).stderr(Stdio::inherit());
    let shown = format!("{build:?}");
    let output = build.output().with_context(|| format!("starting {shown}"))?;
    if !output.status.success() {
        bail!("{shown} ended with {}", output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let programs = messages.filter(|message| message["target"]["name"] == name);
    let mut paths = programs.filter_map(|message| Some(PathBuf::from(message["executable"].as_str()?)));
    // The program comes after the libraries it is built of.
    paths.next_back().with_context(|| format!("{shown} built no program '{name}'"))
}

/// Replaces what stands between two lines of a page.
fn write_between(page: &Path, [begin, end]: [&str; 2], text: &str) -> Result<()> {
    let old = fs::read_to_string(page).with_context(|| format!("reading {}", page.display()))?;
    let (Some(from), Some(to)) = (old.find(begin), old.find(end)) else {
        bail!("{} has no lines `{begin}` and `{end}`", page.display());
    };
    write_whole(page, &format!("{}{begin}\n{text}{}", &old[..from], &old[to..]))
}

/// Writes a file that is never there by half.
fn write_whole(path: &Path, text: &str) -> Result<()> {
    let unfinished = path.with_extension("part");
    fs::write(&unfinished, text).with_context(|| format!("writing {}", unfinished.display()))?;
    fs::rename(&unfinished, path).with_context(|| format!("writing {}", path.display()))
}
