//! What continuous integration runs.

use std::env::consts::{EXE_EXTENSION, EXE_SUFFIX};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::goldens::python;
use crate::{
    cargo, cross, docs, figures, onnx_check, printed, root, sanitize, succeed, torch_check, visualize_check, web,
};

/// The commands that the README promises, each alone on its line.
const README_COMMANDS: [&str; 2] = ["cargo run --release -- train", "cargo test --workspace"];

/// Networks that are evaluated on software Vulkan.
const WGPU: [&str; 5] = ["alexnet_2012", "lenet5", "mobilenet_v3_small", "resnet20_cifar", "squeezenet1_1"];

/// Runs every step, and stops at the first that fails.
pub fn run() -> Result<()> {
    let readme = fs::read_to_string(root().join("README.md")).context("reading README.md")?;
    for promised in README_COMMANDS {
        let there = readme.lines().any(|line| line.trim() == promised);
        ensure!(there, "README.md does not show `{promised}` on a line of its own");
    }

    step("formatting", || succeed(&mut cargo(["fmt", "--all", "--check"])?))?;
    step("clippy on the default features", || {
        succeed(&mut cargo(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?)
    })?;
    step("clippy on wgpu, cuda, remote and the service", || {
        let features = ["clippy", "--package", "convzoo", "--features", "wgpu,cuda,remote,service"];
        let targets = ["--lib", "--bins", "--example", "service", "--test", "service", "--", "-D", "warnings"];
        // Burn's cuda feature downloads an LLVM while it builds, except where documentation is built.
        succeed(cargo(features)?.args(targets).env("DOCS_RS", "1"))
    })?;
    step("the library that classifies images, alone", || {
        let library = ["clippy", "--package", "convzoo", "--no-default-features", "--features", "flex"];
        succeed(cargo(library)?.args(["--lib", "--", "-D", "warnings"]))
    })?;
    step("kernels on other machines", || {
        cross::check_kernels()?;
        if cross::can_emulate() {
            return cross::emulate_kernels();
        }
        println!("skipped: nothing here emulates aarch64");
        Ok(())
    })?;
    step("documentation", || {
        let doc = ["doc", "--workspace", "--no-deps", "--exclude", "xtask"];
        succeed(cargo(doc)?.env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    step("tests", || readme_command(README_COMMANDS[1]))?;
    // The last step builds the program with other devices: what needs the default one comes before it.
    // The service runs until it is stopped, and is built and tested in the last step.
    for example in examples()?.into_iter().filter(|example| example != "service") {
        let mut run = Command::new(built(&format!("examples/{example}"))?);
        run.current_dir(root());
        if example == "transfer_learning" {
            // In full it takes the better part of an hour.
            run.arg("--quick");
            let data = shared().join("data");
            if data.exists() {
                run.arg(data.join("sign-digits.tar.gz")).arg(data.join("weights/squeezenet1_0-imagenet.safetensors"));
            }
        }
        step(&format!("example {example}"), || succeed(&mut run))?;
    }
    step("the README's training run", || {
        let folder = tempfile::tempdir().context("making a temporary folder")?;
        succeed(Command::new(built("convzoo")?).arg("train").current_dir(folder.path()))
    })?;
    step("the commands of the documentation", || docs::run(&docs::Args::default()))?;
    step("the drawings of the book", || figures::run(&figures::Args::default()))?;
    step("weights exchanged and pictures compared with PyTorch", || {
        // A machine without the package index still tells whether the rest is sound.
        if let Err(error) = python() {
            println!("skipped: {error:#}");
            return Ok(());
        }
        let models = ["squeezenet1_1", "googlenet", "densenet121", "resnet18"].map(str::to_owned);
        let checked = torch_check::run(&models, Some(built("convzoo")?))?;
        ensure!(checked == ExitCode::SUCCESS, "PyTorch and convzoo disagree, see above");
        let shared = shared();
        if shared.exists() {
            let checked = visualize_check::run(&shared, false, Some(built("convzoo")?))?;
            ensure!(checked == ExitCode::SUCCESS, "PyTorch's and convzoo's visualizations differ, see above");
        }
        Ok(())
    })?;
    step("ONNX files in other programs", || {
        if let Err(error) = onnx_check::python() {
            println!("skipped: {error:#}");
            return Ok(());
        }
        // Every operation, and every exporter of PyTorch.
        let models = [
            "lenet5",
            "alexnet_2012",
            "resnet20_cifar",
            "densenet40_k12",
            "squeezenet1_1",
            "shufflenet_v2_x0_5",
            "mobilenet_v3_small",
            "bn_inception",
            "googlenet",
            "efficientnet_b0",
            "convnext_tiny",
        ];
        let checked = onnx_check::run(&models.map(str::to_owned), false, Some(built("convzoo")?))?;
        ensure!(checked == ExitCode::SUCCESS, "ONNX files differ from the networks, see above");
        Ok(())
    })?;
    step("the page in the browser", || {
        if !web::can_browse() {
            println!("skipped: there is no chromium, node or npm here");
            return Ok(());
        }
        web::check(built("convzoo")?)
    })?;
    step("the book", book)?;
    step("the public interface beside the last release's", semver)?;
    step("kernels under the address sanitizer", || {
        if !sanitize::has_address_sanitizer()? {
            println!("skipped: this compiler comes without it");
            return Ok(());
        }
        sanitize::address()
    })?;
    step("devices on loopback, the service, ndarray, and evaluation on wgpu", || {
        // One build for all. On software Vulkan each shape's kernels are compiled and tried for seconds: a few networks
        // infer there, and `cargo xtask backends wgpu` has one of every family infer and learn.
        let features = "convzoo/ndarray,convzoo/remote,convzoo/service,convzoo/wgpu";
        let tests = ["test", "--workspace", "--features", features];
        let all = ["--test", "remote", "--test", "mnist", "--test", "service", "--test", "backends"];
        succeed(cargo(tests)?.args(all).args(["--example", "service", "--no-run"]))?;
        succeed(cargo(tests)?.args(&all[..6]))?;
        let on_wgpu = WGPU.map(|network| format!("wgpu::evaluation::{network}"));
        let of_backends = ["--test", "backends", "--", "--nocapture", "ndarray::", "fused::"];
        succeed(cargo(tests)?.args(of_backends).args(on_wgpu))
    })?;
    Ok(())
}

/// A program of the workspace as `cargo test --workspace` has built it, in the folder of this one: a release build would
/// optimize Burn once more, for a quarter of an hour.
pub fn built(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("looking for this program's folder")?;
    Ok(own.with_file_name(name).with_extension(EXE_EXTENSION))
}

/// The folder of data that are not in the repository.
pub fn shared() -> PathBuf {
    std::env::var_os("CONVZOO_SHARED").map_or_else(|| root().join("../shared"), PathBuf::from)
}

/// A program of the registry in `target/tools`, built the first time.
fn tool(name: &str, version: &str, options: &[&str]) -> Result<PathBuf> {
    let tools = root().join("target/tools");
    let program = tools.join("bin").join(format!("{name}{EXE_SUFFIX}"));
    if !program.exists() {
        let mut install = cargo(["install", name, "--version", version, "--locked"])?;
        succeed(install.args(options).arg("--root").arg(&tools))?;
    }
    Ok(program)
}

/// Whether the public interface differs from the last release's by more than its version says.
fn semver() -> Result<()> {
    let mut last = Command::new("git");
    last.current_dir(root()).args(["describe", "--tags", "--abbrev=0", "--match", "v*"]);
    let Ok(release) = printed(&mut last) else {
        println!("skipped: there is no release to compare with");
        return Ok(());
    };
    let mut check = Command::new(tool("cargo-semver-checks", "0.51.0", &[])?);
    check.current_dir(root()).args(["semver-checks", "--workspace", "--exclude", "xtask", "--exclude", "convzoo-fuzz"]);
    // What `cuda` and `tch` need is not everywhere.
    succeed(check.args(["--default-features", "--baseline-rev", release.trim()]))
}

/// Builds the book; what mdBook warns of is an error.
fn book() -> Result<()> {
    let mdbook = tool("mdbook", "0.5.4", &["--no-default-features"])?;
    let output = Command::new(mdbook).arg("build").arg(root().join("docs")).output();
    let told = output.context("starting mdbook")?;
    let text = String::from_utf8_lossy(&told.stderr).into_owned();
    print!("{text}");
    let clean = told.status.success() && !text.contains("WARN") && !text.contains("ERROR");
    ensure!(clean, "mdbook has warned of something");
    Ok(())
}

/// Every program under `examples/`: a file, or a folder with a `main.rs`.
fn examples() -> Result<Vec<String>> {
    let entries = fs::read_dir(root().join("examples")).context("reading examples/")?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    let is_program =
        |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "rs") || path.join("main.rs").exists();
    let programs = paths.iter().filter(is_program);
    let mut names: Vec<_> = programs.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    Ok(names)
}

fn readme_command(command: &str) -> Result<()> {
    let mut words = command.split(' ').skip(1);
    let mut cargo = cargo([words.next().unwrap_or_default()])?;
    succeed(cargo.args(words))
}

fn step(name: &str, run: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("\n=== {name}");
    let start = Instant::now();
    run().with_context(|| format!("the step '{name}' failed"))?;
    println!("=== {name}: {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}
