//! A folder of image files, a folder to each class.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use walkdir::WalkDir;

use crate::dataset::{Dataset, Sample, Splits};
use crate::decode::{EXTENSIONS, load_image};
use crate::error::DataError;
use crate::source::Source;
use crate::split::Split;

/// The images below `ROOT/CLASS/`, classes and files in the order of their names, decoded when they are asked for.
#[derive(Clone, Debug)]
pub struct ImageFolder {
    files: Vec<(PathBuf, usize)>,
    classes: Vec<String>,
}

impl ImageFolder {
    /// The images below the folders in `root`, each of which is a class.
    pub fn open(root: &Path) -> Result<Self, DataError> {
        let classes = folders(root)?;
        if classes.is_empty() {
            return Err(classes_error(root, "it has no folders, which would be the classes".to_owned()));
        }
        Self::with_classes(root, classes)
    }

    /// The images below the folders in `root`, each of which is one of `classes`; not all of those need be there.
    pub fn with_classes(root: &Path, classes: Vec<String>) -> Result<Self, DataError> {
        let mut files = Vec::new();
        for folder in folders(root)? {
            let label = classes.iter().position(|class| *class == folder).ok_or_else(|| {
                classes_error(root, format!("`{folder}` is not one of the classes {}", listed(&classes)))
            })?;
            let path = root.join(&folder);
            let before = files.len();
            for entry in WalkDir::new(&path).follow_links(true).sort_by_file_name() {
                let entry = entry.map_err(|error| {
                    let path = error.path().unwrap_or(&path).to_path_buf();
                    DataError::Io { doing: "search", path, source: error.into() }
                })?;
                if entry.file_type().is_file() && is_image(entry.path()) {
                    files.push((entry.into_path(), label));
                }
            }
            if files.len() == before {
                return Err(DataError::Empty { path });
            }
        }
        if files.is_empty() {
            return Err(DataError::Empty { path: root.to_path_buf() });
        }
        Ok(Self { files, classes })
    }

    /// The file of the image at `index`.
    pub fn path(&self, index: usize) -> Option<&Path> {
        self.file(index)
    }
}

impl Dataset for ImageFolder {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn get(&self, index: usize) -> Result<Sample, DataError> {
        let (path, label) = self.files.get(index).ok_or(DataError::OutOfRange { index, len: self.files.len() })?;
        Ok(Sample { image: load_image(path)?, label: *label })
    }

    fn label(&self, index: usize) -> Result<usize, DataError> {
        let file = self.files.get(index).ok_or(DataError::OutOfRange { index, len: self.files.len() })?;
        Ok(file.1)
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn file(&self, index: usize) -> Option<&Path> {
        self.files.get(index).map(|(path, _)| path.as_path())
    }
}

/// The user's folder: `train` and `test` or `val` in it, or else the classes, a fifth of each held out.
pub(crate) fn open(source: &Source) -> Result<Splits, DataError> {
    const NAME: &str = "folder";
    let layout = "DIR/train/CLASS/* and DIR/test/CLASS/* (or val), or DIR/CLASS/*";
    let root = source.data_dir.as_deref().ok_or(DataError::NoDataDir { name: NAME, layout })?;
    if let [Some(train), Some(test)] = parts(root) {
        return pair(NAME, &train, &test, None);
    }
    let whole = match parts(root) {
        [Some(train), None] => train,
        _ => root.to_path_buf(),
    };
    let images = ImageFolder::open(&whole)?;
    if let [class] = images.classes() {
        let problem = format!("its only class is `{class}`; is the data in {}?", whole.join(class).display());
        return Err(classes_error(&whole, problem));
    }
    let labels: Vec<usize> = images.files.iter().map(|(_, label)| *label).collect();
    let split = Split::stratified(&labels, source.split_seed.unwrap_or(0));
    Splits::of(NAME, images, split, &whole)
}

/// The folders of images for training and for testing in `root`.
pub(crate) fn parts(root: &Path) -> [Option<PathBuf>; 2] {
    let find = |names: &[&str]| names.iter().map(|name| root.join(name)).find(|path| path.is_dir());
    [find(&["train"]), find(&["test", "val"])]
}

/// Two folders of images with the same classes: the given ones, or those of the training folder.
pub(crate) fn pair(name: &str, train: &Path, test: &Path, classes: Option<Vec<String>>) -> Result<Splits, DataError> {
    let train = match classes {
        Some(classes) => ImageFolder::with_classes(train, classes)?,
        None => ImageFolder::open(train)?,
    };
    let test = ImageFolder::with_classes(test, train.classes.clone())?;
    Ok(Splits { name: name.to_owned(), train: Arc::new(train), test: Arc::new(test) })
}

/// The names of the folders in `root`, sorted, without those that systems hide in archives.
fn folders(root: &Path) -> Result<Vec<String>, DataError> {
    if !root.is_dir() {
        return Err(DataError::MissingFolder { path: root.to_path_buf() });
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(root).map_err(DataError::io("search", root))? {
        let entry = entry.map_err(DataError::io("search", root))?;
        let name = entry.file_name().into_string().map_err(|name| {
            classes_error(root, format!("the name `{}` is not valid Unicode", name.to_string_lossy()))
        })?;
        if entry.path().is_dir() && !name.starts_with('.') && name != "__MACOSX" {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn is_image(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
    !hidden && extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}

fn classes_error(folder: &Path, problem: String) -> DataError {
    DataError::Classes { folder: folder.to_path_buf(), problem }
}

/// The first few names of a list.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 10;
    let more = if names.len() > SHOWN { ", …" } else { "" };
    format!("{}{more}", names[..names.len().min(SHOWN)].join(", "))
}
