//! Who becomes the primary: whoever holds everything, or gets it from the one that does.

use std::sync::Arc;

use pointsman_integration_tests::sandbox::Server;
use pointsman_integration_tests::{Flavour, Outcome, Stage, Suite, eventually};

use crate::scene::{LIMIT, RESUMED_WITHIN, Scene};
use crate::{add_all, plain};

pub(crate) fn add(suite: &mut Suite, flavour: Flavour) {
    add_all(
        suite,
        vec![
            plain("17: one replica is ahead of the other", flavour, |stage| Box::pin(ahead(stage))),
            plain("18: the replica that is ahead must never be promoted", flavour, |stage| {
                Box::pin(catches_up(stage, "promotion = \"never\""))
            }),
            plain("18: the replica that is ahead is in another region", flavour, |stage| {
                Box::pin(catches_up(stage, "region = \"elsewhere\""))
            }),
        ],
    );
}

/// Lets `behind` receive nothing any more, and waits for rows that it does not have.
async fn leave_behind(scene: &Scene, behind: &Server) -> Outcome {
    behind.run(&["STOP REPLICA IO_THREAD"]).await?;
    scene.goes_on().await;
    Ok(())
}

async fn ahead(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage).await?;
    let [best, behind] = scene.sandbox.replicas() else { return Err("expected two replicas".into()) };
    leave_behind(&scene, behind).await?;
    let (new, pause) = scene.lose_primary().await?;
    assert_eq!(new.name(), best.name());
    assert!(pause < RESUMED_WITHIN, "{pause:?}");
    follows(&new, behind).await?;
    scene.prove(2, 1).await?;
    Ok(())
}

/// The one that may be promoted gets what it lacks from the one that may not.
async fn catches_up(stage: Arc<Stage>, key: &str) -> Outcome {
    let scene = Scene::set_with(&stage, &[(1, key)], "").await?;
    let [best, behind] = scene.sandbox.replicas() else { return Err("expected two replicas".into()) };
    leave_behind(&scene, behind).await?;
    let (new, pause) = scene.lose_primary().await?;
    assert_eq!(new.name(), behind.name());
    assert!(pause < CAUGHT_UP_WITHIN, "{pause:?}");
    follows(&new, best).await?;
    scene.prove(2, 1).await?;
    Ok(())
}

/// `replica` gets what `primary` writes from now on.
async fn follows(primary: &Server, replica: &Server) -> Outcome {
    let position = primary.position().await?;
    eventually("the other one follows", LIMIT, async || {
        replica.reach(&position, std::time::Duration::from_secs(1)).await.is_ok()
    })
    .await;
    Ok(())
}

/// One more change of the source than elsewhere, and the connection to it.
const CAUGHT_UP_WITHIN: std::time::Duration = std::time::Duration::from_secs(8);
