//! The coordinator is lost, in part or as a whole.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use pointsman_integration_tests::sandbox::APP;
use pointsman_integration_tests::{Layout, Outcome, Stage, eventually};
use tokio::time::Instant;

use crate::{LIMIT, RESUMED_WITHIN, SHORT_LEASE, Scene, TWO};

const SHORT: Layout = Layout { lease: SHORT_LEASE, ..TWO };
const THREE_MEMBERS: Layout = Layout { members: 3, ..TWO };
/// Twice a lease: whoever would stop at its end has stopped.
const WITHOUT_FOR: Duration = Duration::from_secs(6);
/// An election of etcd takes up to a second, and an actor waits as long for a lost swap.
const ELECTED_WITHIN: Duration = Duration::from_secs(6);

pub(crate) async fn one_member(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage, THREE_MEMBERS).await?;
    let leader = scene.fleet.etcd.leader().await?;
    scene.fleet.etcd.kill((leader + 1) % 3).await?;
    scene.ledger.goes_on(&scene.all()).await;
    let killed = Instant::now();
    scene.fleet.primary()?.kill().await?;
    let pause = scene.resumes(&scene.all(), killed).await;
    assert!(pause < RESUMED_WITHIN, "{pause:?}");
    scene.prove().await?;
    scene.ledger.few_failed(&scene.all(), 1);
    Ok(())
}

pub(crate) async fn leader(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage, THREE_MEMBERS).await?;
    let leader = scene.fleet.etcd.leader().await?;
    let primary = scene.fleet.primary()?;
    let killed = Instant::now();
    let (one, other) = tokio::join!(primary.kill(), scene.fleet.etcd.kill(leader));
    one?;
    other?;
    let pause = scene.resumes(&scene.all(), killed).await;
    assert!(pause < ELECTED_WITHIN, "{pause:?}");
    scene.prove().await?;
    scene.ledger.few_failed(&scene.all(), 1);
    Ok(())
}

/// Kills etcd and waits until every proxy has noticed.
pub(crate) async fn lose(scene: &Scene) -> Outcome {
    scene.fleet.etcd.kill(0).await?;
    for member in &scene.fleet.members {
        eventually("the lost coordinator is an alarm", LIMIT, async || {
            let status = member.proxy.status().await.unwrap_or_default();
            status["failover"]["coordinator_lost"].as_str().is_some_and(|reason| !reason.is_empty())
        })
        .await;
    }
    Ok(())
}

/// Starts etcd again, with what it had.
pub(crate) async fn find_again(scene: &Scene) -> Outcome {
    scene.fleet.etcd.run(0).await?;
    scene.fleet.etcd.answers().await
}

pub(crate) async fn stopped(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage, SHORT).await?;
    let before = scene.fleet.record().ok_or("no record")?;
    let began = Instant::now();
    lose(&scene).await?;
    while began.elapsed() < WITHOUT_FOR {
        scene.ledger.goes_on(&scene.all()).await;
    }
    find_again(&scene).await?;
    scene.ledger.goes_on(&scene.all()).await;
    let proof = scene.prove().await?;
    assert_eq!(proof.epochs.keys().copied().collect::<Vec<_>>(), [before.epoch]);
    scene.ledger.few_failed(&scene.all(), 0);
    Ok(())
}

pub(crate) async fn stopped_then_killed(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage, SHORT).await?;
    let before = scene.fleet.record().ok_or("no record")?;
    lose(&scene).await?;
    scene.fleet.primary()?.kill().await?;
    for member in &scene.fleet.members {
        eventually("writes are held, and why is said", LIMIT, async || {
            let status = member.proxy.status().await.unwrap_or_default();
            status["failover"]["held"].as_str().is_some_and(|reason| reason.contains("coordinator"))
        })
        .await;
    }
    for member in &scene.fleet.members {
        let mut reader = member.proxy.connect(APP, "app").await?;
        for _ in 0..READS {
            let count: Option<u64> = reader.query_first("SELECT COUNT(*) FROM ledger").await?;
            assert!(count.is_some_and(|count| count > 0));
        }
    }
    for server in scene.fleet.sandbox.replicas() {
        let read_only: Vec<bool> = server.rows("SELECT @@global.read_only").await?;
        assert_eq!(read_only, [true], "{} was opened without the coordinator", server.name());
    }
    assert_eq!(scene.fleet.record().as_ref(), Some(&before));
    let found = Instant::now();
    find_again(&scene).await?;
    let primary = scene.fleet.record_becomes("another primary", |record| record.primary != before.primary);
    primary.await;
    scene.ledger.goes_on(&scene.all()).await;
    println!("writes went on {} ms after etcd was started", found.elapsed().as_millis());
    scene.prove().await?;
    scene.ledger.few_failed(&scene.all(), 1);
    Ok(())
}

const READS: usize = 50;
