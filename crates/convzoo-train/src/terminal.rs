//! The terminal under burn-train's dashboard, which puts it in raw mode: Ctrl-C is then a key like any other, which the
//! dashboard ignores, and no signal.

use std::io;

use crossterm::cursor::Show;
use crossterm::event::DisableMouseCapture;
use crossterm::execute;
use crossterm::terminal::{LeaveAlternateScreen, disable_raw_mode, is_raw_mode_enabled};

/// Gives the terminal back as the dashboard found it, for a program that ends while a run is under way.
pub fn restore_terminal() {
    if is_raw_mode_enabled().unwrap_or(false) {
        // Where the terminal is gone there is nothing to restore.
        let _ = disable_raw_mode();
        let _ = execute!(io::stdout(), DisableMouseCapture, LeaveAlternateScreen, Show);
    }
}

/// Makes Ctrl-C a signal again, once the dashboard's thread has put the terminal in raw mode. Other keys stay the
/// dashboard's: suspending or quitting would leave its screen there.
#[cfg(unix)]
pub(crate) fn keep_ctrl_c() {
    use std::io::IsTerminal;
    use std::time::{Duration, Instant};

    use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, tcgetattr, tcsetattr};

    /// How long that thread may take.
    const PATIENCE: Duration = Duration::from_secs(2);

    if !io::stdout().is_terminal() {
        // burn-train shows no dashboard then.
        return;
    }
    let started = Instant::now();
    while !is_raw_mode_enabled().unwrap_or(false) {
        if started.elapsed() > PATIENCE {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let Some(terminal) = terminal() else { return };
    let Ok(mut settings) = tcgetattr(&terminal) else { return };
    settings.local_flags.insert(LocalFlags::ISIG);
    for key in [SpecialCharacterIndices::VSUSP, SpecialCharacterIndices::VQUIT] {
        settings.control_chars[key as usize] = nix::libc::_POSIX_VDISABLE;
    }
    // Where this is refused, the dashboard's own keys still stop the run.
    let _ = tcsetattr(&terminal, SetArg::TCSANOW, &settings);
}

/// The terminal that the dashboard reads keys from.
#[cfg(unix)]
fn terminal() -> Option<std::os::fd::OwnedFd> {
    use std::fs::File;
    use std::io::IsTerminal;
    use std::os::fd::AsFd;

    let stdin = io::stdin();
    if stdin.is_terminal() {
        return stdin.as_fd().try_clone_to_owned().ok();
    }
    File::options().read(true).write(true).open("/dev/tty").ok().map(Into::into)
}
