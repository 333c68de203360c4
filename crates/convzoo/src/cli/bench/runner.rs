//! The processes that measure, and their turns.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::job::{Job, Reply, Request};
use super::row::Readings;
use crate::cli::output::told;

/// How long measurements take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Readings of one measurement, altogether.
    pub seconds: f64,
    /// The longest that a worker is waited for, altogether.
    pub timeout: Duration,
    /// Whether the time of each layer is taken too.
    pub profile: bool,
}

/// Turns that a measurement is spread over, so that what disturbs the machine for a while disturbs all alike.
const TURNS: usize = 8;

/// Readings that a median is taken of, however slow they are.
const LEAST_READINGS: usize = 5;

/// Measures jobs by turns, each in a process of its own: what starts it, or why it cannot be, stands beside the job.
/// `done` is called as each ends.
pub fn by_turns(
    jobs: &[(Job, Result<Command, String>)],
    limits: &Limits,
    mut done: impl FnMut(),
) -> Vec<Result<Readings, String>> {
    let mut places: Vec<_> = jobs.iter().map(|(job, command)| Place::new(job, command, limits)).collect();
    let mut order: Vec<_> = (0..places.len()).collect();
    while places.iter().any(|place| place.wants_more(limits)) {
        for &index in &order {
            if places[index].wants_more(limits) {
                places[index].turn(limits);
            }
        }
        // There and back: none always follows the same neighbour.
        order.reverse();
    }
    places.into_iter().map(|place| place.end(limits)).inspect(|_| done()).collect()
}

/// A worker and its readings, until it fails.
struct Place(Result<(Worker, Readings)>);

impl Place {
    fn new(job: &Job, command: &Result<Command, String>, limits: &Limits) -> Self {
        let command = command.as_ref().map_err(|reason| anyhow!(reason.clone()));
        Self(command.and_then(|command| Worker::start(job, command, limits.timeout)))
    }

    fn wants_more(&self, limits: &Limits) -> bool {
        self.0.as_ref().is_ok_and(|(_, readings)| {
            readings.times.len() < LEAST_READINGS || readings.times.iter().sum::<f64>() < 1e3 * limits.seconds
        })
    }

    fn turn(&mut self, limits: &Limits) {
        let Ok((worker, readings)) = &mut self.0 else { return };
        let result =
            worker.ask(&Request::Run { seconds: limits.seconds / TURNS as f64 }).and_then(|reply| match reply {
                Reply::Times { ms, peak_rss_mib } if !ms.is_empty() => {
                    readings.times.extend(ms);
                    readings.peak_rss_mib = peak_rss_mib;
                    Ok(())
                }
                other => Err(anyhow!("the worker replied {other:?} instead of readings")),
            });
        if let Err(error) = result {
            self.0 = Err(error);
        }
    }

    fn end(self, limits: &Limits) -> Result<Readings, String> {
        let profiled = self.0.and_then(|(mut worker, mut readings)| {
            if limits.profile {
                match worker.ask(&Request::Profile { seconds: limits.seconds / TURNS as f64 })? {
                    Reply::Profile(profile) => readings.profile = Some(profile),
                    other => bail!("the worker replied {other:?} instead of a profile"),
                }
            }
            Ok(readings)
        });
        profiled.map_err(|error| told(&error))
    }
}

/// A running worker. Dropped, it is ended.
struct Worker {
    child: Child,
    stdin: ChildStdin,
    replies: Receiver<Reply>,
    complaints: Option<JoinHandle<VecDeque<String>>>,
    left: Duration,
    timeout: Duration,
}

/// Lines that are kept of what a worker says on standard error.
const KEPT_LINES: usize = 20;

