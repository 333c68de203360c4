//! The time that each of the kernels' operations takes, in a run that is traced: a profile of training.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

#[cfg(feature = "flex")]
use {burn_flex::FlexTensor, std::time::Instant};

/// An operation of a traced run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traced {
    /// PyTorch's name for the kind of layer, or what is done.
    pub operation: &'static str,
    /// Which part of a training step it belongs to.
    pub part: Part,
    /// The [`address`](super::address) of the weight, or of the parameter that is updated.
    pub weight: Option<usize>,
    /// How long it took.
    pub time: Duration,
}

/// A part of a training step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Forward.
    Forward,
    /// The gradient of the input; of normalizations that of their parameters, too, which is made in the same pass.
    InputGradient,
    /// The gradients of weight and bias.
    WeightGradient,
    /// The optimizer's step.
    Update,
}

static TRACING: AtomicBool = AtomicBool::new(false);
static TRACED: Mutex<Vec<Traced>> = Mutex::new(Vec::new());

/// Runs something, and returns what the kernels did on Flex's tensors meanwhile, on any thread. What Burn's own
/// operations do is not told. Traced runs are not made at the same time.
pub fn trace<T>(run: impl FnOnce() -> T) -> (T, Vec<Traced>) {
    /// Ends the tracing, also when the run panics.
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            TRACING.store(false, Ordering::Relaxed);
        }
    }
    TRACED.lock().unwrap_or_else(PoisonError::into_inner).clear();
    TRACING.store(true, Ordering::Relaxed);
    let end = End;
    let result = run();
    drop(end);
    (result, std::mem::take(&mut *TRACED.lock().unwrap_or_else(PoisonError::into_inner)))
}

/// Takes the time until it is dropped.
#[cfg(feature = "flex")]
pub(super) struct Timer {
    operation: &'static str,
    part: Part,
    weight: Option<usize>,
    start: Instant,
}

/// A timer for an operation if the run is traced.
#[cfg(feature = "flex")]
pub(super) fn timer(part: Part, operation: &'static str, weight: Option<&FlexTensor>) -> Option<Timer> {
    TRACING.load(Ordering::Relaxed).then(|| {
        let weight = weight.map(|weight| weight.bytes().as_ptr().addr());
        Timer { operation, part, weight, start: Instant::now() }
    })
}

#[cfg(feature = "flex")]
impl Drop for Timer {
    fn drop(&mut self) {
        let &mut Self { operation, part, weight, start } = self;
        let traced = Traced { operation, part, weight, time: start.elapsed() };
        TRACED.lock().unwrap_or_else(PoisonError::into_inner).push(traced);
    }
}
