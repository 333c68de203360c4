//! Where data comes from.

use std::path::PathBuf;

use crate::decode::Orientation;
use crate::error::DataError;

/// Where a data set comes from and how it is split. The default downloads into the user's cache, silently.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The folder that holds the data; nothing is ever written there. Without it the cache does, filled by downloads.
    pub data_dir: Option<PathBuf>,
    /// Never download: what is not on this machine is an error that says where to put it.
    pub offline: bool,
    /// The seed that chooses the held-out fifth of a data set that comes in one part. Without it `digits` and
    /// `folder` use 0, and the IDX sets hold out the last fifth in file order.
    pub split_seed: Option<u64>,
    /// Show a progress bar for downloads on standard error, where that is a terminal.
    pub progress: bool,
    /// The cache folder; else the environment's `CONVZOO_CACHE`, else `convzoo` in the user's cache folder.
    pub cache_dir: Option<PathBuf>,
    /// A server to download from in place of the published ones, holding `NAME/FILE` for each data set's files; else
    /// the environment's `CONVZOO_MIRROR`.
    pub mirror: Option<String>,
    /// Whether the orientation that cameras note in image files is applied.
    pub orientation: Orientation,
    /// Take also what cannot be searched or followed in folders of images, such as links to nowhere, as images that
    /// cannot be read, for [`Splits::readable`](crate::Splits::readable) to leave out. Without it they are an error.
    pub keep_unreadable: bool,
}

impl Source {
    /// Data from a folder.
    pub fn folder(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: Some(data_dir.into()), ..Self::default() }
    }

    /// The cache folder in use. Data sets are in folders below it, by name.
    pub fn cache_dir(&self) -> Result<PathBuf, DataError> {
        let named = self.cache_dir.clone().or_else(|| environment("CONVZOO_CACHE").map(PathBuf::from));
        named.or_else(|| Some(dirs::cache_dir()?.join("convzoo"))).ok_or(DataError::NoCacheDir)
    }

    /// The servers to try for the files of `name`: the mirror alone where there is one, else the published ones.
    pub fn servers(&self, name: &str, published: &[&str]) -> Vec<String> {
        match self.mirror.clone().or_else(|| environment("CONVZOO_MIRROR")?.into_string().ok()) {
            Some(mirror) => vec![format!("{}/{name}", mirror.trim_end_matches('/'))],
            None => published.iter().map(|&server| server.to_owned()).collect(),
        }
    }
}

/// A variable of the environment, unless it is empty.
fn environment(variable: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(variable).filter(|value| !value.is_empty())
}