impl Worker {
    /// Starts a worker and waits until its passes take a steady time.
    fn start(job: &Job, command: &Command, timeout: Duration) -> Result<(Self, Readings)> {
        let mut started = Command::new(command.get_program());
        started.args(command.get_args());
        for (name, value) in command.get_envs() {
            started.env(name, value.unwrap_or_default());
        }
        started.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = started.spawn().with_context(|| format!("cannot start {:?}", command.get_program()))?;
        let (stdin, stdout, stderr) = match (child.stdin.take(), child.stdout.take(), child.stderr.take()) {
            (Some(stdin), Some(stdout), Some(stderr)) => (stdin, stdout, stderr),
            _ => bail!("the worker has no standard streams"),
        };
        let (sender, replies) = channel();
        let thread = |name: &str| Builder::new().name(name.to_owned());
        let read = move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            // Libraries talk too; what is no reply is not for the bench.
            for reply in lines.filter_map(|line| serde_json::from_str(&line).ok()) {
                if sender.send(reply).is_err() {
                    return;
                }
            }
        };
        let threads = thread("replies").spawn(read);
        let threads = threads.and_then(|_| thread("complaints").spawn(move || last_lines(stderr)));
        let complaints = Some(threads.context("no thread can be made to listen to the worker")?);
        let mut worker = Self { child, stdin, replies, complaints, left: timeout, timeout };
        worker.write(job)?;
        match worker.wait()? {
            Reply::Ready { load_ms, first_ms } => Ok((worker, Readings { load_ms, first_ms, ..Readings::default() })),
            other => bail!("the worker replied {other:?} and is not ready"),
        }
    }

    fn ask(&mut self, request: &Request) -> Result<Reply> {
        self.write(request)?;
        self.wait()
    }

    fn write(&mut self, value: &impl serde::Serialize) -> Result<()> {
        let line = serde_json::to_string(value)? + "\n";
        // A worker that has ended says why where it is waited for.
        let _ = self.stdin.write_all(line.as_bytes()).and_then(|()| self.stdin.flush());
        Ok(())
    }

    /// The next reply, or why there is none.
    fn wait(&mut self) -> Result<Reply> {
        let start = Instant::now();
        let reply = self.replies.recv_timeout(self.left);
        self.left = self.left.saturating_sub(start.elapsed());
        match reply {
            Ok(Reply::Error(error)) => bail!(error),
            Ok(reply) => Ok(reply),
            Err(RecvTimeoutError::Timeout) => {
                bail!("not done within {} s; --timeout gives more", self.timeout.as_secs_f64())
            }
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.child.wait().context("waiting for the worker")?;
                let lines = self.complaints.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
                bail!(ending(status, &lines))
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It has nothing to save; a worker that has ended already is no error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn last_lines(stream: impl Read) -> VecDeque<String> {
    let mut kept = VecDeque::new();
    let mut lines = BufReader::new(stream).split(b'\n');
    while let Some(Ok(line)) = lines.next() {
        if kept.len() == KEPT_LINES {
            kept.pop_front();
        }
        kept.push_back(String::from_utf8_lossy(&line).trim().to_owned());
    }
    kept
}

/// Why a worker ended that should not have.
fn ending(status: ExitStatus, lines: &VecDeque<String>) -> String {
    const OUT_OF_MEMORY: [&str; 3] = ["memory allocation of", "out of memory", "OutOfMemory"];
    let memory = lines.iter().find(|line| OUT_OF_MEMORY.iter().any(|sign| line.contains(sign)));
    let last = lines.iter().rev().find(|line| !line.is_empty() && !line.starts_with("note:"));
    #[cfg(unix)]
    let killed = std::os::unix::process::ExitStatusExt::signal(&status) == Some(9);
    #[cfg(not(unix))]
    let killed = false;
    match (memory, last) {
        (Some(line), _) => format!("out of memory: {line}"),
        (None, _) if killed => "the system killed the worker, most likely for want of memory".to_owned(),
        (None, Some(line)) => format!("the worker ended with {status}: {line}"),
        (None, None) => format!("the worker ended with {status}"),
    }
}
