//! The images that a command line names.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use convzoo::data::{EXTENSIONS, Image, decode, load_image};

/// Where an image comes from.
pub enum Source {
    /// A file.
    File(PathBuf),
    /// What the program is fed.
    StandardInput,
}

impl Source {
    /// As it is told to the user.
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::StandardInput => "-".to_owned(),
        }
    }

    /// Reads and decodes it.
    pub fn read(&self) -> Result<Image> {
        match self {
            Self::File(path) => Ok(load_image(path)?),
            Self::StandardInput => {
                // As much as a file may have; `decode` refuses what is larger.
                const LIMIT: u64 = 256 << 20;
                let mut bytes = Vec::new();
                io::stdin().lock().take(LIMIT + 1).read_to_end(&mut bytes).context("reading standard input")?;
                Ok(decode(&bytes)?)
            }
        }
    }
}

/// Folders become the images in them or, where there are none, in their folders; patterns what they match; all else
/// stays what was typed.
pub fn expand(arguments: &[String]) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for argument in arguments {
        let path = Path::new(argument);
        if argument == "-" {
            sources.push(Source::StandardInput);
        } else if path.is_dir() {
            let mut files = images_in(path)?;
            if files.is_empty() {
                for folder in entries(path)?.iter().filter(|entry| entry.is_dir()) {
                    files.extend(images_in(folder)?);
                }
            }
            if files.is_empty() {
                bail!("{argument} holds no image ({})", EXTENSIONS.join(", "));
            }
            sources.extend(files.into_iter().map(Source::File));
        } else if argument.contains(['*', '?', '[']) && !path.exists() {
            let matches = glob::glob(argument).with_context(|| format!("'{argument}' is no pattern"))?;
            let mut files: Vec<_> = matches.filter_map(Result::ok).filter(|file| file.is_file()).collect();
            files.sort();
            if files.is_empty() {
                bail!("nothing matches {argument}");
            }
            sources.extend(files.into_iter().map(Source::File));
        } else {
            sources.push(Source::File(path.to_owned()));
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
