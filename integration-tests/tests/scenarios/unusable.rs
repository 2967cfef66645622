//! A replica that must not become the primary whatever it holds: it wrote itself, leaves rows out, or cannot apply.

use std::sync::Arc;

use pointsman_integration_tests::sandbox::Server;
use pointsman_integration_tests::{Flavour, Outcome, Plan, Stage, Suite, eventually};
use tokio::time::Instant;

use crate::scene::{LIMIT, RESUMED_WITHIN, Scene, lossless};
use crate::{add_all, plain};

pub(crate) fn add(suite: &mut Suite, flavour: Flavour) {
    add_all(
        suite,
        vec![
            plain("19: a replica wrote itself, then the primary is killed", flavour, |stage| {
                Box::pin(errant(stage))
            }),
            ("21: a replica leaves rows out, then the primary is killed", three(flavour), |stage| {
                Box::pin(filtered(stage))
            }),
            (
                "21: a replica that leaves rows out is the only one that received them",
                three(flavour),
                |stage| Box::pin(filtered_and_ahead(stage)),
            ),
            plain("22: a replica cannot apply, the other one has everything", flavour, |stage| {
                Box::pin(cannot_apply(stage))
            }),
        ],
    );
    if flavour == Flavour::Mariadb {
        let name = "22: the only copy is on a replica that cannot apply it";
        suite.test_alone(lossless(flavour), name, cannot_apply_the_only_copy);
    }
}

/// MySQL's sets tell that it holds what nobody else does, so it proves nothing and the primary is waited for. MariaDB's
/// numbers tell that the other one has everything.
async fn errant(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage).await?;
    let [errant, other] = scene.sandbox.replicas() else { return Err("expected two replicas".into()) };
    errant.set_read_only(false).await?;
    errant.run(&["CREATE TABLE app.errant (id INT PRIMARY KEY)"]).await?;
    errant.set_read_only(true).await?;
    is_out(&scene, errant).await;
    scene.goes_on().await;
    match errant.flavour() {
        Flavour::Mariadb => other_has_everything(&scene, other).await,
        Flavour::Mysql => {
            scene.sandbox.primary().kill().await?;
            waits_for_the_primary(&scene, errant).await
        }
    }
}

/// Kills the primary when `other` has everything, which is promoted then.
async fn other_has_everything(scene: &Scene, other: &Server) -> Outcome {
    scene.ready().await;
    scene.ledger.pause().await;
    eventually("the other one has everything", LIMIT, async || {
        let primary = scene.sandbox.primary();
        let Ok(position) = primary.position().await else { return false };
        other.reach(&position, LIMIT).await.is_ok()
            && primary.position().await.is_ok_and(|now| now == position)
    })
    .await;
    scene.sandbox.primary().kill().await?;
    let killed = Instant::now();
    scene.ledger.go_on();
    let (new, pause) = scene.replaced(scene.sandbox.primary(), killed).await?;
    assert_eq!(new.name(), other.name());
    assert!(pause < RESUMED_WITHIN, "{pause:?}");
    scene.prove(2, 1).await?;
    Ok(())
}

/// Nobody is promoted for lack of `missing`; when the primary is back, writes go on.
async fn waits_for_the_primary(scene: &Scene, missing: &Server) -> Outcome {
    scene.held(&["1 of 2 ackers", "2 are needed", &format!("missing: {}", missing.name())]).await;
    scene.nobody_writable(&[]).await?;
    scene.sandbox.primary().start().await?;
    scene.goes_on().await;
    assert_ne!(scene.proxy.primary(&scene.sandbox).await?.name(), missing.name());
    scene.prove(2, 1).await?;
    Ok(())
}

/// Waits until `server` serves no reads.
async fn is_out(scene: &Scene, server: &Server) {
    eventually("it is kept out", LIMIT, async || scene.status_of(server).await["state"] == "excluded").await;
}

/// Lets a replica pass over the rows of the writers.
async fn leave_out(replica: &Server) -> Outcome {
    let sql: &[&str] = match replica.flavour() {
        Flavour::Mariadb => {
            &["STOP SLAVE", "SET GLOBAL replicate_ignore_table = 'app.ledger'", "START SLAVE"]
        }
        Flavour::Mysql => &[
            "STOP REPLICA SQL_THREAD",
            "CHANGE REPLICATION FILTER REPLICATE_IGNORE_TABLE = (app.ledger)",
            "START REPLICA SQL_THREAD",
        ],
    };
    Ok(replica.run(sql).await?)
}

/// Three replicas: two are left to acknowledge when one leaves rows out.
fn three(flavour: Flavour) -> Plan {
    let mut plan = lossless(flavour);
    plan.sandbox.replicas = 3;
    plan
}

async fn filtered(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage).await?;
    let filtered = &scene.sandbox.replicas()[0];
    leave_out(filtered).await?;
    scene.goes_on().await;
    scene.ready().await;
    let (new, pause) = scene.lose_primary().await?;
    assert_ne!(new.name(), filtered.name());
    assert!(pause < RESUMED_WITHIN, "{pause:?}");
    scene.prove(2, 1).await?;
    Ok(())
}

/// It has the numbers of all transactions and not their rows, so nobody can get them from it, and a person has to decide:
/// even the primary, when it comes back, may lack what it received last.
async fn filtered_and_ahead(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage).await?;
    let [filtered, others @ ..] = scene.sandbox.replicas() else { return Err("expected replicas".into()) };
    leave_out(filtered).await?;
    scene.goes_on().await;
    for other in others {
        other.run(&["STOP REPLICA IO_THREAD"]).await?;
    }
    scene.goes_on().await;
    scene.ready().await;
    scene.sandbox.primary().kill().await?;
    scene.held(&[filtered.name(), "has replication filters"]).await;
    scene.nobody_writable(&[]).await?;
    Ok(())
}

/// Makes the next row of the writers fail on a replica.
async fn break_applying(scene: &Scene, replica: &Server) -> Outcome {
    replica.set_read_only(false).await?;
    replica.run(&["SET sql_log_bin = 0", "DROP TABLE app.ledger"]).await?;
    replica.set_read_only(true).await?;
    is_out(scene, replica).await;
    Ok(())
}

async fn cannot_apply(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage).await?;
    let [broken, other] = scene.sandbox.replicas() else { return Err("expected two replicas".into()) };
    break_applying(&scene, broken).await?;
    other_has_everything(&scene, other).await
}

/// Acknowledged rows are in the relay log of a replica that cannot apply them, and nowhere else.
async fn cannot_apply_the_only_copy(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage).await?;
    let [broken, other] = scene.sandbox.replicas() else { return Err("expected two replicas".into()) };
    break_applying(&scene, broken).await?;
    scene.ready().await;
    other.run(&["STOP REPLICA IO_THREAD"]).await?;
    scene.ledger.goes_on(&[0]).await;
    scene.sandbox.primary().kill().await?;
    waits_for_the_primary(&scene, broken).await
}
