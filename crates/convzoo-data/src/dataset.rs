//! What a data set is, and the two kinds that others are made of: one in memory, and a part of another.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::error::DataError;
use crate::image::Image;
use crate::preprocess::Preprocess;

/// An image and its class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The image.
    pub image: Image,
    /// Its class: an index into [`Dataset::classes`].
    pub label: usize,
}

/// A sequence of labelled images. Reading one does not depend on the others, so many threads can read at once.
pub trait Dataset: Send + Sync {
    /// How many samples there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sample at `index`.
    fn get(&self, index: usize) -> Result<Sample, DataError>;

    /// The sample at `index` as training may have it, whose image is read the quickest way: its values may differ by a few
    /// levels from those of [`get`](Self::get), and where its shorter side would still have `shortest` pixels it may be a
    /// half, a quarter or an eighth of its size. It is the same each time.
    fn get_for_training(&self, index: usize, shortest: Option<usize>) -> Result<Sample, DataError> {
        let _ = shortest;
        self.get(index)
    }

    /// The class of the sample at `index`, without its image where that is cheaper.
    fn label(&self, index: usize) -> Result<usize, DataError> {
        Ok(self.get(index)?.label)
    }

    /// The names of the classes, in label order.
    fn classes(&self) -> &[String];

    /// The file that holds the sample at `index` and no other, where there is such a file.
    fn file(&self, _index: usize) -> Option<&Path> {
        None
    }

    /// Whether its images are in memory already, so that keeping them there again would only cost.
    fn in_memory(&self) -> bool {
        false
    }
}

/// A data set's parts.
#[derive(Clone)]
pub struct Splits {
    /// The data set's name.
    pub name: String,
    /// What to train on.
    pub train: Arc<dyn Dataset>,
    /// What to choose by while training, where the data has such: else that is the test's.
    pub val: Option<Arc<dyn Dataset>>,
    /// What to test on, and never to train on.
    pub test: Arc<dyn Dataset>,
}

impl std::fmt::Debug for Splits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Splits")
            .field("name", &self.name)
            .field("train", &self.train.len())
            .field("val", &self.val.as_ref().map(|val| val.len()))
            .field("test", &self.test.len())
            .field("classes", &self.train.classes().len())
            .finish()
    }
}

impl Splits {
    /// The names of the classes, in label order.
    pub fn classes(&self) -> &[String] {
        self.train.classes()
    }

    /// What each epoch is measured and chosen by: the validation images where there are such, else the test's.
    pub fn held_out(&self) -> &Arc<dyn Dataset> {
        self.val.as_ref().unwrap_or(&self.test)
    }
}

/// Images of one size, kept in memory as bytes.
#[derive(Clone, Debug)]
pub struct InMemory {
    width: usize,
    height: usize,
    channels: usize,
    pixels: Vec<u8>,
    labels: Vec<u8>,
    classes: Vec<String>,
}

impl InMemory {
    /// The images in `pixels`, one after another, with a label each; nothing where the lengths do not agree, a label
    /// names no class, or a size is zero.
    pub fn new(
        (width, height, channels): (usize, usize, usize),
        pixels: Vec<u8>,
        labels: Vec<u8>,
        classes: Vec<String>,
    ) -> Option<Self> {
        let size = width.checked_mul(height)?.checked_mul(channels)?;
        let agree = size > 0 && matches!(channels, 1 | 3) && Some(pixels.len()) == size.checked_mul(labels.len());
        let labelled = labels.iter().all(|&label| usize::from(label) < classes.len());
        (agree && labelled).then_some(Self { width, height, channels, pixels, labels, classes })
    }
}

impl Dataset for InMemory {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn get(&self, index: usize) -> Result<Sample, DataError> {
        let label = self.label(index)?;
        let size = self.width * self.height * self.channels;
        let pixels = self.pixels[index * size..][..size].to_vec();
        Ok(Sample { image: Image { width: self.width, height: self.height, channels: self.channels, pixels }, label })
    }

