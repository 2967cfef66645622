//! What the kernel says about a process.

use std::fs;
use std::time::Duration;

use pointsman_integration_tests::Failure;

/// Processor time, user and system, since the start of the process.
pub(crate) fn processor_time(pid: u32) -> Result<Duration, Failure> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold anything; fields are counted behind it.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).ok_or("no such field");
    Ok(Duration::from_millis((ticks(USER_TIME)? + ticks(SYSTEM_TIME)?) * MILLIS_PER_TICK))
}

/// Resident memory in KiB.
pub(crate) fn resident_kib(pid: u32) -> Result<u64, Failure> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.split_whitespace().nth(1).ok_or("no figure")?.parse()?)
}

/// proc(5), counted from the state field.
const USER_TIME: usize = 11;
const SYSTEM_TIME: usize = 12;
/// sysconf(_SC_CLK_TCK) is 100 on every Linux that this runs on.
const MILLIS_PER_TICK: u64 = 10;
