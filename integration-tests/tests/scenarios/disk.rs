//! A server whose disk is full answers every question and takes nothing.

use std::sync::Arc;
use std::time::Duration;

use pointsman_integration_tests::sandbox::Server;
use pointsman_integration_tests::{Flavour, Outcome, Plan, Stage, Suite, eventually};
use tokio::time::Instant;

use crate::add_all;
use crate::scene::{LIMIT, RESUMED_WITHIN, Scene, lossless};

pub(crate) fn add(suite: &mut Suite, flavour: Flavour) {
    add_all(
        suite,
        vec![
            ("12: the primary's disk is full", small_disk(flavour, 0), |stage| {
                Box::pin(primary_is_full(stage))
            }),
            ("12: the disk of a primary at rest is full", small_disk(flavour, 0), |stage| {
                Box::pin(full_at_rest(stage))
            }),
            ("13: a replica's disk is full", small_disk(flavour, 1), |stage| {
                Box::pin(replica_is_full(stage))
            }),
            ("13: the primary is killed while a replica's disk is full", small_disk(flavour, 1), |stage| {
                Box::pin(killed_meanwhile(stage))
            }),
        ],
    );
}

fn small_disk(flavour: Flavour, at: usize) -> Plan {
    let mut plan = lossless(flavour);
    plan.sandbox.small_disk = Some((at, DISK_MEBIBYTES));
    plan
}

/// Both flavours wait in silence until there is room: no client would ever get an answer.
async fn primary_is_full(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage).await?;
    scene.ready().await;
    let filled = Instant::now();
    scene.sandbox.primary().fill_disk()?;
    stalls(&scene, filled).await;
    is_replaced(&scene, filled).await
}

/// The first write after the rest does not come into the binary log: nothing is to be seen but a commit that hangs.
async fn full_at_rest(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage).await?;
    scene.ready().await;
    let primary = scene.sandbox.primary();
    primary.run(&["CREATE TABLE app.small (id INT PRIMARY KEY)"]).await?;
    scene.ledger.pause().await;
    scene.rests(primary).await?;
    primary.fill_disk()?;
    let (began, writer) = (Instant::now(), primary.clone());
    let hanging = tokio::spawn(async move { write_long_event(&writer).await.is_ok() });
    stalls(&scene, began).await;
    scene.ledger.go_on();
    is_replaced(&scene, began).await?;
    assert!(!hanging.await?, "it was acknowledged");
    Ok(())
}

/// A small row, and in the binary log its whole statement, which is longer than what may be left of the last page.
async fn write_long_event(server: &Server) -> Outcome {
    let insert = format!("INSERT INTO /*{}*/ app.small VALUES (1)", "x".repeat(LONG_BYTES));
    let logs_statements = match server.flavour() {
        Flavour::Mariadb => "SET SESSION binlog_annotate_row_events=1",
        Flavour::Mysql => "SET SESSION binlog_rows_query_log_events=1",
    };
    Ok(server.run(&[logs_statements, &insert]).await?)
}

/// Waits for the verdict.
async fn stalls(scene: &Scene, since: Instant) {
    eventually("the verdict", LIMIT, async || {
        let failover = &scene.status().await["failover"];
        let reason = failover["verdict_reason"].as_str().unwrap_or_default();
        failover["verdict"] == "STALLED" && reason.contains("the disk is full")
    })
    .await;
    println!("STALLED after {} ms", since.elapsed().as_millis());
}

/// Waits for the replacement, and sees to the old primary.
async fn is_replaced(scene: &Scene, since: Instant) -> Outcome {
    let full = scene.sandbox.primary();
    scene.reads_go_on().await;
    let (_, pause) = scene.replaced(full, since).await?;
    assert!(pause > STALLED_FOR - ONE_SECOND, "replaced too early: {pause:?}");
    assert!(pause < STALLED_FOR + SEEN_WITHIN + RESUMED_WITHIN, "{pause:?}");
    is_refused(scene, full).await?;
    // It is of no use before there is room, and what waited on it must not be committed.
    full.kill().await?;
    full.free_disk()?;
    full.start().await?;
    if full.flavour() == Flavour::Mariadb {
        scene.proxy.settled(&scene.sandbox, LIMIT).await;
    }
    scene.goes_on().await;
    scene.prove(2, 1).await?;
    Ok(())
}

/// It acknowledges nothing any more, the other one does.
async fn replica_is_full(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage).await?;
    scene.ready().await;
    let (full, other) = (&scene.sandbox.replicas()[0], &scene.sandbox.replicas()[1]);
    full.fill_disk()?;
    eventually("it is missed", LIMIT, async || scene.status_of(full).await["state"] != "online").await;
    println!("{}", scene.status_of(full).await["reason"]);
    scene.goes_on().await;
    if full.flavour() == Flavour::Mariadb {
        // MySQL's answers all questions, and would be tried for as long as a planned move may take.
        is_refused(&scene, full).await?;
    }
    let held = other.position().await?;
    assert!(full.reach(&held, ONE_SECOND).await.is_err(), "it has all of {held}");
    // MariaDB would look for room once a minute.
    full.kill().await?;
    full.free_disk()?;
    full.start().await?;
    scene.proxy.settled(&scene.sandbox, LIMIT).await;
    scene.ready().await;
    scene.prove(1, 0).await?;
    Ok(())
}

/// What the full one had acknowledged nobody can be sure of before it answers, or the primary does; it has thrown away what
/// it had not applied when it comes back.
async fn killed_meanwhile(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage).await?;
    scene.ready().await;
    let (primary, full) = (scene.sandbox.primary(), &scene.sandbox.replicas()[0]);
    full.fill_disk()?;
    eventually("it is missed", LIMIT, async || scene.status_of(full).await["state"] != "online").await;
    scene.goes_on().await;
    primary.kill().await?;
    // MariaDB's answers nothing as long as it waits for room.
    scene.lacks_proof().await;
    scene.reads_go_on().await;
    scene.nobody_writable(&[full]).await?;
    full.kill().await?;
    full.free_disk()?;
    full.start().await?;
    scene.held(&["missing: ", full.name(), "its replication began anew"]).await;
    scene.nobody_writable(&[]).await?;
    primary.start().await?;
    scene.goes_on().await;
    scene.prove(2, 1).await?;
    Ok(())
}

/// Nobody makes it the primary.
async fn is_refused(scene: &Scene, full: &Server) -> Outcome {
    let promoted = scene.order(&["promote", full.name(), "--yes"]).await?;
    assert_eq!(promoted.code, REFUSED, "{}{}", promoted.out, promoted.err);
    println!("{}", promoted.err);
    Ok(())
}

/// More than a server has at its start, and what it takes to fill it.
const DISK_MEBIBYTES: u64 = 192;
/// How long Pointsman waits for a primary that takes nothing.
const STALLED_FOR: Duration = Duration::from_secs(5);
/// A write that begins at rest is looked for each second and a half, and has to wait for a second before.
const SEEN_WITHIN: Duration = Duration::from_secs(4);
const ONE_SECOND: Duration = Duration::from_secs(1);
const LONG_BYTES: usize = 20_000;
const REFUSED: i32 = 3;
