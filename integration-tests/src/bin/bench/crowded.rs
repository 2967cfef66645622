//! Many clients at work on few server connections.

use std::fmt;
use std::process::Stdio;
use std::time::Duration;

use pointsman_integration_tests::sandbox::Sandbox;
use pointsman_integration_tests::{Failure, Proxy};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

use crate::process::processor_time;
use crate::sysbench::{self, Cell, Measured};

/// What so many clients got out of proxy and servers.
#[derive(Clone, Debug)]
pub(crate) struct Crowded {
    pub(crate) clients: usize,
    pub(crate) measured: Measured,
    /// Of the proxy and all servers.
    pub(crate) queries_per_cpu_second: f64,
}

impl fmt::Display for Crowded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {:.0} queries per CPU second", self.measured, self.queries_per_cpu_second)
    }
}

/// Loads Pointsman with `clients` on [`SERVER_CONNECTIONS`].
pub(crate) async fn measure(
    sandbox: &Sandbox,
    clients: usize,
    seconds: u32,
    rows: u32,
) -> Result<Crowded, Failure> {
    let each = SERVER_CONNECTIONS / sandbox.replicas().len();
    let proxy =
        Proxy::start(sandbox, &format!("[pool]\nmax_connections = {each}\nacquire_timeout = \"60s\"\n"))
            .await?;
    let mut processes = vec![proxy.pid().await.ok_or("the proxy has ended")?];
    for server in sandbox.servers() {
        processes.push(server.pid().await.ok_or("a server has ended")?);
    }
    let cell = Cell::crowded(clients);
    let mut child = sysbench::command(proxy.port(), &cell, seconds, rows)
        .arg("--thread-init-timeout=300")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
    let mut output = String::new();
    let mut before = None;
    // Logins are not what is measured: it begins when all are in.
    while let Some(line) = timeout(LIMIT, lines.next_line()).await?? {
        if line.starts_with("Threads started!") {
            before = Some(used(&processes)?);
        }
        output.push_str(&line);
        output.push('\n');
    }
    let after = used(&processes)?;
    let ended = child.wait_with_output().await?;
    if !ended.status.success() {
        return Err(format!("sysbench failed: {output}{}", String::from_utf8_lossy(&ended.stderr)).into());
    }
    let time = after - before.ok_or("sysbench did not say that its threads are started")?;
    let measured = sysbench::parse(&output, None)
        .ok_or_else(|| format!("expected a report of sysbench, got {output}"))?;
    let queries_per_cpu_second = measured.queries as f64 / time.as_secs_f64();
    Ok(Crowded { clients, measured, queries_per_cpu_second })
}

fn used(processes: &[u32]) -> Result<Duration, Failure> {
    processes.iter().map(|&pid| processor_time(pid)).sum()
}

/// Of all replicas together.
pub(crate) const SERVER_CONNECTIONS: usize = 100;
const LIMIT: Duration = Duration::from_secs(300);
