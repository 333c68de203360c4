//! A data set's parts as they are found, and which of its images are trained on or measured.

use std::path::PathBuf;
use std::sync::Arc;

use crate::dataset::{Dataset, InMemory, Joined, Splits, Subset};
use crate::error::DataError;
use crate::split::Split;

/// Which images of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All there are.
    All,
    /// Those to train on.
    Train,
    /// Those to choose by while training, where the data set has such.
    Val,
    /// Those to test on.
    Test,
}

/// Some images of a data set, and which they are.
#[derive(Clone)]
pub struct Selection {
    /// The images.
    pub data: Arc<dyn Dataset>,
    /// Which of the data set's they are, in words: `test images`.
    pub which: String,
    /// How many images the data set has in all, where these are those that a split has held out of them.
    pub held_out_of: Option<usize>,
}

/// How a fifth of a data set that comes in one part is held out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HoldOut {
    /// The last fifth in the order of the files, unless a seed is given.
    Last,
    /// A fifth chosen by the seed, 0 unless it is given.
    Shuffled,
    /// The same, of each class.
    OfEachClass,
}

/// What was found of a data set.
pub(crate) struct Parts {
    pub name: &'static str,
    /// Where, for errors.
    pub path: PathBuf,
    /// The images to train on; all of them where there are none to test on.
    pub train: Option<Arc<dyn Dataset>>,
    pub val: Option<Arc<dyn Dataset>>,
    pub test: Option<Arc<dyn Dataset>>,
    pub hold_out: HoldOut,
    /// The split's seed, where one was given.
    pub seed: Option<u64>,
}

impl Parts {
    /// The parts of a data set that may come with one of them only, which then is split.
    pub fn of(
        name: &'static str,
        path: PathBuf,
        train: Option<InMemory>,
        test: Option<InMemory>,
        seed: Option<u64>,
    ) -> Self {
        let shared = |images: InMemory| -> Arc<dyn Dataset> { Arc::new(images) };
        let (train, test) = match (train.map(shared), test.map(shared)) {
            (None, whole) => (whole, None),
            both => both,
        };
        Self { name, path, train, val: None, test, hold_out: HoldOut::Last, seed }
    }

    /// The parts to train and test with, and to choose by where there is one; a fifth of the only one is held out.
    pub fn splits(self) -> Result<Splits, DataError> {
        let (name, train) = (self.name.to_owned(), self.train.clone());
        let Some(train) = train else {
            let problem = "it has images to test on and none to train on".to_owned();
            return Err(DataError::Classes { folder: self.path, problem });
        };
        match (self.val, self.test) {
            (val, Some(test)) => return Ok(Splits { name, train, val, test }),
            (Some(test), None) => return Ok(Splits { name, train, val: None, test }),
            (None, None) => {}
        }
        if let ([class], HoldOut::OfEachClass) = (train.classes(), self.hold_out) {
            let class = crate::escaped(class);
            let problem = format!("its only class is `{class}`; is the data in {}/{class}?", self.path.display());
            return Err(DataError::Classes { folder: self.path, problem });
        }
        let split = split(&*train, self.hold_out, self.seed)?;
        if split.train.is_empty() || split.test.is_empty() {
            return Err(DataError::TooFew { path: self.path, images: train.len() });
        }
        let part = |indices| Arc::new(Subset::new(Arc::clone(&train), indices));
        Ok(Splits { name, train: part(split.train), val: None, test: part(split.test) })
    }

    /// The images of `part`.
    pub fn select(self, part: Part) -> Result<Selection, DataError> {
        let chosen = |data, which: &str| Ok(Selection { data, which: which.to_owned(), held_out_of: None });
        let Self { train, val, test, .. } = &self;
        match (part, train, val, test) {
            (Part::All, ..) => {
                chosen(Joined::of([train, val, test].into_iter().flatten().cloned().collect()), "all images")
            }
            (Part::Train, Some(train), val, test) if val.is_some() || test.is_some() => {
                chosen(Arc::clone(train), "training images")
            }
            (Part::Val, _, Some(val), _) | (Part::Test, _, Some(val), None) => {
                chosen(Arc::clone(val), "validation images")
            }
            (Part::Val, _, None, _) => Err(DataError::NoPart { name: self.name }),
            (Part::Test, _, _, Some(test)) => chosen(Arc::clone(test), "test images"),
            (Part::Train | Part::Test, train, _, _) => {
                let seed = match (self.seed, self.hold_out) {
                    (None, HoldOut::Last) => String::new(),
                    (seed, _) => format!(" by seed {}", seed.unwrap_or(0)),
                };
                let held_out_of = train.as_ref().map(|train| train.len());
                let splits = self.splits()?;
                let (data, which) = match part {
                    Part::Train => (splits.train, "the four fifths chosen for training"),
                    _ => (splits.test, "the fifth held out for testing"),
                };
                Ok(Selection { data, which: format!("{which}{seed}"), held_out_of })
            }
        }
    }
}

/// What is held out for testing of data that comes in one part.
const FIFTH: f64 = 0.2;

fn labels(data: &dyn Dataset) -> Result<Vec<usize>, DataError> {
    (0..data.len()).map(|index| data.label(index)).collect()
}

impl Splits {
    /// With a `share` of the training images, above 0 and below 1, held out to choose by: of each class, to the nearest
    /// whole image, chosen by `seed`.
    ///
    /// # Errors
    ///
    /// Where the data has images to choose by already, or one of the parts would be empty.
    pub fn hold_out(self, share: f64, seed: u64) -> Result<Self, DataError> {
        if self.val.is_some() {
            return Err(DataError::HasVal { name: self.name });
        }
        let images = self.train.len();
        let split = match share > 0.0 && share < 1.0 {
            true => Split::stratified(&labels(&*self.train)?, share, seed),
            false => Split { train: Vec::new(), test: Vec::new() },
        };
        if split.train.is_empty() || split.test.is_empty() {
            return Err(DataError::Share { share, images });
        }
        let part = |indices| -> Arc<dyn Dataset> { Arc::new(Subset::new(Arc::clone(&self.train), indices)) };
        Ok(Self { train: part(split.train), val: Some(part(split.test)), ..self })
    }
}

fn split(data: &dyn Dataset, hold_out: HoldOut, seed: Option<u64>) -> Result<Split, DataError> {
    Ok(match hold_out {
        HoldOut::Last => Split::fifth(data.len(), seed),
        HoldOut::Shuffled => Split::fifth(data.len(), Some(seed.unwrap_or(0))),
        HoldOut::OfEachClass => {
            let labels = labels(data)?;
            Split::stratified(&labels, FIFTH, seed.unwrap_or(0))
        }
    })
}
