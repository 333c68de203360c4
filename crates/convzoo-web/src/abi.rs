//! How the worker calls: it [`reserve`]s memory, writes a request into it, JSON first and bytes after it, calls [`answer`],
//! and reads the answer where [`Pieces`] says it lies. Nothing is imported: the program can do nothing but compute.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::panic;
use std::sync::Once;

use serde_json::json;

use crate::{Answer, Session};

#[derive(Default)]
struct State {
    session: Session,
    request: Vec<u8>,
    answer: Answer,
    text: String,
    pieces: Pieces,
}

/// Where the parts of an answer lie, each an address and a number of elements.
#[derive(Default)]
#[repr(C)]
struct Pieces {
    text: [usize; 2],
    values: [usize; 2],
    bytes: [usize; 2],
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
    /// What a panic said.
    static FAILURE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Makes room for a request of `length` bytes, and returns its address.
#[unsafe(no_mangle)]
extern "C" fn reserve(length: usize) -> *mut u8 {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        panic::set_hook(Box::new(|panic| FAILURE.with_borrow_mut(|failure| *failure = panic.to_string())));
    });
    STATE.with_borrow_mut(|state| {
        // What the last answer took is free for this one.
        state.answer = Answer::default();
        state.request = vec![0; length];
        state.request.as_mut_ptr()
    })
}

/// Answers the request that was written, whose first `text` bytes are JSON. The answer's text is an object: of what cannot
/// be answered with `error` alone.
#[unsafe(no_mangle)]
extern "C" fn answer(text: usize) -> *const Pieces {
    STATE.with_borrow_mut(|state| {
        let request = std::mem::take(&mut state.request);
        let (json, bytes) = request.split_at(text.min(request.len()));
        state.answer = match state.session.answer(json, bytes) {
            Ok(answer) => answer,
            Err(error) => Answer { text: json!({ "error": error.to_string() }), ..Answer::default() },
        };
        state.text = state.answer.text.to_string();
        let Answer { values, bytes, .. } = &state.answer;
        state.pieces = Pieces {
            text: [state.text.as_ptr().addr(), state.text.len()],
            values: [values.as_ptr().addr(), values.len()],
            bytes: [bytes.as_ptr().addr(), bytes.len()],
        };
        &raw const state.pieces
    })
}

/// After a trap: where the panic's message lies. The program is not to be called again.
#[unsafe(no_mangle)]
extern "C" fn failure() -> *const [usize; 2] {
    thread_local! {
        static PLACE: RefCell<[usize; 2]> = const { RefCell::new([0; 2]) };
    }
    let place = FAILURE.with_borrow(|failure| [failure.as_ptr().addr(), failure.len()]);
    PLACE.with_borrow_mut(|told| {
        *told = place;
        &raw const *told
    })
}
