//! Several proxies agree on who takes writes: whichever of them dies or is cut off, what was acknowledged stays, and
//! no two servers acknowledge in one epoch.
//!
//! The numbers are those of the fault scenarios in docs/failover.md.

#![allow(clippy::print_stdout, reason = "what was measured is part of the report")]

mod asynchronous;
mod clock;
mod coordinator;
mod crashes;
mod cut;
mod kills;
mod split;

use std::sync::Arc;
use std::time::Duration;

use pointsman_integration_tests::sandbox::Options;
use pointsman_integration_tests::{
    FLAVOURS, Failure, Flavour, Fleet, Layout, Ledger, Outcome, PATIENT, Plan, Proof, Stage, Suite, becomes,
};
use tokio::time::Instant;

fn main() {
    let mut suite = Suite::new();
    for flavour in FLAVOURS {
        add_all(&mut suite, flavour);
    }
    suite.run()
}

fn add_all(suite: &mut Suite, flavour: Flavour) {
    let mut add = |name: &str, test: fn(Arc<Stage>) -> Running| {
        let stage = suite.stage(lossless(flavour));
        suite.test(&stage, name, test);
    };
    add("1: two proxies, the primary is killed", |stage| Box::pin(primary_killed(stage, 2)));
    add("1: three proxies, the primary is killed", |stage| Box::pin(primary_killed(stage, 3)));
    add("10: one proxy is cut off from the primary", |stage| Box::pin(cut::one_proxy(stage)));
    add("23: the acting proxy is killed after FENCING", |stage| Box::pin(crashes::fencing(stage)));
    add("24: the acting proxy is killed after CHOSEN", |stage| Box::pin(crashes::chosen(stage)));
    add("25: the acting proxy is killed after ACTIVE", |stage| Box::pin(crashes::active(stage)));
    add("26: the acting proxy is frozen in the middle", |stage| Box::pin(crashes::frozen(stage)));
    add("27: the primary and the proxy that would act are killed", |stage| Box::pin(crashes::both(stage)));
    add("28: a member of etcd is stopped, then the primary is killed", |stage| {
        Box::pin(coordinator::one_member(stage))
    });
    add("29: the leader of etcd and the primary are killed", |stage| Box::pin(coordinator::leader(stage)));
    add("30: etcd is stopped", |stage| Box::pin(coordinator::stopped(stage)));
    add("31: etcd is stopped, then the primary is killed", |stage| {
        Box::pin(coordinator::stopped_then_killed(stage))
    });
    add("34: the wall clock of a proxy jumps", |stage| Box::pin(clock::jumps(stage)));
    let mut add = |name: &str, test: fn(Arc<Stage>) -> Running| {
        let mut plan = lossless(flavour);
        plan.sandbox.linked = true;
        let stage = suite.stage(plan);
        suite.test(&stage, name, test);
    };
    add("6: the primary is cut off from everything", |stage| Box::pin(split::primary_alone(stage)));
    add("7: all proxies are cut off from the primary", |stage| Box::pin(cut::all_proxies(stage)));
    add("8: the primary is cut off from its replicas", |stage| Box::pin(split::without_replicas(stage)));
    add("9: what the replicas acknowledge is lost on the way", |stage| Box::pin(split::unheard(stage)));
    add("11: what the primary sends is late", |stage| Box::pin(cut::late(stage)));
    add("32: the network falls apart, the primary on the smaller side", |stage| {
        Box::pin(split::primary_in_the_minority(stage))
    });
    add("33: the network falls apart, the primary with a replica on the side with the quorum", |stage| {
        Box::pin(split::primary_with_an_acker(stage))
    });
    let mut add = |name: &str, linked, test: fn(Arc<Stage>) -> Running| {
        let sandbox = Options { flavour, replicas: 2, linked, ..Options::default() };
        let stage = suite.stage(Plan { sandbox, configuration: String::new() });
        suite.test(&stage, name, test);
    };
    add("1: async, the primary is killed", false, |stage| Box::pin(asynchronous::killed(stage)));
    add("async: what one proxy acknowledged another one does not lose", true, |stage| {
        Box::pin(asynchronous::only_on_the_primary(stage))
    });
    add("30: async, etcd is stopped", false, |stage| Box::pin(asynchronous::etcd_stopped(stage)));
    add("async: kills in a row, two proxies", false, |stage| Box::pin(kills::in_a_row(stage)));
}

