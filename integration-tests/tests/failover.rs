//! The primary dies and a replica takes its place, by itself: what was acknowledged is there, what waits goes on.

#![allow(clippy::print_stdout, reason = "what was measured is part of the report")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use pointsman_integration_tests::sandbox::{APP, Options, Sandbox, Server};
use pointsman_integration_tests::{
    FLAVOURS, Failure, Flavour, Load, Outcome, Plan, Proxy, Stage, Suite, Traffic, eventually,
};
use serde_json::Value;
use tokio::time::Instant;

fn main() {
    if std::env::var_os(PREVIEW).is_none() {
        std::process::exit(with_preview());
    }
    let mut suite = Suite::new();
    for flavour in FLAVOURS {
        for lossless in [true, false] {
            let stage = suite.stage(plan(flavour, lossless));
            let mode = if lossless { "lossless" } else { "async" };
            suite.test(
                &stage,
                &format!("{mode}: a killed primary is replaced, nothing acknowledged is lost"),
                killed,
            );
        }
        let stage = suite.stage(plan(flavour, true));
        suite.test(&stage, "lossless: a frozen primary is replaced, nothing acknowledged is lost", frozen);
    }
    suite.run()
}

/// The proxy inherits the variable that lets the engine run, from another run of this test.
fn with_preview() -> i32 {
    let own = std::env::current_exe().map(std::process::Command::new);
    let status = own.and_then(|mut own| own.args(std::env::args_os().skip(1)).env(PREVIEW, "1").status());
    status.ok().and_then(|status| status.code()).unwrap_or(1)
}

/// See `proxy::failover`.
const PREVIEW: &str = "POINTSMAN_FAILOVER_PREVIEW";

fn plan(flavour: Flavour, lossless: bool) -> Plan {
    let sandbox = Options { flavour, replicas: 2, lossless, ..Options::default() };
    Plan { sandbox, configuration: String::new() }
}

const LIMIT: Duration = Duration::from_secs(30);

async fn killed(stage: Arc<Stage>) -> Outcome {
    let (sandbox, proxy) = (stage.sandbox().await?, stage.proxy().await?);
    armed(&proxy, sandbox.options().lossless).await;
    let traffic = writers(&proxy).await?;
    sandbox.primary().kill().await?;
    let pause = replaced(&sandbox, &proxy, &traffic).await?;
    println!("{:?}: writes went on {} ms after the kill", stage.flavour(), pause.as_millis());
    nothing_lost(&sandbox, &proxy, &traffic).await?;
    idle_sessions_go_on(&stage).await
}

async fn frozen(stage: Arc<Stage>) -> Outcome {
    let (sandbox, proxy) = (stage.sandbox().await?, stage.proxy().await?);
    armed(&proxy, true).await;
    let traffic = writers(&proxy).await?;
    sandbox.primary().freeze().await?;
    let pause = replaced(&sandbox, &proxy, &traffic).await?;
    println!("{:?}: writes went on {} ms after the freeze", stage.flavour(), pause.as_millis());
    nothing_lost(&sandbox, &proxy, &traffic).await?;
    sandbox.primary().kill().await?;
    Ok(())
}

async fn armed(proxy: &Proxy, lossless: bool) {
    let wanted = if lossless { "lossless" } else { "async" };
    eventually("failover is armed", LIMIT, async || {
        proxy.status().await.is_ok_and(|status| {
            status["failover"]["phase"] == "STABLE" && status["failover"]["durability"] == wanted
        })
    })
    .await;
}

async fn writers(proxy: &Proxy) -> Result<Traffic, Failure> {
    let load = Load { readers: 2, writers: 4, pace: Duration::from_millis(2) };
    let traffic = Traffic::start(proxy.options(APP, "app"), load).await?;
    goes_on(&traffic).await;
    Ok(traffic)
}

async fn goes_on(traffic: &Traffic) {
    let enough = traffic.tally().writes + 200;
    eventually("writes go on", LIMIT, async || traffic.tally().writes >= enough).await;
}

/// Waits until another server is the primary and writes are acknowledged again; answers how long that took.
async fn replaced(sandbox: &Sandbox, proxy: &Proxy, traffic: &Traffic) -> Result<Duration, Failure> {
    let began = Instant::now();
    let before = traffic.tally().writes;
    let old = sandbox.primary().address();
    // What was in flight when the primary died has been counted by then.
    eventually("another primary", LIMIT, async || {
        proxy.status().await.is_ok_and(|status| primary_of(&status).is_some_and(|address| address != old))
    })
    .await;
    let known = traffic.tally().writes.max(before);
    eventually("writes go on", LIMIT, async || traffic.tally().writes > known).await;
    let pause = began.elapsed();
    goes_on(traffic).await;
    Ok(pause)
}

fn primary_of(status: &Value) -> Option<String> {
    let name = status["primary"].as_str()?;
    let servers = status["servers"].as_array()?;
    let server = servers.iter().find(|server| server["name"] == name)?;
    server["address"].as_str().map(str::to_owned)
}

async fn new_primary(sandbox: &Sandbox, proxy: &Proxy) -> Result<Arc<Server>, Failure> {
    let address = primary_of(&proxy.status().await?).ok_or("no primary")?;
    let server = sandbox.servers().iter().find(|server| server.address() == address);
    Ok(server.ok_or("an unknown primary")?.clone())
}

async fn nothing_lost(sandbox: &Sandbox, proxy: &Proxy, traffic: &Traffic) -> Outcome {
    let primary = new_primary(sandbox, proxy).await?;
    let acknowledged = traffic.acknowledged();
    let there: Vec<u64> = primary.rows("SELECT id FROM app.traffic_log").await?;
    let there: BTreeSet<_> = there.into_iter().collect();
    let lost: Vec<_> = acknowledged.iter().filter(|id| !there.contains(id)).collect();
    println!("{} rows acknowledged, {} lost", acknowledged.len(), lost.len());
    assert!(lost.is_empty(), "lost {lost:?}");
    let tally = traffic.tally();
    assert_eq!(tally.failed_reads, 0, "{:?}", traffic.read_errors());
    // At most what was in flight: one statement of each writer.
    assert!(tally.failed_writes <= 4, "{:?}", traffic.write_errors());
    Ok(())
}

/// A session that did nothing meanwhile notices nothing.
async fn idle_sessions_go_on(stage: &Stage) -> Outcome {
    let mut client = stage.client().await?;
    client.query_drop("SET @kept = 7").await?;
    client.query_drop("INSERT INTO traffic_log (id) VALUES (4000000000)").await?;
    let kept: Option<u32> = client.query_first("SELECT @kept").await?;
    assert_eq!(kept, Some(7));
    Ok(())
}
