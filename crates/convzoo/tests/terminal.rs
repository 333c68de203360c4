//! Training in a terminal, and what becomes of a run when that says stop, goes away or is not read.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::termios::{LocalFlags, tcgetattr};
use serde_json::Value;
use support::{signal, temp};

/// More than any of it takes, on the slowest of machines.
const LONG: Duration = Duration::from_secs(120);

/// A training under way in a terminal of its own, whose screen is read by a thread: the program would wait for it.
struct Session {
    terminal: OwnedFd,
    child: Child,
    watcher: Option<JoinHandle<()>>,
    closed: Arc<AtomicBool>,
}

impl Session {
    /// Starts the program as the leader of a session with a new terminal.
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let size = Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        // A program that inherits a terminal's own end keeps it open: copies are closed where another program starts,
        // and no other starts before the originals are gone.
        static STARTING: Mutex<()> = Mutex::new(());
        let starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        let OpenptyResult { master, slave } = openpty(Some(&size), None).unwrap();
        let [master, slave] = [master, slave].map(|end| end.try_clone().unwrap());
        // Whoever runs the tests may have had hang-ups ignored, as `nohup` does.
        let mut command = Command::new("env");
        command
            .args(["--default-signal=HUP", "setsid", "--ctty"])
            .arg(env!("CARGO_BIN_EXE_convzoo"))
            .args(arguments)
            .current_dir(folder);
        let [stdin, stdout] = [(); 2].map(|()| Stdio::from(slave.try_clone().unwrap()));
        let child = command.stdin(stdin).stdout(stdout).stderr(slave).spawn().unwrap();
        drop(starting);
        let closed = Arc::new(AtomicBool::new(false));
        let (mut screen, closing) = (File::from(master.try_clone().unwrap()), Arc::clone(&closed));
        let watch = move || {
            let read = |bytes: std::io::Result<usize>| bytes.is_ok_and(|bytes| bytes > 0);
            while !closing.load(Ordering::Relaxed) && read(screen.read(&mut [0; 4096])) {}
        };
        Self { terminal: master, child, watcher: Some(std::thread::spawn(watch)), closed }
    }

    /// Closes the terminal's window, as it were, and waits for the program's end.
    fn close(self) {
        let Self { terminal, mut child, watcher, closed } = self;
        closed.store(true, Ordering::Relaxed);
        drop(terminal);
        // It reads once more before it lets go of the terminal: a run under way draws all the time.
        watcher.unwrap().join().unwrap();
        end(&mut child);
    }

    fn local_flags(&self) -> LocalFlags {
        tcgetattr(self.terminal.as_fd()).unwrap().local_flags
    }

    /// Waits until the dashboard has the terminal.
    fn wait_for_dashboard(&self) {
        wait("the dashboard", || {
            let flags = self.local_flags();
            !flags.contains(LocalFlags::ICANON) && flags.contains(LocalFlags::ISIG)
        });
    }

    fn press_ctrl_c(&self) {
        File::from(self.terminal.try_clone().unwrap()).write_all(b"\x03").unwrap();
    }
}

fn wait(what: &str, mut until: impl FnMut() -> bool) {
    let started = Instant::now();
    while !until() {
        assert!(started.elapsed() < LONG, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn end(child: &mut Child) -> ExitStatus {
    let mut status = None;
    wait("the end of the run", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

fn status(run: &Path) -> String {
    let record: Value = serde_json::from_slice(&fs::read(run.join("run.json")).unwrap()).unwrap();
    record["status"].as_str().unwrap().to_owned()
}

/// More epochs than a test waits for.
const ENDLESS: [&str; 7] = ["train", "--device", "flex", "--epochs", "100000", "--out", "run"];

#[test]
fn ctrl_c_in_the_dashboard_ends_the_run_after_the_step() {
    let folder = temp();
    let mut session = Session::start(folder.path(), &[&ENDLESS[..], &["--dashboard"]].concat());
    session.wait_for_dashboard();
    session.press_ctrl_c();
    assert_eq!(end(&mut session.child).code(), Some(130));
    assert_eq!(status(&folder.path().join("run")), "interrupted");
    assert!(session.local_flags().contains(LocalFlags::ICANON | LocalFlags::ECHO), "the terminal was left in raw mode");
}

#[test]
fn a_second_ctrl_c_in_the_dashboard_ends_it_at_once() {
    let folder = temp();
    // All batches of an epoch make one step, which takes longer than a user waits.
    let slow = [
        "train",
        "resnet56_cifar",
        "--dashboard",
        "--device",
        "flex",
        "--set",
        "accumulation=1000",
        "--epochs",
        "9",
        "--out",
        "run",
    ];
    let mut session = Session::start(folder.path(), &slow);
    session.wait_for_dashboard();
    session.press_ctrl_c();
    std::thread::sleep(Duration::from_millis(300));
    session.press_ctrl_c();
    let pressed = Instant::now();
    assert_eq!(end(&mut session.child).code(), Some(130));
    assert!(pressed.elapsed() < Duration::from_secs(5), "it took {:?}", pressed.elapsed());
    assert_eq!(status(&folder.path().join("run")), "running", "it waited for the end of the step");
    assert!(session.local_flags().contains(LocalFlags::ICANON | LocalFlags::ECHO), "the terminal was left in raw mode");
}

#[test]
fn a_closed_terminal_leaves_a_checkpoint_and_an_interrupted_run() {
    for dashboard in [false, true] {
        let folder = temp();
        let run = folder.path().join("run");
        let arguments = if dashboard { [&ENDLESS[..], &["--dashboard"]].concat() } else { ENDLESS.to_vec() };
        let session = Session::start(folder.path(), &arguments);
        wait("the run", || run.join("run.json").exists());
        session.close();
        assert_eq!(status(&run), "interrupted", "dashboard: {dashboard}");
        let checkpoints = fs::read_dir(run.join("checkpoints")).unwrap().count();
        assert!(checkpoints > 0, "dashboard: {dashboard}");
    }
}

/// A run of three epochs, which ends by itself.
const SHORT: [&str; 7] = ["train", "--device", "flex", "--epochs", "3", "--out", "run"];

#[test]
fn a_run_outlives_the_reader_of_its_lines() {
    let folder = temp();
    let mut command = Command::new(env!("CARGO_BIN_EXE_convzoo"));
    command.args(SHORT).current_dir(folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // As `2>&1 | head -1` does.
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.contains("images to train on"), "{first}");
    drop(child.stderr.take());
    assert!(end(&mut child).success());
    assert_eq!(status(&folder.path().join("run")), "finished");
}

#[test]
fn a_run_outlives_a_full_disk_under_its_log() {
    let folder = temp();
    let full = || Stdio::from(OpenOptions::new().write(true).open("/dev/full").unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_convzoo"));
    let mut child = command.args(SHORT).current_dir(folder.path()).stdout(full()).stderr(full()).spawn().unwrap();
    assert!(end(&mut child).success());
    assert_eq!(status(&folder.path().join("run")), "finished");
}

/// A stop by Ctrl-C, whose message nobody reads, leaves what a resumed run needs.
#[test]
fn a_run_without_a_reader_stops_and_resumes() {
    let folder = temp();
    let run = folder.path().join("run");
    let mut command = Command::new(env!("CARGO_BIN_EXE_convzoo"));
    command.args(ENDLESS).current_dir(folder.path()).stderr(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    wait("the run", || run.join("run.json").exists());
    signal(&child, "INT");
    assert_eq!(end(&mut child).code(), Some(130));
    assert_eq!(status(&run), "interrupted");
}
