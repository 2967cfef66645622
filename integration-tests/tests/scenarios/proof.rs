//! A promotion needs the proof that nothing acknowledged is lost; without it nobody is promoted, and it is said why.

use std::sync::Arc;

use pointsman_integration_tests::sandbox::Options;
use pointsman_integration_tests::{Flavour, Outcome, Plan, Stage, Suite, eventually};
use tokio::time::Instant;

use crate::scene::{LIMIT, RESUMED_WITHIN, Scene, lossless};
use crate::{add_all, plain};

pub(crate) fn add(suite: &mut Suite, flavour: Flavour) {
    add_all(
        suite,
        vec![
            plain("14, 15: primary and a replica are killed, and come back one by one", flavour, |stage| {
                Box::pin(both_killed(stage))
            }),
            plain("15: the primary is killed while a replica is frozen, which is let go", flavour, |stage| {
                Box::pin(replica_let_go(stage))
            }),
            (
                "39: acknowledgements are switched off by hand where they are demanded",
                linked(flavour),
                |stage| Box::pin(degraded_where_lossless(stage)),
            ),
            ("39: acknowledgements are switched off by hand", linked(flavour), |stage| {
                Box::pin(degraded(stage))
            }),
        ],
    );
    if flavour == Flavour::Mysql {
        let name = "14: primary and one of four replicas are killed, two acknowledge each commit";
        suite.test_alone(two_acknowledge(), name, two_are_enough);
    }
}

/// Two replicas acknowledge and one is enough: what the killed one held nobody knows. A replica that has restarted may have
/// thrown its relay log away and proves nothing; only the primary's return does.
async fn both_killed(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage).await?;
    let (primary, replica) = (scene.sandbox.primary(), &scene.sandbox.replicas()[0]);
    let (one, other) = tokio::join!(primary.kill(), replica.kill());
    one?;
    other?;
    // Too many are gone to be sure that it is not this proxy, or it has lost its locks on most of them, or the proof fails.
    scene.lacks_proof().await;
    scene.reads_go_on().await;
    scene.nobody_writable(&[]).await?;
    replica.start().await?;
    scene.held(&["1 of 2 ackers", "2 are needed", &format!("missing: {}", replica.name())]).await;
    scene.reads_go_on().await;
    scene.nobody_writable(&[]).await?;
    primary.start().await?;
    scene.goes_on().await;
    scene.prove(2, 1).await?;
    Ok(())
}

/// A replica that was only silent has lost nothing.
async fn replica_let_go(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage).await?;
    let (primary, replica) = (scene.sandbox.primary(), &scene.sandbox.replicas()[0]);
    replica.freeze().await?;
    eventually("it is missed", LIMIT, async || scene.status_of(replica).await["state"] == "down").await;
    primary.kill().await?;
    scene.lacks_proof().await;
    scene.reads_go_on().await;
    scene.nobody_writable(&[replica]).await?;
    let let_go = Instant::now();
    replica.thaw().await?;
    let (_, pause) = scene.replaced(primary, let_go).await?;
    assert!(pause < RESUMED_WITHIN, "{pause:?}");
    scene.prove(2, 1).await?;
    Ok(())
}

/// Four replicas: when one is gone with the primary, two are left to acknowledge what the third one writes.
fn two_acknowledge() -> Plan {
    let options = vec!["--loose-rpl-semi-sync-source-wait-for-replica-count=2".to_owned()];
    let sandbox =
        Options { flavour: Flavour::Mysql, replicas: 4, lossless: true, options, ..Options::default() };
    Plan { sandbox, configuration: String::new() }
}

/// Whatever the killed replica held, another one holds too.
async fn two_are_enough(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage).await?;
    let (primary, replica) = (scene.sandbox.primary(), &scene.sandbox.replicas()[0]);
    let killed = Instant::now();
    let (one, other) = tokio::join!(primary.kill(), replica.kill());
    one?;
    other?;
    let (new, pause) = scene.replaced(primary, killed).await?;
    assert_ne!(new.name(), replica.name());
    assert!(pause < RESUMED_WITHIN, "{pause:?}");
    scene.prove(2, 1).await?;
    Ok(())
}

/// Switches off that the primary waits for acknowledgements, waits until it is known, and acknowledges rows that no other
/// server has.
async fn degrade(scene: &Scene) -> Outcome {
    let off = match scene.sandbox.options().flavour {
        Flavour::Mariadb => "SET GLOBAL rpl_semi_sync_master_enabled=0",
        Flavour::Mysql => "SET GLOBAL rpl_semi_sync_source_enabled=0",
    };
    scene.sandbox.primary().run(&[off]).await?;
    eventually("it is known", LIMIT, async || scene.status().await["failover"]["durability"] == "async")
        .await;
    assert!(scene.proxy.log().contains("no longer waits for acknowledgements"), "no alarm");
    for replica in scene.sandbox.replicas() {
        replica.cut_replication(true).await;
    }
    scene.goes_on().await;
    Ok(())
}

async fn degraded_where_lossless(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set_with(&stage, &[], "[failover]\ndurability = \"lossless\"\n").await?;
    degrade(&scene).await?;
    let primary = scene.sandbox.primary();
    primary.kill().await?;
    scene.held(&["failover.durability is lossless and replication was not"]).await;
    scene.reads_go_on().await;
    scene.nobody_writable(&[]).await?;
    let planned = scene.order(&["failover", "--primary-is-dead", "--allow-data-loss", "--dry-run"]).await?;
    assert!(planned.out.contains("WOULD BE LOST: "), "{}{}", planned.out, planned.err);
    primary.start().await?;
    mend(&scene).await;
    // It has lost its role at its restart, and nobody gives it back but a person.
    primary.set_read_only(false).await?;
    scene.goes_on().await;
    scene.prove(1, deaths_when_degraded(&scene)).await?;
    Ok(())
}

/// By default what was acknowledged through the proxy decides: these rows died with the primary, so it is waited for.
async fn degraded(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage).await?;
    degrade(&scene).await?;
    scene.sandbox.primary().kill().await?;
    scene.held(&["acknowledged and not found on any server that was reached: "]).await;
    scene.reads_go_on().await;
    scene.nobody_writable(&[]).await?;
    scene.sandbox.primary().start().await?;
    mend(&scene).await;
    scene.goes_on().await;
    scene.prove(2, deaths_when_degraded(&scene)).await?;
    Ok(())
}

/// MySQL sometimes stands still for so long when the waiting is switched off that it is taken for down for a moment.
fn deaths_when_degraded(scene: &Scene) -> usize {
    match scene.sandbox.options().flavour {
        Flavour::Mariadb => 1,
        Flavour::Mysql => 2,
    }
}

async fn mend(scene: &Scene) {
    for replica in scene.sandbox.replicas() {
        replica.cut_replication(false).await;
    }
}

/// Replication can be cut.
fn linked(flavour: Flavour) -> Plan {
    let mut plan = lossless(flavour);
    plan.sandbox.linked = true;
    plan
}
