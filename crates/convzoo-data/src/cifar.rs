//! CIFAR-10 and CIFAR-100 (A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009): binary
//! batches, the archive of them that is published, or folders of images.

use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use crate::dataset::InMemory;
use crate::download::{self, Remote};
use crate::error::DataError;
use crate::part::Parts;
use crate::source::Source;
use crate::{file, folder};

const SIDE: usize = 32;
const CHANNELS: usize = 3;

/// More than the longest file of batches, and than all that is in an archive.
const MOST_BATCH_BYTES: u64 = 1 << 28;
const MOST_ARCHIVE_BYTES: u64 = 1 << 30;

/// One of the two data sets.
pub(crate) struct Cifar {
    name: &'static str,
    classes: &'static [&'static str],
    /// The files of batches for training, then for testing.
    files: [&'static [&'static str]; 2],
    /// The folder in the archive that holds them.
    folder: &'static str,
    /// How many labels precede an image; the last is the class.
    labels: usize,
    archive: &'static str,
    bytes: u64,
    sha256: &'static str,
}

const SERVER: &str = "https://www.cs.toronto.edu/~kriz";

pub(crate) const CIFAR10: Cifar = Cifar {
    name: "cifar10",
    classes: &["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    files: [
        &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"],
        &["test_batch.bin"],
    ],
    folder: "cifar-10-batches-bin",
    labels: 1,
    archive: "cifar-10-binary.tar.gz",
    bytes: 170_052_171,
    sha256: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
};

#[rustfmt::skip]
pub(crate) const CIFAR100: Cifar = Cifar {
    name: "cifar100",
    classes: &[
        "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle",
        "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle",
        "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur",
        "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard",
        "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain",
        "mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
        "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket",
        "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider",
        "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor",
        "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
    ],
    files: [&["train.bin"], &["test.bin"]],
    folder: "cifar-100-binary",
    labels: 2,
    archive: "cifar-100-binary.tar.gz",
    bytes: 168_513_733,
    sha256: "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
};

