//! An archive that runs without a compiler: the stripped program, licenses, shell completions and man pages.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use flate2::{Compression, write::GzEncoder};
use sha2::{Digest, Sha256};

use crate::sanitize::host;
use crate::{cargo, cargo_executable, printed, root};

/// What the chore is asked.
#[derive(clap::Args)]
pub struct Args {
    /// The target that the program is built for [default: on Linux this machine's with musl, linked statically; else
    /// this machine's]
    #[arg(long, value_name = "TRIPLE")]
    target: Option<String>,
    /// Devices besides flex
    #[arg(long, value_name = "LIST", default_value = "")]
    features: String,
    /// Where the archive is written
    #[arg(long, value_name = "DIR", default_value = "target/dist")]
    out: PathBuf,
}

/// The largest archive that users are asked to download.
const MOST_BYTES: u64 = 25 << 20;

const SHELLS: [&str; 4] = ["bash", "zsh", "fish", "powershell"];

/// Builds the program and packs it, and prints the archive's path, size and SHA-256.
pub fn run(args: &Args) -> Result<()> {
    let target = args.target.clone().map_or_else(default_target, Ok)?;
    let mut build = cargo(["build", "--profile", "dist", "--package", "convzoo", "--bin", "convzoo"])?;
    build.args(["--target", &target, "--features", &args.features]);
    let program = cargo_executable(&mut build, "convzoo")?;

    let name = format!("convzoo-{}-{target}", env!("CARGO_PKG_VERSION"));
    let staging = tempfile::tempdir().context("making a temporary folder")?;
    let folder = staging.path().join(&name);
    fill(&folder, &program, &target, &args.features)?;

    fs::create_dir_all(&args.out).with_context(|| format!("making {}", args.out.display()))?;
    let archive = args.out.join(format!("{name}.tar.gz"));
    pack(&folder, &name, &archive)?;
    let bytes = fs::read(&archive).with_context(|| format!("reading {}", archive.display()))?;
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let listed = format!("{digest}  {name}.tar.gz\n");
    fs::write(args.out.join(format!("{name}.tar.gz.sha256")), &listed).context("writing the checksum")?;
    print!("{listed}");
    println!("{} ({:.1} MB)", archive.display(), bytes.len() as f64 / 1e6);
    ensure!(
        bytes.len() as u64 <= MOST_BYTES,
        "the archive has {} bytes; at most {MOST_BYTES} are allowed",
        bytes.len()
    );
    Ok(())
}

/// This machine's target; on Linux with musl, so that the program needs no library of the system.
fn default_target() -> Result<String> {
    Ok(host()?.replace("-linux-gnu", "-linux-musl"))
}

/// Everything that the archive holds.
fn fill(folder: &Path, program: &Path, target: &str, features: &str) -> Result<()> {
    for part in ["completions", "man"] {
        fs::create_dir_all(folder.join(part)).context("making the archive's folders")?;
    }
    let file_name = program.file_name().context("the program has no name")?;
    let copies = ["README.md", "README.zh-CN.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT"];
    let copies = copies.map(|name| (root().join(name), name.into()));
    for (from, to) in copies.into_iter().chain([(program.to_owned(), PathBuf::from(file_name))]) {
        fs::copy(&from, folder.join(to)).with_context(|| format!("copying {}", from.display()))?;
    }
    fs::write(folder.join("THIRD-PARTY.md"), licenses(target, features)?).context("writing THIRD-PARTY.md")?;
    // The program itself knows its options; one built for another system is asked where it runs.
    if !runs_here(program) {
        eprintln!("warning: this machine does not run {}: no completions, no man pages", program.display());
        return Ok(());
    }
    for shell in SHELLS {
        let text = printed(Command::new(program).args(["completions", shell]))?;
        fs::write(folder.join("completions").join(format!("convzoo.{shell}")), text).context("writing completions")?;
    }
    printed(Command::new(program).arg("man").arg(folder.join("man"))).map(drop)
}

fn runs_here(program: &Path) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// The packages that the program is built of, each with its license.
fn licenses(target: &str, features: &str) -> Result<String> {
    let mut tree = cargo(["tree", "--package", "convzoo", "--edges", "normal", "--prefix", "none"])?;
    tree.args(["--target", target, "--features", features, "--format", "{p}|{l}|{r}"]);
    let text = printed(&mut tree)?;
    let mut rows: Vec<_> = text
        .lines()
        .filter_map(|line| {
            let [package, license, repository] = line.trim_end_matches(" (*)").split('|').collect::<Vec<_>>()[..]
            else {
                return None;
            };
            // Paths and kinds, in parentheses after the version, are of this machine.
            let package = package.split(" (").next().unwrap_or(package);
            (!package.starts_with("convzoo")).then(|| format!("| {package} | {license} | {repository} |"))
        })
        .collect();
    rows.sort();
    rows.dedup();
    ensure!(!rows.is_empty(), "cargo tree names no package");
    let head = "# Packages that convzoo is built of\n\n| package | license | source |\n|---|---|---|\n";
    Ok(format!("{head}{}\n", rows.join("\n")))
}

/// A gzipped tar archive of the folder, the same bytes for the same contents.
fn pack(folder: &Path, name: &str, archive: &Path) -> Result<()> {
    let unfinished = archive.with_extension("part");
    let file = File::create(&unfinished).with_context(|| format!("writing {}", unfinished.display()))?;
    let mut builder = tar::Builder::new(GzEncoder::new(file, Compression::best()));
    builder.mode(tar::HeaderMode::Deterministic);
    builder.append_dir_all(name, folder).context("packing the archive")?;
    builder.into_inner().and_then(GzEncoder::finish).context("packing the archive")?;
    fs::rename(&unfinished, archive).with_context(|| format!("writing {}", archive.display()))
}
