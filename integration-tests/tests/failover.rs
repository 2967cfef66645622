//! The primary dies and a replica takes its place, by itself: what was acknowledged is there, what waits goes on.

#![allow(clippy::print_stdout, reason = "what was measured is part of the report")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mysql_async::prelude::Queryable;
use pointsman_integration_tests::sandbox::{APP, Options, Sandbox, Server};
use pointsman_integration_tests::{
    FLAVOURS, Failure, Flavour, Load, Outcome, PATIENT, Plan, Proxy, Stage, Suite, Traffic, becomes,
    eventually,
};
use serde_json::Value;
use tokio::time::Instant;

fn main() {
    let mut suite = Suite::new();
    for flavour in FLAVOURS {
        let stage = suite.stage(plan(flavour, true));
        suite.test(&stage, "lossless: a killed primary is replaced, nothing acknowledged is lost", killed);
        let stage = suite.stage(plan(flavour, true));
        suite.test(&stage, "lossless: a frozen primary is replaced, nothing acknowledged is lost", frozen);
        let stage = suite.stage(plan(flavour, true));
        suite.test(&stage, "writes that no replica acknowledges are said to be stalled, and go on", stalled);
        suite.test(&stage, "a stopped replica that has what waits for it is started, too", ahead);
        suite.test(&stage, "a lock that a client holds is no stall", locked);
        let mut plan_without = plan(flavour, true);
        plan_without.configuration += "[failover]\nmode = \"off\"\n";
        let stage = suite.stage(plan_without);
        suite.test(&stage, "a commit that waits for a replica is not ended by KILL", killed_while_it_waits);
        let mut plan_of_kills = plan(flavour, true);
        plan_of_kills.configuration += OFTEN;
        let stage = suite.stage(plan_of_kills);
        suite.test(&stage, "kills in a row: no error but of commits in flight", kills_in_a_row);
        let stage = suite.stage(plan(flavour, true));
        suite.test(&stage, "open transactions move to the new primary, or are said to be rolled back", moved);
        let stage = suite.stage(plan(flavour, false));
        suite.test(&stage, "async: a primary killed with nothing in flight is replaced", killed_at_rest);
        let stage = suite.stage(plan(flavour, false));
        suite.test(
            &stage,
            "async: a primary is replaced before anything was acknowledged",
            killed_before_use,
        );
        let stage = suite.stage(plan(flavour, false));
        suite.test(
            &stage,
            "async: a primary killed under load is replaced, or missed by name",
            killed_under_load,
        );
        let stage = suite.stage(plan(flavour, false));
        suite.test(&stage, "async: what only the dead primary holds is waited for by name", only_copy);
    }
    // Two are enough at first; the others follow later.
    let mut plan_of_five = plan(Flavour::Mariadb, true);
    plan_of_five.sandbox.replicas = 5;
    plan_of_five.configuration += OFTEN;
    let stage = suite.stage(plan_of_five);
    suite.test(&stage, "five replicas: kills in a row, each of which all of them survive", kills_in_a_row);
    suite.run()
}

fn plan(flavour: Flavour, lossless: bool) -> Plan {
    let sandbox = Options { flavour, replicas: 2, lossless, ..Options::default() };
    Plan { sandbox, configuration: PATIENT.to_owned() }
}

/// Failovers may follow each other.
const OFTEN: &str = "[failover]\nmin_interval = \"0s\"\nmax_per_hour = 0\n";
const LIMIT: Duration = Duration::from_secs(30);
/// Until all writers stand still.
const LOOKS: u32 = 200;

async fn killed(stage: Arc<Stage>) -> Outcome {
    let (sandbox, proxy) = (stage.sandbox().await?, stage.proxy().await?);
    proxy.armed("lossless").await;
    let traffic = writers(&proxy).await?;
    sandbox.primary().kill().await?;
    let pause = replaced(&sandbox, &proxy, &traffic).await?;
    println!("{:?}: writes went on {} ms after the kill", stage.flavour(), pause.as_millis());
    nothing_lost(&*new_primary(&sandbox, &proxy).await?, &traffic).await?;
    // The next one would be most of the servers.
    eventually("it is said that nobody would take the next place", LIMIT, async || {
        let status = proxy.status().await.unwrap_or_default();
        status["failover"]["unready"].as_str().is_some_and(|why| why.contains("1 of 3 servers do not answer"))
    })
    .await;
    idle_sessions_go_on(&stage).await
}

