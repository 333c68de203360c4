//! The program run as its users run it, and the data that only continuous integration has.

#![allow(dead_code)] // each test program uses a part of it

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// An empty folder.
pub fn temp() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Runs the program in `folder`.
pub fn convzoo(folder: &Path, arguments: &[&str]) -> Output {
    convzoo_fed(folder, arguments, &[])
}

/// Runs the program with `input` on its standard input.
pub fn convzoo_fed(folder: &Path, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_convzoo"));
    command.args(arguments).current_dir(folder);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input); // a command that fails early does not read it
    child.wait_with_output().unwrap()
}

/// The JSON document on standard output.
pub fn parse(output: &Output) -> Value {
    let told = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("no JSON: {error}; {told}"))
}

/// The JSON document a successful command prints.
pub fn json(folder: &Path, arguments: &[&str]) -> Value {
    let output = convzoo(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    parse(&output)
}

/// The one error of a command that fails and leaves nothing.
pub fn error(folder: &Path, arguments: &[&str]) -> String {
    let files = || fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect::<BTreeSet<_>>();
    let before = files();
    let output = convzoo(folder, arguments);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{arguments:?} succeeded");
    assert!(!told.contains("panicked"), "{arguments:?} panicked: {told}");
    assert_eq!(told.lines().filter(|line| line.starts_with("error:")).count(), 1, "{arguments:?} told: {told}");
    assert_eq!(files(), before, "{arguments:?} left something behind");
    told
}

/// What continuous integration has and users have not.
pub fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("CONVZOO_SHARED").map(PathBuf::from);
    let root = root.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"));
    let found = root.join(path);
    if !found.exists() {
        eprintln!("skipped: {} is not here", found.display());
        return None;
    }
    Some(found.canonicalize().unwrap())
}

/// Sends a signal, such as INT, to a program under way.
pub fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success(), "no signal {name}");
}
