//! Downloads that survive interruption: written to a temporary name, continued where they stopped, checked against
//! the published checksum, and only then given their name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};
use ureq::Agent;
use ureq::http::StatusCode;
use ureq::http::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};

use crate::error::DataError;
pub use crate::remote::Remote;

/// A file of unknown length is not followed beyond this many bytes.
const MOST_BYTES: u64 = 16 << 30;

/// A server that says nothing for this long is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why one address did not give the file.
enum Failure {
    /// The disk's fault: no other address will do better.
    Local(DataError),
    /// The server's or the network's.
    Remote(String),
    /// What had been downloaded earlier does not go together with what the server has.
    Stale(String),
}

/// Downloads `remote` into `folder`, unless it is there, and returns its path. Other processes that want the same file
/// wait and share it. What an interrupted download leaves ends in `.part` and is continued by the next; where the file
/// cannot be written, nothing is left.
pub fn fetch(remote: &Remote, folder: &Path, progress: bool) -> Result<PathBuf, DataError> {
    let target = folder.join(&remote.file);
    if target.is_file() {
        return Ok(target);
    }
    fs::create_dir_all(folder).map_err(DataError::io("create", folder))?;
    let part = folder.join(format!("{}.part", remote.file));
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&part)
        .map_err(DataError::io("create", &part))?;
    match file.lock() {
        // Some network file systems know no locks; there the checksum alone has to do.
        Err(error) if error.kind() != io::ErrorKind::Unsupported => {
            return Err(DataError::io("lock", &part)(error));
        }
        _ => {}
    }
    if target.is_file() {
        // Another process finished while this one waited; what is left under the temporary name is empty.
        let _ = fs::remove_file(&part);
        return Ok(target);
    }

    let mut download = Download { remote, part: &part, file: &mut file, bar: bar(&remote.file, progress) };
    let mut attempts = Vec::new();
    for url in &remote.urls {
        let result = match download.run(url) {
            Err(Failure::Stale(_)) => download.restart().and_then(|()| download.run(url)),
            result => result,
        };
        match result {
            Ok(()) => {
                download.bar.finish_and_clear();
                let renamed = fs::rename(&part, &target).map_err(DataError::io("create", &target));
                if renamed.is_err() {
                    let _ = fs::remove_file(&part);
                }
                return renamed.map(|()| target);
            }
            Err(Failure::Local(error)) => {
                // A full disk is not helped by half a file; what another server had sent can be had again.
                let _ = fs::remove_file(&part);
                return Err(error);
            }
            Err(Failure::Remote(reason) | Failure::Stale(reason)) => attempts.push((url.clone(), reason)),
        }
    }
    download.bar.finish_and_clear();
    if file.metadata().is_ok_and(|metadata| metadata.len() == 0) {
        // Nothing to continue from; that it is gone already is no failure either.
        let _ = fs::remove_file(&part);
    }
    Err(DataError::Download { target, attempts })
}

struct Download<'a> {
    remote: &'a Remote,
    part: &'a Path,
    file: &'a mut File,
    bar: ProgressBar,
}

impl Download<'_> {
    /// Completes the file from `url` and checks it.
    fn run(&mut self, url: &str) -> Result<(), Failure> {
        let have = self.local(|file| file.seek(SeekFrom::End(0)))?;
        if have == 0 || Some(have) != self.remote.bytes {
            self.receive(url, have)?;
        }
        self.check(have > 0)
    }

    /// Appends what `url` has beyond the first `have` bytes.
    fn receive(&mut self, url: &str, mut have: u64) -> Result<(), Failure> {
        let mut request = agent().get(url);
        if have > 0 {
            request = request.header(RANGE, format!("bytes={have}-"));
        }
        let mut response = request.call().map_err(|error| Failure::Remote(error.to_string()))?;
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        match response.status() {
            StatusCode::OK if have > 0 => {
                self.restart()?;
                have = 0;
            }
            StatusCode::OK => {}
            StatusCode::PARTIAL_CONTENT
                if have > 0 && header(CONTENT_RANGE).is_some_and(|r| r.starts_with(&format!("bytes {have}-"))) => {}
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => {
                return Err(Failure::Stale(format!("it cannot continue after {have} bytes")));
            }
            status => return Err(Failure::Remote(format!("the server returned {status}"))),
        }

        let announced = header(CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok()).map(|rest| have + rest);
        let most = self.remote.bytes.or(announced).unwrap_or(MOST_BYTES);
        if let Some(length) = self.remote.bytes.or(announced) {
            self.bar.set_length(length);
        }
        self.bar.set_position(have);
        self.bar.reset_eta();

        let mut body = response.body_mut().as_reader();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::Remote(format!("{error} after {have} bytes"))),
            };
            have += count as u64;
            if have > most {
                return self.reject(format!("it is longer than {most} bytes"));
            }
            self.local(|file| file.write_all(&buffer[..count]))?;
            self.bar.set_position(have);
        }
        match self.remote.bytes.or(announced) {
            Some(length) if have < length => Err(Failure::Remote(format!("it ended after {have} of {length} bytes"))),
            _ => Ok(()),
        }
    }

    /// Compares the file with its checksum.
    fn check(&mut self, continued: bool) -> Result<(), Failure> {
        let mut digest = Sha256::new();
        self.local(|file| {
            file.rewind()?;
            let mut buffer = vec![0; 64 << 10];
            loop {
                match file.read(&mut buffer)? {
                    0 => return file.sync_all(),
                    count => digest.update(&buffer[..count]),
                }
            }
        })?;
        let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if digest.starts_with(&self.remote.sha256) {
            return Ok(());
        }
        let problem = format!("its SHA-256 is {digest}, but {} was published", self.remote.sha256);
        if continued { Err(Failure::Stale(problem)) } else { self.reject(problem) }
    }

    /// Fails, and keeps nothing of what was downloaded.
    fn reject(&mut self, problem: String) -> Result<(), Failure> {
        self.restart()?;
        Err(Failure::Remote(problem))
    }

    /// Forgets what was downloaded.
    fn restart(&mut self) -> Result<(), Failure> {
        self.local(|file| {
            file.set_len(0)?;
            file.rewind()
        })
    }

    fn local<T>(&mut self, operation: impl FnOnce(&mut File) -> io::Result<T>) -> Result<T, Failure> {
        operation(self.file).map_err(DataError::io("write", self.part)).map_err(Failure::Local)
    }
}

fn agent() -> Agent {
    Agent::config_builder()
        .timeout_connect(Some(PATIENCE))
        .timeout_recv_response(Some(PATIENCE))
        .timeout_per_read(Some(PATIENCE))
        .http_status_as_error(false)
        .user_agent(concat!("convzoo/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

fn bar(file: &str, progress: bool) -> ProgressBar {
    if !progress {
        return ProgressBar::hidden();
    }
    let style = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    ProgressBar::no_length()
        .with_style(ProgressStyle::with_template(style).expect("the template is well-formed"))
        .with_message(file.to_owned())
}