/// As often as `POINTSMAN_KILLS` says: the primary is killed and comes back as a replica.
async fn kills_in_a_row(stage: Arc<Stage>) -> Outcome {
    let (sandbox, proxy) = (stage.sandbox().await?, stage.proxy().await?);
    proxy.armed("lossless").await;
    let load = Load { readers: 2, writers: 2, transactions: 2, pace: Duration::from_millis(2) };
    let traffic = Traffic::start(proxy.options(APP, "app"), load).await?;
    let kills = std::env::var("POINTSMAN_KILLS").map_or(Ok(DEFAULT_KILLS), |kills| kills.parse())?;
    for kill in 1..=kills {
        traffic.goes_on().await;
        let primary = new_primary(&sandbox, &proxy).await?;
        primary.kill().await?;
        let old = primary.address();
        eventually("another primary", LIMIT, async || {
            let status = proxy.status().await;
            status.is_ok_and(|status| primary_of(&status).is_some_and(|address| address != old))
        })
        .await;
        traffic.goes_on().await;
        primary.start().await?;
        let kept_out = AtomicBool::new(false);
        eventually("the killed one replicates again, or is kept out", LIMIT, async || {
            kept_out.store(proxy.keeps_out(&primary).await, Ordering::Relaxed);
            kept_out.load(Ordering::Relaxed) || proxy.status().await.is_ok_and(|status| is_whole(&status))
        })
        .await;
        if kept_out.into_inner() {
            // MySQL commits at its restart what no replica had acknowledged: such a server must be set up anew.
            assert_eq!(stage.flavour(), Flavour::Mysql, "init-rpl-role cuts the tail off");
            // A small machine writes faster than it catches up.
            let _at_rest = traffic.pause().await;
            proxy.set_up_anew(&sandbox, &primary).await?;
            let status = async || proxy.status().await.unwrap_or_default();
            becomes("the one that was set up anew replicates", LIMIT, status, is_whole).await;
        }
        println!("{:?}: kill {kill} of {kills}: {:?}", stage.flavour(), traffic.tally());
    }
    let at_rest = traffic.pause().await;
    let primary = new_primary(&sandbox, &proxy).await?;
    let there: Vec<u64> = primary.rows("SELECT id FROM app.traffic_log").await?;
    let there: BTreeSet<_> = there.into_iter().collect();
    let lost: Vec<_> = traffic.acknowledged().into_iter().filter(|id| !there.contains(id)).collect();
    assert!(lost.is_empty(), "lost {lost:?}");
    let tally = traffic.tally();
    assert_eq!(tally.failed_reads, 0, "{:?}", traffic.read_errors());
    let failed = traffic.unacknowledged();
    println!(
        "{} acknowledged, {} unknown: {:?}",
        traffic.acknowledged().len(),
        failed.len(),
        traffic.write_errors()
    );
    assert!(failed.len() <= kills * (load.writers + load.transactions), "{failed:?}");
    for (id, error) in failed {
        assert!(error.contains("ERROR 1158 (08007)"), "{id}: {error}");
    }
    drop(at_rest);
    Ok(())
}

const DEFAULT_KILLS: usize = 3;

