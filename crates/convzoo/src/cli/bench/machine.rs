//! The machine that is measured on, and a process's memory.

use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

const MIB: f64 = (1 << 20) as f64;

/// Processor, cores, memory and system, in a line.
pub fn machine() -> String {
    let refreshes =
        RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing()).with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(refreshes);
    let cpu = system.cpus().first().map_or("unknown processor", |cpu| cpu.brand().trim());
    let os = System::long_os_version().unwrap_or_else(|| std::env::consts::OS.to_owned());
    let memory = system.total_memory() as f64 / MIB / 1024.0;
    format!("{cpu} ({}), {} cores, {memory:.0} GiB, {os}", std::env::consts::ARCH, system.cpus().len())
}

/// Bytes that a new process could be given; no limit where the system does not tell, as without `/proc`.
pub fn available_bytes() -> usize {
    let memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(memory);
    if system.total_memory() == 0 {
        return usize::MAX;
    }
    let container = system.cgroup_limits().map_or(u64::MAX, |limits| limits.free_memory);
    usize::try_from(system.available_memory().min(container)).unwrap_or(usize::MAX)
}

/// The most memory that this process has held, where the system tells.
#[cfg(target_os = "linux")]
pub fn peak_rss_mib() -> Option<f64> {
    // Not `getrusage`: there a child begins with its parent's peak.
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? / 1024.0)
}

/// The most memory that this process has held, where the system tells.
#[cfg(all(unix, not(target_os = "linux")))]
pub fn peak_rss_mib() -> Option<f64> {
    use nix::sys::resource::{UsageWho, getrusage};
    let unit = if cfg!(target_vendor = "apple") { 1.0 } else { 1024.0 };
    Some(getrusage(UsageWho::RUSAGE_SELF).ok()?.max_rss() as f64 * unit / MIB)
}

/// The most memory that this process has held, where the system tells.
#[cfg(not(unix))]
pub fn peak_rss_mib() -> Option<f64> {
    None
}

/// When memory runs out, this process goes first, and not what else runs here.
pub fn offer_to_the_oom_killer() {
    // Where there is no such file, the system chooses.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn the_peak_rises_with_what_is_held() {
        let before = peak_rss_mib().unwrap();
        let held = std::hint::black_box(vec![1u8; 64 << 20]);
        let after = peak_rss_mib().unwrap();
        assert!(after > 32.0 && after >= before, "{before} MiB, and with {} bytes {after} MiB", held.len());
    }
}
