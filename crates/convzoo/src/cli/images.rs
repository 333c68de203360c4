//! The images that a command line names.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use convzoo::data::{EXTENSIONS, Image, Orientation, decode_oriented, load_image_oriented, shown};
use serde::{Deserialize, Serialize};

/// `--orientation`.
#[derive(clap::Args, Clone, Copy, Default)]
pub struct OrientationArgs {
    /// Whether to turn photographs upright, as their camera's EXIF note says, or to take their pixels as they are stored,
    /// as torchvision does
    #[arg(long, value_enum, default_value_t = OrientationArg::Apply)]
    orientation: OrientationArg,
}

/// What to do with the orientation that cameras note.
#[derive(clap::ValueEnum, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OrientationArg {
    /// Turn photographs upright
    #[default]
    Apply,
    /// Take pixels as they are stored
    Ignore,
}

impl OrientationArg {
    /// As the library takes it.
    pub fn library(self) -> Orientation {
        match self {
            Self::Apply => Orientation::Apply,
            Self::Ignore => Orientation::Ignore,
        }
    }
}

/// Where an image comes from, and how it is read.
pub struct Source {
    /// A file, or what the program is fed.
    file: Option<PathBuf>,
    orientation: Orientation,
}

impl Source {
    /// Its file, unless it is standard input.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Its name in documents; what is printed on a terminal is to be escaped.
    pub fn name(&self) -> String {
        self.path().map_or_else(|| "-".to_owned(), shown)
    }

    /// Reads and decodes it.
    pub fn read(&self) -> Result<Image> {
        match &self.file {
            Some(path) => Ok(load_image_oriented(path, self.orientation)?),
            None => {
                // As much as a file may have; `decode` refuses what is larger.
                const LIMIT: u64 = 256 << 20;
                let mut bytes = Vec::new();
                io::stdin().lock().take(LIMIT + 1).read_to_end(&mut bytes).context("reading standard input")?;
                Ok(decode_oriented(&bytes, self.orientation)?)
            }
        }
    }
}

/// Folders become the images in them or, where there are none, in their folders; patterns what they match; all else
/// stays what was typed.
pub fn expand(arguments: &[OsString], orientation: OrientationArgs) -> Result<Vec<Source>> {
    if arguments.is_empty() {
        bail!("name images, or a folder of them");
    }
    let orientation = orientation.orientation.library();
    let of_file = |file: PathBuf| Source { file: Some(file), orientation };
    let mut sources = Vec::new();
    for argument in arguments {
        let path = Path::new(argument);
        if argument == "-" {
            sources.push(Source { file: None, orientation });
        } else if path.is_dir() {
            let mut files = images_in(path)?;
            if files.is_empty() {
                for folder in entries(path)?.iter().filter(|entry| entry.is_dir()) {
                    files.extend(images_in(folder)?);
                }
            }
            if files.is_empty() {
                bail!(
                    "{} holds no image ({}), nor do the folders directly in it",
                    path.display(),
                    EXTENSIONS.join(", ")
                );
            }
            sources.extend(files.into_iter().map(of_file));
        } else if let Some(pattern) = argument.to_str().filter(|text| text.contains(['*', '?', '[']))
            && !path.exists()
        {
            let matches = glob::glob(pattern).with_context(|| format!("'{pattern}' is no pattern"))?;
            let mut files: Vec<_> = matches.filter_map(Result::ok).filter(|file| file.is_file()).collect();
            files.sort();
            if files.is_empty() {
                bail!("nothing matches {pattern}");
            }
            sources.extend(files.into_iter().map(of_file));
        } else {
            sources.push(of_file(path.to_owned()));
        }
    }
    Ok(sources)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let reading = || format!("reading {}", folder.display());
    let entries = std::fs::read_dir(folder).with_context(reading)?;
    let mut entries =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>().with_context(reading)?;
    entries.sort();
    Ok(entries)
}

fn images_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = entries(folder)?;
    files.retain(|file| is_image(file));
    Ok(files)
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_lowercase);
    path.is_file() && extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}
