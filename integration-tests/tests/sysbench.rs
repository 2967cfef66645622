//! sysbench at 64 threads: no error, its reads on the replicas, its transactions on the primary.
//!
//! `POINTSMAN_SYSBENCH_SECONDS` says how long each load lasts.

use std::sync::Arc;
use std::time::Duration;

use pointsman_integration_tests::sandbox::{APP, Sandbox};
use pointsman_integration_tests::{FLAVOURS, Failure, Outcome, Plan, Stage, Suite};
use tokio::process::Command;

fn main() {
    let mut suite = Suite::new();
    for flavour in FLAVOURS {
        let mut plan = Plan::new(flavour);
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
    let before = selects(&sandbox).await?;
    load(&stage, script).await?;
    let answered: Vec<u64> =
        selects(&sandbox).await?.iter().zip(before).map(|(now, then)| now - then).collect();
    let on_replicas: u64 = answered[1..].iter().sum();
    assert!(on_replicas > 1000, "SELECTs by server: {answered:?}");
    assert!(on_replicas * 5 >= answered[0] * 95, "SELECTs by server: {answered:?}");
    Ok(())
}

/// As shipped it runs in transactions, which stay on the primary.
async fn read_write(stage: Arc<Stage>) -> Outcome {
    let sandbox = prepared(&stage).await?;
    let before = selects(&sandbox).await?;
    load(&stage, &["oltp_read_write", "--db-ps-mode=auto"]).await?;
    let answered: Vec<u64> =
        selects(&sandbox).await?.iter().zip(before).map(|(now, then)| now - then).collect();
    // The monitor asks replicas now and then.
    let on_replicas: u64 = answered[1..].iter().sum();
    assert!(on_replicas * 20 < answered[0], "SELECTs by server: {answered:?}");
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

async fn load(stage: &Stage, script: &[&str]) -> Outcome {
    let seconds = std::env::var("POINTSMAN_SYSBENCH_SECONDS").unwrap_or_else(|_| SECONDS.to_owned());
    let time = format!("--time={seconds}");
    let mut arguments = script.to_vec();
    arguments.extend(["--threads=64", &time, "run"]);
    let output = sysbench(stage.proxy().await?.port(), &arguments).await?;
    for errors in ["ignored errors:", "reconnects:"] {
        let line = output.lines().find(|line| line.contains(errors)).ok_or("no report of sysbench")?;
        // Deadlocks are an answer of the server, which sysbench repeats and counts.
        let deadlocks_happen = errors.starts_with("ignored") && script[0] == "oltp_read_write";
        assert!(
            line.split_whitespace().nth(errors.split(' ').count()) == Some("0") || deadlocks_happen,
            "{line}"
        );
    }
    Ok(())
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

async fn selects(sandbox: &Sandbox) -> Result<Vec<u64>, Failure> {
    let mut counts = Vec::new();
    for server in sandbox.servers() {
        counts.push(server.counter("Com_select").await?);
    }
    Ok(counts)
}

const SECONDS: &str = "10";
const LIMIT: Duration = Duration::from_secs(60);