    fn label(&self, index: usize) -> Result<usize, DataError> {
        let label = self.labels.get(index).ok_or(DataError::OutOfRange { index, len: self.len() })?;
        Ok(usize::from(*label))
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn in_memory(&self) -> bool {
        true
    }
}

/// The places of at most `most` of `len` samples, evenly spaced.
pub fn evenly_spaced(len: usize, most: usize) -> impl Iterator<Item = usize> {
    (0..len).step_by(len.div_ceil(most.max(1)).max(1))
}

/// A part of another data set: its samples at some indices, in their order.
#[derive(Clone)]
pub struct Subset {
    whole: Arc<dyn Dataset>,
    indices: Vec<usize>,
}

impl Subset {
    /// The samples of `whole` at `indices`.
    pub fn new(whole: Arc<dyn Dataset>, indices: Vec<usize>) -> Self {
        Self { whole, indices }
    }

    fn index(&self, index: usize) -> Result<usize, DataError> {
        self.indices.get(index).copied().ok_or(DataError::OutOfRange { index, len: self.indices.len() })
    }
}

impl Dataset for Subset {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn get(&self, index: usize) -> Result<Sample, DataError> {
        self.whole.get(self.index(index)?)
    }

    fn get_for_training(&self, index: usize, shortest: Option<usize>) -> Result<Sample, DataError> {
        self.whole.get_for_training(self.index(index)?, shortest)
    }

    fn label(&self, index: usize) -> Result<usize, DataError> {
        self.whole.label(self.index(index)?)
    }

    fn classes(&self) -> &[String] {
        self.whole.classes()
    }

    fn file(&self, index: usize) -> Option<&Path> {
        self.whole.file(*self.indices.get(index)?)
    }

    fn in_memory(&self) -> bool {
        self.whole.in_memory()
    }
}

/// Several data sets of the same classes, one after another.
pub(crate) struct Joined(Vec<Arc<dyn Dataset>>);

impl Joined {
    /// One data set of all `parts`.
    pub fn of(mut parts: Vec<Arc<dyn Dataset>>) -> Arc<dyn Dataset> {
        if parts.len() == 1 { parts.remove(0) } else { Arc::new(Self(parts)) }
    }

    /// The part that holds the sample at `index`, and where in it.
    fn find(&self, mut index: usize) -> Result<(&dyn Dataset, usize), DataError> {
        let asked = index;
        for part in &self.0 {
            match index.checked_sub(part.len()) {
                Some(rest) => index = rest,
                None => return Ok((&**part, index)),
            }
        }
        Err(DataError::OutOfRange { index: asked, len: self.len() })
    }
}

impl Dataset for Joined {
    fn len(&self) -> usize {
        self.0.iter().map(|part| part.len()).sum()
    }

    fn get(&self, index: usize) -> Result<Sample, DataError> {
        let (part, index) = self.find(index)?;
        part.get(index)
    }

    fn get_for_training(&self, index: usize, shortest: Option<usize>) -> Result<Sample, DataError> {
        let (part, index) = self.find(index)?;
        part.get_for_training(index, shortest)
    }

    fn label(&self, index: usize) -> Result<usize, DataError> {
        let (part, index) = self.find(index)?;
        part.label(index)
    }

    fn classes(&self) -> &[String] {
        self.0.first().map_or(&[], |part| part.classes())
    }

    fn file(&self, index: usize) -> Option<&Path> {
        let (part, index) = self.find(index).ok()?;
        part.file(index)
    }

    fn in_memory(&self) -> bool {
        self.0.iter().all(|part| part.in_memory())
    }
}

/// Another data set whose classes have the labels of a longer, or otherwise ordered, list of classes.
pub struct Relabelled {
    whole: Arc<dyn Dataset>,
    classes: Vec<String>,
    labels: Vec<usize>,
}

impl Relabelled {
    /// `whole`, whose class n is the class `labels[n]` of `classes`; nothing where that is no class or there is not one
    /// for each of its own.
    pub fn new(whole: Arc<dyn Dataset>, classes: Vec<String>, labels: Vec<usize>) -> Option<Self> {
        let fits = labels.len() == whole.classes().len() && labels.iter().all(|&label| label < classes.len());
        fits.then_some(Self { whole, classes, labels })
    }
}

impl Dataset for Relabelled {
    fn len(&self) -> usize {
        self.whole.len()
    }

