//! What the operating system says about this process, under the names that Prometheus' clients use.

use std::fs;

use super::exposition::{Exposition, Kind};

/// The unit of times in `/proc`; Linux has fixed it at this for programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// Adds the families that can be read; where there is no `/proc`, none.
pub(super) fn render(out: &mut Exposition) {
    if let Ok(stat) = fs::read_to_string("/proc/self/stat")
        && let Some(seconds) = cpu_seconds(&stat)
    {
        out.family("process_cpu_seconds_total", Kind::Counter, "CPU time of this process.")
            .sample(&[], seconds);
    }
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        if let Some(kib) = field(&status, "VmRSS:") {
            let help = "Memory of this process that is in use.";
            out.family("process_resident_memory_bytes", Kind::Gauge, help).sample(&[], kib * 1024);
        }
        if let Some(threads) = field(&status, "Threads:") {
            out.family("process_threads", Kind::Gauge, "Threads of this process.").sample(&[], threads);
        }
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        out.family("process_open_fds", Kind::Gauge, "Open files of this process.").sample(&[], files.count());
    }
    if let Ok((soft, _)) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE) {
        out.family("process_max_fds", Kind::Gauge, "Files that this process may open.").sample(&[], soft);
    }
}

/// User and system time: the 14th and 15th fields, counted behind the program's name in parentheses.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_proc() {
        let stat = "42 (a ) b) S 1 1 1 0 -1 4194560 100 0 0 0 250 150 0 0 20 0 4 0 12345";
        assert_eq!(cpu_seconds(stat), Some(4.0));
        assert_eq!(cpu_seconds("42 (a"), None);
        assert_eq!(field("Name:\tx\nVmRSS:\t  2048 kB\n", "VmRSS:"), Some(2048));
        assert_eq!(field("Name:\tx\n", "VmRSS:"), None);
    }
}
