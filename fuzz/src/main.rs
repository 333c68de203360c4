//! Mutates the files of a target's corpus for some time, and keeps what breaks it.

#![allow(unsafe_code)] // to watch what is allocated

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::io;
use std::panic::catch_unwind;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use convzoo_fuzz::mutate::{Random, mutate};
use convzoo_fuzz::{TARGETS, Target, corpus};

/// The system's allocator, remembering the largest request.
struct Watch;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on as it is.
unsafe impl GlobalAlloc for Watch {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Ordering::Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watch = Watch;

/// What takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// Most changes go where files say what they hold: within this many bytes of either end.
const STRUCTURE: usize = 4096;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (name, seconds) = match words[..] {
        [name] => (name, 60),
        [name, "--seconds", seconds] => (name, seconds.parse().unwrap_or(0)),
        _ => ("", 0),
    };
    let Some(target) = TARGETS.iter().find(|target| target.name == name).filter(|_| seconds > 0) else {
        let names = TARGETS.map(|target| target.name);
        eprintln!("error: expected TARGET [--seconds N], TARGET being {}", names.join(", "));
        return ExitCode::FAILURE;
    };
    match run(target, Duration::from_secs(seconds)) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a target for so long, and counts what broke it.
fn run(target: &Target, time: Duration) -> io::Result<usize> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let seeds = corpus(target)?;
    // The seed is the time, so that each run tries others; what breaks is kept as a file.
    let seed = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64);
    let (mut random, start) = (Random(seed), Instant::now());
    let (mut count, mut read, mut broken, mut slowest, mut largest) = (0, 0, 0, Duration::ZERO, 0);
    while start.elapsed() < time {
        let bytes = mutate(&seeds[random.below(seeds.len())], STRUCTURE, &mut random);
        LARGEST.store(0, Ordering::Relaxed);
        let (result, mut took) = timed(target, &bytes);
        if took > PATIENCE {
            // On a machine that does other things, too, only what is slow twice is slow.
            took = took.min(timed(target, &bytes).1);
        }
        let asked = LARGEST.load(Ordering::Relaxed);
        (count, read) = (count + 1, read + usize::from(matches!(result, Ok(true))));
        (slowest, largest) = (slowest.max(took), largest.max(asked));
        if result.is_err() || took > PATIENCE || asked > target.most_bytes {
            let folder = root.join("artifacts").join(target.name);
            fs::create_dir_all(&folder)?;
            let path = folder.join(format!("{seed:016x}-{count}"));
            fs::write(&path, &bytes)?;
            eprintln!("{}: panicked {}, {took:.1?}, {asked} bytes at once", path.display(), result.is_err());
            broken += 1;
        }
    }
    println!(
        "{}: {count} mutations of {} files in {:.0?}, {read} still read, {broken} broken; slowest {slowest:.1?}, \
         largest request {:.1} MiB",
        target.name,
        seeds.len(),
        start.elapsed(),
        largest as f64 / f64::from(1 << 20),
    );
    Ok(broken)
}

/// What a reader makes of bytes, and how long it takes; a panic is an error.
fn timed(target: &Target, bytes: &[u8]) -> (std::thread::Result<bool>, Duration) {
    let start = Instant::now();
    (catch_unwind(|| (target.run)(bytes)), start.elapsed())
}