    fn get(&self, index: usize) -> Result<Sample, DataError> {
        let sample = self.whole.get(index)?;
        Ok(Sample { label: self.labels[sample.label], ..sample })
    }

    fn get_for_training(&self, index: usize, shortest: Option<usize>) -> Result<Sample, DataError> {
        let sample = self.whole.get_for_training(index, shortest)?;
        Ok(Sample { label: self.labels[sample.label], ..sample })
    }

    fn label(&self, index: usize) -> Result<usize, DataError> {
        Ok(self.labels[self.whole.label(index)?])
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn file(&self, index: usize) -> Option<&Path> {
        self.whole.file(index)
    }

    fn in_memory(&self) -> bool {
        self.whole.in_memory()
    }
}

/// Another data set whose samples are those for training.
pub struct ForTraining {
    whole: Arc<dyn Dataset>,
    shortest: Option<usize>,
}

impl ForTraining {
    /// What [`get_for_training`](Dataset::get_for_training) gives of `whole`, with this `shortest` side.
    pub fn new(whole: Arc<dyn Dataset>, shortest: Option<usize>) -> Self {
        Self { whole, shortest }
    }
}

impl Dataset for ForTraining {
    fn len(&self) -> usize {
        self.whole.len()
    }

    fn get(&self, index: usize) -> Result<Sample, DataError> {
        self.whole.get_for_training(index, self.shortest)
    }

    fn label(&self, index: usize) -> Result<usize, DataError> {
        self.whole.label(index)
    }

    fn classes(&self) -> &[String] {
        self.whole.classes()
    }

    fn file(&self, index: usize) -> Option<&Path> {
        self.whole.file(index)
    }

    fn in_memory(&self) -> bool {
        self.whole.in_memory()
    }
}

/// Another data set whose samples are kept in memory once they were read, as far as there is room for them.
pub struct Cached {
    whole: Arc<dyn Dataset>,
    resize: Option<Preprocess>,
    samples: Vec<OnceLock<Sample>>,
    /// How many more bytes of pixels may be kept.
    room: AtomicUsize,
}

impl Cached {
    /// `whole`, with at most `bytes` of its pixels kept in memory.
    pub fn new(whole: Arc<dyn Dataset>, bytes: usize) -> Self {
        let samples = std::iter::repeat_with(OnceLock::new).take(whole.len()).collect();
        Self { whole, resize: None, samples, room: AtomicUsize::new(bytes) }
    }

    /// The same, with samples resized as `preprocess` would, which then has less to do and the same result.
    pub fn resized(self, preprocess: Preprocess) -> Self {
        Self { resize: Some(preprocess), ..self }
    }
}

impl Dataset for Cached {
    fn len(&self) -> usize {
        self.whole.len()
    }

    fn get(&self, index: usize) -> Result<Sample, DataError> {
        let kept = self.samples.get(index).ok_or(DataError::OutOfRange { index, len: self.len() })?;
        if let Some(sample) = kept.get() {
            return Ok(sample.clone());
        }
        let mut sample = self.whole.get(index)?;
        if let Some(preprocess) = &self.resize {
            sample.image = preprocess.resized(&sample.image);
        }
        let bytes = sample.image.pixels.len();
        let take = |room: usize| room.checked_sub(bytes);
        let fits = self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok();
        if fits && kept.set(sample.clone()).is_err() {
            // Another thread kept it meanwhile.
            self.room.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(sample)
    }

    fn label(&self, index: usize) -> Result<usize, DataError> {
        self.whole.label(index)
    }

    fn classes(&self) -> &[String] {
        self.whole.classes()
    }

    fn file(&self, index: usize) -> Option<&Path> {
        self.whole.file(index)
    }

    fn in_memory(&self) -> bool {
        true
    }
}
