//! What the system asks of a run that is under way: to stop, or to do without its terminal.

use anyhow::{Context, Result};
use burn::train::Interrupter;

use super::output::tell;

/// Has Ctrl-C, or a request to end, stop a run after the step under way, and a second one the program at once. A terminal
/// that hangs up stops the run too, but never at once: who closes a window often sends that signal twice.
///
/// `quiet` where the run's screen has no room for a message.
#[cfg(unix)]
pub fn stop_on_signal(interrupter: &Interrupter, quiet: bool) -> Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;

    let hang_up = (!ignores_hang_up()).then_some(SIGHUP);
    let listened = [SIGINT, SIGTERM].into_iter().chain(hang_up);
    let mut signals = Signals::new(listened).context("listening for Ctrl-C")?;
    let interrupter = interrupter.clone();
    let listen = move || {
        let mut asked = false;
        for signal in signals.forever() {
            if signal == SIGHUP {
                interrupter.stop(Some("the terminal was closed"));
            } else {
                stop(&interrupter, std::mem::replace(&mut asked, true), quiet);
            }
        }
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(listen)
        .context("no thread can be made to listen for Ctrl-C; a higher limit (ulimit -u) helps")?;
    Ok(())
}

/// Whether this program was started to outlive its terminal, as `nohup` does.
#[cfg(unix)]
fn ignores_hang_up() -> bool {
    // One bit per signal, the first for SIGHUP. Where there is no such file, it is taken as usual.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 == 1)
}

/// Has Ctrl-C stop a run after the step under way, and a second one the program at once.
#[cfg(not(unix))]
pub fn stop_on_signal(interrupter: &Interrupter, quiet: bool) -> Result<()> {
    let interrupter = interrupter.clone();
    let mut asked = false;
    ctrlc::set_handler(move || stop(&interrupter, std::mem::replace(&mut asked, true), quiet))
        .context("listening for Ctrl-C")
}

fn stop(interrupter: &Interrupter, again: bool, quiet: bool) {
    if again {
        convzoo::train::restore_terminal();
        std::process::exit(130);
    }
    if !quiet {
        tell("stopping after this step; --resume continues from there");
    }
    interrupter.stop(Some("stopped by the user"));
}
