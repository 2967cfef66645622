//! Servers die and clients go on: reads without an error, writes held while there is no primary.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use pointsman_integration_tests::sandbox::{APP, Sandbox, Server};
use pointsman_integration_tests::{
    FLAVOURS, Failure, LOOK_EVERY, Load, Outcome, Plan, Proxy, Rounds, Stage, Suite, Traffic, eventually,
};
use tokio::time::{Instant, sleep, timeout};

fn main() {
    let mut suite = Suite::new();
    for flavour in FLAVOURS {
        let mut plan = Plan::new(flavour);
        plan.configuration = "[routing]\nhold_timeout = \"8s\"\n[failover]\nmode = \"off\"\n".to_owned();
        let stage = suite.stage(plan);
        suite.test(&stage, "a killed replica leaves within half a second, no read fails", killed_replica);
        suite.test(&stage, "a frozen replica leaves within a second, no read fails", frozen_replica);
        suite.test(&stage, "a replica whose applier stopped leaves within half a second", stopped_applier);
        suite.test(&stage, "without a primary reads go on and writes get 1290", no_primary);
        suite.test(&stage, "a write is held until the primary is back", held_write);
        suite.test(
            &stage,
            "an unknown outcome is error 1158, or silence where that is wanted",
            unknown_outcome,
        );
        suite.test(&stage, "with two writable servers nothing is written", two_writable);
    }
    suite.run()
}

async fn killed_replica(stage: Arc<Stage>) -> Outcome {
    let replica = stage.sandbox().await?.replicas()[0].clone();
    let traffic = reads(&stage).await?;
    let mut rounds = Rounds::within(Duration::from_millis(500));
    while rounds.go_on() {
        let killed = Instant::now();
        replica.kill().await?;
        let took = leaves(&stage, &replica, killed).await?;
        goes_on(&traffic).await;
        replica.start().await?;
        replica.run(&["START REPLICA"]).await?;
        comes_back(&stage, &replica).await;
        rounds.took(took);
    }
    rounds.outcome()?;
    no_read_failed(&traffic);
    Ok(())
}

async fn frozen_replica(stage: Arc<Stage>) -> Outcome {
    let replica = stage.sandbox().await?.replicas()[1].clone();
    let traffic = reads(&stage).await?;
    let mut rounds = Rounds::within(Duration::from_secs(1));
    while rounds.go_on() {
        let frozen = Instant::now();
        replica.freeze().await?;
        let took = leaves(&stage, &replica, frozen).await?;
        goes_on(&traffic).await;
        replica.thaw().await?;
        comes_back(&stage, &replica).await;
        rounds.took(took);
    }
    rounds.outcome()?;
    no_read_failed(&traffic);
    Ok(())
}

async fn stopped_applier(stage: Arc<Stage>) -> Outcome {
    let replica = stage.sandbox().await?.replicas()[0].clone();
    let traffic = reads(&stage).await?;
    let mut rounds = Rounds::within(Duration::from_millis(500));
    while rounds.go_on() {
        replica.stop_applier().await?;
        let took = leaves(&stage, &replica, Instant::now()).await?;
        goes_on(&traffic).await;
        replica.start_applier().await?;
        comes_back(&stage, &replica).await;
        rounds.took(took);
    }
    rounds.outcome()?;
    no_read_failed(&traffic);
    Ok(())
}

