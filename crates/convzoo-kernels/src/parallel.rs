//! Work divided among rayon's threads and the calling one.
//!
//! The steps of a network take tens of microseconds each, less than waking a thread may take. So helpers are called
//! once for all stages and meanwhile look for the next task without sleeping. They only ever help: a stage ends when
//! its tasks are done, whoever did them, so nothing waits for a thread that is busy elsewhere.

use std::cell::Cell;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

thread_local! {
    /// Whether this thread is in a task.
    static IN_TASK: Cell<bool> = const { Cell::new(false) };
}

/// Threads that share the work: within a task, the task's own thread alone.
pub fn threads() -> usize {
    if IN_TASK.get() { 1 } else { rayon::current_num_threads() }
}

/// Runs tasks `0..tasks`, in any order. Within a task of another call they all run on its thread.
pub fn for_each(tasks: usize, work: impl Fn(usize) + Sync) {
    stages(1, |_| tasks, |_, task| work(task), |_| ());
}

/// Runs `stages` stages one after the other: of each, `work(stage, task)` for all tasks `0..tasks(stage)`, in any
/// order. `ended(stage)` is called as each ends.
pub fn stages(
    stages: usize,
    tasks: impl Fn(usize) -> usize + Sync,
    work: impl Fn(usize, usize) + Sync,
    mut ended: impl FnMut(usize),
) {
    let team = Team::default();
    // More helpers than any stage has tasks would find nothing to do.
    let widest = (0..stages).map(&tasks).max().unwrap_or(0);
    let helpers = (threads() - 1).min(widest.saturating_sub(1));
    if helpers == 0 {
        for stage in 0..stages {
            (0..tasks(stage)).for_each(|task| work(stage, task));
            ended(stage);
        }
        return;
    }
    rayon::in_place_scope(|scope| {
        for _ in 0..helpers {
            scope.spawn(|_| team.help(&tasks, &work));
        }
        team.lead(stages, &tasks, &work, ended);
    });
}

/// The `part`-th of `parts` pieces of `0..total`, as equal as can be.
pub fn piece(total: usize, parts: usize, part: usize) -> Range<usize> {
    let (size, more) = (total / parts, total % parts);
    let start = part * size + part.min(more);
    start..start + size + usize::from(part < more)
}

/// `next`: stage and task in one number; after the last stage, [`DISMISSED`].
#[derive(Default)]
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
                IN_TASK.set(false);
                self.0.fetch_add(1, Ordering::Release);
            }
        }
        let _done = Done(&self.done);
        IN_TASK.set(true);
        work(stage, task);
    }

    /// Opens stage after stage and waits for each to end.
    fn lead(
        &self,
        stages: usize,
        tasks: &impl Fn(usize) -> usize,
        work: &impl Fn(usize, usize),
        mut ended: impl FnMut(usize),
    ) {
        let _dismiss = Dismiss(self);
        let mut total = 0;
        for stage in 0..stages {
            // The first stage is open from the beginning: helpers may have taken some of it already.
            if stage > 0 {
                self.next.store(position(stage, 0), Ordering::Release);
            }
            let count = tasks(stage);
            while let Some((stage, task)) = self.take(tasks) {
                self.run(stage, task, work);
            }
            total += count;
            let mut patience = Patience::default();
            while self.done.load(Ordering::Acquire) < total {
                patience.wait();
            }
            ended(stage);
        }
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

/// Dismisses the helpers, also when the leader panics.
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

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTS: [usize; 5] = [7, 1, 0, 3, 16];

    /// How often each task has run.
    struct Runs(Vec<Vec<AtomicUsize>>);

    impl Runs {
        fn new() -> Self {
            Self(COUNTS.iter().map(|count| (0..*count).map(|_| AtomicUsize::new(0)).collect()).collect())
        }

        fn run(&self, stage: usize, task: usize) {
            let earlier = self.0[..stage].iter().flatten();
            assert!(earlier.map(|run| run.load(Ordering::Relaxed)).all(|run| run == 1), "stage {stage} came early");
            self.0[stage][task].fetch_add(1, Ordering::Relaxed);
        }

        fn assert_once(&self) {
            let runs: Vec<usize> = self.0.iter().flatten().map(|run| run.load(Ordering::Relaxed)).collect();
            assert!(runs.iter().all(|run| *run == 1), "tasks ran {runs:?} times");
        }
    }

    #[test]
    fn each_task_runs_once_and_after_the_stages_before() {
        for _ in 0..500 {
            let runs = Runs::new();
            let mut ended = Vec::new();
            let end = |stage| ended.push(stage);
            stages(COUNTS.len(), |stage| COUNTS[stage], |stage, task| runs.run(stage, task), end);
            assert_eq!(ended, [0, 1, 2, 3, 4], "each stage ends once, in its turn");
            runs.assert_once();
        }
    }

    #[test]
    fn a_helper_may_come_before_its_leader() {
        let (team, runs) = (Team::default(), Runs::new());
        let (tasks, work) = (|stage: usize| COUNTS[stage], |stage, task| runs.run(stage, task));
        let (stage, task) = team.take(&tasks).unwrap();
        team.run(stage, task, &work);
        team.lead(COUNTS.len(), &tasks, &work, |_| ());
        runs.assert_once();
        assert_eq!(team.take(&tasks), None, "the team is dismissed");
    }

    #[test]
    fn pieces_are_equal_and_leave_nothing_out() {
        for (total, parts) in [(0, 3), (7, 3), (8, 8), (5, 9)] {
            let pieces: Vec<_> = (0..parts).map(|part| piece(total, parts, part)).collect();
            let joined: Vec<usize> = pieces.iter().cloned().flatten().collect();
            assert_eq!(joined, (0..total).collect::<Vec<_>>(), "{total} in {parts} parts");
            let lengths = pieces.iter().map(|piece| piece.len());
            assert!(lengths.clone().max().unwrap() - lengths.min().unwrap() <= 1, "{pieces:?}");
        }
    }
}
