//! Partitions: who cannot see the primary does not take its place away from those who can.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use pointsman_integration_tests::sandbox::{APP, Link};
use pointsman_integration_tests::{Fleet, Layout, Member, Outcome, Stage, eventually};
use tokio::time::{Instant, sleep};

use crate::{LIMIT, RESUMED_WITHIN, Scene, TWO};

const LINKED: Layout = Layout { linked: true, ..TWO };

/// Waits until a proxy knows that it cannot judge the primary.
async fn knows(member: &Member) {
    eventually("the proxy knows that it cannot reach the primary", LIMIT, async || {
        let status = member.proxy.status().await.unwrap_or_default();
        status["failover"]["verdict"] == "UNREACHABLE"
    })
    .await;
}

/// What lies between each proxy and the primary, which is the first server.
fn to_primary(fleet: &Fleet) -> Vec<&Link> {
    fleet.members.iter().filter_map(|member| member.to_servers.first()).collect()
}

pub(crate) async fn one_proxy(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage, LINKED).await?;
    let before = scene.fleet.record().ok_or("no record")?;
    // The one that would act first.
    let cut_off = *scene.fleet.ranks().await?.first().ok_or("no proxy is registered")?;
    let member = &scene.fleet.members[cut_off];
    let to_primary = member.to_servers.first().ok_or("no link")?;
    to_primary.silence(true);
    let began = Instant::now();
    knows(member).await;
    println!("UNREACHABLE after {} ms", began.elapsed().as_millis());
    // Long enough for everything that might go wrong: what replicas hear, what the other proxy says.
    let others = scene.all_but(cut_off);
    while began.elapsed() < CUT_FOR {
        scene.ledger.goes_on(&others).await;
        assert_eq!(scene.fleet.record().as_ref(), Some(&before));
    }
    to_primary.silence(false);
    scene.stays(1).await?;
    scene.ledger.few_failed(&others, 0);
    Ok(())
}

const CUT_FOR: Duration = Duration::from_secs(3);

/// The replicas are fed, so it lives: writes wait for it, reads go on.
pub(crate) async fn all_proxies(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage, LINKED).await?;
    let before = scene.fleet.record().ok_or("no record")?;
    let mut reader = scene.fleet.members[0].proxy.connect(APP, "app").await?;
    let began = Instant::now();
    to_primary(&scene.fleet).into_iter().for_each(|link| link.silence(true));
    for member in &scene.fleet.members {
        knows(member).await;
    }
    println!("UNREACHABLE after {} ms", began.elapsed().as_millis());
    let written: Vec<_> = scene.all().iter().map(|via| scene.ledger.written(*via)).collect();
    let known = Instant::now();
    while known.elapsed() < CUT_FOR {
        for member in &scene.fleet.members {
            let status = member.proxy.status().await?;
            assert_eq!(status["failover"]["verdict"], "UNREACHABLE", "{status}");
        }
        let rows: Option<u64> = reader.query_first("SELECT COUNT(*) FROM ledger").await?;
        assert!(rows.is_some_and(|rows| rows > 0), "{rows:?}");
        assert_eq!(scene.fleet.record().as_ref(), Some(&before));
        // Looking must not be the load.
        sleep(Duration::from_millis(20)).await;
    }
    let still: Vec<_> = scene.all().iter().map(|via| scene.ledger.written(*via)).collect();
    assert_eq!(still, written, "acknowledged by a primary that no proxy reaches");
    to_primary(&scene.fleet).into_iter().for_each(|link| link.silence(false));
    scene.stays(1).await
}

/// What the primary sends is late, and now and then more so, as when a packet is lost and sent again.
pub(crate) async fn late(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage, LINKED).await?;
    let links = to_primary(&scene.fleet);
    links.iter().for_each(|link| link.delay(LATE));
    for replica in scene.fleet.sandbox.replicas() {
        replica.delay_replication(LATE).await?;
    }
    let began = Instant::now();
    while began.elapsed() < LATE_FOR {
        scene.ledger.goes_on(&scene.all()).await;
        links.iter().for_each(|link| link.silence(true));
        // This is the fault, not a wait for something.
        sleep(SENT_AGAIN).await;
        links.iter().for_each(|link| link.silence(false));
    }
    for via in scene.all() {
        let pause = scene.ledger.longest_pause(via, began);
        println!("the longest pause of proxy {via} was {} ms", pause.as_millis());
        assert!(pause < RESUMED_WITHIN, "{pause:?}");
    }
    links.iter().for_each(|link| link.delay(Duration::ZERO));
    scene.stays(1).await
}

const LATE: Duration = Duration::from_millis(200);
const LATE_FOR: Duration = Duration::from_secs(6);
/// The least time after which TCP sends again.
const SENT_AGAIN: Duration = Duration::from_millis(200);
