//! What the service counts, in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Upper bounds of batches' sizes.
const SIZES: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];

/// Upper bounds of requests' times, in seconds.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Counters since the service was started.
#[derive(Default)]
pub struct Metrics {
    waiting: AtomicI64,
    counted: Mutex<Counted>,
}

#[derive(Default)]
struct Counted {
    requests: BTreeMap<u16, u64>,
    batches: Buckets<{ SIZES.len() }>,
    times: Buckets<{ SECONDS.len() }>,
}

/// A histogram: how many values are at most each bound, and all of them.
struct Buckets<const N: usize> {
    below: [u64; N],
    count: u64,
    sum: f64,
}

impl<const N: usize> Default for Buckets<N> {
    fn default() -> Self {
        Self { below: [0; N], count: 0, sum: 0.0 }
    }
}

impl<const N: usize> Buckets<N> {
    fn add(&mut self, value: f64, bounds: [f64; N]) {
        for (count, bound) in self.below.iter_mut().zip(bounds) {
            *count += u64::from(value <= bound);
        }
        self.count += 1;
        self.sum += value;
    }

    fn write(&self, name: &str, help: &str, bounds: [f64; N], text: &mut String) {
        // Writing to a string does not fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram");
        for (count, bound) in self.below.iter().zip(bounds) {
            let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {count}");
        }
        let Self { count, sum, .. } = self;
        let _ = writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {sum}\n{name}_count {count}");
    }
}

impl Metrics {
    /// Counts images that have begun or, where negative, ceased to wait.
    pub fn waiting(&self, more: i64) {
        self.waiting.fetch_add(more, Ordering::Relaxed);
    }

    /// Counts a pass.
    pub fn batch(&self, images: usize) {
        self.counted().batches.add(images as f64, SIZES);
    }

    /// Counts an answer.
    pub fn request(&self, status: u16, time: Duration) {
        let mut counted = self.counted();
        *counted.requests.entry(status).or_default() += 1;
        counted.times.add(time.as_secs_f64(), SECONDS);
    }

    // Numbers are whole whatever happened to who held them.
    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them.
    pub fn text(&self) -> String {
        let counted = self.counted();
        let mut text = String::new();
        text += "# HELP convzoo_requests_total Requests for predictions by the status of their answer.\n";
        text += "# TYPE convzoo_requests_total counter\n";
        for (status, count) in &counted.requests {
            let _ = writeln!(text, "convzoo_requests_total{{status=\"{status}\"}} {count}");
        }
        counted.batches.write("convzoo_batch_images", "Images of a pass.", SIZES, &mut text);
        counted.times.write("convzoo_request_seconds", "Time from a request to its answer.", SECONDS, &mut text);
        let waiting = self.waiting.load(Ordering::Relaxed).max(0);
        text += "# HELP convzoo_queue_images Images that wait for the network.\n# TYPE convzoo_queue_images gauge\n";
        let _ = writeln!(text, "convzoo_queue_images {waiting}");
        if let Some(bytes) = resident() {
            text += "# HELP process_resident_memory_bytes Memory of the service.\n";
            text += "# TYPE process_resident_memory_bytes gauge\n";
            let _ = writeln!(text, "process_resident_memory_bytes {bytes}");
        }
        text
    }
}

/// The memory that this process holds, where the system tells.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
}
