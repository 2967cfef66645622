//! Runs sysbench and reads what it prints.

use std::fmt;
use std::time::Duration;

use pointsman_integration_tests::Failure;
use pointsman_integration_tests::sandbox::APP;
use tokio::process::Command;

use crate::process::processor_time;
use crate::target::Target;

/// One kind of load.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cell {
    order: usize,
    pub(crate) workload: Workload,
    pub(crate) clients: usize,
    /// Whether others log in all the time.
    pub(crate) flooded: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Workload {
    PointSelectText,
    PointSelectPrepared,
    ReadOnly,
    ReadWrite,
}

/// What one run of one cell showed.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) queries_per_second: f64,
    pub(crate) p95_ms: f64,
    pub(crate) p99_ms: f64,
    /// Processor time of the proxy for each query; none without a proxy.
    pub(crate) micros_per_query: Option<f64>,
    pub(crate) errors: u64,
    pub(crate) queries: u64,
}

impl Cell {
    pub(crate) fn all(clients: &[usize]) -> Vec<Self> {
        use Workload::{PointSelectPrepared, PointSelectText, ReadOnly, ReadWrite};
        [PointSelectText, PointSelectPrepared, ReadOnly, ReadWrite]
            .into_iter()
            .flat_map(|workload| clients.iter().map(move |&clients| (workload, clients)))
            .enumerate()
            .map(|(order, (workload, clients))| Self { order, workload, clients, flooded: false })
            .collect()
    }

    pub(crate) fn flooded() -> Self {
        Self { order: usize::MAX, workload: Workload::PointSelectText, clients: 64, flooded: true }
    }

    pub(crate) fn crowded(clients: usize) -> Self {
        Self { order: usize::MAX, workload: Workload::PointSelectText, clients, flooded: false }
    }

    fn only_reads(&self) -> bool {
        match self.workload {
            Workload::PointSelectText | Workload::PointSelectPrepared | Workload::ReadOnly => true,
            Workload::ReadWrite => false,
        }
    }

    /// The script and its own options.
    fn script(&self) -> (&'static str, &'static [&'static str]) {
        match self.workload {
            Workload::PointSelectText => ("oltp_point_select", &["--db-ps-mode=disable"]),
            Workload::PointSelectPrepared => ("oltp_point_select", &["--db-ps-mode=auto"]),
            Workload::ReadOnly => ("oltp_read_only", &["--db-ps-mode=disable", "--skip-trx=on"]),
            Workload::ReadWrite => ("oltp_read_write", &["--db-ps-mode=disable"]),
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.workload {
            Workload::PointSelectText => "point select, text",
            Workload::PointSelectPrepared => "point select, prepared",
            Workload::ReadOnly => "read only",
            Workload::ReadWrite => "read write",
        };
        let flood = if self.flooded { ", login flood" } else { "" };
        write!(f, "{name}, {} clients{flood}", self.clients)
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} queries/s, p95 {:.2} ms, p99 {:.2} ms",
            self.queries_per_second, self.p95_ms, self.p99_ms
        )?;
        match self.micros_per_query {
            Some(micros) => write!(f, ", {micros:.1} us/query"),
            None => Ok(()),
        }
    }
}

/// Fills the tables.
pub(crate) async fn prepare(port: u16, rows: u32) -> Result<(), Failure> {
    let mut command = sysbench(port, "oltp_read_write", rows);
    command.args(["--threads=2", "prepare"]);
    output(command).await.map(drop)
}

/// Loads `target` for so many seconds.
pub(crate) async fn run(cell: &Cell, target: &Target, seconds: u32, rows: u32) -> Result<Measured, Failure> {
    let port = if cell.only_reads() { target.read_port } else { target.port };
    let before = target.pid.map(processor_time).transpose()?;
    let output = output(command(port, cell, seconds, rows)).await?;
    let after = target.pid.map(processor_time).transpose()?;
    let used = before.zip(after).map(|(before, after)| after - before);
    parse(&output, used).ok_or_else(|| format!("expected a report of sysbench, got {output}").into())
}

/// What puts the load of `cell` on a port.
pub(crate) fn command(port: u16, cell: &Cell, seconds: u32, rows: u32) -> Command {
    let (script, options) = cell.script();
    let mut command = sysbench(port, script, rows);
    command.args(options).args(["--histogram=on", "--rand-type=uniform"]);
    command.arg(format!("--threads={}", cell.clients)).arg(format!("--time={seconds}")).arg("run");
    command
}

fn sysbench(port: u16, script: &str, rows: u32) -> Command {
    let mut command = Command::new("sysbench");
    command
        .args([script, "--db-driver=mysql", "--mysql-host=127.0.0.1", "--mysql-db=sbtest", "--tables=4"])
        .arg(format!("--mysql-port={port}"))
        .arg(format!("--mysql-user={}", APP.0))
        .arg(format!("--mysql-password={}", APP.1))
        .arg(format!("--table-size={rows}"))
        .kill_on_drop(true);
    command
}

async fn output(mut command: Command) -> Result<String, Failure> {
    let output = command.output().await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    Err(format!("sysbench failed: {text}{}", String::from_utf8_lossy(&output.stderr)).into())
}

pub(crate) fn parse(output: &str, used: Option<Duration>) -> Option<Measured> {
    let after = |label: &str| output.lines().find_map(|line| line.trim().strip_prefix(label));
    let queries = after("queries:")?;
    let total: u64 = queries.split_whitespace().next()?.parse().ok()?;
    let per_second = queries.split('(').nth(1)?.split(' ').next()?.parse().ok()?;
    let errors = after("ignored errors:")?.split_whitespace().next()?.parse().ok()?;
    let histogram = histogram(output);
    Some(Measured {
        queries_per_second: per_second,
        p95_ms: percentile(&histogram, 0.95)?,
        p99_ms: percentile(&histogram, 0.99)?,
        micros_per_query: used.map(|used| used.as_secs_f64() * 1e6 / total as f64),
        errors,
        queries: total,
    })
}

/// Lines such as `  0.150 |********* 431`: milliseconds and how many events took so long.
fn histogram(output: &str) -> Vec<(f64, u64)> {
    output
        .lines()
        .filter_map(|line| {
            let (value, rest) = line.split_once('|')?;
            let count = rest.trim_start_matches('*').trim().parse().ok()?;
            Some((value.trim().parse().ok()?, count))
        })
        .collect()
}

fn percentile(histogram: &[(f64, u64)], part: f64) -> Option<f64> {
    let total: u64 = histogram.iter().map(|(_, count)| count).sum();
    let mut left = total as f64 * part;
    for (value, count) in histogram {
        left -= *count as f64;
        if left <= 0.0 {
            return Some(*value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_read() {
        let output = "Latency histogram\n  0.100 |***** 90\n  0.200 |* 9\n  7.000 | 1\n\
            SQL statistics:\n    queries:    1000   (99.90 per sec.)\n    ignored errors:   2   (0.00 per sec.)\n";
        let measured = parse(output, Some(Duration::from_millis(30))).unwrap();
        assert_eq!((measured.p95_ms, measured.p99_ms, measured.errors), (0.2, 0.2, 2));
        assert!((measured.queries_per_second - 99.9).abs() < 1e-9);
        assert!((measured.micros_per_query.unwrap() - 30.0).abs() < 1e-9);
    }
}
