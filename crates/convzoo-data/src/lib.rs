//! Data for convzoo: data sets, image decoding, and the way from an image to a network's input. It knows no tensors:
//! images are bytes, inputs are `f32` slices.
//!
//! ```
//! use convzoo_data::{Fit, Preprocess, Source};
//! let digits = convzoo_data::open("digits", &Source::default())?;
//! let sample = digits.train.get(0)?;
//! let input = Preprocess::new(1, 32, 32, Fit::Resize).apply(&sample.image);
//! println!("{} values of a {}", input.len(), digits.classes()[sample.label]);
//! # Ok::<(), convzoo_data::DataError>(())
//! ```

mod augment;
mod cifar;
mod dataset;
mod decode;
mod digits;
#[cfg_attr(target_family = "wasm", path = "no_download.rs")]
pub mod download;
mod error;
mod file;
mod folder;
mod idx;
mod image;
mod mnist;
mod operation;
mod part;
mod preprocess;
mod readable;
mod remote;
mod shown;
mod source;
mod split;

pub use augment::{Augment, ColorJitter, RandAugment, View};
pub use dataset::{Cached, Dataset, ForTraining, InMemory, Relabelled, Sample, Splits, Subset, evenly_spaced};
pub use decode::{
    EXTENSIONS, Orientation, decode, decode_for_training, decode_oriented, load_image, load_image_oriented,
};
pub use error::DataError;
pub use file::read as read_file;
pub use folder::ImageFolder;
pub use image::{Filter, Image};
pub use operation::Operation;
pub use part::{Part, Selection};
pub use preprocess::{Fit, Preprocess};
pub use readable::readable;
pub use shown::{escaped, shown};
pub use source::Source;
pub use split::Split;

const NAMES: &[&str] = &["digits", "mnist", "fashion-mnist", "cifar10", "cifar100", "folder"];

/// The data sets that [`open`] knows.
pub fn names() -> &'static [&'static str] {
    NAMES
}

/// Opens the data set called `name`, in two parts.
pub fn open(name: &str, source: &Source) -> Result<Splits, DataError> {
    find(name, source)?.splits()
}

/// Some images of the data set called `name`, to measure a network on. Of a data set without images to test on these
/// are, for [`Part::Test`], those that [`open`] holds out.
pub fn select(name: &str, source: &Source, part: Part) -> Result<Selection, DataError> {
    find(name, source)?.select(part)
}

fn find(name: &str, source: &Source) -> Result<part::Parts, DataError> {
    match name {
        "digits" => Ok(digits::find(source.split_seed)),
        "mnist" => mnist::MNIST.find(source),
        "fashion-mnist" => mnist::FASHION_MNIST.find(source),
        "cifar10" => cifar::CIFAR10.find(source),
        "cifar100" => cifar::CIFAR100.find(source),
        "folder" => folder::find(source),
        _ => {
            let distance = |known: &str| strsim::damerau_levenshtein(&name.to_lowercase(), known);
            // Half of the letters wrong is another word, not a slip.
            let nearest = NAMES.iter().copied().min_by_key(|known| distance(known));
            let nearest = nearest.filter(|known| 2 * distance(known) <= known.len());
            let folder = std::path::Path::new(name).is_dir();
            Err(DataError::Unknown { name: name.to_owned(), nearest, known: NAMES, folder })
        }
    }
}
