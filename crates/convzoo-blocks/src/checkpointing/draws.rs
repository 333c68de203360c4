//! The random numbers of a segment's first pass, which its second pass gets again.
//!
//! Kept rather than drawn again from a kept state: Burn gives no state of its generators, and so the device's stream is the
//! same with checkpointing as without. Only dropout of whole feature maps draws many numbers.

use std::cell::RefCell;
use std::vec::IntoIter;

use burn::backend::DispatchTensor;
use burn::tensor::Tensor;

/// What becomes of the random numbers that are drawn.
enum Pass {
    /// There is no other pass.
    Only,
    /// They are written down.
    First(Vec<DispatchTensor>),
    /// They are those of the first.
    Second(IntoIter<DispatchTensor>),
}

thread_local! {
    static PASS: RefCell<Pass> = const { RefCell::new(Pass::Only) };
}

/// Random numbers of a training pass; where a [`Segment`](crate::Segment) is computed again, those of its first pass.
pub fn drawn<const D: usize>(draw: impl FnOnce() -> Tensor<D>) -> Tensor<D> {
    let again = PASS.with_borrow_mut(|pass| match pass {
        Pass::Second(draws) => draws.next(),
        Pass::Only | Pass::First(_) => None,
    });
    if let Some(again) = again {
        return Tensor::from_dispatch(again);
    }
    let new = draw();
    PASS.with_borrow_mut(|pass| {
        if let Pass::First(draws) = pass {
            draws.push(new.clone().into_dispatch());
        }
    });
    new
}

/// Whether the pass under way is a segment's second.
pub(crate) fn is_second_pass() -> bool {
    PASS.with_borrow(|pass| matches!(pass, Pass::Second(_)))
}

/// Runs a segment, and returns what it has drawn.
pub(super) fn first_pass<T>(run: impl FnOnce() -> T) -> (T, Vec<DispatchTensor>) {
    let (result, pass) = during(Pass::First(Vec::new()), run);
    match pass {
        Pass::First(draws) => (result, draws),
        Pass::Only | Pass::Second(_) => (result, Vec::new()),
    }
}

/// Runs a segment on what its first pass has drawn.
pub(super) fn second_pass<T>(draws: Vec<DispatchTensor>, run: impl FnOnce() -> T) -> T {
    during(Pass::Second(draws.into_iter()), run).0
}

/// Runs in a pass, which ends even where that panics.
fn during<T>(pass: Pass, run: impl FnOnce() -> T) -> (T, Pass) {
    struct Restore(Option<Pass>);
    impl Restore {
        fn restore(&mut self) -> Option<Pass> {
            self.0.take().map(|before| PASS.replace(before))
        }
    }
    impl Drop for Restore {
        fn drop(&mut self) {
            self.restore();
        }
    }
    let mut restore = Restore(Some(PASS.replace(pass)));
    let result = run();
    (result, restore.restore().unwrap_or(Pass::Only))
}
