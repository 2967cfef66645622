//! Partitions: who cannot see the primary does not take its place away from those who can.

use std::sync::Arc;
use std::time::Duration;

use pointsman_integration_tests::{Layout, Outcome, Stage, eventually};
use tokio::time::Instant;

use crate::{Scene, TWO};

const LIMIT: Duration = Duration::from_secs(30);

pub(crate) async fn one_proxy(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage, Layout { linked: true, ..TWO }).await?;
    let before = scene.fleet.record().ok_or("no record")?;
    // The one that would act first.
    let cut_off = *scene.fleet.ranks().await?.first().ok_or("no proxy is registered")?;
    let member = &scene.fleet.members[cut_off];
    let to_primary = member.to_servers.first().ok_or("no link")?;
    to_primary.silence(true);
    let began = Instant::now();
    eventually("the proxy knows that it is the one", LIMIT, async || {
        let status = member.proxy.status().await.unwrap_or_default();
        status["failover"]["verdict"] == "UNREACHABLE"
    })
    .await;
    println!("UNREACHABLE after {} ms", began.elapsed().as_millis());
    // Long enough for everything that might go wrong: what replicas hear, what the other proxy says.
    let others = scene.all_but(cut_off);
    while began.elapsed() < CUT_FOR {
        scene.ledger.goes_on(&others).await;
        assert_eq!(scene.fleet.record().as_ref(), Some(&before));
    }
    to_primary.silence(false);
    scene.ledger.goes_on(&scene.all()).await;
    let proof = scene.prove().await?;
    assert_eq!(proof.epochs.len(), 1, "{proof:?}");
    scene.ledger.few_failed(&others, 0);
    Ok(())
}

const CUT_FOR: Duration = Duration::from_secs(3);