type Running = std::pin::Pin<Box<dyn Future<Output = Outcome> + Send>>;

fn lossless(flavour: Flavour) -> Plan {
    let sandbox = Options { flavour, replicas: 2, lossless: true, ..Options::default() };
    Plan { sandbox, configuration: String::new() }
}

/// Two proxies and one member of etcd.
const TWO: Layout =
    Layout { proxies: 2, members: 1, linked: false, own_clocks: false, lease: Duration::from_secs(10) };
/// The default one, where its end is waited for.
const SHORT_LEASE: Duration = Duration::from_secs(3);

/// A fleet, and writers at each of its proxies that are at work.
struct Scene {
    fleet: Fleet,
    ledger: Ledger,
}

impl Scene {
    async fn set(stage: &Stage, layout: Layout) -> Result<Self, Failure> {
        let fleet = Fleet::start(stage.sandbox().await?, layout, PATIENT).await?;
        let ledger = Ledger::start(&*fleet.primary()?, &fleet.options(), WRITERS).await?;
        let scene = Self { fleet, ledger };
        scene.ledger.goes_on(&scene.all()).await;
        Ok(scene)
    }

    fn all(&self) -> Vec<usize> {
        (0..self.fleet.members.len()).collect()
    }

    fn all_but(&self, one: usize) -> Vec<usize> {
        self.all().into_iter().filter(|at| *at != one).collect()
    }

    /// Writes go on through these proxies; says how long they did not.
    async fn resumes(&self, proxies: &[usize], since: Instant) -> Duration {
        self.ledger.goes_on(proxies).await;
        let pauses = proxies.iter().map(|via| self.ledger.longest_pause(*via, since));
        let longest = pauses.max().unwrap_or_default();
        println!("writes paused for {} ms at most", longest.as_millis());
        longest
    }

    /// Waits until a proxy holds writes because of this.
    async fn held(&self, why: &str) {
        let look = async || {
            let mut said = Vec::new();
            for member in &self.fleet.members {
                let status = member.proxy.status().await.unwrap_or_default();
                said.push(status["failover"]["held"].as_str().unwrap_or_default().to_owned());
            }
            said
        };
        let wanted = |said: &Vec<String>| said.iter().any(|reason| reason.contains(why));
        becomes(&format!("a proxy holds writes because of {why:?}"), LIMIT, look, wanted).await;
    }

    /// Writes go on through all proxies, on the primary that there was, after so many faults.
    async fn stays(&self, faults: usize) -> Outcome {
        self.ledger.goes_on(&self.all()).await;
        let proof = self.prove().await?;
        assert_eq!(proof.epochs.len(), 1, "{proof:?}");
        self.ledger.few_failed(&self.all(), faults);
        Ok(())
    }

    /// Holds all rows against the primary of the record.
    async fn prove(&self) -> Result<Proof, Failure> {
        let proof = self.ledger.prove(&*self.fleet.primary()?).await?;
        println!("{} rows acknowledged, server of each epoch: {:?}", proof.acknowledged, proof.epochs);
        Ok(proof)
    }
}

async fn primary_killed(stage: Arc<Stage>, proxies: usize) -> Outcome {
    let scene = Scene::set(&stage, Layout { proxies, ..TWO }).await?;
    let killed = Instant::now();
    scene.fleet.primary()?.kill().await?;
    let pause = scene.resumes(&scene.all(), killed).await;
    assert!(pause < RESUMED_WITHIN, "{pause:?}");
    let proof = scene.prove().await?;
    assert_eq!(proof.epochs.len(), 2, "{proof:?}");
    scene.ledger.few_failed(&scene.all(), 1);
    Ok(())
}

const LIMIT: Duration = Duration::from_secs(30);
/// Writers at each proxy.
const WRITERS: usize = 3;
/// Below the lease of [`TWO`], and far above what a busy machine needs: a wait for a lease would be found.
const RESUMED_WITHIN: Duration = Duration::from_millis(4500);
