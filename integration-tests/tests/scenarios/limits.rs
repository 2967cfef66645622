//! Failovers one after the other: as many as the limits allow, and more where nothing can be lost.

use std::sync::Arc;
use std::time::Duration;

use pointsman_integration_tests::sandbox::{Options, Server};
use pointsman_integration_tests::{Flavour, Outcome, Plan, Stage, Suite};
use tokio::time::Instant;

use crate::scene::{LIMIT, RESUMED_WITHIN, Scene};
use crate::{add_all, plain};

pub(crate) fn add(suite: &mut Suite, flavour: Flavour) {
    add_all(
        suite,
        vec![plain("35: the new primary is killed soon, all that acknowledge are there", flavour, |stage| {
            Box::pin(again_at_once(stage))
        })],
    );
    // The limits do not ask what the servers are.
    if flavour == Flavour::Mariadb {
        let sandbox = Options { flavour, replicas: 2, ..Options::default() };
        let plan = Plan { sandbox, configuration: String::new() };
        let name = "35: async, new primaries are killed soon: min_interval and max_per_hour";
        suite.test_alone(plan, name, limited);
    }
}

/// Less than the default `failover.min_interval` after the last one.
async fn again_at_once(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage).await?;
    let first = scene.sandbox.primary();
    let killed = Instant::now();
    first.kill().await?;
    let (second, _) = scene.replaced(first, killed).await?;
    scene.proxy.bring_back(&scene.sandbox, first).await?;
    scene.proxy.settled(&scene.sandbox, LIMIT).await;
    let killed = Instant::now();
    second.kill().await?;
    let (_, pause) = scene.replaced(&second, killed).await?;
    assert!(pause < RESUMED_WITHIN, "{pause:?}");
    scene.prove(3, 2).await?;
    Ok(())
}

const LIMITS: &str = "[failover]\nmin_interval = \"25s\"\nmax_per_hour = 2\n";

async fn limited(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set_with(&stage, &[], LIMITS).await?;
    let first = scene.sandbox.primary();
    let killed = kill_at_rest(&scene, first).await?;
    let (second, pause) = scene.replaced(first, killed).await?;
    assert!(pause < RESUMED_WITHIN, "{pause:?}");
    first.start().await?;
    scene.proxy.settled(&scene.sandbox, LIMIT).await;
    let killed_again = kill_at_rest(&scene, &second).await?;
    scene.held(&["the last automatic failover was"]).await;
    scene.reads_go_on().await;
    scene.nobody_writable(&[]).await?;
    let (third, _) = scene.replaced(&second, killed_again).await?;
    assert!(killed.elapsed() >= Duration::from_secs(25), "{:?}", killed.elapsed());
    second.start().await?;
    scene.proxy.settled(&scene.sandbox, LIMIT).await;
    kill_at_rest(&scene, &third).await?;
    scene.held(&["there were 2 automatic failovers within the last hour"]).await;
    let by_hand = scene.order(&["failover", "--primary-is-dead", "--yes"]).await?;
    assert_eq!(by_hand.code, 0, "{}{}", by_hand.out, by_hand.err);
    scene.goes_on().await;
    scene.prove(4, 3).await?;
    Ok(())
}

/// Kills a primary when all others have what it acknowledged; says when.
async fn kill_at_rest(
    scene: &Scene,
    primary: &Server,
) -> Result<Instant, pointsman_integration_tests::Failure> {
    scene.ledger.pause().await;
    scene.rests(primary).await?;
    let position = primary.position().await?;
    for server in scene.sandbox.servers() {
        if server.name() != primary.name() {
            server.reach(&position, LIMIT).await?;
        }
    }
    primary.kill().await?;
    scene.ledger.go_on();
    Ok(Instant::now())
}
