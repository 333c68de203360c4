//! Files that are whole or not there.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A folder beside a file that is written, in which it and what the formats' libraries put beside it lie until it is
/// whole. It goes when the write fails, and the next write to the same file removes those of processes that were
/// killed: a lock in it tells whether its process lives.
pub(crate) struct Scratch {
    folder: TempDir,
    /// Where to write the file.
    pub file: PathBuf,
    target: PathBuf,
    _lock: File,
}

const LOCK: &str = "lock";

impl Scratch {
    pub fn beside(target: &Path) -> io::Result<Self> {
        let name =
            target.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it is no file name"))?;
        let mut prefix = name.to_owned();
        prefix.push(".");
        let around = folder_of(target);
        sweep(around, &prefix)?;
        let folder = tempfile::Builder::new().prefix(&prefix).suffix(".tmp").tempdir_in(around)?;
        // Locked before it has its name, so that nobody finds it unlocked.
        let lock = File::create(folder.path().join("locking"))?;
        // Where locks are unknown, as on some network file systems, nobody can sweep either.
        let _ = lock.try_lock();
        fs::rename(folder.path().join("locking"), folder.path().join(LOCK))?;
        Ok(Self { file: folder.path().join(name), target: target.to_owned(), _lock: lock, folder })
    }

    /// Gives the file its name, with the permissions of what it replaces, else those of this user's new files.
    pub fn publish(self) -> io::Result<()> {
        match fs::metadata(&self.target) {
            Ok(replaced) if replaced.is_file() => fs::set_permissions(&self.file, replaced.permissions())?,
            _ => open_to_others(&self.file)?,
        }
        // The writers have synced its bytes.
        fs::rename(&self.file, &self.target)?;
        #[cfg(unix)]
        File::open(folder_of(&self.target))?.sync_all()?;
        self.folder.close()
    }
}

/// Removes the scratch folders of processes that are gone.
fn sweep(folder: &Path, prefix: &OsStr) -> io::Result<()> {
    for entry in fs::read_dir(folder)?.filter_map(Result::ok) {
        let name = entry.file_name();
        let ours = name.as_encoded_bytes().starts_with(prefix.as_encoded_bytes())
            && name.as_encoded_bytes().ends_with(b".tmp");
        let lock = if ours { File::open(entry.path().join(LOCK)).ok() } else { None };
        if lock.is_some_and(|lock| lock.try_lock().is_ok()) {
            // Another process may be removing it, too.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Gives a file the permissions that new files of this user have: safetensors makes its own for the owner alone.
pub fn open_to_others(path: &Path) -> io::Result<()> {
    #[cfg(not(unix))]
    let _ = path;
    #[cfg(unix)]
    {
        let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        let sample = tempfile::Builder::new().permissions(everyone).tempfile_in(folder_of(path))?;
        std::fs::set_permissions(path, sample.as_file().metadata()?.permissions())?;
    }
    Ok(())
}
