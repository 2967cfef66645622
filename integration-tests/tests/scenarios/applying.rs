//! What a replica has received and not applied counts, if it can still apply it.

use std::sync::Arc;
use std::time::Duration;

use pointsman_integration_tests::{Flavour, Locks, Outcome, Stage, Suite};
use tokio::time::Instant;

use crate::scene::{RESUMED_WITHIN, Scene};
use crate::{add_all, plain};

pub(crate) fn add(suite: &mut Suite, flavour: Flavour) {
    add_all(
        suite,
        vec![
            plain("16: all replicas are three seconds behind in applying", flavour, |stage| {
                Box::pin(far_behind(stage))
            }),
            plain("20: a replica that is delayed on purpose holds the only copy", flavour, |stage| {
                Box::pin(delayed(stage))
            }),
        ],
    );
}

/// Rows of the writers cannot be applied as long as this is held; they are received.
const HOLDS_APPLYING: &str = "FLUSH TABLES app.ledger WITH READ LOCK";
const BEHIND_BY: Duration = Duration::from_secs(3);

async fn far_behind(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage).await?;
    let locks = Locks::take(scene.sandbox.replicas(), HOLDS_APPLYING).await?;
    let began = Instant::now();
    while began.elapsed() < BEHIND_BY {
        scene.goes_on().await;
    }
    scene.sandbox.primary().kill().await?;
    scene.held(&["has not applied yet all that it has received"]).await;
    scene.nobody_writable(&[]).await?;
    let released = Instant::now();
    locks.release().await?;
    let (_, pause) = scene.replaced(scene.sandbox.primary(), released).await?;
    assert!(pause < APPLIED_WITHIN, "{pause:?}");
    scene.prove(2, 1).await?;
    Ok(())
}

/// The delay ends when there is nobody else: at once on MySQL. MariaDB changes it only at the price of what is not applied,
/// so there it is waited for.
async fn delayed(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage).await?;
    let [other, delayed] = scene.sandbox.replicas() else { return Err("expected two replicas".into()) };
    let (delay, within) = match scene.sandbox.options().flavour {
        Flavour::Mariadb => (SHORT_DELAY, SHORT_DELAY + RESUMED_WITHIN),
        Flavour::Mysql => (LONG_DELAY, RESUMED_WITHIN),
    };
    delayed.delay_replication(delay).await?;
    scene.goes_on().await;
    // Each of these rows is acknowledged by the delayed one alone.
    other.run(&["STOP REPLICA IO_THREAD"]).await?;
    scene.goes_on().await;
    scene.ready().await;
    let (new, pause) = scene.lose_primary().await?;
    assert_eq!(new.name(), delayed.name());
    assert!(pause < within, "{pause:?}");
    scene.prove(2, 1).await?;
    Ok(())
}

const SHORT_DELAY: Duration = Duration::from_secs(3);
const LONG_DELAY: Duration = Duration::from_secs(60);
/// Three seconds of rows are applied first.
const APPLIED_WITHIN: Duration = Duration::from_secs(4);
