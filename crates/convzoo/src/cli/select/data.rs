//! Which data, and how its images become a network's input.

use std::path::PathBuf;

use anyhow::{Context, Result};
use convzoo::data::{Part, Selection, Source, Splits, readable};
use convzoo::{Network, Preprocessing, data};
use serde::{Deserialize, Serialize};

use super::super::images::OrientationArg;
use super::super::output::tell;

/// Where data comes from.
#[derive(clap::Args, Clone, Default, Serialize, Deserialize)]
pub struct DataArgs {
    /// Folder that holds the data; without it the data is downloaded into the cache
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Never download
    #[arg(long)]
    pub offline: bool,
    /// Seed of the held-out fifth, for data that comes in one part [default: 0; of MNIST's kind the last fifth]
    #[arg(long, value_name = "N")]
    pub split_seed: Option<u64>,
    /// Read all images first, and leave out those that are damaged, forbidden or links to nowhere
    #[arg(long)]
    #[serde(default)]
    pub skip_corrupt: bool,
    /// Whether to turn photographs upright, as their camera's EXIF note says, or to take their pixels as they are stored,
    /// as torchvision does
    #[arg(long, value_enum, default_value_t = OrientationArg::Apply)]
    #[serde(default)]
    pub orientation: OrientationArg,
}

impl DataArgs {
    fn source(&self) -> Source {
        Source {
            data_dir: self.data_dir.clone(),
            offline: self.offline,
            split_seed: self.split_seed,
            progress: true,
            orientation: self.orientation.library(),
            keep_unreadable: self.skip_corrupt,
            ..Source::default()
        }
    }

    /// Opens the data set called `name`, to train and test.
    pub fn open(&self, name: &str) -> Result<Splits> {
        let opening = || format!("opening the data set '{name}'");
        let splits = data::open(name, &self.source()).with_context(opening)?;
        if !self.skip_corrupt {
            return Ok(splits);
        }
        let images = splits.train.len() + splits.test.len();
        let (splits, damaged) = splits.readable().with_context(opening)?;
        tell_left_out(&damaged, images);
        Ok(splits)
    }

    /// The images of `part` of the data set called `name`.
    pub fn select(&self, name: &str, part: Part) -> Result<Selection> {
        let opening = || format!("opening the data set '{name}'");
        let selection = data::select(name, &self.source(), part).with_context(opening)?;
        if !self.skip_corrupt {
            return Ok(selection);
        }
        let images = selection.data.len();
        let (data, damaged) = readable(selection.data).with_context(opening)?;
        tell_left_out(&damaged, images);
        Ok(Selection { data, ..selection })
    }
}

fn tell_left_out(damaged: &[data::DataError], images: usize) {
    for problem in damaged {
        tell(&format!("left out: {problem}"));
    }
    if !damaged.is_empty() {
        tell(&format!("left out {} of {images} images", damaged.len()));
    }
}

/// How the images of `data` become `network`'s input.
pub fn preprocess(
    network: &Network,
    preprocessing: &Preprocessing,
    data: &dyn data::Dataset,
) -> Result<data::Preprocess> {
    let sample = data.get(0).context("reading the first image; --skip-corrupt leaves out what is damaged")?;
    Ok(convzoo::preprocess(preprocessing, network.input(), &sample.image))
}
