//! A folder of image files, a folder to each class.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use walkdir::WalkDir;

use crate::dataset::{Dataset, Sample};
use crate::decode::{EXTENSIONS, Orientation, load_for_training, load_image_oriented};
use crate::error::DataError;
use crate::part::{HoldOut, Parts};
use crate::shown::{escaped, shown};
use crate::source::Source;

/// The images below `ROOT/CLASS/`, classes and files in the order of their names, decoded when they are asked for.
#[derive(Clone, Debug)]
pub struct ImageFolder {
    files: Vec<(PathBuf, usize)>,
    classes: Vec<String>,
    orientation: Orientation,
}

impl ImageFolder {
    /// The images below the folders in `root`, each of which is a class.
    pub fn open(root: &Path) -> Result<Self, DataError> {
        Self::search(root, None, &Source::default())
    }

    /// The images below the folders in `root`, each of which is one of `classes`; not all of those need be there.
    pub fn with_classes(root: &Path, classes: Vec<String>) -> Result<Self, DataError> {
        Self::search(root, Some(classes), &Source::default())
    }

    /// The file at `index`, and its class.
    fn entry(&self, index: usize) -> Result<(&Path, usize), DataError> {
        let (path, label) = self.files.get(index).ok_or(DataError::OutOfRange { index, len: self.files.len() })?;
        if path.is_dir() {
            // Kept although it could not be searched: why not is what its reader is told.
            fs::read_dir(path).map_err(DataError::io("search", path))?;
        }
        Ok((path, *label))
    }

    /// The same images, with the orientation that cameras note applied or ignored.
    pub fn with_orientation(self, orientation: Orientation) -> Self {
        Self { orientation, ..self }
    }

    /// The images below the folders in `root`, whose names are the classes unless these are given.
    fn search(root: &Path, classes: Option<Vec<String>>, source: &Source) -> Result<Self, DataError> {
        let folders = folders(root)?;
        let classes = classes.unwrap_or_else(|| folders.iter().map(|(_, class)| class.clone()).collect());
        if classes.is_empty() {
            return Err(classes_error(root, "it has no folders, which would be the classes".to_owned()));
        }
        let mut files = Vec::new();
        for (folder, name) in folders {
            let label = classes.iter().position(|class| *class == name).ok_or_else(|| {
                let (name, classes) = (escaped(&name), listed(&classes));
                classes_error(root, format!("`{name}` is not one of the classes {classes}"))
            })?;
            let path = root.join(&folder);
            let found = images(&path, source.keep_unreadable)?;
            if found.is_empty() {
                return Err(DataError::Empty { path });
            }
            files.extend(found.into_iter().map(|file| (file, label)));
        }
        if files.is_empty() {
            return Err(DataError::Empty { path: root.to_path_buf() });
        }
        Ok(Self { files, classes, orientation: source.orientation })
    }

    /// The file of the image at `index`.
    pub fn path(&self, index: usize) -> Option<&Path> {
        self.file(index)
    }
}

/// The images below `folder` by name; what cannot be searched or followed is an error, or kept to fail when it is read.
fn images(folder: &Path, keep_unreadable: bool) -> Result<Vec<PathBuf>, DataError> {
    let mut files = Vec::new();
    for entry in WalkDir::new(folder).follow_links(true).sort_by_file_name() {
        match entry {
            Ok(entry) if entry.file_type().is_file() && is_image(entry.path()) => files.push(entry.into_path()),
            Ok(_) => {}
            Err(error) => {
                let path = error.path().unwrap_or(folder).to_path_buf();
                if !keep_unreadable {
                    return Err(DataError::Io { doing: "search", path, source: error.into() });
                }
                // A link to nowhere that is not named as an image would not have been one.
                if path.is_dir() || is_image(&path) {
                    files.push(path);
                }
            }
        }
    }
    Ok(files)
}

impl Dataset for ImageFolder {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn get(&self, index: usize) -> Result<Sample, DataError> {
        let (path, label) = self.entry(index)?;
        Ok(Sample { image: load_image_oriented(path, self.orientation)?, label })
    }

