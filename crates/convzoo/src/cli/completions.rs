//! What a shell and `man` want of the program.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Command;
use clap_complete::{Shell, generate};

/// Arguments of `completions`.
#[derive(clap::Args)]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub const EXAMPLES: &str = "Examples:
  source <(convzoo completions bash)                       in ~/.bashrc
  convzoo completions zsh > ~/.zfunc/_convzoo              a folder of $fpath
  convzoo completions fish > ~/.config/fish/completions/convzoo.fish";

/// Prints the script that has a shell complete commands, options and names.
pub fn run(args: &Args, command: &mut Command) -> Result<ExitCode> {
    let mut script = Vec::new();
    generate(args.shell, command, "convzoo", &mut script);
    match io::stdout().lock().write_all(&script) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("writing to standard output"),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Arguments of `man`.
#[derive(clap::Args)]
pub struct ManArgs {
    /// Folder to write to, which is made
    folder: PathBuf,
}

/// Writes a manual page for the program and for each of its commands.
pub fn man_pages(args: &ManArgs, command: Command) -> Result<ExitCode> {
    let folder: &Path = &args.folder;
    let writing = || format!("writing manual pages to {}", folder.display());
    std::fs::create_dir_all(folder).with_context(writing)?;
    clap_mangen::generate_to(command, folder).with_context(writing)?;
    Ok(ExitCode::SUCCESS)
}
