//! The drawings of networks in the book, which `convzoo draw` makes.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{ci, root, succeed};

/// Arguments of `figures`.
#[derive(clap::Args, Default)]
pub struct Args {
    /// Put the drawings that differ in place of those in the tree
    #[arg(long)]
    write: bool,
    /// A convzoo that is built already [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

/// Where the drawings lie.
const FOLDER: &str = "docs/src/figures/draw";

/// Each drawing's name, and what is drawn.
const DRAWN: [(&str, &[&str]); 9] = [
    ("resnet18", &["resnet18"]),
    ("googlenet", &["googlenet"]),
    ("inception_resnet_v2", &["inception_resnet_v2", "--block", "repeat_1.0"]),
    ("mobilenet_v2", &["mobilenet_v2", "--block", "features.3"]),
    ("shufflenet_v2", &["shufflenet_v2_x1_0", "--block", "stage2.0"]),
    ("mobilenet_v3", &["mobilenet_v3_small", "--block", "features.5"]),
    ("efficientnet", &["efficientnet_b0", "--block", "features.2.1"]),
    ("regnet", &["regnet_y_400mf", "--block", "trunk_output.block2.block2-0"]),
    ("convnext", &["convnext_tiny", "--block", "features.1.0"]),
];

/// Draws all, and compares with those in the tree.
pub fn run(args: &Args) -> Result<()> {
    let binary = match &args.binary {
        Some(binary) => binary.canonicalize().with_context(|| format!("looking for {}", binary.display()))?,
        None => ci::built("convzoo")?,
    };
    let drawn = tempfile::tempdir().context("making a temporary folder")?;
    let mut differing = Vec::new();
    for (name, arguments) in DRAWN {
        let file = format!("{name}.svg");
        let new = drawn.path().join(&file);
        succeed(Command::new(&binary).arg("draw").args(arguments).arg("--out").arg(&new))?;
        let kept = root().join(FOLDER).join(&file);
        let drawing = fs::read(&new).with_context(|| format!("reading {}", new.display()))?;
        if fs::read(&kept).is_ok_and(|kept| kept == drawing) {
            continue;
        }
        differing.push(file);
        if args.write {
            fs::create_dir_all(root().join(FOLDER)).with_context(|| format!("making {FOLDER}"))?;
            fs::write(&kept, drawing).with_context(|| format!("writing {}", kept.display()))?;
        }
    }
    match differing.is_empty() || args.write {
        true => Ok(()),
        false => bail!("{FOLDER} is not what is drawn (`cargo xtask figures --write`): {}", differing.join(", ")),
    }
}
