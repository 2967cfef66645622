//! sysbench at 64 threads: no error, its reads on the replicas, its transactions on the primary.
//!
//! `POINTSMAN_SYSBENCH_SECONDS` says how long each load lasts, `POINTSMAN_SYSBENCH_THREADS` how many run it. The shares
//! of the servers and sysbench's own figures are printed.

use std::sync::Arc;
use std::time::Duration;

use pointsman_integration_tests::sandbox::{APP, Sandbox};
use pointsman_integration_tests::{FLAVOURS, Failure, NO_OUTAGE, Outcome, Plan, Stage, Suite};
use tokio::process::Command;

fn main() {
    let mut suite = Suite::new();
    for flavour in FLAVOURS {
        let mut plan = Plan::new(flavour);
        plan.configuration = NO_OUTAGE.to_owned();
        plan.sandbox.options.push("--max-prepared-stmt-count=100000".to_owned());
        let stage = suite.stage(plan);
        suite.test(&stage, "sysbench point select as text", |stage| {
            reads(stage, &["oltp_point_select", "--db-ps-mode=disable"])
        });
        suite.test(&stage, "sysbench point select, prepared", |stage| {
            reads(stage, &["oltp_point_select", "--db-ps-mode=auto"])
        });
        suite.test(&stage, "sysbench read only", |stage| {
            reads(stage, &["oltp_read_only", "--db-ps-mode=auto", "--skip-trx=on"])
        });
        suite.test(&stage, "sysbench read write", read_write);
    }
    suite.run()
}

/// At least 95 % of the SELECTs are answered by replicas.
async fn reads(stage: Arc<Stage>, script: &[&str]) -> Outcome {
    let sandbox = prepared(&stage).await?;
    let answered = load(&stage, &sandbox, script, "Com_select").await?;
    let on_replicas: u64 = answered[1..].iter().sum();
    assert!(on_replicas > 1000, "SELECTs by server: {answered:?}");
    assert!(on_replicas * 5 >= answered[0] * 95, "SELECTs by server: {answered:?}");
    Ok(())
}

/// As shipped it runs in transactions, which stay on the primary.
async fn read_write(stage: Arc<Stage>) -> Outcome {
    let sandbox = prepared(&stage).await?;
    // All of its statements are prepared, and none of those with which a monitor asks a replica.
    let script = &["oltp_read_write", "--db-ps-mode=auto"];
    let executed = load(&stage, &sandbox, script, "Com_stmt_execute").await?;
    assert!(executed[0] > 1000, "executions by server: {executed:?}");
    assert!(executed[1..].iter().all(|count| *count == 0), "executions by server: {executed:?}");
    sandbox.caught_up(LIMIT).await?;
    Ok(())
}

async fn prepared(stage: &Stage) -> Result<Arc<Sandbox>, Failure> {
    let sandbox = stage.sandbox().await?;
    let made: Vec<u64> = sandbox
        .primary()
        .rows("SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'sbtest'")
        .await?;
    if made == [0] {
        sysbench(sandbox.primary().port(), &["oltp_read_write", "prepare"]).await?;
        sandbox.caught_up(LIMIT).await?;
    }
    Ok(sandbox)
}

/// Runs a script through the proxy; gives by how much a counter of each server has grown, the primary's first.
#[expect(clippy::print_stdout, reason = "the figures are what a longer run is for")]
async fn load(stage: &Stage, sandbox: &Sandbox, script: &[&str], counter: &str) -> Result<Vec<u64>, Failure> {
    let threads = format!("--threads={}", setting("POINTSMAN_SYSBENCH_THREADS", THREADS));
    let time = format!("--time={}", setting("POINTSMAN_SYSBENCH_SECONDS", SECONDS));
    let before = counters(sandbox, counter).await?;
    let arguments = [script, &[&threads, &time, "run"]].concat();
    let report = sysbench(stage.proxy().await?.port(), &arguments).await?;
    let grown: Vec<u64> =
        counters(sandbox, counter).await?.iter().zip(before).map(|(now, then)| now - then).collect();
    let line = |what: &str| {
        let line = report.lines().find(|line| line.trim_start().starts_with(what));
        line.map(str::trim).ok_or_else(|| format!("no {what} in {report}"))
    };
    println!(
        "{:?}: {} {threads} {time}: {counter} by server {grown:?}, {:.2} % on replicas; {}; {}; {}; {} ms",
        stage.flavour(),
        script.join(" "),
        grown[1..].iter().sum::<u64>() as f64 * 100.0 / grown.iter().sum::<u64>() as f64,
        line("queries:")?,
        line("ignored errors:")?,
        line("reconnects:")?,
        line("95th percentile:")?,
    );
    for errors in ["ignored errors:", "reconnects:"] {
        // Deadlocks are an answer of the server, which sysbench repeats and counts.
        let deadlocks_happen = errors.starts_with("ignored") && script[0] == "oltp_read_write";
        let count = line(errors)?.split_whitespace().nth(errors.split(' ').count());
        assert!(count == Some("0") || deadlocks_happen, "{}", line(errors)?);
    }
    Ok(grown)
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

async fn sysbench(port: u16, arguments: &[&str]) -> Result<String, Failure> {
    let output = Command::new("sysbench")
        .args(["--db-driver=mysql", "--mysql-host=127.0.0.1", "--mysql-db=sbtest"])
        .args(["--tables=4", "--table-size=10000"])
        .arg(format!("--mysql-port={port}"))
        .arg(format!("--mysql-user={}", APP.0))
        .arg(format!("--mysql-password={}", APP.1))
        .args(arguments)
        .kill_on_drop(true)
        .output()
        .await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    Err(format!("{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr)).into())
}

async fn counters(sandbox: &Sandbox, name: &str) -> Result<Vec<u64>, Failure> {
    let mut counts = Vec::new();
    for server in sandbox.servers() {
        counts.push(server.counter(name).await?);
    }
    Ok(counts)
}

const THREADS: &str = "64";
const SECONDS: &str = "10";
const LIMIT: Duration = Duration::from_secs(60);
