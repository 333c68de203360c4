//! Asking the terminal what it is.

use std::fs::File;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use nix::sys::termios::{SetArg, SpecialCharacterIndices, cfmakeraw, tcgetattr, tcsetattr};

/// A terminal that has said nothing for this long never will.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether the terminal replies: asked for its attributes, which every one tells, it does so within a second.
/// Who asks one that does not, and waits, waits for ever.
pub fn replies() -> bool {
    let Ok(mut terminal) = File::options().read(true).write(true).open("/dev/tty") else { return false };
    let Ok(before) = tcgetattr(&terminal) else { return false };
    let mut raw = before.clone();
    cfmakeraw(&mut raw);
    // Reading returns what there is, or nothing after tenths of a second.
    raw.control_chars[SpecialCharacterIndices::VMIN as usize] = 0;
    raw.control_chars[SpecialCharacterIndices::VTIME as usize] = (PATIENCE.as_millis() / 100) as u8;
    if tcsetattr(&terminal, SetArg::TCSANOW, &raw).is_err() {
        return false;
    }
    let replied = attributes(&mut terminal);
    let _ = tcsetattr(&terminal, SetArg::TCSANOW, &before);
    replied
}

/// Asks for the primary device attributes, and reads the reply to its end: `ESC [ ? … c`.
fn attributes(terminal: &mut File) -> bool {
    if terminal.write_all(b"\x1b[c").and_then(|()| terminal.flush()).is_err() {
        return false;
    }
    let (start, mut reply) = (Instant::now(), Vec::new());
    while start.elapsed() < PATIENCE {
        let mut buffer = [0; 64];
        match terminal.read(&mut buffer) {
            Ok(count @ 1..) => reply.extend_from_slice(&buffer[..count]),
            _ => return false,
        }
        let begun = reply.windows(3).position(|bytes| bytes == b"\x1b[?");
        if begun.is_some_and(|begun| reply[begun..].contains(&b'c')) {
            return true;
        }
    }
    false
}