async fn no_primary(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let traffic = reads(&stage).await?;
    let mut client = stage.client().await?;
    client.query_drop("CREATE TABLE IF NOT EXISTS held (id INT PRIMARY KEY)").await?;
    client.query_drop("REPLACE INTO held VALUES (1)").await?;
    // What no replica has received cannot be read back from one.
    sandbox.caught_up(LIMIT).await?;
    sandbox.primary().kill().await?;
    let asked = Instant::now();
    while !is_refused(client.query_drop("REPLACE INTO held VALUES (2)").await)? {
        assert!(asked.elapsed() < LIMIT, "the write is not refused");
        // The outcome of what was in flight is not known, and the connection ends.
        client = stage.client().await?;
    }
    assert!(asked.elapsed() >= Duration::from_secs(7), "refused after {:?}", asked.elapsed());
    let answer: Option<u32> = client.query_first("SELECT COUNT(*) FROM held").await?;
    assert_eq!(answer, Some(1), "the session that was refused a write goes on reading");
    // Drivers ask for variables of the server before they hand out a connection.
    let late = Instant::now();
    let mut newcomer = stage.client().await?;
    let answer: Option<(u32, u32)> =
        newcomer.query_first("SELECT @@max_allowed_packet > 0, COUNT(*) FROM held").await?;
    assert_eq!(answer, Some((1, 1)), "a new session reads");
    assert!(late.elapsed() < Duration::from_secs(6), "after {:?}", late.elapsed());
    assert!(stage.proxy().await?.status().await?["primary"].is_null());
    goes_on(&traffic).await;
    sandbox.primary().start().await?;
    writable(&stage).await;
    no_read_failed(&traffic);
    Ok(())
}

/// Whether a write got the answer for "no primary"; a broken connection is none.
fn is_refused(answer: mysql_async::Result<()>) -> Result<bool, Failure> {
    match answer {
        Ok(()) => Err("a write without a primary".into()),
        Err(mysql_async::Error::Server(error)) if error.code == 1290 => Ok(true),
        Err(_) => Ok(false),
    }
}

async fn held_write(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let primary = sandbox.primary();
    primary.set_read_only(true).await?;
    primary.set_read_only(false).await?;
    writable(&stage).await;
    let patient = "[routing]\nhold_timeout = \"60s\"\n[failover]\nmode = \"off\"\n";
    let proxy = Proxy::start(&sandbox, patient).await?;
    let mut client = proxy.connect(APP, "app").await?;
    client.query_drop("REPLACE INTO held VALUES (2)").await?;
    primary.kill().await?;
    eventually("the proxy knows", LIMIT, async || {
        proxy.status().await.is_ok_and(|status| status["primary"].is_null())
    })
    .await;
    let held = proxy.metric("pointsman_held_statements_total").await?;
    let write = tokio::spawn(async move { client.query_drop("REPLACE INTO held VALUES (3)").await });
    primary.start().await?;
    timeout(LIMIT, write).await???;
    let held = proxy.metric("pointsman_held_statements_total").await? - held;
    assert_eq!(held, 1.0, "one statement was held, however often it was looked at");
    writable(&stage).await;
    Ok(())
}

async fn unknown_outcome(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let silent = "[failover]\nmode = \"off\"\nunknown_outcome = \"close\"\n";
    let silent = Proxy::start(&sandbox, silent).await?;
    writable(&stage).await;
    let mut writes = Vec::new();
    for (id, proxy) in [&*stage.proxy().await?, &silent].into_iter().enumerate() {
        let mut client = proxy.connect(APP, "app").await?;
        let write = format!("INSERT INTO held SELECT {} FROM (SELECT SLEEP(60)) AS asleep", id + 10);
        writes.push(tokio::spawn(async move { client.query_drop(write).await }));
    }
    let running =
        "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'INSERT INTO held SELECT%'";
    eventually("both writes run", LIMIT, async || {
        sandbox.primary().rows::<u64>(running).await.is_ok_and(|count| count == [2])
    })
    .await;
    sandbox.primary().kill().await?;
    let mut answers = Vec::new();
    for write in writes {
        answers.push(timeout(LIMIT, write).await??);
    }
    let code = |answer: &mysql_async::Result<()>| match answer {
        Err(mysql_async::Error::Server(error)) => error.code,
        Ok(()) | Err(_) => 0,
    };
    assert_eq!(code(&answers[0]), 1158, "{:?}", answers[0]);
    assert!(answers[1].is_err() && code(&answers[1]) == 0, "{:?}", answers[1]);
    sandbox.primary().start().await?;
    writable(&stage).await;
    Ok(())
}