    fn get_for_training(&self, index: usize, shortest: Option<usize>) -> Result<Sample, DataError> {
        let (path, label) = self.entry(index)?;
        Ok(Sample { image: load_for_training(path, self.orientation, shortest)?, label })
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

/// The user's folder: `train`, `test` and `val` in it, as many as are there, or else the classes.
pub(crate) fn find(source: &Source) -> Result<Parts, DataError> {
    const NAME: &str = "folder";
    let layout = "DIR/train/CLASS/* and DIR/test/CLASS/* (or val), or DIR/CLASS/*";
    let root = source.data_dir.as_deref().ok_or(DataError::NoDataDir { name: NAME, layout })?;
    find_parts(NAME, root, None, source)?.map_or_else(
        || {
            let train: Arc<dyn Dataset> = Arc::new(ImageFolder::search(root, None, source)?);
            let (path, seed) = (root.to_path_buf(), source.split_seed);
            let hold_out = HoldOut::OfEachClass;
            Ok(Parts { name: NAME, path, train: Some(train), val: None, test: None, hold_out, seed })
        },
        Ok,
    )
}

/// The folders `train`, `val` and `test` of images in `root`, if any is there, with the same classes: the given ones,
/// else those of the training folder, else all that the others have.
pub(crate) fn find_parts(
    name: &'static str,
    root: &Path,
    classes: Option<Vec<String>>,
    source: &Source,
) -> Result<Option<Parts>, DataError> {
    let places = ["train", "val", "test"].map(|part| Some(root.join(part)).filter(|path| path.is_dir()));
    let Some(first) = places.iter().flatten().next() else { return Ok(None) };
    // Beside other classes, one may well be called `test`.
    if classes.is_none() && places[0].is_none() && folders(root)?.len() > places.iter().flatten().count() {
        return Ok(None);
    }
    let classes = match (classes, &places[0]) {
        (Some(classes), _) => classes,
        (None, Some(train)) => folders(train)?.into_iter().map(|(_, class)| class).collect(),
        (None, None) => {
            let found = places.iter().flatten().map(|place| folders(place)).collect::<Result<Vec<_>, _>>()?;
            let all: BTreeSet<_> = found.into_iter().flatten().map(|(_, class)| class).collect();
            all.into_iter().collect()
        }
    };
    // A training folder alone is split, and errors tell of it.
    let path = if places.iter().flatten().count() == 1 { first.clone() } else { root.to_path_buf() };
    let open = |place: Option<PathBuf>| -> Result<Option<Arc<dyn Dataset>>, DataError> {
        let open = |path: PathBuf| ImageFolder::search(&path, Some(classes.clone()), source);
        Ok(place.map(open).transpose()?.map(|images| Arc::new(images) as _))
    };
    let [train, val, test] = places.map(open);
    let (hold_out, seed) = (HoldOut::OfEachClass, source.split_seed);
    Ok(Some(Parts { name, path, train: train?, val: val?, test: test?, hold_out, seed }))
}

/// The folders in `root` and their names as classes, sorted, without those that systems hide in archives.
fn folders(root: &Path) -> Result<Vec<(OsString, String)>, DataError> {
    if !root.is_dir() {
        return Err(DataError::MissingFolder { path: root.to_path_buf() });
    }
    let mut folders = Vec::new();
    for entry in fs::read_dir(root).map_err(DataError::io("search", root))? {
        let entry = entry.map_err(DataError::io("search", root))?;
        let (folder, name) = (entry.file_name(), shown(Path::new(&entry.file_name())));
        if entry.path().is_dir() && !name.starts_with('.') && name != "__MACOSX" {
            folders.push((folder, name));
        }
    }
    folders.sort_unstable_by(|(_, a), (_, b)| a.cmp(b));
    match folders.windows(2).find(|pair| pair[0].1 == pair[1].1) {
        Some(pair) => Err(DataError::SameName { folder: root.to_path_buf(), name: pair[0].1.clone() }),
        None => Ok(folders),
    }
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
    let names: Vec<_> = names[..names.len().min(SHOWN)].iter().map(|name| escaped(name)).collect();
    format!("{}{more}", names.join(", "))
}
