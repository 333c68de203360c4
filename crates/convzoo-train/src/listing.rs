//! What a run is trained on, written down when it begins, so that a resumed run can say what is another now.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use convzoo_data::{Dataset, Splits};
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::history::{RunRecord, write_whole};

/// The classes, and the images' files where they come from files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Listing {
    classes: Vec<String>,
    train: Part,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    val: Option<Part>,
    test: Part,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Part {
    images: usize,
    /// Relative to the folder of all, with `/` between their parts; none for images that are not files of their own.
    files: Vec<String>,
}

/// Beside `run.json`.
const FILE: &str = "data.json";

/// Files that a message names.
const NAMED: usize = 5;

impl Listing {
    pub fn of(data: &Splits) -> Self {
        let of_all = [Some(&data.train), Some(&data.test), data.val.as_ref()];
        let of_all = of_all.map(|data| data.map(|data| files(&**data)).unwrap_or_default());
        let root = common(of_all.iter().flatten());
        let part = |data: &dyn Dataset, files: &[PathBuf]| Part {
            images: data.len(),
            files: files.iter().map(|file| relative(file, &root)).collect(),
        };
        let [train, test, val] = &of_all;
        Self {
            classes: data.classes().to_vec(),
            train: part(&*data.train, train),
            val: data.val.as_ref().map(|data| part(&**data, val)),
            test: part(&*data.test, test),
        }
    }

    pub fn write(&self, folder: &Path) -> Result<(), TrainError> {
        let json = serde_json::to_vec(self).expect("names and numbers are JSON");
        write_whole(&folder.join(FILE), &json)
    }

    /// Refuses data that is not what the run in `folder` began with, and says what is another.
    pub fn check(&self, folder: &Path, record: &RunRecord) -> Result<(), TrainError> {
        let path = folder.join(FILE);
        let changes = match std::fs::read(&path) {
            Ok(json) => match serde_json::from_slice::<Self>(&json) {
                Ok(before) => self.changes(&before),
                Err(error) => vec![format!("{} is damaged ({error})", path.display())],
            },
            // Earlier versions have written down how many there are.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => self.counts(record),
            Err(error) => return Err(TrainError::io("read", &path)(error)),
        };
        match changes.is_empty() {
            true => Ok(()),
            false => Err(TrainError::Changed { path: folder.to_owned(), changes: changes.join("; ") }),
        }
    }

    fn counts(&self, record: &RunRecord) -> Vec<String> {
        let parts = [("train", record.train_images, self.train.images), ("test", record.test_images, self.test.images)];
        let differing = parts.into_iter().filter(|(_, before, now)| before != now);
        differing
            .map(|(what, before, now)| format!("it had {before} images to {what} on, and there are {now}"))
            .collect()
    }

    fn changes(&self, before: &Self) -> Vec<String> {
        let classes = self.classes_changed(before);
        if !classes.is_empty() {
            // Each image of such a class would be told again.
            return classes;
        }
        let all = |listing: &Self| -> BTreeSet<String> { listing.files().cloned().collect() };
        let (old, new) = (all(before), all(self));
        let mut changes = Vec::new();
        for (verb, files) in [("added", new.difference(&old)), ("removed", old.difference(&new))] {
            let files: Vec<_> = files.cloned().collect();
            if !files.is_empty() {
                let images = if files.len() == 1 { "image was" } else { "images were" };
                changes.push(format!("{} {images} {verb}: {}", files.len(), listed(&files)));
            }
        }
        if changes.is_empty() && *self != *before {
            changes.push(match [&self.train, &self.test].map(|part| part.images) {
                now if now == [&before.train, &before.test].map(|part| part.images) => {
                    "other images than before are for training, for validation and for testing".to_owned()
                }
                [train, test] => format!(
                    "{} images to train on and {} to test on became {train} and {test}",
                    before.train.images, before.test.images
                ),
            });
        }
        changes
    }

