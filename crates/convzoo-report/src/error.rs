use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a report could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The drawing library refused.
    #[error("cannot draw the chart `{title}`: {problem}")]
    Draw {
        /// The chart's title.
        title: String,
        /// The library's reason.
        problem: String,
    },

    /// The operating system refused to write a file.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl ReportError {
    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::Write { path, source }
    }
}
