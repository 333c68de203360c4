//! MNIST and the sets made in its image: four IDX files, two for training and two for testing.

use std::path::{Path, PathBuf};

use crate::dataset::InMemory;
use crate::download::{self, Remote};
use crate::error::DataError;
use crate::idx;
use crate::part::Parts;
use crate::source::Source;

/// A data set in MNIST's format.
pub(crate) struct Mnist {
    name: &'static str,
    /// Where torchvision keeps it, below the folder it is given.
    torchvision: &'static str,
    classes: [&'static str; 10],
    servers: &'static [&'static str],
    /// Images and labels for training, then for testing.
    files: [[File; 2]; 2],
}

/// One published file, gzipped.
struct File {
    name: &'static str,
    bytes: u64,
    sha256: &'static str,
}

/// Handwritten digits: Y. LeCun, C. Cortes, C. Burges, <http://yann.lecun.com/exdb/mnist/>.
pub(crate) const MNIST: Mnist = Mnist {
    name: "mnist",
    torchvision: "MNIST/raw",
    classes: ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
    servers: &["https://ossci-datasets.s3.amazonaws.com/mnist", "https://storage.googleapis.com/cvdf-datasets/mnist"],
    files: [
        [
            File {
                name: "train-images-idx3-ubyte",
                bytes: 9_912_422,
                sha256: "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            },
            File {
                name: "train-labels-idx1-ubyte",
                bytes: 28_881,
                sha256: "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            },
        ],
        [
            File {
                name: "t10k-images-idx3-ubyte",
                bytes: 1_648_877,
                sha256: "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            },
            File {
                name: "t10k-labels-idx1-ubyte",
                bytes: 4_542,
                sha256: "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            },
        ],
    ],
};

/// Pieces of clothing: H. Xiao, K. Rasul, R. Vollgraf, arXiv:1708.07747.
pub(crate) const FASHION_MNIST: Mnist = Mnist {
    name: "fashion-mnist",
    torchvision: "FashionMNIST/raw",
    classes: ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"],
    servers: &["http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"],
    files: [
        [
            File {
                name: "train-images-idx3-ubyte",
                bytes: 26_421_880,
                sha256: "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            },
            File {
                name: "train-labels-idx1-ubyte",
                bytes: 29_515,
                sha256: "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            },
        ],
        [
            File {
                name: "t10k-images-idx3-ubyte",
                bytes: 4_422_102,
                sha256: "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            },
            File {
                name: "t10k-labels-idx1-ubyte",
                bytes: 5_148,
                sha256: "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            },
        ],
    ],
};

/// For training and for testing, the files of images and of labels.
type Files = [Option<[PathBuf; 2]>; 2];

impl Mnist {
    /// The data set from the user's folder, else from the cache, where what is missing is downloaded to.
    pub(crate) fn find(&self, source: &Source) -> Result<Parts, DataError> {
        let (folder, found) = match &source.data_dir {
            Some(folder) => (folder.clone(), self.find_in(folder)?),
            None => self.cached(source)?,
        };
        let mut parts = [None, None];
        for (part, paths) in parts.iter_mut().zip(&found) {
            *part = paths.as_ref().map(|paths| self.read(paths)).transpose()?;
        }
        let [train, test] = parts;
        if train.is_none() && test.is_none() {
            return Err(DataError::MissingFiles {
                looked_for: self.files.as_flattened().iter().map(|file| spellings(file.name).join(" or ")).collect(),
                folder,
            });
        }
        Ok(Parts::of(self.name, folder, train, test, source.split_seed))
    }

    /// For training and for testing the files of images and labels, where both are there.
    fn find_in(&self, folder: &Path) -> Result<Files, DataError> {
        if !folder.is_dir() {
            return Err(DataError::MissingFolder { path: folder.to_path_buf() });
        }
        let folders = [folder.to_path_buf(), folder.join("raw"), folder.join(self.torchvision)];
        let mut parts = [None, None];
        for (part, files) in parts.iter_mut().zip(&self.files) {
            let paths = [0, 1].map(|i| find_file(&folders, files[i].name));
            *part = match paths {
                [Some(images), Some(labels)] => Some([images, labels]),
                [None, None] => None,
                // Half a part is a mistake to tell, not a part to leave out.
                [images, _] => {
                    let missing = &files[usize::from(images.is_some())];
                    return Err(DataError::MissingFiles {
                        folder: folder.to_path_buf(),
                        looked_for: vec![spellings(missing.name).join(" or ")],
                    });
                }
            };
        }
        Ok(parts)
    }

    /// The same in the cache, completed by downloads.
    fn cached(&self, source: &Source) -> Result<(PathBuf, Files), DataError> {
        let folder = source.cache_dir()?.join(self.name);
        let missing: Vec<&File> = (self.files.as_flattened().iter())
            .filter(|file| find_file(std::slice::from_ref(&folder), file.name).is_none())
            .collect();
        let servers = source.servers(self.name, self.servers);
        let urls = |file: &File| servers.iter().map(|server| format!("{server}/{}.gz", file.name)).collect::<Vec<_>>();
        if source.offline && !missing.is_empty() {
            let urls = missing.iter().filter_map(|file| urls(file).into_iter().next()).collect();
            return Err(DataError::Offline { name: self.name.to_owned(), folder, urls });
        }
        for file in missing {
            let remote = Remote {
                file: format!("{}.gz", file.name),
                urls: urls(file),
                sha256: file.sha256.to_owned(),
                bytes: Some(file.bytes),
            };
            download::fetch(&remote, &folder, source.progress)?;
        }
        let found = self.find_in(&folder)?;
        Ok((folder, found))
    }

    /// One part from its files of images and labels.
    fn read(&self, [images_path, labels_path]: &[PathBuf; 2]) -> Result<InMemory, DataError> {
        let images = idx::read(images_path, 3)?;
        let labels = idx::read(labels_path, 1)?.data;
        if images.dims[0] != labels.len() {
            return Err(DataError::CountMismatch {
                images: images_path.clone(),
                image_count: images.dims[0],
                labels: labels_path.clone(),
                label_count: labels.len(),
            });
        }
        if let Some(index) = labels.iter().position(|&label| usize::from(label) >= self.classes.len()) {
            return Err(DataError::LabelOutOfRange {
                path: labels_path.clone(),
                index,
                label: usize::from(labels[index]),
                classes: self.classes.len(),
            });
        }
        let size = (images.dims[2], images.dims[1], 1);
        let classes = self.classes.iter().map(|&class| class.to_owned()).collect();
        InMemory::new(size, images.data, labels, classes)
            .ok_or_else(|| DataError::malformed(images_path, "its images do not fill it"))
    }
}

/// The names that a file goes by: MNIST's own and the one some archives give it, each gzipped or not.
fn spellings(name: &str) -> [String; 4] {
    let dotted = name.replacen("-idx", ".idx", 1);
    [name.to_owned(), format!("{name}.gz"), dotted.clone(), format!("{dotted}.gz")]
}

fn find_file(folders: &[PathBuf], name: &str) -> Option<PathBuf> {
    let spellings = spellings(name);
    folders.iter().flat_map(|folder| spellings.iter().map(|name| folder.join(name))).find(|path| path.is_file())
}
