//! The terminal under burn-train's dashboard, which puts it in raw mode: Ctrl-C is then a key like any other, which the
//! dashboard ignores, and no signal.

use std::io::{self, IsTerminal};
use std::sync::Once;
use std::{panic, thread};

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

/// Whether the terminal on standard output is there: one that was closed is none any more.
pub(crate) fn is_there() -> bool {
    io::stdout().is_terminal()
}

/// Keeps a terminal that is closed from ending the program: the dashboard's thread then panics as it gives the terminal
/// back, and once more as it tells so, which aborts. It is stopped at the first panic; the run ends without it.
pub(crate) fn survive_hang_up() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let is_dashboard = thread::current().name() == Some("train-renderer");
            while is_dashboard && !is_there() {
                thread::park();
            }
            before(info);
        }));
    });
}

/// Makes Ctrl-C a signal again, once the dashboard's thread has put the terminal in raw mode. Other keys stay the
/// dashboard's: suspending or quitting would leave its screen there.
#[cfg(unix)]
pub(crate) fn keep_ctrl_c() {
    use std::time::{Duration, Instant};

    use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, tcgetattr, tcsetattr};

    /// How long that thread may take.
    const PATIENCE: Duration = Duration::from_secs(2);

    if !is_there() {
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
    use std::os::fd::AsFd;

    let stdin = io::stdin();
    if stdin.is_terminal() {
        return stdin.as_fd().try_clone_to_owned().ok();
    }
    File::options().read(true).write(true).open("/dev/tty").ok().map(Into::into)
}
