//! The network falls apart: the side with the quorum decides, and no row is acknowledged that the other one lacks.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use nix::sys::signal::Signal;
use pointsman_integration_tests::sandbox::APP;
use pointsman_integration_tests::{Layout, Outcome, Stage};
use tokio::time::Instant;

use crate::Scene;

/// The primary is the first server.
pub(crate) async fn primary_in_the_minority(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage, ALL).await?;
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
    let scene = Scene::set(&stage, ALL).await?;
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
        for member in (0..ALL.members).filter(|member| self.etcd.contains(member) == self.is_minority) {
            scene.fleet.etcd.signal(member, signal).await?;
        }
        Ok(())
    }
}

const ALL: Layout = Layout { proxies: 3, members: 3, linked: true, own_clocks: false };
/// Longer than a lease.
const PARTED_FOR: Duration = Duration::from_secs(6);
/// The silent primary is found by the replicas' missing heartbeats, and etcd may have to elect a leader.
const REPLACED_WITHIN: Duration = Duration::from_secs(8);
