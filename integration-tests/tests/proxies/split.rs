//! The network falls apart: the side with the quorum decides, and no row is acknowledged that the other one lacks.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use nix::sys::signal::Signal;
use pointsman_integration_tests::sandbox::APP;
use pointsman_integration_tests::{Layout, Outcome, Stage, eventually};
use tokio::time::{Instant, sleep};

use crate::{LIMIT, SHORT_LEASE, Scene, TWO};

/// The primary is the first server.
pub(crate) async fn primary_in_the_minority(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage, THREE).await?;
    let ranks = scene.fleet.ranks().await?;
    // The proxy that would act first cannot: it is with the primary.
    let (with_primary, others) = ranks.split_first().ok_or("no proxy is registered")?;
    let side = Side { proxies: vec![*with_primary], servers: vec![0], etcd: vec![0], is_minority: true };
    side.part(&scene, true).await?;
    let parted = Instant::now();
    let pause = scene.resumes(others, parted).await;
    assert!(pause < REPLACED_WITHIN, "{pause:?}");
    // What began before may still be answered; what begins now never is.
    let written = scene.ledger.written(*with_primary);
    while parted.elapsed() < PARTED_FOR {
        scene.ledger.goes_on(others).await;
    }
    assert_eq!(scene.ledger.written(*with_primary), written, "acknowledged without the majority");
    side.part(&scene, false).await?;
    scene.ledger.goes_on(&scene.all()).await;
    let proof = scene.prove().await?;
    assert_eq!(proof.epochs.len(), 2, "{proof:?}");
    scene.ledger.few_failed(others, 1);
    Ok(())
}

/// The quorum and a replica that acknowledges are with the primary: it stays, and the others serve reads only.
pub(crate) async fn primary_with_an_acker(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage, THREE).await?;
    let before = scene.fleet.record().ok_or("no record")?;
    let ranks = scene.fleet.ranks().await?;
    let (with_primary, others) = ranks.split_first().ok_or("no proxy is registered")?;
    let mut reader = scene.fleet.members[others[0]].proxy.connect(APP, "app").await?;
    let side =
        Side { proxies: vec![*with_primary], servers: vec![0, 1], etcd: vec![0, 1], is_minority: false };
    side.part(&scene, true).await?;
    let parted = Instant::now();
    while parted.elapsed() < PARTED_FOR {
        scene.ledger.goes_on(&[*with_primary]).await;
        assert_eq!(scene.fleet.record().as_ref(), Some(&before));
        let rows: Option<u64> = reader.query_first("SELECT COUNT(*) FROM ledger").await?;
        assert!(rows.is_some_and(|rows| rows > 0), "{rows:?}");
    }
    side.part(&scene, false).await?;
    scene.ledger.goes_on(&scene.all()).await;
    let proof = scene.prove().await?;
    assert_eq!(proof.epochs.len(), 1, "{proof:?}");
    scene.ledger.few_failed(&[*with_primary], 0);
    Ok(())
}

/// Who comes past the proxies to the primary gets no acknowledgement there either.
pub(crate) async fn primary_alone(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage, ONE_MEMBER).await?;
    let old = scene.fleet.primary()?;
    let mut direct = old.connect_as(APP, "app").await?;
    let side = Side { proxies: Vec::new(), servers: vec![0], etcd: Vec::new(), is_minority: true };
    side.part(&scene, true).await?;
    let parted = Instant::now();
    let writes = direct.query_drop("CREATE TABLE app.past_the_proxies (id INT PRIMARY KEY)");
    let written = tokio::time::timeout(PARTED_FOR, writes).await;
    assert!(!matches!(written, Ok(Ok(()))), "acknowledged without a replica");
    let pause = scene.resumes(&scene.all(), parted).await;
    assert!(pause < REPLACED_WITHIN, "{pause:?}");
    side.part(&scene, false).await?;
    scene.ledger.goes_on(&scene.all()).await;
    let proof = scene.prove().await?;
    assert_eq!(proof.epochs.len(), 2, "{proof:?}");
    scene.ledger.few_failed(&scene.all(), 1);
    Ok(())
}