/// The files of batches that were found, by name.
type Found = Vec<(&'static str, Vec<u8>)>;

impl Cifar {
    /// The data set from the user's folder, else from the cache, which the archive is downloaded to.
    pub(crate) fn find(&self, source: &Source) -> Result<Parts, DataError> {
        let Some(root) = &source.data_dir else {
            let archive = self.cached(source)?;
            return self.parts(&archive, self.unpack(&archive)?, source.split_seed);
        };
        if !root.is_dir() {
            return Err(DataError::MissingFolder { path: root.clone() });
        }
        for folder in [root.clone(), root.join(self.folder)] {
            let found = self.read(&folder)?;
            if !found.is_empty() {
                return self.parts(&folder, found, source.split_seed);
            }
        }
        let archive = root.join(self.archive);
        if archive.is_file() {
            return self.parts(&archive, self.unpack(&archive)?, source.split_seed);
        }
        if let Some(parts) = folder::find_parts(self.name, root, Some(self.class_names()), source)? {
            return Ok(parts);
        }
        Err(self.missing(root, &format!(" or {} or folders of images train/CLASS and test/CLASS", self.archive)))
    }

    /// The archive in the cache, downloaded if need be.
    fn cached(&self, source: &Source) -> Result<PathBuf, DataError> {
        let folder = source.cache_dir()?.join(self.name);
        let servers = source.servers(self.name, &[SERVER]);
        let urls: Vec<String> = servers.iter().map(|server| format!("{server}/{}", self.archive)).collect();
        if source.offline && !folder.join(self.archive).is_file() {
            return Err(DataError::Offline { name: self.name.to_owned(), folder, urls });
        }
        let (file, sha256) = (self.archive.to_owned(), self.sha256.to_owned());
        download::fetch(&Remote { file, urls, sha256, bytes: Some(self.bytes) }, &folder, source.progress)
    }

    /// The files of batches in `folder`.
    fn read(&self, folder: &Path) -> Result<Found, DataError> {
        let mut found = Vec::new();
        for name in self.files.concat() {
            let path = folder.join(name);
            if path.is_file() {
                found.push((name, file::read(&path, MOST_BATCH_BYTES)?));
            }
        }
        Ok(found)
    }

    /// The files of batches in an archive, which is read from beginning to end and never written out.
    fn unpack(&self, path: &Path) -> Result<Found, DataError> {
        let (file, _) = file::open(path)?;
        let corrupt = |source| DataError::Gzip { path: path.to_path_buf(), source };
        let contents = MultiGzDecoder::new(BufReader::new(file)).take(MOST_ARCHIVE_BYTES);
        let mut archive = tar::Archive::new(contents);
        let mut found = Vec::new();
        for entry in archive.entries().map_err(corrupt)? {
            let entry = entry.map_err(corrupt)?;
            let name = entry.path().ok().and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
            let wanted = self.files.concat().into_iter().find(|&wanted| Some(wanted) == name.as_deref());
            if let Some(name) = wanted.filter(|name| found.iter().all(|(other, _)| other != name)) {
                let mut bytes = Vec::new();
                entry.take(MOST_BATCH_BYTES).read_to_end(&mut bytes).map_err(corrupt)?;
                found.push((name, bytes));
            }
        }
        // The archive's own end comes before the checksum of the compression.
        io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(corrupt)?;
        Ok(found)
    }

    /// Both parts from the files found in `path`.
    fn parts(&self, path: &Path, found: Found, seed: Option<u64>) -> Result<Parts, DataError> {
        let mut parts = [None, None];
        for (part, names) in parts.iter_mut().zip(self.files) {
            let batches: Vec<&(&str, Vec<u8>)> = found.iter().filter(|(name, _)| names.contains(name)).collect();
            if batches.len() == names.len() {
                *part = Some(self.parse(path, &batches)?);
            } else if !batches.is_empty() {
                // A part without some of its batches is a mistake to tell.
                return Err(self.missing(path, ""));
            }
        }
        let [train, test] = parts;
        if train.is_none() && test.is_none() {
            return Err(self.missing(path, ""));
        }
        Ok(Parts::of(self.name, path.to_path_buf(), train, test, seed))
    }

    /// The images in some files of batches: each is its labels, then its red, its green and its blue plane.
    fn parse(&self, path: &Path, batches: &[&(&str, Vec<u8>)]) -> Result<InMemory, DataError> {
        let plane = SIDE * SIDE;
        let record = self.labels + CHANNELS * plane;
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for (name, bytes) in batches {
            let path = path.join(name);
            if bytes.is_empty() {
                return Err(DataError::Empty { path });
            }
            if bytes.len() % record != 0 {
                let problem = format!("its {} bytes are not a whole number of images of {record}", bytes.len());
                return Err(DataError::malformed(&path, problem));
            }
            for (index, record) in bytes.chunks_exact(record).enumerate() {
                let (before, planes) = record.split_at(self.labels);
                let label = before[self.labels - 1];
                if usize::from(label) >= self.classes.len() {
                    let (label, classes) = (usize::from(label), self.classes.len());
                    return Err(DataError::LabelOutOfRange { path, index, label, classes });
                }
                labels.push(label);
                pixels.extend((0..plane).flat_map(|at| [planes[at], planes[plane + at], planes[2 * plane + at]]));
            }
        }
        InMemory::new((SIDE, SIDE, CHANNELS), pixels, labels, self.class_names())
            .ok_or_else(|| DataError::malformed(path, "its labels do not match its images"))
    }

    fn class_names(&self) -> Vec<String> {
        self.classes.iter().map(|&class| class.to_owned()).collect()
    }

    fn missing(&self, folder: &Path, alternatives: &str) -> DataError {
        let names = self.files.map(|names| names.join(", ")).join(" and ");
        DataError::MissingFiles { folder: folder.to_path_buf(), looked_for: vec![format!("{names}{alternatives}")] }
    }
}
