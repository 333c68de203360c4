//! A run's folder: claimed by one run, locked while it runs, and cleaned of what a kill has left half written.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::TrainError;

/// Where a run's folder is to be.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// This folder.
    At(PathBuf),
    /// A new one in `runs`, called `name`, or so with the first number that is free.
    New { runs: PathBuf, name: String },
}

/// A run's folder, which no other run can have while this value lives.
pub(crate) struct RunFolder {
    path: PathBuf,
    /// The system takes the lock back when the process ends, however it does.
    _lock: File,
}

/// Whose lock says that a run is running. It stays when the run has ended: a file that is removed could be locked by
/// two, each by another of the same name.
const LOCK: &str = "run.lock";

/// Whether it is the name of a temporary file, tempfile's and safetensors' alike.
fn is_temporary(name: &str) -> bool {
    let random = name.strip_prefix(".tmp");
    random.is_some_and(|random| random.len() == 6 && random.bytes().all(|letter| letter.is_ascii_alphanumeric()))
}

impl Place {
    /// Claims a folder without a run, and makes it where it is not there.
    pub fn claim(&self) -> Result<RunFolder, TrainError> {
        let path = match self {
            Self::At(path) => path.clone(),
            Self::New { runs, name } => create_new(runs, name)?,
        };
        std::fs::create_dir_all(&path).map_err(TrainError::io("create", &path))?;
        // Asked first, so that a refusal leaves nothing.
        refuse_occupied(&path)?;
        let was_a_run = path.join(LOCK).exists();
        let folder = RunFolder::lock(path)?;
        refuse_occupied(&folder.path)?;
        if was_a_run {
            // It was killed before there was anything to resume.
            folder.clean()?;
        }
        Ok(folder)
    }

    /// Refuses a folder that holds a run, before anything is computed.
    pub fn check(&self) -> Result<(), TrainError> {
        match self {
            Self::At(path) => refuse_occupied(path),
            Self::New { .. } => Ok(()),
        }
    }
}

fn refuse_occupied(path: &Path) -> Result<(), TrainError> {
    if path.join("run.json").exists() { Err(TrainError::Occupied(path.to_owned())) } else { Ok(()) }
}

/// Makes `runs/NAME`, or with the first number after it that is free. Making a folder fails where it is there, so that of
/// several runs that begin at once each gets its own.
fn create_new(runs: &Path, name: &str) -> Result<PathBuf, TrainError> {
    std::fs::create_dir_all(runs).map_err(TrainError::io("create", runs))?;
    let mut number = 1;
    loop {
        let path = runs.join(if number == 1 { name.to_owned() } else { format!("{name}-{number}") });
        match std::fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(TrainError::io("create", &path)(error)),
        }
    }
}

impl RunFolder {
    /// Claims the folder of a run that is to be resumed, and removes what a kill has left in it.
    pub fn reopen(path: &Path) -> Result<Self, TrainError> {
        // Tells that there is no run before a lock is made.
        std::fs::metadata(path.join("run.json")).map_err(TrainError::io("read", &path.join("run.json")))?;
        let folder = Self::lock(path.to_owned())?;
        folder.clean()?;
        Ok(folder)
    }

    fn lock(path: PathBuf) -> Result<Self, TrainError> {
        let file = path.join(LOCK);
        let lock = File::options().create(true).truncate(false).write(true).open(&file);
        let lock = lock.map_err(TrainError::io("write", &file))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(TrainError::Running(path)),
            // Some network file systems have none. A run there is as safe as it was without.
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => Ok(Self { path, _lock: lock }),
            Err(TryLockError::Error(error)) => Err(TrainError::io("lock", &file)(error)),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes temporary files of this folder that were never renamed.
    pub fn clean(&self) -> Result<(), TrainError> {
        let entries = std::fs::read_dir(&self.path).map_err(TrainError::io("read", &self.path))?;
        for entry in entries {
            let entry = entry.map_err(TrainError::io("read", &self.path))?;
            if entry.file_name().to_str().is_some_and(is_temporary) && entry.path().is_file() {
                std::fs::remove_file(entry.path()).map_err(TrainError::io("remove", &entry.path()))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn runs_that_begin_at_once_get_folders_of_their_own() {
        let runs = tempfile::tempdir().unwrap();
        let place = Place::New { runs: runs.path().join("runs"), name: "lenet5-digits".to_owned() };
        let claimed: Vec<RunFolder> = std::thread::scope(|scope| {
            let claims: Vec<_> = (0..10).map(|_| scope.spawn(|| place.claim().unwrap())).collect();
            claims.into_iter().map(|claim| claim.join().unwrap()).collect()
        });
        let paths: HashSet<_> = claimed.iter().map(|folder| folder.path().to_owned()).collect();
        assert_eq!(paths.len(), 10, "{paths:?}");
        assert!(paths.contains(&runs.path().join("runs/lenet5-digits-10")), "{paths:?}");
    }

    #[test]
    fn a_running_run_has_its_folder_alone() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::At(folder.path().to_owned());
        let running = place.claim().unwrap();
        assert!(matches!(place.claim(), Err(TrainError::Running(_))));
        std::fs::write(folder.path().join("run.json"), "{}").unwrap();
        assert!(matches!(RunFolder::reopen(folder.path()), Err(TrainError::Running(_))));
        drop(running);
        assert!(matches!(place.claim(), Err(TrainError::Occupied(_))));
        RunFolder::reopen(folder.path()).unwrap();
    }

    #[test]
    fn what_a_kill_left_half_written_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let names = || {
            let entries = std::fs::read_dir(folder.path()).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<HashSet<_>>()
        };
        for name in ["run.json", "best.safetensors", ".tmpAb3x9Z", ".tmp-notes", "notes.tmp.txt"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        RunFolder::reopen(folder.path()).unwrap();
        assert_eq!(
            names(),
            ["run.json", "best.safetensors", ".tmp-notes", "notes.tmp.txt", LOCK].map(str::to_owned).into()
        );
    }
}