async fn two_writable(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let second = sandbox.replicas()[1].clone();
    let traffic = reads(&stage).await?;
    let mut client = stage.client().await?;
    client.query_drop("CREATE TABLE IF NOT EXISTS held (id INT PRIMARY KEY)").await?;
    sandbox.caught_up(LIMIT).await?;
    second.run(&["STOP REPLICA", "RESET REPLICA ALL"]).await?;
    second.set_read_only(false).await?;
    let proxy = stage.proxy().await?;
    eventually("no primary in the status", LIMIT, async || {
        proxy.status().await.is_ok_and(|status| status["primary"].is_null())
    })
    .await;
    let before = held(&sandbox).await?;
    assert!(is_refused(client.query_drop("REPLACE INTO held VALUES (4)").await)?);
    assert_eq!(held(&sandbox).await?, before, "a server got the write that was refused");
    let status = proxy.status().await?.to_string();
    assert!(status.contains("accept writes"), "the status does not say why: {status}");
    goes_on(&traffic).await;
    second.set_read_only(true).await?;
    second.replicate_from(sandbox.primary(), false).await?;
    writable(&stage).await;
    comes_back(&stage, &second).await;
    no_read_failed(&traffic);
    Ok(())
}

/// The rows of the table on each server, with what it has executed.
async fn held(sandbox: &Sandbox) -> Result<Vec<(Vec<u32>, String)>, Failure> {
    let mut all = Vec::new();
    for server in sandbox.servers() {
        all.push((server.rows("SELECT id FROM app.held ORDER BY id").await?, server.position().await?));
    }
    Ok(all)
}

async fn reads(stage: &Stage) -> Result<Traffic, Failure> {
    let load = Load { readers: 16, writers: 0, transactions: 0, pace: Duration::from_millis(1) };
    let traffic = Traffic::start(stage.proxy().await?.options(APP, "app"), load).await?;
    stage.sandbox().await?.caught_up(LIMIT).await?;
    goes_on(&traffic).await;
    Ok(traffic)
}

/// Waits for a good many more reads.
async fn goes_on(traffic: &Traffic) {
    let enough = traffic.tally().reads + 1000;
    eventually("reads go on", LIMIT, async || traffic.tally().reads >= enough).await;
}

fn no_read_failed(traffic: &Traffic) {
    assert_eq!(traffic.tally().failed_reads, 0, "{:?}", traffic.read_errors());
}

async fn state(stage: &Stage, server: &Server) -> Result<String, Failure> {
    let status = stage.proxy().await?.status().await?;
    let servers = status["servers"].as_array().ok_or("no servers in the status")?;
    let entry = servers.iter().find(|entry| entry["address"] == server.address()).ok_or("no such server")?;
    Ok(entry["state"].as_str().ok_or("no state")?.to_owned())
}

/// How long after `since` the server leaves the pool.
async fn leaves(stage: &Stage, server: &Server, since: Instant) -> Result<Duration, Failure> {
    while state(stage, server).await? == "online" {
        assert!(since.elapsed() < LIMIT, "the server stays in the pool");
        sleep(LOOK_EVERY).await;
    }
    Ok(since.elapsed())
}

async fn comes_back(stage: &Stage, server: &Server) {
    eventually("the server is back in the pool", LIMIT, async || {
        state(stage, server).await.is_ok_and(|state| state == "online")
    })
    .await;
}

async fn writable(stage: &Stage) {
    eventually("writes go on", LIMIT, async || {
        let Ok(mut client) = stage.client().await else { return false };
        client.query_drop("CREATE TABLE IF NOT EXISTS held (id INT PRIMARY KEY)").await.is_ok()
            && client.query_drop("REPLACE INTO held VALUES (1)").await.is_ok()
    })
    .await;
}

const LIMIT: Duration = Duration::from_secs(20);