pub(crate) async fn without_replicas(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage, ONE_MEMBER).await?;
    for replica in scene.fleet.sandbox.replicas() {
        replica.silence_replication(true).await;
    }
    nobody_would_do_better(&scene).await?;
    for replica in scene.fleet.sandbox.replicas() {
        replica.silence_replication(false).await;
    }
    // What waited is acknowledged, and more after it, by the same primary.
    scene.stays(0).await
}

pub(crate) async fn unheard(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage, ONE_MEMBER).await?;
    for replica in scene.fleet.sandbox.replicas() {
        replica.mute_replication(true).await;
    }
    nobody_would_do_better(&scene).await?;
    for replica in scene.fleet.sandbox.replicas() {
        replica.mute_replication(false).await;
    }
    // What waited is acknowledged, and more after it, by the same primary.
    scene.stays(0).await
}

/// Writes wait, a proxy says why, and nobody is promoted.
async fn nobody_would_do_better(scene: &Scene) -> Outcome {
    let began = Instant::now();
    let before = scene.fleet.record().ok_or("no record")?;
    eventually("a proxy knows that writes stand still", LIMIT, async || {
        for member in &scene.fleet.members {
            let status = member.proxy.status().await.unwrap_or_default();
            if status["failover"]["verdict"] == "STALLED" {
                return true;
            }
        }
        false
    })
    .await;
    println!("STALLED after {} ms", began.elapsed().as_millis());
    let written: Vec<_> = scene.all().iter().map(|via| scene.ledger.written(*via)).collect();
    sleep(STANDS_STILL_FOR).await;
    let still: Vec<_> = scene.all().iter().map(|via| scene.ledger.written(*via)).collect();
    assert_eq!(still, written, "acknowledged without a replica");
    assert_eq!(scene.fleet.record().as_ref(), Some(&before));
    Ok(())
}

/// What is together on one side; everything else is on the other one.
struct Side {
    proxies: Vec<usize>,
    servers: Vec<usize>,
    etcd: Vec<usize>,
    /// Of the members of etcd.
    is_minority: bool,
}

impl Side {
    /// Lets nothing through between the sides, or everything again.
    async fn part(&self, scene: &Scene, parted: bool) -> Outcome {
        for (at, member) in scene.fleet.members.iter().enumerate() {
            let here = self.proxies.contains(&at);
            let to_servers = member.to_servers.iter().enumerate();
            let to_etcd = member.to_etcd.iter().enumerate();
            let across = to_servers.filter(|(server, _)| self.servers.contains(server) != here);
            let across = across.chain(to_etcd.filter(|(member, _)| self.etcd.contains(member) != here));
            across.for_each(|(_, link)| link.silence(parted));
        }
        for (at, server) in scene.fleet.sandbox.servers().iter().enumerate() {
            if self.servers.contains(&at) != self.servers.contains(&0) {
                server.silence_replication(parted).await;
            }
        }
        // A member that reaches no majority gives no answer that counts, as one that is frozen.
        let signal = if parted { Signal::SIGSTOP } else { Signal::SIGCONT };
        for member in (0..scene.fleet.etcd.ports().len())
            .filter(|member| self.etcd.contains(member) == self.is_minority)
        {
            scene.fleet.etcd.signal(member, signal).await?;
        }
        Ok(())
    }
}

const ONE_MEMBER: Layout = Layout { linked: true, lease: SHORT_LEASE, ..TWO };
const THREE: Layout = Layout { proxies: 3, members: 3, ..ONE_MEMBER };
/// Longer than a lease.
const PARTED_FOR: Duration = Duration::from_secs(6);
/// The silent primary is found by the replicas' missing heartbeats, and etcd may have to elect a leader.
const REPLACED_WITHIN: Duration = Duration::from_secs(12);
const STANDS_STILL_FOR: Duration = Duration::from_secs(2);
