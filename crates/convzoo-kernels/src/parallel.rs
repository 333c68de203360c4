//! Work divided among rayon's threads and the calling one.
//!
//! The stages of a network take tens of microseconds each, less than waking a thread may take. So helpers are called
//! once for all stages and meanwhile look for the next task without sleeping. They only ever help: a stage ends when
//! its tasks are done, whoever did them, so nothing waits for a thread that is busy elsewhere.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Threads that share the work.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// Runs tasks `0..tasks`, in any order.
pub fn for_each(tasks: usize, work: impl Fn(usize) + Sync) {
    stages(1, |_| tasks, |_, task| work(task));
}

/// Runs `stages` stages one after the other: of each, `work(stage, task)` for all tasks `0..tasks(stage)`, in any
/// order.
pub fn stages(stages: usize, tasks: impl Fn(usize) -> usize + Sync, work: impl Fn(usize, usize) + Sync) {
    let team = Team { next: AtomicU64::new(0), done: AtomicUsize::new(0) };
    // More helpers than any stage has tasks would find nothing to do.
    let widest = (0..stages).map(&tasks).max().unwrap_or(0);
    let helpers = (threads() - 1).min(widest.saturating_sub(1));
    if helpers == 0 {
        (0..stages).for_each(|stage| (0..tasks(stage)).for_each(|task| work(stage, task)));
        return;
    }
    rayon::in_place_scope(|scope| {
        for _ in 0..helpers {
            scope.spawn(|_| team.help(&tasks, &work));
        }
        let _dismiss = Dismiss(&team);
        let mut total = 0;
        for stage in 0..stages {
            team.next.store(position(stage, 0), Ordering::Release);
            let count = tasks(stage);
            while let Some((stage, task)) = team.take(&tasks) {
                team.run(stage, task, &work);
            }
            total += count;
            let mut patience = Patience::default();
            while team.done.load(Ordering::Acquire) < total {
                patience.wait();
            }
        }
    });
}

/// The `part`-th of `parts` pieces of `0..total`, as equal as can be.
pub fn piece(total: usize, parts: usize, part: usize) -> Range<usize> {
    let (size, more) = (total / parts, total % parts);
    let start = part * size + part.min(more);
    start..start + size + usize::from(part < more)
}

/// Stage and task in one number; after the last stage, [`DISMISSED`].
struct Team {
    next: AtomicU64,
    done: AtomicUsize,
}

const DISMISSED: u64 = u64::MAX << 32;

fn position(stage: usize, task: usize) -> u64 {
    (stage as u64) << 32 | task as u64
}

impl Team {
    /// The next task of the current stage.
    fn take(&self, tasks: &impl Fn(usize) -> usize) -> Option<(usize, usize)> {
        let open = |position: u64| {
            let (stage, task) = ((position >> 32) as usize, (position & u64::from(u32::MAX)) as usize);
            (position < DISMISSED && task < tasks(stage)).then_some((stage, task))
        };
        // Look before taking, so that waiting helpers do not count up.
        open(self.next.load(Ordering::Acquire))?;
        open(self.next.fetch_add(1, Ordering::AcqRel))
    }

    fn run(&self, stage: usize, task: usize, work: &impl Fn(usize, usize)) {
        /// Counts the task as done also when it panics: the leader waits for it.
        struct Done<'a>(&'a AtomicUsize);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::Release);
            }
        }
        let _done = Done(&self.done);
        work(stage, task);
    }

    fn help(&self, tasks: &impl Fn(usize) -> usize, work: &impl Fn(usize, usize)) {
        let mut patience = Patience::default();
        while self.next.load(Ordering::Acquire) < DISMISSED {
            match self.take(tasks) {
                Some((stage, task)) => {
                    self.run(stage, task, work);
                    patience = Patience::default();
                }
                None => patience.wait(),
            }
        }
    }
}

/// Sends the helpers home, also when the leader panics.
struct Dismiss<'a>(&'a Team);

impl Drop for Dismiss<'_> {
    fn drop(&mut self) {
        self.0.next.store(DISMISSED, Ordering::Release);
    }
}

/// Spins for some microseconds, then lets other threads run.
#[derive(Default)]
struct Patience(u32);

impl Patience {
    fn wait(&mut self) {
        match self.0 {
            0..2000 => {
                self.0 += 1;
                std::hint::spin_loop();
            }
            _ => std::thread::yield_now(),
        }
    }
}
