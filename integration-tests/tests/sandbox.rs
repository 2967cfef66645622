//! A sandbox is a real topology: it replicates, its servers can be stopped in every way, and it leaves nothing behind.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use pointsman_integration_tests::sandbox::{APP, Options, SERVICE, Sandbox};
use pointsman_integration_tests::{FLAVOURS, Outcome, Plan, Stage, Suite, eventually};

fn main() {
    let mut suite = Suite::new();
    for flavour in FLAVOURS {
        let mut plan = Plan::new(flavour);
        plan.sandbox.linked = true;
        let stage = suite.stage(plan);
        suite.test(&stage, "replicas follow and refuse writes", replicas_follow);
        suite.test(&stage, "a killed server comes back with its data", killed_server_comes_back);
        suite.test(&stage, "a frozen server answers nothing until it is thawed", frozen_server);
        suite.test(&stage, "a stopped applier holds a replica back", stopped_applier);
        suite.test(&stage, "replication is delayed by milliseconds", delayed_replication);
        suite.test(&stage, "the general log shows what ran", general_log);
        suite.test(&stage, "the end of a sandbox leaves nothing behind", nothing_is_left);
    }
    suite.run()
}

async fn replicas_follow(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let mut app = sandbox.primary().connect_as(APP, "app").await?;
    app.query_drop("CREATE TABLE follow (id INT PRIMARY KEY)").await?;
    app.query_drop("INSERT INTO follow VALUES (1), (2)").await?;
    app.disconnect().await?;
    sandbox.caught_up(LIMIT).await?;
    for replica in sandbox.replicas() {
        let before = replica.counter("Com_select").await?;
        let mut app = replica.connect_as(APP, "app").await?;
        let rows: Option<u64> = app.query_first("SELECT COUNT(*) FROM follow").await?;
        assert_eq!(rows, Some(2));
        let refused = app.query_drop("INSERT INTO follow VALUES (3)").await;
        assert!(refused.is_err_and(|error| error.to_string().contains("1290")));
        assert!(replica.counter("Com_select").await? > before);
        replica.connect_as(SERVICE, "").await?.disconnect().await?;
    }
    Ok(())
}

async fn killed_server_comes_back(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    sandbox
        .primary()
        .run(&["CREATE TABLE app.kept (id INT PRIMARY KEY)", "INSERT INTO app.kept VALUES (7)"])
        .await?;
    sandbox.primary().kill().await?;
    assert!(sandbox.primary().connect().await.is_err());
    sandbox.primary().start().await?;
    assert_eq!(sandbox.primary().rows::<u32>("SELECT id FROM app.kept").await?, [7]);
    sandbox.primary().run(&["INSERT INTO app.kept VALUES (8)"]).await?;
    sandbox.caught_up(LIMIT).await?;
    sandbox.primary().stop().await?;
    sandbox.primary().start().await?;
    sandbox.primary().run(&["INSERT INTO app.kept VALUES (9)"]).await?;
    Ok(sandbox.caught_up(LIMIT).await?)
}

async fn frozen_server(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let replica = &sandbox.replicas()[0];
    let mut conn = replica.connect().await?;
    replica.freeze().await?;
    let answer = tokio::time::timeout(Duration::from_millis(200), conn.query_drop("DO 1")).await;
    replica.thaw().await?;
    assert!(answer.is_err());
    replica.run(&["DO 1"]).await?;
    Ok(())
}

async fn stopped_applier(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let replica = &sandbox.replicas()[0];
    replica.stop_applier().await?;
    sandbox.primary().run(&["CREATE TABLE app.held (id INT)"]).await?;
    let position = sandbox.primary().position().await?;
    assert!(replica.reach(&position, Duration::from_millis(100)).await.is_err());
    replica.start_applier().await?;
    Ok(replica.reach(&position, LIMIT).await?)
}

async fn delayed_replication(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let replica = &sandbox.replicas()[0];
    sandbox.caught_up(LIMIT).await?;
    let delay = Duration::from_millis(300);
    replica.delay_replication(delay).await?;
    let written = tokio::time::Instant::now();
    sandbox.primary().run(&["CREATE TABLE app.late (id INT)"]).await?;
    let position = sandbox.primary().position().await?;
    replica.reach(&position, LIMIT).await?;
    assert!(written.elapsed() >= delay, "arrived after {:?}", written.elapsed());
    replica.delay_replication(Duration::ZERO).await?;
    Ok(())
}

async fn general_log(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let replica = &sandbox.replicas()[0];
    replica.general_log(true).await?;
    let mut app = replica.connect_as(APP, "app").await?;
    app.query_drop("SELECT 'seen in the log'").await?;
    let _: Vec<u32> = app.exec("SELECT ? + 1", (41,)).await?;
    replica.general_log(false).await?;
    let logged = replica.logged().await?;
    let ours: Vec<_> = logged.iter().filter(|line| line.user == APP.0).collect();
    assert!(ours.iter().any(|line| line.command == "Query" && line.argument == "SELECT 'seen in the log'"));
    assert!(ours.iter().any(|line| line.command == "Execute" && line.argument.contains("41")));
    Ok(())
}

async fn nothing_is_left(stage: Arc<Stage>) -> Outcome {
    let options = Options { flavour: stage.flavour(), ..Options::default() };
    let sandbox = Sandbox::start(&options).await?;
    let pid = sandbox.primary().pid().await.ok_or("no process")?;
    let directory = sandbox.directory().to_owned();
    assert!(directory.exists() && runs(pid));
    drop(sandbox);
    assert!(!directory.exists());
    eventually("the server has ended", LIMIT, async || !runs(pid)).await;
    Ok(())
}

/// Whether a server with this process id runs; a dead process that nobody has waited for does not.
fn runs(pid: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

const LIMIT: Duration = Duration::from_secs(10);
