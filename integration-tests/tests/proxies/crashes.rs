//! The proxy that acts dies or freezes in the middle of it: another one goes on where it was.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use pointsman_integration_tests::{Layout, Locks, Outcome, Stage, eventually};
use pointsman_router::failover::{Phase, Record};
use tokio::time::Instant;

use crate::{LIMIT, RESUMED_WITHIN, SHORT_LEASE, Scene, TWO};

/// Replicas cannot apply what they have received, so nobody is chosen.
const HOLDS_FENCING: &str = "LOCK TABLES app.ledger READ";
/// The candidate cannot write the row of its epoch.
const HOLDS_CHOSEN: &str = "LOCK TABLES pointsman.epoch READ";
/// Another proxy sees that the actor has fallen silent and takes its place, without a wait for its lease of three seconds or
/// more.
const TAKEN_OVER_WITHIN: Duration = Duration::from_millis(2800);

/// Kills the primary and waits for `phase`, which the locks hold; answers the record and which proxy acts.
async fn held_in(
    scene: &Scene,
    phase: Phase,
) -> Result<(Record, usize), pointsman_integration_tests::Failure> {
    scene.fleet.primary()?.kill().await?;
    let record = scene.fleet.record_becomes(phase.name(), |record| record.phase == phase).await;
    let actor = scene.fleet.by_name(&record.actor.0).ok_or("an unknown actor")?;
    Ok((record, actor))
}

/// Waits until another proxy acts than in `before`, which must not take longer than it takes to miss it.
async fn taken_over(scene: &Scene, before: &Record, since: Instant) -> Record {
    let record = scene.fleet.record_becomes("another actor", |record| record.actor != before.actor).await;
    let took = since.elapsed();
    println!("another proxy acts after {} ms, in {}", took.as_millis(), record.phase.name());
    assert!(took < TAKEN_OVER_WITHIN, "{took:?}");
    assert_eq!((record.phase, record.epoch), (before.phase, before.epoch));
    record
}

pub(crate) async fn fencing(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage, TWO).await?;
    let locks = Locks::take(scene.fleet.sandbox.replicas(), HOLDS_FENCING).await?;
    let (before, actor) = held_in(&scene, Phase::Fencing).await?;
    scene.fleet.members[actor].kill().await?;
    taken_over(&scene, &before, Instant::now()).await;
    let released = Instant::now();
    locks.release().await?;
    ends_well(&scene, actor, released).await
}

pub(crate) async fn chosen(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage, TWO).await?;
    let sandbox = &scene.fleet.sandbox;
    // A heartbeat that came after the locks could not be applied, and nobody would be chosen.
    let beats = Locks::take(std::slice::from_ref(sandbox.primary()), HOLDS_CHOSEN).await?;
    let position = sandbox.primary().position().await?;
    for replica in sandbox.replicas() {
        replica.reach(&position, LIMIT).await?;
    }
    let locks = Locks::take(sandbox.replicas(), HOLDS_CHOSEN).await?;
    let (before, actor) = held_in(&scene, Phase::Chosen).await?;
    drop(beats);
    scene.fleet.members[actor].kill().await?;
    let after = taken_over(&scene, &before, Instant::now()).await;
    assert_eq!(after.candidate, before.candidate);
    let released = Instant::now();
    locks.release().await?;
    ends_well(&scene, actor, released).await?;
    assert_eq!(scene.fleet.record().and_then(|record| record.primary), before.candidate);
    Ok(())
}

pub(crate) async fn active(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage, TWO).await?;
    // The actor hears late that its swap to ACTIVE was won, and is killed before it does.
    scene.fleet.members.iter().for_each(|member| member.delay_etcd(Duration::from_millis(300)));
    let (before, actor) = held_in(&scene, Phase::Active).await?;
    scene.fleet.members[actor].kill().await?;
    let killed = Instant::now();
    let primary = scene.fleet.primary()?;
    let read_only: Vec<bool> = primary.rows("SELECT @@global.read_only").await?;
    assert_eq!(read_only, [true], "the actor was killed too late");
    scene.fleet.members.iter().for_each(|member| member.delay_etcd(Duration::ZERO));
    taken_over(&scene, &before, killed).await;
    ends_well(&scene, actor, killed).await
}

pub(crate) async fn frozen(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage, Layout { lease: SHORT_LEASE, ..TWO }).await?;
    let locks = Locks::take(scene.fleet.sandbox.replicas(), HOLDS_FENCING).await?;
    let (before, actor) = held_in(&scene, Phase::Fencing).await?;
    let proxy = &scene.fleet.members[actor].proxy;
    proxy.signal(Signal::SIGSTOP).await?;
    let after = taken_over(&scene, &before, Instant::now()).await;
    let released = Instant::now();
    locks.release().await?;
    scene.resumes(&scene.all_but(actor), released).await;
    scene.fleet.record_becomes("STABLE", |record| record.phase == Phase::Stable).await;
    eventually("the frozen proxy's lease runs out", LIMIT, async || {
        scene.fleet.ranks().await.is_ok_and(|ranks| !ranks.contains(&actor))
    })
    .await;
    for server in scene.fleet.sandbox.replicas() {
        server.general_log(true).await?;
    }
    proxy.signal(Signal::SIGCONT).await?;
    scene.ledger.goes_on(&scene.all()).await;
    changed_nothing(&scene).await?;
    let now = scene.fleet.record().ok_or("no record")?;
    assert_eq!((now.epoch, &now.actor), (after.epoch, &after.actor), "{now:?}");
    scene.prove().await?;
    Ok(())
}

/// Nobody has done a step on a replica or on the new primary since the general log was switched on.
async fn changed_nothing(scene: &Scene) -> Outcome {
    for server in scene.fleet.sandbox.replicas() {
        let words = ["SET GLOBAL", "STOP ", "RESET ", "CHANGE ", "FLUSH ", "KILL "];
        let steps = server.logged().await?.into_iter().filter(|logged| {
            // The switching on of the log itself is root's.
            logged.user == "pointsman" && words.iter().any(|word| logged.argument.starts_with(word))
        });
        let steps: Vec<_> = steps.collect();
        assert!(steps.is_empty(), "{}: {steps:?}", server.name());
    }
    Ok(())
}

pub(crate) async fn both(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage, TWO).await?;
    // Who is first in the list acts without letting others go first.
    let first = *scene.fleet.ranks().await?.first().ok_or("no proxy is registered")?;
    let primary = scene.fleet.primary()?;
    let killed = Instant::now();
    let (one, other) = tokio::join!(primary.kill(), scene.fleet.members[first].kill());
    one?;
    other?;
    ends_well(&scene, first, killed).await
}

/// Writes go on through the proxy that is left, and all rows are there.
async fn ends_well(scene: &Scene, killed: usize, since: Instant) -> Outcome {
    let left = scene.all_but(killed);
    let pause = scene.resumes(&left, since).await;
    assert!(pause < RESUMED_WITHIN, "{pause:?}");
    let proof = scene.prove().await?;
    assert_eq!(proof.epochs.len(), 2, "{proof:?}");
    scene.ledger.few_failed(&left, 1);
    Ok(())
}