    /// Classes that are new, gone, renamed or in another order.
    fn classes_changed(&self, before: &Self) -> Vec<String> {
        let missing = |of: &Self, from: &Self| -> Vec<String> {
            of.classes.iter().filter(|class| !from.classes.contains(class)).cloned().collect()
        };
        let (mut gone, mut new) = (missing(before, self), missing(self, before));
        let mut changes = Vec::new();
        gone.retain(|class| {
            let Some(at) = new.iter().position(|other| before.files_of(class) == self.files_of(other)) else {
                return true;
            };
            changes.push(format!("the class '{class}' is called '{}'", new.remove(at)));
            false
        });
        changes.extend(new.iter().map(|class| format!("the class '{class}' was added")));
        changes.extend(gone.iter().map(|class| format!("the class '{class}' was removed")));
        if changes.is_empty() && self.classes != before.classes {
            changes.push("the classes are in another order".to_owned());
        }
        changes
    }

    fn files(&self) -> impl Iterator<Item = &String> {
        let val = self.val.iter().flat_map(|val| &val.files);
        self.train.files.iter().chain(val).chain(&self.test.files)
    }

    /// The files of a class without the class's own name, to find it again under another.
    fn files_of(&self, class: &str) -> BTreeSet<String> {
        let within = self.files().filter(|file| file.split('/').any(|part| part == class));
        within.map(|file| file.split('/').filter(|part| *part != class).collect::<Vec<_>>().join("/")).collect()
    }
}

fn files(data: &dyn Dataset) -> Vec<PathBuf> {
    (0..data.len()).map_while(|index| data.file(index)).map(Path::to_owned).collect()
}

/// The folder that holds all of `files`.
fn common<'a>(mut files: impl Iterator<Item = &'a PathBuf>) -> PathBuf {
    let folder = |file: &PathBuf| file.parent().unwrap_or(Path::new("")).to_owned();
    let first = files.next().map(folder).unwrap_or_default();
    files.fold(first, |root, file| {
        let same = root.components().zip(file.components()).take_while(|(a, b)| a == b);
        same.map(|(part, _)| part).collect()
    })
}

fn relative(file: &Path, root: &Path) -> String {
    let parts = file.strip_prefix(root).unwrap_or(file).components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    });
    parts.collect::<Vec<_>>().join("/")
}

/// The first few files.
fn listed(files: &[String]) -> String {
    let more = if files.len() > NAMED { ", …" } else { "" };
    format!("{}{more}", files[..files.len().min(NAMED)].join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(train: &[&str], test: &[&str]) -> Listing {
        let part =
            |files: &[&str]| Part { images: files.len(), files: files.iter().map(|&file| file.to_owned()).collect() };
        let classes: BTreeSet<_> = train.iter().filter_map(|file| Some(file.split_once('/')?.0.to_owned())).collect();
        Listing { classes: classes.into_iter().collect(), train: part(train), val: None, test: part(test) }
    }

    #[test]
    fn changes_are_told_by_name() {
        let before = listing(&["a/1.png", "a/2.png", "b/1.png", "b/3.png"], &["a/4.png", "b/4.png"]);
        let cases: [(&[&str], &[&str], &str); 5] = [
            (
                &["a/1.png", "a/2.png", "b/1.png", "b/3.png", "b/9.png"],
                &["a/4.png", "b/4.png"],
                "1 image was added: b/9.png",
            ),
            (&["a/1.png", "b/1.png", "b/3.png"], &["a/4.png", "b/4.png"], "1 image was removed: a/2.png"),
            (&["a/1.png", "a/2.png", "c/1.png", "c/3.png"], &["a/4.png", "c/4.png"], "the class 'b' is called 'c'"),
            (
                &["a/1.png", "a/2.png", "b/1.png", "b/3.png", "c/7.png"],
                &["a/4.png", "b/4.png"],
                "the class 'c' was added",
            ),
            (&["a/4.png", "a/2.png", "b/1.png", "b/3.png"], &["a/1.png", "b/4.png"], "other images than before"),
        ];
        for (train, test, expected) in cases {
            let changes = listing(train, test).changes(&before);
            assert!(changes.len() == 1 && changes[0].contains(expected), "{changes:?} rather than {expected}");
        }
        assert!(before.changes(&before.clone()).is_empty());
    }

    #[test]
    fn files_are_told_from_the_folder_that_holds_all() {
        let files = ["/data/set/a/1.png", "/data/set/b/2/3.png"].map(PathBuf::from);
        let root = common(files.iter());
        assert_eq!(root, Path::new("/data/set"));
        assert_eq!(relative(&files[1], &root), "b/2/3.png");
    }
}
