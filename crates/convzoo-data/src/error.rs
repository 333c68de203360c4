//! What can go wrong with data, said so that a user can act on it.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::shown::{escaped, shown};

/// Everything that opening a data set or reading an image can fail with.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataError {
    /// No data set has this name.
    #[error(
        "unknown data set `{name}`{}; known data sets: {}",
        meant(name, *nearest, *folder),
        known.join(", ")
    )]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// The known name nearest to it, if one is near.
        nearest: Option<&'static str>,
        /// Every known name.
        known: &'static [&'static str],
        /// Whether it is a folder's name.
        folder: bool,
    },

    /// The data set lives in a folder of the user's, and none was named.
    #[error("the data set `{name}` needs a data folder; expected {layout}")]
    NoDataDir {
        /// The data set.
        name: &'static str,
        /// What such a folder holds.
        layout: &'static str,
    },

    /// The data folder does not exist, or is not a folder.
    #[error("no such folder: {}", told(path))]
    MissingFolder {
        /// The folder that was looked for.
        path: PathBuf,
    },

    /// Files that the data set needs are not in its folder.
    #[error("missing in {}: {}", told(folder), looked_for.join("; "))]
    MissingFiles {
        /// The folder searched.
        folder: PathBuf,
        /// For each missing file, the names it may have.
        looked_for: Vec<String>,
    },

    /// The data set is not on this machine, and downloading is switched off.
    #[error("{}", offline_message(name, folder, urls))]
    Offline {
        /// The data set.
        name: String,
        /// Where its files belong.
        folder: PathBuf,
        /// Where each can be had.
        urls: Vec<String>,
    },

    /// The user's cache folder is not known to the system.
    #[error("this user has no cache folder; set CONVZOO_CACHE to a folder for downloads")]
    NoCacheDir,

    /// The operating system refused a file operation.
    #[error("cannot {doing} {}: {source}", told(path))]
    Io {
        /// What was being done, as a verb.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },

    /// A compressed file is truncated or corrupt.
    #[error("{} is truncated or corrupt ({source}); replace it with a fresh copy", told(path))]
    Gzip {
        /// The file.
        path: PathBuf,
        /// The decompressor's reason.
        source: io::Error,
    },

    /// A file's contents contradict its format.
    #[error("{} is malformed: {problem}; replace it with a fresh copy", told(path))]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },

    /// Images and labels do not pair up.
    #[error(
        "{} holds {image_count} images, but {} holds {label_count} labels; are both from the same data set?",
        told(images),
        told(labels)
    )]
    CountMismatch {
        /// The file of images.
        images: PathBuf,
        /// How many it holds.
        image_count: usize,
        /// The file of labels.
        labels: PathBuf,
        /// How many it holds.
        label_count: usize,
    },

    /// A label names no class.
    #[error("{}: label {label} of image {index} is not below the {classes} classes", told(path))]
    LabelOutOfRange {
        /// The file.
        path: PathBuf,
        /// The image's position in the file.
        index: usize,
        /// The offending label.
        label: usize,
        /// How many classes there are.
        classes: usize,
    },

    /// There is nothing to train or test on.
    #[error("{} holds no images", told(path))]
    Empty {
        /// The file or folder.
        path: PathBuf,
    },

    /// Too few images to hold some of them out.
    #[error("{}: {images} images are too few to hold a fifth of them out for testing", told(path))]
    TooFew {
        /// The file or folder.
        path: PathBuf,
        /// How many images there are.
        images: usize,
    },

    /// Images to choose by were to be held out of data that has some.
    #[error("{name} has validation images of its own; none can be split from its training images")]
    HasVal {
        /// The data set.
        name: String,
    },

    /// A share of the training images that would leave one of its parts empty.
    #[error(
        "a share of {share} of {images} training images cannot be held out for validation, each class to the nearest whole image; 0.1 is a tenth"
    )]
    Share {
        /// The share that was asked for.
        share: f64,
        /// Training images.
        images: usize,
    },

    /// The class folders are not what the data set expects.
    #[error("{}: {problem}", told(folder))]
    Classes {
        /// The folder that holds the class folders.
        folder: PathBuf,
        /// What is wrong with them.
        problem: String,
    },

    /// The data set has no images to choose by.
    #[error("{name} has no validation images; only folders of images have, in a folder val beside train and test")]
    NoPart {
        /// The data set.
        name: &'static str,
    },

    /// A sample beyond the end was asked for.
    #[error("there is no sample {index} in a data set of {len}")]
    OutOfRange {
        /// The index asked for.
        index: usize,
        /// The data set's length.
        len: usize,
    },

    /// No source gave the file, complete and with the published checksum.
    #[error("{}", download_message(target, attempts))]
    Download {
        /// Where the file was to go.
        target: PathBuf,
        /// Each address tried and why it failed.
        attempts: Vec<(String, String)>,
    },

    /// An augmentation's strength that makes no sense.
    #[error("augment.{field} must be {expected}, not {value}")]
    Augment {
        /// The field of [`Augment`](crate::Augment).
        field: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        expected: String,
    },

    /// Two folders of classes whose names cannot be told apart.
    #[error("{}: two folders are named `{}`", told(folder), escaped(name))]
    SameName {
        /// The folder that holds the class folders.
        folder: PathBuf,
        /// The name of both, as it is shown.
        name: String,
    },

    /// No image of a part can be read.
    #[error("none of the {images} images can be read; the first: {first}")]
    Unreadable {
        /// How many there are.
        images: usize,
        /// What is wrong with the first.
        first: Box<DataError>,
    },

    /// An image cannot be decoded.
    #[error("cannot read {}: {problem}", told(path.as_deref().unwrap_or(Path::new("the image"))))]
    Image {
        /// The image's file, where it came from one.
        path: Option<PathBuf>,
        /// What is wrong with it.
        problem: String,
    },
}

impl DataError {
    /// An [`DataError::Io`] for `path`, for use with `map_err`.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { doing, path, source }
    }

    /// A [`DataError::Malformed`] for `path`.
    pub(crate) fn malformed(path: &Path, problem: impl Into<String>) -> Self {
        Self::Malformed { path: path.to_path_buf(), problem: problem.into() }
    }
}

/// A path as messages tell it: on one line, and without what would steer a terminal.
fn told(path: &Path) -> String {
    escaped(&shown(path)).into_owned()
}

fn meant(name: &str, nearest: Option<&str>, folder: bool) -> String {
    match nearest {
        _ if folder => format!("; for the images in that folder: --data folder --data-dir {}", escaped(name)),
        Some(nearest) => format!(", did you mean `{nearest}`?"),
        None => String::new(),
    }
}

fn offline_message(name: &str, folder: &Path, urls: &[String]) -> String {
    let mut text =
        format!("`{name}` is not on this machine and downloads are off; put these files into {}:", told(folder));
    for url in urls {
        let _ = write!(text, "\n  {url}");
    }
    text
}

fn download_message(target: &Path, attempts: &[(String, String)]) -> String {
    let mut text = String::from("the download failed:");
    for (url, reason) in attempts {
        let _ = write!(text, "\n  {url}: {reason}");
    }
    let _ = write!(
        text,
        "\ntry again (it resumes where it stopped), name another server in CONVZOO_MIRROR, or put the file at {}",
        told(target)
    );
    text
}