/// Whether one server is the primary and all others serve reads, and acknowledge.
fn is_whole(status: &Value) -> bool {
    let servers = status["servers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ackers = status["failover"]["ackers"].as_array().map_or(0, Vec::len);
    status["failover"]["phase"] == "STABLE"
        && status["failover"]["unready"].is_null()
        && ackers + 1 == servers.len()
        && servers.iter().all(|server| server["state"] == "online")
}

async fn killed_at_rest(stage: Arc<Stage>) -> Outcome {
    let (sandbox, proxy) = (stage.sandbox().await?, stage.proxy().await?);
    proxy.armed("async").await;
    let traffic = writers(&proxy).await?;
    let at_rest = traffic.pause().await;
    sandbox.caught_up(LIMIT).await?;
    sandbox.primary().kill().await?;
    drop(at_rest);
    let pause = replaced(&sandbox, &proxy, &traffic).await?;
    println!("{:?}: writes went on {} ms after the kill", stage.flavour(), pause.as_millis());
    nothing_lost(&*new_primary(&sandbox, &proxy).await?, &traffic).await?;
    idle_sessions_go_on(&stage).await
}

/// A proxy that has acknowledged nothing can say so.
async fn killed_before_use(stage: Arc<Stage>) -> Outcome {
    let (sandbox, proxy) = (stage.sandbox().await?, stage.proxy().await?);
    proxy.armed("async").await;
    sandbox.caught_up(LIMIT).await?;
    let mut client = stage.client().await?;
    sandbox.primary().kill().await?;
    client.query_drop("CREATE TABLE first_of_all (id INT)").await?;
    let primary = new_primary(&sandbox, &proxy).await?;
    assert_ne!(primary.address(), sandbox.primary().address());
    Ok(())
}

/// Without semi-sync the last acknowledged row may be on no replica: then nobody is promoted.
async fn killed_under_load(stage: Arc<Stage>) -> Outcome {
    let (sandbox, proxy) = (stage.sandbox().await?, stage.proxy().await?);
    proxy.armed("async").await;
    let traffic = writers(&proxy).await?;
    sandbox.primary().kill().await?;
    let old = sandbox.primary().address();
    let is_other = |status: &Value| primary_of(status).is_some_and(|address| address != old);
    eventually("another primary, or the reason why not", LIMIT, async || {
        proxy.status().await.is_ok_and(|status| is_other(&status) || is_missed(&status))
    })
    .await;
    if is_missed(&proxy.status().await?) {
        println!("{:?}: the dead primary held the only copy of an acknowledged row", stage.flavour());
        sandbox.primary().start().await?;
    }
    traffic.goes_on().await;
    nothing_lost(&*new_primary(&sandbox, &proxy).await?, &traffic).await
}

async fn only_copy(stage: Arc<Stage>) -> Outcome {
    let (sandbox, proxy) = (stage.sandbox().await?, stage.proxy().await?);
    proxy.armed("async").await;
    let mut client = stage.client().await?;
    client.query_drop("CREATE TABLE kept (id INT PRIMARY KEY)").await?;
    sandbox.caught_up(LIMIT).await?;
    for replica in sandbox.replicas() {
        replica.run(&["STOP REPLICA IO_THREAD"]).await?;
    }
    client.query_drop("INSERT INTO kept VALUES (1)").await?;
    sandbox.primary().kill().await?;
    eventually("the status names what is missing", LIMIT, async || {
        proxy.status().await.is_ok_and(|status| is_missed(&status))
    })
    .await;
    assert!(proxy.status().await?["primary"].is_null());
    sandbox.primary().start().await?;
    // Held until the primary is back in its place.
    client.query_drop("INSERT INTO kept VALUES (2)").await?;
    let primary = new_primary(&sandbox, &proxy).await?;
    assert_eq!(primary.address(), sandbox.primary().address());
    let rows: Vec<u32> = primary.rows("SELECT id FROM app.kept ORDER BY id").await?;
    assert_eq!(rows, [1, 2]);
    Ok(())
}

/// Transactions that were open when the primary died.
async fn moved(stage: Arc<Stage>) -> Outcome {
    let (sandbox, proxy) = (stage.sandbox().await?, stage.proxy().await?);
    proxy.armed("lossless").await;
    let mut client = stage.client().await?;
    client.query_drop("CREATE TABLE moved (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(40))").await?;
    let mut text = stage.client().await?;
    let mut prepared = stage.client().await?;
    let mut implicit = stage.client().await?;
    let mut random = stage.client().await?;
    let mut called = stage.client().await?;
    client.query_drop("CREATE PROCEDURE nothing() DO 1").await?;
    text.query_drop("BEGIN").await?;
    text.query_drop("INSERT INTO moved VALUES (1, 'text')").await?;
    prepared.query_drop("START TRANSACTION").await?;
    let insert = prepared.prep("INSERT INTO moved VALUES (?, ?)").await?;
    for id in [11, 12] {
        prepared.exec_drop(&insert, (id, "prepared")).await?;
    }
    implicit.query_drop("SET autocommit = 0").await?;
    implicit.query_drop("INSERT INTO moved VALUES (21, 'implicit')").await?;
    random.query_drop("BEGIN").await?;
    let _seen: Option<String> = random.query_first("SELECT UUID()").await?;
    random.query_drop("INSERT INTO moved VALUES (31, 'random')").await?;
    called.query_drop("BEGIN").await?;
    called.query_drop("INSERT INTO moved VALUES (41, 'called')").await?;
    called.query_drop("CALL nothing()").await?;
    sandbox.primary().kill().await?;
    // Each goes on as if nothing had happened.
    text.query_drop("INSERT INTO moved VALUES (2, 'text')").await?;
    text.query_drop("COMMIT").await?;
    let seen: Vec<u32> = prepared.exec("SELECT id FROM moved WHERE id BETWEEN ? AND ?", (11, 19)).await?;
    assert_eq!(seen, [11, 12], "what the transaction itself wrote");
    prepared.query_drop("COMMIT").await?;
    implicit.query_drop("COMMIT").await?;
    // What was answered once and would be answered differently now is not done again.
    let told = random.query_drop("INSERT INTO moved VALUES (32, 'random')").await;
    assert!(is_error(&told, 1180), "{told:?}");
    random.query_drop("INSERT INTO moved VALUES (33, 'random')").await?;
    // A procedure may have committed.
    let told = called.query_drop("INSERT INTO moved VALUES (42, 'called')").await;
    assert!(told.is_err(), "{told:?}");
    let primary = new_primary(&sandbox, &proxy).await?;
    assert_ne!(primary.address(), sandbox.primary().address());
    let rows: Vec<u32> = primary.rows("SELECT id FROM app.moved ORDER BY id").await?;
    assert_eq!(rows, [1, 2, 11, 12, 21, 33]);
    Ok(())
}

fn is_error(answer: &mysql_async::Result<()>, code: u16) -> bool {
    matches!(answer, Err(mysql_async::Error::Server(error)) if error.code == code)
}

/// Whether the status says that acknowledged transactions are on no server that answers.
fn is_missed(status: &Value) -> bool {
    let held = status["failover"]["held"].as_str().unwrap_or_default();
    status["primary"].is_null()
        && held.contains("acknowledged and not found on any server that was reached: ")
}

async fn frozen(stage: Arc<Stage>) -> Outcome {
    let (sandbox, proxy) = (stage.sandbox().await?, stage.proxy().await?);
    proxy.armed("lossless").await;
    let traffic = writers(&proxy).await?;
    sandbox.primary().freeze().await?;
    let pause = replaced(&sandbox, &proxy, &traffic).await?;
    println!("{:?}: writes went on {} ms after the freeze", stage.flavour(), pause.as_millis());
    nothing_lost(&*new_primary(&sandbox, &proxy).await?, &traffic).await?;
    sandbox.primary().kill().await?;
    Ok(())
}

/// Another primary would do no better.
/// The primary does not show a transaction that waits for an acknowledgement; a replica that has applied it has not strayed.
async fn ahead(stage: Arc<Stage>) -> Outcome {
    let (sandbox, proxy) = (stage.sandbox().await?, stage.proxy().await?);
    proxy.armed("lossless").await;
    let [one, other] = sandbox.replicas() else { return Err("expected two replicas".into()) };
    let word = if stage.flavour() == Flavour::Mariadb { "slave" } else { "replica" };
    let acknowledge = |on: u8| format!("SET GLOBAL rpl_semi_sync_{word}_enabled={on}");
    one.run(&["STOP REPLICA IO_THREAD"]).await?;
    other.run(&["STOP REPLICA IO_THREAD", &acknowledge(0), "START REPLICA IO_THREAD"]).await?;
    let options = proxy.options(APP, "app");
    let waiting = tokio::spawn(async move {
        let mut conn = mysql_async::Conn::new(options).await?;
        conn.query_drop("CREATE TABLE app.waits (id INT PRIMARY KEY)").await
    });
    let has_it = async || {
        let sql = "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_NAME = 'waits'";
        other.rows::<String>(sql).await.is_ok_and(|rows| !rows.is_empty())
    };
    eventually("a replica has what waits", LIMIT, has_it).await;
    other.run(&["STOP REPLICA IO_THREAD", &acknowledge(1)]).await?;
    waiting.await??;
    proxy.armed("lossless").await;
    assert!(!proxy.log().contains("cannot rejoin"), "it is taken for one that has strayed");
    Ok(())
}

async fn stalled(stage: Arc<Stage>) -> Outcome {
    let (sandbox, proxy) = (stage.sandbox().await?, stage.proxy().await?);
    proxy.armed("lossless").await;
    let traffic = writers(&proxy).await?;
    for replica in sandbox.replicas() {
        replica.run(&["STOP REPLICA IO_THREAD"]).await?;
    }
    eventually("the verdict", LIMIT, async || {
        let Ok(status) = proxy.status().await else { return false };
        let reason = status["failover"]["verdict_reason"].as_str().unwrap_or_default();
        status["failover"]["verdict"] == "STALLED" && reason.contains("no replica acknowledges")
    })
    .await;
    // The receivers are started again after three seconds.
    stays(&sandbox, &proxy, |_| true).await?;
    traffic.goes_on().await;
    eventually("the primary is well again", LIMIT, async || {
        proxy.status().await.is_ok_and(|status| status["failover"]["verdict"] == "ALIVE")
    })
    .await;
    nothing_lost(sandbox.primary(), &traffic).await
}

/// MariaDB's plain KILL would end the wait and answer OK.
async fn killed_while_it_waits(stage: Arc<Stage>) -> Outcome {
    let (sandbox, proxy) = (stage.sandbox().await?, stage.proxy().await?);
    let traffic = writers(&proxy).await?;
    for replica in sandbox.replicas() {
        replica.run(&["STOP REPLICA IO_THREAD"]).await?;
    }
    let mut client = proxy.connect(APP, "app").await?;
    let waiting =
        "SELECT ID FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID() AND INFO LIKE 'INSERT%'";
    let (mut ids, mut written): (Vec<u64>, u64) = (Vec::new(), 0);
    for _ in 0..LOOKS {
        written = traffic.tally().writes;
        tokio::time::sleep(Duration::from_millis(50)).await;
        ids = client.query(waiting).await?;
        if ids.len() == traffic.writers() && traffic.tally().writes == written {
            break;
        }
    }
    assert_eq!(ids.len(), traffic.writers(), "not all writers wait");
    for id in ids {
        client.query_drop(format!("KILL QUERY {id}")).await?;
    }
    // That nothing comes of it is what is waited for.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(traffic.tally().writes, written, "acknowledged without a replica");
    for replica in sandbox.replicas() {
        replica.run(&["START REPLICA IO_THREAD"]).await?;
    }
    traffic.goes_on().await;
    nothing_lost(sandbox.primary(), &traffic).await
}

async fn locked(stage: Arc<Stage>) -> Outcome {
    let (sandbox, proxy) = (stage.sandbox().await?, stage.proxy().await?);
    proxy.armed("lossless").await;
    let traffic = writers(&proxy).await?;
    let mut holder = sandbox.primary().connect().await?;
    holder.query_drop("FLUSH TABLES WITH READ LOCK").await?;
    stays(&sandbox, &proxy, |status| status["failover"]["verdict"] != "STALLED").await?;
    holder.query_drop("UNLOCK TABLES").await?;
    traffic.goes_on().await;
    nothing_lost(sandbox.primary(), &traffic).await
}

/// For longer than a stall is waited for: nobody is promoted, and status is as `wanted`.
async fn stays(sandbox: &Sandbox, proxy: &Proxy, wanted: impl Fn(&Value) -> bool) -> Outcome {
    let (began, address) = (Instant::now(), sandbox.primary().address());
    let epoch = proxy.status().await?["epoch"].clone();
    while began.elapsed() < Duration::from_secs(7) {
        let status = proxy.status().await?;
        assert!(wanted(&status), "after {:?}: {status}", began.elapsed());
        assert!(primary_of(&status).is_none_or(|primary| primary == address), "{status}");
        // Looking must not be the load.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // A moment without a primary is a busy machine's.
    eventually("the primary is in its place", LIMIT, async || {
        let status = proxy.status().await.unwrap_or_default();
        status["epoch"] == epoch && primary_of(&status).is_some_and(|primary| primary == address)
    })
    .await;
    Ok(())
}

async fn writers(proxy: &Proxy) -> Result<Traffic, Failure> {
    let load = Load { readers: 2, writers: 4, transactions: 0, pace: Duration::from_millis(2) };
    let traffic = Traffic::start(proxy.options(APP, "app"), load).await?;
    traffic.goes_on().await;
    Ok(traffic)
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
    traffic.goes_on().await;
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

async fn nothing_lost(primary: &Server, traffic: &Traffic) -> Outcome {
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
