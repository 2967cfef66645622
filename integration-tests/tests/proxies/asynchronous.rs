//! Without acknowledgements from replicas: what any proxy has acknowledged is known to all, and leases count.

use std::sync::Arc;

use mysql_async::prelude::Queryable;
use pointsman_integration_tests::sandbox::APP;
use pointsman_integration_tests::{Layout, Outcome, Stage, eventually};
use pointsman_router::failover::Phase;
use tokio::time::Instant;

use crate::coordinator::{find_again, lose};
use crate::{LIMIT, RESUMED_WITHIN, SHORT_LEASE, Scene, TWO};

/// How a failover says what it waits for; the GTIDs follow.
pub(crate) const LACKS: &str = "acknowledged and not found on any server that was reached: ";

/// The replicas have everything when the primary dies.
pub(crate) async fn killed(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage, TWO).await?;
    scene.ledger.pause().await;
    scene.fleet.sandbox.caught_up(LIMIT).await?;
    let killed = Instant::now();
    scene.fleet.primary()?.kill().await?;
    scene.ledger.go_on();
    let pause = scene.resumes(&scene.all(), killed).await;
    assert!(pause < RESUMED_WITHIN, "{pause:?}");
    let proof = scene.prove().await?;
    assert_eq!(proof.epochs.len(), 2, "{proof:?}");
    scene.ledger.few_failed(&scene.all(), 1);
    Ok(())
}

/// A row that only the primary has, acknowledged through the proxy that does not act, is waited for.
pub(crate) async fn only_on_the_primary(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage, TWO).await?;
    scene.ledger.pause().await;
    scene.fleet.sandbox.caught_up(LIMIT).await?;
    for replica in scene.fleet.sandbox.replicas() {
        replica.cut_replication(true).await;
    }
    let last = *scene.fleet.ranks().await?.last().ok_or("no proxy is registered")?;
    let mut client = scene.fleet.members[last].proxy.connect(APP, "app").await?;
    client.query_drop("INSERT INTO ledger VALUES (4000000000, 0, 0)").await?;
    drop(client);
    let primary = scene.fleet.primary()?;
    primary.kill().await?;
    scene.fleet.record_becomes("FENCING", |record| record.phase == Phase::Fencing).await;
    scene.held(LACKS).await;
    for replica in scene.fleet.sandbox.replicas() {
        replica.cut_replication(false).await;
    }
    primary.start().await?;
    scene.ledger.go_on();
    scene.ledger.goes_on(&scene.all()).await;
    let rows: Vec<u64> =
        scene.fleet.primary()?.rows("SELECT COUNT(*) FROM app.ledger WHERE id = 4000000000").await?;
    assert_eq!(rows, [1]);
    scene.prove().await?;
    Ok(())
}

/// Without the coordinator nobody knows whether another server was promoted: writes wait, reads do not.
pub(crate) async fn etcd_stopped(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage, Layout { lease: SHORT_LEASE, ..TWO }).await?;
    lose(&scene).await?;
    for member in &scene.fleet.members {
        eventually("writes are held at the end of the lease", LIMIT, async || {
            let status = member.proxy.status().await.unwrap_or_default();
            status["failover"]["held"].as_str().is_some_and(|reason| reason.contains("coordinator"))
        })
        .await;
        let mut reader = member.proxy.connect(APP, "app").await?;
        let count: Option<u64> = reader.query_first("SELECT COUNT(*) FROM ledger").await?;
        assert!(count.is_some_and(|count| count > 0));
    }
    find_again(&scene).await?;
    scene.ledger.goes_on(&scene.all()).await;
    let proof = scene.prove().await?;
    assert_eq!(proof.epochs.len(), 1, "{proof:?}");
    Ok(())
}
